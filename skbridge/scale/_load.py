"""`load_embeddings` and `iter_embeddings`: what a run has written."""

import os

import numpy as np
from sklearn.utils import Bunch
from sklearn.utils._param_validation import validate_params

from skbridge._files import written_atomically
from skbridge._messages import brief
from skbridge.scale._folder import RunFolder
from skbridge.scale._packages import import_arrow

_ARRAY = "embeddings.npy"


@validate_params({"path": [str, os.PathLike]}, prefer_skip_nested_validation=True)
def load_embeddings(path):
    """Load the embeddings of a run as one array that stays on the disk.

    The first call writes the array to a file, shard by shard; later ones open it. An
    operation on some rows reads these rows only, so that `predict`, `score` and a fit
    with unlabelled images take memory that does not grow with their number.

    Parameters
    ----------
    path : str or path-like
        Folder that :func:`embed_dataset` wrote.

    Returns
    -------
    Bunch
        One entry per image that could be read, in the order of the source: ``paths``
        (pyarrow.ChunkedArray of strings) and ``embeddings`` (numpy.memmap of shape
        (n_images, n_features), float32, read-only); and ``unreadable``, a dict of the
        others to the reason.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    ValueError
        If the folder holds no embeddings, the run is not finished, or a file is
        damaged.

    See Also
    --------
    iter_embeddings : Shard by shard, without another file.
    """
    folder = RunFolder.open(path, "embeddings")
    paths, unreadable = [], {}
    for table in folder.tables(["path", "error"]):
        is_read = table["error"].is_null()
        paths += table["path"].filter(is_read).chunks
        unreadable |= _unreadable(table)
    paths = import_arrow().chunked_array(paths, "string")
    if not len(paths):
        raise ValueError(
            f"No image of {brief(str(folder.path))} could be read: {brief(unreadable)}."
        )
    file = folder.path / _ARRAY
    if not file.exists():
        _write_array(file, (len(paths), folder.facts["width"]), folder)
    embeddings = np.load(file, mmap_mode="r")
    return Bunch(paths=paths, embeddings=embeddings, unreadable=unreadable)


@validate_params({"path": [str, os.PathLike]}, prefer_skip_nested_validation=True)
def iter_embeddings(path):
    """Load the embeddings of a run, one shard after another.

    Parameters
    ----------
    path : str or path-like
        Folder that :func:`embed_dataset` wrote.

    Yields
    ------
    Bunch
        As :func:`load_embeddings` returns it, for the images of one shard. Embeddings
        are in memory.

    Raises
    ------
    FileNotFoundError, ValueError
        As :func:`load_embeddings` does.
    """
    folder = RunFolder.open(path, "embeddings")
    for table in folder.tables():
        read = table.filter(table["error"].is_null())
        yield Bunch(
            paths=read["path"],
            embeddings=embeddings_of(read),
            unreadable=_unreadable(table),
        )


def embeddings_of(table):
    """Embeddings of a table in which none is missing, as float32."""
    column = table["embedding"]
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(table), column.type.list_size).astype(
        np.float32, copy=False
    )


def _unreadable(table):
    lost = table.filter(table["error"].is_valid())
    return dict(zip(lost["path"].to_pylist(), lost["error"].to_pylist(), strict=True))


def _write_array(file, shape, folder):
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    with written_atomically(file) as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        for table in folder.tables():
            read = table.filter(table["error"].is_null())
            stream.write(embeddings_of(read).astype("<f4", copy=False).data)
