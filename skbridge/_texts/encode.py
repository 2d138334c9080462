"""The text side of a CLIP model; no class is encoded twice."""

import threading
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from skbridge._cache.folder import open_cache
from skbridge._cache.keys import text_digest, text_space
from skbridge._cache.models import know_model
from skbridge._clip.device import resolve_device
from skbridge._clip.load import load_clip
from skbridge._rows import batches, unit

# Classes remembered of a loaded model: 60 MB at d = d_t = 512.
_MAX_CLASSES = 10_000
_REMEMBERED = WeakKeyDictionary()
_LOCK = threading.Lock()

# Prompts embedded at a time: bounds memory for 80 templates of 1,000 classes.
_PROMPTS_AT_ONCE = 4096

# Digests of what is stored beside the classes; no class has an empty prompt.
_PROJECTION, _BIAS, _LOGIT_SCALE = (
    text_digest(["", part]) for part in ("projection", "bias", "logit scale")
)
_PARTS = {_PROJECTION, _BIAS, _LOGIT_SCALE}


class TextSide(NamedTuple):
    """Parts of a CLIP model from which a text head is made.

    Attributes
    ----------
    eos, eos_unit : ndarray of shape (n_classes, d_t), float32
        e and E.
    text_features : ndarray of shape (n_classes, d), float32
        T.
    projection : ndarray of shape (d_t, d), float32
        W.
    bias : ndarray of shape (d,), float32, or None
        c.
    logit_scale : float
    label : str
        Name of the model, for messages.
    """

    eos: np.ndarray
    eos_unit: np.ndarray
    text_features: np.ndarray
    projection: np.ndarray
    bias: np.ndarray | None
    logit_scale: float
    label: str


def text_side(
    prompts, model, pretrained, *, device="auto", batch_size=256, cache_dir=None
):
    """Find or make the text side of a model for some classes.

    Parameters
    ----------
    prompts : sequence of tuple of str
        The prompts of each class. A class is found again by its prompts in their
        order, whatever the other classes are.
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

    keys = [text_digest(written) for written in prompts]
    wanted = dict(zip(keys, prompts, strict=True))
    with open_cache(cache_dir) as cache:
        if cache is None:
            known = loaded = load()
            vectors = _encode(loaded, wanted, batch_size)
        else:
            known = know_model(cache, model, pretrained, load)
            space = text_space(known)
            vectors = cache.get(space, [*_PARTS, *keys])
            if not vectors.keys() >= _PARTS | wanted.keys():
                missing = {key: wanted[key] for key in wanted.keys() - vectors.keys()}
                made = _encode(load(), missing, batch_size)
                cache.put(space, made)
                vectors |= made
    bias = vectors[_BIAS]
    projection = vectors[_PROJECTION].reshape(-1, known.embed_dim)
    width = len(projection)
    classes = np.stack([vectors[key] for key in keys])
    eos, eos_unit, text_features = np.split(classes, [width, 2 * width], axis=1)
    return TextSide(
        eos=eos,
        eos_unit=eos_unit,
        text_features=text_features,
        projection=projection,
        bias=bias if bias.size else None,
        logit_scale=float(vectors[_LOGIT_SCALE][0]),
        label=known.label,
    )


def _encode(loaded, wanted, batch_size):
    """Vectors of classes, from memory or the text tower, and of the model's parts."""
    projection, bias = loaded.projection
    with _LOCK:
        memory = _REMEMBERED.setdefault(loaded, {})
        found = {
            key: memory[key, batch_size]
            for key in wanted
            if (key, batch_size) in memory
        }
    missing = [key for key in wanted if key not in found]
    if missing:
        texts = [wanted[key] for key in missing]
        rows = _embed_classes(loaded, texts, projection, bias, batch_size)
        found.update(zip(missing, rows, strict=True))
    with _LOCK:
        # The dict is in order of use: the oldest entries are removed first.
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


def project(eos, projection, bias):
    """Project EOS tokens to text features, ``t = e W + c``."""
    features = eos @ projection
    return features if bias is None else features + bias


def _embed_classes(loaded, prompts, projection, bias, batch_size):
    """Embed every distinct prompt once, and pool by class.

    Returns
    -------
    ndarray of shape (n_classes, 2 d_t + d), float32
        Rows of e, E and T side by side.
    """
    position = {}
    for written in prompts:
        for prompt in written:
            position.setdefault(prompt, len(position))
    distinct = list(position)
    owner = np.repeat(np.arange(len(prompts)), [len(written) for written in prompts])
    which = np.array([position[prompt] for written in prompts for prompt in written])
    count = np.bincount(owner)[:, np.newaxis]
    projection = projection.astype(np.float64)
    # Sums in float64 do not depend on how the prompts were chunked.
    eos, eos_unit = np.zeros((2, len(prompts), projection.shape[0]))
    text_features = np.zeros((len(prompts), projection.shape[1]))
    for part in batches(len(distinct), _PROMPTS_AT_ONCE):
        start, chunk = part.start, distinct[part]
        tokens = loaded.embed_texts(chunk, batch_size).astype(np.float64)
        here = (which >= start) & (which < start + len(tokens))
        rows, classes = which[here] - start, owner[here]
        features = unit(project(tokens, projection, bias))
        np.add.at(eos, classes, tokens[rows])
        np.add.at(eos_unit, classes, unit(tokens)[rows])
        np.add.at(text_features, classes, features[rows])
    pooled = [eos / count, unit(eos_unit), unit(text_features)]
    return np.hstack(pooled).astype(np.float32)
