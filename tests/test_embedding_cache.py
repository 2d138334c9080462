"""The cache on disk: nothing embedded twice, nothing stale, nothing stops the work."""

import io
import os
import pickle
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import warnings
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skbridge import CLIPEmbedder, _embedder, _files
from skbridge._cache import keys, models, planner
from skbridge._cache import sqlite as _sqlite
from skbridge._cache.folder import cache_folder
from skbridge._cache.keys import Space
from skbridge._cache.sqlite import SQLiteStore
from skbridge._cli import main
from skbridge._clip.backend import Backend

SPACE = Space("a" * 40, "a model")
# Sums over another batch are taken in another order; eps of float32 is 1.2e-7.
RTOL = 1e-4


def digest(number):
    return number.to_bytes(20, "big")


def age(path):
    """Make a file look old enough to be known by its times."""
    os.utime(path, ns=(10**18, 10**18))


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    monkeypatch.delenv("SKBRIDGE_CACHE_DIR", raising=False)
    monkeypatch.setattr(_sqlite, "_WARNED", set())


def settle(monkeypatch):
    """Take files written just now for old ones."""
    monkeypatch.setattr(_files, "_COARSEST_CLOCK", -(10**20))


@pytest.fixture
def settled(monkeypatch):
    """Files written just now count as old, for those who change none."""
    settle(monkeypatch)


@pytest.fixture
def cache(tmp_path):
    cache = SQLiteStore(tmp_path / "cache")
    yield cache
    cache.close()


@pytest.fixture
def model(tiny_clip_dir, tmp_path):
    """A private copy of the tiny model whose files are old."""
    folder = shutil.copytree(tiny_clip_dir, tmp_path / "model")
    for path in folder.iterdir():
        age(path)
    return folder


@pytest.fixture
def embedder(tiny_clip_dir, tmp_path):
    return CLIPEmbedder(
        str(tiny_clip_dir), device="cpu", batch_size=5, cache_dir=tmp_path / "cache"
    )


@pytest.fixture
def paths(tmp_path):
    """Twelve image files of one size in bytes."""
    rng = np.random.default_rng(0)
    names = [str(tmp_path / f"{i:02}.bmp") for i in range(12)]
    for name in names:
        pixels = rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(name)
    return names


@pytest.fixture
def seen(monkeypatch):
    """Sizes of the batches that the model sees."""
    sizes = []
    embed = Backend.embed

    def embed_counted(loaded, batch, precision):
        sizes.append(len(batch))
        return embed(loaded, batch, precision)

    monkeypatch.setattr(Backend, "embed", embed_counted)
    return sizes


# Where it lives


def test_folder_is_what_cache_dir_says_else_the_variable_else_the_users(
    tmp_path, monkeypatch
):
    assert cache_folder(None) is None
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder("auto") == tmp_path / "skbridge"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder("auto") == Path.home() / ".cache" / "skbridge"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_folder("auto") == Path.home() / "Library" / "Caches" / "skbridge"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert cache_folder("auto") == tmp_path / "local" / "skbridge"
    monkeypatch.setenv("SKBRIDGE_CACHE_DIR", str(tmp_path / "named"))
    for cache_dir in (None, "auto"):
        assert cache_folder(cache_dir) == tmp_path / "named"
    assert cache_folder(tmp_path / "mine") == tmp_path / "mine"
    assert cache_folder("~/mine") == Path.home() / "mine"


def test_variable_switches_the_cache_on(tmp_path, monkeypatch, tiny_clip_dir, paths):
    embedder = CLIPEmbedder(str(tiny_clip_dir), device="cpu")
    embedder.transform(paths)
    for method in (embedder.cache_info, embedder.clear_cache):
        with pytest.raises(ValueError, match="nothing is cached"):
            method()
    monkeypatch.setenv("SKBRIDGE_CACHE_DIR", str(tmp_path / "named"))
    embedder.transform(paths)
    assert embedder.cache_info()["entries"] == len(paths)


# The store


@settings(max_examples=30, deadline=None)
@given(
    batches=st.lists(
        st.dictionaries(
            st.integers(0, 30),
            st.lists(st.floats(width=32), max_size=4),
            max_size=8,
        ),
        max_size=5,
    ),
    asked=st.lists(st.integers(0, 40), max_size=60),
)
def test_cache_gives_back_what_was_kept_last(tmp_path_factory, batches, asked):
    cache = SQLiteStore(tmp_path_factory.mktemp("cache"))
    expected = {}
    for batch in batches:
        vectors = {digest(k): np.array(v, np.float32) for k, v in batch.items()}
        cache.put(SPACE, vectors)
        expected |= vectors
        cache.close()
    found = cache.get(SPACE, [digest(number) for number in asked])
    assert found.keys() == expected.keys() & {digest(number) for number in asked}
    for key, vector in found.items():
        np.testing.assert_array_equal(vector, expected[key])
    cache.close()


