"""The known backends, and the models that are in memory."""

import difflib
import os
import threading
from collections import OrderedDict
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from skbridge._clip.hub import BUNDLED, named_folder
from skbridge._clip.open_clip import OpenCLIP
from skbridge._clip.transformers import Transformers
from skbridge._files import file_stamps

# Asked in this order; the first that knows a name has it.
_BACKENDS = (OpenCLIP, Transformers)

# Two steps of a pipeline share one model; a search over a few models keeps them
# all. A model removed from this cache stays in memory as long as it is referenced.
_MAX_LOADED = 4
_LOADED = OrderedDict()
_LOCK = threading.RLock()


def resolve_model(model, pretrained="auto"):
    """Check a model's name and its weights' name without loading anything.

    Parameters
    ----------
    model : str or path-like
        Name of an open_clip architecture, ``"skbridge-tiny"`` (bundled), a
        folder with a model of open_clip or transformers (plain or as
        ``"local-dir:PATH"``), ``"hf-hub:ORGANISATION/REPOSITORY"`` for a model of
        open_clip, or ``"ORGANISATION/REPOSITORY"`` for one of transformers. Where
        open_clip lists the same weights they are taken, unless the hub's cache has the
        repository; the label says so.
    pretrained : str, path-like or None, default="auto"
        Tag of open_clip's list, or a checkpoint file, for architectures.
        ``"auto"`` is OpenAI's weights for ViT-B-16, the first listed tag
        elsewhere. The other models bring their weights with them.

    Returns
    -------
    ModelSpec

    Raises
    ------
    ValueError
        For an unknown model (names the nearest known) or tag (lists the tags).
    FileNotFoundError
        For a folder that does not exist or lacks configuration or weights.

    Examples
    --------
    >>> from skbridge._clip.load import resolve_model
    >>> spec = resolve_model("ViT-B-16")
    >>> spec.label, spec.slug
    ('ViT-B-16 (openai)', 'vit_b_16')
    """
    if not isinstance(model, (str, os.PathLike)) or not os.fspath(model):
        raise TypeError(
            "model must be a non-empty string or path: an open_clip name such as "
            f"'ViT-B-16', a folder, or {BUNDLED!r}. Got {model!r} instead."
        )
    model = os.fspath(model)
    for backend in _BACKENDS:
        spec = backend.resolve(model, pretrained)
        if spec is not None:
            return spec
    folder = named_folder(model)
    if folder is not None:
        raise FileNotFoundError(
            f"The folder {folder} holds neither open_clip_config.json nor config.json, "
            "so it is a model neither of open_clip nor of transformers."
        )
    raise ValueError(_unknown_model(model))


def load_clip(model="ViT-B-16", pretrained="auto", *, device="cpu"):
    """Load a CLIP model once per process, or return the one already loaded.

    Weights are looked for in the local cache first. Only when they are not
    there is the hub asked, once and without retries; ``HF_HUB_OFFLINE=1``
    forbids even that. A folder or file that changed on disk is loaded afresh.

    Parameters
    ----------
    model, pretrained
        As for `resolve_model`.
    device : str, default="cpu"
        Torch device, already resolved.

    Returns
    -------
    Backend

    Raises
    ------
    ValueError
        For an unknown model or tag, or weights that do not fit the model.
    OSError
        When the weights are neither on this machine nor available, or a folder is
        incomplete.
    ImportError
        When the model needs ``transformers``, which is not installed.
    """
    spec = resolve_model(model, pretrained)
    key = (spec, device)
    with _LOCK:
        stamps = _version_on_disk(spec)
        known_stamps, loaded = _LOADED.pop(key, (None, None))
        if loaded is None or known_stamps != stamps:
            loaded = spec.backend.load(spec, device)
        _LOADED[key] = stamps, loaded
        while len(_LOADED) > _MAX_LOADED:
            _LOADED.popitem(last=False)
    return loaded


@cache
def library_versions():
    """Versions of the libraries that decide what a model's name means.

    Returns
    -------
    tuple of (str or None)
        None for one that is not installed.
    """
    return tuple(_version(backend.library) for backend in _BACKENDS)


def _version(library):
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def _unknown_model(model):
    known = [name for backend in _BACKENDS for name in backend.names()]
    lowered = {name.lower(): name for name in known}
    near = difflib.get_close_matches(model.lower(), lowered, n=4, cutoff=0.6)
    hint = (
        f"Did you mean {', '.join(repr(lowered[name]) for name in near)}?"
        if near
        else "No known name resembles it."
    )
    return (
        f"Unknown model {model!r}. {hint} Expected one of the names of "
        f"open_clip.list_models(), {BUNDLED!r}, 'hf-hub:ORGANISATION/REPOSITORY' for "
        "a model of open_clip, 'ORGANISATION/REPOSITORY' for one of transformers, or "
        "an existing folder with a model of either."
    )


def _version_on_disk(spec):
    """Stamps of the files, which change when somebody replaces them."""
    if spec.folder is not None:
        return file_stamps([spec.folder])
    if spec.pretrained is not None and os.path.isabs(spec.pretrained):
        return file_stamps([spec.pretrained])
    return []
