"""The tables of the SQLite store, and the statements on them.

All but `configure` and `vacuum` run within a transaction of the caller.
"""

import math
import sqlite3
import time
import zlib

import numpy as np

from skbridge._cache.store import DEFAULT_LIMIT, SMALLEST_LIMIT
from skbridge._rows import batches

# Part of the limit that is free again after an eviction, so that it is rare.
_SLACK = 0.2
# Bytes of an entry beside its vector, for the shares of an eviction.
_OVERHEAD = 100
# Parameters that every SQLite takes in one statement.
_MOST_PARAMETERS = 900

_SCHEMA = """
CREATE TABLE IF NOT EXISTS spaces (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, label TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS entries (
    id INTEGER PRIMARY KEY, space INTEGER NOT NULL, digest BLOB NOT NULL,
    size INTEGER NOT NULL, used REAL NOT NULL, UNIQUE (space, digest));
CREATE TABLE IF NOT EXISTS vectors (
    id INTEGER PRIMARY KEY, checksum INTEGER NOT NULL, vector BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS files (
    path BLOB PRIMARY KEY, checksum INTEGER NOT NULL, stamp BLOB NOT NULL,
    digest BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS facts (
    name BLOB PRIMARY KEY, checksum INTEGER NOT NULL, text BLOB NOT NULL)
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS settings (
    name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
"""


def configure(connection, version):
    """Prepare a new connection, and a new file."""
    # Damaged texts are found by their checksum, or are only shown to people.
    connection.text_factory = lambda text: text.decode(errors="replace")
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    # Vectors of a few kB fill small pages badly.
    connection.execute("PRAGMA page_size = 16384")
    # Readers do not wait for a writer; a killed process loses nothing committed.
    _use_wal(connection)
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA wal_autocheckpoint = 256")
    if not connection.execute("PRAGMA user_version").fetchone()[0]:
        connection.executescript(
            f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {version}; COMMIT;"
        )


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


def vacuum(connection):
    """Give free pages back to the file system."""
    connection.execute("VACUUM")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _select_in(connection, statement, values, *first):
    """Rows of a statement that ends in ``IN``, for any number of values."""
    return [
        row
        for part in batches(len(values), _MOST_PARAMETERS)
        for row in connection.execute(
            f"{statement} ({','.join('?' * len(values[part]))})",
            (*first, *values[part]),
        )
    ]


def select_vectors(connection, space, digests):
    """Look up number, digest, time of use, checksum and vector of entries."""
    return _select_in(
        connection,
        "SELECT entries.id, digest, used, checksum, vector FROM entries JOIN vectors "
        "USING (id) WHERE space = (SELECT id FROM spaces WHERE name = ?) AND digest IN",
        list(dict.fromkeys(digests)),
        space,
    )


def mark(connection, unmarked):
    """Set the time of use of entries."""
    connection.executemany("UPDATE entries SET used = ? WHERE id = ?", unmarked)


def insert(connection, space, vectors, files):
    """Insert vectors and files; return whether entries were evicted."""
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
    name = space.name.encode()
    connection.executemany(
        "INSERT OR REPLACE INTO vectors SELECT id, ?, ? FROM entries "
        "WHERE space = ? AND digest = ?",
        [
            (checksum(name, digest, vector), vector, number, digest)
            for digest, vector in data.items()
        ],
    )
    connection.executemany(
        "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)",
        [
            (path, checksum(path, packed(stamp), digest), packed(stamp), digest)
            for path, (stamp, digest) in files.items()
        ],
    )
    return _evict(connection)


def _evict(connection):
    """Remove the entries used least recently once the file is over its limit."""
    limit = _limit(connection)
    in_use = _bytes_in_use(connection)
    if in_use <= limit:
        return False
    # Pages in use contain more than vectors: the same share of both must go.
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
    return True


def _bytes_in_use(connection):
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size


def _limit(connection):
    row = connection.execute(
        "SELECT value FROM settings WHERE name = 'limit' AND "
        f"typeof(value) = 'integer' AND value >= {SMALLEST_LIMIT}"
    ).fetchone()
    return DEFAULT_LIMIT if row is None else row[0]


def set_limit(connection, n_bytes):
    """Set the limit in bytes."""
    connection.execute(
        "INSERT OR REPLACE INTO settings VALUES ('limit', ?)", (n_bytes,)
    )
    _evict(connection)


def select_files(connection, paths):
    """Look up path, checksum, stamp and digest of files."""
    statement = "SELECT path, checksum, stamp, digest FROM files WHERE path IN"
    return _select_in(connection, statement, paths)


def select_facts(connection, name):
    """Look up the checksum and text under a name."""
    return connection.execute(
        "SELECT checksum, text FROM facts WHERE name = ?", (name,)
    ).fetchone()


def insert_facts(connection, name, text):
    """Insert or replace the text under a name."""
    connection.execute(
        "INSERT OR REPLACE INTO facts VALUES (?, ?, ?)",
        (name, checksum(name, text), text),
    )


def summarise(connection):
    """Return the limit, and the number of entries by label."""
    rows = connection.execute(
        "SELECT label, COUNT(*) FROM entries JOIN spaces ON spaces.id = space "
        "GROUP BY label ORDER BY label"
    )
    return _limit(connection), {str(label): count for label, count in rows}


def delete_all(connection):
    """Delete everything but the limit; return the number of entries."""
    (n_entries,) = connection.execute("SELECT COUNT(*) FROM entries").fetchone()
    for table in ("entries", "vectors", "files", "facts", "spaces"):
        connection.execute(f"DELETE FROM {table}")
    return n_entries


def packed(stamp):
    """Write the stamp of a file as bytes."""
    return b"%d %d %d %d %d" % stamp


def checksum(*parts):
    """Checksum of the columns of a row; NaN, equal to none, if one is not a blob."""
    value = 0
    for part in parts:
        if not isinstance(part, bytes):
            return math.nan
        value = zlib.crc32(part, zlib.crc32(b"%d " % len(part), value))
    return value
