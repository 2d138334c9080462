"""Every form in which images come, decoded as a person sees them."""

import io
import os
import pathlib
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError
from sklearn.datasets import load_digits

from skbridge._images.accept import NotAnImageError, check_images, describe_image
from skbridge._images.batches import Unreadable, read_in_batches
from skbridge._images.decode import to_rgb

RNG = np.random.RandomState(0)
PIXELS = RNG.randint(0, 256, size=(6, 9, 3), dtype=np.uint8)
CLEAR, HALF, OPAQUE = 0, 128, 255


def decoded(image):
    """Decode, check the promise on the form, and return the pixels."""
    rgb = to_rgb(image)
    assert isinstance(rgb, Image.Image)
    assert rgb.mode == "RGB"
    return np.asarray(rgb)


def encoded(image, format, **options):
    """Return an image as the bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def png(pixels, color_type, depth=16, extra=b""):
    """Return a PNG file of a kind that PIL cannot write, 16-bit RGB for one."""

    def chunk(name, data):
        checksum = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + checksum

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    height, width = pixels.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + extra
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


# Files and their bytes


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.png", {}),
        ("a.bmp", {}),
        ("a.tiff", {}),
        ("a.ppm", {}),
        ("a.webp", {"lossless": True}),
    ],
)
def test_path_and_bytes_of_a_file_give_its_pixels(tmp_path, name, options):
    path = tmp_path / name
    Image.fromarray(PIXELS).save(path, **options)
    for form in (path, str(path), np.str_(path), path.read_bytes()):
        np.testing.assert_array_equal(decoded(form), PIXELS)
    for form in (bytearray(path.read_bytes()), memoryview(path.read_bytes())):
        np.testing.assert_array_equal(decoded(form), PIXELS)
    with open(path, "rb") as file:
        for _ in range(2):
            np.testing.assert_array_equal(decoded(file), PIXELS)
        assert not file.closed


def test_any_path_like_object_is_a_path(tmp_path):
    class Entry:
        def __fspath__(self):
            return str(tmp_path / "a.png")

    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    np.testing.assert_array_equal(decoded(Entry()), PIXELS)


def test_jpeg_is_decoded_as_pil_decodes_it():
    data = encoded(Image.fromarray(PIXELS), "JPEG", quality=95)
    expected = np.asarray(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(decoded(data), expected)


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_grey_file_has_three_equal_channels(format):
    grey = Image.fromarray(np.full((8, 8), 77, dtype=np.uint8))
    np.testing.assert_array_equal(decoded(encoded(grey, format)), 77)


def test_bilevel_file_is_black_and_white():
    mask = np.array([[True, False], [False, True]])
    expected = np.repeat(mask[:, :, None] * 255, 3, axis=2)
    np.testing.assert_array_equal(
        decoded(encoded(Image.fromarray(mask), "PNG")), expected
    )


def test_palette_file_gets_its_colours():
    image = Image.fromarray(np.array([[0, 1]], dtype=np.uint8), mode=None).convert("P")
    image.putpalette([255, 0, 0, 0, 0, 255])
    expected = [[[255, 0, 0], [0, 0, 255]]]
    np.testing.assert_array_equal(decoded(encoded(image, "PNG")), expected)


def test_transparent_palette_entry_is_white():
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    data = encoded(image, "PNG", transparency=1)
    np.testing.assert_array_equal(decoded(data), [[[255, 0, 0], [255, 255, 255]]])


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF"])
def test_transparency_is_laid_over_white(format):
    pixels = np.zeros((1, 3, 4), dtype=np.uint8)
    pixels[0, :, 0] = 200
    pixels[0, :, 3] = CLEAR, HALF, OPAQUE
    options = {"lossless": True, "exact": True} if format == "WEBP" else {}
    data = encoded(Image.fromarray(pixels), format, **options)
    expected = [[[255, 255, 255], [227, 127, 127], [200, 0, 0]]]
    np.testing.assert_allclose(decoded(data), expected, atol=1)


def test_grey_with_alpha_is_laid_over_white():
    pixels = np.array([[[0, CLEAR], [0, HALF], [0, OPAQUE]]], dtype=np.uint8)
    data = encoded(Image.fromarray(pixels), "PNG")
    expected = np.repeat(np.array([[[255], [127], [0]]]), 3, axis=2)
    np.testing.assert_allclose(decoded(data), expected, atol=1)


@pytest.mark.parametrize(
    ("mode", "key"), [("L", 10), ("RGB", (10, 10, 10))], ids=["grey", "rgb"]
)
def test_transparent_colour_of_a_png_is_white(mode, key):
    image = Image.fromarray(np.array([[10, 20]], dtype=np.uint8)).convert(mode)
    data = encoded(image, "PNG", transparency=key)
    np.testing.assert_array_equal(decoded(data), [[[255] * 3, [20] * 3]])


def test_sixteen_bit_grey_png_is_scaled_not_clipped():
    values = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    data = encoded(Image.fromarray(values), "PNG")
    expected = np.repeat([[[0], [1], [128], [255]]], 3, axis=2)
    np.testing.assert_array_equal(decoded(data), expected)


@pytest.mark.parametrize("dtype", ["<u2", ">u2"])
def test_sixteen_bit_grey_tiff_is_scaled_in_either_byte_order(tmp_path, dtype):
    values = np.array([[0, 257, 32896, 65535]], dtype=dtype)
    mode = {"<u2": "I;16", ">u2": "I;16B"}[dtype]
    image = Image.frombytes(mode, (4, 1), values.tobytes())
    image.save(tmp_path / "a.tiff")
    np.testing.assert_array_equal(
        decoded(tmp_path / "a.tiff")[0, :, 0], [0, 1, 128, 255]
    )


def test_sixteen_bit_colour_png_keeps_its_upper_bits():
    pixels = np.zeros((1, 2, 3), dtype=np.uint16)
    pixels[0, 1] = 65535, 32896, 0
    data = png(pixels, color_type=2)
    np.testing.assert_array_equal(decoded(data), [[[0, 0, 0], [255, 128, 0]]])


def test_sixteen_bit_png_with_alpha_is_laid_over_white():
    pixels = np.array([[[0, 65535], [0, 0]]], dtype=np.uint16)
    expected = [[[0, 0, 0], [255, 255, 255]]]
    np.testing.assert_array_equal(decoded(png(pixels, color_type=4)), expected)


def test_thirty_two_bit_grey_is_read_as_sixteen_bit():
    values = np.array([[0, 257, 65535]], dtype=np.int32)
    image = Image.fromarray(values)
    assert image.mode == "I"
    np.testing.assert_array_equal(decoded(image)[0, :, 0], [0, 1, 255])
    with pytest.raises(ValueError, match=r"mode 'I'.* got values from -1 to 0"):
        to_rgb(Image.fromarray(np.array([[-1, 0]], dtype=np.int32)))


def test_float_grey_file_is_read_as_fractions(tmp_path):
    image = Image.fromarray(np.array([[0.0, 0.2, 1.0]], dtype=np.float32))
    image.save(tmp_path / "a.tiff")
    np.testing.assert_array_equal(decoded(tmp_path / "a.tiff")[0, :, 0], [0, 51, 255])


def test_cmyk_jpeg_keeps_its_colours():
    # Sixteen pixels a side, so that no block mixes colours.
    rgb = Image.new("RGB", (16, 16), (200, 30, 60))
    data = encoded(rgb.convert("CMYK"), "JPEG", quality=95)
    assert Image.open(io.BytesIO(data)).mode == "CMYK"
    expected = np.broadcast_to([200, 30, 60], (16, 16, 3))
    np.testing.assert_allclose(decoded(data), expected, atol=6)


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV", "RGBX", "RGBa", "PA"])
def test_pil_image_of_any_colour_mode_is_converted(mode):
    image = Image.new("RGB", (2, 2), (200, 30, 60))
    image = image.convert("RGBA") if mode == "RGBa" else image
    image = image.convert("P") if mode == "PA" else image
    expected = np.asarray(image.convert("RGB"))
    np.testing.assert_allclose(decoded(image.convert(mode)), expected, atol=6)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(orientation, format):
    # Four colours of 16 x 16 pixels survive a JPEG, and no two turns look alike.
    corners = np.array([[[250, 0, 0], [0, 250, 0]], [[0, 0, 250], [250, 250, 0]]])
    upright = corners.repeat(16, axis=0).repeat(24, axis=1).astype(np.uint8)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 1)[::-1, ::-1].swapaxes(0, 1)[::-1],
        8: np.rot90(upright, -1),
    }[orientation]
    if orientation == 7:
        stored = upright[::-1, ::-1].swapaxes(0, 1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if format == "WEBP" else {}
    options |= {"subsampling": 0} if format == "JPEG" else {}
    data = encoded(
        Image.fromarray(np.ascontiguousarray(stored)), format, exif=exif, **options
    )
    np.testing.assert_allclose(decoded(data), upright, atol=12)
    np.testing.assert_allclose(decoded(Image.open(io.BytesIO(data))), upright, atol=12)


def test_unknown_exif_orientation_is_ignored():
    exif = Image.Exif()
    exif[0x0112] = 9
    data = encoded(Image.fromarray(PIXELS), "PNG", exif=exif)
    np.testing.assert_array_equal(decoded(data), PIXELS)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_frame_of_an_animation_is_taken(format):
    first = Image.new("RGB", (4, 4), (255, 0, 0))
    later = [Image.new("RGB", (4, 4), (0, 0, 255))]
    options = {"lossless": True} if format == "WEBP" else {}
    data = encoded(first, format, save_all=True, append_images=later, **options)
    np.testing.assert_array_equal(decoded(data), np.asarray(first))


def test_colour_profile_does_not_change_the_pixels():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = encoded(Image.fromarray(PIXELS), "PNG", icc_profile=profile)
    np.testing.assert_array_equal(decoded(data), PIXELS)


# PIL images and arrays


def test_rgb_pil_image_is_taken_as_it_is_and_left_unchanged():
    image = Image.fromarray(PIXELS)
    np.testing.assert_array_equal(decoded(image), PIXELS)
    np.testing.assert_array_equal(np.asarray(image), PIXELS)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "I;16"])
def test_pil_image_of_the_user_is_never_changed(mode):
    image = Image.new(mode, (3, 2))
    before = image.copy()
    to_rgb(image)
    assert image == before


def test_opened_pil_image_can_be_decoded_more_than_once(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    image = Image.open(tmp_path / "a.png")
    for _ in range(2):
        np.testing.assert_array_equal(decoded(image), PIXELS)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_float_array_in_zero_one_is_rounded_to_eight_bits(dtype):
    np.testing.assert_array_equal(
        decoded((PIXELS / 255).astype(dtype)),
        PIXELS if dtype != np.float16 else np.rint((PIXELS / 255).astype(dtype) * 255),
    )


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_float_array_out_of_zero_one_by_a_rounding_error_is_an_image(dtype):
    eps = np.finfo(dtype).eps
    pixels = np.array([[-eps, 0, 1, 1 + eps]], dtype=dtype)
    np.testing.assert_array_equal(decoded(pixels)[..., 0], [[0, 0, 255, 255]])


def test_uint16_array_is_divided_by_257():
    np.testing.assert_array_equal(decoded(PIXELS.astype(np.uint16) * 257), PIXELS)
    np.testing.assert_array_equal(decoded(PIXELS.astype(">u2") * 257), PIXELS)


@pytest.mark.parametrize("shape", [(6, 9), (6, 9, 1)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, bool])
def test_grey_array_has_three_equal_channels(shape, dtype):
    one = {np.uint8: 255, np.uint16: 65535, np.float32: 1.0, bool: True}[dtype]
    pixels = decoded(np.full(shape, one, dtype=dtype))
    assert pixels.shape == (6, 9, 3)
    np.testing.assert_array_equal(pixels, 255)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float64])
def test_array_with_alpha_is_laid_over_white(dtype):
    one = {np.uint8: 255, np.uint16: 65535, np.float64: 1.0}[dtype]
    rgba = np.zeros((1, 2, 4), dtype=dtype)
    rgba[0, 1, 3] = one
    np.testing.assert_array_equal(decoded(rgba), [[[255] * 3, [0] * 3]])
    grey = np.zeros((1, 2, 2), dtype=dtype)
    grey[0, 1, 1] = one
    np.testing.assert_array_equal(decoded(grey), [[[255] * 3, [0] * 3]])


def test_array_need_be_neither_contiguous_nor_writable():
    view = np.asfortranarray(PIXELS)[::-1, ::2]
    view.flags.writeable = False
    np.testing.assert_array_equal(decoded(view), PIXELS[::-1, ::2])


def test_torch_tensor_has_its_channels_first():
    tensor = torch.from_numpy(PIXELS).permute(2, 0, 1)
    np.testing.assert_array_equal(decoded(tensor), PIXELS)
    np.testing.assert_array_equal(decoded(tensor / 255), PIXELS)
    np.testing.assert_array_equal(decoded(tensor[:1]), PIXELS[:, :, [0, 0, 0]])
    np.testing.assert_array_equal(decoded(tensor[0]), PIXELS[:, :, [0, 0, 0]])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_torch_tensor_may_be_half_precision_and_require_grad(dtype):
    tensor = torch.tensor([[[0.0, 1.0]]], dtype=dtype, requires_grad=True)
    np.testing.assert_array_equal(decoded(tensor), [[[0] * 3, [255] * 3]])


def test_array_of_another_library_is_converted():
    class Foreign:
        def __array__(self, dtype=None, copy=None):
            return PIXELS

    np.testing.assert_array_equal(decoded(Foreign()), PIXELS)


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1)])
def test_one_pixel_suffices(size):
    assert to_rgb(np.zeros(size, dtype=np.uint8)).size == size[::-1]


@given(
    arrays(
        np.uint8,
        st.one_of(
            st.tuples(st.integers(1, 8), st.integers(1, 8)),
            st.tuples(st.integers(1, 8), st.integers(1, 8), st.integers(1, 4)),
        ),
    )
)
def test_every_form_of_the_same_pixels_is_the_same_image(pixels):
    assume(pixels.max() != 1)  # Integers of 0 and 1 are taken for a mask.
    expected = decoded(pixels)
    np.testing.assert_array_equal(decoded(pixels / 255), expected)
    np.testing.assert_array_equal(decoded(pixels.astype(np.uint16) * 257), expected)
    channels_first = np.moveaxis(pixels, -1, 0) if pixels.ndim == 3 else pixels
    tensor = torch.tensor(np.ascontiguousarray(channels_first))
    np.testing.assert_array_equal(decoded(tensor), expected)
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2:] == (1,) else pixels)
    np.testing.assert_array_equal(decoded(image), expected)
    np.testing.assert_array_equal(decoded(encoded(image, "PNG")), expected)


# What is not an image


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.full((2, 2), 1.01), r"must lie in \[0, 1\].* from 1.01 to 1.01"),
        (np.full((2, 2), -0.01), r"must lie in \[0, 1\].* from -0.01 to -0.01"),
        (PIXELS.astype(float), "divide by 255, or clip"),
        (np.array([[0.5, np.nan]]), "from nan to nan"),
        (np.array([[0.5, np.inf]]), "from 0.5 to inf"),
        (PIXELS.astype(int), r"got int64; convert, .*astype\(np.uint8\)"),
        (PIXELS.astype(np.uint32), "got uint32"),
        (PIXELS.astype(complex), "got complex128"),
        (PIXELS.astype(object), "got object"),
        (np.zeros((2, 2, 5), np.uint8), r"1 to 4 channels .*, got \(2, 2, 5\)$"),
        (np.zeros((3, 8, 8), np.uint8), r"got \(3, 8, 8\); move .*np.moveaxis"),
        (np.zeros((0, 4, 3), np.uint8), r"at least one pixel, got \(0, 4, 3\)"),
        (np.zeros(4, np.uint8), r"got \(4,\)"),
        (np.zeros((1, 2, 2, 3), np.uint8), r"got \(1, 2, 2, 3\)"),
        (np.float64("nan"), r"got \(\)"),
        (torch.zeros(8, 8, 3), r"got \(8, 8, 3\); move .*permute\(2, 0, 1\)"),
        (torch.zeros(3, 8, 8) - 1, r"must lie in \[0, 1\]"),
    ],
)
def test_bad_array_is_an_error_that_says_why(pixels, message):
    with pytest.raises(ValueError, match=message):
        to_rgb(pixels)


@pytest.mark.parametrize(
    ("image", "got"),
    [
        (7, "object of type int"),
        ([[0]], "object of type list"),
        ({"path": "a.jpg"}, r"object of type dict with the keys \['path'\]\. Pass"),
        ((PIXELS, 3), r"tuple of ndarray, int\. A pair of an image .* X = \[image for"),
    ],
)
def test_object_that_is_no_image_is_an_error_that_lists_the_forms(image, got):
    with pytest.raises(NotAnImageError, match=f"a path, the bytes of .*, got {got}"):
        to_rgb(image)


@pytest.mark.parametrize(
    "image", [None, float("nan"), pd.NA, {"bytes": None, "path": None}]
)
def test_missing_image_is_an_error(image):
    with pytest.raises(ValueError, match="the image is missing: expected a path"):
        to_rgb(image)


def test_missing_file_is_an_error():
    with pytest.raises(FileNotFoundError, match=r"no_such\.jpg"):
        to_rgb("no_such.jpg")


def test_folder_is_an_error(tmp_path):
    with pytest.raises(OSError, match="got a folder"):
        to_rgb(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\xff\xd8\xff\xe0"])
def test_file_that_is_no_image_is_an_error(tmp_path, content):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    for form in (path, content):
        with pytest.raises(OSError, match=r"file is empty|it is damaged"):
            to_rgb(form)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "exif",
    [
        b"\x00\x08\x00\x02\x01\x12\x00\x03",
        b"Exif\0\0",
        b"Exif\0\0II*\0",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"MM\0*\0\0\0\x08\0\x02\x01\x12\0\x03",
    ],
)
@pytest.mark.filterwarnings("ignore:.*EXIF")
def test_picture_with_damaged_exif_is_a_picture(format, exif):
    data = encoded(Image.fromarray(PIXELS), format, exif=exif)
    plain = encoded(Image.fromarray(PIXELS), format)
    np.testing.assert_array_equal(decoded(data), decoded(plain))


@pytest.mark.parametrize(
    "notes",
    [
        {"XML:com.adobe.xmp": b"tiff:Orientation"},
        {"xmp": "tiff:Orientation"},
        {"Raw profile type exif": "\n\n\nno hexadecimal number"},
    ],
)
def test_picture_with_damaged_notes_is_a_picture(notes):
    image = Image.fromarray(PIXELS)
    image.info.update(notes)
    np.testing.assert_array_equal(decoded(image), PIXELS)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_truncated_file_is_an_error(format):
    noise = RNG.randint(0, 256, size=(64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), format)
    with pytest.raises((OSError, SyntaxError)):
        to_rgb(data[: len(data) // 2])


def test_file_that_an_interpreter_would_read_is_an_error(tmp_path):
    page = encoded(Image.fromarray(PIXELS), "EPS")
    (tmp_path / "page.png").write_bytes(page)
    for image in (page, tmp_path / "page.png"):
        with pytest.raises(UnidentifiedImageError, match="such as PNG") as caught:
            to_rgb(image)
        assert "formats that are read (JPEG, PNG" in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_special_file_is_refused_before_it_is_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(OSError, match="got a named pipe"):
        to_rgb(tmp_path / "pipe.png")
    with pytest.raises(OSError, match="got a device: '/dev/zero'"):
        to_rgb("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        with pytest.raises(OSError, match="got a socket"):
            to_rgb(str(tmp_path / "s"))


def test_decompression_bomb_is_an_error(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4)
    data = encoded(Image.new("L", (5, 5)), "PNG")
    with pytest.raises(Image.DecompressionBombError, match="decompression bomb"):
        to_rgb(data)


# X


@pytest.mark.parametrize(
    "X",
    [
        "cat.jpg",
        b"cat",
        pathlib.Path("cat.jpg"),
        Image.new("RGB", (2, 2)),
        bytearray(b"cat"),
    ],
)
def test_lone_image_as_x_is_an_error_that_says_to_wrap_it(X):
    with pytest.raises(ValueError, match=r"is one image\. Wrap it in a list: \[X\]"):
        check_images(X)


@pytest.mark.parametrize(
    "X",
    [
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((8, 8), np.uint8),
        torch.zeros(3, 8, 8),
        np.array("cat.jpg"),
        np.array([["a.jpg", "b.jpg"]]),
        np.zeros((1, 1, 8, 8, 3)),
    ],
)
def test_array_of_the_wrong_shape_as_x_is_an_error(X):
    shape = str(tuple(X.shape)).replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(ValueError, match=rf"got {X.ndim} dim.*, shape {shape}\. If it"):
        check_images(X)


@pytest.mark.parametrize(
    "X",
    [(name for name in "ab"), {"a.jpg"}, {"a": 1}, iter(["a.jpg"]), 7, None],
    ids=lambda X: type(X).__name__,
)
def test_x_without_length_and_order_is_an_error(X):
    way_out = r"Take one of \['a'\]: X\['a'\]" if isinstance(X, dict) else "Make a list"
    message = f"with a length and an order, got {type(X).__name__}. {way_out}"
    with pytest.raises(ValueError, match=message):
        check_images(X)


@pytest.mark.parametrize(
    "X",
    [[], (), np.zeros((0, 8, 8, 3)), pd.Series([], dtype=str), torch.zeros(0, 3, 8, 8)],
    ids=lambda X: type(X).__name__,
)
def test_empty_x_is_an_error(X):
    with pytest.raises(ValueError, match="X is empty: at least one image is required"):
        check_images(X)


def test_folder_as_x_is_an_error_that_says_how_to_list_it(tmp_path):
    for folder in (tmp_path, str(tmp_path)):
        with pytest.raises(ValueError, match=r"got the folder .*load_image_folder"):
            check_images(folder)


def test_data_frame_of_several_columns_is_an_error_that_names_them():
    with pytest.raises(ValueError, match=r"with 2 columns: \['path', 'label'\]"):
        check_images(pd.DataFrame({"path": ["a.jpg"], "label": [1]}))


def test_sequences_of_paths_are_read_by_position():
    paths = ["b.jpg", "a.jpg"]
    series = pd.Series(paths, index=[7, 0])
    forms = [
        paths,
        tuple(paths),
        np.array(paths),
        np.array(paths, dtype=object),
        np.array(paths, dtype=object).reshape(-1, 1),
        np.array(paths).reshape(-1, 1),
        series,
        series.astype("category"),
        series.to_frame("path"),
        pd.Index(paths),
    ]
    for X in forms:
        images = check_images(X)
        assert [images[i] for i in range(len(images))] == paths


def test_stack_of_images_is_not_copied():
    stack = PIXELS[None].repeat(3, axis=0)
    images = check_images(stack)
    assert len(images) == 3
    assert np.shares_memory(images[1], stack)
    tensors = check_images(torch.from_numpy(stack).permute(0, 3, 1, 2))
    np.testing.assert_array_equal(decoded(tensors[2]), PIXELS)


def test_stack_of_grey_images_is_read_as_a_list():
    digits = load_digits().images[:3] / 16
    with pytest.raises(ValueError, match=r"stack of grey images, use list\(X\)"):
        check_images(digits)
    images = check_images(list(digits))
    assert decoded(images[0]).shape == (8, 8, 3)


def test_any_object_with_length_and_positions_is_a_sequence():
    class Lazy:
        def __len__(self):
            return 2

        def __getitem__(self, index):
            raise AssertionError("no item is to be looked at")

    lazy = Lazy()
    assert check_images(lazy) is lazy


# JPEG at reduced size


@pytest.mark.parametrize(
    ("size", "least_side", "expected"),
    [
        ((400, 304), None, (400, 304)),
        ((400, 304), 305, (400, 304)),
        ((400, 304), 153, (400, 304)),
        ((400, 304), 152, (200, 152)),
        ((400, 304), 76, (100, 76)),
        ((400, 304), 38, (50, 38)),
        ((400, 304), 1, (50, 38)),
        ((304, 400), 152, (152, 200)),
    ],
)
def test_jpeg_is_decoded_no_smaller_than_the_least_side(size, least_side, expected):
    data = encoded(Image.new("RGB", size, (200, 100, 50)), "JPEG")
    reduced = to_rgb(data, least_side)
    assert reduced.size == expected
    np.testing.assert_allclose(np.asarray(reduced)[0, 0], [200, 100, 50], atol=2)


def test_reduced_jpeg_is_turned_and_of_three_channels():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.new("L", (400, 304), 77), "JPEG", exif=exif)
    reduced = to_rgb(data, 152)
    assert (reduced.size, reduced.mode) == ((152, 200), "RGB")
    assert reduced.getpixel((9, 9)) == (77, 77, 77)


@pytest.mark.parametrize("format", ["PNG", "WEBP", "BMP"])
def test_other_formats_are_decoded_at_full_size(format):
    assert to_rgb(encoded(Image.new("RGB", (64, 48)), format), 6).size == (64, 48)


# Batches


@pytest.mark.parametrize("num_workers", [0, 1, 4, None])
def test_batches_keep_the_order_of_the_images(num_workers):
    images = [np.zeros((1 + i, 1 + 60 // (1 + i)), np.uint8) for i in range(20)]
    batches = read_in_batches(
        images, lambda image: image.height, batch_size=8, num_workers=num_workers
    )
    assert list(batches) == [
        (0, list(range(1, 9))),
        (8, list(range(9, 17))),
        (16, list(range(17, 21))),
    ]


def test_next_batch_is_decoded_while_the_caller_works_on_this_one():
    decoded = [threading.Event() for _ in range(4)]

    def finish(image):
        decoded[image.width - 1].set()
        return image.width

    images = [np.zeros((1, 1 + i), np.uint8) for i in range(4)]
    batches = read_in_batches(images, finish, batch_size=2, num_workers=1)
    assert next(batches) == (0, [1, 2])
    assert decoded[3].wait(timeout=30), "nothing is decoded ahead"
    assert next(batches) == (2, [3, 4])


def test_without_overlap_nothing_is_decoded_while_the_caller_works(monkeypatch):
    monkeypatch.setattr("skbridge._images.batches._TURN", 4)
    seen = []
    images = [np.zeros((1, 1 + i), np.uint8) for i in range(11)]
    decoded = []
    for _ in read_in_batches(
        images, lambda image: seen.append(image.width), batch_size=2, overlap=False
    ):
        time.sleep(0.01)
        decoded.append(len(seen))
    assert decoded == [4, 4, 8, 8, 11, 11]


def test_without_overlap_a_turn_has_a_batch_at_least(monkeypatch):
    monkeypatch.setattr("skbridge._images.batches._TURN", 2)
    seen = []
    images = [np.zeros((1, 1 + i), np.uint8) for i in range(8)]
    batches = read_in_batches(
        images, lambda image: seen.append(image.width), batch_size=5, overlap=False
    )
    next(batches)
    time.sleep(0.01)
    assert len(seen) == 5


@pytest.mark.parametrize("overlap", [True, False])
def test_threads_are_started_once_and_serve_every_call(overlap):
    images = [np.zeros((1, 1), np.uint8)] * 9
    threads = set()
    for _ in range(3):
        for _ in read_in_batches(
            images,
            lambda image: threads.add(threading.current_thread()),
            batch_size=2,
            num_workers=2,
            overlap=overlap,
        ):
            pass
    assert 1 <= len(threads) <= 2
    assert all(thread.is_alive() for thread in threads)


def test_what_is_left_is_cancelled_when_the_caller_stops():
    go_on = threading.Event()
    seen = []

    def finish(image):
        seen.append(image.width)
        assert image.width <= 20 or go_on.wait(timeout=30)

    images = [np.zeros((1, 1 + i), np.uint8) for i in range(40)]
    batches = read_in_batches(images, finish, batch_size=20, num_workers=1)
    next(batches)
    batches.close()
    go_on.set()
    # The same thread serves this call once it is through with all others.
    list(read_in_batches(images[:1], finish, batch_size=1, num_workers=1))
    assert len(seen) <= 22


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform has no fork")
def test_forked_process_starts_threads_of_its_own():
    code = """
