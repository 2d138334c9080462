"""Images as other libraries hand them on: records, tables, data sets, remote files."""

import io
import os
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skbridge import CLIPEmbedder
from skbridge._images.accept import check_images, describe_image, source_of
from skbridge._images.decode import to_rgb

PIXELS = np.random.RandomState(0).randint(0, 256, size=(6, 9, 3), dtype=np.uint8)


def png(pixels=PIXELS):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png())
    return path


def assert_are_the_pixels(X, n_images=1):
    images = check_images(X)
    assert len(images) == n_images
    for position in range(n_images):
        np.testing.assert_array_equal(to_rgb(images[position]), PIXELS)


def embedder(**options):
    return CLIPEmbedder("skbridge-tiny", device="cpu", **options)


# Paths


def test_bytes_that_name_a_file_are_a_path(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    for X in ([b"a.png"], np.array([b"a.png"]), [os.fsencode(path)]):
        assert_are_the_pixels(X)
    with pytest.raises(OSError, match="it is damaged"):
        to_rgb(b"no.png")


@pytest.mark.parametrize("form", [str, Path, os.fsencode])
def test_tilde_is_the_home_folder(path, monkeypatch, form):
    monkeypatch.setenv("HOME", str(path.parent))
    monkeypatch.setenv("USERPROFILE", str(path.parent))
    assert_are_the_pixels([form("~/a.png")])


def test_long_text_is_not_quoted_whole():
    import base64

    rng = np.random.default_rng(0)
    text = base64.b64encode(rng.bytes(10**5)).decode()
    data = f"data:image/png;base64,{text}"
    with pytest.raises(ValueError, match=r"decode .*base64\.b64decode"):
        to_rgb(data)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        rows = embedder(on_error="nan").transform([text, data] * 10)
    assert np.isnan(rows).all()
    assert len(str(told[-1].message)) < 20 * 500


# Records, tables and data sets


@pytest.mark.parametrize("name", [None, "gone.png"])
def test_record_of_bytes_and_path_is_an_image(path, name):
    assert_are_the_pixels([{"bytes": png(), "path": name}])
    assert_are_the_pixels([{"bytes": None, "path": str(path)}])


def test_pairs_are_an_error_of_the_call_that_says_the_way_out(path):
    pairs = [(Image.new("RGB", (9, 9)), 0), (path, 1)]
    for call in (
        embedder(on_error="nan").transform,
        embedder(on_error="raise").transform,
        embedder().valid_images,
    ):
        with pytest.raises(
            TypeError, match=r"X\[0\] is not an image .* X = \[image for"
        ):
            call(pairs)


def test_columns_tables_and_scalars_of_arrow_are_images(path):
    pa = pytest.importorskip("pyarrow")
    records = [{"bytes": None, "path": str(path)}, {"bytes": png(), "path": None}]
    for array in (
        pa.array(records),
        pa.chunked_array([pa.array(records), pa.array(records)]).slice(1, 2),
        pa.table({"image": records}),
        list(pa.array(records)),
        pa.array([png(), png()]),
        pa.array([str(path)] * 2),
    ):
        assert_are_the_pixels(array, 2)
    with pytest.raises(ValueError, match=r"Table with 2 columns: \['image', 'label'\]"):
        check_images(pa.table({"image": records, "label": [0, 1]}))
    assert describe_image(pa.array(records)[0]) == repr(str(path))


@pytest.mark.filterwarnings("ignore:Cannot .* <class")  # Of dill.
def test_data_set_and_column_of_hugging_face_are_images(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.Value("int8")}
    )
    records = [{"bytes": png(), "path": None}] * 2
    table = pytest.importorskip("pyarrow").table(
        {"image": records, "label": [0, 1]}, schema=features.arrow_schema
    )
    # With a fingerprint, since hashing fails with some versions of Arrow.
    data = datasets.Dataset(table, fingerprint="images")
    for X in (data, data["image"], data.select([1, 0]), list(data["image"])):
        assert_are_the_pixels(X, 2)
    assert describe_image(check_images(data)[0]) == f"{len(png())} bytes"
    with pytest.raises(ValueError, match=r"one of \['train'\]: X\['train'\]"):
        check_images(datasets.DatasetDict(train=data))
    with pytest.raises(ValueError, match=r"streamed.*list\(data\.take"):
        check_images(data.to_iterable_dataset())
    two = data.add_column("second", records, feature=datasets.Image())
    with pytest.raises(ValueError, match=r"Pass one column: X\['image'\]"):
        check_images(two)
    embeddings = embedder(cache_dir=tmp_path).transform(data)
    np.testing.assert_array_equal(embeddings[0], embeddings[1])


def test_data_set_of_torchvision_is_the_images_of_its_pairs(tmp_path, path):
    torchvision = pytest.importorskip("torchvision")
    from torch.utils.data import Subset

    for name in ("cat", "dog"):
        (tmp_path / "of" / name).mkdir(parents=True)
        (tmp_path / "of" / name / "a.png").write_bytes(png())
    data = torchvision.datasets.ImageFolder(tmp_path / "of")
    assert_are_the_pixels(data, 2)
    assert_are_the_pixels(Subset(data, [1]), 1)


# Files of other libraries


def test_file_in_a_zip_is_an_image(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("in/a.png", png())
    item = zipfile.Path(tmp_path / "a.zip", "in/a.png")
    assert_are_the_pixels([item])
    assert "a.png" in describe_image(item)
    gone = zipfile.Path(tmp_path / "a.zip", "b.png")
    assert embedder().valid_images([item, gone]).tolist() == [True, False]
    np.testing.assert_array_equal(
        embedder(cache_dir=tmp_path / "cache").transform([item]),
        embedder().transform([png()]),
    )


def test_unopened_file_of_fsspec_is_an_image(path):
    fsspec = pytest.importorskip("fsspec")
    item = fsspec.open(f"file://{path}")
    assert_are_the_pixels([item, item], 2)
    assert "a.png" in describe_image(item)


def test_url_is_read_with_fsspec(path, monkeypatch):
    fsspec = pytest.importorskip("fsspec")
    fsspec.filesystem("memory").pipe("/a.png", png())
    assert_are_the_pixels(["memory://a.png", path.as_uri()], 2)
    monkeypatch.setitem(__import__("sys").modules, "fsspec", None)
    with pytest.raises(ValueError, match="pip install fsspec"):
        to_rgb("memory://a.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
@pytest.mark.parametrize("form", ["url", "fsspec"])
def test_local_files_are_regular_however_they_are_named(form, tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    item = f"file://{fifo}"
    if form == "fsspec":
        item = pytest.importorskip("fsspec").open(item)
    assert source_of(item) == str(fifo)
