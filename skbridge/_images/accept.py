"""Forms in which images come: sequences of them, and what each item may be."""

import io
import os
import re
import sys
from collections.abc import Mapping, Set
from functools import partial
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np
from PIL import Image

from skbridge._messages import brief

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(::[^/]*)?://")
# No file system that is in use takes longer paths.
_LONGEST_PATH = 4096
_FORMS = (
    "a path, the bytes of an image file, an open file, a PIL image, an array or a "
    "torch tensor"
)


def is_url(path):
    """Whether a string is a URL, of any protocol, and no path of a local file."""
    return _URL.match(path) is not None


class NotAnImageError(TypeError):
    """An item whose type is not that of an image, so that the call is wrong."""


class _View:
    """A sequence that makes each of its items from that of another."""

    def __init__(self, items, make):
        self._items = items
        self._make = make

    def __len__(self):
        return len(self._items)

    def __getitem__(self, position):
        return self._make(self._items[position])


def check_images(X):
    """Check that X is a sequence of images, without looking at its items.

    Parameters
    ----------
    X : sequence of images
        A list, a tuple, a 1-D array, a Series, a table with one column (of pandas,
        polars or Arrow), a column of Arrow or of Hugging Face datasets, a data set of
        Hugging Face with one column of images or of torchvision, one array of
        shape (n, height, width, channels), one torch tensor of shape
        (n, channels, height, width), or any other object with a length and positional
        indexing, which may make its items when asked for them.

    Returns
    -------
    sequence
        Has `len` and takes positions 0 to `len - 1`. Items are not copied.

    Raises
    ------
    ValueError
        If X is a lone image, has no length and order, or is empty.

    Examples
    --------
    >>> from skbridge._images.accept import check_images
    >>> check_images(["cat.jpg", "dog.jpg"])
    ['cat.jpg', 'dog.jpg']
    """
    if isinstance(X, str | bytes | bytearray | memoryview | os.PathLike | Image.Image):
        raise _lone_image(X)
    X = _one_column(X)
    if _is_torchvision(X):
        X = _View(X, _image_of_pair)
    if isinstance(X, np.ndarray) and X.dtype.kind in "OSTU" and X.shape[1:] == (1,):
        X = X[:, 0]  # What scikit-learn makes of a one-column DataFrame.
    ndim = getattr(X, "ndim", 1)
    if ndim not in (1, 4):
        raise ValueError(
            "X must be a sequence of images or one array of shape (n, height, width, "
            f"channels), got {ndim} dimension(s), shape {tuple(X.shape)}. If it is one "
            "image, wrap it in a list: [X]; if it is a stack of grey images, use "
            "list(X); if it holds embeddings, they need no CLIPEmbedder."
        )
    if hasattr(X, "iloc"):
        X = list(X)  # A Series looks items up by label, not by position.
    is_ordered = hasattr(X, "__len__") and hasattr(X, "__getitem__")
    if not is_ordered or isinstance(X, Mapping | Set):
        raise ValueError(
            "X must be a sequence of images, with a length and an order, got "
            f"{type(X).__name__}. "
            + (
                f"Take one of {brief(list(X))}: X[{brief(next(iter(X), None))}]."
                if isinstance(X, Mapping)
                else "Make a list of its images first."
            )
        )
    if len(X) == 0:
        raise ValueError(
            "X is empty: at least one image is required. If it comes from a glob, "
            "look whether the folder and the suffix are right."
        )
    return X


def _lone_image(X):
    """Error for one image, or a folder, as X."""
    if isinstance(X, str | os.PathLike) and os.path.isdir(os.path.expanduser(X)):
        return ValueError(
            f"X must be a sequence of images, got the folder {brief(os.fspath(X))}. "
            "List its images: skbridge.datasets.load_image_folder(X).paths, or "
            "skbridge.datasets.list_images(X).paths where there are no labels."
        )
    return ValueError(
        f"X must be a sequence of images, got {describe_image(X)}, which is one "
        "image. Wrap it in a list: [X]."
    )


def _one_column(X):
    """Return the column of images of a table; anything else as it is."""
    names = getattr(X, "column_names", None)
    if isinstance(names, Mapping):  # Several parts of a Hugging Face data set.
        return X
    if hasattr(X, "features") and names is not None:
        return _hugging_face_images(X)
    if names is None and hasattr(X, "columns"):
        names = list(X.columns)
    if names is None or callable(names):
        return X
    if len(names) != 1:
        raise ValueError(
            "X must be a sequence of images or a DataFrame or table with one column "
            f"of them, got {type(X).__name__} with {len(names)} columns: "
            f"{brief(list(names))}. Select the column that holds the images."
        )
    return X.column(0) if hasattr(X, "num_columns") else X[names[0]]


def _hugging_face_images(data):
    """Return the images of a data set of Hugging Face, as files where it has these."""
    if not hasattr(data, "__len__"):
        raise ValueError(
            "X is a data set of Hugging Face that is streamed, which has no length. "
            "Take a part of it: list(data.take(1000))."
        )
    names = [
        name
        for name, feature in data.features.items()
        if type(feature).__name__ == "Image"
    ]
    if not names and len(data.column_names) == 1:
        names = list(data.column_names)
    if len(names) != 1:
        raise ValueError(
            "X must be a data set with one column of images, got "
            f"{brief(names or list(data.column_names))}. Pass one column: "
            f"X[{brief((names or list(data.column_names))[0])}]."
        )
    column = data.select_columns(names)
    if column.format["type"] is not None:
        return _View(column, lambda row: row[names[0]])
    # The file in place of a decoded image: threads decode it, and the cache finds it
    # by its bytes.
    return _View(column.with_format("arrow"), lambda rows: rows.column(0)[0])


