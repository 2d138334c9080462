"""Few-shot classification of image files, with the bundled model and images.

Writes the packaged emoji as PNG files, takes 1, 2 and 4 of them per class as shots,
and classifies images that neither the model nor the classifier has seen. Then it
saves a fitted pipeline and has a new process load it and predict the same.

Run it with ``make demo``, or ``python examples/demo.py --help``.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import joblib
import numpy as np

from skbridge import (
    BridgedGDAClassifier,
    CLIPEmbedder,
    SeMoBridgeClassifier,
    TextHead,
    make_few_shot_pipeline,
)
from skbridge.datasets import load_emoji

MODEL = "skbridge-tiny"
SHOTS = (1, 2, 4)
N_QUERIES = 3

PREDICT_IN_A_NEW_PROCESS = """
import sys, joblib
pipeline = joblib.load(sys.argv[1])
paths, expected = joblib.load(sys.argv[2])
same = (pipeline.predict(paths) == expected).all()
print(f"A new process predicted the same labels for {len(paths)} files: {same}")
sys.exit(not same)
"""


def write_images(folder):
    """Save every coloured emoji as a PNG; return the paths and their labels."""
    every_style = load_emoji()
    coloured = set(every_style.style_names) - set(every_style.monotone_style_names)
    emoji = load_emoji(styles=sorted(coloured), folder=folder)
    return emoji.filenames, np.array(emoji.target_names)[emoji.target]


def split(labels, n_shots, rng_seed):
    """Rows of `n_shots` images per class and of the queries, the same for any shots."""
    rng = np.random.default_rng(rng_seed)
    shots, queries = [], []
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        queries.extend(rows[:N_QUERIES])
        shots.extend(rows[N_QUERIES : N_QUERIES + n_shots])
    return np.array(shots), np.array(queries)


def methods(head):
    """Classifiers of the table; none of their settings was chosen on emoji."""
    return {
        "zero-shot CLIP (no shots)": SeMoBridgeClassifier(texts=head, lambda_3=0),
        "nearest prototype (no texts)": SeMoBridgeClassifier(texts=None),
        "SeMoBridge": SeMoBridgeClassifier(texts=head),
        "BridgedGDA": BridgedGDAClassifier(head),
        "SeMoBridge-T": SeMoBridgeClassifier(head, mode="trained"),
    }


def main():
    """Run the demo; return 0 when the saved pipeline predicts the same."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("demo-output"))
    parser.add_argument("--seeds", type=int, default=5, help="random splits to average")
    arguments = parser.parse_args()

    paths, labels = write_images(arguments.output / "images")
    n_classes = len(np.unique(labels))
    print(
        f"{len(paths)} image files of {n_classes} classes in "
        f"{arguments.output / 'images'}"
    )

    start = time.perf_counter()
    embeddings = CLIPEmbedder(model=MODEL).fit_transform(paths)
    seconds = time.perf_counter() - start
    print(
        f"Embedded in {seconds:.1f} s ({len(paths) / seconds:.0f} images per second), "
        "the model's loading included"
    )

    start = time.perf_counter()
    head = TextHead.from_clip(np.unique(labels).tolist(), model=MODEL)
    print(f"Encoded {n_classes} class texts in {time.perf_counter() - start:.1f} s\n")

    print(
        f"Accuracy in % on {N_QUERIES} other images per class: mean ± standard "
        f"deviation over {arguments.seeds} splits"
    )
    columns = "".join(f"{f'{n} shot' + 's' * (n > 1):>14}" for n in SHOTS)
    print(f"{'':<30}{columns}{f'fit, {SHOTS[-1]} shots':>15}")
    for name, classifier in methods(head).items():
        cells = []
        for n_shots in SHOTS:
            scores = []
            seconds = 0.0
            for seed in range(arguments.seeds):
                shots, queries = split(labels, n_shots, seed)
                start = time.perf_counter()
                classifier.fit(embeddings[shots], labels[shots])
                seconds += time.perf_counter() - start
                scores.append(classifier.score(embeddings[queries], labels[queries]))
            cells.append(f"{100 * np.mean(scores):.1f} ± {100 * np.std(scores):.1f}")
        row = "".join(f"{cell:>14}" for cell in cells)
        print(f"{name:<30}{row}{seconds / arguments.seeds:>13.3f} s", flush=True)

    shots, queries = split(labels, SHOTS[-1], 0)
    pipeline = make_few_shot_pipeline(MODEL)
    pipeline.fit([paths[i] for i in shots], labels[shots])
    query_paths = [paths[i] for i in queries]
    predicted = pipeline.predict(query_paths)
    file = arguments.output / "pipeline.joblib"
    joblib.dump(pipeline, file)
    expected = arguments.output / "predictions.joblib"
    joblib.dump((query_paths, predicted), expected)
    print(
        f"\nThe pipeline from files to labels, fitted on {len(shots)} files, gets "
        f"{100 * np.mean(predicted == labels[queries]):.1f} % of the others right."
    )
    result = subprocess.run(
        [sys.executable, "-c", PREDICT_IN_A_NEW_PROCESS, str(file), str(expected)],
        check=False,
    )
    print(f"Saved pipeline: {file} ({file.stat().st_size / 1e3:.0f} kB)")
    print(f"Its predictions: {expected}")
    return result.returncode


if __name__ == "__main__":
    sys.exit(main())
