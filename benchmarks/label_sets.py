"""Coverage and size of the label sets of `BridgedGDAClassifier.predict_set`.

For each data set of CLIP features, described in `accuracy.py`, and each alpha, the
fewest shots that alpha allows are drawn from all images of each class, and some of the
others are the queries. The coverage is the mean over classes of the share of queries
whose set contains their label. It should be `1 - alpha`; its standard error is that of
the mean over draws::

    python benchmarks/label_sets.py --features FOLDER

Data sets with too few images in a class are left out.
"""

import os

# One thread per process; read when NumPy is imported.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from _measure import markdown_table
from accuracy import DATA_SETS, load_problem

from skbridge import BridgedGDAClassifier
from skbridge._classifiers.conformal import fewest_shots

ALPHAS = (0.2, 0.1, 0.05)


def all_images(folder, name):
    """All images of a data set, their labels, and its texts."""
    problem = load_problem(folder, name, 16, 0)
    X = np.concatenate([problem.X, problem.queries])
    return X, np.concatenate([problem.y, problem.targets]), problem.head


def draw(folder, name, alpha, n_queries, seed):
    """Coverage, size of the sets, accuracy and seconds of one draw of the shots."""
    X, y, head = all_images(folder, name)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(y))
    n_shots = fewest_shots(alpha)
    shots = np.concatenate(
        [order[y[order] == label][:n_shots] for label in np.unique(y)]
    )
    queries = rng.permutation(np.setdiff1d(order, shots))[:n_queries]
    fitted = BridgedGDAClassifier(head).fit(X[shots], y[shots])
    started = time.process_time()
    sets = fitted.predict_set(X[queries], alpha, X[shots], y[shots])
    seconds = time.process_time() - started
    codes = np.searchsorted(fitted.classes_, y[queries])
    covered = sets[np.arange(len(codes)), codes]
    hits = np.bincount(codes, weights=covered) / np.maximum(np.bincount(codes), 1)
    right = fitted.predict(X[queries]) == y[queries]
    return hits[np.unique(codes)].mean(), sets.sum(axis=1).mean(), right.mean(), seconds


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--data", nargs="+", default=list(DATA_SETS))
    parser.add_argument("--draws", type=int, default=50)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args(argv)
    rows = []
    with ProcessPoolExecutor(options.jobs) as pool:
        for name in options.data:
            if load_problem(options.features, name, 16, 0) is None:
                continue
            _, y, head = all_images(options.features, name)
            n_classes = len(np.unique(y))
            for alpha in ALPHAS:
                n_shots = fewest_shots(alpha)
                if np.unique(y, return_counts=True)[1].min() <= n_shots:
                    continue
                job = partial(draw, options.features, name, alpha, options.queries)
                found = np.array(list(pool.map(job, range(options.draws))))
                coverage, size, accuracy, seconds = found.mean(axis=0)
                error = found[:, 0].std() / np.sqrt(len(found))
                rows.append(
                    [
                        f"{name}, {'no ' if head is None else ''}texts",
                        n_classes,
                        f"{100 * (1 - alpha):.0f} %",
                        n_shots,
                        f"{100 * coverage:.1f} ± {100 * error:.1f} %",
                        f"{size:.2f}",
                        f"{100 * accuracy:.1f} %",
                        f"{seconds:.1f}",
                    ]
                )
                print(rows[-1], flush=True)
    header = ["data set", "classes", "promised", "shots per class", "coverage"]
    header += ["labels per set", "accuracy", "seconds"]
    print(markdown_table(header, rows))


if __name__ == "__main__":
    main()