import os, warnings
import numpy as np
from skbridge._images.batches import read_in_batches
images = [np.zeros((1, 1), np.uint8)] * 4
read = lambda: list(read_in_batches(images, np.asarray, batch_size=2, num_workers=2))
read()
warnings.simplefilter("ignore")
child = os.fork()
if child == 0:
    os._exit(0 if len(read()) == 2 else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "PPM"])
def test_damaged_file_is_read_or_reported_but_stops_nothing(format):
    rng = np.random.RandomState(0)
    whole = np.frombuffer(encoded(Image.fromarray(PIXELS), format), np.uint8)
    damaged = []
    for cut in rng.randint(1, len(whole), size=60):
        data = whole.copy()
        data[rng.randint(0, len(whole), size=3)] = rng.randint(0, 256, size=3)
        damaged += [data.tobytes(), data[:cut].tobytes()]
    (_, results), *_ = read_in_batches(damaged, np.asarray, batch_size=120)
    assert len(results) == 120
    unreadable = [result for result in results if isinstance(result, Unreadable)]
    assert 0 < len(unreadable) < 120
    assert all("bytes): " in str(result) for result in unreadable)


# Descriptions


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (pathlib.Path("cat.jpg"), "'cat.jpg'"),
        (b"12345", "5 bytes"),
        (Image.new("L", (3, 2)), "PIL image of 3 x 2, mode L"),
        (PIXELS, "ndarray of shape (6, 9, 3), uint8"),
        (torch.zeros(3, 4, 5), "Tensor of shape (3, 4, 5), torch.float32"),
        (None, "None"),
        ({}, "object of type dict"),
    ],
)
def test_description_names_the_image(image, expected):
    assert describe_image(image) == expected


