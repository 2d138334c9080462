"""Keys of the cache: digests of content, and spaces of embeddings."""

import hashlib
import json
from functools import partial
from typing import NamedTuple

from skbridge._files import file_stamp
from skbridge._images.decode import to_rgb
from skbridge._images.limits import BUDGET, is_too_large

# To be raised when the library decodes the same file to other pixels.
_READER = 2
_STREAMED_AT_ONCE = 2**20

_blake2b = partial(hashlib.blake2b, digest_size=20)


class Space(NamedTuple):
    """Everything that a vector depends on except its image or text.

    Attributes
    ----------
    name : str
        A hash of it all.
    label : str
        For people.
    """

    name: str
    label: str


def image_space(known, precision, fast_jpeg=False, budget=BUDGET):
    """Space of the image embeddings of a model in one precision.

    Parameters
    ----------
    known : KnownModel
    precision : {"fp32", "bf16", "fp16"}
    fast_jpeg : bool, default=False
        Whether JPEG files are decoded at reduced size.
    budget : int, default=400_000_000
        Bytes of memory for an image, beyond which it is reduced.

    Returns
    -------
    Space
    """
    content = [known.fingerprint, known.preprocess, precision, _READER]
    label = f"{known.label}, images, {precision}"
    if fast_jpeg:
        content.append("fast_jpeg")
        label += ", fast_jpeg"
    if budget != BUDGET:
        content.append(f"budget {budget}")
    return _space(content, label)


def text_space(known):
    """Space of the class texts of a model; they are always computed in fp32."""
    return _space([known.fingerprint, "texts"], f"{known.label}, texts")


def _space(content, label):
    return Space(_blake2b(json.dumps(content).encode()).hexdigest(), label)


def text_digest(texts):
    """Digest of a sequence of strings."""
    return _blake2b(json.dumps(list(texts)).encode()).digest()


def file_digest(path, stamp):
    """Digest of the bytes of a file, which is streamed.

    Parameters
    ----------
    path : bytes
    stamp : FileStamp
        Stamp of the file.

    Returns
    -------
    bytes or None
        None if it cannot be read, is too large for an image, or is no longer the file
        with this stamp.
    """
    if is_too_large(stamp.size):
        return None
    try:
        with open(path, "rb") as stream:
            digest = hashlib.file_digest(stream, _blake2b).digest()
            return digest if file_stamp(stream.fileno()) == stamp else None
    except OSError:
        return None


def image_digest(image):
    """Digest of an image that is not a path: of its bytes, else of its pixels.

    Parameters
    ----------
    image : object
        As `source_of` returns it.

    Returns
    -------
    bytes or None
        None if it cannot be read, which whoever embeds it reports.

    Raises
    ------
    MemoryError
        If decoding needs more memory than there is.
    """
    digest = _blake2b()
    try:
        if callable(image):
            with image() as stream:
                return image_digest(stream)
        if hasattr(image, "read"):
            image.seek(0)  # As the decoder does; what cannot seek is read only once.
            while chunk := image.read(_STREAMED_AT_ONCE):
                digest.update(chunk)
        else:
            pixels = to_rgb(image)
            digest.update(f"{pixels.size}".encode())
            digest.update(pixels.tobytes())
    except MemoryError:
        raise
    except Exception:  # Damaged images raise anything.
        return None
    return digest.digest()