def _is_torchvision(X):
    """Whether X is a data set of torchvision, or a part of one."""
    if hasattr(X, "dataset") and hasattr(X, "indices"):
        return _is_torchvision(X.dataset)
    return any(
        kind.__module__.startswith("torchvision.datasets") for kind in type(X).__mro__
    )


def _image_of_pair(item):
    return item[0] if isinstance(item, tuple) else item


def source_of(item):
    """Bring an item to one of the few forms that are decoded; nothing is read.

    Parameters
    ----------
    item : object
        An item of what `check_images` returns.

    Returns
    -------
    str, PIL.Image.Image, ndarray, torch.Tensor, object with `read`, or callable
        Path of a local file, with the home folder in place of ``~``; pixels; an open
        binary file; or what opens one.

    Raises
    ------
    NotAnImageError
        If the type is not that of an image.
    ValueError
        If an image is missing: None, NaN, or a record without bytes and path.
    """
    if hasattr(item, "as_py"):  # A scalar of Arrow.
        item = item.as_py()
    if isinstance(item, Mapping) and item.keys() >= {"bytes"}:
        content, path = item["bytes"], item.get("path")
        item = path if content is None else io.BytesIO(content)
    if isinstance(item, bytes):
        item = os.fsdecode(item) if _is_path(item) else io.BytesIO(item)
    elif isinstance(item, bytearray | memoryview):
        item = io.BytesIO(item)
    if isinstance(item, str | os.PathLike):
        return _path_or_url(os.fspath(item))
    if isinstance(item, Image.Image) or hasattr(item, "read"):
        return item
    if _is_tensor(item) or hasattr(item, "__array__"):
        return item
    if hasattr(item, "open"):
        # An unopened file: of fsspec, whose mode is its own, or a zipfile.Path.
        if not hasattr(item, "fs"):
            return partial(item.open, "rb")
        is_local = "file" in np.atleast_1d(item.fs.protocol)
        # Local files are checked before they are opened: devices never end.
        return item.path if is_local and not item.compression else item.open
    raise _no_image(item)


def _no_image(item):
    message = f"expected {_FORMS}, got {describe_image(item)}"
    is_missing = isinstance(item, float) and item != item
    if item is None or is_missing or type(item).__name__ == "NAType":
        return ValueError(f"the image is missing: {message}")
    if isinstance(item, tuple | list) and len(item) == 2:
        message += (
            ". A pair of an image and its label is taken apart first: X = [image for "
            "image, label in data], y = [label for image, label in data]"
        )
    elif isinstance(item, Mapping):
        message += (
            f" with the keys {brief(list(item))}. Pass what holds the image, or a "
            "record with 'bytes' and 'path'"
        )
    return NotAnImageError(message)


def _is_path(content):
    """Whether bytes are the path of a file, as os.listdir(b".") and h5py give it."""
    return (
        0 < len(content) <= _LONGEST_PATH
        and b"\0" not in content
        and os.path.lexists(os.path.expanduser(content))
    )


def _path_or_url(path):
    path = os.fsdecode(path)
    if path.startswith("file://"):
        return url2pathname(urlsplit(path).path)
    if is_url(path):
        return partial(_open_url, path)
    return os.path.expanduser(path) if path.startswith("~") else path


def _open_url(url):
    try:
        import fsspec
    except ImportError as error:
        raise ValueError(
            f"{brief(url)} is a URL, and URLs are read with the package fsspec, which "
            "is not installed: pip install fsspec. Or download the file first"
        ) from error
    # Not its open(): a file of an archive is closed with the OpenFile that it is of.
    return fsspec.open(url, "rb")


def _is_tensor(item):
    torch = sys.modules.get("torch")  # No tensor exists where torch is not imported.
    return torch is not None and isinstance(item, torch.Tensor)


def describe_image(image):
    """Say in a few words which image this is, for messages.

    Parameters
    ----------
    image : object
        Anything, an image or not.

    Returns
    -------
    str
        The path where there is one, otherwise the type and the size.

    Examples
    --------
    >>> import numpy as np
    >>> from skbridge._images.accept import describe_image
    >>> describe_image("cat.jpg")
    "'cat.jpg'"
    >>> describe_image(np.zeros((4, 6, 3), dtype=np.uint8))
    'ndarray of shape (4, 6, 3), uint8'
    """
    if hasattr(image, "as_py"):
        image = image.as_py()
    if isinstance(image, Mapping) and "bytes" in image:
        content, path = image["bytes"], image.get("path")
        image = path if content is None or path is not None else content
    if isinstance(image, bytes) and _is_path(image):
        image = os.fsdecode(image)
    if isinstance(image, str | os.PathLike):
        return brief(os.fspath(image))
    if isinstance(image, bytes | bytearray | memoryview):
        return f"{len(image)} bytes"
    if isinstance(image, Image.Image):
        name = getattr(image, "filename", "")
        size = f"PIL image of {image.width} x {image.height}, mode {image.mode}"
        return f"{brief(name)}, {size}" if name else size
    if hasattr(image, "shape") and hasattr(image, "dtype"):
        kind = type(image).__name__
        return f"{kind} of shape {tuple(image.shape)}, {image.dtype}"
    if image is None or isinstance(image, float):
        return repr(image)
    if hasattr(image, "open"):
        return brief(image)
    if isinstance(image, tuple):
        return f"tuple of {', '.join(type(part).__name__ for part in image[:3])}"
    return f"object of type {type(image).__name__}"