def test_description_of_an_opened_pil_image_names_its_file(tmp_path):
    path = str(tmp_path / "a.png")
    Image.fromarray(PIXELS).save(path)
    with Image.open(path) as image:
        assert describe_image(image) == f"{path!r}, PIL image of 9 x 6, mode RGB"


def test_no_progress_library_is_imported_where_no_progress_is_shown():
    code = """
import sys
from skbridge._images.batches import read_in_batches
images = [[[0, 0], [0, 0]]] * 3
list(read_in_batches(images, lambda image: 0, batch_size=2))
assert "tqdm.auto" not in sys.modules
list(read_in_batches(images, lambda image: 0, batch_size=2, verbose=1))
assert "tqdm.auto" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# Images as a person sees them


@pytest.mark.parametrize(
    ("pixels", "expected", "assumed"),
    [
        (np.array([[0, 128, 255]], np.uint16), [0, 128, 255], "8 bits"),
        (np.array([[0, 2048, 4095]], np.uint16), [0, 128, 255], "12 bits"),
        (np.array([[0, 1, 1]], np.uint8), [0, 255, 255], "a mask"),
        (np.array([[0, 1, 1]], np.uint16), [0, 255, 255], "a mask"),
        (np.array([[0, 257, 65535]], np.uint16), [0, 1, 255], None),
        (np.array([[0, 2, 2]], np.uint8), [0, 2, 2], None),
        (np.zeros((1, 3), np.uint16), [0, 0, 0], None),
    ],
)
def test_range_is_judged_from_the_values_and_told(pixels, expected, assumed):
    forms = [pixels, encoded(Image.fromarray(pixels), "PNG"), Image.fromarray(pixels)]
    for form in forms:
        told = []
        np.testing.assert_array_equal(
            np.asarray(to_rgb(form, tell=told.append))[0, :, 0], expected
        )
        assert len(told) == (assumed is not None)
        assert all(assumed in message for message in told)


def test_assumed_ranges_are_warned_of_once_in_the_calling_thread():
    images = [np.full((2, 2), 200, np.uint16)] * 5 + [PIXELS]
    with pytest.warns(UserWarning, match="5 of 6 images .* taken for 8 bits") as told:
        (_, results), *_ = read_in_batches(
            images, lambda image: image.getpixel((0, 0)), batch_size=6, num_workers=2
        )
    assert len(told) == 1
    assert results[:5] == [(200, 200, 200)] * 5


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP"])
def test_animation_that_begins_empty_is_its_first_picture(format):
    blank = Image.new("RGB", (9, 6), "white")
    options = {"lossless": True} if format == "WEBP" else {}
    for mode in ("RGB", "RGBA"):
        frames = [blank, Image.fromarray(PIXELS), Image.new("RGB", (9, 6), "red")]
        frames = [frame.convert(mode) for frame in frames]
        if mode == "RGBA":
            frames[0].putalpha(0)
        content = encoded(
            frames[0], format, save_all=True, append_images=frames[1:], **options
        )
        assert np.ptp(decoded(content)) > 100
        alone = encoded(frames[0], format, save_all=True, append_images=[blank])
        np.testing.assert_array_equal(decoded(alone), 255)


def test_image_that_the_caller_has_turned_is_not_turned_again():
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8769).update({0xA002: 9, 0xA003: 6})
    content = encoded(Image.fromarray(PIXELS), "PNG", exif=exif.tobytes())
    upright = np.rot90(PIXELS, -1)
    np.testing.assert_array_equal(decoded(content), upright)
    opened = Image.open(io.BytesIO(content))
    opened.load()
    np.testing.assert_array_equal(decoded(opened.convert("RGB")), upright)
    turned = opened.transpose(Image.Transpose.ROTATE_270)
    assert turned.getexif()[0x0112] == 6
    np.testing.assert_array_equal(decoded(turned), upright)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_image_that_was_turned_upright_is_not_turned_again(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(Image.fromarray(PIXELS), "PNG", exif=exif.tobytes())
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    np.testing.assert_array_equal(decoded(upright), np.asarray(upright))
    np.testing.assert_array_equal(decoded(content), np.asarray(upright))


@pytest.mark.parametrize(
    ("content", "remedy"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid", "run git lfs pull"),
        (b"\n<!DOCTYPE html><html>", "download the image itself"),
        (b'<?xml version="1.0"?><svg xmlns="x">', "SVG drawing: convert"),
        (b"%PDF-1.7", "PDF document: convert"),
        (b"\0\0\0\x20ftypisom" + bytes(20), "it is a video"),
    ],
)
def test_file_taken_for_an_image_is_an_error_with_its_remedy(content, remedy):
    with pytest.raises(UnidentifiedImageError, match=remedy):
        to_rgb(content)
