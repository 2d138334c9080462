"""The file of a model: what it was fitted on and how, as JSON and arrays.

A line that names the format, the SHA-256 of all bytes after the next line break, and
an uncompressed npz. It holds parameters, class texts and the embeddings of the shots,
and not what `fit` makes of them: reading it fits again. So it needs no pickle, runs no
code, and does not depend on the inside of a classifier.
"""

import hashlib
import io
import json
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from skbridge._files import written_atomically
from skbridge._messages import brief
from skbridge._texts.head import TextHead

_MAGIC = b"skbridge model\n"
_HEX_DIGITS = 64
_FORMAT_VERSION = 1
_ARRAYS = {"embeddings": ("f4", "f8"), "probabilities": ("f4", "f8")}


def write_model(path, manifest, arrays, head):
    """Write a model, whole or not at all.

    Parameters
    ----------
    path : str or path-like
    manifest : dict
        For JSON.
    arrays : dict of str to ndarray
        ``embeddings`` and ``probabilities``.
    head : TextHead or None

    Returns
    -------
    int
        Size of the file in bytes.
    """
    shapes = {name: [array.dtype.str, *array.shape] for name, array in arrays.items()}
    manifest = {"version": _FORMAT_VERSION, "arrays": shapes, **manifest}
    texts = {"manifest": json.dumps(manifest).encode(), "texts": _head_bytes(head)}
    members = {name: np.frombuffer(text, np.uint8) for name, text in texts.items()}
    payload = io.BytesIO()
    np.savez(payload, **members, **arrays)
    payload = payload.getvalue()
    with written_atomically(path) as stream:
        stream.write(_MAGIC)
        stream.write(hashlib.sha256(payload).hexdigest().encode() + b"\n")
        stream.write(payload)
        return stream.tell()


def read_model(path):
    """Read a model, and refuse a file with as much as one other bit.

    Parameters
    ----------
    path : str or path-like

    Returns
    -------
    manifest : dict
    arrays : dict of str to ndarray
    head : TextHead or None

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged, is not a model, or a newer version of the library wrote it.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise FileNotFoundError(
            f"{brief(str(path))} {what}; expected a model file that skbridge fit wrote."
        )
    with path.open("rb") as stream:
        is_model = stream.read(len(_MAGIC)) == _MAGIC
        digest, payload = (
            (stream.read(_HEX_DIGITS + 1), stream.read()) if is_model else (b"", b"")
        )
    if not is_model:
        raise ValueError(f"{brief(str(path))} is not a model file of skbridge.")
    if digest != hashlib.sha256(payload).hexdigest().encode() + b"\n":
        raise ValueError(
            f"{brief(str(path))} is damaged: its content does not match its digest. "
            "Copy it again, or run skbridge fit again."
        )
    try:
        return _read_payload(payload)
    except _NewerError as error:
        raise ValueError(
            f"{brief(str(path))} was written by a newer skbridge ({error}). Update "
            "skbridge to read it."
        ) from None
    except Exception as error:  # What a stranger wrote may raise almost anything.
        raise ValueError(
            f"{brief(str(path))} is not a model that skbridge fit wrote "
            f"({type(error).__name__}: {str(error)[:200]})."
        ) from error


class _NewerError(Exception):
    """The format is newer than what this version reads."""


def _read_payload(payload):
    with zipfile.ZipFile(io.BytesIO(payload)) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("it is compressed")
        if sum(entry.file_size for entry in entries) > len(payload):
            raise ValueError("its arrays are larger than the file")
    with np.load(io.BytesIO(payload), allow_pickle=False) as members:
        manifest = json.loads(members["manifest"].tobytes())
        if manifest["version"] > _FORMAT_VERSION:
            raise _NewerError(
                f"format {brief(manifest['version'])}; this one reads {_FORMAT_VERSION}"
            )
        arrays = {name: members[name] for name in _ARRAYS}
        head = _head_of(members["texts"].tobytes())
    for name, array in arrays.items():
        if [array.dtype.str, *array.shape] != manifest["arrays"][name]:
            raise ValueError(f"its {name} are not what the manifest declares")
        if array.dtype.str[1:] not in _ARRAYS[name] or array.ndim != 2:
            raise ValueError(f"its {name} are declared as {manifest['arrays'][name]}")
    return manifest, arrays, head


def _head_bytes(head):
    if head is None:
        return b""
    with tempfile.TemporaryDirectory() as folder:
        return head.save(Path(folder, "texts.npz")).read_bytes()


def _head_of(content):
    if not content:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "texts.npz")
        path.write_bytes(content)
        return TextHead.load(path)
