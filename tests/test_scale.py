"""Runs of many shards, with and without Ray, and what becomes of bad input."""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from photo_folders import write_bad_photos, write_photos
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

pa = pytest.importorskip("pyarrow")
import pyarrow.parquet as pq  # noqa: E402

from skbridge import BridgedGDAClassifier, CLIPEmbedder  # noqa: E402
from skbridge.photos import fit_photos  # noqa: E402
from skbridge.scale import (  # noqa: E402
    embed_dataset,
    iter_embeddings,
    load_embeddings,
    predict_dataset,
)

EMBEDDER = CLIPEmbedder("skbridge-tiny", device="cpu", num_workers=0)
STYLES = ["noto", "twemoji"]
N_IMAGES = int(os.environ.get("SKBRIDGE_SCALE_IMAGES", "400"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Twenty photographs in five folders, and their paths."""
    folder = write_photos(
        tmp_path_factory.mktemp("photos"), [*STYLES, "fxemoji", "noto-v1"]
    )
    return folder, sorted(str(path) for path in folder.glob("*/*.png"))


@pytest.fixture(scope="module")
def expected(photos):
    return EMBEDDER.transform(photos[1])


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    """Folder of a finished run."""
    return embed_here(photos[0], tmp_path_factory.mktemp("run") / "run")


def embed_here(source, output, **options):
    options = {"n_actors": 0, "shard_size": 7, **options}
    return embed_dataset(source, EMBEDDER, output, **options)


def write_tar(path, files):
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def read_all(run):
    return pa.concat_tables(pq.read_table(f) for f in sorted(run.glob("*.parquet")))


# Sources


def assert_same(run, paths, embeddings):
    found = load_embeddings(run)
    assert found.paths.to_pylist() == paths
    np.testing.assert_allclose(found.embeddings, embeddings, atol=1e-4)
    assert found.embeddings.dtype == np.float32
    assert not found.unreadable


@pytest.mark.parametrize("form", ["folder", "text", "pattern", "list", "url", "urls"])
def test_files_are_embedded_in_order(photos, expected, tmp_path, form):
    folder, paths = photos
    source = {
        "folder": folder,
        "text": str(folder),
        "pattern": f"{folder}/**/*.png",
        "list": paths,
        "url": folder.as_uri(),
        "urls": f"{folder.as_uri()}/*/*.png",
    }[form]
    if form.startswith("url"):
        pytest.importorskip("fsspec")
        paths = [Path(path).as_uri() for path in paths]
    run = embed_here(source, tmp_path / "run")
    assert_same(run, paths, expected)
    assert len(list(run.glob("shard-*.parquet"))) == 3


def test_files_named_without_suffix_are_images(photos, expected, tmp_path):
    bare = tmp_path / "picture"
    bare.write_bytes(Path(photos[1][0]).read_bytes())
    assert_same(embed_here([bare], tmp_path / "run"), [str(bare)], expected[:1])


def test_images_of_archives_are_embedded(photos, expected, tmp_path):
    paths = photos[1]
    names = []
    for i, part in enumerate([paths[:8], paths[8:]]):
        files = {
            f"{j}/{Path(path).name}": Path(path).read_bytes()
            for j, path in enumerate(part)
        }
        archive = write_tar(tmp_path / f"{i}.tar", files | {f"{i}.json": b"{}"})
        names += [f"tar://{name}::{archive}" for name in files]
    run = embed_here(tmp_path / "*.tar", tmp_path / "run")
    assert_same(run, names, expected)
    pytest.importorskip("fsspec")
    np.testing.assert_allclose(EMBEDDER.transform(names[:2]), expected[:2], atol=1e-4)


@pytest.mark.parametrize("form", ["bytes", "records", "paths", "bytes and paths"])
def test_images_of_tables_are_embedded(photos, expected, tmp_path, form):
    paths = photos[1]
    content = [Path(path).read_bytes() for path in paths]
    table = tmp_path / "images.parquet"
    columns = {
        "bytes": {"picture": content},
        "records": {
            "image": [
                {"bytes": one, "path": path}
                for one, path in zip(content, paths, strict=True)
            ]
        },
        "paths": {"path": paths},
        "bytes and paths": {"bytes": content, "path": paths},
    }[form]
    pq.write_table(pa.table(columns), table, row_group_size=6)
    column = "picture" if form == "bytes" else None
    run = embed_here(table, tmp_path / "run", column=column)
    rows = [f"{table}#{row}" for row in range(len(paths))]
    assert_same(run, rows if form == "bytes" else paths, expected)
    # Row groups of 6 rows make shards of at least 7.
    assert len(list(run.glob("shard-*.parquet"))) == 2


def test_equal_sources_have_equal_shards(photos, tmp_path):
    runs = [embed_here(photos[0], tmp_path / name) for name in "ab"]
    first, second = (json.loads((run / "manifest.json").read_text()) for run in runs)
    assert first == second


def test_half_precision_is_half_the_bytes(photos, expected, tmp_path):
    run = embed_here(photos[0], tmp_path / "run", dtype="float16")
    kind = pq.read_schema(run / "shard-000000.parquet").field("embedding").type
    assert kind == pa.list_(pa.float16(), EMBEDDER.transform(photos[1][:1]).shape[1])
    np.testing.assert_allclose(
        load_embeddings(run).embeddings, expected, rtol=1e-3, atol=1e-3
    )


# Bad images


def test_bad_images_are_rows_with_their_reasons(photos, tmp_path):
    bad = tmp_path / "bad"
    write_bad_photos(bad)
    names = sorted(str(path) for path in bad.iterdir() if path.is_file())
    run = embed_here([*photos[1], *names], tmp_path / "run")
    tables = read_all(run)
    assert tables["path"].to_pylist() == [*photos[1], *names]
    n_bad = len(names)
    assert tables["error"].null_count == len(photos[1])
    is_nan = np.isnan(np.stack(tables["embedding"].to_numpy())).all(axis=1)
    assert is_nan.sum() == n_bad
    found = load_embeddings(run)
    assert set(found.unreadable) == set(names)
    assert found.unreadable[str(bad / "empty.jpg")] == "the file is empty"
    assert len(found.paths) == len(found.embeddings) == len(photos[1])
    assert np.isfinite(found.embeddings).all()
    shards = list(iter_embeddings(run))
    np.testing.assert_array_equal(
        np.concatenate([shard.embeddings for shard in shards]), found.embeddings
    )
    assert sum(len(shard.unreadable) for shard in shards) == n_bad


def test_missing_image_of_a_table_is_a_row(photos, tmp_path):
    content = [Path(photos[1][0]).read_bytes(), None]
    pq.write_table(pa.table({"image": content}), tmp_path / "a.parquet")
    found = load_embeddings(embed_here(tmp_path / "a.parquet", tmp_path / "run"))
    assert list(found.unreadable) == [f"{tmp_path / 'a.parquet'}#1"]
    assert len(found.embeddings) == 1


@pytest.mark.parametrize("damage", ["middle", "header", "end mark", "nothing"])
def test_damaged_archives_are_told_of(photos, tmp_path, damage):
    files = {
        f"{i}.png": Path(path).read_bytes() for i, path in enumerate(photos[1][:3])
    }
    archive = write_tar(tmp_path / "a.tar", files)
    content = bytearray(archive.read_bytes())
    with tarfile.open(archive) as whole:
        last = whole.getmembers()[-1]
    if damage == "middle":
        del content[last.offset_data + 100 :]
    elif damage == "header":
        content[last.offset : last.offset + 512] = b"x" * 512
    elif damage == "end mark":
        del content[last.offset_data + -(-last.size // 512) * 512 :]
    else:
        content = b"nothing"
    archive.write_bytes(content)
    run = embed_here(archive, tmp_path / "run")
    table = pq.read_table(run / "shard-000000.parquet")
    lost = table.filter(table["error"].is_valid()).to_pylist()
    n_whole = {"middle": 2, "header": 2, "end mark": 3, "nothing": 0}[damage]
    assert table["error"].null_count == n_whole
    assert lost[-1]["path"] == str(archive)
    assert "archive" in lost[-1]["error"]


def test_files_of_other_kinds_are_told_of(photos, tmp_path):
    for name in ("notes.txt", "raw.cr2", ".hidden.png"):
        (tmp_path / name).write_text("x")
    (tmp_path / "a.png").write_bytes(Path(photos[1][0]).read_bytes())
    with pytest.warns(UserWarning, match=r"left out: 1 .*, 1 ") as told:
        run = embed_here(tmp_path, tmp_path.parent / f"{tmp_path.name}-run")
    assert told[0].filename == __file__
    assert load_embeddings(run).paths.to_pylist() == [str(tmp_path / "a.png")]


# Resuming


def test_only_missing_shards_are_made_again(photos, run, expected, tmp_path):
    again = embed_here(photos[0], tmp_path / "run")
    (again / "shard-000001.parquet").unlink()
    (again / ".shard-000001.parquet.0123").write_text("half of a killed process")
    before = {path: path.stat().st_mtime_ns for path in again.glob("shard-*")}
    with pytest.raises(ValueError, match="not finished: 1 of 3 shards"):
        load_embeddings(again)
    embed_here(photos[0], again)
    after = {path: path.stat().st_mtime_ns for path in again.glob("shard-*")}
    assert after.items() > before.items()
    assert_same(again, photos[1], expected)
    assert not list(again.glob(".shard*"))


def test_other_runs_are_not_continued(photos, run):
    with pytest.raises(ValueError, match="output is not empty"):
        embed_here(photos[0], run, resume=False)
    with pytest.raises(ValueError, match=r"another run.*dtype 'float32' in place of"):
        embed_here(photos[0], run, dtype="float16")
    with pytest.raises(ValueError, match=r"another run.*images"):
        embed_here(photos[1][1:], run)


def test_folders_of_other_content_are_refused(photos, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds no run of skbridge"):
        embed_here(photos[0], tmp_path)
    with pytest.raises(ValueError, match="output is a file"):
        embed_here(photos[0], tmp_path / "mine.txt")
    with pytest.raises(ValueError, match="a folder that all machines see, got 's3:"):
        embed_here(photos[0], "s3://bucket/run")
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_damaged_shard_is_named(photos, tmp_path):
    run = embed_here(photos[0], tmp_path / "run")
    (run / "shard-000002.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"shard-000002.parquet' is damaged"):
        load_embeddings(run)


def test_full_disk_leaves_the_finished_shards(photos, tmp_path, monkeypatch):
    from skbridge.scale import _folder

    written = _folder.written_atomically

    def full(path):
        if "000001" in str(path):
            raise OSError(28, "No space left on device")
        return written(path)

    monkeypatch.setattr(_folder, "written_atomically", full)
    with pytest.raises(OSError, match="No space left"):
        embed_here(photos[0], tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").glob("shard*")] == [
        "shard-000000.parquet"
    ]


# Sources that are refused


@pytest.mark.parametrize(
    ("files", "error", "message"),
    [
        ([], ValueError, "There are no images"),
        (["a.txt"], ValueError, "There are no images"),
        (["a.png", "b.tar"], ValueError, "one kind, got 1 images and 1 tar archives"),
        (["b.tar.gz"], ValueError, "compressed archives"),
        (["a.parquet"], ValueError, "not a Parquet file that can be read"),
    ],
)
def test_sources_without_images_of_one_kind(tmp_path, files, error, message):
    source = tmp_path / "source"
    source.mkdir()
    for name in files:
        (source / name).write_bytes(b"x")
    with pytest.raises(error, match=message):
        embed_here(source, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("source", ["no/such/folder", "no/*.png"])
def test_source_that_is_not_there(tmp_path, source):
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        embed_here(tmp_path / source, tmp_path / "run")


@pytest.mark.parametrize("source", [3, None, [b"a.png"], {"a.png"}])
def test_source_of_another_type(tmp_path, source):
    with pytest.raises(TypeError, match=r"source must be a path, .* got "):
        embed_here(source, tmp_path / "run")


def test_tables_without_the_column(photos, tmp_path):
    table = tmp_path / "a.parquet"
    pq.write_table(pa.table({"url": ["a"], "bytes": [1]}), table)
    with pytest.raises(ValueError, match="no column 'image'; its columns are 'url'"):
        embed_here(table, tmp_path / "run", column="image")
    with pytest.raises(ValueError, match=r"'bytes' of .* holds 'int64', and no files"):
        embed_here(table, tmp_path / "run")
    with pytest.raises(ValueError, match="column='image' is that of Parquet files"):
        embed_here(photos[0], tmp_path / "run", column="image")


def test_packages_that_are_not_installed(photos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"needs the package ray.*skbridge\[ray\]"):
        embed_here(photos[0], tmp_path / "run", n_actors=1)


# Predictions


@pytest.fixture(scope="module")
def labels(photos):
    return np.array([Path(path).parent.name for path in photos[1]])


def test_labels_are_those_of_the_classifier(photos, run, expected, labels, tmp_path):
    classifier = BridgedGDAClassifier(None).fit(expected, labels)
    output = predict_dataset(classifier, run, tmp_path / "labels", n_actors=0)
    table = read_all(output)
    assert table["path"].to_pylist() == photos[1]
    assert table["label"].to_pylist() == classifier.predict(expected).tolist()
    np.testing.assert_allclose(
        table["probability"], classifier.predict_proba(expected).max(axis=1), rtol=1e-4
    )
    assert table["unknown"].to_pylist() == [False] * len(labels)
    assert table["error"].null_count == len(labels)


def test_pipelines_and_photo_models_predict(photos, run, expected, labels, tmp_path):
    classifier = LogisticRegression().fit(expected, labels)
    pipeline = Pipeline([("clip", EMBEDDER), ("clf", classifier)])
    first = predict_dataset(pipeline, run, tmp_path / "pipeline", n_actors=0)
    pipeline = Pipeline([("clip", EMBEDDER), ("clf", BridgedGDAClassifier(None))])
    model = fit_photos(pipeline, photos[1], labels.tolist())
    model.save(tmp_path / "model.skb")
    second = predict_dataset(model, run, tmp_path / "model", n_actors=0)
    third = predict_dataset(tmp_path / "model.skb", run, tmp_path / "file", n_actors=0)
    for output in (first, second, third):
        table = pq.read_table(output / "shard-000000.parquet")
        assert table["label"].to_pylist() == labels[:7].tolist()


def test_rows_without_an_embedding_have_no_label(photos, expected, labels, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"")
    run = embed_here([photos[1][0], tmp_path / "bad.png"], tmp_path / "run")
    classifier = BridgedGDAClassifier(None).fit(expected, labels)
    output = predict_dataset(classifier, run, tmp_path / "labels", n_actors=0)
    rows = pq.read_table(output / "shard-000000.parquet").to_pylist()
    assert rows[1] == {
        "path": str(tmp_path / "bad.png"),
        "label": None,
        "probability": None,
        "unknown": None,
        "error": "the file is empty",
    }
    assert rows[0]["label"] == labels[0]


def test_rejected_images_are_unknown(run, expected, labels, tmp_path):
    classifier = BridgedGDAClassifier(None, reject=0.5).fit(expected, labels)
    output = predict_dataset(classifier, run, tmp_path / "labels", n_actors=0)
    table = pq.read_table(output / "shard-000000.parquet")
    answers = classifier.predict(load_embeddings(run).embeddings[:7])
    is_unknown = answers == "unknown"
    assert table["unknown"].to_pylist() == is_unknown.tolist()
    assert set(table["label"].to_pylist()) <= set(labels)


def test_models_that_do_not_suit_the_embeddings(run, expected, labels, tmp_path):
    classifier = BridgedGDAClassifier(None).fit(expected[:, :5], labels)
    with pytest.raises(ValueError, match="width is 192, and that of the model is 5"):
        predict_dataset(classifier, run, tmp_path / "labels", n_actors=0)
    classifier = BridgedGDAClassifier(None).fit(expected, labels)
    half = CLIPEmbedder("skbridge-tiny", precision="bf16")
    with pytest.raises(ValueError, match="precision is 'auto'"):
        predict_dataset(
            Pipeline([("clip", half), ("clf", classifier)]), run, tmp_path / "labels"
        )
    with pytest.raises(TypeError, match="must be a classifier with predict_proba"):
        predict_dataset(EMBEDDER, run, tmp_path / "labels")
    predict_dataset(classifier, run, tmp_path / "labels", n_actors=0)
    with pytest.raises(ValueError, match="holds predictions; expected embeddings"):
        load_embeddings(tmp_path / "labels")
    other = BridgedGDAClassifier(None, shrinkage=1.0).fit(expected, labels)
    with pytest.raises(ValueError, match=r"another run.*classifier"):
        predict_dataset(other, run, tmp_path / "labels", n_actors=0)


# A Ray cluster on this machine

ray = pytest.mark.skipif(
    sys.platform == "win32", reason="processes are killed by POSIX signals"
)
SCRIPT = """
import sys
from skbridge import CLIPEmbedder
from skbridge.scale import embed_dataset
source, output = sys.argv[1:]
embedder = CLIPEmbedder("skbridge-tiny", device="cpu", batch_size=10)
embed_dataset(source, embedder, output, n_actors=2, shard_size=20)
"""


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Folder of many small images, no two alike, a hundredth of them bad."""
    folder = tmp_path_factory.mktemp("many")
    rng = np.random.default_rng(0)
    for i in range(N_IMAGES):
        path = folder / f"{i // 1000}" / f"{i:05d}.png"
        path.parent.mkdir(exist_ok=True)
        if i % 100 == 50:
            path.write_bytes(b"")
            continue
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(path)
    return folder


def actors():
    """Process numbers of the actors on this machine."""
    listed = subprocess.run(
        ["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True
    )
    lines = [line.split(None, 1) for line in listed.stdout.splitlines()]
    return [int(pid) for pid, args in lines if args.startswith("ray::_Actor")]


def wait_for(condition, process, seconds=240):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the run has ended"
        assert time.monotonic() < end
        time.sleep(0.05)


@ray
def test_killed_workers_and_drivers_lose_no_row(many, tmp_path):
    pytest.importorskip("ray")
    output = tmp_path / "run"
    n_shards = -(-N_IMAGES // 20)
    command = [sys.executable, "-c", SCRIPT, str(many), str(output)]

    def n_done():
        return len(list(output.glob("shard-*.parquet")))

    # The driver, and with it the cluster, is killed after a tenth of the shards.
    with subprocess.Popen(command, start_new_session=True) as driver:
        wait_for(lambda: n_done() >= n_shards // 10, driver)
        driver.kill()
    first = {path: path.stat().st_mtime_ns for path in output.glob("shard-*")}
    assert 0 < len(first) < n_shards
    while actors():
        time.sleep(0.1)
    # The next run does the rest, and one of its two processes is killed.
    with subprocess.Popen(command, start_new_session=True) as driver:
        started = n_done()
        wait_for(lambda: n_done() > started and len(actors()) == 2, driver)
        os.kill(actors()[0], signal.SIGKILL)
        assert driver.wait(600) == 0
    now = {path: path.stat().st_mtime_ns for path in output.glob("shard-*")}
    assert first.items() <= now.items()  # None was embedded again.
    found = load_embeddings(output)
    paths = sorted(map(str, many.glob("*/*.png")))
    assert sorted([*found.paths.to_pylist(), *found.unreadable]) == paths
    assert len(found.unreadable) == N_IMAGES // 100
    kept = [path for path in paths if path not in found.unreadable]
    assert found.paths.to_pylist() == kept
    rows = np.linspace(0, len(kept) - 1, 50).astype(int)
    np.testing.assert_allclose(
        found.embeddings[rows],
        EMBEDDER.transform([kept[row] for row in rows]),
        atol=1e-4,
    )


@ray
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Of Ray, in itself.
def test_runs_on_a_cluster_that_is_there(photos, expected, labels, tmp_path):
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        content = [Path(path).read_bytes() for path in photos[1][:4]]
        source = ray.data.from_arrow(pa.table({"bytes": content}))
        run = embed_dataset(source, EMBEDDER, tmp_path / "run", n_actors=2)
        np.testing.assert_allclose(
            load_embeddings(run).embeddings, expected[:4], atol=1e-4
        )
        classifier = BridgedGDAClassifier(None).fit(expected, labels)
        output = predict_dataset(classifier, run, tmp_path / "labels", n_actors=2)
        found = pq.read_table(output / "shard-000000.parquet")["label"].to_pylist()
        assert found == labels[:4].tolist()
        with pytest.raises(ValueError, match=r"n_actors must be at most .* 2, got 3"):
            embed_dataset(photos[0], EMBEDDER, tmp_path / "three", n_actors=3)
        assert ray.is_initialized()
    finally:
        ray.shutdown()
