"""skbridge on a GPU: embedding, training, predicting, and pickles that move.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --small --device cpu

Prints one table in less than eight minutes on a GPU. Weights, images and embeddings
are generated, since speed does not depend on what they show:

- embedding: JPEG files of 500 x 375, each of them several times, through ViT-B/16. In
  each precision the rate of the image tower alone on ready pixels, and the rate of
  `CLIPEmbedder` from paths. The cosine is the smallest between the embeddings of a
  precision and those of float32;
- training: SeMoBridge-T by both solvers, on the device and on the CPU, with the loss
  that each ends at. The CPU takes a part of the recipe's steps, and its loss is
  compared with the device's after as many;
- the classifiers, which are NumPy: one fit in closed form, and a large prediction;
- pickles: an embedder used on the device, loaded by a process that sees no GPU.
"""

import argparse
import pickle
import subprocess
import sys
import tempfile
import time
import warnings
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from _measure import child_environment, machine, markdown_table, versions
from embedding import model_folder, write_photos
from training import generated, names

from skbridge import BridgedGDAClassifier, CLIPEmbedder, SeMoBridgeClassifier
from skbridge._clip.device import resolve_device
from skbridge._clip.load import load_clip
from skbridge._rows import unit

BATCH_SIZE = 256
RECIPE_STEPS = 5000
# Steps of the recipe after which the losses of two devices are compared.
COMPARED_STEPS = 50
ELSEWHERE = """
import pickle, sys, warnings
import numpy as np
warnings.simplefilter("ignore")
with open(sys.argv[1], "rb") as file:
    embedder, paths = pickle.load(file)
np.save(sys.argv[2], embedder.transform(paths))
"""


