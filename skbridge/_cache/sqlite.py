"""Embeddings on disk: a vector an image or a text, in one SQLite file a folder."""

import hashlib
import json
import os
import re
import sqlite3
import stat
import sys
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import joblib
import numpy as np

from skbridge._clip.open_clip import are_settled, file_stamps
from skbridge._images.decode import to_rgb
from skbridge._messages import brief
from skbridge._version import __version__

# In the file's name, so that a library of another format leaves this file alone.
_FORMAT = 1
# To be raised when the library decodes the same file to other pixels.
_READER = 1

_DEFAULT_LIMIT = 4 * 10**9
SMALLEST_LIMIT = 10**6
# Part of the limit that is free again after an eviction, so that it is rare.
_SLACK = 0.2
# An entry used again within so many seconds is not marked again: a search that
# transforms the same images for every setting and fold only reads.
_MARK_AGAIN = 60.0
# Seconds to wait for another process that writes.
_PATIENCE = 30.0
# Vectors are in memory twice, in so many rows at a time.
_LOOKED_UP_AT_ONCE = 4096
# Bytes of an entry beside its vector, for the shares of an eviction.
_OVERHEAD = 100

_CORRUPT = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS spaces (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, label TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS entries (
    id INTEGER PRIMARY KEY, space INTEGER NOT NULL, digest BLOB NOT NULL,
    size INTEGER NOT NULL, used REAL NOT NULL, UNIQUE (space, digest));
CREATE TABLE IF NOT EXISTS vectors (
    id INTEGER PRIMARY KEY, checksum INTEGER NOT NULL, vector BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS files (
    path BLOB PRIMARY KEY, stamp TEXT NOT NULL, digest BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS models (
    name TEXT PRIMARY KEY, facts TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS settings (
    name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
"""

# What was warned of in this process already: pairs of folder and problem.
_WARNED = set()


def cache_folder(cache_dir):
    """Folder that the `cache_dir` parameter means.

    Parameters
    ----------
    cache_dir : str, path-like or None
        A folder; "auto", the folder that the environment variable
        ``SKBRIDGE_CACHE_DIR`` names, else ``skbridge`` in the user's cache folder of
        the platform; or None, the folder that ``SKBRIDGE_CACHE_DIR`` names, if any.

    Returns
    -------
    pathlib.Path or None
        None where nothing is to be cached.

    Raises
    ------
    ValueError
        If `cache_dir` is an empty string.

    Examples
    --------
    >>> from skbridge._cache.sqlite import cache_folder
    >>> cache_folder("embeddings").name
    'embeddings'
    """
    if isinstance(cache_dir, str) and not cache_dir.strip():
        raise ValueError(
            "cache_dir must be a folder, 'auto' or None, got the empty string "
            f"{brief(cache_dir)}. For the current folder write '.', for no cache None."
        )
    if cache_dir is None or cache_dir == "auto":
        named = os.environ.get("SKBRIDGE_CACHE_DIR")
        if named:
            cache_dir = named
        elif cache_dir is None:
            return None
        else:
            cache_dir = _user_cache() / "skbridge"
    return Path(cache_dir).expanduser().absolute()


def _user_cache():
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return Path(local) if local else Path.home() / "AppData" / "Local"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    xdg = os.environ.get("XDG_CACHE_HOME")
    return Path(xdg) if xdg else Path.home() / ".cache"


@contextmanager
def open_cache(cache_dir):
    """Open the cache that `cache_dir` means for the length of a ``with`` block.

    Parameters
    ----------
    cache_dir : str, path-like or None
        As for `cache_folder`.

    Yields
    ------
    EmbeddingCache or None
        None where nothing is to be cached.
    """
    folder = cache_folder(cache_dir)
    if folder is None:
        yield None
        return
    cache = EmbeddingCache(folder)
    try:
        yield cache
    finally:
        cache.close()


class Space(NamedTuple):
    """All that a vector depends on beside its image or text.

    Attributes
    ----------
    name : str
        A hash of it all.
    label : str
        For people.
    """

    name: str
    label: str


class KnownModel(NamedTuple):
    """What must be known of a model to look its embeddings up.

    Attributes
    ----------
    label, slug : str
        As in `ModelSpec`.
    embed_dim : int
        Width of image embeddings.
    fingerprint : str
        Hash of weights and architecture.
    preprocess : str
        What images go through before the model.
    """

    label: str
    slug: str
    embed_dim: int
    fingerprint: str
    preprocess: str


def image_space(known, precision, fast_jpeg=False):
    """Space of the image embeddings of a model in one precision."""
    content = [known.fingerprint, known.preprocess, precision, _READER]
    label = f"{known.label}, images, {precision}"
    if fast_jpeg:
        content.append("fast_jpeg")
        label += ", fast_jpeg"
    return _space(content, label)


def text_space(known):
    """Space of the class texts of a model; they are always made in fp32."""
    return _space([known.fingerprint, "texts"], f"{known.label}, texts")


def _space(content, label):
    return Space(_hash(json.dumps(content).encode()).hex(), label)


def hash_texts(texts):
    """Digest of a sequence of strings."""
    return _hash(json.dumps(list(texts)).encode())


def _hash(*parts):
    digest = hashlib.blake2b(digest_size=20)
    for part in parts:
        digest.update(part)
    return digest.digest()


class EmbeddingCache:
    """Vectors by space and content, in one SQLite file of a folder.

    A space is all that a vector depends on beside its image or text: model, weights,
    preprocessing and precision. Each method is one transaction, so that a process
    that is killed leaves whole entries only, and threads and processes may share the
    folder. One object serves one thread, and is made anew for each use.

    A cache never stops the work it is there to spare. A folder that cannot be
    written, a full disk and a lock that is never released give one warning a process,
    and nothing is cached from there on; a file that is damaged is begun anew, and an
    entry whose checksum is wrong is missing, both with a warning.

    Parameters
    ----------
    folder : path-like
        Made at the first use. A folder and a file that are made here are open to their
        owner only: embeddings and paths tell of private images.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self.file = self.folder / f"embeddings-{_FORMAT}.sqlite3"
        self._connection = None
        self._inode = None
        self._began_anew = False
        self._failed = False

    def close(self):
        """Give the file back; the next use opens it again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # Vectors

    def get(self, space, digests):
        """Look vectors up.

        Parameters
        ----------
        space : Space
        digests : sequence of bytes
            They may repeat.

        Returns
        -------
        dict of bytes -> ndarray of shape (n,), float32
            What is there; the arrays are read-only.
        """
        found, stale, damaged = {}, [], 0
        now = time.time()
        rows = self._run(_select_vectors, space.name, digests, default=())
        for entry, digest, used, checksum, vector in rows:
            if checksum != _checksum(space.name, digest, vector):
                damaged += 1
                continue
            found[digest] = np.frombuffer(vector, dtype="<f4")
            if now - used > _MARK_AGAIN:
                stale.append((now, entry))
        if damaged:
            self._warn(
                "damaged entries",
                f"{damaged} entries of the cache {self.file} are damaged. They are "
                "computed again.",
            )
        if stale:
            self._run(_mark, stale, write=True)
        return found

    def put(self, space, vectors, files=()):
        """Keep vectors, all or none of them, and evict old ones if need be.

        Parameters
        ----------
        space : Space
        vectors : dict of bytes -> ndarray of shape (n,), float32
            By digest.
        files : sequence of (bytes, str, bytes), default=()
            Path, stamp in JSON and digest of files, for `file_digests`.
        """
        if vectors or files:
            self._run(_insert, space, vectors, files, write=True)

    def file_digests(self, stamps):
        """Look up the digests of files that have not changed.

        Parameters
        ----------
        stamps : dict of bytes -> tuple of int, or None
            For each path, size, modification and change time now; None for no file.

        Returns
        -------
        dict of bytes -> bytes
            Digest by path, of the files whose stamp is the one that was kept.
        """
        rows = self._run(_select_files, list(stamps), default=())
        return {
            path: digest
            for path, stamp, digest in rows
            if json.dumps(stamps[path]) == stamp
        }

    # Models

    def recall_model(self, model, pretrained):
        """Facts of a model that was loaded before and has not changed since.

        Parameters
        ----------
        model, pretrained : str, path-like or None
            As for `load_clip`.

        Returns
        -------
        KnownModel or None
        """
        name = _model_name(model, pretrained)
        text = self._run(_select_model, name, default=None)
        if text is None:
            return None
        try:
            facts = json.loads(text)
            checksum = facts.pop("checksum")
            known = KnownModel(**facts["known"])
            stamps = facts["stamps"]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None
        if checksum != _facts_checksum(facts):
            return None  # As with vectors, what is damaged is found out again.
        return known if file_stamps(facts["sources"]) == stamps else None

    def know_model(self, model, pretrained, load):
        """Facts of a model, which is loaded only if they are not known.

        Parameters
        ----------
        model, pretrained : str, path-like or None
            As for `load_clip`.
        load : callable
            Gives the `LoadedCLIP`.

        Returns
        -------
        KnownModel
        """
        known = self.recall_model(model, pretrained)
        if known is not None:
            return known
        loaded = load()
        known = KnownModel(
            label=loaded.label,
            slug=loaded.slug,
            embed_dim=loaded.embed_dim,
            fingerprint=loaded.fingerprint,
            # The names of functions come with their addresses in this process.
            preprocess=re.sub(r" at 0x[0-9a-fA-F]+", "", repr(loaded.preprocess)),
        )
        if loaded.stamps is not None:
            facts = {
                "known": known._asdict(),
                "sources": loaded.sources,
                "stamps": loaded.stamps,
            }
            facts["checksum"] = _facts_checksum(facts)
            name = _model_name(model, pretrained)
            self._run(_insert_model, name, json.dumps(facts), write=True)
        return known

    # The whole

    def info(self):
        """Say what the cache holds.

        Returns
        -------
        dict
            "file" (str), "bytes" on disk, "limit" in bytes, "entries" (int), and
            "spaces", a dict of label -> number of entries.
        """
        info = {"file": str(self.file), "bytes": 0, "limit": _DEFAULT_LIMIT}
        info |= {"entries": 0, "spaces": {}}
        if not self.file.exists():
            return info
        limit, spaces = self._run(_summarise, default=(_DEFAULT_LIMIT, {}))
        files = [self.file, *self._side_files()]
        size = sum(path.stat().st_size for path in files if path.exists())
        return info | {
            "bytes": size,
            "limit": limit,
            "entries": sum(spaces.values()),
            "spaces": spaces,
        }

    def clear(self):
        """Forget everything but the limit, and give the disk space back.

        Returns
        -------
        int
            Number of entries that were there.
        """
        if not self.file.exists():
            return 0
        n_entries = self._run(_delete_all, default=0, write=True)
        self._vacuum()
        return n_entries

    def set_limit(self, n_bytes):
        """Set the size beyond which the entries used least recently leave.

        Parameters
        ----------
        n_bytes : int
            Of the file, at least a million. It is kept with the cache and holds for
            all who use it.

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
        self._run(_set_limit, n_bytes, write=True)
        self._vacuum()

    def _vacuum(self):
        if self._connection is not None:
            try:
                self._connection.execute("VACUUM")
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            except sqlite3.Error as error:
                self._give_up(error)

    # Transactions

    def _run(self, work, *args, default=None, write=False):
        """Return ``work(connection, *args)``, one transaction, or `default`."""
        while not self._failed:
            try:
                connection = self._connect()
                connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
                try:
                    result = work(connection, *args)
                    connection.execute("COMMIT")
                except BaseException:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                    raise
                return result
            except (sqlite3.Error, OSError) as error:
                if not self._begin_anew(error):
                    self._give_up(error)
        return default

    def _connect(self):
        if self._connection is not None:
            return self._connection
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self.file.exists():
            # SQLite gives the files beside it the same permissions.
            with suppress(FileExistsError):
                os.close(os.open(self.file, os.O_CREAT | os.O_EXCL, 0o600))
        self._connection = connection = sqlite3.connect(
            self.file, timeout=_PATIENCE, isolation_level=None
        )
        self._inode = self.file.stat().st_ino
        # Vectors of a few kB fill small pages badly.
        connection.execute("PRAGMA page_size = 16384")
        # Readers do not wait for a writer; a killed process loses nothing committed.
        _use_wal(connection)
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA wal_autocheckpoint = 256")
        if not connection.execute("PRAGMA user_version").fetchone()[0]:
            connection.executescript(
                f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {_FORMAT}; COMMIT;"
            )
        return connection

    def _begin_anew(self, error):
        """Remove a damaged file, unless another process has done so already."""
        code = getattr(error, "sqlite_errorcode", None)
        if self._began_anew or code is None or code & 0xFF not in _CORRUPT:
            return False
        self._began_anew = True
        self.close()
        self._warn(
            "damaged file",
            f"The cache {self.file} is damaged ({error}). It is begun anew.",
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
            f"({type(error).__name__}: {error}). Going on without it; choose "
            "another one with cache_dir or SKBRIDGE_CACHE_DIR, or make room.",
        )

    def _warn(self, problem, message):
        if (self.folder, problem) not in _WARNED:
            _WARNED.add((self.folder, problem))
            warnings.warn(message, UserWarning, stacklevel=5)


# Statements


def _use_wal(connection):
    if connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
        return
    try:
        connection.execute("PRAGMA journal_mode = WAL")
    except sqlite3.OperationalError as error:
        # Another process is setting it, or it cannot be had here; transactions are
        # as safe without it.
        if error.sqlite_errorcode & 0xFF not in (
            sqlite3.SQLITE_BUSY,
            sqlite3.SQLITE_LOCKED,
        ):
            raise


def _chunks(items, size=900):
    """Cut a list to lengths that every SQLite takes as parameters."""
    for start in range(0, len(items), size):
        chunk = items[start : start + size]
        yield chunk, ",".join("?" * len(chunk))


def _select_vectors(connection, space, digests):
    return [
        row
        for chunk, marks in _chunks(list(dict.fromkeys(digests)))
        for row in connection.execute(
            "SELECT entries.id, digest, used, checksum, vector FROM entries "
            "JOIN vectors USING (id) WHERE space = (SELECT id FROM spaces WHERE "
            f"name = ?) AND digest IN ({marks})",
            (space, *chunk),
        )
    ]


def _mark(connection, stale):
    connection.executemany("UPDATE entries SET used = ? WHERE id = ?", stale)


def _insert(connection, space, vectors, files):
    connection.execute(
        "INSERT OR IGNORE INTO spaces (name, label) VALUES (?, ?)", space
    )
    (number,) = connection.execute(
        "SELECT id FROM spaces WHERE name = ?", (space.name,)
    ).fetchone()
    now = time.time()
    data = {
        digest: np.asarray(vector, dtype="<f4").tobytes()
        for digest, vector in vectors.items()
    }
    # An entry keeps its number when another process was first.
    connection.executemany(
        "INSERT INTO entries (space, digest, size, used) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (space, digest) DO UPDATE SET used = excluded.used, "
        "size = excluded.size",
        [(number, digest, len(vector), now) for digest, vector in data.items()],
    )
    connection.executemany(
        "INSERT OR REPLACE INTO vectors SELECT id, ?, ? FROM entries "
        "WHERE space = ? AND digest = ?",
        [
            (_checksum(space.name, digest, vector), vector, number, digest)
            for digest, vector in data.items()
        ],
    )
    connection.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", files)
    _evict(connection)


def _evict(connection):
    """Remove the entries used least recently once the file is over its limit."""
    limit = _limit(connection)
    in_use = _bytes_in_use(connection)
    if in_use <= limit:
        return
    # Pages in use hold more than vectors: the same share of both must go.
    share = 1 - (1 - _SLACK) * limit / in_use
    connection.execute(
        "CREATE TEMP TABLE leaving AS SELECT id FROM (SELECT id, size + :overhead "
        "AS own, SUM(size + :overhead) OVER (ORDER BY used, id) AS so_far, "
        "SUM(size + :overhead) OVER () AS total FROM entries) "
        "WHERE so_far - own < :share * total",
        {"overhead": _OVERHEAD, "share": share},
    )
    for table in ("entries", "vectors"):
        connection.execute(
            f"DELETE FROM {table} WHERE id IN (SELECT id FROM temp.leaving)"
        )
    connection.execute("DROP TABLE temp.leaving")
    connection.execute(
        "DELETE FROM files WHERE digest NOT IN (SELECT digest FROM entries)"
    )
    connection.execute("DELETE FROM spaces WHERE id NOT IN (SELECT space FROM entries)")


def _bytes_in_use(connection):
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size


def _limit(connection):
    row = connection.execute(
        "SELECT value FROM settings WHERE name = 'limit'"
    ).fetchone()
    return _DEFAULT_LIMIT if row is None else row[0]


def _set_limit(connection, n_bytes):
    connection.execute(
        "INSERT OR REPLACE INTO settings VALUES ('limit', ?)", (n_bytes,)
    )
    _evict(connection)


def _select_files(connection, paths):
    return [
        row
        for chunk, marks in _chunks(paths)
        for row in connection.execute(
            f"SELECT path, stamp, digest FROM files WHERE path IN ({marks})", chunk
        )
    ]


def _select_model(connection, name):
    row = connection.execute(
        "SELECT CAST(facts AS BLOB) FROM models WHERE name = ?", (name,)
    ).fetchone()
    return None if row is None else row[0]


def _insert_model(connection, name, facts):
    connection.execute("INSERT OR REPLACE INTO models VALUES (?, ?)", (name, facts))


def _summarise(connection):
    rows = connection.execute(
        "SELECT label, COUNT(*) FROM entries JOIN spaces ON spaces.id = space "
        "GROUP BY label ORDER BY label"
    )
    return _limit(connection), dict(rows.fetchall())


def _delete_all(connection):
    (n_entries,) = connection.execute("SELECT COUNT(*) FROM entries").fetchone()
    for table in ("entries", "vectors", "files", "models", "spaces"):
        connection.execute(f"DELETE FROM {table}")
    return n_entries


def _checksum(space, digest, data):
    return zlib.crc32(data, zlib.crc32(space.encode() + digest))


def _facts_checksum(facts):
    return zlib.crc32(json.dumps(facts, sort_keys=True).encode())


# Models and files


def _model_name(model, pretrained):
    """Name of a model as its facts are kept: what decides which weights are read."""
    places = ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME")
    return json.dumps(
        [
            __version__,
            _open_clip_version(),
            *map(_absolute, (model, pretrained)),
            *map(os.environ.get, places),
        ]
    )


@cache
def _open_clip_version():
    return version("open_clip_torch")


def _absolute(name):
    """Say where a folder or file is, so that a relative one is not mixed up."""
    if name is None:
        return None
    name = os.fspath(name)
    place = Path(name.removeprefix("local-dir:")).expanduser()
    return os.path.abspath(place) if place.exists() else name


def _file_stamp(path):
    """Size, modification and change time of a regular file; None for none."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(status.st_mode):
        return None  # Reading a pipe or a device may never end.
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


class ImagePlan:
    """Which images are to be embedded, and which have an embedding already.

    Without a cache, all are to be embedded. With one, the rows of images that it has
    are filled at once, and of images with the same content only the first is to be
    embedded.

    Parameters
    ----------
    images : sequence of images
        As `check_images` returns it.
    embeddings : ndarray of shape (n_images, n_features), float32
        Filled in place.
    cache : EmbeddingCache or None
    space : Space or None
        Of the embeddings.

    Attributes
    ----------
    positions : sequence of int
        Images that are to be embedded, in order.
    duplicates : list of (int, int)
        Position of an image, and of the earlier one, in `positions`, that it equals.
    """

    def __init__(self, images, embeddings, cache=None, space=None):
        self._images = images
        self._embeddings = embeddings
        self._cache = cache
        self._space = space
        self.positions = range(len(images))
        self.duplicates = []
        if cache is not None:
            self._started = time.time_ns()
            self._paths, self._stamps, self._fresh = {}, {}, set()
            self._digests = self._identify()
            self._look_up()

    def __len__(self):
        return len(self.positions)

    def __getitem__(self, index):
        """Image to embed, by its index in `positions`."""
        return self._images[self.positions[index]]

    def keep(self, positions):
        """Commit the embeddings of some positions, which are in place by now."""
        if self._cache is None:
            return
        # A file that changed since it was hashed has the embedding of other bytes.
        kept = [
            position
            for position in positions
            if self._digests[position] is not None
            and (
                position not in self._paths
                or _file_stamp(self._paths[position])
                == self._stamps[self._paths[position]]
            )
        ]
        vectors = {self._digests[row]: self._embeddings[row] for row in kept}
        self._cache.put(self._space, vectors, self._files(kept))

    def _identify(self):
        """Digest of the content of each image; None where it cannot be read."""
        digests = [None] * len(self._images)
        for position in range(len(self._images)):
            image = self._images[position]
            if not isinstance(image, str | os.PathLike):
                digests[position] = _image_digest(image)
                continue
            path = os.fsencode(os.path.abspath(image))
            if path not in self._stamps:
                self._stamps[path] = _file_stamp(path)
            if self._stamps[path] is not None:
                self._paths[position] = path
        known = self._cache.file_digests(self._stamps)
        self._fresh = set(self._paths.values()) - known.keys()
        with ThreadPoolExecutor(joblib.cpu_count()) as pool:
            fresh = list(self._fresh)
            known.update(zip(fresh, pool.map(_file_digest, fresh), strict=True))
        for position, path in self._paths.items():
            digests[position] = known[path]
        return digests

    def _look_up(self):
        self.positions, first, seen = [], {}, []
        for start in range(0, len(self._digests), _LOOKED_UP_AT_ONCE):
            digests = self._digests[start : start + _LOOKED_UP_AT_ONCE]
            found = self._cache.get(
                self._space, [digest for digest in digests if digest is not None]
            )
            for position, digest in enumerate(digests, start):
                vector = found.get(digest)
                if vector is not None and len(vector) == self._embeddings.shape[1]:
                    self._embeddings[position] = vector
                    seen.append(position)
                elif digest is not None and digest in first:
                    self.duplicates.append((position, first[digest]))
                else:
                    first[digest] = position
                    self.positions.append(position)
        self._cache.put(self._space, {}, self._files(seen))

    def _files(self, positions):
        """List the files that were hashed here and will show it if they change."""
        return [
            (path, json.dumps(stamp), self._digests[position])
            for position in positions
            if (path := self._paths.get(position)) in self._fresh
            and are_settled((stamp := self._stamps[path])[1:], self._started)
        ]


def _file_digest(path):
    try:
        with open(path, "rb") as stream:  # It may be larger than memory.
            digest = hashlib.file_digest(
                stream, partial(hashlib.blake2b, digest_size=20)
            )
        return digest.digest()
    except OSError:
        return None


def _image_digest(image):
    """Digest of an image that is no path: of its bytes, or of its pixels."""
    try:
        if isinstance(image, bytes | bytearray | memoryview):
            return _hash(image)
        if hasattr(image, "read"):
            image.seek(0)  # As the decoder does; what cannot seek is read once only.
            return _hash(image.read())
        pixels = to_rgb(image)
        return _hash(f"{pixels.size}".encode(), pixels.tobytes())
    except Exception:  # Whatever keeps it from being read is reported by the reader.
        return None
