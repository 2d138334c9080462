"""Interface of a CLIP model to the rest of the library."""

import copy
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from skbridge._messages import brief, warn

# Patches that a CPU is given at a time. Larger buffers are taken from the system and
# given back each time: on two cores RN50 and ViT-B-16 embed 8 photos of 224 x 224 (196
# patches of 16 x 16 each) at a time 15 and 10 % faster than 16;
# benchmarks/embedding.py --models RN50 ViT-B-16 --batch-size 8 compares them.
_CPU_PATCHES = 8 * 196


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
        For messages, such as ``"ViT-B-16 (openai)"``. It has no folder of the
        machine in it.
    slug : str
        For feature names: an identifier, such as ``"vit_b_16"``.
    backend : type
        Subclass of `Backend` that loads it.
    folder : str or None
        Folder with configuration and weights, where the model is one.
    """

    name: str
    pretrained: str | None
    label: str
    slug: str
    backend: type = field(repr=False)
    folder: str | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Backend(ABC):
    """A CLIP model in memory, shared by the whole process; never change it.

    A subclass says which names it knows (`names`, `resolve`), loads them (`load`) and
    runs the two towers of one library's models. A model without texts leaves out the
    methods of the text side.

    Attributes
    ----------
    spec : ModelSpec
    device : str
        Where it is.
    model : torch.nn.Module
        In evaluation mode, its parameters frozen.
    embed_dim : int
        Width d of image and text embeddings.
    logit_scale : float
        Factor on cosine similarities, already exponentiated.
    mean, std : torch.Tensor of shape (3,)
        Normalisation of pixels in [0, 1], on the device.
    sources : list of str
        Files and folders that decide which weights are read.
    stamps : list or None
        Result of `file_stamps` for them before they were read; None if they were
        written so shortly before that it need not tell a later change.
    """

    #: Distribution whose version decides what a name means.
    library: ClassVar[str]

    spec: ModelSpec
    device: str
    model: Any = field(repr=False)
    embed_dim: int
    logit_scale: float
    mean: Any = field(repr=False)
    std: Any = field(repr=False)
    sources: list = field(repr=False)
    stamps: list | None = field(repr=False)

    @classmethod
    @abstractmethod
    def names(cls):
        """List the names that are known without a folder or hub, for messages."""

    @classmethod
    @abstractmethod
    def resolve(cls, model, pretrained):
        """Check a model's name without loading it.

        Parameters
        ----------
        model : str
        pretrained : str, path-like or None
            As for `resolve_model`.

        Returns
        -------
        ModelSpec or None
            None where the name is not one of this backend's.
        """

    @classmethod
    @abstractmethod
    def load(cls, spec, device):
        """Load a model that `resolve` described.

        Parameters
        ----------
        spec : ModelSpec
        device : str

        Returns
        -------
        Backend
        """

    @property
    def label(self):
        """Name of the model, for messages."""
        return self.spec.label

    @property
    def slug(self):
        """Name of the model as an identifier, for feature names."""
        return self.spec.slug

    @property
    @abstractmethod
    def fingerprint(self):
        """Hash of the weights in memory and of what the architecture is."""

    def __reduce__(self):
        raise TypeError(
            f"The loaded model {self.label} cannot be pickled: keep its name and "
            "call load_clip where it is needed."
        )

    # Images

    @property
    @abstractmethod
    def image_side(self):
        """Longer side of the images that the tower sees, in pixels."""

    @property
    @abstractmethod
    def preprocessing(self):
        """Description of what is done to images, the same in every process."""

    @abstractmethod
    def resize(self, image):
        """Bring an image to the size of the model.

        Parameters
        ----------
        image : PIL.Image.Image
            Mode RGB.

        Returns
        -------
        PIL.Image.Image or ndarray of shape (height, width, 3), uint8
        """

    @abstractmethod
    def _image_features(self, batch):
        """Image embeddings of a batch as `scale` makes it, not normalised."""

    @abstractmethod
    def _image_modules(self):
        """Names of the children of `model` that make up the image tower."""

    def _n_patches(self, height, width):
        """Patches of an image, a measure of the memory that it takes in the tower."""
        return max(1, (height // 16) * (width // 16))

    def embed(self, pixels, precision="fp32"):
        """Embed a batch of pixels, without normalising the embeddings.

        Parameters
        ----------
        pixels : torch.Tensor of shape (n, height, width, 3), uint8
            Images of the size that `resize` gives, on the model's device.
        precision : {"fp32", "bf16", "fp16"}, default="fp32"
            As for `embed_scaled`.

        Returns
        -------
        torch.Tensor of shape (n, d), float32, on the model's device
        """
        import torch

        n_images, height, width, _ = pixels.shape
        if self.device == "cpu":
            n_images = max(1, _CPU_PATCHES // self._n_patches(height, width))
        return torch.cat(
            [
                self.embed_scaled(self.scale(piece), precision)
                for piece in pixels.split(n_images)
            ]
        )

    def scale(self, pixels):
        """Scale and normalise a batch of pixels, on the model's device.

        Parameters
        ----------
        pixels : torch.Tensor of shape (n, height, width, 3), uint8

        Returns
        -------
        torch.Tensor of shape (n, 3, height, width), float32
            The numbers of torchvision's ``ToTensor`` and ``Normalize`` to the last
            bit, in channels-last memory format, which pixels have from the start and
            in which convolutions run fastest.
        """
        width = pixels.shape[2]
        # Whole lines at a time: operations on three channels each are not vectorised.
        lines = pixels.flatten(2).float().div_(255)
        lines.sub_(self.mean.tile(width)).div_(self.std.tile(width))
        return lines.unflatten(2, (width, 3)).permute(0, 3, 1, 2)

    def embed_scaled(self, batch, precision="fp32"):
        """Embed a batch of preprocessed images, without normalising.

        Parameters
        ----------
        batch : torch.Tensor of shape (n, 3, height, width)
            As `scale` makes it, on any device.
        precision : {"fp32", "bf16", "fp16"}, default="fp32"
            Precision of the arithmetic: through autocast on a GPU, in a copy of the
            tower on a CPU, where autocast is slower than float32.

        Returns
        -------
        torch.Tensor of shape (n, d), float32, on the model's device
        """
        import torch

        batch, loaded = batch.to(self.device), self
        if self.device == "cpu" and precision == "bf16":
            batch, loaded, precision = batch.bfloat16(), self._bfloat16, "fp32"
        with torch.no_grad(), _autocast(self.device, precision):
            return loaded._image_features(batch).float()

    @cached_property
    def _bfloat16(self):
        """The same backend with a copy of the image tower in bfloat16."""
        half = shallow_copy(self.model)
        for name in self._image_modules():
            half._modules[name] = copy.deepcopy(half._modules[name]).bfloat16()
        return replace(self, model=half)

    # Texts, always in float32

    @property
    def projection(self):
        """Text projection W and bias c, ``text = eos @ W + c``.

        W is an ndarray of shape (d_t, d), the identity where the tower has no
        projection; c has shape (d,), or is None where there is none. A projection
        that is not linear (an MLP) has no pseudo-inverse and raises ValueError.
        """
        raise self._without_texts()

    @property
    def context_length(self):
        """Number of tokens that the text tower reads."""
        raise self._without_texts()

    def tokenize(self, prompts):
        """Turn prompts into tokens.

        Parameters
        ----------
        prompts : list of str

        Returns
        -------
        tokens : object
            As `_text_features` and `_eos` take it.
        cut : list of str
            Prompts that are longer than the context and lost their end.
        """
        raise self._without_texts()

    def _text_features(self, tokens):
        """Text embeddings of tokens, not normalised, as a tensor."""
        raise self._without_texts()

    def _eos(self, tokens):
        """EOS tokens before the projection, as a tensor."""
        raise self._without_texts()

    def _without_texts(self):
        return ValueError(
            f"{self.label} has no text tower: it embeds images only. Give the "
            "classifier texts=None, or a CLIP model for both images and texts."
        )

    def text_features(self, prompts, batch_size=256):
        """Embed prompts, without normalising.

        Parameters
        ----------
        prompts : sequence of str
        batch_size : int, default=256

        Returns
        -------
        ndarray of shape (n, d), float32
        """
        return self._in_batches(
            prompts, batch_size, self._text_features, self.embed_dim
        )

    def embed_texts(self, prompts, batch_size=256):
        """Compute the EOS tokens of prompts, before the text projection.

        The token that a tower pools (not the EOS token in every architecture), after
        the final layer norm, so that ``text_features = eos @ W + c`` with the W and c
        of `projection`. One forward pass per prompt.

        Parameters
        ----------
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
        width = self.projection[0].shape[0]
        return self._in_batches(prompts, batch_size, self._eos, width)

    def _in_batches(self, prompts, batch_size, encode, width):
        import torch

        prompts = list(prompts)
        result = np.empty((len(prompts), width), dtype=np.float32)
        all_cut = []
        with torch.no_grad(), _autocast(self.device, "fp32"):
            for start in range(0, len(prompts), batch_size):
                chunk = prompts[start : start + batch_size]
                tokens, cut = self.tokenize(chunk)
                all_cut += cut
                result[start : start + len(chunk)] = to_numpy(encode(tokens))
        if all_cut:
            warn(
                f"{len(all_cut)} of {len(prompts)} prompts are longer than the "
                f"{self.context_length} tokens that {self.label} reads, and were cut; "
                f"the first is {brief(all_cut[0])}. Shorten them.",
                stacklevel=3,
            )
        return result


