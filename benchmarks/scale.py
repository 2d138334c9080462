"""Images per second of `skbridge.scale`, and what large collections would take.

The same JPEG files are embedded by `CLIPEmbedder` in one process and one thread, by
`embed_dataset` in this process, and by `embed_dataset` with actors of Ray of one core
each. Their ratio compares images per second once the actors are warm: the shards that
are written after each actor has written its first, and before the first actor has no
more. The embeddings are then read back, and classified. The plan for large collections
is computed from the rates that are printed above it::

    python benchmarks/scale.py
    python benchmarks/scale.py --model ViT-B-32 --n-images 2000 --n-actors 2

The model has random weights unless it is the bundled one. Last, one search over the
weights of the blend runs as `FewShotSearchCV`, and as scikit-learn's `GridSearchCV` in
one process and with the backends of joblib, among them Dask where it is installed::

    python benchmarks/scale.py --only search --n-classes 1000
"""

import os

# One thread per process; read when NumPy is imported.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import argparse
import json
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path

import joblib
import numpy as np
from _measure import child_environment, machine, markdown_table, versions
from embedding import model_folder, write_photos
from sklearn.model_selection import GridSearchCV, StratifiedKFold

from skbridge import (
    BridgedGDAClassifier,
    CLIPEmbedder,
    FewShotSearchCV,
    SeMoBridgeClassifier,
)
from skbridge.scale import embed_dataset, load_embeddings, predict_dataset

N_CLASSES = 100


def plain(model, paths):
    """Images per second of the embedder alone, in one thread, once warm."""
    import torch

    torch.set_num_threads(1)
    embedder = CLIPEmbedder(model, device="cpu", num_workers=0)
    embedder.transform(paths[:64])
    started = time.perf_counter()
    embedder.transform(paths)
    return len(paths) / (time.perf_counter() - started)


def plain_processes(model, paths, n_processes):
    """Images per second of several processes at once, each as `plain`."""
    code = "import json, sys, scale; print(scale.plain(*json.load(sys.stdin)))"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=child_environment(),
        )
        for _ in range(n_processes)
    ]
    for i, process in enumerate(processes):
        json.dump([model, paths[i::n_processes]], process.stdin)
        process.stdin.close()
    rates = [float(process.stdout.read()) for process in processes]
    for process in processes:
        process.wait()
        process.stdout.close()
    return sum(rates)


def sharded(model, paths, output, n_actors, shard_size):
    """Images per second of a run: once warm, and from start to end."""
    embedder = CLIPEmbedder(model, device="cpu", num_workers=0)
    started = time.perf_counter()
    run = embed_dataset(
        paths, embedder, output, n_actors=n_actors, shard_size=shard_size
    )
    whole = len(paths) / (time.perf_counter() - started)
    done = sorted(file.stat().st_mtime for file in run.glob("shard-*.parquet"))
    n_workers = max(1, n_actors)
    first, last = n_workers - 1, len(done) - n_workers
    return shard_size * (last - first) / (done[last] - done[first]), whole, run


def reading(run, labels, folder, n_actors):
    """Rows per second of loading and of classifying."""
    started = time.perf_counter()
    data = load_embeddings(run)
    loading = len(data.paths) / (time.perf_counter() - started)
    classifier = BridgedGDAClassifier(None).fit(
        data.embeddings[: 4 * N_CLASSES], labels[: 4 * N_CLASSES]
    )
    started = time.perf_counter()
    classifier.predict(data.embeddings)
    predicting = len(data.paths) / (time.perf_counter() - started)
    started = time.perf_counter()
    predict_dataset(classifier, run, folder / "labels", n_actors=n_actors)
    return loading, predicting, len(data.paths) / (time.perf_counter() - started)


def plan(per_core, width, bytes_per_row, gpu_rate):
    """Hours, shards and bytes for 10 million and 1 billion images."""
    rows = []
    for n_images in (10**7, 10**9):
        for what, rate, units in (
            ("64 cores as here", 64 * per_core, 64),
            ("8 GPUs", 8 * gpu_rate, 8),
        ):
            hours = n_images / rate / 3600
            rows.append(
                [
                    f"{n_images:,}",
                    what,
                    f"{rate:,.0f}",
                    f"{hours:,.1f}",
                    f"{units * hours:,.0f}",
                    f"{n_images // 10_000:,}",
                    f"{n_images * bytes_per_row / 1e9:,.0f} GB",
                    f"{n_images * (bytes_per_row - 2 * width) / 1e9:,.0f} GB",
                ]
            )
    return markdown_table(
        [
            "images",
            "machines",
            "images/s",
            "hours",
            "core or GPU hours",
            "shards",
            "float32",
            "float16",
        ],
        rows,
    )


@contextmanager
def joblib_backend(name, n_jobs):
    """Let joblib use a backend, which has started its processes."""
    if name == "ray":
        import ray
        from ray.util.joblib import register_ray

        register_ray()
        ray.init(num_cpus=n_jobs, include_dashboard=False, log_to_driver=False)
        try:
            with joblib.parallel_config("ray"):
                yield
        finally:
            ray.shutdown()
    elif name == "dask":
        from dask.distributed import Client

        with (
            Client(n_workers=n_jobs, threads_per_worker=1, dashboard_address=None),
            joblib.parallel_config("dask"),
        ):
            yield
    else:
        with joblib.parallel_config(name):
            yield


