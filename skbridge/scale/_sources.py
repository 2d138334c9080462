"""Folders, URLs, archives and tables to shards of images.

A shard is one of `Paths`, `TarFile` and `RowGroups`: a small tuple that says which
images are in it. The same source has the same shards each time, so that a run that was
stopped knows which are done.
"""

import glob
import os
import tarfile
import warnings
from collections import Counter
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from skbridge._images.accept import is_url
from skbridge._images.formats import image_suffixes
from skbridge._messages import brief, shown
from skbridge.datasets._walk import walk
from skbridge.scale._packages import import_fsspec, import_parquet

_ARCHIVE, _TABLE = ".tar", ".parquet"
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
# Columns that hold images where none is named, in this order.
_COLUMNS = ("image", "bytes", "path")
_BLOCK = 512  # Bytes; a tar archive is made of such blocks and ends with empty ones.


class Paths(NamedTuple):
    """Image files, by path or URL."""

    paths: tuple

    def read(self):
        """Yield a part of the shard at a time.

        Yields
        ------
        names : list of str
            One per image.
        images : sequence of images
        lost : dict of str to str
            Other contents of the shard that cannot be read, and why.
        """
        yield list(self.paths), list(self.paths), {}


class TarFile(NamedTuple):
    """The images of a tar archive, as WebDataset writes them."""

    path: str
    size: int

    def read(self):
        """Yield names and images, and what of the archive cannot be read."""
        with opened(self.path) as stream:
            members, damage = _members(stream)
            images = [member for member in members if _is_image(member)]
            names = [f"tar://{member.name}::{self.path}" for member in images]
            lost = {} if damage is None else {self.path: damage}
            yield names, _Members(stream, images), lost


class RowGroups(NamedTuple):
    """Consecutive row groups of a Parquet file."""

    path: str
    column: str
    first: int
    stop: int
    row: int  # Position in the file of the first row of the first group.

    def read(self):
        """Yield names and images, one row group at a time."""
        parquet = import_parquet()
        row = self.row
        with opened(self.path) as stream:
            table = parquet.ParquetFile(stream)
            columns = {self.column, "path"} & set(table.schema_arrow.names)
            for group in range(self.first, self.stop):
                rows = table.read_row_group(group, columns=sorted(columns))
                images = rows.column(self.column)
                named = rows.column("path").to_pylist() if "path" in columns else None
                names = [
                    (named and named[i]) or _name_of(images[i], self.path, row + i)
                    for i in range(len(rows))
                ]
                yield names, images, {}
                row += len(rows)


def _members(stream):
    """List the files of a tar archive, and say where it is damaged, or None."""
    members = []
    try:
        archive = tarfile.TarFile(fileobj=stream)
        members += archive
    except (tarfile.TarError, OSError, EOFError) as error:
        return members, f"the archive is damaged after {len(members)} files: {error}"
    # A damaged header ends the list of members as the end of the archive does.
    stream.seek(archive.offset)
    if stream.read(_BLOCK) == bytes(_BLOCK):
        return members, None
    return members, f"the archive is damaged after {len(members)} files, or cut off"


class _Members:
    """The images of an open archive, read when they are asked for."""

    def __init__(self, stream, members):
        self._stream = stream
        self._members = members

    def __len__(self):
        return len(self._members)

    def __getitem__(self, position):
        member = self._members[position]
        self._stream.seek(member.offset_data)
        return self._stream.read(member.size)  # Less, where the archive is cut off.


def find_shards(source, shard_size, column=None):
    """Divide a source into shards.

    Parameters
    ----------
    source : str, path-like or sequence of these
        As for `embed_dataset`, without the data sets of Ray.
    shard_size : int
        Most images of a shard of files; least rows of one of a table.
    column : str or None
        Column of tables that holds the images.

    Returns
    -------
    list of Paths, TarFile or RowGroups

    Raises
    ------
    FileNotFoundError
        If there is no such folder or file.
    ValueError
        If there is no image, or there are files of several kinds.
    """
    files = list(dict.fromkeys(_files(source)))
    compressed = [file for file in files if file.lower().endswith(_COMPRESSED)]
    if compressed:
        raise ValueError(
            f"Images of compressed archives cannot be read one by one: "
            f"{shown(compressed)}. Unpack them to .tar first, as with gunzip."
        )
    tables = [file for file in files if file.lower().endswith(_TABLE)]
    archives = [file for file in files if file.lower().endswith(_ARCHIVE)]
    others = {*compressed, *tables, *archives}
    images = [file for file in files if file not in others]
    kinds = {"images": images, "tar archives": archives, "Parquet files": tables}
    kinds = {name: found for name, found in kinds.items() if found}
    if not kinds:
        raise ValueError(
            f"There are no images, tar archives or Parquet files in {brief(source)}. "
            f"Suffixes: {', '.join(sorted({*image_suffixes(), _ARCHIVE, _TABLE}))}, in "
            "any case."
        )
    if len(kinds) > 1:
        raise ValueError(
            f"source must hold files of one kind, got "
            f"{' and '.join(f'{len(kinds[name])} {name}' for name in kinds)} in "
            f"{brief(source)}. Name those of one kind, as with 'folder/**/*.jpg'."
        )
    if column is not None and not tables:
        raise ValueError(
            f"column={column!r} is that of Parquet files, and source holds "
            f"{next(iter(kinds))}. Leave it None."
        )
    if tables:
        return [
            shard
            for table in tables
            for shard in _row_groups(table, column, shard_size)
        ]
    if archives:
        return [TarFile(path, _size(path)) for path in archives]
    paths = iter(images)
    shards = iter(lambda: tuple(islice(paths, shard_size)), ())
    return [Paths(shard) for shard in shards]


