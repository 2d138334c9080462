"""The Python blocks of the README and of the guide run, and print what they say."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
# A block, and the output that is shown right after it, if any.
BLOCK = re.compile(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", flags=re.DOTALL)
PAGES = {
    str(path.relative_to(ROOT)): BLOCK.findall(path.read_text(encoding="utf-8"))
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    if "_build" not in path.parts
}
PAGES = {name: blocks for name, blocks in PAGES.items() if blocks}

# Pages that use models whose weights must be downloaded, by name or by default; here
# they run with the bundled model in their place.
NEEDS_DOWNLOAD = {
    "README.md": {"ViT-B-16"},
    "docs/index.md": {"ViT-B-16"},
    "docs/getting_started.md": {"ViT-B-16"},
}
BY_DEFAULT = re.compile(
    r"(CLIPEmbedder|SeMoBridgeClassifier|BridgedGDAClassifier|make_few_shot_pipeline)"
    r"\(\)"
)


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Work in a folder that has the files the pages speak of."""
    from skbridge.datasets import load_emoji

    emoji = load_emoji(styles=["noto", "twemoji", "fxemoji"])
    for i in np.flatnonzero(emoji.target < 3):
        folder = tmp_path / "photos" / emoji.target_names[emoji.target[i]]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(emoji.images[i]).save(folder / f"{emoji.styles[i]}.jpg")
    monkeypatch.chdir(tmp_path)


def same_output(printed, shown):
    """Whether two texts agree, numbers with a point within 2 of the last digit."""
    printed, shown = printed.split(), shown.split()
    return len(printed) == len(shown) and all(map(same_word, printed, shown))


def same_word(printed, shown):
    number = re.compile(r"\d+\.(\d+)")
    if number.sub("#", printed) != number.sub("#", shown):
        return False
    pairs = zip(number.finditer(printed), number.finditer(shown), strict=True)
    return all(
        abs(float(a[0]) - float(b[0])) < 2.5 * 10.0 ** -len(b[1]) for a, b in pairs
    )


def test_outputs_are_compared_number_by_number():
    assert same_output("[0.51 cat]\n", "[0.52  cat]")
    assert not same_output("0.51 cat", "0.54 cat")
    assert not same_output("0.51 cat", "0.51 dog")
    assert not same_output("0.51", "0.51 cat")


def test_downloads_are_listed_and_no_others_are_needed():
    named = {
        page: set(
            re.findall(
                r'"((?:ViT-|RN)[^"]+)"',
                "".join(BY_DEFAULT.sub(r'\1("ViT-B-16")', code) for code, _ in blocks),
            )
        )
        for page, blocks in PAGES.items()
    }
    assert {page: names for page, names in named.items() if names} == NEEDS_DOWNLOAD


def test_accuracies_in_the_readme_are_those_of_the_benchmark():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = readme.split("public features")[1].split("benchmarks/accuracy.py")[0]
    rows = re.findall(r"^\| [^|]+ \| (\d+\..*) \|$", table, flags=re.MULTILINE)
    measured = (ROOT / "docs" / "accuracy.md").read_text(encoding="utf-8")
    measured = measured.replace("**", "")
    assert len(rows) >= 6
    assert [row for row in rows if f"| {row} |" not in measured] == []


@pytest.mark.parametrize("page", PAGES)
def test_blocks_of_the_page_run(page, photos, capsys):
    if page == "docs/guide/scale.md":
        pytest.importorskip("pyarrow")
    names = {}
    for index, (code, shown) in enumerate(PAGES[page]):
        code = BY_DEFAULT.sub(r'\1("skbridge-tiny")', code)
        for model in NEEDS_DOWNLOAD.get(page, ()):
            code = code.replace(model, "skbridge-tiny")
        exec(compile(code, f"{page}, Python block {index}", "exec"), names)
        printed = capsys.readouterr().out
        if shown:
            assert same_output(printed, shown), f"block {index} printed:\n{printed}"
