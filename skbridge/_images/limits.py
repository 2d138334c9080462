"""Limit of the memory that decoding one image takes."""

import math
import os

import numpy as np
from PIL import Image

# Bytes that decoding may take at its peak, besides the file, unless the caller says
# another number; the next two are in proportion to it.
BUDGET = 400 * 10**6
# Part of it for the pixels as PIL decodes them; the rest is for conversion to RGB.
_MOST_DECODED = 352 * 10**6
_MOST_CONVERTED = 380 * 10**6
# Some formats are read into memory as a whole.
LARGEST_FILE = 384 * 2**20
# A progressive JPEG has about ten; each costs as much time as a whole picture.
_MOST_SCANS = 100
# Pixels that are converted at once, at up to 17 bytes each.
_BAND = 2**19
# PIL has four bytes per pixel for all other modes.
_SMALL_MODES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2, "I;16N": 2}
# Further bytes per pixel in decoders, as measured; WebP's makes all frames alike.
_DECODERS = {"WEBP": 12, "JPEG2000": 12, "AVIF": 2}
_LONGEST_RATIO = 8
_LARGE = 20 * 10**6


def check_file_size(file):
    """Refuse a file that is too large for an image.

    Parameters
    ----------
    file : str, path-like or binary file

    Raises
    ------
    ValueError
        If it is larger than 384 MiB.
    """
    if isinstance(file, str | os.PathLike):
        size = os.stat(file).st_size
    else:
        try:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
        except (AttributeError, OSError):  # A stream, which PIL reads once.
            return
    if size is not None and size > LARGEST_FILE:
        raise ValueError(
            f"the file has {size / 2**20:,.0f} MiB; expected an image file of at most "
            f"{LARGEST_FILE >> 20} MiB. Convert it to JPEG"
        )


def is_too_large(path_size):
    """Whether a file of so many bytes is refused without being read."""
    return path_size > LARGEST_FILE


def limit_decoding(image, budget=BUDGET):
    """Decode a large JPEG at reduced size; refuse what takes too much memory.

    Parameters
    ----------
    image : PIL.Image.Image
        Opened, its pixels not read yet. Its size and mode may change.
    budget : int, default=400_000_000
        Bytes that decoding may take.

    Raises
    ------
    ValueError
        If decoding it would take more than the budget.
    """
    most = _MOST_DECODED * budget // BUDGET
    n_pixels = image.width * image.height
    needed = _DECODERS.get(image.format, 0) * n_pixels
    if image.format in ("JPEG", "MPO"):
        needed = _check_scans(image, n_pixels)
        room = most - needed
        scale = next(
            (s for s in (1, 2, 4, 8) if _decoded(image) <= room * s * s / 1.5), 8
        )
        if scale > 1:
            image.draft(None, (image.width // scale, image.height // scale))
    needed += _decoded(image)
    if needed > most:
        raise ValueError(
            f"decoding {n_pixels / 1e6:,.0f} megapixels ({image.format}, mode "
            f"{image.mode}) would take {needed / 1e6:,.0f} MB of memory; the limit is "
            f"{most / 1e6:,.0f} MB per image. Make the picture smaller first, or raise "
            "max_image_mb"
        )


def _decoded(image):
    return image.width * image.height * _SMALL_MODES.get(image.mode, 4)


def _check_scans(image, n_pixels):
    """Bytes of the coefficients of a JPEG whose pixels come after several scans."""
    is_progressive = bool(image.info.get("progressive"))
    if not is_progressive and n_pixels < _LARGE:
        return 0
    n_scans = _count_scans(image.fp)
    if n_scans > _MOST_SCANS:
        raise ValueError(
            f"a JPEG of {n_scans:,} scans takes too long; at most {_MOST_SCANS} are "
            "read. Save the picture anew"
        )
    if not is_progressive and n_scans < 2:
        return 0
    sampling = [(layer[1], layer[2]) for layer in image.layer]
    largest = max(h for h, _ in sampling) * max(v for _, v in sampling)
    return int(2 * n_pixels * sum(h * v for h, v in sampling) / max(1, largest))


def _count_scans(file):
    where = file.tell()
    file.seek(0)
    n_scans, last = 0, b""
    while chunk := file.read(2**20):
        n_scans += (last + chunk).count(b"\xff\xda")
        last = chunk[-1:]
    file.seek(where)
    return n_scans


def has_budget(budget=BUDGET):
    """Whether the memory that one image may take is there."""
    try:
        np.empty(budget, dtype=np.uint8)  # Reserved, and not touched.
    except MemoryError:
        return False
    return True


def convert_in_bands(image, to_rgb, n_outputs=1, budget=BUDGET):
    """Convert an image to RGB, band by band, and smaller if it is very large.

    Parameters
    ----------
    image : PIL.Image.Image
        Loaded.
    to_rgb : callable
        Converts an image to mode RGB, each pixel by itself.
    n_outputs : int, default=1
        Number of images of the size of the result in memory at once.
    budget : int, default=400_000_000
        Bytes that source and results may take.

    Returns
    -------
    PIL.Image.Image
        Mode RGB. Where source and result would exceed the budget, blocks of pixels
        are averaged, so that the sides are a half, a third, ... of those of the image.
    """
    width, height = image.size
    if width * height <= _BAND * 8:
        return to_rgb(image)
    most = _MOST_CONVERTED * budget // BUDGET
    room = max(most - _decoded(image), most // 400)
    factor = max(1, math.ceil(math.sqrt(n_outputs * 4 * width * height / room)))
    size = -(-width // factor), -(-height // factor)
    converted = Image.new("RGB", size)
    n_rows = max(1, _BAND // width // factor) * factor
    for top in range(0, height, n_rows):
        band = to_rgb(image.crop((0, top, width, min(height, top + n_rows))))
        converted.paste(band.reduce(factor), (0, top // factor))
    return converted


def central_part(image):
    """Crop a very long image to what a square in its middle needs.

    A transform that resizes the shorter side, and then crops, first makes an image that
    is as long in proportion: of 100,000 x 1 pixels, one of 22,400,000 x 224.

    Parameters
    ----------
    image : PIL.Image.Image

    Returns
    -------
    PIL.Image.Image
        At most about 8 times as long as wide, with the same centre. The margins are
        wider than any filter, so that the square changes by at most a shift of half a
        pixel.
    """
    width, height = image.size
    extra_x = max(0, width - _LONGEST_RATIO * height) // 2
    extra_y = max(0, height - _LONGEST_RATIO * width) // 2
    if not extra_x and not extra_y:
        return image
    return image.crop((extra_x, extra_y, width - extra_x, height - extra_y))
