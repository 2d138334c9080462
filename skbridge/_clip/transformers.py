"""Models of Hugging Face transformers: CLIP and its kin, and models of images only.

Images are prepared by the checkpoint's own image processor, with Pillow, as the
weights were trained; transformers' other processors, in torchvision, round otherwise.
Only tensors are read from a checkpoint, and no code of a repository is run.
"""

import hashlib
import importlib.util
import json
import os
import re
import warnings
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from skbridge._clip.backend import (
    Backend,
    identity_projection,
    linear_projection,
    not_linear,
    shallow_copy,
)
from skbridge._clip.checkpoint import unloadable
from skbridge._clip.hub import (
    fetch,
    fetch_all,
    hash_weights,
    is_hub_id,
    named_folder,
    one_line,
    own_weights,
    watch,
)
from skbridge._images.limits import central_part

_CONFIG_FILE = "config.json"
_PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
_SAFE_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_WEIGHTS = (*_SAFE_WEIGHTS, "pytorch_model.bin", "pytorch_model.bin.index.json")
_VOCABULARIES = (
    "tokenizer.json",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
)
_TOKENIZER_FILES = (
    *_VOCABULARIES,
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
)

# CLIP's, for models that were trained without a scale.
_LOGIT_SCALE = 100.0


@dataclass(frozen=True, eq=False, kw_only=True)
class Transformers(Backend):
    """A model of transformers.

    Attributes
    ----------
    processor : transformers.BaseImageProcessor
    folder : str
        With configuration, weights and tokenizer.
    has_pooler : bool
        Whether the weights of an image-only model have a trained pooler; its CLS token
        is the embedding otherwise.
    """

    library = "transformers"

    processor: Any = field(repr=False)
    folder: str = field(repr=False)
    has_pooler: bool = field(repr=False)

    @classmethod
    def names(cls):
        return []

    @classmethod
    def resolve(cls, model, pretrained):
        folder = named_folder(model)
        if folder is not None:
            if not (folder / _CONFIG_FILE).is_file():
                return None
            if not _has_any(folder, _WEIGHTS):
                raise FileNotFoundError(
                    f"The folder {folder} holds no weights: expected "
                    f"{_SAFE_WEIGHTS[0]} beside {_CONFIG_FILE}, as save_pretrained "
                    "writes it."
                )
            return own_weights(cls, str(folder), folder.name, pretrained, str(folder))
        if is_hub_id(model):
            return own_weights(cls, model, model.split("/")[1], pretrained)
        return None

    @classmethod
    def load(cls, spec, device):
        import torch

        if importlib.util.find_spec("transformers") is None:
            raise ImportError(
                f"{spec.name} is a model of Hugging Face transformers, which is not "
                "installed: pip install skbridge[transformers]. For a repository in "
                f"open_clip's format write model='hf-hub:{spec.name}'."
            )
        folder = spec.folder or _hub_folder(spec)
        sources, stamps = watch(folder)
        with torch.random.fork_rng(devices=[]):
            model, missing = _read_model(spec, folder)
            processor = _read_processor(spec, folder)
        has_pooler = not any("pooler." in name for name in missing)
        missing = [name for name in missing if "pooler." not in name]
        if missing:
            raise ValueError(
                f"The weights of {spec.label} could not be loaded: {len(missing)} "
                f"tensors of {type(model).__name__} are not in the checkpoint, the "
                f"first is {missing[0]}. It belongs to another architecture."
            )
        model.eval().requires_grad_(False).to(device)
        mean, std = _normalisation(processor)
        scale = getattr(model, "logit_scale", None)
        loaded = cls(
            spec=spec,
            device=device,
            model=model,
            embed_dim=0,
            logit_scale=_LOGIT_SCALE if scale is None else float(scale.exp().mean()),
            mean=torch.tensor(mean, dtype=torch.float32, device=device),
            std=torch.tensor(std, dtype=torch.float32, device=device),
            sources=sources,
            stamps=stamps,
            processor=processor,
            folder=folder,
            has_pooler=has_pooler,
        )
        return loaded._checked()

    def _checked(self):
        """Embed one image, for the width, and to see that all parts fit together."""
        import torch
        from PIL import Image

        rng = np.random.default_rng(0)
        image = Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8))
        expected = self.processor(image, return_tensors="pt")["pixel_values"].float()
        is_plain = expected.shape[:2] == (1, 3) and expected.ndim == 4
        if is_plain:
            pixels = torch.from_numpy(self.resize(image))[None].to(self.device)
            batch = self.scale(pixels)
            # Some processors do not round to 8 bits in between.
            level = 1.01 / 255 / float(self.std.min())
            is_plain = torch.allclose(batch.cpu(), expected, atol=level, rtol=0)
        if not is_plain:
            raise ValueError(
                f"The image processor of {self.label}, "
                f"{type(self.processor).__name__}, does more than to resize, crop and "
                "normalise, which is not supported. Embed the images with transformers "
                "and give the classifier the embeddings."
            )
        embedding = self.embed_scaled(batch)
        if embedding.ndim != 2:
            raise ValueError(
                f"{self.label} ({type(self.model).__name__}) gives no single vector "
                f"per image, but an array of shape {tuple(embedding.shape[1:])}, and "
                "cannot be used as an embedder."
            )
        return replace(self, embed_dim=embedding.shape[1])

    @cached_property
    def fingerprint(self):
        digest = hashlib.blake2b(digest_size=20)
        config = self.model.config.to_diff_dict()
        config.pop("transformers_version", None)
        content = [type(self.model).__name__, config, self.has_pooler]
        digest.update(json.dumps(content, sort_keys=True, default=str).encode())
        hash_weights(digest, self.model)
        for path in sorted(Path(self.folder).iterdir()):
            if re.match(r"tokenizer|vocab|merges|spiece|special_tokens", path.name):
                digest.update(path.read_bytes())
        return digest.hexdigest()

    # Images

    @cached_property
    def image_side(self):
        from PIL import Image

        return max(self.resize(Image.new("RGB", (8, 8))).shape[:2])

    @property
    def preprocessing(self):
        return json.dumps(self.processor.to_dict(), sort_keys=True, default=str)

    def resize(self, image):
        if self._resizes_shorter_side:
            image = central_part(image)
        if hasattr(self.processor, "val_transforms"):  # Of a timm model.
            for step in self.processor.val_transforms.transforms[:-2]:
                image = step(image)
            return np.array(image)  # Writable, as torch wants it.
        given = {"do_rescale": False, "do_normalize": False, "return_tensors": "np"}
        pixels = self.processor(image, **given)["pixel_values"][0]
        return np.ascontiguousarray(pixels.transpose(1, 2, 0))

    @cached_property
    def _resizes_shorter_side(self):
        if hasattr(self.processor, "val_transforms"):
            steps = self.processor.val_transforms.transforms
            return any(isinstance(getattr(step, "size", None), int) for step in steps)
        size = dict(getattr(self.processor, "size", None) or {})
        is_cropped = getattr(self.processor, "do_center_crop", False)
        return bool(is_cropped and size.get("shortest_edge"))

    def _image_modules(self):
        return [name for name in self.model._modules if not name.startswith("text")]

    def _n_patches(self, height, width):
        config = getattr(self.model.config, "vision_config", self.model.config)
        side = getattr(config, "patch_size", 16)
        side = side if isinstance(side, int) else side[0]
        return max(1, (height // side) * (width // side))

    def _image_features(self, batch):
        if hasattr(self.model, "get_image_features"):
            return _pooled(self.model.get_image_features(pixel_values=batch))
        output = self.model(pixel_values=batch)
        if getattr(output, "image_embeds", None) is not None:
            return output.image_embeds
        pooled = getattr(output, "pooler_output", None)
        if pooled is None or not self.has_pooler:
            pooled = output.last_hidden_state[:, 0]
        return pooled.flatten(1)

    # Texts

    @cached_property
    def tokenizer(self):
        return _read_tokenizer(self.spec, self.folder)

    @property
    def context_length(self):
        config = self.model.config.get_text_config()
        return min(config.max_position_embeddings, self.tokenizer.model_max_length)

    @property
    def projection(self):
        import torch

        if not hasattr(self.model, "get_text_features"):
            raise self._without_texts()
        path = _projection_path(self.model)
        if path is None:
            raise not_linear(self.label, self.model)
        projection = self.model.get_submodule(path)
        if isinstance(projection, torch.nn.Identity):
            return identity_projection(self.embed_dim)
        if isinstance(projection, torch.nn.Linear):
            return linear_projection(projection)
        raise not_linear(self.label, projection)

    def tokenize(self, prompts):
        if not hasattr(self.model, "get_text_features"):
            raise self._without_texts()
        length = self.context_length
        # SigLIP's tower pools the last position and sees no mask: its prompts are
        # always filled up, as in training.
        is_siglip = self.model.config.model_type.startswith("siglip")
        tokens = self.tokenizer(
            prompts,
            padding="max_length" if is_siglip else "longest",
            truncation=True,
            max_length=length,
            return_tensors="pt",
        )
        if is_siglip:
            tokens.pop("attention_mask", None)
        whole = self.tokenizer(prompts, verbose=False)["input_ids"]
        cut = [
            prompt
            for prompt, ids in zip(prompts, whole, strict=True)
            if len(ids) > length
        ]
        return tokens.to(self.device), cut

    def _text_features(self, tokens):
        return _pooled(self.model.get_text_features(**tokens))

    def _eos(self, tokens):
        import torch

        owner, _, name = _projection_path(self.model).rpartition(".")
        # A private copy of the modules on the way; the weights are shared.
        bare = top = shallow_copy(self.model)
        for part in filter(None, owner.split(".")):
            bare._modules[part] = shallow_copy(bare._modules[part])
            bare = bare._modules[part]
        bare._modules[name] = torch.nn.Identity()
        return _pooled(top.get_text_features(**tokens))


def _has_any(folder, names):
    return any((Path(folder) / name).is_file() for name in names)


def _pooled(output):
    """Features of transformers 5 and later, which come with other outputs."""
    return getattr(output, "pooler_output", output)


def _projection_path(model):
    """Name of the module whose output are the text features."""
    for path in ("text_projection", "text_model.head"):
        owner, _, name = path.rpartition(".")
        try:
            if name in model.get_submodule(owner)._modules:
                return path
        except AttributeError:
            continue
    return None


def _hub_folder(spec):
    """Folder of a repository in the hub's cache, downloaded if need be."""
    try:
        folder = os.path.dirname(fetch(spec.label, spec.name, [_CONFIG_FILE]))
    except OSError as error:
        raise OSError(
            f"{error} There is no folder {spec.name!r}, so it was taken for a "
            "repository of the Hugging Face hub in transformers' format; for one in "
            f"open_clip's format write model='hf-hub:{spec.name}'."
        ) from error
    # timm's models have their preprocessing in the configuration.
    is_timm = "model_type" not in json.loads(Path(folder, _CONFIG_FILE).read_bytes())
    if not is_timm and not _has_any(folder, _PROCESSOR_FILES):
        fetch(spec.label, spec.name, _PROCESSOR_FILES)
    if not _has_any(folder, _WEIGHTS):
        fetch_all(spec.label, spec.name, _TOKENIZER_FILES)
    weights = Path(fetch(spec.label, spec.name, _WEIGHTS))
    if weights.suffix == ".json":  # Lists the files that the weights are divided into.
        parts = set(json.loads(weights.read_bytes())["weight_map"].values())
        for part in sorted(parts):
            fetch(spec.label, spec.name, [part])
    return os.path.dirname(fetch(spec.label, spec.name, [_CONFIG_FILE]))


def _read_model(spec, folder):
    """Model and the names of the weights that the checkpoint lacks."""
    import torch
    import transformers

    options = {"trust_remote_code": False, "local_files_only": True}
    try:
        config = transformers.AutoConfig.from_pretrained(folder, **options)
        kind = transformers.AutoModel
        named = (getattr(config, "architectures", None) or [""])[0] or ""
        if named.endswith("WithProjection"):  # AutoModel would leave it out.
            kind = getattr(transformers, named)
        with _quiet():
            model, info = kind.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                use_safetensors=_has_any(folder, _SAFE_WEIGHTS),
                weights_only=True,
                output_loading_info=True,
                **options,
            )
    except Exception as error:
        # As many kinds of error as there are formats and architectures.
        if "trust_remote_code" in str(error):
            raise ValueError(
                f"{spec.label} needs code of its own repository, which is not run. "
                "Embed the images with that code, and give the classifier the "
                "embeddings."
            ) from error
        raise ValueError(unloadable(spec.label, error)) from error
    has_texts = hasattr(model, "get_text_features")
    is_generative = hasattr(model, "get_image_features") and not has_texts
    if (model.main_input_name != "pixel_values" and not has_texts) or is_generative:
        raise ValueError(
            f"{spec.label} is a {type(model).__name__}, which does not embed images. "
            "Expected CLIP, SigLIP or the like, or an image model such as DINOv2."
        )
    if info["mismatched_keys"]:
        raise ValueError(
            f"The weights of {spec.label} could not be loaded: some have other shapes "
            "than config.json says. They belong to another architecture."
        )
    return model, sorted(info["missing_keys"])


def _read_processor(spec, folder):
    import transformers

    try:
        with _quiet():
            return transformers.AutoImageProcessor.from_pretrained(
                folder, backend="pil", trust_remote_code=False, local_files_only=True
            )
    except Exception as error:
        raise FileNotFoundError(
            f"The image processor of {spec.label} could not be read: "
            f"{one_line(error)}. Expected {_PROCESSOR_FILES[0]} beside the weights, as "
            "AutoImageProcessor.save_pretrained writes it."
        ) from error


def _read_tokenizer(spec, folder):
    import transformers

    options = {"trust_remote_code": False, "local_files_only": True}
    try:
        if spec.folder is None and not _has_any(folder, _VOCABULARIES):
            fetch_all(spec.label, spec.name, _TOKENIZER_FILES)
        if not _has_any(folder, _VOCABULARIES):
            # transformers would make one with an empty vocabulary.
            raise FileNotFoundError("the vocabulary is missing")
        with _quiet():
            return transformers.AutoTokenizer.from_pretrained(folder, **options)
    except Exception as error:
        raise FileNotFoundError(
            f"The tokenizer of {spec.label} could not be read, so that its images can "
            f"be embedded and its texts cannot: {one_line(error)}. Expected "
            "tokenizer.json beside the weights, as AutoTokenizer.save_pretrained "
            "writes it, or use texts=None."
        ) from error


def _normalisation(processor):
    """Mean and standard deviation for pixels in [0, 1]."""
    if hasattr(processor, "val_transforms"):
        normalize = processor.val_transforms.transforms[-1]
        return normalize.mean.tolist(), normalize.std.tolist()
    settings = processor.to_dict()
    # Pixels are divided by 255 here; the processor multiplies them by its own factor.
    factor = settings.get("rescale_factor", 1 / 255)
    unit = 255 * factor if settings.get("do_rescale", True) else 255
    mean, std = 0.0, 1.0
    if settings.get("do_normalize", True):
        mean, std = settings.get("image_mean"), settings.get("image_std")
    return (np.broadcast_to(np.divide(part, unit), 3).tolist() for part in (mean, std))


class _quiet(warnings.catch_warnings):
    """Silence progress bars and reports of transformers."""

    def __enter__(self):
        from transformers.utils import logging

        super().__enter__()
        warnings.simplefilter("ignore")
        self._level = logging.get_verbosity()
        self._bars = logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        logging.disable_progress_bar()

    def __exit__(self, *error):
        from transformers.utils import logging

        logging.set_verbosity(self._level)
        if self._bars:
            logging.enable_progress_bar()
        return super().__exit__(*error)
