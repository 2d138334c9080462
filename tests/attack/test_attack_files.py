"""Files that cannot be half or wrong: killed writers, many at once, flipped bits."""

import sqlite3
import time
import warnings
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from attack import writers
from attack.writers import BATCH, SPACE, digest, is_right
from skbridge import TextHead
from skbridge._cache import sqlite as sqlite_store
from skbridge._cache.sqlite import SQLiteStore
from skbridge._files import FileStamp


@pytest.fixture(autouse=True)
def unwarned(monkeypatch):
    monkeypatch.setattr(sqlite_store, "_WARNED", set())


def start(target, *args):
    """Start a process; return it with the end of the pipe that it sends to."""
    receiver, sender = writers.context.Pipe(duplex=False)
    process = writers.context.Process(target=target, args=(*args, sender), daemon=True)
    process.start()
    sender.close()
    return process, receiver


def everything(receiver):
    """Everything that a process has sent before it ended."""
    received = []
    try:
        while True:
            received.append(receiver.recv())
    except EOFError:
        return received


# Killed writers


def test_killed_writer_of_the_cache_loses_nothing(tmp_path, rng, times, report):
    n_kills, n_lost, n_wrong, n_halves = times(5, 100), 0, 0, 0
    committed, first = [], 0
    for _ in range(n_kills):
        process, receiver = start(writers.write_batches, tmp_path, first)
        committed.append(receiver.recv())
        time.sleep(rng.uniform(0, 0.2))
        process.kill()
        process.join()
        committed += everything(receiver)
        first = committed[-1] + 10 * BATCH
        store = SQLiteStore(tmp_path)
        for start_of_batch in (*committed, committed[-1] + BATCH):
            keys = [digest(start_of_batch + i) for i in range(BATCH)]
            found = store.get(SPACE, keys)
            n_lost += start_of_batch in committed and len(found) < BATCH
            n_halves += len(found) not in (0, BATCH)
            n_wrong += sum(not is_right(key, row) for key, row in found.items())
        store.close()
        with closing(sqlite3.connect(store.file)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        committed = committed[-1:]
    report(
        "kill -9 of a process that writes to the cache",
        n_kills,
        batches_lost=n_lost,
        half_batches=n_halves,
        wrong_rows=n_wrong,
    )
    assert (n_lost, n_halves, n_wrong) == (0, 0, 0)


def test_killed_writer_of_a_head_leaves_the_old_or_the_new(
    tmp_path, rng, times, report
):
    n_kills, n_lost = times(5, 100), 0
    path = tmp_path / "head.npz"
    heads = {writers.make_head(seed) for seed in range(2)}
    n_left_over = 0
    for _ in range(n_kills):
        process, receiver = start(writers.write_heads, path)
        receiver.recv()
        time.sleep(0.05 + rng.uniform(0, 0.1))
        process.kill()
        process.join()
        try:
            n_lost += TextHead.load(path) not in heads
        except (ValueError, FileNotFoundError):
            n_lost += 1
        for other in tmp_path.glob(".head.npz.*"):
            n_left_over += 1
            other.unlink()
    report("kill -9 of a process that saves a head", n_kills, files_lost=n_lost)
    assert n_lost == 0
    assert n_left_over > 0 or n_kills < 100, "the kills came at other moments"


# Many at once


def test_processes_at_once_with_eviction_read_no_wrong_row(tmp_path, times, report):
    n_processes, n_rounds = times(2, 4), times(20, 150)
    store = SQLiteStore(tmp_path)
    store.set_limit(10**6)
    store.close()
    started = [
        start(writers.write_and_read, tmp_path, seed, n_rounds)
        for seed in range(n_processes)
    ]
    results = [receiver.recv() for _, receiver in started]
    for process, _ in started:
        process.join()
    n_read, n_wrong = np.sum(results, axis=0)
    report(
        f"{n_processes} processes that write and read at once, with eviction",
        n_processes * n_rounds,
        rows_read=n_read,
        wrong_rows=n_wrong,
    )
    assert n_read > 10 * n_rounds
    assert n_wrong == 0
    assert SQLiteStore(tmp_path).info()["bytes"] < 3 * 10**6


# Flipped bits


STAMPS = {b"/%d.png" % i: FileStamp(1, i, 10, 20, 30) for i in range(40)}
FACTS = {f"model {i}": f"facts of model {i}" * 20 for i in range(3)}


def fill(store):
    for first in range(0, 3 * BATCH, BATCH):
        store.put(SPACE, writers.batch(first))
    store.put(SPACE, {}, {p: (s, digest(s.inode)) for p, s in STAMPS.items()})
    for name, text in FACTS.items():
        store.put_facts(name, text)


@pytest.fixture(scope="module")
def cache_files(tmp_path_factory):
    """Bytes of a cache in one file, and of one whose last entries are in its log."""
    store = SQLiteStore(tmp_path_factory.mktemp("cache"))
    fill(store)
    files = [store.file, Path(f"{store.file}-wal")]
    with_log = {path.name: path.read_bytes() for path in files}
    store.close()
    whole = {store.file.name: store.file.read_bytes()}
    return {"file": whole, "log": with_log}


def flip(content, rng):
    flipped = bytearray(content)
    flipped[rng.integers(len(flipped))] ^= 1 << rng.integers(8)
    return bytes(flipped)


def wrong_answers(store):
    """How many answers of a store are neither right nor missing."""
    n_wrong = 0
    keys = [digest(i) for i in range(3 * BATCH)]
    for key, row in store.get(SPACE, keys).items():
        n_wrong += not is_right(key, row)
    for path, found in store.file_digests(STAMPS).items():
        n_wrong += found != digest(STAMPS[path].inode)
    for name, text in FACTS.items():
        n_wrong += store.facts(name) not in (text, None)
    n_wrong += store.info()["limit"] < 10**6
    return n_wrong


@pytest.mark.parametrize("flipped", ["file", "log"])
def test_flipped_bit_in_a_cache_is_never_a_wrong_row(
    tmp_path, rng, times, report, cache_files, flipped
):
    n_flips, n_wrong, n_noticed, n_raised = times(60, 4000), 0, 0, 0
    files = cache_files[flipped]
    name = next(name for name in files if name.endswith("wal") == (flipped == "log"))
    for number in range(n_flips):
        folder = tmp_path / str(number % 20)
        folder.mkdir(mode=0o700, exist_ok=True)
        for path in folder.iterdir():
            path.unlink()
        for other, content in files.items():
            content = flip(content, rng) if other == name else content
            (folder / other).write_bytes(content)
        sqlite_store._WARNED.clear()
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            store = SQLiteStore(folder)
            try:
                n_wrong += wrong_answers(store)
                store.put(SPACE, writers.batch(10**6))
                n_wrong += wrong_answers(store)
                store.clear()
            except Exception as error:
                n_raised += 1
                print(f"{type(error).__name__}: {error}")
            store.close()
        messages = [str(warning.message) for warning in told]
        assert len(messages) == len(set(messages))
        n_noticed += bool(messages)
    report(
        f"flipped bit in the {flipped} of a cache",
        n_flips,
        reported=n_noticed,
        wrong_answers=n_wrong,
        exceptions=n_raised,
    )
    assert (n_wrong, n_raised) == (0, 0)


def test_flipped_bit_in_a_head_is_an_error(tmp_path, rng, times, report):
    n_flips, n_taken = times(100, 4000), 0
    path = writers.make_head(0).save(tmp_path / "head")
    good = path.read_bytes()
    for _ in range(n_flips):
        path.write_bytes(flip(good, rng))
        try:
            TextHead.load(path)
            n_taken += 1
        except ValueError:
            pass
    report("flipped bit in a saved head", n_flips, taken=n_taken)
    assert n_taken == 0
