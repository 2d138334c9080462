"""The file of a text head: one npz without pickles, with a digest of its content."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

_FORMAT = "skbridge.TextHead"
_FORMAT_VERSION = 2


def content_digest(header: str, arrays: Mapping[str, np.ndarray]) -> bytes:
    """Digest of a header and of arrays with their names, types and shapes."""
    digest = hashlib.blake2b(header.encode(), digest_size=16)
    for name, array in arrays.items():
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array))
    return digest.digest()


def write_head(path, header: str, arrays: Mapping[str, np.ndarray], digest: bytes):
    """Write a head, whole or not at all.

    Parameters
    ----------
    path : str or path-like
        ``.npz`` is added unless the name ends in it.
    header : str
        JSON of what is no array.
    arrays : dict of str to ndarray
    digest : bytes
        As `content_digest` gives it.

    Returns
    -------
    pathlib.Path
    """
    path = _with_suffix(path)
    manifest = {"format": _FORMAT, "version": _FORMAT_VERSION, "digest": digest.hex()}
    content = {"manifest": json.dumps(manifest), "header": header}
    texts = {
        name: np.frombuffer(text.encode(), dtype=np.uint8)
        for name, text in content.items()
    }
    descriptor, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            np.savez(stream, **texts, **arrays)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(beside, path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise
    return path


def read_head(path, make: Callable, names: Sequence[str]):
    """Read a head, and refuse a file that is not just what was written.

    Parameters
    ----------
    path : str or path-like
        With or without its ``.npz``.
    make : callable
        Makes the head of header fields and arrays, and validates them.
    names : sequence of str
        Names that arrays may have.

    Returns
    -------
    object
        What `make` returns.

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
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            manifest = json.loads(file["manifest"].tobytes())
            version = manifest["version"]
            if manifest["format"] != _FORMAT:
                raise ValueError(f"its format is {str(manifest['format'])[:50]!r}")
            if version <= _FORMAT_VERSION:
                header = file["header"].tobytes().decode()
                arrays = {name: file[name] for name in names if name in file}
                if content_digest(header, arrays).hex() != manifest["digest"]:
                    raise ValueError("its content does not match its digest")
                return make(**json.loads(header), **arrays)
    except Exception as error:  # A damaged zip raises almost anything.
        raise ValueError(
            f"{path} is not a text head that TextHead.save wrote, or it is damaged "
            f"({type(error).__name__}: {str(error)[:200]})."
        ) from error
    raise ValueError(
        f"{path} was written by a newer skbridge (format {version}, this one reads up "
        f"to {_FORMAT_VERSION}). Update skbridge to read it."
    )


def _with_suffix(path) -> Path:
    path = os.fspath(path)
    return Path(path if path.endswith(".npz") else f"{path}.npz")
