"""CLIPEmbedder: images in any common form to CLIP embeddings."""

import os
import warnings
from contextlib import closing
from functools import cache as once
from functools import partial
from numbers import Integral

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin, _fit_context, clone
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metadata_routing import UNUSED

from skbridge._cache.folder import cache_folder, open_cache
from skbridge._cache.keys import image_space
from skbridge._cache.models import know_model, recall_model
from skbridge._cache.planner import ImagePlan
from skbridge._clip.device import (
    leaves_cores_free,
    resolve_device,
    resolve_precision,
    upload_pixels,
)
from skbridge._clip.load import load_clip, resolve_model
from skbridge._images.accept import check_images, describe_image
from skbridge._images.batches import Unreadable, read_in_batches

# Number of unreadable images that a warning lists; valid_images finds the others.
_MAX_LISTED = 20


def _pixels(loaded, image):
    """Bring a decoded image to the size of the model, as an array."""
    # All other steps are done on whole batches, on the device: a torch
    # operation here would start a team of threads for each thread that decodes.
    return np.asarray(loaded.resize(image))


def _not_finite(label, rows):
    """Message for embeddings with NaN or infinity in them."""
    listed = ", ".join(f"X[{row}]" for row in rows[:_MAX_LISTED])
    more = len(rows) - _MAX_LISTED
    return (
        f"The embeddings that {label} gives for {listed}"
        f"{f' and {more} more images' if more > 0 else ''} are not finite (NaN or "
        "infinity). Its weights are damaged, or too large for half precision: set "
        "precision='fp32', or take other weights."
    )


def _unreadable(row, result):
    """Error for an image that cannot be read."""
    if result.is_wrong_type:
        return TypeError(f"X[{row}] is not an image {result}.")
    return ValueError(
        f"Cannot read X[{row}] {result}. Filter X and y with valid_images(X) first, or "
        "set on_error='nan'."
    )


def _one_behind(items):
    """Yield each item after the next one was started, or if there is no next one.

    A GPU thus has work while the calling thread waits for the last batch.
    """
    last = ()
    try:
        for item in items:
            yield from last
            last = (item,)
    except Exception:
        yield from last
        raise
    yield from last


def _output(shape, out):
    """Array of NaN to write embeddings to."""
    if out is None:
        return np.full(shape, np.nan, np.float32)
    if not (
        isinstance(out, np.ndarray)
        and out.shape == shape
        and out.dtype == np.float32
        and out.flags.writeable
    ):
        got = (
            f"shape {out.shape}, {out.dtype}"
            f"{'' if out.flags.writeable else ', read-only'}"
            if isinstance(out, np.ndarray)
            else type(out).__name__
        )
        raise ValueError(
            f"out must be a writeable float32 array of shape {shape}, one row per "
            f"image and one column per feature of the model, got {got}."
        )
    out[:] = np.nan
    return out


def embed_readable(embedder, images):
    """Embed images, and say why some cannot be read.

    Parameters
    ----------
    embedder : CLIPEmbedder
        `on_error` makes no difference.
    images : sequence of images

    Returns
    -------
    embeddings : ndarray of shape (n_images, n_features), float32
        Rows of images that cannot be read are NaN.
    unreadable : dict of int to str
        Row of each of these, and the reason.

    Raises
    ------
    TypeError
        If an item is of a type that no image has.
    """
    embedder = clone(embedder).set_params(on_error="nan")
    embeddings, unreadable = embedder._embed_readable(images)
    return embeddings, {row: why.reason for row, why in sorted(unreadable.items())}


def model_facts(embedder):
    """Facts of the model of an embedder, which is loaded only if no cache has them.

    Parameters
    ----------
    embedder : CLIPEmbedder

    Returns
    -------
    KnownModel or Backend
        With `label`, `slug`, `embed_dim` and `fingerprint`.
    """
    with open_cache(embedder.cache_dir) as cache:
        return embedder._know_model(cache, embedder._load)


