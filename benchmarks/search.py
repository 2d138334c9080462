"""FewShotSearchCV against GridSearchCV and Optuna: 1,000 settings, from the shots.

The settings, folds and scores of GridSearchCV are the same; it is timed on a random
sample of the settings and its time is scaled to all of them, and the scores of the
sample are compared one by one. Optuna's TPE sampler maximises the official code's
objective, the accuracy of the exponential blend on one validation split, whose three
logits are computed once; its time is scaled from fewer trials. Run with one thread
a process for a fair comparison. Without Optuna (`pip install "skbridge[bench]"`) the
report says that it is missing.

    OMP_NUM_THREADS=1 python benchmarks/search.py
"""

import argparse
import time
from importlib.util import find_spec

import numpy as np
from _measure import markdown_table
from sklearn.model_selection import GridSearchCV, ParameterGrid, StratifiedKFold

from skbridge import FewShotSearchCV, SeMoBridgeClassifier, TextHead

SPACE = {
    "bridge_rank": [100, 200, 300, 400, 512],
    "lambda_2": [0.0, 0.1, 0.3, 1.0],
    "lambda_3": np.geomspace(0.05, 8, 50).tolist(),
}


def make_problem(n_classes=100, n_shots=8, n_features=512, seed=0):
    """Shots around class directions of which the texts tell a part."""
    rng = np.random.default_rng(seed)
    eos = rng.normal(size=(n_classes, n_features))
    spectrum = np.geomspace(3, 0.05, n_features)[:, None]
    rotation = np.linalg.qr(rng.normal(size=(n_features, n_features)))[0]
    head = TextHead.from_arrays(
        range(n_classes),
        eos=eos.astype(np.float32),
        projection=(spectrum * rotation).astype(np.float32),
    )
    y = np.repeat(np.arange(n_classes), n_shots)
    noise = 2.0 * rng.normal(size=(len(y), n_features)) / np.sqrt(n_features)
    own = rng.normal(size=(n_classes, n_features)) / np.sqrt(n_features)
    X = 0.25 * head.text_features[y] + 0.35 * own[y] + noise
    return X.astype(np.float32), y, head


def compare_grid(X, y, head, n_folds, n_reference):
    """Time both searches; give their seconds, scaled for the second, and the scores.

    The last number is how many of the compared scores differ, at most by one shot:
    rounding may decide between two classes that are as near.
    """
    classifier = SeMoBridgeClassifier(texts=head)
    grid = list(ParameterGrid(SPACE))
    started = time.perf_counter()
    search = FewShotSearchCV(classifier, SPACE).fit(X, y)
    ours = time.perf_counter() - started

    rng = np.random.default_rng(0)
    n_reference = min(n_reference, len(grid))
    chosen = np.sort(rng.choice(len(grid), n_reference, replace=False))
    singles = [{name: [value] for name, value in grid[i].items()} for i in chosen]
    cv = StratifiedKFold(n_folds)
    started = time.perf_counter()
    reference = GridSearchCV(classifier, singles, cv=cv, refit=False).fit(X, y)
    theirs = (time.perf_counter() - started) * len(grid) / n_reference
    differing = 0
    for fold, (_, test) in enumerate(cv.split(X, y)):
        name = f"split{fold}_test_score"
        scores = search.cv_results_[name][chosen], reference.cv_results_[name]
        np.testing.assert_allclose(*scores, atol=1.01 / len(test))
        differing += np.count_nonzero(~np.isclose(*scores, rtol=0, atol=1e-9))
    return ours, theirs, n_reference, differing


def time_optuna(X, y, head, n_trials):
    """Seconds a trial of Optuna on the official objective."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    train, test = next(StratifiedKFold(2).split(X, y))
    classifier = SeMoBridgeClassifier(texts=head).fit(X[train], y[train])
    z1, z2, z3 = classifier.component_logits(X[test])

    def objective(trial):
        lambdas = [trial.suggest_float(f"lambda_{i}", 0, 1) for i in (1, 2, 3)]
        alpha, beta, gamma = (
            trial.suggest_float(name, 0, 10) for name in ("alpha", "beta", "gamma")
        )
        scores = (
            lambdas[0] * np.exp(-alpha * (1 - z1))
            + lambdas[1] * np.exp(-beta * (1 - z2))
            + lambdas[2] * np.exp(-gamma * (1 - z3))
        )
        return float((scores.argmax(axis=1) == y[test]).mean())

    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.TPESampler(seed=0)
    )
    started = time.perf_counter()
    study.optimize(objective, n_trials=n_trials)
    return (time.perf_counter() - started) / n_trials


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--shots", type=int, nargs="+", default=[8, 4])
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--reference-settings", type=int, nargs="+", default=[50, 3])
    parser.add_argument("--trials", type=int, default=20)
    options = parser.parse_args(argv)
    rows = []
    sizes = zip(options.classes, options.shots, options.reference_settings, strict=True)
    for n_classes, n_shots, n_reference in sizes:
        X, y, head = make_problem(n_classes, n_shots, options.width)
        size = f"{n_classes:,} x {n_shots}"
        found = compare_grid(X, y, head, n_shots, n_reference)
        ours, theirs, n_compared, differing = found
        rows.append([size, "FewShotSearchCV", "all", f"{ours:.1f} s", "1"])
        name = f"GridSearchCV ({differing} scores differ, by a shot)"
        ratio = f"{theirs / ours:.0f}"
        rows.append([size, name, n_compared, f"{theirs:.0f} s", ratio])
        name = "Optuna TPE, 1,000 trials"
        if find_spec("optuna") is None:
            rows.append([size, name, "not installed", "", ""])
        else:
            seconds = 1000 * time_optuna(X, y, head, options.trials)
            ratio = f"{seconds / ours:.1f}"
            rows.append([size, name, options.trials, f"{seconds:.1f} s", ratio])
    print("## Search\n")
    n_settings = len(ParameterGrid(SPACE))
    print(
        f"{n_settings:,} settings of the linear blend and the cut, with as many folds "
        "as shots. FewShotSearchCV's time has the refit and the temperature; those "
        "of the others are scaled from the number of settings or trials given. "
        "Optuna judges one split in which half of the shots are held out.\n"
    )
    header = ["classes x shots", "search", "timed", "time", "/ FewShotSearchCV"]
    print(markdown_table(header, rows))


if __name__ == "__main__":
    main()
