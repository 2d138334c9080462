"""The folder of a run: what it was made of, and one Parquet file per shard."""

import json
import os
from pathlib import Path

from skbridge._files import written_atomically
from skbridge._messages import brief
from skbridge.scale._packages import import_arrow, import_parquet

_MANIFEST = "manifest.json"
_FORMAT_VERSION = 1
# Facts of a run that say who made it and how it is called, not what is in it.
_NOT_COMPARED = {"skbridge", "source", "model"}


class RunFolder:
    """Output of a run.

    Files appear under their names once they are complete, so that those that are there
    need not be made again.

    Parameters
    ----------
    path : str or path-like
    facts : dict
        For JSON: "kind", "n_shards" and what else makes this run the one that it is.
    """

    def __init__(self, path, facts):
        self.path = Path(path)
        self.facts = facts

    @classmethod
    def create(cls, path, facts, resume):
        """Begin a run, or resume one.

        Parameters
        ----------
        path : str or path-like
        facts : dict
        resume : bool

        Returns
        -------
        RunFolder

        Raises
        ------
        ValueError
            If the folder holds something else, or another run.
        """
        path = _local_path(path)
        facts = {"format": _FORMAT_VERSION, **facts}
        if path.exists() and not path.is_dir():
            raise ValueError(f"output is a file: {brief(str(path))}; name a folder.")
        if path.is_dir() and any(path.iterdir()):
            if not resume:
                raise ValueError(
                    f"output is not empty: {brief(str(path))}. Name a new folder, or "
                    "set resume=True to go on with the run that it holds."
                )
            _check_same_run(path, cls.open(path).facts, facts)
        else:
            path.mkdir(parents=True, exist_ok=True)
            with written_atomically(path / _MANIFEST) as stream:
                stream.write(json.dumps(facts, indent=1).encode())
        return cls(path, facts)

    @classmethod
    def open(cls, path, kind=None):
        """Open the folder of a run.

        Parameters
        ----------
        path : str or path-like
        kind : {"embeddings", "predictions"}, default=None
            None is any.

        Returns
        -------
        RunFolder

        Raises
        ------
        FileNotFoundError
            If there is no such folder.
        ValueError
            If it does not hold such a run, or one of a newer version of the library.
        """
        path = _local_path(path)
        if not path.is_dir():
            raise FileNotFoundError(f"There is no folder {brief(str(path))}.")
        try:
            facts = json.loads((path / _MANIFEST).read_bytes())
            version, found = facts["format"], facts["kind"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{brief(str(path))} holds no run of skbridge: its {_MANIFEST} is "
                f"missing or damaged ({type(error).__name__})."
            ) from error
        if version > _FORMAT_VERSION:
            raise ValueError(
                f"A newer skbridge, {brief(facts.get('skbridge'))}, wrote "
                f"{brief(str(path))}. Update skbridge to read it."
            )
        if kind not in (None, found):
            raise ValueError(f"{brief(str(path))} holds {found}; expected {kind}.")
        return cls(path, facts)

    def shard_file(self, number):
        """Path of the file of a shard."""
        return self.path / f"shard-{number:06d}.parquet"

    def missing(self):
        """Numbers of the shards that are still to be made."""
        there = {entry.name for entry in os.scandir(self.path)}
        return [
            number
            for number in range(self.facts["n_shards"])
            if self.shard_file(number).name not in there
        ]

    def write(self, number, columns):
        """Write a shard.

        Parameters
        ----------
        number : int
        columns : dict of str to pyarrow.Array
        """
        arrow, parquet = import_arrow(), import_parquet()
        table = arrow.table(columns).replace_schema_metadata(
            {"skbridge": json.dumps(self.facts)}
        )
        with written_atomically(self.shard_file(number)) as stream:
            # Hardly any value of these columns is there twice.
            parquet.write_table(table, stream, use_dictionary=False)

    def finish(self):
        """Remove the temporary files of processes that were killed."""
        for file in self.path.glob(".shard-*.parquet.*"):
            file.unlink(missing_ok=True)

    def tables(self, columns=None):
        """Yield the table of each shard, in order, with these columns or all.

        Raises
        ------
        ValueError
            If the run is not finished, or a file is damaged.
        """
        missing = self.missing()
        if missing:
            raise ValueError(
                f"The run in {brief(str(self.path))} is not finished: "
                f"{len(missing)} of {self.facts['n_shards']} shards are missing. Start "
                "it again to make them."
            )
        for number in range(self.facts["n_shards"]):
            yield self.table(number, columns)

    def table(self, number, columns=None):
        """Read one shard, with these columns or all."""
        file = self.shard_file(number)
        try:
            return import_parquet().read_table(file, columns=columns, partitioning=None)
        except import_arrow().ArrowException as error:
            raise ValueError(
                f"{brief(str(file))} is damaged: {str(error)[:200]}. Remove it, and "
                "start the run again to make it anew."
            ) from error


def _local_path(path):
    path = os.path.expanduser(os.fspath(path))
    if "://" in path:
        raise ValueError(
            f"A run is written to a folder that all machines see, got {brief(path)}. "
            "Mount the bucket, or copy the folder when the run is finished."
        )
    return Path(os.path.abspath(path))


def _check_same_run(path, found, wanted):
    """Refuse to go on with a run of other images, another model or other settings."""
    differences = [
        f"{name} {brief(found.get(name))} in place of {brief(wanted.get(name))}"
        for name in sorted((found.keys() | wanted.keys()) - _NOT_COMPARED)
        if found.get(name) != wanted.get(name)
    ]
    if differences:
        raise ValueError(
            f"output holds another run, {brief(str(path))}: {'; '.join(differences)}. "
            "Name a new folder, or repeat the call that began it."
        )
