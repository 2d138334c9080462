"""The text side of a CLIP model, of which no class is encoded twice."""

import threading
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from skbridge._cache.sqlite import hash_texts, open_cache, text_space
from skbridge._clip.device import resolve_device
from skbridge._clip.open_clip import load_clip, text_projection

# Classes remembered of a loaded model: 60 MB at d = d_t = 512.
_MAX_CLASSES = 10_000
_REMEMBERED = WeakKeyDictionary()
_LOCK = threading.Lock()

# What is kept beside the classes; no class has an empty prompt.
_PROJECTION, _BIAS, _LOGIT_SCALE = (
    hash_texts(["", part]) for part in ("projection", "bias", "logit scale")
)
_PARTS = {_PROJECTION, _BIAS, _LOGIT_SCALE}


class TextSide(NamedTuple):
    """What of a CLIP model a text head is made of.

    Attributes
    ----------
    classes : ndarray of shape (n_classes, width), float32
        What was made of the prompts of each class.
    projection : ndarray of shape (d_t, d), float32
        W.
    bias : ndarray of shape (d,), float32, or None
        c.
    logit_scale : float
    label : str
        Name of the model, for messages.
    """

    classes: np.ndarray
    projection: np.ndarray
    bias: np.ndarray | None
    logit_scale: float
    label: str


def text_side(
    prompts, embed, model, pretrained, *, device="auto", batch_size=256, cache_dir=None
):
    """Find or make the text side of a model for some classes.

    Parameters
    ----------
    prompts : sequence of tuple of str
        The prompts of each class. A class is found again by its prompts in their
        order, whatever the other classes are.
    embed : callable
        ``embed(loaded, prompts, projection, bias, batch_size)`` gives `classes`.
    model, pretrained : str
        As for `load_clip`.
    device : str, default="auto"
        Where to run the text tower, if it is needed; as for `resolve_device`.
    batch_size : int, default=256
        Prompts in one forward pass, which moves the last bits: what is in memory was
        made with the same one. On disk any will do, as for images.
    cache_dir : str, path-like or None, default=None
        As for `cache_folder`.

    Returns
    -------
    TextSide

    Notes
    -----
    Classes are remembered in memory for as long as the model is loaded and, with a
    cache, on disk. A model whose classes are all on disk is not loaded.
    """

    def load():
        return load_clip(model, pretrained, device=resolve_device(device))

    keys = [hash_texts(written) for written in prompts]
    wanted = dict(zip(keys, prompts, strict=True))
    with open_cache(cache_dir) as cache:
        if cache is None:
            known = loaded = load()
            vectors = _encode(loaded, wanted, embed, batch_size)
        else:
            known = cache.know_model(model, pretrained, load)
            space = text_space(known)
            vectors = cache.get(space, [*_PARTS, *keys])
            if not vectors.keys() >= _PARTS | wanted.keys():
                missing = {key: wanted[key] for key in wanted.keys() - vectors.keys()}
                made = _encode(load(), missing, embed, batch_size)
                cache.put(space, made)
                vectors |= made
    bias = vectors[_BIAS]
    return TextSide(
        classes=np.stack([vectors[key] for key in keys]),
        projection=vectors[_PROJECTION].reshape(-1, known.embed_dim),
        bias=bias if bias.size else None,
        logit_scale=float(vectors[_LOGIT_SCALE][0]),
        label=known.label,
    )


def _encode(loaded, wanted, embed, batch_size):
    """Vectors of classes, from memory or the text tower, and of the model's parts."""
    projection, bias = text_projection(loaded)
    with _LOCK:
        memory = _REMEMBERED.setdefault(loaded.model, {})
        found = {
            key: memory[key, batch_size]
            for key in wanted
            if (key, batch_size) in memory
        }
    missing = [key for key in wanted if key not in found]
    if missing:
        texts = [wanted[key] for key in missing]
        rows = embed(loaded, texts, projection, bias, batch_size)
        found.update(zip(missing, rows, strict=True))
    with _LOCK:
        # Those of this call go to the end; the first to leave are the oldest.
        for key in wanted:
            memory.pop((key, batch_size), None)
            memory[key, batch_size] = found[key]
        for key in list(memory)[: max(0, len(memory) - _MAX_CLASSES)]:
            del memory[key]
    return found | {
        _PROJECTION: projection.ravel(),
        _BIAS: np.empty(0, np.float32) if bias is None else bias,
        _LOGIT_SCALE: np.array([loaded.logit_scale], np.float32),
    }
