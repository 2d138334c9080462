"""The embedding cache: GridSearchCV on image files, a second time, in a new process.

A pipeline of CLIPEmbedder and SeMoBridgeClassifier is searched over 4 settings and 3
folds, with one cache folder for both steps. Each run is a process of its own that
counts the images and the prompts that the model sees:

    python benchmarks/cache.py
    python benchmarks/cache.py --model skbridge-tiny
    python benchmarks/cache.py --images FOLDER --model ViT-B-16

FOLDER has one folder of image files per class. Without it, the bundled emoji are
written as PNG files first. Without a model, ViT-B-32 has random weights, which need no
download: they take the time of trained ones, and their scores mean nothing. Two
times are taken of each run: that of the search alone, which includes importing torch
and loading the model where the run needs them, and that of the whole process, which
includes starting Python and importing scikit-learn.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from _measure import interleaved, machine, markdown_table, timing, versions
from PIL import Image
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, StratifiedKFold

from skbridge import CLIPEmbedder, make_few_shot_pipeline
from skbridge._clip.backend import Backend
from skbridge.datasets import load_emoji

N_FOLDS = 3
GRID = {"clf__lambda_3": [0.25, 0.5, 1.0, 2.0]}
SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".webp"}


def write_emoji(folder, n_images):
    """Write the bundled emoji as files, class by class."""
    emoji = load_emoji()
    for row in np.argsort(emoji.target, kind="stable")[:n_images]:
        place = Path(folder, emoji.target_names[emoji.target[row]])
        place.mkdir(exist_ok=True)
        Image.fromarray(emoji.images[row]).save(place / f"{emoji.styles[row]}.png")


def write_model(folder, config):
    """Write a model with random weights, and wait until its files are not new.

    `config` is that of open_clip, or the name of one of its architectures.
    """
    # Not above: the processes that are measured import this script.
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    Path(folder).mkdir()
    if isinstance(config, str):
        config = open_clip.get_model_config(config)
    model = open_clip.model.CLIP(**config)
    save_file(model.state_dict(), Path(folder, "open_clip_model.safetensors"))
    mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    content = {"model_cfg": config, "preprocess_cfg": {"mean": mean, "std": std}}
    Path(folder, "open_clip_config.json").write_text(json.dumps(content))
    time.sleep(2.5)


def find_images(folder, n_images):
    """Take some files of a folder, the same ones each time."""
    paths = sorted(p for p in Path(folder).glob("*/*") if p.suffix.lower() in SUFFIXES)
    chosen = np.random.default_rng(0).permutation(len(paths))[:n_images]
    return [str(paths[i]) for i in chosen], [paths[i].parent.name for i in chosen]


def count_calls(owner, name, counts):
    """Count the rows that go through a method."""
    function = getattr(owner, name)

    def counted(loaded, batch, *args):
        counts[name] += len(batch)
        return function(loaded, batch, *args)

    setattr(owner, name, counted)


def search(options):
    """Run one search in this process and print what it did."""
    paths, labels = find_images(options.images, options.n_images)
    counts = {"embed": 0, "embed_texts": 0}
    count_calls(Backend, "embed", counts)
    count_calls(Backend, "embed_texts", counts)
    pipeline = make_few_shot_pipeline(
        options.model, cache_dir=options.search, templates=options.templates
    )
    started = time.perf_counter()
    folds = StratifiedKFold(N_FOLDS, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        # What is said of random weights.
        warnings.filterwarnings("ignore", "Zero-shot, the text head")
        fitted = GridSearchCV(pipeline, GRID, cv=folds).fit(paths, labels)
    seconds = time.perf_counter() - started
    print(
        json.dumps(
            {
                "seconds": seconds,
                "torch": "torch" in sys.modules,
                "scores": fitted.cv_results_["mean_test_score"].tolist(),
                **counts,
            }
        )
    )


def run(options, images, cache):
    """Run one search in a new process; give its report with its whole time."""
    command = [sys.executable, __file__, "--search", cache, "--images", images]
    for name in ("model", "templates", "n_images"):
        command += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    started = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return {"process": time.perf_counter() - started, **json.loads(done.stdout)}


def compare(options, images, folder):
    """Run first and second searches, and look the images up, in Markdown."""
    first, second = [], []
    for repeat in range(options.repeats):
        cache = str(Path(folder, f"cache {repeat}"))
        first.append(run(options, images, cache))
        second += [run(options, images, cache) for _ in range(3)]
    paths, labels = find_images(images, options.n_images)
    for report in (*first, *second):
        assert report["scores"] == first[0]["scores"], "the cache changes no score"

    def row(name, reports):
        report = reports[-1]
        return [
            name,
            report["embed"],
            report["embed_texts"],
            "yes" if report["torch"] else "no",
            *(timing([r[key] for r in reports]) for key in ("seconds", "process")),
        ]

    def ratio(key):
        times = [
            timing([r[key] for r in reports]).median for reports in (first, second)
        ]
        return f"{times[0] / times[1]:.0f}"

    # Each setting and fold transforms all images, and the refit does so once more.
    n_passes = len(GRID["clf__lambda_3"]) * N_FOLDS + 1
    embedder = CLIPEmbedder(options.model, cache_dir=cache)
    lookup = interleaved({"lookup": lambda: embedder.transform(paths)}, 9)["lookup"]
    info = embedder.cache_info()
    n_kept = sum(n for label, n in info["spaces"].items() if "images" in label)
    width = embedder.transform(paths[:1]).shape[1]
    images_only = clone(embedder).set_params(cache_dir=Path(folder, "images only"))
    images_only.transform(paths)
    alone = images_only.cache_info()["bytes"]
    name = Path(options.model).name
    return "\n".join(
        [
            "## Cache",
            "",
            f"{machine()}; {versions()}",
            "",
            f"GridSearchCV over {len(GRID['clf__lambda_3'])} settings and {N_FOLDS} "
            f"folds, with refit: {len(paths)} images of {len(set(labels))} classes, "
            f"{name}, templates {options.templates!r}. Without a cache the model "
            f"would see {n_passes * len(paths)} images. Median (range).",
            "",
            markdown_table(
                [
                    "run",
                    "images the model saw",
                    "prompts it saw",
                    "torch imported",
                    "search",
                    "whole process",
                ],
                [
                    row("first, empty cache", first),
                    row("second, new process", second),
                    ["ratio", "", "", "", ratio("seconds"), ratio("process")],
                ],
            ),
            "",
            f"Looking up {len(paths)} files that have not changed: {lookup}, "
            f"{len(paths) / lookup.median:,.0f} images/s.",
            f"Store: {info['bytes'] / n_kept:,.0f} bytes per image with the class "
            "texts and the text projection, "
            f"{alone / n_kept:,.0f} without; a vector of {width} floats has "
            f"{4 * width:,} bytes.",
        ]
    )


def main(argv=None):
    """Print a section of Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", help="folder with one folder of images per class")
    parser.add_argument("--n-images", type=int, default=600)
    parser.add_argument("--model", help="default: ViT-B-32 with random weights")
    parser.add_argument("--templates", default="openai_imagenet_7")
    parser.add_argument("--repeats", type=int, default=3, help="first runs")
    parser.add_argument("--search", metavar="CACHE", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.search is not None:
        search(options)
        return
    with tempfile.TemporaryDirectory() as folder:
        images = options.images
        if images is None:
            images = str(Path(folder, "emoji"))
            Path(images).mkdir()
            write_emoji(images, options.n_images)
        if options.model is None:
            options.model = str(Path(folder, "ViT-B-32 with random weights"))
            write_model(options.model, "ViT-B-32")
        print(compare(options, images, folder))


if __name__ == "__main__":
    main()
