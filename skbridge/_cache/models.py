"""Metadata of models, to look up cached embeddings without loading the model."""

import json
import os
from pathlib import Path
from typing import NamedTuple

from skbridge._clip.load import library_versions
from skbridge._files import file_stamps
from skbridge._version import __version__


class KnownModel(NamedTuple):
    """Facts of a model that its embeddings are looked up by.

    Attributes
    ----------
    label, slug : str
        As in `ModelSpec`.
    embed_dim : int
        Width of image embeddings.
    fingerprint : str
        Hash of weights and architecture.
    preprocess : str
        Description of the preprocessing of images.
    """

    label: str
    slug: str
    embed_dim: int
    fingerprint: str
    preprocess: str


def recall_model(store, model, pretrained):
    """Facts of a model that was loaded before and has not changed since.

    Parameters
    ----------
    store : Store
    model, pretrained : str, path-like or None
        As for `load_clip`.

    Returns
    -------
    KnownModel or None
    """
    text = store.facts(_facts_name(model, pretrained))
    if text is None:
        return None
    try:
        facts = json.loads(text)
        known = KnownModel(**facts["known"])
        sources, stamps = facts["sources"], facts["stamps"]
    except (ValueError, TypeError, KeyError):
        return None  # Another version of the library wrote them.
    return known if file_stamps(sources) == stamps else None


def know_model(store, model, pretrained, load):
    """Facts of a model, which is loaded only if they are not stored.

    Parameters
    ----------
    store : Store
    model, pretrained : str, path-like or None
        As for `load_clip`.
    load : callable
        Returns the `Backend`.

    Returns
    -------
    KnownModel
    """
    known = recall_model(store, model, pretrained)
    if known is not None:
        return known
    loaded = load()
    known = KnownModel(
        label=loaded.label,
        slug=loaded.slug,
        embed_dim=loaded.embed_dim,
        fingerprint=loaded.fingerprint,
        preprocess=loaded.preprocessing,
    )
    if loaded.stamps is not None:
        facts = {
            "known": known._asdict(),
            "sources": loaded.sources,
            "stamps": loaded.stamps,
        }
        store.put_facts(_facts_name(model, pretrained), json.dumps(facts))
    return known


def _facts_name(model, pretrained):
    """Name of a model's facts: all that decides which weights are read."""
    variables = ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME")
    return json.dumps(
        [
            __version__,
            *library_versions(),
            *map(_absolute, (model, pretrained)),
            *map(os.environ.get, variables),
        ]
    )


def _absolute(name):
    """Absolute path of a folder or file that exists; other names as they are."""
    if name is None:
        return None
    name = os.fspath(name)
    path = Path(name.removeprefix("local-dir:")).expanduser()
    return os.path.abspath(path) if path.exists() else name
