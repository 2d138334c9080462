"""`embed_dataset`: any number of images to a folder of Parquet files."""

import hashlib
import os
from functools import partial
from numbers import Integral
from pathlib import Path

import numpy as np
from sklearn.base import clone
from sklearn.utils._param_validation import Interval, StrOptions, validate_params

from skbridge._embedder import CLIPEmbedder, embed_readable, model_facts
from skbridge._messages import brief
from skbridge._version import __version__
from skbridge.scale._folder import RunFolder
from skbridge.scale._packages import import_arrow, import_ray
from skbridge.scale._sources import find_shards
from skbridge.scale._workers import run_shards


@validate_params(
    {
        "source": "no_validation",
        "embedder": [CLIPEmbedder],
        "output": [str, os.PathLike],
        "column": [str, None],
        "n_actors": [Interval(Integral, 0, None, closed="left"), None],
        "batch_size": [Interval(Integral, 1, None, closed="left"), None],
        "shard_size": [Interval(Integral, 1, None, closed="left")],
        "dtype": [StrOptions({"float32", "float16"})],
        "resume": ["boolean"],
        "verbose": ["verbose"],
    },
    prefer_skip_nested_validation=True,
)
def embed_dataset(
    source,
    embedder,
    output,
    *,
    column=None,
    n_actors=None,
    batch_size=None,
    shard_size=10_000,
    dtype="float32",
    resume=True,
    verbose=0,
):
    """Embed a collection of images with many processes, on one machine or a cluster.

    The images are divided into shards. Each shard becomes one Parquet file, which
    appears when it is complete. If a run is killed, the same call continues it,
    and embeds no finished shard again. An image that cannot be read is a row with the
    reason.

    Parameters
    ----------
    source : str, path-like, list of these, or ray.data.Dataset
        - A folder, with folders in it, a pattern such as ``"photos/**/*.jpg"``, a
          list of files, each once, or a URL of one of the first two, such as
          ``"s3://bucket/photos"``, which the package fsspec lists.
        - Tar archives, named in the same ways, as WebDataset writes them: their images,
          by suffix. One archive is one shard.
        - Parquet files, named in the same ways.
        - A data set of Ray, which is written to the folder ``f"{output}-source"``
          first.
    embedder : CLIPEmbedder
        Its `on_error` makes no difference.
    output : str or path-like
        Folder to write to, which all machines of the cluster see.
    column : str, default=None
        Column of Parquet files that holds the images: bytes of image files, records of
        "bytes" and "path", or paths. None is the first of "image", "bytes" and "path".
    n_actors : int, default=None
        Processes, each of which has an equal share of the CPU cores and GPUs of the
        cluster. None is one per GPU or, without one, one per machine; 0 works in this
        process, without Ray.
    batch_size : int, default=None
        In place of the `batch_size` of the embedder.
    shard_size : int, default=10_000
        Number of images per shard. Shards of Parquet files consist of whole row groups
        with at least this many rows.
    dtype : {"float32", "float16"}, default="float32"
        Type of the numbers that are written.
    resume : bool, default=True
        Continue the run in `output`. False refuses a folder that is not
        empty.
    verbose : int, default=0
        Above 0, a progress bar is written to stderr.

    Returns
    -------
    pathlib.Path
        The folder. Its files ``shard-*.parquet`` have the columns ``path`` (string),
        ``embedding`` (list of fixed size, NaN where the image cannot be read) and
        ``error`` (string, null where it can be), in the order of the source.
        ``manifest.json``, and the metadata of each file under the key ``skbridge``,
        name the model, the fingerprint of its weights and the precision.

    Raises
    ------
    FileNotFoundError
        If `source` does not exist.
    ValueError
        If `source` holds no images, or files of several kinds, if a Parquet file has no
        such column, or if `output` holds something else or another run.
    ImportError
        If Ray, pyarrow or, for a URL, fsspec is not installed.
    OSError
        If `output` cannot be written, as on a full disk. Finished shards remain.
    RuntimeError
        If a process died four times at the same shard.

    Warns
    -----
    UserWarning
        If files of a folder are left out since they do not have the suffix of an image.

    See Also
    --------
    load_embeddings : The embeddings as one array, in a file.
    predict_dataset : Their labels.

    Notes
    -----
    Rows are the same for any number of actors, but for the tolerance that
    :class:`~skbridge.CLIPEmbedder` documents.

    Ray is started on this machine if it is not running; ``ray.init("auto")`` beforehand
    takes a cluster. Machines that Ray starts elsewhere need skbridge, the weights and
    the paths of the source.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from skbridge import CLIPEmbedder
    >>> from skbridge.datasets import load_emoji
    >>> from skbridge.scale import embed_dataset, iter_embeddings
    >>> with TemporaryDirectory() as folder:
    ...     paths = load_emoji(styles=["noto"], folder=f"{folder}/emoji").filenames
    ...     embedder = CLIPEmbedder("skbridge-tiny")
    ...     run = embed_dataset(
    ...         f"{folder}/emoji", embedder, f"{folder}/run", n_actors=0, shard_size=40
    ...     )
    ...     [len(shard.embeddings) for shard in iter_embeddings(run)]
    [40, 40, 40, 20]
    """
    import_arrow()
    embedder = clone(embedder)
    if batch_size is not None:
        embedder.set_params(batch_size=batch_size)
    if type(source).__module__.startswith("ray.data"):
        source = _written(source, output)
    shards = find_shards(source, shard_size, column)
    model = model_facts(embedder)
    facts = {
        "skbridge": __version__,
        "kind": "embeddings",
        "source": brief(source),
        "images": hashlib.sha256(repr(shards).encode()).hexdigest(),
        "n_shards": len(shards),
        "model": model.label,
        "fingerprint": model.fingerprint,
        "width": model.embed_dim,
        "precision": embedder.precision,
        "fast_jpeg": embedder.fast_jpeg,
        "dtype": dtype,
    }
    folder = RunFolder.create(output, facts, resume)
    run_shards(
        partial(_embed_shard, embedder, folder),
        [(number, shards[number]) for number in folder.missing()],
        n_actors=n_actors,
        on_gpu=embedder.device == "auto" or embedder.device.startswith("cuda"),
        verbose=verbose,
    )
    folder.finish()
    return folder.path


