"""What shots alone say of the constants that the library ships.

No test image is used. K shots per class are drawn from the training shots of each data
set of ``accuracy.py`` (16 per class, or the support); the other training shots are the
queries. Compared are the constants of the recommended classifier (shrinkage, share
of the energy, prior scatter outside the bridge times the number of shots, and kappa:
``lambda_3="auto"`` is 1 at kappa shots), the fixed blending weights of SeMoBridge, and
early stopping of its trained mode.

Run ``python benchmarks/constants.py --features FOLDER``, the folder of ``accuracy.py``;
it takes about ten minutes on one core.
"""

import argparse
import os
from itertools import product
from pathlib import Path
from unittest.mock import patch

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np
from _measure import markdown_table
from accuracy import (
    DATA_SETS,
    Problem,
    bridged,
    draw_rows,
    load_problem,
    read_arrays,
    read_head,
)

from skbridge import BridgedGDAClassifier

SHOTS = [1, 2, 4, 8]
MAX_QUERIES = 4000
SETTINGS = list(product((0.1, 0.3, 1.0), (0.9, 0.97, 1.0), (6.0, 20.0, 60.0)))
KAPPAS = (8, 12, 16)
GRID = list(product(SETTINGS, KAPPAS))
LAMBDAS = [
    (1, 0, 0),
    (1, 0, 0.25),
    (1, 0, 0.5),
    (1, 0, 1),
    (1, 0, 2),
    (1, 0.25, 0.5),
    (1, 0.5, 0.5),
    (1, 1, 1),
]
# lambda_3 = (n + 1) / 12 (50 / n_classes)^power, beside texts.
POWERS = (0.0, 0.15, 0.3, 0.45, 0.6)
# Of early stopping: folds, furthest step and steps of single shots.
BRIDGE_FOLDS, BRIDGE_STEPS = [2, 4], [32, 60, 100]
SINGLE_SHOT_STEPS = [28, 56, 100]


def pool_problem(folder, name, n_shots, seed):
    """Shots drawn from the training shots; the rest of these are the queries.

    None where the pool has not more shots per class.
    """
    arrays = read_arrays(folder / f"{name}.npz")
    if "support" in arrays:
        X, y = arrays["support"], arrays["support_labels"].astype(int)
    else:
        pool = load_problem(folder, name, 16, 0) or load_problem(folder, name, 4, 0)
        X, y = pool.X, pool.y
    if np.bincount(y).min() <= n_shots:
        return None
    rng = np.random.default_rng(seed)
    shots = draw_rows(y, n_shots, rng)
    rest = np.setdiff1d(np.arange(len(y)), shots)
    rest = rng.permutation(rest)[:MAX_QUERIES]
    X, y = X.astype(np.float32), y.astype(int)
    return Problem(X[shots], y[shots], X[rest], y[rest], read_head(folder, name))


def accuracy(classifier, problem):
    classifier.fit(problem.X, problem.y)
    return 100 * classifier.score(problem.queries, problem.targets), classifier


def grid_accuracies(problem):
    """Accuracy of every setting of the recommended head, in %."""
    n_shots = len(problem.y) / len(np.unique(problem.y))
    logits = {}
    for setting in SETTINGS:
        shrinkage, energy, outside = setting
        make = bridged(BridgedGDAClassifier, shrinkage=shrinkage, bridge_rank=energy)
        with patch("skbridge._gaussian._SCATTER_OUTSIDE", outside):
            fitted = make(problem).fit(problem.X, problem.y)
        z1, _, z3 = fitted.component_logits(problem.queries)
        logits[setting] = (0.0 if z1 is None else z1), z3
    found = []
    for setting, kappa in GRID:
        z1, z3 = logits[setting]
        lambda_3 = (n_shots + 1) / kappa if problem.has_texts else 1.0
        found.append(np.mean((z1 + lambda_3 * z3).argmax(axis=1) == problem.targets))
    return 100 * np.array(found)


