"""Formats of image files that are read, and the packages that some of them need."""

import errno
import os
import stat
from importlib import import_module

from PIL import Image, UnidentifiedImageError

from skbridge._images.limits import check_file_size
from skbridge._messages import brief

# Formats of pixels that are read, where PIL has them. The others that PIL knows are
# pages that it hands to an interpreter (EPS, PS) or are read by stubs and old code.
_FORMATS = (
    *("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF", "MPO"),
    *("JPEG2000", "PPM", "ICO", "QOI", "SGI", "PCX", "TGA"),
)

# Formats that PIL may lack: suffixes, brands in the first bytes of a file, the package
# that reads them, its module, and its function that tells PIL.
_PLUGINS = {
    "HEIF": (
        (".heic", ".heif", ".hif"),
        (b"heic", b"heix", b"hevc", b"heim", b"heis", b"hevx", b"mif1", b"msf1"),
        ("pillow-heif", "pillow_heif", "register_heif_opener"),
    ),
    "AVIF": (
        (".avif", ".avifs"),
        (b"avif", b"avis"),
        ("pillow-avif-plugin", "pillow_avif", None),
    ),
}

_VIDEOS = (b"isom", b"iso2", b"mp41", b"mp42", b"qt  ", b"m4v ", b"avc1")

_SPECIAL_FILES = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


# A longer path that does not exist is shown in part.
_LONGEST_MISSING = 500


def image_suffixes():
    """List the suffixes of the image files that are read.

    Returns
    -------
    frozenset of str
        In lower case, with their dot; those of formats that need a further package
        are among them.
    """
    Image.init()
    known = {
        suffix
        for suffix, format in Image.registered_extensions().items()
        if format in _FORMATS
    }
    return frozenset(known.union(*(suffixes for suffixes, *_ in _PLUGINS.values())))


def open_image(file):
    """Open a path or a binary file of one of the formats that are read.

    Parameters
    ----------
    file : str, path-like or binary file

    Returns
    -------
    PIL.Image.Image
        Its header is read, its pixels are not.

    Raises
    ------
    OSError
        If it is not a regular file, cannot be read, or is of no format that is read.
    """
    if isinstance(file, str | os.PathLike):
        kind = stat.S_IFMT(_status(file).st_mode)
        if kind != stat.S_IFREG:
            # Opening a pipe or a device waits, or does something.
            wrong = IsADirectoryError if kind == stat.S_IFDIR else OSError
            raise wrong(
                f"expected a regular file, got {_SPECIAL_FILES.get(kind, 'another')}: "
                f"{brief(os.fspath(file))}; pass the path of an image file"
            )
    check_file_size(file)
    Image.init()
    try:
        return Image.open(file, formats=_readable())
    except UnidentifiedImageError as error:
        format = _plugin_format(file)
        if format is not None and _load_plugin(format):
            return Image.open(file, formats=_readable())
        raise UnidentifiedImageError(_why_not(file, format)) from error


def _status(path):
    try:
        return os.stat(path)
    except (OSError, ValueError) as error:
        is_missing = isinstance(error, FileNotFoundError)
        if is_missing and len(os.fspath(path)) <= _LONGEST_MISSING:
            raise
        if is_missing or getattr(error, "errno", None) in (errno.ENAMETOOLONG, None):
            raise ValueError(
                f"a string is the path of a file, and {brief(os.fspath(path))} is "
                "none; decode an image in base64 first: base64.b64decode(text)"
            ) from None
        raise


def _readable():
    return [name for name in _FORMATS if name in Image.OPEN]


def _head(file, n_bytes):
    """First bytes of a path or file."""
    if isinstance(file, str | os.PathLike):
        with open(file, "rb") as stream:
            return stream.read(n_bytes)
    file.seek(0)
    head = file.read(n_bytes)
    file.seek(0)
    return head


def _plugin_format(file):
    """Name of the format of a file, if it is one that PIL lacks."""
    head = _head(file, 12)
    if head[4:8] != b"ftyp":
        return None
    for format, (_, brands, _) in _PLUGINS.items():
        if head[8:12] in brands and format not in Image.OPEN:
            return format
    return None


def _load_plugin(format):
    """Tell PIL of a package that reads a format; False if it is not installed."""
    _, module, function = _PLUGINS[format][2]
    try:
        plugin = import_module(module)
    except ImportError:
        return False
    if function is not None:
        getattr(plugin, function)()
    return format in Image.OPEN


def _mistaken(file):
    """Say what a file is that is taken for an image, and the way out; or None."""
    head = _head(file, 512).lstrip().lower()
    if not head:
        return "the file is empty"
    if head.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS: run git lfs pull"
    if head.startswith((b"<!doctype html", b"<html")):
        return "it is a web page: download the image itself"
    if b"<svg" in head:
        return "it is an SVG drawing: convert it to PNG"
    if head.startswith(b"%pdf"):
        return "it is a PDF document: convert its pages to PNG"
    if head[4:8] == b"ftyp" and head[8:12] in _VIDEOS:
        return "it is a video: take frames of it"
    return None


def _why_not(file, format):
    if format is not None:
        package = _PLUGINS[format][2][0]
        return (
            f"{format} images are read with the package {package}, which is not "
            f"installed: pip install {package}"
        )
    return _mistaken(file) or (
        "it is damaged, or of none of the formats that are read "
        f"({', '.join(_readable())}); convert it to one of them, such as PNG"
    )