def identity_projection(width):
    """Projection of a text tower that has none."""
    return np.eye(width, dtype=np.float32), None


def linear_projection(layer):
    """W and c of a `torch.nn.Linear`."""
    bias = None if layer.bias is None else to_numpy(layer.bias)
    return to_numpy(layer.weight.T), bias


def not_linear(label, projection):
    """Error for a text projection that has no pseudo-inverse."""
    return ValueError(
        f"The text tower of {label} ends in a {type(projection).__name__} (a "
        "multi-layer projection). The bridge needs the pseudo-inverse of a linear "
        "projection, which this one has not. Choose a model with a linear text "
        "projection, or embed the prompts with CLIPEmbedder.encode_text and pass them "
        "to TextHead.from_features, or do without texts: texts=None."
    )


def shallow_copy(module):
    """Copy of a torch module whose parts can be exchanged; it shares the weights."""
    copied = copy.copy(module)
    copied._parameters = module._parameters.copy()
    copied._modules = module._modules.copy()
    return copied


def to_numpy(tensor):
    """Float32 array of a tensor on any device."""
    return np.array(tensor.detach().float().cpu().numpy(), order="C")


def _autocast(device, precision):
    import torch

    dtypes = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
    dtype = dtypes[precision]
    # Full precision switches off whatever the caller has switched on: the same
    # image has the same embedding wherever it is made.
    return torch.autocast(
        torch.device(device).type, dtype=dtype, enabled=dtype is not None
    )
