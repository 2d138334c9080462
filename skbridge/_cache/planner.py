"""Plan of the images that are still to be embedded, and of their keys."""

import io
import os
import time
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np

from skbridge._cache.keys import file_digest, image_digest
from skbridge._files import file_stamp
from skbridge._images.accept import source_of
from skbridge._images.limits import LARGEST_FILE
from skbridge._rows import batches

# Vectors are in memory twice, this many rows at a time.
_LOOKED_UP_AT_ONCE = 4096


class ImagePlan:
    """Which images are to be embedded, and which have an embedding already.

    Without a store, all are to be embedded. With one, the rows of images that it has
    are filled at once, and of images with the same content only the first is to be
    embedded.

    An embedding is stored under the digest of what was embedded: an item that a
    sequence makes anew at each access is hashed again when it is fetched, and a file
    is stored only if it did not change between hashing and embedding.

    Parameters
    ----------
    images : sequence of images
        As `check_images` returns it.
    embeddings : ndarray of shape (n_images, n_features), float32
        Filled in place.
    store : Store or None
    space : Space or None
        Space of the embeddings.

    Attributes
    ----------
    positions : sequence of int
        Images that are to be embedded, in order.
    duplicates : list of (int, int)
        Position of an image, and of the earlier one, in `positions`, that it equals.
    """

    def __init__(self, images, embeddings, store=None, space=None):
        self._images = images
        self._embeddings = embeddings
        self._store = store
        self._space = space
        # Other sequences may make their items, and other ones at each access.
        self._are_fixed = type(images) in (list, tuple, np.ndarray)
        self.positions = range(len(images))
        self.duplicates = []
        if store is not None:
            self._started = time.time_ns()
            self._paths, self._stamps, self._hashed = {}, {}, set()
            self._digests = self._identify()
            self._look_up()

    def __len__(self):
        return len(self.positions)

    def __getitem__(self, index):
        """Image to embed, by its index in `positions`."""
        position = self.positions[index]
        image = self._images[position]
        if self._store is None:
            return image
        source = _source(image)
        if callable(source):
            # An unopened file is read once, for both digest and embedding.
            content = _content(source)
            self._digests[position] = None if content is None else image_digest(content)
            return image if content is None else content
        if not self._are_fixed:
            self._identify_again(position, image)
        return image

    def keep(self, positions):
        """Store the embeddings of some positions, whose rows are filled by now."""
        if self._store is None:
            return
        stored = [
            position
            for position in positions
            if self._digests[position] is not None and self._is_unchanged(position)
        ]
        vectors = {self._digests[row]: self._embeddings[row] for row in stored}
        self._store.put(self._space, vectors, self._files(stored))

    def _identify(self):
        """Digest of the content of each image; None where it cannot be read."""
        digests = [None] * len(self._images)
        for position in range(len(self._images)):
            image = _source(self._images[position])
            if not isinstance(image, str):
                digests[position] = image_digest(image)
                continue
            path = _absolute(image)
            if path not in self._stamps:
                self._stamps[path] = file_stamp(path)
            if self._stamps[path] is not None:
                self._paths[position] = path
        known = dict(self._store.file_digests(self._stamps))
        self._hashed = set(self._paths.values()) - known.keys()
        with ThreadPoolExecutor(joblib.cpu_count()) as pool:
            paths = list(self._hashed)
            stamps = [self._stamps[path] for path in paths]
            known.update(zip(paths, pool.map(file_digest, paths, stamps), strict=True))
        for position, path in self._paths.items():
            digests[position] = known[path]
        return digests

    def _identify_again(self, position, image):
        """Digest an item that was made anew."""
        image = _source(image)
        if not isinstance(image, str):
            self._paths.pop(position, None)
            self._digests[position] = image_digest(image)
        elif self._paths.get(position) != _absolute(image):
            self._digests[position] = None

    def _look_up(self):
        self.positions, first, seen = [], {}, []
        for rows in batches(len(self._digests), _LOOKED_UP_AT_ONCE):
            digests = self._digests[rows]
            found = self._store.get(
                self._space, [digest for digest in digests if digest is not None]
            )
            for position, digest in enumerate(digests, rows.start):
                vector = found.get(digest)
                if vector is not None and len(vector) == self._embeddings.shape[1]:
                    self._embeddings[position] = vector
                    seen.append(position)
                elif digest in first and self._are_fixed:
                    self.duplicates.append((position, first[digest]))
                else:
                    if digest is not None:
                        first[digest] = position
                    self.positions.append(position)
        self._store.put(self._space, {}, self._files(seen))

    def _is_unchanged(self, position):
        """Whether the file of a position, if it has one, is the one that was hashed."""
        path = self._paths.get(position)
        if path is None:
            return True
        stamp = self._stamps[path]
        if file_stamp(path) != stamp:
            return False
        # A file that was written just before may have changed under the same stamp.
        return stamp.is_settled(self._started) or (
            file_digest(path, stamp) == self._digests[position]
        )

    def _files(self, positions):
        """Stamp and digest of files that were hashed here and are settled."""
        files = {self._paths.get(position): position for position in positions}
        return {
            path: (self._stamps[path], self._digests[position])
            for path, position in files.items()
            if path in self._hashed and self._stamps[path].is_settled(self._started)
        }


def _content(source):
    """Bytes of an unopened file; None where whoever decodes it reports why not."""
    try:
        with source() as stream:
            content = stream.read(LARGEST_FILE + 1)
    except Exception:  # Other libraries open it, and raise anything.
        return None
    return None if len(content) > LARGEST_FILE else io.BytesIO(content)


def _source(image):
    """Form in which an image is decoded; None for anything else."""
    try:
        return source_of(image)
    except (TypeError, ValueError):
        return None  # Whoever embeds it reports it.


def _absolute(path):
    return os.fsencode(os.path.abspath(path))