class CLIPEmbedder(TransformerMixin, BaseEstimator):
    """Embed images with a CLIP model.

    Images are files, PIL images, arrays or tensors; each becomes one row of an array.
    The embeddings are not normalised, since a bridge with a projection bias needs their
    lengths.

    The transformer is stateless. `fit` only checks its input, and `transform` works
    without it, as for :class:`~sklearn.feature_extraction.text.HashingVectorizer`.
    Weights are loaded on first use, shared by all estimators of the process, and
    never pickled.

    Parameters
    ----------
    model : str or path-like, default="ViT-B-16"
        An open_clip name, `"skbridge-tiny"` (bundled with the library), a folder with
        a model of open_clip or of Hugging Face transformers (also as
        `"local-dir:PATH"`), `"ORGANISATION/REPOSITORY"` for a transformers model of
        the Hugging Face hub, or `"hf-hub:ORGANISATION/REPOSITORY"` for an open_clip
        one. Models of transformers need the extra `transformers`. Image models such as
        DINOv2 have no texts.

    pretrained : str, path-like or None, default="auto"
        Tag of the weights, or checkpoint file. "auto" is OpenAI's weights for ViT-B-16
        and the first tag that open_clip lists for other names; the other kinds of
        `model` include their weights. The activation follows the tag. For a checkpoint
        file of a model that was trained with QuickGELU, name the architecture with this
        activation, such as "ViT-B-16-quickgelu"; otherwise its embeddings are wrong,
        without an error.

    device : str or None, default="auto"
        "auto" is CUDA if there is such a device, else MPS, else the CPU. "cpu", "cuda",
        "cuda:N" or "mps" select a device; if it is missing, the CPU is used, with a
        warning.

    precision : {"auto", "fp32", "bf16", "fp16"}, default="auto"
        Precision of the image tower. "auto" is "fp32", so that an image has the same
        embedding on every machine. "bf16" is about twice as fast or more on a CPU with
        AVX512-BF16; the cosine of its embeddings to those of "fp32" is above 0.999. On
        a CPU without these instructions, "bf16" is replaced by "fp32", and "fp16" is on
        every CPU, with a warning. Embed shots and queries in the same precision.

    batch_size : int, default=64
        Number of images that are decoded and embedded together. Memory grows with it,
        and not with the number of images.

    num_workers : int or None, default=None
        Number of threads that decode images. 0 decodes in the calling thread, None
        uses one per CPU core, at most 8. The result is the same. The next batch is
        decoded while a GPU embeds the last one; if torch uses all cores of the CPU,
        decoding and embedding alternate.

    fast_jpeg : bool, default=False
        Whether to decode JPEG files at a half, a quarter or an eighth of their size if
        both sides then still have twice the pixels of the model's input. Large
        photographs are read two to three times faster, and their embeddings differ
        slightly; see the Notes.

    on_error : {"raise", "nan"}, default="raise"
        Treatment of images that cannot be read. "raise" raises an error that names the
        first. "nan" fills their rows with NaN, so that rows still match `y`, and lists
        them in one warning. To leave such images out, first filter `X` and `y` with
        :meth:`valid_images`.

    max_image_mb : int, default=400
        Memory that one image may use while it is decoded, in MB (10**6 bytes), at
        least 100. Each decoding thread has one image in memory. See the Notes.

    cache_dir : str, path-like or None, default=None
        Folder in which the embedding of each image is stored, so that no image is
        embedded twice. "auto" is the folder that the environment variable
        ``SKBRIDGE_CACHE_DIR`` names, else ``skbridge`` in the user's cache folder
        (``~/.cache`` on Linux). None is the folder that ``SKBRIDGE_CACHE_DIR``
        names; if it is not set, nothing is stored. See the Notes.

    verbose : int, default=0
        If above 0, a progress bar is written to stderr.

    See Also
    --------
    SeMoBridgeClassifier : Few-shot classifier on these embeddings.
    make_few_shot_pipeline : Both in one pipeline.

    Notes
    -----
    `X` is one of the following:

    - a list, tuple, array or Series of images;
    - a table with one column of images, of pandas, polars or Arrow;
    - a data set of Hugging Face with one column of images, or a column of it;
    - a data set of torchvision, whose labels are ignored;
    - an array of shape (n, height, width, channels), or a torch tensor of shape
      (n, channels, height, width);
    - any object with a length and positional indexing, which may load items on demand.

    :func:`~skbridge.datasets.load_image_folder` lists the paths of a folder. The items
    may be, in any mixture:

    - paths of regular files (str, bytes or path-like; ``~`` is the home folder), bytes
      and binary files of the common raster formats that PIL reads, open or not (of
      fsspec, or a `zipfile.Path`); of several frames the first is used (of an
      animation, the first that is not of one colour); HEIC with the
      package pillow-heif, URLs with the package fsspec;
    - records and Arrow scalars with "bytes" and "path", as in Hugging Face data sets;
    - PIL images; the pixels of an image that was opened but not loaded stay in memory
      after it is embedded, so prefer paths for many files;
    - arrays of shape (height, width) or (height, width, channels) with 1 to 4
      channels, of bool, uint8, uint16 (divided by 257) or floating point in [0, 1]
      (rounded to 8 bits); integers of 0 and 1 are read as a mask, uint16 up to 255
      as 8 bits and up to 4095 as 12 bits, with a warning;
    - torch tensors of shape (height, width) or (channels, height, width), with the
      same types and ranges.

    An image uses at most `max_image_mb` of memory. With the default of 400 MB, a JPEG
    of more than about 58 megapixels is decoded at a reduced size, and other large files
    are averaged over blocks of pixels after decoding. Images that would need more
    memory cannot be read: above 88 megapixels in colour, or above 22 in WebP and JPEG
    2000, whose decoders use 16 bytes per pixel. Files of more than 384 MiB, and JPEG
    files of more than 100 scans, cannot be read either. Images more than 8 times as
    long as wide are cropped to their middle before they are resized, if the model uses
    only the middle.

    Images are embedded as they are displayed: the EXIF orientation is applied,
    transparent pixels are laid over white, 16-bit grey is scaled to 8 bits, and
    palettes, grey and CMYK become RGB. Resizing, cropping and scaling are those of the
    model's validation. If you turn PIL images upright yourself, use
    ``PIL.ImageOps.exif_transpose``: ``rotate`` and ``transpose`` leave the orientation
    in the EXIF, so that the image may be turned once more.

    The same image has the same embedding whatever its batch, its neighbours and the
    number of threads: in float32, rows differ by less than 1e-4 of their length,
    because sums are computed in another order. With `fast_jpeg`, embeddings of JPEG
    files differ from those at full size: with the bundled model, the tests require a
    cosine of the two above 0.98 for each of 40 crops of photographs, and above 0.9995
    in the median.

    A search over a pipeline embeds every image again for every setting and fold.
    Embed once and search on the array, or set `cache_dir`.

    A cached embedding is found again by the content of its image: the bytes of a
    file, the pixels of other images. A file is read again only if its size or times
    have changed. Embeddings are stored separately by model, weights (a hash of them,
    not their name), preprocessing and precision, and not by device. If all images are
    in the cache, no model is loaded and torch is not imported. Images that cannot be
    read are never stored, and equal images of one call are embedded once. Threads and
    processes may share a folder, which must be on a local disk; a process that is
    killed loses its current batch. Beyond 4 GB, or the size that ``skbridge cache
    limit`` sets, the least recently used embeddings are deleted. With 512 features, an
    embedding needs about 2.9 kB.

    Examples
    --------
    >>> import numpy as np
    >>> from skbridge import CLIPEmbedder
    >>> images = [np.zeros((64, 64, 3), dtype=np.uint8), np.ones((48, 96))]
    >>> embedder = CLIPEmbedder(model="skbridge-tiny", device="cpu")
    >>> embeddings = embedder.fit_transform(images)
    >>> len(embeddings), embeddings.dtype
    (2, dtype('float32'))
    >>> embedder
    CLIPEmbedder(device='cpu', model='skbridge-tiny')
    """

    _parameter_constraints = {
        "model": [str, os.PathLike],
        "pretrained": [str, os.PathLike, None],
        "device": [str, None],
        "precision": [StrOptions({"auto", "fp32", "bf16", "fp16"})],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "num_workers": [Interval(Integral, 0, None, closed="left"), None],
        "fast_jpeg": ["boolean"],
        "on_error": [StrOptions({"raise", "nan"})],
        "max_image_mb": [Interval(Integral, 100, None, closed="left")],
        "cache_dir": [str, os.PathLike, None],
        "verbose": ["verbose"],
    }

    # `out` is where to write, and no data that a pipeline could hand on.
    __metadata_request__transform = {"out": UNUSED}

    def __init__(
        self,
        model="ViT-B-16",
        pretrained="auto",
        *,
        device="auto",
        precision="auto",
        batch_size=64,
        num_workers=None,
        fast_jpeg=False,
        on_error="raise",
        max_image_mb=400,
        cache_dir=None,
        verbose=0,
    ):
        self.model = model
        self.pretrained = pretrained
        self.device = device
        self.precision = precision
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.fast_jpeg = fast_jpeg
        self.on_error = on_error
        self.max_image_mb = max_image_mb
        self.cache_dir = cache_dir
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Check the parameters and the form of X; nothing is learned or loaded.

        Parameters
        ----------
        X : sequence of images
            See the Notes of the class. The images themselves are not looked at.
        y : Ignored
            There for pipelines.

        Returns
        -------
        CLIPEmbedder
            The estimator itself.

        Raises
        ------
        ValueError
            If a parameter is out of range, the model is unknown, or X is a lone image
            or not a sequence.
        """
        check_images(X)
        with open_cache(self.cache_dir) as cache:
            # Checking a name imports open_clip, which takes seconds.
            if cache is None or not recall_model(cache, self.model, self.pretrained):
                resolve_model(self.model, self.pretrained)
        return self

    def transform(self, X, out=None):
        """Embed images.

        Parameters
        ----------
        X : sequence of images
            See the Notes of the class.
        out : ndarray of shape (n_images, n_features), float32, default=None
            Array to write the embeddings to, such as a `numpy.memmap` where they do
            not fit into memory. None makes a new one.

        Returns
        -------
        ndarray of shape (n_images, n_features), float32
            Image embeddings, not normalised: `out`, where it is given. Rows of images
            that cannot be read are NaN under `on_error="nan"`.

        Raises
        ------
        ValueError
            If X is a lone image or not a sequence, if `out` is of another shape or
            type, or, under `on_error="raise"`, if an image cannot be read.
        TypeError
            If an item is of a type that no image has, such as a pair of an image and
            its label.
        OSError
            If the weights are not on this machine and cannot be downloaded.

        Warns
        -----
        UserWarning
            If images cannot be read under `on_error="nan"`, or the values of images
            do not use the range of their type.
        """
        embeddings, unreadable = self._embed_readable(X, out)
        if unreadable:
            rest = len(unreadable) - _MAX_LISTED
            listed = [f"X[{row}] {why}" for row, why in sorted(unreadable.items())]
            warnings.warn(
                f"Cannot read {len(unreadable)} of {len(embeddings)} images, whose "
                f"rows are NaN: {'; '.join(listed[:_MAX_LISTED])}"
                f"{f'; and {rest} more, which' if rest > 0 else '. They'} are False in "
                "valid_images(X).",
                UserWarning,
                stacklevel=3,  # The caller of transform, which scikit-learn wraps.
            )
        return embeddings

    def _embed_readable(self, X, out=None):
        """Embeddings, and the `Unreadable` of each row that is NaN."""
        self._validate_params()
        images = check_images(X)
        load = once(self._load)  # A device that is missing is told of once.
        with open_cache(self.cache_dir) as cache:
            known = self._know_model(cache, load)
            embeddings = _output((len(images), known.embed_dim), out)
            space = (
                None
                if cache is None
                else image_space(
                    known,
                    self._precision(),
                    self.fast_jpeg,
                    self.max_image_mb * 10**6,
                )
            )
            plan = ImagePlan(images, embeddings, cache, space)
            unreadable = self._embed(plan, embeddings, load) if len(plan) else {}
        for position, first in plan.duplicates:
            embeddings[position] = embeddings[first]
            if first in unreadable:
                unreadable[position] = unreadable[first]._replace(
                    description=describe_image(images[position])
                )
        return embeddings, unreadable

    def _embed(self, plan, embeddings, load):
        """Embed what a plan says, in place; give back what cannot be read."""
        unreadable = {}
        for rows, batch in _one_behind(self._encode(plan, unreadable, load)):
            batch = batch.cpu().numpy()
            broken = ~np.isfinite(batch).all(axis=1)
            if broken.any():
                raise ValueError(_not_finite(load().label, np.array(rows)[broken]))
            embeddings[rows] = batch
            plan.keep(rows)
        return unreadable

    def _encode(self, plan, unreadable, load):
        """Yield the rows of each batch and their embeddings, still on the device."""
        loaded, precision = load(), self._precision()
        least_side = None
        if self.fast_jpeg:
            least_side = 2 * loaded.image_side
        read = self._read(
            plan,
            partial(_pixels, loaded),
            overlap=leaves_cores_free(loaded.device),
            least_side=least_side,
        )
        with closing(read) as batches:
            for start, results in batches:
                rows, pixels = [], []
                here = plan.positions[start : start + len(results)]
                for row, result in zip(here, results, strict=True):
                    if not isinstance(result, Unreadable):
                        rows.append(row)
                        pixels.append(result)
                    elif self.on_error == "nan" and not result.is_wrong_type:
                        unreadable[row] = result
                    else:
                        raise _unreadable(row, result) from result.error
                if rows:
                    pixels = upload_pixels(pixels, loaded.device)
                    yield rows, loaded.embed(pixels, precision)

    def valid_images(self, X):
        """Find the images that can be read; no model is needed.

        Parameters
        ----------
        X : sequence of images
            See the Notes of the class.

        Returns
        -------
        ndarray of shape (n_images,), bool
            True where an image was decoded to its last pixel.

        Examples
        --------
        >>> import numpy as np
        >>> from skbridge import CLIPEmbedder
        >>> CLIPEmbedder().valid_images([np.zeros((8, 8)), "no such file.jpg"])
        array([ True, False])
        """
        self._validate_params()
        images = check_images(X)
        mask = np.empty(len(images), dtype=bool)
        for start, results in self._read(images, lambda image: None):
            for row, result in enumerate(results, start):
                if result is not None and result.is_wrong_type:
                    raise _unreadable(row, result) from result.error
                mask[row] = result is None
        return mask

    def encode_text(self, prompts):
        """Embed texts with the text tower of the same model.

        Parameters
        ----------
        prompts : sequence of str
            Complete prompts, such as "a photo of a cat."

        Returns
        -------
        ndarray of shape (n_prompts, n_features), float32
            Text embeddings, not normalised.

        Raises
        ------
        ValueError
            If `prompts` is a lone string, empty, or holds something else than strings.

        Examples
        --------
        >>> from skbridge import CLIPEmbedder
        >>> embedder = CLIPEmbedder(model="skbridge-tiny", device="cpu")
        >>> len(embedder.encode_text(["a photo of a cat.", "a photo of a dog."]))
        2
        """
        self._validate_params()
        if isinstance(prompts, str):
            raise ValueError(
                f"prompts must be a sequence of strings, got the string {prompts!r}. "
                "Wrap it in a list: [prompts]."
            )
        prompts = list(prompts)
        if not prompts:
            raise ValueError("prompts is empty: at least one string is required.")
        for position, prompt in enumerate(prompts):
            if not isinstance(prompt, str):
                raise ValueError(
                    f"prompts must be a sequence of strings, got {prompt!r} at "
                    f"position {position}."
                )
        return self._load().text_features(prompts)

    def get_feature_names_out(self, input_features=None):
        """Name the columns of the embeddings after the model.

        Parameters
        ----------
        input_features : Ignored
            There for pipelines.

        Returns
        -------
        ndarray of shape (n_features,), object
            For instance `"vit_b_16_000"` to `"vit_b_16_511"`.
        """
        known = model_facts(self)
        digits = len(str(known.embed_dim - 1))
        names = [f"{known.slug}_{i:0{digits}d}" for i in range(known.embed_dim)]
        return np.asarray(names, dtype=object)

    def cache_info(self):
        """Describe the contents of the cache folder, for all models.

        Returns
        -------
        dict
            "file" (str), "bytes" on disk, "limit" in bytes, "entries" (int), and
            "spaces", the number of entries by model, kind and precision (dict of
            str -> int).

        Raises
        ------
        ValueError
            If nothing is cached.

        Examples
        --------
        >>> import tempfile
        >>> import numpy as np
        >>> from skbridge import CLIPEmbedder
        >>> images = [np.zeros((8, 8)), np.ones((8, 8)), np.zeros((8, 8))]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     embedder = CLIPEmbedder("skbridge-tiny", cache_dir=folder)
        ...     embeddings = embedder.fit_transform(images)
        ...     embedder.cache_info()["spaces"]
        {'skbridge-tiny, images, fp32': 2}
        """
        with self._open_named_cache() as cache:
            return cache.info()

    def clear_cache(self):
        """Delete all entries of the cache folder, for all models and class texts.

        Returns
        -------
        int
            Number of entries that were there.

        Raises
        ------
        ValueError
            If nothing is cached.

        Examples
        --------
        >>> import tempfile
        >>> from skbridge import CLIPEmbedder
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     CLIPEmbedder(cache_dir=folder).clear_cache()
        0
        """
        with self._open_named_cache() as cache:
            return cache.clear()

    def _open_named_cache(self):
        if cache_folder(self.cache_dir) is None:
            raise ValueError(
                "cache_dir is None and SKBRIDGE_CACHE_DIR is not set, so nothing is "
                "cached. Set cache_dir to a folder or 'auto'."
            )
        return open_cache(self.cache_dir)

    def _know_model(self, cache, load):
        """Facts of the model, which need not be loaded where there is a cache."""
        if cache is None:
            return load()
        return know_model(cache, self.model, self.pretrained, load)

    def _precision(self):
        if self.precision in ("auto", "fp32"):
            return resolve_precision(self.precision)  # The same on every device.
        return resolve_precision(self.precision, resolve_device(self.device))

    def _load(self):
        """Return the loaded model, never kept here: set_params must take effect."""
        device = resolve_device(self.device)
        return load_clip(self.model, self.pretrained, device=device)

    def _read(self, images, finish, **options):
        return read_in_batches(
            images,
            finish,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            budget=self.max_image_mb * 10**6,
            verbose=self.verbose,
            **options,
        )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.no_validation = True
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = []
        return tags