def _embed_shard(embedder, folder, shard, n_threads):
    """Embed the images of a shard, and write its file."""
    arrow = import_arrow()
    number, images = shard
    if embedder.num_workers is None:
        embedder = clone(embedder).set_params(num_workers=min(n_threads, 8))
    width, dtype = folder.facts["width"], np.dtype(folder.facts["dtype"])
    paths, blocks, errors = [], [np.empty((0, width), dtype)], []
    for names, items, lost in images.read():
        why = {}
        if len(names):
            embeddings, why = embed_readable(embedder, items)
            blocks.append(_as_type(embeddings, dtype, names))
        blocks.append(np.full((len(lost), width), np.nan, dtype))
        paths += [*names, *lost]
        errors += [*(why.get(row) for row in range(len(names))), *lost.values()]
    flat = arrow.array(np.concatenate(blocks).ravel())
    folder.write(
        number,
        {
            "path": arrow.array(paths, arrow.string()),
            # Without nulls, which pyarrow 21 cannot read in such lists.
            "embedding": arrow.FixedSizeListArray.from_arrays(flat, width),
            "error": arrow.array(errors, arrow.string()),
        },
    )


def _as_type(embeddings, dtype, names):
    """Convert embeddings, and refuse to lose those that are too large for the type."""
    with np.errstate(over="ignore"):
        converted = embeddings.astype(dtype)
    too_large = np.isinf(converted).any(axis=1)
    if too_large.any():
        raise ValueError(
            f"The embedding of {brief(names[int(too_large.argmax())])} has numbers "
            f"above {np.finfo(dtype).max:.0f}, the largest of {dtype}: set "
            "dtype='float32'."
        )
    return converted


def _written(dataset, output):
    """Write a data set of Ray to Parquet files, once, so that its shards are known."""
    import_ray()
    folder = Path(f"{os.fspath(output)}-source").expanduser().absolute()
    if not folder.exists():
        unfinished = folder.with_name(f"{folder.name}-unfinished")
        dataset.write_parquet(str(unfinished), mode="overwrite")
        unfinished.rename(folder)
    return folder