def synchronize(device):
    """Wait for what the device still computes."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def seconds(call, device):
    """Time one call, including what it left running on the device."""
    synchronize(device)
    started = time.perf_counter()
    result = call()
    synchronize(device)
    return time.perf_counter() - started, result


def tower_rate(model, device, precision, n_batches):
    """Images per second of the image tower on pixels that are on the device."""
    loaded = load_clip(model, device=device)
    side = 224
    pixels = torch.randint(
        0, 256, (BATCH_SIZE, side, side, 3), dtype=torch.uint8, device=device
    )

    def run():
        for _ in range(n_batches):
            loaded.embed(pixels, precision)

    loaded.embed(pixels, precision)
    taken, _ = seconds(run, device)
    return n_batches * BATCH_SIZE / taken


def smallest_cosine(rows, others):
    """Smallest cosine between rows and those of the same number."""
    return float((unit(rows) * unit(others)).sum(axis=1).min())


def embedding(folder, device, model, n_files, n_images, n_batches):
    """Embed JPEG files in float32 and in half precision."""
    photos = folder / "photos"
    photos.mkdir()
    paths = np.resize(write_photos(photos, (500, 375), n_files), n_images).tolist()
    decoder = CLIPEmbedder(model, device="cpu")
    decoder.fit(paths[:1])
    exact = None
    for precision in ("fp32", "bf16") if device != "cpu" else ("fp32",):
        alone = tower_rate(model, device, precision, n_batches)
        embedder = CLIPEmbedder(
            model, device=device, precision=precision, batch_size=BATCH_SIZE
        )
        embedder.fit_transform(paths[:BATCH_SIZE])  # Loads the model.
        taken, rows = seconds(partial(embedder.transform, paths), device)
        exact = rows if exact is None else exact
        rate = n_images / taken
        yield f"tower alone, {precision}", f"{alone:,.0f} images/s", ""
        share = f"{rate / alone:.2f} of the tower alone"
        yield (
            f"CLIPEmbedder, {n_images:,} images, {precision}",
            (f"{rate:,.0f} images/s"),
            share,
        )
        cosine = f"{smallest_cosine(rows, exact):.6f}"
        yield f"smallest cosine with fp32, {precision}", cosine, ""
    check = embedder.set_params(precision="fp32").transform(paths[:8])
    on_cpu = decoder.transform(paths[:8])
    cosine = f"{smallest_cosine(check, on_cpu):.7f}"
    yield "smallest cosine with the CPU, fp32, 8 images", cosine, ""
    yield "pickle loaded without a GPU", moved(embedder, paths[:8], folder, check), ""


def moved(embedder, paths, folder, expected):
    """Smallest cosine of embeddings by a process to which a pickle was moved."""
    sent, received = folder / "sent.pickle", folder / "received.npy"
    with open(sent, "wb") as file:
        pickle.dump((embedder, paths), file)
    subprocess.run(
        [sys.executable, "-c", ELSEWHERE, sent, received],
        env=child_environment() | {"CUDA_VISIBLE_DEVICES": ""},
        check=True,
    )
    return f"cosine {smallest_cosine(np.load(received), expected):.7f}"


def train(problem, device, **params):
    """Seconds of one training, its last loss and its number of steps."""
    head, X, y, _, _ = problem
    classifier = SeMoBridgeClassifier(head, mode="trained", device=device, **params)
    taken, fitted = seconds(partial(classifier.fit, X, names(head, y)), device)
    return taken, fitted.loss_curve_[-1], fitted


def training(device, shapes, n_steps, n_compared):
    """Train by both solvers, on the device and on the CPU."""
    train(generated(10, 4), device, solver="adamw", max_iter=2)  # Starts the device.
    for n_classes, n_shots in shapes:
        problem = generated(n_classes, n_shots)
        size = f"{n_classes:,} x {n_shots}"
        fits = {}
        for kind in dict.fromkeys((device, "cpu")):
            taken, loss, fits[kind] = train(problem, kind)
            steps = f"{fits[kind].n_iter_} steps, loss {loss:.5f}"
            yield f"SeMoBridge-T, {size}, default, {kind}", f"{taken:.2f} s", steps
        X = problem[3]
        same = np.mean(fits[device].predict(X) == fits["cpu"].predict(X))
        yield f"the same labels, {size}", f"{100 * same:.2f} %", ""
        recipe = partial(train, problem, solver="adamw")
        taken, loss, fitted = recipe(device, max_iter=n_steps)
        yield (
            f"the same, adamw, {device}",
            f"{taken:.2f} s",
            (f"{n_steps} steps, loss {loss:.5f}"),
        )
        taken, loss, _ = recipe("cpu", max_iter=n_compared)
        yield (
            "the same, adamw, cpu",
            f"{taken:.2f} s",
            (f"{n_compared} steps, loss {loss:.5f}"),
        )
        apart = abs(fitted.loss_curve_[n_compared - 1] - loss) / loss
        yield f"loss after {n_compared} steps, relative difference", f"{apart:.1e}", ""


def classifying(n_rows, n_classes):
    """Fit and predict with NumPy."""
    head, X, y, queries, _ = generated(n_classes, 16)
    queries = np.resize(queries, (n_rows, queries.shape[1]))
    for kind in (SeMoBridgeClassifier, BridgedGDAClassifier):
        fit = partial(kind(head).fit, X, names(head, y))
        taken, fitted = seconds(fit, "cpu")
        yield f"{kind.__name__}, fit, {n_classes:,} x 16", f"{taken:.2f} s", "CPU"
        taken, _ = seconds(partial(fitted.predict, queries), "cpu")
        yield f"{kind.__name__}, predict {n_rows:,} rows", f"{taken:.2f} s", "CPU"


def main(argv=None):
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto", help="as CLIPEmbedder takes it")
    parser.add_argument("--small", action="store_true", help="sizes of a test")
    options = parser.parse_args(argv)
    device = resolve_device(options.device)
    sizes = {
        "n_files": 12 if options.small else 1000,
        "n_images": 24 if options.small else 20_000,
        "n_batches": 1 if options.small else 20,
    }
    name = "tiny-ViT" if options.small else "ViT-B-16"
    shapes = [(20, 4)] if options.small else [(1000, 16), (1000, 32)]
    steps = (4, 2) if options.small else (RECIPE_STEPS, COMPARED_STEPS)
    rows = (1000, 20) if options.small else (1_000_000, 1000)
    gpu = torch.cuda.get_device_name() if device.startswith("cuda") else "no GPU"
    print(f"## On a GPU\n\n{gpu}; {machine()}; {versions()}.\n")
    print(markdown_table(("what", "figure", "beside it"), []), flush=True)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(folder)
        model = f"local-dir:{model_folder(name, folder)}"
        sections = (
            classifying(*rows),
            embedding(folder, device, model=model, **sizes),
            training(device, shapes, *steps),
        )
        for cells in chain(*sections):
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
