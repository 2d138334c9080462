"""Folders of photographs: every layout, and a reason for all that is left out."""

import json
import os
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from skbridge import BridgedGDAClassifier, CLIPEmbedder, make_few_shot_pipeline
from skbridge._images.formats import image_suffixes
from skbridge.datasets import list_images, load_image_folder

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40)


@pytest.fixture
def folder(tmp_path):
    """Return a function that writes images below a folder."""

    def write(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (len(names), 20, 30)).save(path)
        return tmp_path

    return write


def below(folder, paths):
    return [os.path.relpath(path, folder).replace(os.sep, "/") for path in paths]


def reasons(folder, data):
    return {
        name: one.reason
        for name, one in zip(
            below(folder, [one.path for one in data.left_out]),
            data.left_out,
            strict=True,
        )
    }


# Layouts


def test_labels_are_the_names_of_class_folders(folder):
    path = folder("dog/b.png", "dog/a.JPG", "cat/x.jpeg", "cat/deep/er/1.WebP")
    data = load_image_folder(path)
    assert below(path, data.paths) == [
        "cat/x.jpeg",
        "cat/deep/er/1.WebP",
        "dog/a.JPG",
        "dog/b.png",
    ]
    assert data.target.tolist() == ["cat", "cat", "dog", "dog"]
    assert data.target_names == ["cat", "dog"]
    assert data.target_counts == {"cat": 2, "dog": 2}
    assert data.left_out == []
    paths, target = load_image_folder(str(path), return_X_y=True)
    assert paths == data.paths
    np.testing.assert_array_equal(target, data.target)


@pytest.mark.parametrize("name", ["unlabelled", "Unlabeled"])
def test_unlabelled_folder_and_files_beside_class_folders_have_no_label(folder, name):
    data = load_image_folder(folder("cat/1.png", f"{name}/2.png", "3.png"))
    assert dict(zip(map(os.path.basename, data.paths), data.target, strict=True)) == {
        "1.png": "cat",
        "2.png": None,
        "3.png": None,
    }
    assert data.target_counts == {"cat": 1, None: 2}


def test_every_suffix_that_is_read_is_found_in_any_case(folder):
    suffixes = {suffix for suffix in image_suffixes() if suffix not in (".heic",)}
    written = [f"{suffix[1:]}{suffix.upper()}" for suffix in sorted(suffixes)]
    path = folder()
    for name in written:
        Image.new("RGB", (8, 8)).save(path / name, "PNG")
    assert sorted(os.path.basename(p) for p in list_images(path).paths) == written
    assert {".jpg", ".jpeg", ".png", ".webp", ".tif", ".avif", ".heif"} <= suffixes


def test_frame_has_a_row_per_image(folder):
    data = load_image_folder(folder("cat/1.png", "2.png"), as_frame=True)
    assert data.frame.columns.tolist() == ["path", "label"]
    assert data.frame["path"].tolist() == data.paths
    assert data.frame["label"].isna().tolist() == [True, False]


def test_class_folders_and_unlabelled_images_train_a_pipeline(folder):
    path = folder(*(f"{kind}/{i}.png" for kind in ("cat", "dog") for i in range(3)))
    rng = np.random.default_rng(0)
    for i in range(4):
        pixels = rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path / f"{i}.png")
    X, y = load_image_folder(path, return_X_y=True)
    for seed, name in enumerate(X):
        pixels = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), np.uint8)
        Image.fromarray(pixels).save(name)
    pipeline = make_few_shot_pipeline("skbridge-tiny", device="cpu").fit(X, y)
    assert isinstance(pipeline[-1], BridgedGDAClassifier)
    new = list_images(path).paths
    assert set(pipeline.predict(new)) <= {"cat", "dog"}


def test_folders_of_splits_are_an_error_that_says_which_to_load(folder):
    path = folder("train/cat/1.png", "test/cat/2.png")
    with pytest.raises(ValueError, match=r"load_image_folder\('.*test'\)"):
        load_image_folder(path)
    assert load_image_folder(path / "train").target_names == ["cat"]