def test_spaces_are_kept_apart(cache):
    other = Space("b" * 40, "another model")
    cache.put(SPACE, {digest(1): np.zeros(3, np.float32)})
    cache.put(other, {digest(1): np.ones(3, np.float32)})
    assert cache.get(SPACE, [digest(1)])[digest(1)].tolist() == [0, 0, 0]
    assert cache.get(other, [digest(1)])[digest(1)].tolist() == [1, 1, 1]
    assert cache.info()["spaces"] == {"a model": 1, "another model": 1}


def test_more_vectors_than_a_statement_takes_are_looked_up(cache):
    vectors = {digest(i): np.full(2, i, np.float32) for i in range(2500)}
    cache.put(SPACE, vectors)
    found = cache.get(SPACE, [digest(i) for i in range(3000)])
    assert len(found) == 2500
    assert found[digest(2499)].tolist() == [2499, 2499]


def test_least_recently_used_leave_at_the_limit(cache, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    cache.set_limit(2 * 10**6)
    rng = np.random.default_rng(0)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for i in range(20):
            clock[0] += 1000
            keys = range(100 * i, 100 * i + 100)
            cache.put(SPACE, {digest(key): rng.random(512, np.float32) for key in keys})
            # The first batch stays in use.
            assert len(cache.get(SPACE, [digest(j) for j in range(100)])) == 100
            cache.close()
            # A batch is written before others leave.
            assert cache.file.stat().st_size < 2 * 10**6 + 3 * 10**5
    (warning,) = told
    assert "reached its limit" in str(warning.message)
    assert "skbridge cache limit 10GB" in str(warning.message)
    present = [len(cache.get(SPACE, [digest(100 * i)])) for i in range(20)]
    assert present[0] == present[-1] == 1
    left = present.index(0)
    stay = present.index(1, left)
    assert (left, present[stay:]) == (1, [1] * (20 - stay))
    assert 5 <= sum(present) < 10


def test_lower_limit_shrinks_the_file(cache):
    rng = np.random.default_rng(0)
    cache.put(SPACE, {digest(i): rng.random(512, np.float32) for i in range(1000)})
    cache.set_limit(10**6)
    info = cache.info()
    assert info["limit"] == 10**6
    assert 200 < info["entries"] < 500
    assert info["bytes"] < 1.2 * 10**6
    with pytest.raises(ValueError, match="at least 1000000 bytes, got 5"):
        cache.set_limit(5)


def test_search_over_the_same_entries_only_reads(cache):
    cache.put(SPACE, {digest(1): np.zeros(3, np.float32)})
    changes = cache._connection.total_changes
    cache.get(SPACE, [digest(1)])
    assert cache._connection.total_changes == changes


# Damage


def test_damaged_entry_is_computed_again_and_reported_once(
    embedder, paths, seen, tmp_path
):
    before = embedder.transform(paths)
    connection = sqlite3.connect(tmp_path / "cache" / "embeddings-2.sqlite3")
    (vector,) = connection.execute("SELECT vector FROM vectors WHERE id = 3").fetchone()
    broken = bytes([vector[0] ^ 1]) + vector[1:]
    connection.execute("UPDATE vectors SET vector = ? WHERE id = 3", (broken,))
    connection.commit()
    connection.close()
    seen.clear()
    with pytest.warns(UserWarning, match="1 entries of the cache .* are damaged"):
        after = embedder.transform(paths)
    assert seen == [1]
    np.testing.assert_allclose(after, before, rtol=RTOL, atol=1e-5)
    embedder.transform(paths)
    assert seen == [1]


@pytest.mark.parametrize("damage", ["header", "middle", "cut", "foreign"])
def test_damaged_file_is_begun_anew_and_reported_once(
    embedder, paths, seen, tmp_path, damage
):
    before = embedder.transform(paths)
    file = tmp_path / "cache" / "embeddings-2.sqlite3"
    content = bytearray(file.read_bytes())
    if damage == "header":
        content[:100] = bytes(100)
    elif damage == "middle":
        content[16384 * 2 :] = b"\xff" * len(content[16384 * 2 :])
    elif damage == "cut":
        content = content[: len(content) // 3]
    else:
        content = b"no database at all" * 1000
    file.write_bytes(content)
    seen.clear()
    with pytest.warns(UserWarning, match="is damaged") as caught:
        after = embedder.transform(paths)
    assert len(caught) == 1
    assert sum(seen) == 12
    np.testing.assert_allclose(after, before, rtol=RTOL, atol=1e-5)
    embedder.transform(paths)
    assert sum(seen) == 12


def test_file_that_another_process_replaced_is_left_alone(cache, tmp_path):
    vectors = {digest(1): np.zeros(3, np.float32)}
    cache.put(SPACE, vectors)
    # What this process has open is damaged, and another process has replaced it.
    fresh = SQLiteStore(tmp_path / "other")
    fresh.put(SPACE, vectors)
    fresh.close()
    os.replace(fresh.file, cache.file)
    error = sqlite3.DatabaseError()
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    with pytest.warns(UserWarning, match="replaced by an empty"):
        assert cache._replace_damaged(error)
    assert cache.get(SPACE, [digest(1)]).keys() == vectors.keys()
    assert not cache._replace_damaged(error), "once per object"


def test_folder_that_cannot_be_made_warns_once_and_all_goes_on(
    tiny_clip_dir, paths, tmp_path, seen
):
    (tmp_path / "file").write_text("in the way")
    embedder = CLIPEmbedder(
        str(tiny_clip_dir), device="cpu", cache_dir=tmp_path / "file"
    )
    with pytest.warns(UserWarning, match=r"cannot be used.*choose another") as caught:
        embeddings = embedder.fit_transform(paths)
    assert len(caught) == 1
    np.testing.assert_array_equal(embedder.transform(paths), embeddings)
    assert seen == [12, 12]
    assert (tmp_path / "file").read_text() == "in the way"


def test_full_disk_warns_once_and_all_goes_on(
    embedder, paths, seen, tmp_path, monkeypatch
):
    """The store's own limit on pages raises what a full disk raises."""
    embedder.transform(paths[:2])
    connect = SQLiteStore._connect

    def full(cache):
        connection = connect(cache)
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
        return connection

    monkeypatch.setattr(SQLiteStore, "_connect", full)
    noise = np.random.default_rng(0).random((400, 8, 8))
    seen.clear()
    with pytest.warns(UserWarning, match="database or disk is full") as caught:
        embeddings = embedder.transform(paths[:2] + list(noise))
    assert len(caught) == 1
    assert sum(seen) == 400
    assert np.isfinite(embeddings).all()


def test_read_only_store_is_read(embedder, paths, seen, monkeypatch):
    before = embedder.transform(paths)
    connect = SQLiteStore._connect

    def read_only(cache):
        connection = connect(cache)
        connection.execute("PRAGMA query_only = 1")
        return connection

    monkeypatch.setattr(SQLiteStore, "_connect", read_only)
    monkeypatch.setattr(_sqlite, "_MARK_AGAIN", -1.0)
    seen.clear()
    with pytest.warns(UserWarning, match="cannot be used .*readonly"):
        after = embedder.transform(paths)
    assert seen == []
    np.testing.assert_array_equal(after, before)


def test_lock_that_is_not_released_is_waited_for_and_given_up(
    embedder, paths, tmp_path, monkeypatch
):
    before = embedder.transform(paths[:6])
    monkeypatch.setattr(_sqlite, "_PATIENCE", 0.1)
    holder = sqlite3.connect(tmp_path / "cache" / "embeddings-2.sqlite3")
    holder.execute("BEGIN IMMEDIATE")
    with pytest.warns(UserWarning, match="database is locked"):
        after = embedder.transform(paths)
    holder.rollback()
    holder.close()
    np.testing.assert_allclose(after[:6], before, rtol=RTOL, atol=1e-5)
    assert np.isfinite(after).all()


def test_another_format_in_the_folder_is_left_alone(
    embedder, paths, tmp_path, monkeypatch, seen
):
    embedder.transform(paths)
    monkeypatch.setattr(_sqlite, "_FORMAT", 3)
    embedder.transform(paths)
    monkeypatch.setattr(_sqlite, "_FORMAT", 2)
    embedder.transform(paths)
    assert sum(seen) == 24
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == [
        "embeddings-2.sqlite3",
        "embeddings-3.sqlite3",
    ]


# Images


def test_no_image_is_embedded_twice(embedder, paths, seen):
    uncached = clone(embedder).set_params(cache_dir=None).transform(paths)
    seen.clear()
    first = embedder.fit_transform(paths)
    np.testing.assert_array_equal(first, uncached)
    assert seen == [5, 5, 2]
    again = clone(embedder).fit_transform(paths[::-1])
    np.testing.assert_array_equal(again, first[::-1])
    unpickled = pickle.loads(pickle.dumps(embedder)).transform(paths[3:7])
    np.testing.assert_array_equal(unpickled, first[3:7])
    assert seen == [5, 5, 2]


def test_forms_of_one_content_share_an_entry(embedder, paths, seen, tmp_path):
    content = Path(paths[0]).read_bytes()
    shutil.copy(paths[0], tmp_path / "copy.bmp")
    pixels = np.asarray(Image.open(paths[0]))
    files = [paths[0], tmp_path / "copy.bmp", content, bytearray(content)]
    opened = io.BytesIO(content)
    opened.seek(7)
    tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    decoded = [pixels, Image.open(paths[0]), pixels / 255, tensor]
    embeddings = embedder.transform([*files, opened, *decoded])
    assert seen == [2], "the bytes and the pixels"
    for row in embeddings[1:]:
        np.testing.assert_allclose(row, embeddings[0], rtol=RTOL, atol=1e-5)
    embedder.transform(files[::-1] + decoded[::-1])
    assert seen == [2]


def test_sizes_of_equal_pixels_are_told_apart(embedder, seen):
    noise = np.random.default_rng(0).random((6, 10, 3))
    embedder.transform([noise, noise.reshape(10, 6, 3)])
    assert seen == [2]


def test_file_that_cannot_seek_is_embedded_and_not_kept(embedder, paths, seen):
    class Stream(io.BytesIO):
        def seek(self, *args):
            raise io.UnsupportedOperation("seek")

    content = Path(paths[0]).read_bytes()
    expected = embedder.transform(paths[:1])
    for n_batches in (2, 3):
        embeddings = embedder.transform([Stream(content)])
        np.testing.assert_allclose(embeddings, expected, rtol=RTOL, atol=1e-5)
        assert len(seen) == n_batches


def test_unchanged_file_is_not_read_again(embedder, paths, seen, settled, monkeypatch):
    first = embedder.transform(paths)
    monkeypatch.setattr(planner, "file_digest", pytest.fail)
    np.testing.assert_array_equal(embedder.transform(paths), first)


def test_file_just_written_is_read_again_until_its_times_can_tell(
    embedder, paths, seen, monkeypatch
):
    read = []
    hash_file = planner.file_digest

    def count(path, stamp):
        read.append(path)
        return hash_file(path, stamp)

    monkeypatch.setattr(planner, "file_digest", count)
    # However slow the machine is, the files are new.
    monkeypatch.setattr(_files, "_COARSEST_CLOCK", 10**20)
    embedder.transform(paths)
    embedder.transform(paths)
    assert len(read) == 36, "once more after embedding: the times do not tell yet"
    settle(monkeypatch)
    embedder.transform(paths)
    embedder.transform(paths)
    assert len(read) == 48
    assert sum(seen) == 12


@pytest.mark.parametrize("known", [True, False])
def test_changed_file_of_the_same_path_size_and_time_is_embedded_again(
    embedder, paths, seen, monkeypatch, known
):
    if known:
        settle(monkeypatch)
    age(paths[0])
    first = embedder.transform(paths)
    size = Path(paths[0]).stat().st_size
    Path(paths[0]).write_bytes(Path(paths[1]).read_bytes())
    age(paths[0])
    assert Path(paths[0]).stat().st_size == size
    changed = embedder.transform(paths)
    np.testing.assert_array_equal(changed[0], first[1])
    np.testing.assert_array_equal(changed[1:], first[1:])
    assert sum(seen) == 12, "the content is that of another"


def test_file_that_changes_while_it_is_embedded_is_not_kept(
    embedder, paths, monkeypatch
):
    embed = Backend.embed

    def replace_first(loaded, batch, precision):
        shutil.copy(paths[1], paths[0])
        return embed(loaded, batch, precision)

    monkeypatch.setattr(Backend, "embed", replace_first)
    embedder.transform(paths[:1])
    assert embedder.cache_info()["entries"] == 0


def test_equal_images_of_one_call_are_embedded_once(embedder, paths, seen):
    embeddings = embedder.transform([paths[0], paths[1], paths[0], paths[0]])
    assert seen == [2]
    np.testing.assert_array_equal(embeddings[[2, 3]], embeddings[[0, 0]])


def test_bad_images_are_named_and_never_kept(embedder, paths, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    shutil.copy(tmp_path / "bad.png", tmp_path / "same.png")
    bad = [str(tmp_path / name) for name in ("bad.png", "same.png", "none.png")]
    images = [paths[0], bad[0], paths[1], bad[1], bad[2], None, str(tmp_path), "\0"]
    with pytest.raises(ValueError, match=r"Cannot read X\[1\] \('.*bad.png'\)"):
        embedder.transform(images)
    embedder.set_params(on_error="nan")
    for _ in range(2):
        with pytest.warns(UserWarning, match="Cannot read 6 of 8 images") as caught:
            embeddings = embedder.transform(images)
        message = str(caught[0].message)
        places = [message.index(f"X[{row}]") for row in (1, 3, 4, 5, 6, 7)]
        assert places == sorted(places)
        assert "same.png" in message
        assert np.isnan(embeddings).all(axis=1).nonzero()[0].tolist() == [
            1, 3, 4, 5, 6, 7,
        ]  # fmt: skip
    assert embedder.cache_info()["entries"] == 2


def test_images_are_made_one_at_a_time(embedder):
    alive, most = set(), [0]

    class Lazy:
        def __len__(self):
            return 40

        def __getitem__(self, position):
            array = np.full((8, 8), position / 40).view(Watched)
            alive.add(id(array))
            most[0] = max(most[0], len(alive))
            return array

    class Watched(np.ndarray):
        def __del__(self):
            alive.discard(id(self))

    embedder.transform(Lazy())
    assert most[0] <= 3 * embedder.batch_size


# Models


def test_cached_images_need_no_model_and_no_torch(model, paths, tmp_path):
    embedder = CLIPEmbedder(str(model), cache_dir=tmp_path / "cache")
    # The model's files were copied just now: their times tell nothing yet.
    while time.time_ns() < max(p.stat().st_ctime_ns for p in model.iterdir()) + 2.1e9:
        time.sleep(0.05)
    before = embedder.fit_transform(paths)
    code = (
        "import pickle, sys; embedder, paths = pickle.load(sys.stdin.buffer);"
        "embeddings = embedder.fit_transform(paths);"
        "names = embedder.get_feature_names_out();"
        "assert 'torch' not in sys.modules and 'open_clip' not in sys.modules;"
        "sys.stdout.buffer.write(pickle.dumps((embeddings, names)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps((embedder, paths)),
        capture_output=True,
        check=True,
    )
    after, names = pickle.loads(done.stdout)
    np.testing.assert_array_equal(after, before)
    assert names[0] == "model_00"


@pytest.mark.parametrize("written", ["long ago", "just now"])
def test_changed_weights_under_one_name_never_get_old_embeddings(
    model, paths, tmp_path, seen, monkeypatch, written
):
    if written == "long ago":
        settle(monkeypatch)
    embedder = CLIPEmbedder(str(model), device="cpu", cache_dir=tmp_path / "cache")
    before = embedder.transform(paths)
    file = model / "open_clip_model.safetensors"
    old = file.read_bytes()
    state = load_file(file)
    state["visual.attnpool.c_proj.bias"] += 1
    save_file(state, file)
    age(file)
    after = embedder.transform(paths)
    np.testing.assert_allclose(after, before + 1, rtol=RTOL, atol=1e-5)
    assert sum(seen) == 24
    file.write_bytes(old)
    np.testing.assert_array_equal(embedder.transform(paths), before)
    assert sum(seen) == 24


def test_activation_and_preprocessing_are_part_of_the_model(model, tmp_path, paths):
    embedder = CLIPEmbedder(str(model), device="cpu", cache_dir=tmp_path / "cache")
    embedder.transform(paths[:1])
    config = model / "open_clip_config.json"
    text = config.read_text()
    for old, new in (
        ('"embed_dim"', '"quick_gelu": true, "embed_dim"'),
        ("0.48145466", "0.5"),
    ):
        config.write_text(text.replace(old, new))
        assert config.read_text() != text
        embedder.transform(paths[:1])
    assert embedder.cache_info()["entries"] == 3


def test_precisions_are_kept_apart_and_devices_are_not(model, tmp_path, monkeypatch):
    known = models.KnownModel("m", "m", 4, "f", "p")
    spaces = {
        keys.image_space(known._replace(**change), precision)
        for change in ({}, {"fingerprint": "g"}, {"preprocess": "q"})
        for precision in ("fp32", "bf16", "fp16")
    }
    assert len({space.name for space in spaces}) == 9
    embedder = CLIPEmbedder(str(model), device="cuda", cache_dir=tmp_path)
    monkeypatch.setattr(_embedder, "resolve_device", pytest.fail)
    assert embedder._precision() == "fp32"
    monkeypatch.setattr(_embedder, "resolve_device", lambda device: "cuda")
    assert embedder.set_params(precision="bf16")._precision() == "bf16"


# Threads and processes


def test_threads_share_a_folder(embedder, paths, seen):
    found = [None] * 6

    def work(place):
        order = np.random.default_rng(place).permutation(12)
        rows = clone(embedder).transform([paths[i] for i in order])
        found[place] = rows[np.argsort(order)]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for rows in found:
        np.testing.assert_allclose(rows, found[0], rtol=RTOL, atol=1e-5)
    assert embedder.cache_info()["entries"] == 12


WRITER = """
import sys, time
import numpy as np
from skbridge._cache.keys import Space
from skbridge._cache.sqlite import SQLiteStore
folder, first, n_batches = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
cache = SQLiteStore(folder)
space = Space("a" * 40, "a model")
for batch in range(first, first + n_batches):
    cache.put(space, {
        (50 * batch + i).to_bytes(20, "big"): np.full(512, 50 * batch + i, "f4")
        for i in range(50)
    })
    print(batch, flush=True)
"""


def test_killed_writer_loses_nothing_committed(cache):
    command = [sys.executable, "-c", WRITER, str(cache.folder), "0", "1000000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        committed = [int(writer.stdout.readline()) for _ in range(20)]
        writer.send_signal(signal.SIGKILL)
        committed += [int(line) for line in writer.stdout]
    assert writer.returncode == -signal.SIGKILL
    for batch in range(committed[-1] + 3):
        found = cache.get(SPACE, [digest(50 * batch + i) for i in range(50)])
        assert len(found) == 50 if batch <= committed[-1] else len(found) in (0, 50)
        for key, vector in found.items():
            assert (vector == int.from_bytes(key, "big")).all()


def test_processes_write_and_read_at_once(cache):
    commands = [
        [sys.executable, "-W", "error", "-c", WRITER, str(cache.folder), str(first), n]
        for first, n in ((0, "20"), (10, "20"), (20, "20"))
    ]
    writers = [subprocess.Popen(c, stdout=subprocess.PIPE) for c in commands]
    while any(writer.poll() is None for writer in writers):
        found = cache.get(SPACE, [digest(i) for i in range(2000)])
        for key, vector in found.items():
            assert (vector == int.from_bytes(key, "big")).all()
    for writer in writers:
        assert writer.communicate() is not None
        assert writer.returncode == 0
    assert len(cache.get(SPACE, [digest(i) for i in range(2000)])) == 2000


def test_search_in_two_processes_embeds_each_image_once(embedder, paths, seen):
    embedder.transform(paths)
    seen.clear()
    y = np.arange(12) % 2
    pipeline = make_pipeline(embedder, LogisticRegression())
    grid = {"logisticregression__C": [0.1, 1.0]}
    search = GridSearchCV(pipeline, grid, cv=2, n_jobs=2).fit(paths, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert seen == []
    assert embedder.cache_info()["entries"] == 12
    alone = GridSearchCV(pipeline, grid, cv=2).fit(paths, y)
    np.testing.assert_array_equal(
        search.cv_results_["mean_test_score"], alone.cv_results_["mean_test_score"]
    )


def test_search_embeds_each_image_once(embedder, paths, seen):
    y = np.arange(12) % 2
    pipeline = make_pipeline(embedder, LogisticRegression())
    grid = {"logisticregression__C": [0.1, 1.0, 10.0, 100.0]}
    GridSearchCV(pipeline, grid, cv=3).fit(paths, y)
    assert sum(seen) == 12


# Inspecting and clearing


def test_cache_can_be_inspected_and_cleared(embedder, paths, capsys, monkeypatch):
    info = embedder.cache_info()
    assert (info["entries"], info["bytes"], info["spaces"]) == (0, 0, {})
    assert embedder.clear_cache() == 0
    assert not embedder.cache_dir.exists(), "asking makes no folder"
    embedder.transform(paths)
    label = f"{Path(embedder.model).name}, images, fp32"
    assert embedder.cache_info()["spaces"] == {label: 12}
    folder = str(embedder.cache_dir)
    main(["cache", "info", "--dir", folder])
    shown = capsys.readouterr().out
    assert f"12  {label}" in shown
    assert "of at most 4 GB" in shown
    monkeypatch.setenv("SKBRIDGE_CACHE_DIR", folder)
    main(["cache", "limit", "2.5MB"])
    assert "of at most 2.5 MB" in capsys.readouterr().out
    main(["cache", "clear"])
    assert capsys.readouterr().out == "12 entries removed.\n"
    info = embedder.cache_info()
    assert (info["entries"], info["limit"], info["spaces"]) == (0, 2500000, {})


@pytest.mark.parametrize("size", ["10XB", "", "-1GB", "3kB"])
def test_command_refuses_what_is_no_size(size, capsys):
    with pytest.raises(SystemExit):
        main(["cache", "limit", f" {size}"])
    assert "expected" in capsys.readouterr().err


def test_command_runs_as_a_module(tmp_path):
    command = [sys.executable, "-m", "skbridge", "cache", "info", "--dir", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "entries  0" in done.stdout


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_named_pipe_is_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    model = CLIPEmbedder(
        "skbridge-tiny", device="cpu", on_error="nan", cache_dir=tmp_path / "cache"
    )
    with pytest.warns(UserWarning, match="named pipe"):
        assert np.isnan(model.transform([tmp_path / "pipe.png"])).all()


def test_file_is_hashed_without_reading_it_whole(tmp_path, monkeypatch):
    file = tmp_path / "large.png"
    file.write_bytes(b"x" * 10**6)
    monkeypatch.setattr(Path, "read_bytes", None)
    expected = keys.image_digest(io.BytesIO(b"x" * 10**6))
    assert keys.file_digest(file, _files.file_stamp(file)) == expected
    assert keys.image_digest(io.BytesIO(b"x" * 10**6)) == expected


@pytest.mark.parametrize("empty", ["", "  "])
def test_empty_cache_dir_is_an_error_that_names_it(empty, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    model = CLIPEmbedder("skbridge-tiny", device="cpu", cache_dir=empty)
    with pytest.raises(ValueError, match="cache_dir must be a folder, 'auto' or None"):
        model.transform([np.zeros((4, 4), np.uint8)])
    assert not any(tmp_path.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions")
def test_new_cache_is_open_to_its_owner_only(tmp_path):
    before = os.umask(0o002)
    try:
        cache = SQLiteStore(tmp_path / "new")
        cache.put(SPACE, {digest(1): np.ones(2)})
        modes = {path.name: path.stat().st_mode for path in cache.folder.iterdir()}
    finally:
        os.umask(before)
    assert cache.folder.stat().st_mode & 0o777 == 0o700
    assert len(modes) > 1
    assert {mode & 0o777 for mode in modes.values()} == {0o600}
    cache.close()


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions")
def test_permissions_of_a_folder_that_was_there_are_kept(tmp_path):
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o755)
    cache = SQLiteStore(folder)
    cache.put(SPACE, {digest(1): np.ones(2)})
    cache.close()
    assert folder.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize(
    "damage",
    [
        """replace(text, '"embed_dim": 192', '"embed_dim": 193')""",
        """replace(text, '"embed_dim": 192', '"embed_dim": 19"')""",
        "cast(x'ff' as text)",
        "x'ff'",
        "'[1]'",
        "7",
    ],
)
def test_damaged_facts_of_a_model_are_found_out_again(tmp_path, settled, damage):
    model = CLIPEmbedder("skbridge-tiny", device="cpu", cache_dir=tmp_path)
    X = [np.zeros((8, 8), np.uint8)]
    expected = model.transform(X)
    with closing(sqlite3.connect(tmp_path / "embeddings-2.sqlite3")) as connection:
        (before,) = connection.execute("SELECT text FROM facts").fetchone()
        with connection:
            connection.execute(f"UPDATE facts SET text = {damage}")
        with pytest.warns(UserWarning, match="1 entries of the cache .* are damaged"):
            np.testing.assert_array_equal(model.transform(X), expected)
        assert connection.execute("SELECT text FROM facts").fetchone() == (before,)


def test_damaged_record_of_a_file_is_a_miss(embedder, paths, settled, tmp_path):
    expected = embedder.transform(paths)
    with (
        closing(sqlite3.connect(tmp_path / "cache/embeddings-2.sqlite3")) as connection,
        connection,
    ):
        # The digests of other files, as a flipped bit in an index may show them.
        connection.execute(
            "UPDATE files SET digest = (SELECT digest FROM entries WHERE id = 1)"
        )
    with pytest.warns(UserWarning, match="entries of the cache .* are damaged"):
        np.testing.assert_array_equal(embedder.transform(paths), expected)
    np.testing.assert_array_equal(embedder.transform(paths), expected)


# What is embedded is what was hashed


class Random:
    """A sequence that makes another item at each access."""

    def __init__(self, make):
        self.make = make
        self.made = []

    def __len__(self):
        return 20

    def __getitem__(self, position):
        self.made.append(self.make())
        return self.made[-1]


def as_file(image):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream


@pytest.mark.parametrize(
    "form", [np.array, Image.fromarray, as_file, lambda x: as_file(x).getvalue()]
)
def test_sequence_that_makes_random_images_poisons_nothing(embedder, form):
    rng = np.random.default_rng(0)
    images = Random(lambda: form(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)))
    embedder.transform(images)
    uncached = clone(embedder).set_params(cache_dir=None)
    for made in (images.made[:20], images.made[20:]):
        expected = uncached.transform(made)
        np.testing.assert_allclose(
            embedder.transform(made), expected, rtol=RTOL, atol=1e-5
        )


def test_sequence_that_makes_random_paths_poisons_nothing(embedder, paths, settled):
    rng = np.random.default_rng(0)
    images = Random(lambda: paths[rng.integers(12)])
    rows = embedder.transform(images)
    uncached = clone(embedder).set_params(cache_dir=None)
    expected = uncached.transform(paths)
    np.testing.assert_allclose(
        embedder.transform(paths), expected, rtol=RTOL, atol=1e-5
    )
    # All are embedded as they were fetched the second time.
    second = [paths.index(path) for path in images.made[20:]]
    np.testing.assert_allclose(rows, expected[second], rtol=RTOL, atol=1e-5)


def test_images_that_a_sequence_makes_anew_are_found_again(embedder, paths, seen):
    images = Random(lambda: np.asarray(Image.open(paths[0])))
    first = embedder.transform(images)
    seen.clear()
    np.testing.assert_allclose(embedder.transform(images), first, rtol=RTOL, atol=1e-5)
    assert seen == []


@pytest.fixture
def clock_stands_still(monkeypatch):
    """All files have the same times."""
    at = [10**18]
    real = _files.file_stamp

    def stamp(path):
        taken = real(path)
        return taken and taken._replace(modified=at[0], changed=at[0])

    monkeypatch.setattr(planner, "file_stamp", stamp)
    monkeypatch.setattr(keys, "file_stamp", stamp)
    return at


def test_another_file_of_the_same_path_size_and_times_is_embedded(
    embedder, paths, tmp_path, clock_stands_still
):
    for folder, path in (("A", paths[0]), ("B", paths[1])):
        (tmp_path / folder).mkdir()
        shutil.copy(path, tmp_path / folder / "image.bmp")
    (tmp_path / "current").symlink_to("A")
    image = [tmp_path / "current" / "image.bmp"]
    first = embedder.transform(image)
    np.testing.assert_array_equal(embedder.transform(image), first)
    (tmp_path / "current").unlink()
    (tmp_path / "current").symlink_to("B")
    np.testing.assert_allclose(
        embedder.transform(image), embedder.transform(paths[1:2]), rtol=RTOL, atol=1e-5
    )


def test_file_that_changes_within_a_tick_of_the_clock_is_not_kept(
    embedder, paths, monkeypatch, clock_stands_still
):
    clock_stands_still[0] = time.time_ns()
    embed = Backend.embed

    def overwrite(loaded, batch, precision):
        Path(paths[0]).write_bytes(Path(paths[1]).read_bytes())
        return embed(loaded, batch, precision)

    monkeypatch.setattr(Backend, "embed", overwrite)
    embedder.transform(paths[:1])
    assert embedder.cache_info()["entries"] == 0


# Who else can write


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions")
@pytest.mark.parametrize(
    ("mode", "who"), [(0o770, "its group"), (0o777, "everybody"), (0o1777, "everybody")]
)
@pytest.mark.parametrize("what", ["folder", "file"])
def test_cache_that_others_can_write_is_refused_with_the_reason(
    embedder, paths, seen, what, mode, who
):
    expected = embedder.transform(paths)
    folder = embedder.cache_dir
    path = folder if what == "folder" else folder / "embeddings-2.sqlite3"
    path.chmod(mode)
    with pytest.warns(UserWarning, match=f"can be written by {who}; run: chmod go-w"):
        found = embedder.transform(paths)
    np.testing.assert_array_equal(found, expected)
    assert sum(seen) == 24
    path.chmod(0o700)
    embedder.transform(paths)
    assert sum(seen) == 24


@pytest.mark.skipif(
    not hasattr(os, "getuid") or os.getuid() != 0, reason="needs to be root"
)
def test_cache_of_another_user_is_refused_with_the_reason(embedder, paths, tmp_path):
    (tmp_path / "cache").mkdir(mode=0o700)
    os.chown(tmp_path / "cache", 12345, 12345)
    with pytest.warns(UserWarning, match="belongs to another user, of id 12345"):
        embedder.transform(paths)
    assert not any((tmp_path / "cache").iterdir())


# Fork


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_fork_while_the_cache_is_in_use_leaves_it_to_the_parent(cache):
    code = """
import os, sys, warnings
import numpy as np
from skbridge._cache.keys import Space
from skbridge._cache.sqlite import SQLiteStore
space = Space("a" * 40, "a model")
store = SQLiteStore(sys.argv[1])
store.put(space, {b"1" * 20: np.ones(3)})
if os.fork() == 0:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        store.put(space, {b"2" * 20: np.ones(3)})
        assert not SQLiteStore(sys.argv[1]).get(space, [b"1" * 20])
    (warning,) = told
    os.write(1, str(warning.message).encode())
    os._exit(0)
assert os.wait()[1] == 0
store.put(space, {b"3" * 20: np.ones(3)})
store.close()
if os.fork() == 0:
    assert SQLiteStore(sys.argv[1]).get(space, [b"1" * 20])
    os._exit(0)
assert os.wait()[1] == 0
"""
    command = [sys.executable, "-W", "ignore:This process", "-c", code, cache.folder]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "in use when this process was forked" in done.stdout
    assert "'spawn' or with joblib's 'loky'" in done.stdout
    found = cache.get(SPACE, [b"1" * 20, b"2" * 20, b"3" * 20])
    assert found.keys() == {b"1" * 20, b"3" * 20}


# Any content of the file


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE settings SET value = 'much'",
        "UPDATE settings SET value = -1",
        "UPDATE entries SET used = 'never'",
        "UPDATE entries SET size = x'00'",
        "UPDATE entries SET digest = 'text' || id",
        "UPDATE vectors SET checksum = 'none'",
        "UPDATE vectors SET vector = 7",
        "UPDATE vectors SET vector = substr(vector, 2)",
        "UPDATE spaces SET label = x'ff'",
        "UPDATE spaces SET name = cast(x'ff' as text)",
        "UPDATE files SET stamp = 3.5, checksum = x'00'",
        "DROP TABLE vectors",
        "ALTER TABLE entries RENAME COLUMN used TO spent",
        "DELETE FROM spaces",
        # Names that Python cannot decode in SQLite's own message.
        "PRAGMA writable_schema = ON; "
        "UPDATE sqlite_master SET name = cast(x'f3' AS TEXT) WHERE name = 'facts'",
    ],
)
def test_unexpected_content_is_a_miss_and_at_most_one_warning(
    embedder, paths, settled, statement
):
    embedder.transform(paths)
    expected = clone(embedder).set_params(cache_dir=None).transform(paths)
    with embedder._open_named_cache() as store:
        store.set_limit(10**7)
    file = embedder.cache_dir / "embeddings-2.sqlite3"
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(statement)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(2):
            np.testing.assert_allclose(
                embedder.transform(paths), expected, rtol=RTOL, atol=1e-5
            )
            assert embedder.cache_info()["limit"] >= 10**6
    assert len(told) <= 1


class Changing:
    """An unopened file whose content is another at each opening."""

    def __init__(self, contents):
        self.contents = iter(contents)

    def open(self, mode):
        return io.BytesIO(next(self.contents))


def test_unopened_file_that_changes_poisons_nothing(embedder):
    rng = np.random.default_rng(0)
    contents = [
        as_file(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).getvalue()
        for _ in range(2)
    ]
    (row,) = embedder.transform([Changing(contents)])
    uncached = clone(embedder).set_params(cache_dir=None)
    expected = uncached.transform(contents)
    np.testing.assert_allclose(row, expected[1], rtol=RTOL, atol=1e-5)
    np.testing.assert_allclose(
        embedder.transform(contents), expected, rtol=RTOL, atol=1e-5
    )
