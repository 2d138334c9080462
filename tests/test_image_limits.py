"""Bounded memory and work for each image, whatever its file says."""

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone

from skbridge import CLIPEmbedder
from skbridge._clip.load import load_clip
from skbridge._images import batches, limits
from skbridge._images.decode import to_rgb
from skbridge._images.limits import BUDGET, central_part

RNG = np.random.default_rng(0)


def png(width, height, color_type, n_channels=1, depth=8, extra=b""):
    """A black PNG file of few bytes, written without having its pixels."""

    def chunk(name, data):
        checksum = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + checksum

    compressor = zlib.compressobj(1)
    row = bytes(1 + (width * n_channels * depth + 7) // 8)
    rows = b"".join(compressor.compress(row) for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + extra
        + chunk(b"IDAT", rows + compressor.flush())
        + chunk(b"IEND", b"")
    )


def noise(width, height, mode="RGB"):
    n_channels = len(Image.new(mode, (1, 1)).getbands())
    shape = (height, width, n_channels) if n_channels > 1 else (height, width)
    return Image.fromarray(RNG.integers(0, 256, shape, dtype=np.uint8))


@pytest.fixture
def small_budget(monkeypatch):
    """A millionth of the memory, so that small images are large ones."""
    for name in ("_MOST_DECODED", "_MOST_CONVERTED"):
        monkeypatch.setattr(limits, name, getattr(limits, name) // 1000)
    monkeypatch.setattr(limits, "_BAND", 2**9)


# Long images


def test_long_image_takes_little_memory():
    resource = pytest.importorskip("resource")
    embedder = CLIPEmbedder("skbridge-tiny", device="cpu", num_workers=0)
    images = [png(100_000, 1, 0, depth=1), Image.new("RGB", (1, 300_000))]
    embedder.transform([np.zeros((8, 8))])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    embedder.transform(images)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    per_megabyte = 2**20 if sys.platform == "darwin" else 2**10
    assert (after - before) / per_megabyte < 100


@pytest.mark.parametrize("size", [(64, 64), (640, 80), (80, 640), (3, 24)])
def test_image_of_an_ordinary_ratio_is_not_cropped(size):
    image = Image.new("RGB", size)
    assert central_part(image) is image


@pytest.mark.parametrize("size", [(2001, 150), (150, 2000), (1900, 100)])
def test_middle_of_a_long_image_changes_by_less_than_a_pixel(size):
    """As the model's own transform makes it, but for a shift of half a pixel."""
    loaded = load_clip("skbridge-tiny", "auto", device="cpu")
    image = noise(20, 20).resize(size, Image.Resampling.BICUBIC)
    assert central_part(image).size != size
    got = np.asarray(loaded.resize(image), dtype=float)
    for step in loaded.preprocess.transforms[:-2]:
        image = step(image)
    own = np.asarray(image, dtype=float)
    gradient = np.abs(np.diff(own, axis=1 if size[0] > size[1] else 0)).max()
    assert np.abs(got - own).max() <= 0.6 * gradient + 1


# Large images


@pytest.mark.parametrize("mode", ["RGBA", "LA", "L", "P", "I;16", "F", "CMYK"])
def test_bands_give_the_same_pixels(mode, monkeypatch):
    if mode == "I;16":
        image = Image.fromarray(RNG.integers(0, 2**16, (70, 50), dtype=np.uint16))
    elif mode == "F":
        image = Image.fromarray(RNG.random((70, 50), dtype=np.float32))
    else:
        image = noise(50, 70, "RGB" if mode == "P" else mode).convert(mode)
    if mode in ("P", "L"):
        image.info["transparency"] = 3
    expected = to_rgb(image)
    monkeypatch.setattr(limits, "_BAND", 2**8)
    np.testing.assert_array_equal(to_rgb(image), expected)


def test_image_beyond_the_budget_comes_out_smaller(small_budget):
    image = Image.new("RGBA", (290, 300), (200, 100, 50, 255))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    smaller = to_rgb(buffer)
    assert smaller.mode == "RGB"
    assert 50 < smaller.width < 290
    assert abs(smaller.width / smaller.height - 290 / 300) < 0.02
    assert smaller.getcolors() == [(smaller.width * smaller.height, (200, 100, 50))]


def test_image_too_large_to_decode_is_an_error_that_says_its_size(small_budget):
    buffer = io.BytesIO()
    Image.new("RGB", (300, 310)).save(buffer, "PNG")
    with pytest.raises(ValueError, match=r"megapixels \(PNG, mode RGB\) would take"):
        to_rgb(buffer)


def test_large_jpeg_is_decoded_at_reduced_size(small_budget):
    buffer = io.BytesIO()
    Image.new("RGB", (600, 400), (200, 100, 50)).save(buffer, "JPEG")
    assert to_rgb(buffer).size == (150, 100)
    buffer = io.BytesIO()
    Image.new("RGB", (600, 400)).save(buffer, "JPEG", progressive=True)
    with pytest.raises(ValueError, match=r"\(JPEG, mode RGB\)"):
        to_rgb(buffer)


def test_jpeg_of_too_many_scans_is_an_error():
    buffer = io.BytesIO()
    noise(64, 64).save(buffer, "JPEG", progressive=True)
    content = buffer.getvalue()
    assert to_rgb(content).size == (64, 64)
    start = content.rindex(b"\xff\xda")
    scan = content[start:-2]
    with pytest.raises(ValueError, match="scans takes too long; at most 100"):
        to_rgb(content[:start] + scan * 100 + content[-2:])


# Files


@pytest.mark.parametrize("cached", [False, True])
def test_huge_file_is_one_bad_image_that_is_not_read(tmp_path, cached):
    with (tmp_path / "video.jpg").open("wb") as stream:
        stream.truncate(12 * 10**9)  # No block of it is on the disk.
    cache = tmp_path / "cache" if cached else None
    embedder = CLIPEmbedder("skbridge-tiny", "auto", device="cpu", cache_dir=cache)
    embedder.set_params(on_error="nan")
    X = [tmp_path / "video.jpg", np.zeros((8, 8), np.uint8)]
    with pytest.warns(UserWarning, match=r"the file has 11,444 MiB; expected"):
        rows = embedder.transform(X)
    np.testing.assert_array_equal(np.isnan(rows).any(axis=1), [True, False])
    with (
        (tmp_path / "video.jpg").open("rb") as stream,
        pytest.raises(ValueError, match="the file has 11,444 MiB"),
    ):
        to_rgb(stream)


# Memory that is not there


def test_memory_error_is_an_error_of_the_call(monkeypatch):
    def no_memory(*args):
        raise MemoryError

    monkeypatch.setattr(batches, "to_rgb", no_memory)
    embedder = CLIPEmbedder("skbridge-tiny", device="cpu", on_error="nan")
    monkeypatch.setattr(batches, "has_budget", lambda budget: False)
    with pytest.raises(MemoryError):
        embedder.valid_images([np.zeros((8, 8))])
    # Where there is memory, it is the file that asks for too much.
    monkeypatch.setattr(batches, "has_budget", lambda budget: True)
    assert not embedder.valid_images([np.zeros((8, 8))]).any()


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit of memory")
def test_memory_is_missing_where_the_process_has_none():
    program = (
        "import resource\n"
        "from skbridge._images.limits import has_budget\n"
        "print(has_budget())\n"
        f"resource.setrlimit(resource.RLIMIT_AS, ({BUDGET},) * 2)\n"
        "print(has_budget())"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == ["True", "False"]


def test_limit_of_an_image_is_a_parameter(monkeypatch, tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (300, 310)).save(buffer, "PNG")
    images = [buffer]
    for name in ("_MOST_DECODED", "_MOST_CONVERTED"):
        monkeypatch.setattr(limits, name, getattr(limits, name) // 1000)
    small = CLIPEmbedder("skbridge-tiny", device="cpu", cache_dir=tmp_path)
    large = clone(small).set_params(max_image_mb=500)
    assert not small.valid_images(images).any()
    assert large.valid_images(images).all()
    with pytest.raises(ValueError, match="or raise max_image_mb"):
        small.transform(images)
    assert np.isfinite(large.transform(images)).all()
    # What is cached with one limit is not taken for what another one gives.
    with pytest.raises(ValueError, match="or raise max_image_mb"):
        small.transform(images)
    with pytest.raises(ValueError, match="'max_image_mb' parameter of CLIPEmbedder"):
        large.set_params(max_image_mb=99).transform(images)