def searches(n_classes, n_jobs):
    """Seconds of one search in several ways, each after one that does not count."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(n_classes, 512)).astype(np.float32)
    labels = np.repeat(np.arange(n_classes), 8)
    X = centres[labels] + 3 * rng.normal(size=(len(labels), 512)).astype(np.float32)
    classifier = SeMoBridgeClassifier(None, bridge="identity")
    grid = {"lambda_2": np.linspace(0, 1, 4), "lambda_3": np.linspace(0.25, 1, 4)}
    folds = StratifiedKFold(4, shuffle=True, random_state=0)
    ways = {"FewShotSearchCV": (FewShotSearchCV(classifier, grid, cv=folds), None)}
    for backend, jobs in (
        ("sequential", 1),
        ("loky", n_jobs),
        ("threading", n_jobs),
        ("ray", n_jobs),
        ("dask", n_jobs),
    ):
        if find_spec({"ray": "ray", "dask": "distributed"}.get(backend, "joblib")):
            search = GridSearchCV(classifier, grid, cv=folds, n_jobs=jobs)
            ways[f"GridSearchCV, {backend}, {jobs} jobs"] = search, backend
    rows, first = [], None
    for label, (search, backend) in ways.items():
        with joblib_backend(backend, n_jobs) if backend else nullcontext():
            for _ in range(2):
                started = time.perf_counter()
                search.fit(X, labels)
                seconds = time.perf_counter() - started
        first = first or seconds
        rows.append([label, f"{seconds:.2f}", f"{seconds / first:.1f}"])
    return "\n\n".join(
        [
            "## One search in many processes",
            f"{n_classes:,} classes, 8 shots, 512 features, 16 settings, 4 "
            "folds, and the fit to all shots.",
            markdown_table(["", "seconds", "of FewShotSearchCV"], rows),
        ]
    )


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="skbridge-tiny")
    parser.add_argument("--n-images", type=int, default=4000)
    parser.add_argument("--n-actors", type=int, default=2)
    parser.add_argument("--shard-size", type=int, default=100)
    parser.add_argument("--side", type=int, default=500, help="of the JPEG files")
    parser.add_argument(
        "--gpu-rate",
        type=float,
        default=1061,
        help="images per second of one GPU, as benchmarks/gpu.py prints it",
    )
    parser.add_argument("--n-classes", type=int, default=300, help="of the search")
    parser.add_argument("--only", choices=["embed", "search"])
    options = parser.parse_args(argv)
    if options.only != "search":
        with tempfile.TemporaryDirectory() as folder:
            print(section(options, Path(folder)))
    if options.only != "embed":
        print(searches(options.n_classes, options.n_actors))


def section(options, folder):
    """Measure, and return the section as Markdown."""
    n_actors, shard_size = options.n_actors, options.shard_size
    model = options.model
    if model != "skbridge-tiny":
        model = model_folder(model, folder)
    n_files = min(200, options.n_images)
    files = write_photos(folder, (options.side, options.side), n_files)
    (folder / "photos").mkdir()
    paths = [str(folder / "photos" / f"{i:06}.jpg") for i in range(options.n_images)]
    for i, path in enumerate(paths):
        os.link(files[i % n_files], path)  # Many files from a few that take long.
    one = plain(model, paths)
    several = plain_processes(model, paths, n_actors)
    here, *_ = sharded(model, paths, folder / "here", 0, shard_size)
    warm, whole, run = sharded(model, paths, folder / "ray", n_actors, shard_size)
    labels = np.arange(len(paths)) % N_CLASSES
    loading, predicting, classified = reading(run, labels, folder, n_actors)
    n_bytes = sum(file.stat().st_size for file in run.glob("shard-*.parquet"))
    width = load_embeddings(run).embeddings.shape[1]
    rows = [
        ["CLIPEmbedder, one process", f"{one:,.1f}", "1"],
        [
            f"CLIPEmbedder, {n_actors} processes at once",
            f"{several:,.1f}",
            f"{several / one:.2f}",
        ],
        ["embed_dataset, in this process, warm", f"{here:,.1f}", f"{here / one:.2f}"],
        [
            f"embed_dataset, {n_actors} actors of Ray, warm",
            f"{warm:,.1f}",
            f"{warm / one:.2f}",
        ],
        ["the same, from start to end", f"{whole:,.1f}", f"{whole / one:.2f}"],
    ]
    return "\n\n".join(
        [
            "## Many processes",
            f"{machine()}; {versions()}. {len(paths):,} JPEG files of {options.side} "
            f"pixels, {options.model}.",
            markdown_table(["", "images/s", "of one process"], rows),
            f"{n_actors} actors reach {warm / (n_actors * one):.2f} of {n_actors} "
            f"times one process, and {warm / several:.2f} of {n_actors} processes that "
            "run at once.",
            f"Reading: {loading:,.0f} rows per second into an array on the disk; "
            f"BridgedGDAClassifier of {N_CLASSES} classes predicts {predicting:,.0f} "
            f"rows per second in one thread, and predict_dataset {classified:,.0f} "
            f"with {n_actors} actors, start included. A row takes "
            f"{n_bytes / len(paths):,.0f} bytes on the disk, of which {4 * width} are "
            "its numbers.",
            f"From these rates, with {options.gpu_rate:,.0f} images per second and "
            "GPU:",
            plan(one, width, n_bytes / len(paths), options.gpu_rate),
        ]
    )


if __name__ == "__main__":
    main()
