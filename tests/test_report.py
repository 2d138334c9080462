"""The page of skbridge report, in a real browser where there is one."""

import csv
import json
import os
import re
import shutil
from contextlib import contextmanager

import numpy as np
import pytest
from photo_folders import NEW, SHOTS, write_bad_photos, write_photos

from skbridge import make_few_shot_pipeline
from skbridge._cli import main
from skbridge.datasets import load_image_folder
from skbridge.photos import fit_photos, read_corrections, write_report

EVIL_CLASS = "<script>"
EVIL_NAME = "\"><img src=x onerror=document.title='evil'>.png"
BROWSERS = ("chromium", "google-chrome", "chrome", "chromium-browser")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Photographs, a class and a file with names like HTML, and a wrong label."""
    root = tmp_path_factory.mktemp("report")
    write_photos(root / "photos", [*SHOTS, "emojione"])
    write_photos(root / "new", NEW[1:])
    if os.name == "posix":
        (root / "photos" / "ambulance").rename(root / "photos" / EVIL_CLASS)
        shutil.copy(root / "new/ant/noto-v1.png", root / "new" / "ant" / EVIL_NAME)
    shutil.copy(root / "photos/ant/noto.png", root / "photos" / "anchor" / "wrong.png")
    shutil.copy(root / "photos/ant/noto.png", root / "new" / "copy.png")
    write_bad_photos(root / "new" / "bad")
    return root


@pytest.fixture(scope="module")
def page(folder):
    """The file, and the model that wrote it."""
    found = load_image_folder(folder / "photos")
    pipeline = make_few_shot_pipeline("skbridge-tiny")
    model = fit_photos(pipeline, found.paths, list(found.target))
    # The bad files lie there too, so their suffixes count.
    new = sorted(str(path) for path in (folder / "new").rglob("*.*"))
    write_report(model, new, folder / "report.html", n_next=3)
    return folder / "report.html", model


def good_photos(folder):
    return [str(path) for path in sorted((folder / "new" / "ant").iterdir())]


def content_of(path):
    text = path.read_text(encoding="utf-8")
    (block,) = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', text)
    return json.loads(block)


def test_the_page_has_everything_and_loads_nothing(page):
    path, model = page
    text = path.read_text(encoding="utf-8")
    assert re.findall(r"https?://|<link|<iframe|@import|url\(", text) == []
    assert text.count("<script") == 2
    assert "default-src 'none'" in text
    content = content_of(path)
    new = [item for item in content["items"] if "given" not in item]
    assert len(content["unreadable"]) == 10
    assert sorted(item["rank"] for item in new if "rank" in item) == [1, 2, 3]
    wrong = content["suspicious"][0]
    assert content["items"][wrong["item"]]["name"] == "wrong.png"
    copies = {content["items"][i]["name"] for i, _, _ in content["duplicates"]}
    assert "copy.png" in copies
    assert sum(map(sum, content["matrix"]["counts"])) == len(model.shots)
    assert all(item["thumb"] for item in content["items"])


@pytest.fixture(scope="module")
def labelled(page, folder):
    """A page of photographs whose labels are known, but for one; and predictions."""
    path = folder / "labelled.html"
    new = sorted(map(str, (folder / "new").glob("a*/*.png")))
    names = {"ambulance": EVIL_CLASS, "ant": "anchor"}
    labels = [os.path.basename(os.path.dirname(name)) for name in new]
    labels = [None, *(names.get(label, label) for label in labels[1:])]
    return path, write_report(page[1], new, path, labels=labels), labels


@pytest.mark.skipif(os.name != "posix", reason="such names are not allowed there")
def test_known_labels_give_accuracy_and_confusions(labelled):
    path, predicted, labels = labelled
    content = content_of(path)
    is_labelled = np.array([label is not None for label in labels])
    right = (predicted.labels == np.array(labels))[is_labelled]
    measured = predicted.measured
    assert (measured.n, measured.accuracy) == (len(right), right.mean())
    assert measured.interval[0] < measured.accuracy < measured.interval[1]
    numbers = {name: (value, note) for name, value, note in content["numbers"]}
    assert numbers["Accuracy"][0] == f"{right.mean():.1%}"
    assert f"of {len(right)} with a label" in numbers["Accuracy"][1]
    assert content["matrix"]["new"]
    assert sum(map(sum, content["matrix"]["counts"])) == len(right)
    confused = {
        (pair["true"], content["items"][i]["top"][0][0], i)
        for pair in content["confusions"]
        for i in pair["items"]
    }
    classes = content["classes"]
    assert confused == {
        (classes.index(labels[i]), classes.index(predicted.labels[i]), i)
        for i in np.flatnonzero(is_labelled)
        if labels[i] != predicted.labels[i]
    }
    assert 0 < len(confused) < len(right) < len(labels)


def test_labels_of_no_class_are_refused(page, folder, tmp_path):
    with pytest.raises(ValueError, match=r"labels has 'giraffe'"):
        write_report(
            page[1], good_photos(folder)[:1], tmp_path / "p", labels=["giraffe"]
        )


def test_more_photographs_than_a_page_shows_are_the_uncertain_ones(
    page, folder, monkeypatch, tmp_path
):
    monkeypatch.setattr("skbridge.photos._report._MOST_PHOTOS", 2)
    predicted = write_report(page[1], good_photos(folder), tmp_path / "p")
    content = content_of(tmp_path / "p")
    shown = [item["path"] for item in content["items"] if "given" not in item]
    two = sorted(
        (top[-1] - top[-2], path)
        for top, path in zip(
            map(sorted, predicted.proba.tolist()), predicted.paths, strict=True
        )
    )
    assert sorted(shown) == sorted(path for _, path in two[:2])
    assert "2 most uncertain" in content["subtitle"]


def test_photographs_of_the_fit_may_be_gone(page, tmp_path, folder):
    _, model = page
    moved = folder / "photos" / "ant"
    moved.rename(tmp_path / "ant")
    try:
        new = [str(folder / "new" / "copy.png")]
        write_report(model, new, tmp_path / "page.html")
    finally:
        (tmp_path / "ant").rename(moved)
    items = content_of(tmp_path / "page.html")["items"]
    assert any("thumb" not in item for item in items)


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        pytest.skip("needs Chrome or Chromium")
    with playwright.sync_playwright() as driver:
        options = {"executable_path": executable, "args": ["--no-sandbox"]}
        browser = driver.chromium.launch(**options)
        yield browser
        browser.close()


@contextmanager
def browser_page(browser, **options):
    """A page of the browser, and what goes wrong in it."""
    context = browser.new_context(**options)
    opened = context.new_page()
    troubles = []
    opened.on("console", lambda message: troubles.append(message.text))
    opened.on("pageerror", lambda error: troubles.append(str(error)))
    opened.on("request", lambda request: troubles.append(request.url[:60]))
    yield opened, troubles
    context.close()


def own_requests(path, troubles):
    return [text for text in troubles if not text.startswith((path.as_uri(), "data:"))]


def test_labels_are_filtered_corrected_and_exported(
    page, browser, folder, tmp_path, capsys
):
    path, _ = page
    with browser_page(browser, viewport={"width": 1280, "height": 900}) as (
        opened,
        troubles,
    ):
        opened.goto(path.as_uri())
        total = opened.locator("#sheet .tile").count()
        assert total == len(content_of(path)["items"]) - sum(
            "given" in item for item in content_of(path)["items"]
        )
        opened.fill("#text", "copy.png")
        assert opened.locator("#sheet .tile").count() == 1
        # By keyboard: to the tile, another class, then away.
        opened.locator("#sheet .tile").focus()
        opened.keyboard.press("Enter")
        opened.fill("#label", "palette")
        opened.keyboard.press("Enter")
        assert opened.locator("#editor").evaluate("e => e.open") is False
        opened.fill("#text", "")
        opened.select_option("#show", "next")
        assert opened.locator("#sheet .tile").count() == 3
        opened.select_option("#show", "all")
        opened.select_option(
            "#class", label=opened.locator("#class option").nth(1).inner_text()
        )
        assert 0 < opened.locator("#sheet .tile").count() < total
        opened.click("[data-section=suspicious]")
        opened.locator("#suspicious .row > .tile").first.click()
        opened.click("#unused")
        opened.locator("#suspicious .row > .tile").nth(0).wait_for()
        assert opened.locator("#corrected").inner_text() == "2 corrections"
        with opened.expect_download() as download:
            opened.click("#export")
        download.value.save_as(tmp_path / "corrections.csv")
        for section in ("confusions", "duplicates"):
            opened.click(f"[data-section={section}]")
        opened.reload()
        assert opened.locator("#corrected").inner_text() == "2 corrections"
        assert own_requests(path, troubles) == []
    corrections = read_corrections(tmp_path / "corrections.csv")
    assert corrections == {
        str(folder / "new" / "copy.png"): "palette",
        str(folder / "photos" / "anchor" / "wrong.png"): None,
    }
    fit = ["fit", str(folder / "photos"), "-o", str(tmp_path / "m.skb")]
    fit += ["--model", "skbridge-tiny", "--corrections"]
    assert main([*fit, str(tmp_path / "corrections.csv")]) == 0
    out, err = capsys.readouterr()
    assert "2 corrections applied" in err
    assert "anchor          4" in out


@pytest.mark.skipif(os.name != "posix", reason="such names are not allowed there")
def test_names_like_html_do_nothing(page, browser, tmp_path):
    path, _ = page
    with browser_page(browser) as (opened, troubles):
        opened.goto(path.as_uri())
        opened.fill("#text", "onerror")
        tile = opened.locator("#sheet .tile").first
        assert EVIL_NAME in tile.inner_text()
        tile.click()
        opened.fill("#label", '=1+1,"<b>\n')
        opened.keyboard.press("Enter")
        for section in ("suspicious", "confusions", "duplicates"):
            opened.click(f"[data-section={section}]")
        assert EVIL_CLASS in opened.locator("#confusions thead").inner_text()
        assert opened.title() == "skbridge report"
        assert opened.locator("script").count() == 2
        assert opened.locator("img[onerror]").count() == 0
        with opened.expect_download() as download:
            opened.click("#export")
        download.value.save_as(tmp_path / "c.csv")
        assert own_requests(path, troubles) == []
    row = next(csv.DictReader((tmp_path / "c.csv").read_text().splitlines()))
    assert os.path.basename(row["path"]) == EVIL_NAME
    assert row["label"] == '=1+1,"<b>'


@pytest.mark.skipif(os.name != "posix", reason="such names are not allowed there")
def test_wrong_predictions_are_shown_with_their_label(labelled, browser):
    path, predicted, labels = labelled
    pairs = zip(labels, predicted.labels, strict=True)
    n_wrong = sum(label not in (None, best) for label, best in pairs)
    with browser_page(browser) as (opened, troubles):
        opened.goto(path.as_uri())
        opened.select_option("#show", "wrong")
        tiles = opened.locator("#sheet .tile")
        assert tiles.count() == n_wrong
        assert "is anchor" in " ".join(tiles.all_inner_texts())
        tiles.first.click()
        opened.click("#choices button:has-text('as labelled')")
        assert opened.locator("#corrected").inner_text() == "1 correction"
        opened.keyboard.press("Escape")
        opened.click("[data-section=confusions]")
        assert "New photographs" in opened.locator("#confusions .about").inner_text()
        assert opened.locator("#confusions .tile").count() == n_wrong
        assert own_requests(path, troubles) == []


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_fits_its_window(page, browser, width, theme):
    path, _ = page
    options = {"viewport": {"width": width, "height": 800}, "color_scheme": theme}
    with browser_page(browser, **options) as (opened, troubles):
        opened.goto(path.as_uri())
        for section in ("photographs", "suspicious", "confusions", "duplicates"):
            opened.click(f"[data-section={section}]")
            wide = opened.evaluate("document.documentElement.scrollWidth")
            assert wide == width, section
        colour = "getComputedStyle(document.body).backgroundColor"
        is_dark = opened.evaluate(colour) == "rgb(16, 19, 22)"
        assert is_dark == (theme == "dark")
        assert own_requests(path, troubles) == []


def test_rows_come_and_go_while_the_page_scrolls(page, browser):
    path, _ = page
    with browser_page(browser, viewport={"width": 390, "height": 200}) as (opened, _):
        opened.goto(path.as_uri())
        listed = opened.evaluate("listed")
        height = opened.evaluate("document.documentElement.scrollHeight")
        counts, visited = set(), set()
        ways = [*range(0, height, 90), *range(height, 0, -90), height, 0]
        for y in ways:
            opened.evaluate(f"scrollTo(0, {y})")
            opened.evaluate("new Promise(requestAnimationFrame)")
            opened.evaluate("new Promise(requestAnimationFrame)")
            drawn = opened.eval_on_selector_all(
                "#sheet .tile", "tiles => tiles.map(tile => Number(tile.dataset.item))"
            )
            start = listed.index(drawn[0])
            assert drawn == listed[start : start + len(drawn)]
            # Each stands where it would if all were there.
            top = opened.evaluate(
                "sheet.firstChild.getBoundingClientRect().top"
                " - sheet.getBoundingClientRect().top"
            )
            assert abs(top - start / 3 * opened.evaluate("rowHeight")) < 0.1
            now = opened.evaluate("document.documentElement.scrollHeight")
            assert abs(now - height) <= 1
            counts.add(len(drawn))
            visited.update(drawn)
        assert visited == set(listed)
        assert min(counts) < len(listed)


def test_relative_paths_are_found_from_other_folders(
    page, folder, tmp_path, monkeypatch
):
    monkeypatch.chdir(folder)
    write_report(page[1], ["new/copy.png"], tmp_path / "page.html")
    assert content_of(tmp_path / "page.html")["items"][0]["path"] == str(
        folder / "new" / "copy.png"
    )


def test_the_command_writes_the_page(page, folder, tmp_path, capsys):
    _, model = page
    model.save(tmp_path / "model.skb")
    command = ["report", str(tmp_path / "model.skb"), str(folder / "new")]
    assert main([*command, "-o", str(tmp_path / "page.html")]) == 0
    out, err = capsys.readouterr()
    assert "photographs, " in out
    assert "accuracy " in out
    assert "with a label (95% interval" in out
    assert "10 photographs cannot be read" in err
    assert "3 photographs in folders that name no class of the model: 'amb" in err
    assert content_of(tmp_path / "page.html")["title"] == "Photographs of new"
