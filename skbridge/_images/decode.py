"""Decoding of images of any form to upright 8-bit RGB."""

import threading
from functools import partial

import numpy as np
from PIL import ExifTags, Image

from skbridge._images.accept import source_of
from skbridge._images.formats import open_image
from skbridge._images.limits import BUDGET, convert_in_bands, limit_decoding

# Operation that undoes each EXIF orientation; 1, and anything unknown, is upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Those that exchange width and height.
_QUARTER_TURNS = (5, 6, 7, 8)
# Relative difference of two aspect ratios that rounding a size leaves.
_SAME_SHAPE = 0.02
# Pixels whose range is judged at once.
_JUDGED_AT_ONCE = 2**22
# Formats of animations, and how many frames are searched for one with a picture.
_ANIMATED = ("AVIF", "GIF", "PNG", "WEBP")
_FRAMES = 10
_LARGEST_FRAME = 20 * 10**6

# PIL reads the pixels of an opened file at first use, which two threads that hold the
# same image object must not do at once.
_FIRST_USE = threading.Lock()


def to_rgb(image, least_side=None, tell=None, budget=BUDGET):
    """Decode one image to RGB, as a person sees it.

    Parameters
    ----------
    image : str, PathLike, bytes, dict, file, PIL.Image.Image, ndarray or torch.Tensor
        - the path of a regular file (``~`` is the home folder), the bytes or a binary
          file, open or not, of a common raster format, such as JPEG, PNG, WEBP, GIF,
          BMP, TIFF, AVIF or, with the package pillow-heif, HEIF (of several frames,
          the first
          that is not of one colour); a URL, with the package fsspec;
        - a record of Hugging Face datasets or Arrow with "bytes" and "path";
        - a PIL image of any mode that PIL converts to RGB;
        - an array of shape (height, width) or (height, width, channels) with 1 (grey),
          2 (grey, alpha), 3 (RGB) or 4 (RGBA) channels; bool, uint8, uint16 (divided
          by 257, unless their values are of 8 or 12 bits) or floating point in [0, 1]
          (rounded to 8 bits);
        - a torch tensor of shape (height, width) or (channels, height, width), of the
          same types.
    least_side : int or None, default=None
        JPEG files are decoded at a half, a quarter or an eighth of their size, which
        is quicker, as long as both sides keep this many pixels. None decodes them at
        full size.
    tell : callable or None, default=None
        Called with what was assumed, a str, where the values of an image do not use
        the range of their type: 8 or 12 bits in 16, or a mask of 0 and 1.
    budget : int, default=400_000_000
        Bytes of memory that the image may take. JPEG files that need more are decoded
        at reduced size; what needs more nevertheless is an error.

    Returns
    -------
    PIL.Image.Image
        Mode RGB, 8 bits. Transparent pixels are laid over white, 16-bit grey is scaled
        to 8 bits, and the EXIF orientation is applied.

    Raises
    ------
    Exception
        If the image cannot be read: NotAnImageError for an object of
        another type, ValueError for a missing image or pixels that are none, OSError
        and others from PIL for files.

    Examples
    --------
    >>> import numpy as np
    >>> from skbridge._images.decode import to_rgb
    >>> to_rgb(np.full((2, 2), 65535, dtype=np.uint16)).getpixel((0, 0))
    (255, 255, 255)
    """
    image = source_of(image)
    if callable(image):
        with image() as stream:
            return to_rgb(stream, least_side, tell, budget)
    if isinstance(image, str) or hasattr(image, "read"):
        with open_image(image) as opened:
            if least_side is not None and opened.format in ("JPEG", "MPO"):
                opened.draft(None, (least_side, least_side))
            limit_decoding(opened, budget)
            return _first_picture(opened, tell, budget)
    if isinstance(image, Image.Image):
        with _FIRST_USE:
            image.load()
        return _pil_to_rgb(image, tell, budget)
    array = _channels_last(image) if hasattr(image, "detach") else np.asarray(image)
    return _pil_to_rgb(
        _array_to_pil(array, _most(lambda: [array], tell)), budget=budget
    )


def _first_picture(opened, tell, budget):
    """Return the first frame of a file that is not of one colour, else the first."""
    first = _pil_to_rgb(opened, tell, budget)
    is_animated = opened.format in _ANIMATED and opened.is_animated
    # Two large frames would need too much memory.
    is_small = opened.width * opened.height <= _LARGEST_FRAME
    if not (is_animated and is_small and _is_blank(first)):
        return first
    first = first.copy()  # It may be the opened image, which goes on to other frames.
    for frame in range(1, _FRAMES):
        try:
            opened.seek(frame)
        except EOFError:
            break
        later = _pil_to_rgb(opened, tell, budget)
        if not _is_blank(later):
            return later
    return first