# Tables


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("labels.csv", "file_name,label\na.png,cat\nin/b.PNG, dog\nc.png,\n"),
        ("metadata.csv", "\ufeffImage;Class\na.png;cat\n./in/b.PNG;dog\n"),
        ("labels.csv", 'label\tfilename\ncat\ta.png\n"dog"\tin\\b.PNG\n'),
        (
            "metadata.jsonl",
            '{"file_name": "a.png", "label": "cat"}\n\n'
            '{"file_name": "in/b.PNG", "label": "dog", "text": "ü"}\n'
            '{"file_name": "c.png", "label": null}\n',
        ),
    ],
)
def test_table_gives_the_labels(folder, name, content):
    path = folder("a.png", "in/b.PNG", "c.png")
    (path / name).write_text(content, encoding="utf-8")
    data = load_image_folder(path)
    assert below(path, data.paths) == ["a.png", "c.png", "in/b.PNG"]
    assert data.target.tolist() == ["cat", None, "dog"]
    assert data.left_out == []


def test_integers_of_a_json_table_stay_integers(folder):
    path = folder("a.png", "b.png")
    rows = [{"file_name": "a.png", "label": 3}, {"file_name": "b.png", "label": 0}]
    (path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert load_image_folder(path).target.tolist() == [3, 0]


def test_file_that_a_table_names_and_that_is_not_there_is_listed(folder):
    path = folder("a.png")
    (path / "labels.csv").write_text("file_name,label\na.png,cat\ngone.png,dog\n")
    with pytest.warns(UserWarning, match=r"1 image files .* are left out.*gone\.png"):
        data = load_image_folder(path)
    assert data.target_counts == {"cat": 1}
    assert "labels.csv names it" in reasons(path, data)["gone.png"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("labels.csv", "a.png,cat\n", "needs a column 'file_name'"),
        ("labels.csv", "file_name,label\na.png\n", "line 2 does not have the 2"),
        ("labels.csv", "file_name,label\na.png,cat,x\n", "line 2 does not have the 2"),
        ("labels.csv", "file_name,label\na.png,b\na.png,c\n", "an earlier row"),
        ("labels.csv", "file_name,label\n../a.png,b\n", "relative to that folder"),
        ("labels.csv", "file_name,label\n/a.png,b\n", "relative to that folder"),
        ("labels.csv", "file_name,label\nb.png,b\n", "names none of the 1 images"),
        ("labels.csv", b"file_name,label\na.png,\xff\n", "Cannot read"),
        ("metadata.jsonl", "[1]\n", "line 1 is not a JSON object"),
        ("metadata.jsonl", "{\n", "Cannot read"),
        ("metadata.jsonl", '{"file_name": "a.png"}', "column 'label'"),
        ("metadata.jsonl", '{"file_name": 1, "label": "a"}', "is not a string"),
        ("metadata.jsonl", '{"file_name": "a.png", "label": [1]}', "an integer"),
        (
            "metadata.jsonl",
            '{"file_name": "a.png", "label": 1}\n{"file_name": "b", "label": "c"}',
            "mixed kinds",
        ),
    ],
)
def test_bad_table_is_an_error_that_says_where(folder, name, content, message):
    path = folder("a.png")
    content = content if isinstance(content, bytes) else content.encode()
    (path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_image_folder(path)


def test_two_tables_are_an_error(folder):
    path = folder("a.png")
    for name in ("labels.csv", "metadata.jsonl"):
        (path / name).write_text("")
    with pytest.raises(ValueError, match=r"labels\.csv, metadata\.jsonl"):
        load_image_folder(path)


# What is left out


def test_everything_that_is_left_out_has_a_reason(folder):
    path = folder("cat/1.png", "cat/Thumbs.db.png")
    (path / "cat" / ".hidden.png").write_bytes(b"")
    (path / "cat" / "._1.png").write_bytes(b"\0\5\x16\7")
    (path / "cat" / "Thumbs.db").write_bytes(b"\xd0\xcf")
    (path / "cat" / "notes.txt").write_text("fluffy")
    (path / "cat" / "README").write_text("fluffy")
    (path / "cat" / "empty.jpg").write_bytes(b"")
    (path / "cat" / "text.jpg").write_text("no image")
    (path / "cat" / "gone.jpg").symlink_to("nowhere")
    (path / "cat" / "again").symlink_to(path)
    (path / ".git").mkdir()
    (path / "dog" / "deeper").mkdir(parents=True)
    with pytest.warns(UserWarning, match="3 image files") as told:
        data = load_image_folder(path)
    assert told[0].filename == __file__
    assert below(path, data.paths) == ["cat/1.png", "cat/Thumbs.db.png"]
    found = reasons(path, data)
    assert found.pop("cat/notes.txt").startswith("the suffix '.txt' is not that of")
    assert found.pop("cat/text.jpg").startswith("it is damaged")
    assert found == {
        ".git": "hidden",
        "cat/._1.png": "hidden",
        "cat/.hidden.png": "hidden",
        "cat/README": "no suffix of an image format that is read",
        "cat/Thumbs.db": "written by the operating system",
        "cat/again": "a link to a folder that is listed already",
        "cat/empty.jpg": "the file is empty",
        "cat/gone.jpg": "No such file or directory",
        "dog": "no image in this folder",
    }
    lost = {os.path.basename(one.path) for one in data.left_out if one.is_image}
    assert lost == {"empty.jpg", "text.jpg", "gone.jpg"}
    assert data.target_names == ["cat"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_special_file_is_left_out_and_not_opened(folder):
    path = folder("1.png")
    os.mkfifo(path / "pipe.png")
    with pytest.warns(UserWarning, match="named pipe"):
        assert below(path, list_images(path).paths) == ["1.png"]


def test_cut_off_image_is_found_by_its_pixels(folder):
    path = folder("1.png")
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path / "2.png")
    whole = (path / "2.png").read_bytes()
    (path / "2.png").write_bytes(whole[: len(whole) // 2])
    assert len(list_images(path).paths) == 2
    with pytest.warns(UserWarning, match=r"2\.png: .*truncated"):
        data = load_image_folder(path, check="pixels")
    assert below(path, data.paths) == ["1.png"]
    assert CLIPEmbedder().valid_images(data.paths).all()


def test_format_without_its_package_names_the_package(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    path = folder("1.png")
    (path / "2.HEIC").write_bytes(HEIC)
    (path / "3.jpg").write_bytes(HEIC)
    with pytest.warns(UserWarning, match="pip install pillow-heif"):
        data = list_images(path)
    assert len(data.left_out) == 2
    with pytest.raises(ValueError, match="pip install pillow-heif"):
        CLIPEmbedder("skbridge-tiny").transform([HEIC])


def test_installed_package_of_a_format_is_used(folder):
    pillow_heif = pytest.importorskip("pillow_heif")
    path = folder()
    pillow_heif.from_pillow(Image.new("RGB", (64, 64), "red")).save(path / "1.heic")
    images = list_images(path, check="pixels")
    assert len(images.paths) == 1


# Errors


def test_folder_without_images_is_an_error_that_says_what_is_there(tmp_path):
    with pytest.raises(ValueError, match="The folder is empty"):
        load_image_folder(tmp_path)
    (tmp_path / "film.mov").write_bytes(b"0")
    for load in (load_image_folder, list_images):
        with pytest.raises(ValueError, match=r"film\.mov: the suffix '\.mov'"):
            load(tmp_path)


def test_what_is_no_folder_is_an_error(folder):
    path = folder("1.png")
    with pytest.raises(NotADirectoryError, match="which is a file"):
        load_image_folder(path / "1.png")
    with pytest.raises(NotADirectoryError, match="does not exist"):
        load_image_folder(path / "2")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        list_images(path / "2")
    with pytest.raises(ValueError, match="'path' parameter of load_image_folder"):
        load_image_folder(None)


def test_one_file_is_listed(folder):
    path = folder("1.png") / "1.png"
    assert list_images(path).paths == [str(path)]


def test_tilde_is_the_home_folder(folder, monkeypatch):
    path = folder("photos/cat/1.png")
    monkeypatch.setenv("HOME", str(path))
    monkeypatch.setenv("USERPROFILE", str(path))
    assert load_image_folder("~/photos").paths == [str(path / "photos/cat/1.png")]


def test_frame_without_pandas_says_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        load_image_folder(folder("1.png"), as_frame=True)
    monkeypatch.setitem(sys.modules, "pandas", pd)
