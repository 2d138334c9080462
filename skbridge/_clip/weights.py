"""Where the weights of open_clip's models come from, and how to build for them.

open_clip builds some architectures with GELU whose weights were trained with
QuickGELU, OpenAI's among them. The activation follows the tag here. Of TorchScript
files only those that OpenAI published are read; for any other checkpoint file choose a
name that ends in ``-quickgelu`` if its weights need it. Only tensors are read from a
checkpoint, never code. A checkpoint file is given the image preprocessing of the
architecture's first listed tag.
"""

import importlib.util
import json
import os
import re
from functools import cache
from pathlib import Path

from skbridge._clip.checkpoint import is_openai_archive
from skbridge._clip.hub import BUNDLED, fetch, is_cached

_BUNDLED_FOLDER = Path(__file__).parents[1] / "models" / BUNDLED
CONFIG_FILE = "open_clip_config.json"
# Suffixes of weights, the preferred one first.
_FORMATS = (".safetensors", ".bin", ".pth")

# Repositories in other formats whose weights open_clip has too.
_OPENAI = {
    "clip-vit-base-patch32": "ViT-B-32",
    "clip-vit-base-patch16": "ViT-B-16",
    "clip-vit-large-patch14": "ViT-L-14",
    "clip-vit-large-patch14-336": "ViT-L-14-336",
}
_SAME_WEIGHTS = {
    **{f"openai/{theirs}": (ours, "openai") for theirs, ours in _OPENAI.items()},
    "sentence-transformers/clip-ViT-B-32": ("ViT-B-32", "openai"),
    "sentence-transformers/clip-ViT-B-16": ("ViT-B-16", "openai"),
    "sentence-transformers/clip-ViT-L-14": ("ViT-L-14", "openai"),
    "facebook/metaclip-b32-400m": ("ViT-B-32-quickgelu", "metaclip_400m"),
    "facebook/metaclip-b16-400m": ("ViT-B-16-quickgelu", "metaclip_400m"),
    "facebook/metaclip-l14-400m": ("ViT-L-14-quickgelu", "metaclip_400m"),
    "facebook/metaclip-b32-fullcc2.5b": ("ViT-B-32-quickgelu", "metaclip_fullcc"),
    "facebook/metaclip-b16-fullcc2.5b": ("ViT-B-16-quickgelu", "metaclip_fullcc"),
    "facebook/metaclip-l14-fullcc2.5b": ("ViT-L-14-quickgelu", "metaclip_fullcc"),
    "facebook/metaclip-h14-fullcc2.5b": ("ViT-H-14-quickgelu", "metaclip_fullcc"),
}


def same_weights(repository):
    """Architecture and tag that have a repository's weights, or None.

    Repositories that transformers can read from the hub's cache are left to it.
    """
    if importlib.util.find_spec("transformers") is not None and is_cached(
        repository, "config.json"
    ):
        return None
    return _SAME_WEIGHTS.get(repository) or _listed_repositories().get(repository)


@cache
def _listed_repositories():
    """Architecture and tag of each repository that open_clip lists."""
    import open_clip

    found = {}
    for name, tag in open_clip.list_pretrained():
        source = open_clip.get_pretrained_cfg(name, tag).get("hf_hub") or ""
        if source.endswith("/"):  # Else a file of a repository that may have several.
            found.setdefault(source.rstrip("/"), (name, tag))
    return found


def bundled_folder():
    """Return the folder of the bundled model."""
    if not (_BUNDLED_FOLDER / CONFIG_FILE).is_file():
        raise FileNotFoundError(
            f"The bundled model {BUNDLED!r} is missing from this installation of "
            "skbridge. Install the package again, from a wheel or a full checkout."
        )
    return str(_BUNDLED_FOLDER)


def weights_file(folder):
    """Path of a folder's weights, preferably as safetensors.

    Repositories may have the weights for transformers beside those for open_clip.
    """
    folder = Path(folder)
    is_shared = (folder / "config.json").is_file()

    def rank(path):
        is_foreign = is_shared and re.match(r"(pytorch_)?model\b", path.name)
        is_own = path.name.startswith("open_clip")
        return is_foreign is not None, _FORMATS.index(path.suffix), not is_own, path

    found = [path for path in folder.iterdir() if path.suffix in _FORMATS]
    if not found:
        raise FileNotFoundError(
            f"The folder {folder} holds no weights: expected a .safetensors, .bin "
            f"or .pth file beside {CONFIG_FILE}."
        )
    return str(min(found, key=rank))


def read_config(folder):
    """Read the configuration of the architecture in a folder."""
    path = Path(folder) / CONFIG_FILE
    try:
        config = json.loads(path.read_text(encoding="utf-8"))["model_cfg"]
        # What is missing raises here, and not while the model is built.
        for name in ("embed_dim", "text_cfg", "vision_cfg"):
            config[name]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is not an open_clip configuration: expected JSON with a "
            "'model_cfg' that has 'embed_dim', 'vision_cfg' and 'text_cfg'."
        ) from error
    return config


def weight_options(spec):
    """Options with which open_clip builds an architecture that fits its weights."""
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
        quick_gelu = torchscript = is_openai_archive(spec.label, spec.pretrained)
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


def _hub_weights(spec, tag_config):
    """Local file with a tag's weights, fetched if need be."""
    from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME

    repository, filename = os.path.split(tag_config["hf_hub"])
    if filename:
        names = [str(Path(filename).with_suffix(".safetensors")), filename]
    else:
        names = [HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME]
    return fetch(spec.label, repository, dict.fromkeys(names))


def hub_folder(spec):
    """Local folder with an ``hf-hub:`` model, fetched if need be."""
    from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME

    repository = spec.name.removeprefix("hf-hub:")
    fetch(spec.label, repository, [CONFIG_FILE])
    fetch(spec.label, repository, [HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME])
    # Fetching the weights may have moved the cache on to a newer revision, which
    # has a folder, and a configuration, of its own.
    return os.path.dirname(fetch(spec.label, repository, [CONFIG_FILE]))
