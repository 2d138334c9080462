"""Processes that are attacked; they import no more than they need."""

import multiprocessing
import sys

import numpy as np

from skbridge import TextHead
from skbridge._cache.keys import Space
from skbridge._cache.sqlite import SQLiteStore

SPACE = Space("a" * 40, "a model")
BATCH = 50
WIDTH = 512

# A process of this kind starts in milliseconds, where there is one.
context = multiprocessing.get_context(
    "spawn" if sys.platform == "win32" else "forkserver"
)
if sys.platform != "win32":
    context.set_forkserver_preload(["skbridge", "skbridge._cache.sqlite"])


def digest(number):
    return int(number).to_bytes(20, "big")


def vector(number):
    """A vector that belongs to a number and to no other."""
    return np.full(WIDTH, number, np.float32)


def batch(first):
    return {digest(first + i): vector(first + i) for i in range(BATCH)}


def is_right(key, found):
    return np.array_equal(found, vector(int.from_bytes(key, "big")))


def write_batches(folder, first, committed):
    """Write batch after batch, and send the number of each that is stored."""
    store = SQLiteStore(folder)
    while True:
        store.put(SPACE, batch(first))
        committed.send(first)
        first += BATCH


def make_head(seed):
    rng = np.random.default_rng(seed)
    names = [f"class {i}" for i in range(100 + 10 * seed)]
    return TextHead.from_features(names, rng.normal(size=(len(names), WIDTH)))


def write_heads(path, started):
    """Save one head over another, for ever."""
    heads = [make_head(seed) for seed in range(2)]
    started.send(True)
    while True:
        for head in heads:
            head.save(path)


def write_and_read(folder, seed, n_rounds, result):
    """Write and read random rows beside others; count those read, and wrong ones."""
    rng = np.random.default_rng(seed)
    n_read = n_wrong = 0
    for _ in range(n_rounds):
        store = SQLiteStore(folder)
        store.put(SPACE, {digest(k): vector(k) for k in rng.integers(2000, size=BATCH)})
        found = store.get(SPACE, [digest(k) for k in rng.integers(2000, size=200)])
        n_read += len(found)
        n_wrong += sum(not is_right(key, row) for key, row in found.items())
        store.close()
    result.send((n_read, n_wrong))
