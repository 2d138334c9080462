"""The file of a text head: one npz without pickles, with a digest of every byte.

An ordinary npz, which NumPy opens too, of uncompressed arrays: "manifest" (JSON:
format, version, and type and shape of each array), "header" (JSON: everything that is
not an array), and the arrays. The comment at the end of the zip archive is the SHA-256
of all bytes before it.
"""

import hashlib
import json
import math
import os
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from skbridge._files import written_atomically
from skbridge._messages import brief
from skbridge._rows import batches
from skbridge._texts.head_checks import ARRAYS

_FORMAT = "skbridge.TextHead"
_FORMAT_VERSION = 3
_TYPES = ("<f4", "<f8")

_HEX_DIGITS = 64
# Length of the comment, in the last two bytes of an archive without one.
_COMMENT_LENGTH = struct.pack("<H", _HEX_DIGITS)
_READ_AT_ONCE = 2**20


def content_digest(header: str, arrays: Mapping[str, np.ndarray]) -> bytes:
    """Digest of a header and of arrays with their names, types and shapes."""
    digest = hashlib.blake2b(header.encode(), digest_size=16)
    for name, array in arrays.items():
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array))
    return digest.digest()


def write_head(path, header: str, arrays: Mapping[str, np.ndarray]) -> Path:
    """Write a head, whole or not at all.

    Parameters
    ----------
    path : str or path-like
        ``.npz`` is added unless the name ends in it.
    header : str
        JSON of everything that is not an array.
    arrays : dict of str to ndarray

    Returns
    -------
    pathlib.Path
    """
    path = _with_suffix(path)
    arrays = {
        name: array.astype(array.dtype.newbyteorder("<"), copy=False)
        for name, array in arrays.items()
    }
    manifest = {
        "format": _FORMAT,
        "version": _FORMAT_VERSION,
        "arrays": {name: [a.dtype.str, *a.shape] for name, a in arrays.items()},
    }
    texts = {
        name: np.frombuffer(text.encode(), dtype=np.uint8)
        for name, text in (("manifest", json.dumps(manifest)), ("header", header))
    }
    with written_atomically(path) as stream:
        np.savez(stream, **texts, **arrays)
        stream.seek(-len(_COMMENT_LENGTH), os.SEEK_END)
        stream.write(_COMMENT_LENGTH)
        stream.write(_sha256(stream, stream.tell()).encode())
    return path


def read_head(path, make: Callable):
    """Read a head; a file in which any bit differs is refused.

    Parameters
    ----------
    path : str or path-like
        With or without its ``.npz``.
    make : callable
        Makes the head of the fields of the header and the arrays, and checks them.

    Returns
    -------
    object
        The head that `make` returns.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, was not written by `write_head`, or was written by a
        newer version.
    """
    given, path = Path(path), _with_suffix(path)
    if given.is_file():
        path = given
    elif not path.is_file():
        raise FileNotFoundError(f"There is no text head at {given}.")
    try:
        with path.open("rb") as stream:
            size = _check_digest(stream)
            with zipfile.ZipFile(stream) as archive:
                if sum(entry.file_size for entry in archive.filelist) > size:
                    raise ValueError("its arrays are larger than the file")
                manifest = json.loads(_read(archive, "manifest").tobytes())
                version = manifest["version"]
                if manifest["format"] != _FORMAT:
                    raise ValueError(f"its format is {brief(manifest['format'])}")
                if version <= _FORMAT_VERSION:
                    header = json.loads(_read(archive, "header").tobytes())
                    return make(**header, **_read_arrays(archive, manifest["arrays"]))
    except Exception as error:  # A damaged zip raises almost anything.
        raise ValueError(
            f"{path} is not a text head that TextHead.save wrote, or it is damaged "
            f"({type(error).__name__}: {str(error)[:200]}). Save the head again."
        ) from error
    raise ValueError(
        f"{path} was written by a newer skbridge (format {brief(version)}, this one "
        f"reads up to {_FORMAT_VERSION}). Update skbridge to read it."
    )


def _sha256(stream, n_bytes):
    """Hash the first bytes of a file, which is at their end afterwards."""
    digest = hashlib.sha256()
    stream.seek(0)
    while n_bytes > 0 and (chunk := stream.read(min(n_bytes, _READ_AT_ONCE))):
        digest.update(chunk)
        n_bytes -= len(chunk)
    return digest.hexdigest()


def _check_digest(stream):
    size = stream.seek(0, os.SEEK_END) - _HEX_DIGITS
    if _sha256(stream, size).encode() != stream.read():
        raise ValueError("its content does not match its digest")
    return size


def _read_arrays(archive, declared):
    """Read the arrays that a manifest declares, and nothing else."""
    written = {f"{name}.npy" for name in ("manifest", "header", *declared)}
    if not declared.keys() <= set(ARRAYS) or written != set(archive.namelist()):
        raise ValueError("its arrays are not those that its manifest names")
    for name, (dtype, *shape) in declared.items():
        if dtype not in _TYPES or not all(type(n) is int and n > 0 for n in shape):
            raise ValueError(f"its {name} is declared as {brief([dtype, *shape])}")
    return {name: _read(archive, name, *kind) for name, kind in declared.items()}


def _read(archive, name, dtype=None, *shape):
    """Read an array, whose declared size must be that of its bytes in the file."""
    entry = archive.getinfo(f"{name}.npy")
    if entry.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"its {name} is compressed")
    with archive.open(entry) as stream:
        if np.lib.format.read_magic(stream) != (1, 0):
            raise ValueError(f"its {name} has another format than NumPy's 1.0")
        kind = np.lib.format.read_array_header_1_0(stream)
        if dtype is None:
            dtype, shape = "|u1", kind[0]
        n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
        if kind != (tuple(shape), False, np.dtype(dtype)):
            raise ValueError(f"its {name} is not what the manifest declares")
        if entry.file_size != entry.compress_size or stream.tell() + n_bytes != (
            entry.file_size
        ):
            raise ValueError(f"its {name} has another size than it declares")
        array = np.empty(shape, dtype)
        data = memoryview(array).cast("B")
        for part in batches(n_bytes, _READ_AT_ONCE):
            data[part] = stream.read(part.stop - part.start)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    array.setflags(write=False)
    return array


def _with_suffix(path) -> Path:
    path = os.fspath(path)
    return Path(path if path.endswith(".npz") else f"{path}.npz")
