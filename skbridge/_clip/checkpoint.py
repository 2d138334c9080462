"""Checkpoint files: tensors are read from them, and never code."""

import hashlib
import pickle
import re
import zipfile
from functools import cache

from skbridge._clip.hub import one_line

_CONVERT = (
    "If you trust it, convert it where it was made: "
    "safetensors.torch.save_file(model.state_dict(), 'model.safetensors')."
)


def unloadable(label, error):
    """Message for weights that could not be loaded."""
    start = f"The weights of {label} could not be loaded: "
    if isinstance(error, pickle.UnpicklingError) or "TorchScript" in str(error):
        # torch's own message recommends to run what the file holds.
        return (
            f"{start}expected a file of tensors, got one that is damaged or holds "
            f"other objects, which may be code and are not read. {_CONVERT}"
        )
    return (
        f"{start}{one_line(error)}. They may be damaged, or belong to another "
        "architecture."
    )


def is_openai_archive(label, path):
    """Whether a checkpoint file is OpenAI's TorchScript; others are refused."""
    if not _is_torchscript(path):
        return False
    digest = _sha256(path)
    if digest in _openai_digests():
        return True
    raise ValueError(
        f"The weights of {label} could not be loaded: expected a file of "
        f"tensors, got a TorchScript archive (SHA-256 {digest}), which may hold code "
        f"and is not one that OpenAI published. {_CONVERT}"
    )


def _is_torchscript(path):
    """Whether torch would read a file as TorchScript."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(
            re.fullmatch("[^/]+/constants.pkl", name) for name in archive.namelist()
        )


def _sha256(path):
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@cache
def _openai_digests():
    """SHA-256 of OpenAI's files, which open_clip has in their addresses."""
    from open_clip.pretrained import get_pretrained_url, list_pretrained_models_by_tag

    urls = [
        get_pretrained_url(name, "openai")
        for name in list_pretrained_models_by_tag("openai")
    ]
    found = [re.search("/([0-9a-f]{64})/", url) for url in urls]
    return frozenset(match[1] for match in found if match)
