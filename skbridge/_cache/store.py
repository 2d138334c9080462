"""The protocol of a cache store, and the limits that all stores share."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from skbridge._cache.keys import Space
from skbridge._files import FileStamp

DEFAULT_LIMIT = 4 * 10**9
SMALLEST_LIMIT = 10**6


class Store(Protocol):
    """Vectors by space and content, and small facts, that outlive the process.

    Errors of a store never stop the caller. Damaged entries count as missing;
    a store that cannot be read or written warns once per process and from then on has
    nothing and stores nothing. Each method is one transaction: a process that is killed
    leaves whole entries only. Threads and processes may share the files, but each
    thread opens a store of its own.
    """

    def get(self, space: Space, digests: Sequence[bytes]) -> Mapping[bytes, np.ndarray]:
        """Look up vectors, float32 and read-only; `digests` may repeat."""

    def put(
        self,
        space: Space,
        vectors: Mapping[bytes, np.ndarray],
        files: Mapping[bytes, tuple[FileStamp, bytes]] | None = None,
    ) -> None:
        """Store vectors by digest, and stamp and digest of files by path.

        All or none are stored. Beyond the limit, the entries used least recently are
        removed.
        """

    def file_digests(
        self, stamps: Mapping[bytes, FileStamp | None]
    ) -> Mapping[bytes, bytes]:
        """Look up the digests, by path, of files that still have the stored stamp."""

    def facts(self, name: str) -> str | None:
        """Look up a text by name."""

    def put_facts(self, name: str, text: str) -> None:
        """Store a text by name."""

    def info(self) -> dict:
        """Describe the content.

        "file" (str), "bytes" on disk, "limit" in bytes, "entries" (int), and "spaces",
        a dict of label -> number of entries.
        """

    def clear(self) -> int:
        """Remove everything but the limit; return how many entries there were."""

    def set_limit(self, n_bytes: int) -> None:
        """Set the size beyond which entries are removed, for all who use the files."""

    def close(self) -> None:
        """Close the files; the next use opens them again."""