def _is_blank(image):
    return all(low == high for low, high in image.getextrema())


def _pil_to_rgb(image, tell=None, budget=BUDGET):
    """Return a PIL image of any mode as upright RGB over white."""
    image.load()  # PIL itself turns some formats while loading; ask for EXIF after it.
    turn = _upright_turn(image)
    most = None
    if image.mode == "L" or image.mode.startswith("I"):
        most = _most(partial(_bands, image), tell)
    if image.mode != "RGB" or image.has_transparency_data or turn is not None:
        to_rgb = partial(_over_white, most=most)
        image = convert_in_bands(image, to_rgb, 1 if turn is None else 2, budget)
    return image if turn is None else image.transpose(turn)


def _over_white(image, most=None):
    """Convert a loaded image of any mode to RGB over white, each pixel by itself."""
    if image.mode.startswith("I;16"):
        image = _array_to_pil(np.asarray(image), most)
    elif image.mode == "I":
        image = _array_to_pil(_wide_grey(np.asarray(image)), most)
    elif image.mode == "L" and most == 1:
        image = image.point([0, 255] + [255] * 254)
    elif image.mode == "F":
        image = _array_to_pil(np.asarray(image))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _upright_turn(image):
    """Return what undoes the orientation in the EXIF or XMP of an image, or None."""
    try:
        exif = image.getexif()
        orientation = exif.get(ExifTags.Base.Orientation)
        if orientation in _QUARTER_TURNS and _is_turned(image, exif):
            return None
        return _UPRIGHT.get(orientation)
    except Exception:  # Damaged metadata; the pixels may be usable.
        return None


def _is_turned(image, exif):
    """Whether somebody has turned an image by a quarter, and left its EXIF as it was.

    Then its sides are those in the EXIF, exchanged.
    """
    taken = exif.get_ifd(ExifTags.IFD.Exif)
    width = taken.get(ExifTags.Base.ExifImageWidth)
    height = taken.get(ExifTags.Base.ExifImageHeight)
    if not width or not height or width == height:
        return False
    return abs(image.width * width / (image.height * height) - 1) < _SAME_SHAPE


def _bands(image):
    """Yield the pixels of a PIL image, few rows of a large one at once."""
    n_rows = max(1, _JUDGED_AT_ONCE // image.width)
    for top in range(0, image.height, n_rows):
        bottom = min(image.height, top + n_rows)
        yield np.asarray(image.crop((0, top, image.width, bottom)))


def _most(bands, tell):
    """Judge from the values of an image which one is white, where it is unusual.

    Parameters
    ----------
    bands : callable
        Returns the pixels in one array or several, of any one type.
    tell : callable or None
        Called with what was assumed.

    Returns
    -------
    int or None
        None for the largest value of the type.
    """
    first = next(iter(bands()))
    if first.dtype.kind not in "iu" or first.size == 0:
        return None
    highest = max(int(array.max()) for array in bands())
    if highest == 1:
        most, assumed = 1, "values of at most 1 were taken for a mask of 0 and 1"
    elif first.dtype.itemsize == 1 or highest == 0 or highest > 4095:
        return None
    elif highest <= 255:
        most, assumed = 255, "values of at most 255 in 16 bits were taken for 8 bits"
    elif not any((array % 257).any() for array in bands()):
        return None  # 8 bits, scaled to 16.
    else:
        most, assumed = 4095, "values of at most 4095 in 16 bits were taken for 12 bits"
    if tell is not None:
        tell(assumed)
    return most


def _wide_grey(array):
    """Narrow the 32-bit grey that some readers make of 16-bit files to 16 bits."""
    if array.min() < 0 or array.max() > 65535:
        raise ValueError(
            "a 32-bit grey image (mode 'I') is read as 16-bit and must lie in "
            f"[0, 65535], got values from {array.min()} to {array.max()}"
        )
    return array.astype(np.uint16)


def _array_to_pil(array, most=None):
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
    return Image.fromarray(_to_uint8(array, most))


def _to_uint8(array, most=None):
    """Scale pixels of any type whose range is known to 8 bits."""
    if array.dtype == np.uint8:
        return array * np.uint8(255) if most == 1 else array
    if array.dtype == bool:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:
        white = 65535 if most is None else most
        return np.rint(array / np.float32(white / 255)).astype(np.uint8)
    if array.dtype.kind == "f":
        # Values that rounding errors moved out of [0, 1] round to 0 or 255.
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
