"""Models of open_clip: their names, both towers and tokenizers."""

import hashlib
import importlib.util
import json
import logging
import os
import re
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from skbridge._clip.backend import (
    Backend,
    ModelSpec,
    identity_projection,
    linear_projection,
    not_linear,
    shallow_copy,
    to_numpy,
)
from skbridge._clip.checkpoint import unloadable
from skbridge._clip.hub import (
    BUNDLED,
    fetch,
    hash_weights,
    named_folder,
    own_weights,
    slug,
    watch,
)
from skbridge._clip.weights import (
    CONFIG_FILE,
    bundled_folder,
    hub_folder,
    read_config,
    same_weights,
    weight_options,
    weights_file,
)
from skbridge._images.limits import central_part

_VOCABULARY_FILE = "bpe_simple_vocab.txt.gz"


@dataclass(frozen=True, eq=False, kw_only=True)
class OpenCLIP(Backend):
    """A model of open_clip.

    Attributes
    ----------
    preprocess : torchvision.transforms.Compose
        PIL image to tensor, as the model was validated: the last two steps are the
        tensor and its normalisation.
    config : dict
        Configuration of the architecture.
    quick_gelu : bool or None
        Whether the weights made open_clip build QuickGELU.
    folder : str or None
        With configuration, weights and vocabulary, where the model is one.
    """

    library = "open_clip_torch"

    preprocess: Any = field(repr=False)
    config: dict = field(repr=False)
    quick_gelu: bool | None = field(repr=False)
    folder: str | None = field(repr=False)

    @classmethod
    def names(cls):
        import open_clip

        return [*open_clip.list_models(), BUNDLED]

    @classmethod
    def resolve(cls, model, pretrained):
        if model == BUNDLED:
            return own_weights(cls, BUNDLED, BUNDLED, pretrained, bundled_folder())
        if model.startswith("hf-hub:"):
            basename = model.split(":")[1].split("/")[-1]
            if not basename:
                raise ValueError(
                    f"model={model!r} names no repository; expected "
                    "'hf-hub:ORGANISATION/REPOSITORY'."
                )
            return own_weights(cls, model, basename, pretrained)
        name = model.replace("/", "-")
        import open_clip

        if name in open_clip.list_models():
            return cls._resolve_architecture(name, pretrained)
        folder = named_folder(model)
        if folder is not None:
            if not (folder / CONFIG_FILE).is_file():
                return None
            weights_file(folder)
            return own_weights(cls, str(folder), folder.name, pretrained, str(folder))
        same = same_weights(model)
        if same is None or pretrained not in ("auto", None):
            return None
        name, tag = same
        spec = cls._resolve_architecture(name, tag)
        return replace(spec, label=f"{model}, as {spec.label} of open_clip")

    @classmethod
    def _resolve_architecture(cls, name, pretrained):
        import open_clip

        tags = open_clip.list_pretrained_tags_by_model(name)

        def spec(weights, shown):
            return ModelSpec(name, weights, f"{name} ({shown})", slug(name), cls)

        if isinstance(pretrained, (str, os.PathLike)) and os.fspath(pretrained):
            pretrained = os.fspath(pretrained)
            if pretrained == "auto" and tags:
                tag = "openai" if name == "ViT-B-16" else tags[0]
                return spec(tag, tag)
            # open_clip reads tags without regard to case, and - as _.
            tag = pretrained.lower().replace("-", "_")
            if tag in tags:
                return spec(tag, tag)
            file = Path(os.path.abspath(Path(pretrained).expanduser()))
            if file.is_file():
                return spec(str(file), file.name)
        known = f"known tags: {', '.join(tags)}" if tags else "open_clip lists none"
        raise ValueError(
            f"pretrained={pretrained!r} is neither a tag of {name} ({known}) nor an "
            "existing checkpoint file."
        )

    @classmethod
    def load(cls, spec, device):
        import open_clip
        import torch

        options = {}
        folder = spec.folder
        if folder is None and spec.pretrained is None:
            folder = hub_folder(spec)
        if folder is not None:
            name = f"local-dir:{folder}"
            config = read_config(folder)
            # open_clip prefers some names of pickled weights to safetensors.
            options = {"load_weights": False, "pretrained_text": False}
        else:
            name = spec.name
            config = open_clip.get_model_config(name)
            options = weight_options(spec)
        sources, stamps = watch(folder or options["pretrained"])
        text_config = _text_config(spec, config)
        if text_config is not config["text_cfg"]:
            options["text_cfg"] = text_config
        # Building the towers draws their first weights, which the loaded ones
        # replace: the caller's random stream must not notice.
        quiet = _without_log("No pretrained weights loaded")  # They come afterwards.
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings(), quiet:
            # Users of TorchScript weights cannot act on its deprecation.
            warnings.filterwarnings("ignore", r".*(TorchScript|torch\.jit)")
            try:
                model, _, preprocess = open_clip.create_model_and_transforms(
                    name, device="cpu", **options
                )
                if folder is not None:
                    open_clip.load_checkpoint(model, weights_file(folder))
            except Exception as error:
                # Damaged or foreign weights fail in as many ways as there are
                # formats; the device, which may fail too, comes later.
                raise ValueError(unloadable(spec.label, error)) from error
        model.eval().requires_grad_(False).to(device)
        normalize = preprocess.transforms[-1]
        return cls(
            spec=spec,
            device=device,
            model=model,
            embed_dim=int(config["embed_dim"]),
            logit_scale=float(model.logit_scale.exp().mean()),
            mean=torch.tensor(normalize.mean, device=device),
            std=torch.tensor(normalize.std, device=device),
            sources=sources,
            stamps=stamps,
            preprocess=preprocess,
            config=config,
            quick_gelu=options.get("force_quick_gelu"),
            folder=folder,
        )

    @cached_property
    def fingerprint(self):
        # Made on first use: it reads all weights.
        digest = hashlib.blake2b(digest_size=20)
        content = [self.config, self.quick_gelu]
        digest.update(json.dumps(content, sort_keys=True).encode())
        hash_weights(digest, self.model)
        if self.folder is not None:
            for pattern in ("*vocab*", "tokenizer*", "merges*"):
                for path in sorted(Path(self.folder).glob(pattern)):
                    digest.update(path.read_bytes())
        return digest.hexdigest()

    # Images

    @property
    def image_side(self):
        return int(np.max(self.model.visual.image_size))

    @property
    def preprocessing(self):
        # Functions are shown with their addresses in this process.
        return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(self.preprocess))

    def resize(self, image):
        if self._resizes_shorter_side:
            image = central_part(image)
        for step in self.preprocess.transforms[:-2]:
            # A crop to the size that an image has would copy it.
            if getattr(step, "size", None) != (image.height, image.width):
                image = step(image)
        return image

    @cached_property
    def _resizes_shorter_side(self):
        return any(
            isinstance(getattr(step, "size", None), int)
            or getattr(step, "longest", None) == 0
            for step in self.preprocess.transforms
        )

    def _image_modules(self):
        return ["visual"]

    def _n_patches(self, height, width):
        rows, columns = getattr(
            self.model.visual, "grid_size", (height // 16, width // 16)
        )
        return max(1, rows * columns)

    def _image_features(self, batch):
        return self.model.encode_image(batch, normalize=False)

    # Texts

    @cached_property
    def tokenizer(self):
        # Made on first use: images need none, and some need transformers.
        return _tokenizer(self.spec, self.folder, self.config["text_cfg"])

    @property
    def context_length(self):
        return self.tokenizer.context_length

    @property
    def projection(self):
        import torch

        projection = getattr(*_text_tower(self.model))
        if projection is None or isinstance(projection, torch.nn.Identity):
            return identity_projection(self.embed_dim)
        if isinstance(projection, torch.nn.Linear):
            return linear_projection(projection)
        if isinstance(projection, torch.Tensor):
            return to_numpy(projection), None
        raise not_linear(self.label, projection)

    def tokenize(self, prompts):
        tokens = self.tokenizer(prompts)
        return tokens, _cut_prompts(self.tokenizer, prompts, tokens)

    def _text_features(self, tokens):
        features = self.model.encode_text(tokens.to(self.device), normalize=False)
        return _pooled(features)

    def _eos(self, tokens):
        bare, encode = _without_projection(self.model)
        return _pooled(encode(bare, tokens.to(self.device)))


def imagenet_class_names():
    """List the names that open_clip has for ImageNet's classes, by label.

    Returns
    -------
    list of str
    """
    from open_clip import IMAGENET_CLASSNAMES

    return list(IMAGENET_CLASSNAMES)


@contextmanager
def _without_log(start):
    """Leave out what the root logger is given that starts with some words."""

    def is_other(record):
        return not record.getMessage().startswith(start)

    root = logging.getLogger()
    root.addFilter(is_other)
    try:
        yield
    finally:
        root.removeFilter(is_other)


def _text_config(spec, config):
    """Text configuration that builds without asking the network."""
    text_config = config["text_cfg"]
    if "hf_model_name" not in text_config:
        return text_config
    _require_transformers(spec)
    source = text_config["hf_model_name"]
    if not os.path.isdir(source):
        source = os.path.dirname(fetch(spec.label, source, ["config.json"]))
    return {**text_config, "hf_model_name": source, "hf_model_pretrained": False}


def _require_transformers(spec):
    if importlib.util.find_spec("transformers") is None:
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
        fetch(spec.label, name, ["tokenizer_config.json"])
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
    bare = shallow_copy(tower)
    setattr(bare, attribute, None if attribute != "proj" else torch.nn.Identity())
    if tower is model:
        return bare, lambda module, tokens: module.encode_text(tokens)
    return bare, lambda module, tokens: module(tokens)


def _pooled(output):
    # Towers of captioning models return all tokens as well.
    return output[0] if isinstance(output, tuple) else output


def _cut_prompts(tokenizer, prompts, tokens):
    """Prompts that did not fit, which open_clip's tokenizers do not say."""
    import open_clip

    if not isinstance(tokenizer, open_clip.SimpleTokenizer):
        # Text after a prompt that fills the context changes no token. A prompt that
        # just fits counts too.
        longer = tokenizer([f"{prompt} a a a" for prompt in prompts])
        full = (longer == tokens).all(axis=1)
        return [
            prompt for prompt, is_full in zip(prompts, full, strict=True) if is_full
        ]
    full = np.flatnonzero(tokens[:, -1].numpy())
    # The start and the end token take a place each.
    room = tokens.shape[1] - 2
    return [prompts[row] for row in full if len(tokenizer.encode(prompts[row])) > room]