def power_accuracies(problem):
    """Accuracy of the weight of z3 under every power of the number of classes, in %."""
    n_classes = len(np.unique(problem.y))
    n_shots = len(problem.y) / n_classes
    fitted = bridged(BridgedGDAClassifier)(problem).fit(problem.X, problem.y)
    z1, _, z3 = fitted.component_logits(problem.queries)
    found = []
    for power in POWERS:
        lambda_3 = (n_shots + 1) / 12 * (50 / n_classes) ** power
        found.append(np.mean((z1 + lambda_3 * z3).argmax(axis=1) == problem.targets))
    return 100 * np.array(found)


def lambda_accuracies(problem):
    """Accuracy of the mean head's fixed blending weights, in %."""
    fitted = bridged()(problem).fit(problem.X, problem.y)
    z = np.stack(fitted.component_logits(problem.queries))
    scores = [np.tensordot(weights, z, 1) for weights in LAMBDAS]
    return [100 * np.mean(s.argmax(axis=1) == problem.targets) for s in scores]


def bridge_accuracies(problem, settings):
    """Accuracy of the mean head, and trained with each setting, in %.

    A setting is the largest number of steps and constants of `_training.bridge`.
    """
    found = [accuracy(bridged()(problem), problem)[0]]
    n_shots = np.bincount(problem.y).min()
    for max_iter, constants in settings:
        n_folds = min(constants.get("_N_FOLDS", 2), max(n_shots, 2))
        with patch.multiple(
            "skbridge._training.bridge", **constants | {"_N_FOLDS": n_folds}
        ):
            trained = bridged(mode="trained", max_iter=max_iter)(problem)
            found.append(accuracy(trained, problem)[0])
    return found


def print_table(title, rows, names):
    """Print means over data sets by number of shots, best mean in bold."""
    print(f"\n### {title}\n")
    header = ["setting", *(f"{n} shots" for n in rows), "mean"]
    table = np.array([np.mean(found, axis=0) for found in rows.values()]).T
    best = table.mean(axis=1).argmax()
    lines = []
    for i, name in enumerate(names):
        mark = "**" if i == best else ""
        cells = (f"{value:.2f}" for value in [*table[i], table[i].mean()])
        lines.append([f"{mark}{name}{mark}", *cells])
    print(markdown_table(header, lines), flush=True)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--data", nargs="*", default=DATA_SETS)
    options = parser.parse_args(argv)

    def collect(measure, shots, texts=(True, False)):
        rows = {}
        for n_shots, name, seed in product(shots, options.data, range(options.seeds)):
            problem = pool_problem(options.features, name, n_shots, seed)
            if problem is not None and problem.has_texts in texts:
                rows.setdefault(n_shots, []).append(measure(problem))
        return rows

    print("## Constants, on shots alone")
    names = [
        f"shrinkage {s}, energy {e}, outside {o:g} / n, kappa {k}"
        for (s, e, o), k in GRID
    ]
    print_table("Recommended classifier", collect(grid_accuracies, SHOTS), names)
    rows = collect(power_accuracies, SHOTS, [True])
    names = [f"power {power}" for power in POWERS]
    print_table("Recommended classifier, data sets with texts", rows, names)
    rows = collect(lambda_accuracies, SHOTS, [True])
    names = [f"lambda_1..3 = {weights}" for weights in LAMBDAS]
    print_table("Mean head, data sets with texts", rows, names)
    several = [
        (steps, {"_N_FOLDS": n}) for n, steps in product(BRIDGE_FOLDS, BRIDGE_STEPS)
    ]
    rows = collect(lambda p: bridge_accuracies(p, several), SHOTS[1:])
    names = ["closed form"]
    names += [f"{s['_N_FOLDS']} folds, {steps} steps" for steps, s in several]
    print_table("Trained, mean head", rows, names)
    single = [(max(n, 60), {"_STEPS_OF_SINGLE_SHOTS": n}) for n in SINGLE_SHOT_STEPS]
    rows = collect(lambda p: bridge_accuracies(p, single), [1], [True])
    names = ["closed form", *(f"{n} steps" for n in SINGLE_SHOT_STEPS)]
    print_table("Trained, mean head, single shots with texts", rows, names)


if __name__ == "__main__":
    main()
