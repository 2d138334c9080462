"""Whatever users call an image, decoded to upright 8-bit RGB."""

import io
import os
import sys
import threading
from collections import deque
from collections.abc import Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import lru_cache, partial
from itertools import islice
from typing import NamedTuple

import joblib
import numpy as np
from PIL import ExifTags, Image

from skbridge._images.formats import open_image
from skbridge._messages import brief

# What undoes each EXIF orientation; 1, and anything unknown, is upright already.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# PIL reads the pixels of an opened file at first use, which two threads that hold the
# same image object must not do at once.
_FIRST_USE = threading.Lock()

# Images decoded in a turn of a caller that needs all cores, or a batch where that is
# more. Turns are long because torch's threads, when they are through with a batch, keep
# their cores busy for some milliseconds in the hope of more.
_TURN = 256
# More threads wait for the interpreter lock, and keep it from the thread that feeds the
# GPU: with 16 in place of 8, ViT-B/16 embeds 667 in place of 1,061 images per second.
_MAX_DECODERS = 8


def check_images(X):
    """Check that X is a sequence of images, without looking at its items.

    Parameters
    ----------
    X : sequence of images
        A list, a tuple, a 1-D array, a Series, a one-column DataFrame, one array of
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
    >>> from skbridge._images.decode import check_images
    >>> check_images(["cat.jpg", "dog.jpg"])
    ['cat.jpg', 'dog.jpg']
    """
    if isinstance(X, str | bytes | bytearray | memoryview | os.PathLike | Image.Image):
        if isinstance(X, str | os.PathLike) and os.path.isdir(X):
            raise ValueError(
                "X must be a sequence of images, got the folder "
                f"{brief(os.fspath(X))}. "
                "List its images: skbridge.datasets.load_image_folder(X).paths, or "
                "skbridge.datasets.list_images(X).paths where there are no labels."
            )
        raise ValueError(
            f"X must be a sequence of images, got {describe_image(X)}, which is one "
            "image. Wrap it in a list: [X]."
        )
    if hasattr(X, "columns"):
        if len(X.columns) != 1:
            raise ValueError(
                "X must be a sequence of images or a DataFrame with one column of "
                f"them, got a DataFrame with {len(X.columns)} columns: "
                f"{list(X.columns)}. Select the column that holds the images."
            )
        X = X[X.columns[0]]
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
            f"{type(X).__name__}. Make a list of its images first."
        )
    if len(X) == 0:
        raise ValueError(
            "X is empty: at least one image is required. If it comes from a glob, "
            "look whether the folder and the suffix are right."
        )
    return X


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
    >>> from skbridge._images.decode import describe_image
    >>> describe_image("cat.jpg")
    "'cat.jpg'"
    >>> describe_image(np.zeros((4, 6, 3), dtype=np.uint8))
    'ndarray of shape (4, 6, 3), uint8'
    """
    if isinstance(image, str | os.PathLike):
        return repr(os.fspath(image))
    if isinstance(image, bytes | bytearray | memoryview):
        return f"{len(image)} bytes"
    if isinstance(image, Image.Image):
        name = getattr(image, "filename", "")
        size = f"PIL image of {image.width} x {image.height}, mode {image.mode}"
        return f"{name!r}, {size}" if name else size
    if hasattr(image, "shape") and hasattr(image, "dtype"):
        kind = type(image).__name__
        return f"{kind} of shape {tuple(image.shape)}, {image.dtype}"
    if image is None or isinstance(image, float):
        return repr(image)
    return f"object of type {type(image).__name__}"


def to_rgb(image, least_side=None):
    """Decode one image to RGB, as a person sees it.

    Parameters
    ----------
    image : str, PathLike, bytes, file, PIL.Image.Image, ndarray or torch.Tensor
        - the path of a regular file, the bytes or an open binary file of a common
          raster format, such as JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF or, with a plugin
          of PIL, HEIF (of several frames, the first);
        - a PIL image of any mode that PIL converts to RGB;
        - an array of shape (height, width) or (height, width, channels) with 1 (grey),
          2 (grey, alpha), 3 (RGB) or 4 (RGBA) channels; bool, uint8, uint16 (divided
          by 257) or floating point in [0, 1] (rounded to 8 bits);
        - a torch tensor of shape (height, width) or (channels, height, width), of the
          same types.
    least_side : int or None, default=None
        JPEG files are decoded at a half, a quarter or an eighth of their size, which
        is quicker, as long as both sides keep this many pixels. None decodes them at
        full size.

    Returns
    -------
    PIL.Image.Image
        Mode RGB, 8 bits. Transparent pixels are laid over white, 16-bit grey is scaled
        to 8 bits, and the EXIF orientation is applied.

    Raises
    ------
    Exception
        Whatever keeps the image from being read: ValueError for what is not an image,
        OSError and others from PIL for files.

    Examples
    --------
    >>> import numpy as np
    >>> from skbridge._images.decode import to_rgb
    >>> to_rgb(np.full((2, 2), 65535, dtype=np.uint16)).getpixel((0, 0))
    (255, 255, 255)
    """
    torch = sys.modules.get("torch")  # No tensor exists where torch is not imported.
    if isinstance(image, bytes | bytearray | memoryview):
        image = io.BytesIO(image)
    if isinstance(image, str | os.PathLike) or hasattr(image, "read"):
        with open_image(image) as opened:
            if least_side is not None and opened.format in ("JPEG", "MPO"):
                opened.draft(None, (least_side, least_side))
            return _pil_to_rgb(opened)
    if isinstance(image, Image.Image):
        with _FIRST_USE:
            image.load()
        return _pil_to_rgb(image)
    if torch is not None and isinstance(image, torch.Tensor):
        return _pil_to_rgb(_array_to_pil(_channels_last(image)))
    if hasattr(image, "__array__"):
        return _pil_to_rgb(_array_to_pil(np.asarray(image)))
    raise ValueError(
        "expected a path, the bytes of an image file, an open file, a PIL image, an "
        f"array or a torch tensor, got {describe_image(image)}"
    )


class Unreadable(NamedTuple):
    """What stands in the place of an image that could not be read.

    Attributes
    ----------
    description : str
        Which image it is, as `describe_image` gives it.
    error : Exception
        What kept it from being read.
    """

    description: str
    error: Exception

    def __str__(self):
        return f"({self.description}): {type(self.error).__name__}: {self.error}"


def read_in_batches(
    images,
    finish,
    *,
    batch_size,
    num_workers=None,
    overlap=True,
    least_side=None,
    verbose=0,
):
    """Decode images ahead of their use, in memory that does not grow with their number.

    Parameters
    ----------
    images : sequence
        As `check_images` returns it. Items are fetched in the calling thread, since a
        sequence that makes them need not be thread-safe.
    finish : callable
        Applied to each decoded image in the thread that decoded it.
    batch_size : int
        Images of a batch.
    num_workers : int or None, default=None
        Threads that decode; 0 is the calling thread, None one per CPU core, at most 8.
        They are started once and kept for the next call.
    overlap : bool, default=True
        Decode the next batch while the caller works on this one. False leaves the
        cores to the caller in the meantime: 256 images, or a batch where that is more,
        are decoded before it gets the first of them.
    least_side : int or None, default=None
        As for `to_rgb`.
    verbose : int, default=0
        Above 0, a progress bar is written to stderr.

    Yields
    ------
    start : int
        Position of the first image of the batch.
    results : list
        For each image of the batch, in order, what `finish` returned, or an
        `Unreadable`. At no time are there more than `batch_size` images that were
        fetched and are not yet decoded.

    Examples
    --------
    >>> import numpy as np
    >>> from skbridge._images.decode import read_in_batches
    >>> images = [np.zeros((2, 3)), np.zeros((4, 5)), None]
    >>> batches = read_in_batches(images, lambda image: image.size, batch_size=2)
    >>> next(batches)
    (0, [(3, 2), (5, 4)])
    >>> start, results = next(batches)
    >>> print(start, results[0])  # doctest: +ELLIPSIS
    2 (None): ValueError: expected a path, ...
    """
    n_threads = num_workers
    if num_workers is None:
        n_threads = min(joblib.cpu_count(), _MAX_DECODERS)
    attempt = partial(_attempt, finish=finish, least_side=least_side)
    items = ([images[position]] for position in range(len(images)))
    run = map
    if n_threads > 0:
        run = partial(_map_ahead, n_threads=n_threads, ahead=batch_size)
    run = partial(run, attempt)
    turn = max(batch_size, _TURN)
    results = run(items) if overlap else _in_turns(run, items, turn)
    with _progress_bar(len(images)) if verbose else nullcontext() as bar:
        for start in range(0, len(images), batch_size):
            yield start, list(islice(results, batch_size))
            if bar is not None:
                bar.update(min(batch_size, len(images) - start))


def _progress_bar(n_images):
    # tqdm.auto warns in notebooks without ipywidgets, also about bars not shown.
    from tqdm.auto import tqdm

    return tqdm(total=n_images, unit="image")


def _in_turns(run, items, turn):
    """Yield what `run` makes of the items, so many at once and then none ahead."""
    while results := list(run(islice(items, turn))):
        yield from results


def _map_ahead(function, items, *, n_threads, ahead):
    """Yield `function` of each item, in order, while up to `ahead` more are made."""
    submit = _decoders(n_threads).submit
    pending = deque(submit(function, item) for item in islice(items, ahead))
    try:
        while pending:
            result = pending.popleft().result()
            pending.extend(submit(function, item) for item in islice(items, 1))
            yield result
    finally:
        for future in pending:
            future.cancel()


@lru_cache(maxsize=1)
def _decoders(n_threads):
    """Return the threads that decode, which every call shares."""
    return ThreadPoolExecutor(n_threads, thread_name_prefix="skbridge-decoder")


if hasattr(os, "register_at_fork"):
    # A forked process has no threads but its own.
    os.register_at_fork(after_in_child=_decoders.cache_clear)


def _attempt(item, finish, least_side):
    """Return `finish` of the decoded image, or what kept it from being read."""
    # Taken out of its list, the image lives no longer than this call.
    image = item.pop()
    try:
        return finish(to_rgb(image, least_side))
    except Exception as error:  # Broken files make decoders raise almost anything.
        return Unreadable(describe_image(image), error)


def _pil_to_rgb(image):
    """Return a PIL image of any mode as upright RGB over white."""
    image.load()  # PIL itself turns some formats while loading; ask for EXIF after it.
    turn = _upright_turn(image)
    if image.mode.startswith("I;16"):
        image = _array_to_pil(np.asarray(image))
    elif image.mode == "I":
        image = _array_to_pil(_wide_grey(np.asarray(image)))
    elif image.mode == "F":
        image = _array_to_pil(np.asarray(image))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    if image.mode != "RGB":
        image = image.convert("RGB")
    return image if turn is None else image.transpose(turn)


def _upright_turn(image):
    """Return what undoes the orientation in the EXIF or XMP of an image, or None."""
    try:
        return _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation))
    except Exception:  # Damaged notes on a picture raise anything, and are no damage.
        return None


def _wide_grey(array):
    """Narrow the 32-bit grey that some readers make of 16-bit files to 16 bits."""
    if array.min() < 0 or array.max() > 65535:
        raise ValueError(
            "a 32-bit grey image (mode 'I') is read as 16-bit and must lie in "
            f"[0, 65535], got values from {array.min()} to {array.max()}"
        )
    return array.astype(np.uint16)


def _array_to_pil(array):
    """Return an array of pixels, channels last, as an 8-bit PIL image."""
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    is_image = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (2, 3, 4))
    if not is_image or array.size == 0:
        first = array.ndim == 3 and array.shape[0] in (1, 3, 4)
        raise ValueError(
            "an image array has shape (height, width) or (height, width, channels) "
            f"with 1 to 4 channels and at least one pixel, got {array.shape}"
            + ("; move the channels to the end: np.moveaxis(a, 0, -1)" if first else "")
        )
    return Image.fromarray(_to_uint8(array))


def _to_uint8(array):
    """Scale pixels of any type whose range is known to 8 bits."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:
        return np.rint(array / np.float32(257)).astype(np.uint8)
    if array.dtype.kind == "f":
        # What rounding errors have carried out of [0, 1] rounds to 0 or 255.
        pixels = np.rint(array * np.float32(255))
        # Written so that NaN fails it too.
        if not (pixels.min() >= 0 and pixels.max() <= 255):
            raise ValueError(
                "floating point pixels must lie in [0, 1], got values from "
                f"{array.min():.6g} to {array.max():.6g}; pass the image before any "
                "normalisation, divide by 255, or clip"
            )
        return pixels.astype(np.uint8)
    raise ValueError(
        "pixels must be bool, uint8, uint16 or floating point in [0, 1], got "
        f"{array.dtype}; convert, for example with .astype(np.uint8) for values in "
        "0 to 255"
    )


def _channels_last(tensor):
    """Return a torch tensor of shape (C, H, W) as an array of shape (H, W, C)."""
    if tensor.ndim == 3:
        if tensor.shape[0] > 4:
            raise ValueError(
                "a torch tensor of an image has shape (channels, height, width), got "
                f"{tuple(tensor.shape)}; move the channels to the front: "
                "t.permute(2, 0, 1)"
            )
        tensor = tensor.permute(1, 2, 0)
    tensor = tensor.detach().cpu()
    # NumPy has no bfloat16.
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()
