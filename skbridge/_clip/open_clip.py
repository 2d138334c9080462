"""CLIP models: names, weights, offline rules and both towers.

This is the only module that imports open_clip, and it does so inside functions,
so that importing the library stays quick and needs no torch.
"""

import copy
import difflib
import hashlib
import json
import os
import pickle
import re
import textwrap
import threading
import time
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from skbridge._files import FileStamp, file_stamps

BUNDLED = "skbridge-tiny"

_BUNDLED_FOLDER = Path(__file__).parents[1] / "models" / BUNDLED
_CONFIG_FILE = "open_clip_config.json"
_VOCABULARY_FILE = "bpe_simple_vocab.txt.gz"

# Two steps of a pipeline share one model; a search over a few models keeps them
# all. What falls out of the cache lives on while somebody still holds it.
_MAX_LOADED = 4
_LOADED = OrderedDict()
_LOCK = threading.RLock()

# Patches that a CPU is given at a time. Larger buffers are taken from the system and
# given back each time: on two cores RN50 and ViT-B-16 embed 8 photos of 224 x 224 (196
# patches of 16 x 16 each) at a time 15 and 10 % faster than 16;
# benchmarks/embedding.py --models RN50 ViT-B-16 --batch-size 8 compares them.
_CPU_PATCHES = 8 * 196

# What to do with a checkpoint that may hold code.
_CONVERT = (
    "If you trust it, convert it where it was made: "
    "safetensors.torch.save_file(model.state_dict(), 'model.safetensors')."
)

# Seconds within which the hub must answer the one question that is asked before
# a download; HF_HUB_ETAG_TIMEOUT overrides it.
_HUB_TIMEOUT = 3.0


@dataclass(frozen=True)
class ModelSpec:
    """A CLIP model that is named and checked, but not loaded.

    Attributes
    ----------
    name : str
        Name in canonical form: an open_clip name, an absolute folder,
        ``"hf-hub:..."`` or ``"skbridge-tiny"``. `resolve_model` takes it back.
    pretrained : str or None
        Tag or absolute checkpoint file; None where the model brings its weights.
    label : str
        For messages, such as ``"ViT-B-16 (openai)"``. It holds no folder of
        the machine.
    slug : str
        For feature names: an identifier, such as ``"vit_b_16"``.
    folder : str or None
        Folder with configuration and weights, where the model is one.
    """

    name: str
    pretrained: str | None
    label: str
    slug: str
    folder: str | None = None


@dataclass(frozen=True, eq=False)
class LoadedCLIP:
    """A CLIP model in memory, shared by the whole process; never change it.

    Attributes
    ----------
    name, pretrained, label, slug : str
        As in `ModelSpec`.
    model : torch.nn.Module
        In evaluation mode, its parameters frozen.
    preprocess : callable
        PIL image to tensor, as the model was validated: steps of torchvision, of
        which the last two are the tensor and its normalisation.
    embed_dim : int
        Width d of image and text embeddings.
    logit_scale : float
        Factor on cosine similarities, already exponentiated.
    device : str
        Where it is.
    precision : {"fp32", "bf16", "fp16"}
        Of the arithmetic; the weights are float32.
    sources : list of str
        Files and folders that decide what the weights are.
    stamps : list or None
        What `file_stamps` said of them before they were read; None if they were
        written so shortly before that it need not tell a later change.
    tokenizer : callable
        Prompts to token ids.
    fingerprint : str
        Hash of the weights in memory and of what the architecture is.
    """

    name: str
    pretrained: str | None
    label: str
    slug: str
    model: Any = field(repr=False)
    preprocess: Callable = field(repr=False)
    embed_dim: int
    logit_scale: float
    device: str
    precision: str
    sources: list = field(repr=False)
    stamps: list | None = field(repr=False)
    _make_fingerprint: Callable = field(repr=False)
    _mean: Any = field(repr=False)
    _std: Any = field(repr=False)
    _make_tokenizer: Callable = field(repr=False)

    def resize(self, image):
        """Bring a PIL image to the size of the model: `preprocess` up to the tensor.

        Parameters
        ----------
        image : PIL.Image.Image
            Mode RGB.

        Returns
        -------
        PIL.Image.Image
            Mode RGB.
        """
        for step in self.preprocess.transforms[:-2]:
            # A crop to the size that an image has would copy it.
            if getattr(step, "size", None) != (image.height, image.width):
                image = step(image)
        return image

    @property
    def tokenizer(self):
        # Made at the first use: images need none, and some need transformers.
        return self._make_tokenizer()

    @property
    def fingerprint(self):
        # Made at the first use as well: it reads all weights.
        return self._make_fingerprint()

    def __reduce__(self):
        raise TypeError(
            f"The loaded model {self.label} cannot be pickled: keep its name and "
            "call load_clip where it is needed."
        )


