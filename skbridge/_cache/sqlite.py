"""A cache store in one SQLite file per folder."""

import os
import sqlite3
import time
import warnings
import weakref
from contextlib import suppress
from pathlib import Path

import numpy as np

from skbridge._cache import statements as sql
from skbridge._cache.store import DEFAULT_LIMIT, SMALLEST_LIMIT
from skbridge._files import who_else_can_write

# In the file's name, so that a library of another format leaves this file alone.
_FORMAT = 2

# An entry used again within this many seconds is not marked again: a search that
# transforms the same images for every setting and fold only reads.
_MARK_AGAIN = 60.0
# Seconds to wait for another process that writes.
_PATIENCE = 30.0

# Statements that are right in themselves fail with these only where the file is not.
_DAMAGED = (
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_TOOBIG,
    sqlite3.SQLITE_FORMAT,
)

# Warnings already given in this process: pairs of folder and problem.
_WARNED = set()

# Stores that have a connection, and the connections of a parent process.
_OPEN = weakref.WeakSet()
_OF_PARENT = []


class SQLiteStore:
    """Vectors by space and content, in one SQLite file per folder.

    Implements `Store`. A file that is damaged is replaced by an empty one, and an
    entry whose checksum is wrong is missing, both with a warning.

    Parameters
    ----------
    folder : path-like
        Created on first use. A new folder and a new file can be read by their
        owner only, since embeddings and paths tell of private images. A folder or file
        that another user owns or can write to is not used.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self.file = self.folder / f"embeddings-{_FORMAT}.sqlite3"
        self._connection = None
        self._inode = None
        self._was_replaced = False
        self._failed = False

    def close(self):
        """Close the file; the next use opens it again."""
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None
            _OPEN.discard(self)

    # Vectors

    def get(self, space, digests):
        """Look up vectors, as `Store` says."""
        found, unmarked, n_damaged = {}, [], 0
        now = time.time()
        rows = self._run(sql.select_vectors, space.name, digests, default=())
        for entry, digest, used, checksum, vector in rows:
            if checksum != sql.checksum(space.name.encode(), digest, vector):
                n_damaged += 1
                continue
            found[digest] = np.frombuffer(vector, dtype="<f4")
            if not isinstance(used, float) or now - used > _MARK_AGAIN:
                unmarked.append((now, entry))
        self._warn_of_damage(n_damaged)
        if unmarked:
            self._run(sql.mark, unmarked, write=True)
        return found

    def put(self, space, vectors, files=None):
        """Store vectors and files, as `Store` says, and remove old ones if need be."""
        if (vectors or files) and self._run(
            sql.insert, space, vectors, files or {}, write=True
        ):
            self._warn(
                "limit",
                f"The cache {self.file} has reached its limit, and the embeddings "
                "used least recently were removed. To raise the limit, run: python -m "
                f"skbridge cache limit 10GB --dir {str(self.folder)!r}.",
            )

    def file_digests(self, stamps):
        """Look up the digests of files, as `Store` says."""
        found, n_damaged = {}, 0
        rows = self._run(sql.select_files, list(stamps), default=())
        for path, checksum, stamp, digest in rows:
            if checksum != sql.checksum(path, stamp, digest):
                n_damaged += 1
            elif stamps[path] is not None and stamp == sql.packed(stamps[path]):
                found[path] = digest
        self._warn_of_damage(n_damaged)
        return found

    # Facts

    def facts(self, name):
        """Look up a text by name."""
        name = name.encode()
        row = self._run(sql.select_facts, name)
        if row is None:
            return None
        checksum, text = row
        if checksum != sql.checksum(name, text):
            self._warn_of_damage(1)
            return None
        return text.decode()

    def put_facts(self, name, text):
        """Store a text by name."""
        self._run(sql.insert_facts, name.encode(), text.encode(), write=True)

    # The whole

    def info(self):
        """Describe the content, as `Store` says."""
        info = {"file": str(self.file), "bytes": 0, "limit": DEFAULT_LIMIT}
        info |= {"entries": 0, "spaces": {}}
        if not self.file.exists():
            return info
        limit, spaces = self._run(sql.summarise, default=(DEFAULT_LIMIT, {}))
        files = [self.file, *self._side_files()]
        size = sum(path.stat().st_size for path in files if path.exists())
        return info | {
            "bytes": size,
            "limit": limit,
            "entries": sum(spaces.values()),
            "spaces": spaces,
        }

    def clear(self):
        """Remove everything but the limit, and give the disk space back."""
        if not self.file.exists():
            return 0
        n_entries = self._run(sql.delete_all, default=0, write=True)
        self._attempt(sql.vacuum)
        return n_entries

    def set_limit(self, n_bytes):
        """Set the size of the file beyond which entries are removed.

        Parameters
        ----------
        n_bytes : int
            At least a million. It is stored in the file, for all who use it.

        Raises
        ------
        ValueError
            If it is smaller; an empty file has more than a tenth of that.
        """
        if n_bytes < SMALLEST_LIMIT:
            raise ValueError(
                f"The limit of the cache must be at least {SMALLEST_LIMIT} bytes, got "
                f"{n_bytes}."
            )
        self._run(sql.set_limit, n_bytes, write=True)
        self._attempt(sql.vacuum)

    # Transactions

    def _run(self, work, *args, default=None, write=False):
        """Return ``work(connection, *args)``, one transaction, or `default`."""

        def transaction(connection):
            connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            try:
                result = work(connection, *args)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            return result

        return self._attempt(transaction, default)

    def _attempt(self, work, default=None):
        """Return ``work(connection)``, or `default` where the file cannot be used."""
        while not self._failed:
            try:
                return work(self._connect())
            # Python cannot decode an SQLite message that quotes a damaged name.
            except (sqlite3.Error, OSError, UnicodeDecodeError) as error:
                if not self._replace_damaged(error):
                    self._give_up(error)
        return default

    def _connect(self):
        if self._connection is not None:
            return self._connection
        if _OF_PARENT:
            raise OSError(
                "it was in use when this process was forked, which SQLite does not "
                "support; start processes by 'spawn' or with joblib's 'loky'"
            )
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_others(self.folder)
        if not self.file.exists():
            # SQLite gives the files beside it the same permissions.
            with suppress(FileExistsError):
                os.close(os.open(self.file, os.O_CREAT | os.O_EXCL, 0o600))
        _refuse_others(self.file)
        self._connection = connection = sqlite3.connect(
            self.file, timeout=_PATIENCE, isolation_level=None
        )
        _OPEN.add(self)
        self._inode = self.file.stat().st_ino
        sql.configure(connection, _FORMAT)
        return connection

    def _replace_damaged(self, error):
        """Remove a damaged file, unless another process has done so already."""
        code = getattr(error, "sqlite_errorcode", None)
        is_damaged = isinstance(error, UnicodeDecodeError) or (
            code is not None and code & 0xFF in _DAMAGED
        )
        if self._was_replaced or not is_damaged:
            return False
        self._was_replaced = True
        self.close()
        self._warn(
            "damaged file",
            f"The cache {self.file} is damaged ({error}). It is replaced by an empty "
            "one.",
        )
        try:
            if self.file.stat().st_ino == self._inode:
                # A log without its file first: it must not be taken for a new file's.
                for path in (*self._side_files(), self.file):
                    path.unlink(missing_ok=True)
        except OSError:
            return False
        return True

    def _side_files(self):
        return [Path(f"{self.file}{end}") for end in ("-wal", "-shm")]

    def _give_up(self, error):
        self._failed = True
        self.close()
        self._warn(
            "unusable",
            f"The cache folder {self.folder} cannot be used "
            f"({type(error).__name__}: {error}). Continuing without it; choose "
            "another one with cache_dir or SKBRIDGE_CACHE_DIR, or free disk space.",
        )

    def _warn_of_damage(self, n_damaged):
        if n_damaged:
            self._warn(
                "damaged entries",
                f"{n_damaged} entries of the cache {self.file} are damaged. They are "
                "computed again.",
            )

    def _warn(self, problem, message):
        if (self.folder, problem) not in _WARNED:
            _WARNED.add((self.folder, problem))
            warnings.warn(message, UserWarning, stacklevel=5)


def _refuse_others(path):
    reason = who_else_can_write(path)
    if reason is not None:
        raise PermissionError(reason)


def _leave_to_parent():
    """After a fork, in the child: leave the connections of the parent alone.

    Closing one, or opening another to the same file, breaks the parent's locks.
    """
    for store in list(_OPEN):
        _OF_PARENT.append(store._connection)
        store._connection = None
    _OPEN.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
