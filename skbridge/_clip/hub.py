"""Names and files of models: the hub's cache, the network, and what changed on disk."""

import os
import re
import textwrap
import time
from contextlib import suppress
from pathlib import Path

from skbridge._clip.backend import ModelSpec
from skbridge._files import FileStamp, file_stamps

BUNDLED = "skbridge-tiny"

# Seconds within which the hub must answer the one question that is asked before
# a download; HF_HUB_ETAG_TIMEOUT overrides it.
_TIMEOUT = 3.0


def slug(name):
    """Turn a model's name into an identifier, for feature names."""
    letters = re.sub(r"[^0-9a-z]+", "_", name.lower()).strip("_")
    return letters if letters[:1].isalpha() else f"clip_{letters}".rstrip("_")


def own_weights(backend, name, basename, pretrained, folder=None):
    """Describe a model that comes with its weights.

    Parameters
    ----------
    backend : type
    name, basename : str
        Canonical name, and the part of it that people read.
    pretrained : str, path-like or None
        Value that the user gave, which must leave the weights to the model.
    folder : str, default=None

    Returns
    -------
    ModelSpec
    """
    if pretrained not in ("auto", None):
        raise ValueError(
            f"pretrained={pretrained!r} cannot be combined with model={name!r}, "
            "which brings its own weights. Leave pretrained='auto'."
        )
    return ModelSpec(name, None, basename, slug(basename), backend, folder)


def named_folder(model):
    """Folder that a model's name means.

    Parameters
    ----------
    model : str
        A folder, which may come after ``"local-dir:"``, or another kind of name.

    Returns
    -------
    Path or None
        Absolute; None if the name is not a folder.

    Raises
    ------
    FileNotFoundError
        Where ``"local-dir:"`` says that it is one.
    """
    path = model.removeprefix("local-dir:")
    folder = Path(path).expanduser()
    if folder.is_dir():
        return Path(os.path.abspath(folder))
    if path == model:
        return None
    raise FileNotFoundError(
        f"model={model!r} names a folder that does not exist: {folder}."
    )


def is_hub_id(model):
    """Whether a name has the form of a repository's, ``ORGANISATION/REPOSITORY``."""
    # ViT-B/16 and the like are architectures: a repository's name has a word in it.
    return re.fullmatch(r"\w[\w.-]*/(?=.*[A-Za-z]{3})[\w.-]+", model) is not None


def is_cached(repository, filename):
    """Whether a file of a repository is in the hub's cache."""
    import huggingface_hub as hub

    return is_hub_id(repository) and isinstance(
        hub.try_to_load_from_cache(repository, filename), str
    )


def hash_weights(digest, model):
    """Add the weights of a torch module to a hash."""
    import torch

    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy())


def watch(weights):
    """Stamp the files that decide which weights are read, before they are.

    Parameters
    ----------
    weights : str or path-like
        File or folder.

    Returns
    -------
    sources : list of str
        The weights and, in the hub's cache, the file that names the newest revision.
    stamps : list or None
        As in `Backend`.
    """
    started = time.time_ns()
    weights = Path(os.path.abspath(weights))
    sources = [str(weights)]
    for parent in weights.parents:
        if parent.name == "snapshots":  # The layout of the hub's cache.
            sources.append(str(parent.parent / "refs" / "main"))
            break
    stamps = file_stamps(sources)
    is_settled = all(FileStamp(*stamp).is_settled(started) for _, *stamp in stamps)
    return sources, stamps if is_settled else None


def fetch(label, repository, filenames):
    """Find the first of some files that a hub repository has, or download it.

    Parameters
    ----------
    label : str
        Name of the model, for messages.
    repository : str
    filenames : iterable of str

    Returns
    -------
    str
        Path in the hub's cache.

    Raises
    ------
    OSError
        When none is in the cache and none is to be had.
    """
    import huggingface_hub as hub
    from huggingface_hub.constants import HF_HUB_OFFLINE
    from huggingface_hub.utils import EntryNotFoundError

    for filename in filenames:
        path = hub.try_to_load_from_cache(repository, filename)
        if isinstance(path, str):
            return path
    if HF_HUB_OFFLINE:
        raise _unavailable(label, "HF_HUB_OFFLINE is set")
    for filename in filenames:
        try:
            # Downloading straight away would retry an unreachable hub for most
            # of a minute; this asks once.
            hub.get_hf_file_metadata(
                hub.hf_hub_url(repository, filename), timeout=_timeout()
            )
            return hub.hf_hub_download(repository, filename)
        except EntryNotFoundError:
            continue
        except Exception as error:
            # The hub's client has changed its HTTP library, and so the family
            # of its errors, between versions.
            raise _unavailable(
                label, f"the hub did not give them: {one_line(error)}"
            ) from error
    reason = f"{repository} has no {' or '.join(filenames)}"
    raise _unavailable(label, reason, _Absent)


def fetch_all(label, repository, filenames):
    """Find or download those of some files that a hub repository has.

    Parameters
    ----------
    label : str
        Name of the model, for messages.
    repository : str
    filenames : iterable of str

    Raises
    ------
    OSError
        When the hub is out of reach.
    """
    for filename in filenames:
        with suppress(_Absent):
            fetch(label, repository, [filename])


class _Absent(OSError):
    """The hub was asked, and a repository has none of some files."""


def _timeout():
    return float(os.environ.get("HF_HUB_ETAG_TIMEOUT", _TIMEOUT))


def one_line(error):
    """One line of an error's message, which may be pages."""
    return textwrap.shorten(str(error) or repr(error), 300).rstrip(".")


def _unavailable(label, reason, kind=OSError):
    return kind(
        f"The files of {label} are not all on this machine, and {reason}. "
        "Download them on a machine with a network, copy the cache folder here, and "
        "set HF_HOME; or copy a model folder, and pass model='local-dir:PATH'. "
        f"Without a download, use the bundled model={BUNDLED!r}."
    )