@contextmanager
def opened(path):
    """Open a path or URL for reading bytes."""
    if not is_url(path):
        with open(path, "rb") as stream:
            yield stream
    else:
        with import_fsspec().open(path, "rb") as stream:
            yield stream


def _files(source):
    """Sorted paths or URLs of the files that a source names, or that are in it."""
    if isinstance(source, list | tuple):
        return [file for one in source for file in _files(one)]
    if not isinstance(source, str | os.PathLike):
        raise TypeError(
            "source must be a path, a pattern, a URL, a list of these or a "
            f"ray.data.Dataset, got {type(source).__name__}."
        )
    source = os.fspath(source)
    if is_url(source):
        fs, path = import_fsspec().core.url_to_fs(source)
        found = fs.glob(path) if glob.has_magic(path) else fs.find(path)
        files = sorted(fs.unstrip_protocol(file) for file in found)
        is_file = found == [path]
    else:
        source = os.path.expanduser(source)
        is_file = os.path.isfile(source)
        files = [source] if is_file else _files_below(source)
        files = [os.path.abspath(file) for file in files]
    if not files and not os.path.isdir(source):
        raise FileNotFoundError(f"There is no file or folder {brief(source)}.")
    return files if is_file else _of_known_kinds(files, source)


def _files_below(source):
    """Files in a folder, or that a pattern matches."""
    if not os.path.isdir(source):
        found = glob.glob(source, recursive=True)
        return sorted(file for file in found if os.path.isfile(file))
    files, _, left_out = walk(Path(source))
    for one in left_out:
        if one.is_unlisted:
            raise PermissionError(
                f"Cannot list the folder {brief(one.path)}: {one.reason}."
            )
    return sorted(os.path.join(source, file) for file in files)


def _of_known_kinds(files, source):
    """Leave out, with a warning, the files that are neither images nor hold some."""
    suffixes = {*image_suffixes(), _ARCHIVE, _TABLE}
    files = [file for file in files if not os.path.basename(file).startswith(".")]
    known = [
        file
        for file in files
        if _suffix(file) in suffixes or file.lower().endswith(_COMPRESSED)
    ]
    if 0 < len(known) < len(files):
        others = Counter(_suffix(file) or "no suffix" for file in {*files} - {*known})
        listed = ", ".join(f"{n} {suffix}" for suffix, n in others.most_common(5))
        warnings.warn(
            f"Files in {brief(source)} without the suffix of an image are left out: "
            f"{listed}.",
            UserWarning,
            stacklevel=6,  # The caller of embed_dataset, which validate_params wraps.
        )
    return known


def _row_groups(path, column, shard_size):
    """Divide a Parquet file into shards of whole row groups."""
    parquet = import_parquet()
    with opened(path) as stream:
        try:
            table = parquet.ParquetFile(stream)
        except Exception as error:
            raise ValueError(
                f"{brief(path)} is not a Parquet file that can be read: "
                f"{str(error)[:200]}"
            ) from error
        column = _image_column(table.schema_arrow, column, path)
        counts = [
            table.metadata.row_group(group).num_rows
            for group in range(table.num_row_groups)
        ]
    shards, first, n_rows, row = [], 0, 0, 0
    for group, count in enumerate(counts, 1):
        n_rows += count
        if n_rows >= shard_size or group == len(counts):
            shards.append(RowGroups(path, column, first, group, row))
            first, row, n_rows = group, row + n_rows, 0
    return shards


def _image_column(schema, column, path):
    """Name of the column that holds the images."""
    names = [column] if column is not None else [*_COLUMNS]
    found = [name for name in names if name in schema.names]
    if not found:
        wanted = repr(column) if column is not None else " or ".join(map(repr, names))
        raise ValueError(
            f"{brief(path)} has no column {wanted}; its columns are "
            f"{shown(schema.names)}. Name the one with the images: column=."
        )
    kind = schema.field(found[0]).type
    if not any(part in str(kind) for part in ("binary", "string")):
        raise ValueError(
            f"Column {found[0]!r} of {brief(path)} holds {brief(str(kind))}, and no "
            "files: expected bytes of image files, records with 'bytes', or paths."
        )
    return found[0]


def _name_of(image, path, row):
    """Name of an image of a table: its path, or else its row."""
    record = image.as_py() if hasattr(image, "as_py") else image
    named = record.get("path") if isinstance(record, dict) else record
    return named if isinstance(named, str) else f"{path}#{row}"


def _is_image(member):
    name = os.path.basename(member.name)
    return member.isfile() and _suffix(name) in image_suffixes() and name[:1] != "."


def _suffix(file):
    return os.path.splitext(file)[1].lower()


def _size(path):
    if not is_url(path):
        return os.path.getsize(path)
    return import_fsspec().core.url_to_fs(path)[0].size(path)