def resolve_model(model, pretrained="auto"):
    """Check a model's name and its weights' name without loading anything.

    Parameters
    ----------
    model : str or path-like
        Name of an open_clip architecture, ``"skbridge-tiny"`` (bundled), a
        folder with ``open_clip_config.json`` and weights (plain or as
        ``"local-dir:PATH"``), or ``"hf-hub:ORGANISATION/REPOSITORY"``.
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
    >>> from skbridge._clip.open_clip import resolve_model
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
    if model == BUNDLED:
        return _own_weights(BUNDLED, BUNDLED, pretrained, _bundled_folder())
    if model.startswith("local-dir:"):
        folder = Path(model.removeprefix("local-dir:")).expanduser()
        if not folder.is_dir():
            raise FileNotFoundError(
                f"model={model!r} names a folder that does not exist: {folder}."
            )
        return _folder_spec(folder, pretrained)
    if model.startswith("hf-hub:"):
        basename = model.split(":")[1].split("/")[-1]
        if not basename:
            raise ValueError(
                f"model={model!r} names no repository; expected "
                "'hf-hub:ORGANISATION/REPOSITORY'."
            )
        return _own_weights(model, basename, pretrained)
    name = model.replace("/", "-")
    import open_clip

    if name in open_clip.list_models():
        return _named_spec(name, pretrained)
    if Path(model).expanduser().is_dir():
        return _folder_spec(Path(model).expanduser(), pretrained)
    raise ValueError(_unknown_model(model, open_clip.list_models()))


def load_clip(model="ViT-B-16", pretrained="auto", *, device="cpu", precision="fp32"):
    """Load a CLIP model once per process, or hand out the one already loaded.

    Weights are looked for in the local cache first. Only when they are not
    there is the hub asked, once and without retries; ``HF_HUB_OFFLINE=1``
    forbids even that. A folder or file that changed on disk is loaded afresh.

    Parameters
    ----------
    model, pretrained
        As for `resolve_model`.
    device : str, default="cpu"
        Torch device, already resolved.
    precision : {"fp32", "bf16", "fp16"}, default="fp32"
        Precision of the arithmetic, through autocast. (Half-precision weights
        would be smaller, but open_clip's fail in towers such as SigLIP's.) All
        precisions share one model.

    Returns
    -------
    LoadedCLIP

    Raises
    ------
    ValueError
        For an unknown model or tag, or weights that do not fit the model.
    OSError
        When the weights are neither on this machine nor to be had, or a folder
        is incomplete.
    ImportError
        When the model's text tower needs ``transformers``.

    Notes
    -----
    open_clip builds some architectures with GELU whose weights were trained
    with QuickGELU, OpenAI's among them. The activation follows the tag here. Of
    TorchScript files only those that OpenAI published are read; for any other
    checkpoint file choose a name that ends in ``-quickgelu`` if its weights need
    it. Only tensors are read from a checkpoint, never code. A checkpoint file is
    given the image preprocessing of the architecture's first listed tag.
    """
    spec = resolve_model(model, pretrained)
    key = (spec, device)
    with _LOCK:
        version = _version_on_disk(spec)
        held = _LOADED.pop(key, None)
        if held is None or held[0] != version:
            held = (version, _load(spec, device))
        _LOADED[key] = held
        while len(_LOADED) > _MAX_LOADED:
            _LOADED.popitem(last=False)
    loaded = held[1]
    return loaded if precision == "fp32" else replace(loaded, precision=precision)


def encode_image(loaded, batch):
    """Embed a batch of preprocessed images, without normalising.

    Parameters
    ----------
    loaded : LoadedCLIP
    batch : torch.Tensor of shape (n, 3, height, width)
        As ``loaded.preprocess`` makes them, on any device.

    Returns
    -------
    torch.Tensor of shape (n, d), float32, on the model's device
    """
    import torch

    with torch.no_grad(), _autocast(loaded):
        batch = batch.to(loaded.device)
        return loaded.model.encode_image(batch, normalize=False).float()


def encode_pixels(loaded, pixels):
    """Embed a batch of pixels, without normalising the embeddings.

    Parameters
    ----------
    loaded : LoadedCLIP
    pixels : torch.Tensor of shape (n, height, width, 3), uint8
        Images of the size that ``loaded.resize`` gives, on the model's device.

    Returns
    -------
    torch.Tensor of shape (n, d), float32, on the model's device
    """
    import torch

    n_images, height, width, _ = pixels.shape
    if loaded.device == "cpu":
        tower = loaded.model.visual
        rows, columns = getattr(tower, "grid_size", (height // 16, width // 16))
        n_images = max(1, _CPU_PATCHES // max(1, rows * columns))
    return torch.cat(
        [
            encode_image(loaded, scale_pixels(loaded, piece))
            for piece in pixels.split(n_images)
        ]
    )


def scale_pixels(loaded, pixels):
    """Do to a batch of pixels what ``loaded.preprocess`` does after ``loaded.resize``.

    Parameters
    ----------
    loaded : LoadedCLIP
    pixels : torch.Tensor of shape (n, height, width, 3), uint8
        On the model's device, where the work is done.

    Returns
    -------
    torch.Tensor of shape (n, 3, height, width), float32
        The same numbers to the last bit, in channels-last memory format, which pixels
        have from the start and in which convolutions run fastest.
    """
    width = pixels.shape[2]
    # Whole lines at a time: operations on three channels each are not vectorised.
    lines = pixels.flatten(2).float().div_(255)
    lines.sub_(loaded._mean.tile(width)).div_(loaded._std.tile(width))
    return lines.unflatten(2, (width, 3)).permute(0, 3, 1, 2)


def encode_text(loaded, prompts, batch_size=256):
    """Embed prompts, without normalising.

    Parameters
    ----------
    loaded : LoadedCLIP
    prompts : sequence of str
    batch_size : int, default=256

    Returns
    -------
    ndarray of shape (n, d), float32
    """
    return _in_batches(
        loaded,
        prompts,
        batch_size,
        lambda tokens: loaded.model.encode_text(tokens, normalize=False),
        loaded.embed_dim,
    )


def encode_eos(loaded, prompts, batch_size=256):
    """Compute the EOS tokens of prompts, before the text projection.

    The token that a tower pools (not the EOS token in every architecture), after
    the final layer norm, so that ``encode_text = eos @ W + c`` with the `W` and
    `c` of `text_projection`. One forward pass a prompt.

    Parameters
    ----------
    loaded : LoadedCLIP
    prompts : sequence of str
    batch_size : int, default=256

    Returns
    -------
    ndarray of shape (n, d_t), float32

    Raises
    ------
    ValueError
        When the tower's projection is not linear.
    """
    width = text_projection(loaded)[0].shape[0]
    bare, encode = _without_projection(loaded.model)
    return _in_batches(
        loaded, prompts, batch_size, lambda tokens: encode(bare, tokens), width
    )


def text_projection(loaded):
    """Read a model's text projection, ``text = eos @ W + c``.

    Parameters
    ----------
    loaded : LoadedCLIP

    Returns
    -------
    projection : ndarray of shape (d_t, d), float32
        W; the identity where the tower has no projection.
    bias : ndarray of shape (d,), float32, or None
        c; None where there is none.

    Raises
    ------
    ValueError
        When the projection is not linear (an MLP): it has no pseudo-inverse.
    """
    import torch

    tower, attribute = _text_tower(loaded.model)
    projection = getattr(tower, attribute)
    if projection is None or isinstance(projection, torch.nn.Identity):
        return np.eye(loaded.embed_dim, dtype=np.float32), None
    if isinstance(projection, torch.nn.Linear):
        bias = projection.bias
        return (
            _to_numpy(projection.weight.T),
            None if bias is None else _to_numpy(bias),
        )
    if isinstance(projection, torch.Tensor):
        return _to_numpy(projection), None
    raise ValueError(
        f"The text tower of {loaded.label} ends in a "
        f"{type(projection).__name__} (a multi-layer projection). The bridge "
        "needs the pseudo-inverse of a linear projection, which this one has "
        "not. Choose a model with a linear text projection, or embed the prompts "
        "with CLIPEmbedder.encode_text and pass them to TextHead.from_features."
    )


def imagenet_class_names():
    """List the names that open_clip has for ImageNet's classes, by label.

    Returns
    -------
    list of str
    """
    from open_clip import IMAGENET_CLASSNAMES

    return list(IMAGENET_CLASSNAMES)


# Names and places


def _own_weights(name, basename, pretrained, folder=None):
    """Spec of a model that comes with its weights."""
    if pretrained not in ("auto", None):
        raise ValueError(
            f"pretrained={pretrained!r} cannot be combined with model={name!r}, "
            "which brings its own weights. Leave pretrained='auto'."
        )
    return ModelSpec(name, None, basename, _slug(basename), folder)


def _folder_spec(folder, pretrained):
    folder = Path(os.path.abspath(folder))
    _check_folder(folder)
    return _own_weights(str(folder), folder.name, pretrained, str(folder))


def _named_spec(name, pretrained):
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(name)
    if isinstance(pretrained, (str, os.PathLike)) and os.fspath(pretrained):
        pretrained = os.fspath(pretrained)
        if pretrained == "auto" and tags:
            tag = "openai" if name == "ViT-B-16" else tags[0]
            return ModelSpec(name, tag, f"{name} ({tag})", _slug(name))
        # open_clip reads tags without regard to case, and - as _.
        tag = pretrained.lower().replace("-", "_")
        if tag in tags:
            return ModelSpec(name, tag, f"{name} ({tag})", _slug(name))
        file = Path(os.path.abspath(Path(pretrained).expanduser()))
        if file.is_file():
            return ModelSpec(name, str(file), f"{name} ({file.name})", _slug(name))
    known = f"known tags: {', '.join(tags)}" if tags else "open_clip lists none"
    raise ValueError(
        f"pretrained={pretrained!r} is neither a tag of {name} ({known}) nor an "
        "existing checkpoint file."
    )


def _unknown_model(model, known):
    lowered = {name.lower(): name for name in [*known, BUNDLED]}
    near = difflib.get_close_matches(model.lower(), lowered, n=4, cutoff=0.6)
    hint = (
        f"Did you mean {', '.join(repr(lowered[name]) for name in near)}?"
        if near
        else "No known name resembles it."
    )
    return (
        f"Unknown model {model!r}. {hint} Expected one of the {len(known)} names of "
        f"open_clip.list_models(), {BUNDLED!r}, 'hf-hub:ORGANISATION/REPOSITORY', "
        "or an existing folder that holds an open_clip model."
    )


def _slug(name):
    slug = re.sub(r"[^0-9a-z]+", "_", name.lower()).strip("_")
    return slug if slug[:1].isalpha() else f"clip_{slug}".rstrip("_")


def _bundled_folder():
    try:
        _check_folder(_BUNDLED_FOLDER)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"The bundled model {BUNDLED!r} is missing from this installation of "
            "skbridge. Install the package again, from a wheel or a full checkout."
        ) from error
    return str(_BUNDLED_FOLDER)


def _check_folder(folder):
    if not (folder / _CONFIG_FILE).is_file():
        raise FileNotFoundError(
            f"The folder {folder} holds no {_CONFIG_FILE}, so it is not an "
            "open_clip model."
        )
    if not any(
        path.suffix in (".safetensors", ".bin", ".pth") for path in folder.iterdir()
    ):
        raise FileNotFoundError(
            f"The folder {folder} holds no weights: expected a .safetensors, .bin "
            f"or .pth file beside {_CONFIG_FILE}."
        )


def _version_on_disk(spec):
    """Fingerprint of the files, which changes when somebody replaces them."""
    if spec.folder is not None:
        return file_stamps([spec.folder])
    if spec.pretrained is not None and os.path.isabs(spec.pretrained):
        return file_stamps([spec.pretrained])
    return []


# Loading


def _load(spec, device):
    import open_clip
    import torch

    options = {}
    folder = spec.folder
    if folder is None and spec.pretrained is None:
        folder = _hub_folder(spec)
    if folder is not None:
        name = f"local-dir:{folder}"
        config = _read_config(folder)
    else:
        name = spec.name
        config = open_clip.get_model_config(name)
        options = _weight_options(spec)
    started = time.time_ns()
    sources = _sources(folder or options["pretrained"])
    stamps = file_stamps(sources)
    is_settled = all(FileStamp(*stamp).is_settled(started) for _, *stamp in stamps)
    text_config = _text_config(spec, config)
    if text_config is not config["text_cfg"]:
        options["text_cfg"] = text_config
    # Building the towers draws their first weights, which the loaded ones
    # replace: the caller's random stream must not notice.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # That TorchScript is on its way out helps nobody whose weights are in it.
        warnings.filterwarnings("ignore", r".*(TorchScript|torch\.jit)")
        try:
            model, _, preprocess = open_clip.create_model_and_transforms(
                name, device="cpu", **options
            )
        except Exception as error:
            # Damaged or foreign weights fail in as many ways as there are
            # formats; the device, which may fail too, comes later.
            raise ValueError(_unloadable(spec, error)) from error
    model.eval().requires_grad_(False).to(device)
    normalize = preprocess.transforms[-1]
    mean, std = (
        torch.tensor(values, device=device)
        for values in (normalize.mean, normalize.std)
    )
    return LoadedCLIP(
        name=spec.name,
        pretrained=spec.pretrained,
        label=spec.label,
        slug=spec.slug,
        model=model,
        preprocess=preprocess,
        embed_dim=int(config["embed_dim"]),
        logit_scale=float(model.logit_scale.exp().mean()),
        device=device,
        precision="fp32",
        sources=sources,
        stamps=stamps if is_settled else None,
        _make_fingerprint=cache(
            partial(_hash_model, model, config, options.get("force_quick_gelu"), folder)
        ),
        _mean=mean,
        _std=std,
        _make_tokenizer=cache(partial(_tokenizer, spec, folder, config["text_cfg"])),
    )


def _unloadable(spec, error):
    """Message for weights that open_clip could not load."""
    start = f"The weights of {spec.label} could not be loaded: "
    if isinstance(error, pickle.UnpicklingError) or "TorchScript" in str(error):
        # torch's own message recommends to run what the file holds.
        return (
            f"{start}expected a file of tensors, got one that is damaged or holds "
            f"other objects, which may be code and are not read. {_CONVERT}"
        )
    return (
        f"{start}{_brief(error)}. They may be damaged, or belong to another "
        "architecture."
    )


def _sources(weights):
    """Files that decide what is read: the weights, and which revision is newest."""
    weights = Path(os.path.abspath(weights))
    for parent in weights.parents:
        if parent.name == "snapshots":  # The layout of the hub's cache.
            return [str(weights), str(parent.parent / "refs" / "main")]
    return [str(weights)]


def _hash_model(model, config, quick_gelu, folder):
    """Hash weights, architecture and vocabulary, wherever the model is."""
    import torch

    digest = hashlib.blake2b(digest_size=20)
    digest.update(json.dumps([config, quick_gelu], sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy())
    if folder is not None:
        for pattern in ("*vocab*", "tokenizer*", "merges*"):
            for path in sorted(Path(folder).glob(pattern)):
                digest.update(path.read_bytes())
    return digest.hexdigest()


def _read_config(folder):
    path = Path(folder) / _CONFIG_FILE
    try:
        config = json.loads(path.read_text(encoding="utf-8"))["model_cfg"]
        config["embed_dim"], config["text_cfg"], config["vision_cfg"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is not an open_clip configuration: expected JSON with a "
            "'model_cfg' that has 'embed_dim', 'vision_cfg' and 'text_cfg'."
        ) from error
    return config


def _weight_options(spec):
    """How open_clip must build a named architecture to fit its weights."""
    import open_clip

    tag_config = open_clip.get_pretrained_cfg(spec.name, spec.pretrained)
    if tag_config:
        weights = _hub_weights(spec, tag_config)
        quick_gelu = _force_quick_gelu(tag_config)
        torchscript = False
    else:
        weights = spec.pretrained
        tags = open_clip.list_pretrained_tags_by_model(spec.name)
        if tags:
            tag_config = open_clip.get_pretrained_cfg(spec.name, tags[0])
        quick_gelu = torchscript = _is_openai_archive(spec)
    return {
        "pretrained": weights,
        "force_quick_gelu": quick_gelu,
        # torch refuses weights_only for TorchScript. Only the files whose every byte
        # is known to be OpenAI's get past that.
        "weights_only": not torchscript,
        "image_mean": tag_config.get("mean"),
        "image_std": tag_config.get("std"),
        "image_interpolation": tag_config.get("interpolation"),
        "image_resize_mode": tag_config.get("resize_mode"),
    }


def _force_quick_gelu(tag_config):
    """Whether a tag's weights need QuickGELU; False leaves a config's setting."""
    return bool(tag_config.get("quick_gelu", False))


def _is_openai_archive(spec):
    """Whether a checkpoint file is OpenAI's TorchScript; others are refused."""
    if not _is_torchscript(spec.pretrained):
        return False
    digest = _sha256(spec.pretrained)
    if digest in _openai_digests():
        return True
    raise ValueError(
        f"The weights of {spec.label} could not be loaded: expected a file of "
        f"tensors, got a TorchScript archive (SHA-256 {digest}), which may hold code "
        f"and is none of those that OpenAI published. {_CONVERT}"
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


# The hub


def _hub_weights(spec, tag_config):
    """Local file with a tag's weights, fetched if need be."""
    from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME

    repository, filename = os.path.split(tag_config["hf_hub"])
    if filename:
        names = [str(Path(filename).with_suffix(".safetensors")), filename]
    else:
        names = [HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME]
    return _fetch(spec, repository, dict.fromkeys(names))


def _hub_folder(spec):
    """Local folder with an ``hf-hub:`` model, fetched if need be."""
    from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME

    repository = spec.name.removeprefix("hf-hub:")
    _fetch(spec, repository, [_CONFIG_FILE])
    _fetch(spec, repository, [HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME])
    # Fetching the weights may have moved the cache on to a newer revision, which
    # has a folder, and a configuration, of its own.
    return os.path.dirname(_fetch(spec, repository, [_CONFIG_FILE]))


def _fetch(spec, repository, filenames):
    """Local path of the first of `filenames` that a hub repository has."""
    import huggingface_hub as hub
    from huggingface_hub.constants import HF_HUB_OFFLINE
    from huggingface_hub.utils import EntryNotFoundError

    for filename in filenames:
        path = hub.try_to_load_from_cache(repository, filename)
        if isinstance(path, str):
            return path
    if HF_HUB_OFFLINE:
        raise _unavailable(spec, "HF_HUB_OFFLINE is set")
    timeout = float(os.environ.get("HF_HUB_ETAG_TIMEOUT", _HUB_TIMEOUT))
    for filename in filenames:
        try:
            # Downloading straight away would retry an unreachable hub for most
            # of a minute; this asks once.
            hub.get_hf_file_metadata(
                hub.hf_hub_url(repository, filename), timeout=timeout
            )
            return hub.hf_hub_download(repository, filename)
        except EntryNotFoundError:
            continue
        except Exception as error:
            # The hub's client has changed its HTTP library, and so the family
            # of its errors, between versions.
            raise _unavailable(
                spec, f"the hub did not give them: {_brief(error)}"
            ) from error
    raise _unavailable(spec, f"{repository} has no {' or '.join(filenames)}")


def _brief(error):
    """One line of what may be pages."""
    return textwrap.shorten(str(error) or repr(error), 300).rstrip(".")


def _unavailable(spec, reason):
    return OSError(
        f"The files of {spec.label} are not all on this machine, and {reason}. "
        "Either download them where there is a network and copy the cache folder "
        "(HF_HOME) or a model folder here (model='local-dir:PATH'), or use the "
        f"bundled model={BUNDLED!r}."
    )


# The text side


def _text_config(spec, config):
    """Text configuration that builds without asking the network."""
    text_config = config["text_cfg"]
    if "hf_model_name" not in text_config:
        return text_config
    _require_transformers(spec)
    source = text_config["hf_model_name"]
    if not os.path.isdir(source):
        source = os.path.dirname(_fetch(spec, source, ["config.json"]))
    return {**text_config, "hf_model_name": source, "hf_model_pretrained": False}


def _require_transformers(spec):
    from importlib.util import find_spec

    if find_spec("transformers") is None:
        raise ImportError(
            f"The text side of {spec.label} is a Hugging Face one and needs "
            "transformers: pip install transformers."
        )


def _tokenizer(spec, folder, text_config):
    import open_clip

    options = dict(text_config.get("tokenizer_kwargs") or {})
    options["context_length"] = text_config.get("context_length", 77)
    if text_config.get("hf_tokenizer_name"):
        options["tokenizer_mode"] = text_config.get("tokenizer_mode")
        return _hub_tokenizer(spec, folder, text_config["hf_tokenizer_name"], options)
    if folder is None:
        return open_clip.SimpleTokenizer(**options)
    if (Path(folder) / _VOCABULARY_FILE).is_file():
        options["bpe_path"] = str(Path(folder) / _VOCABULARY_FILE)
    tokenizer = open_clip.SimpleTokenizer(**options)
    rows = text_config.get("vocab_size", 49408)
    if tokenizer.vocab_size != rows:
        raise ValueError(
            f"The tokenizer of {spec.label} has {tokenizer.vocab_size} tokens, its "
            f"text tower {rows}. Put the BPE file that the model was trained with "
            f"into its folder, as {_VOCABULARY_FILE}."
        )
    return tokenizer


def _hub_tokenizer(spec, folder, name, options):
    """Tokenizer of a Hugging Face model, from the cache if it is there."""
    from open_clip.tokenizer import HFTokenizer

    _require_transformers(spec)
    if folder is not None and any(Path(folder).glob("tokenizer*.json")):
        return HFTokenizer(folder, **options)
    try:
        return HFTokenizer(name, local_files_only=True, **options)
    except OSError:
        # Fails at once where the hub is out of reach.
        _fetch(spec, name, ["tokenizer_config.json"])
        return HFTokenizer(name, **options)


def _text_tower(model):
    """Find the module that holds the text projection, and its name there."""
    tower = getattr(model, "text", model)
    # open_clip's wrapper of Hugging Face towers names its projection otherwise.
    return tower, "text_projection" if hasattr(tower, "text_projection") else "proj"


def _without_projection(model):
    """Private copy of the text tower that stops at the EOS token.

    The copy shares every weight with the model, which stays as it is for the
    other threads that use it.
    """
    import torch

    tower, attribute = _text_tower(model)
    bare = copy.copy(tower)
    bare._parameters = tower._parameters.copy()
    bare._modules = tower._modules.copy()
    setattr(bare, attribute, None if attribute != "proj" else torch.nn.Identity())
    if tower is model:
        return bare, lambda module, tokens: module.encode_text(tokens)
    return bare, lambda module, tokens: module(tokens)


def _in_batches(loaded, prompts, batch_size, encode, width):
    import torch

    prompts = list(prompts)
    result = np.empty((len(prompts), width), dtype=np.float32)
    cut = []
    with torch.no_grad(), _autocast(loaded):
        for start in range(0, len(prompts), batch_size):
            chunk = prompts[start : start + batch_size]
            tokens = loaded.tokenizer(chunk)
            cut += _cut_prompts(loaded.tokenizer, chunk, tokens)
            output = encode(tokens.to(loaded.device))
            # Towers of captioning models return all tokens as well.
            pooled = output[0] if isinstance(output, tuple) else output
            result[start : start + len(chunk)] = _to_numpy(pooled)
    if cut:
        warnings.warn(
            f"{len(cut)} of {len(prompts)} prompts are longer than the "
            f"{tokens.shape[1]} tokens that {loaded.label} reads, and were cut; the "
            f"first is {cut[0]!r}. Shorten them.",
            UserWarning,
            stacklevel=3,
        )
    return result


def _cut_prompts(tokenizer, prompts, tokens):
    """Prompts that did not fit, which open_clip's own tokenizer does not say."""
    import open_clip

    if not isinstance(tokenizer, open_clip.SimpleTokenizer):
        return []
    full = np.flatnonzero(tokens[:, -1].numpy())
    # The start and the end token take a place each.
    room = tokens.shape[1] - 2
    return [prompts[row] for row in full if len(tokenizer.encode(prompts[row])) > room]


def _autocast(loaded):
    import torch

    dtypes = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
    dtype = dtypes[loaded.precision]
    # Full precision switches off whatever the caller has switched on: the same
    # image has the same embedding wherever it is made.
    return torch.autocast(
        torch.device(loaded.device).type, dtype=dtype, enabled=dtype is not None
    )


def _to_numpy(tensor):
    return np.array(tensor.detach().float().cpu().numpy(), order="C")
