"""What skbridge.review saves: labels that need not be given, wrong ones found.

    python benchmarks/review.py --features FOLDER --output review.md

The folder is that of ``benchmarks/accuracy.py``. Three tables:

- *Labels needed.* A pool without labels, and one labelled image per class; labels are
  given in rounds, until the classifier is as accurate on other images as 8 random
  shots per class make it on average. `label_next` against random images of the pool.
  The pool is the support of a data set, or half of its images; the rest are judged.
- *Wrong labels found.* A share of the labels of 16 shots per class (8 with `--shots 8`)
  is changed to another class. Precision is the share of wrong labels among as many
  rows of the lowest scores as there are wrong ones. cleanlab's ranking, where it is
  installed, gets probabilities of the same leave-one-out fits, and of its users' usual
  five folds.
- *Forecast.* What `shot_curve` expects at 16 shots per class from 8 of them, beside
  what it finds at 15 of the 16.

The classifier is BridgedGDAClassifier with its defaults. The last column is a choice
made on the other data sets: for each, the strategy, or the share of shots that the
second pass leaves out, which is best on the mean of all others.
"""

import os

# One thread a process; read when NumPy is imported.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import argparse
import warnings
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path

import numpy as np
from _measure import markdown_table
from accuracy import (
    DATA_SETS,
    as_codes,
    draw_rows,
    load_problem,
    read_arrays,
    read_head,
)
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from skbridge import BridgedGDAClassifier
from skbridge.review import label_next, shot_curve, suspicious_labels
from skbridge.review._held_out import held_out_log_proba
from skbridge.review._labels import margins_of

try:
    from cleanlab.rank import get_label_quality_scores
except ImportError:
    get_label_quality_scores = None

PARTS = ("labels", "flips", "forecast")
STRATEGIES = ("margin", "coverage", "mixed")
SHARES = (0.0, 0.05, 0.1, 0.2)
FLIP_RATES = (0.05, 0.1)
GOAL_SHOTS = 8
# Fits of random shots whose mean accuracy is the goal.
GOAL_DRAWS = 5


def make_classifier(head):
    has_texts = head is not None and head.text_features is not None
    return BridgedGDAClassifier(head, **({} if has_texts else {"lambda_1": 0.0}))


# Labels needed


def load_pool(folder, name, draw):
    """Pool and judged images of a data set, with their labels; and its texts."""
    arrays = read_arrays(folder / f"{name}.npz")
    if "support" in arrays:
        pool, y = arrays["support"], as_codes(arrays["support_labels"])
        judged, truth = arrays["test"], as_codes(arrays["test_labels"])
    elif "features" in arrays or "test" in arrays:
        whole = "features" in arrays
        X = arrays["features" if whole else "test"]
        labels = arrays["labels" if whole else "test_labels"]
        order = np.random.default_rng(draw).permutation(len(X))
        first, second = np.array_split(order, 2)
        codes = as_codes(labels)
        pool, y, judged, truth = X[first], codes[first], X[second], codes[second]
    else:
        return None
    return pool.astype(np.float32), y, judged.astype(np.float32), truth


def labels_to_goal(problem, head, goal, start, choose, n_a_round):
    """Labels that are given until the goal is reached, between rounds by a line."""
    pool, y, judged, truth = problem
    known = list(start)
    before = None
    while True:
        classifier = make_classifier(head).fit(pool[known], y[known])
        accuracy = classifier.score(judged, truth)
        if accuracy >= goal or len(known) == len(pool):
            break
        before = len(known), accuracy
        rest = np.setdiff1d(np.arange(len(pool)), known)
        known += rest[choose(classifier, rest, known, n_a_round)].tolist()
    if before is None or accuracy < goal:
        return float(len(known))
    n_before, lower = before
    return n_before + (len(known) - n_before) * (goal - lower) / (accuracy - lower)


def measure_labels(job):
    """Labels per class that random images and each strategy need."""
    folder, name, draw = job
    warnings.simplefilter("ignore")
    problem = load_pool(folder, name, draw)
    if problem is None:
        return None
    head = read_head(folder, name)
    pool, y, judged, truth = problem
    rng = np.random.default_rng(draw)
    classes = np.unique(y)
    accuracies = []
    for _ in range(GOAL_DRAWS):
        order = rng.permutation(len(y))
        shots = [order[y[order] == label][:GOAL_SHOTS] for label in classes]
        shots = np.concatenate(shots)
        fitted = make_classifier(head).fit(pool[shots], y[shots])
        accuracies.append(fitted.score(judged, truth))
    goal = np.mean(accuracies)
    start = draw_rows(y, 1, rng)
    n_a_round = max(1, len(classes) // 2)

    def random(classifier, rest, known, n):
        return rng.permutation(len(rest))[:n]

    def by(strategy):
        def choose(classifier, rest, known, n):
            return label_next(
                classifier, pool[rest], n, labelled=pool[known], strategy=strategy
            ).indices

        return choose

    ways = {"random": random} | {way: by(way) for way in STRATEGIES}
    needed = {
        way: labels_to_goal(problem, head, goal, start, choose, n_a_round)
        / len(classes)
        for way, choose in ways.items()
    }
    return name, needed | {"goal": 100 * goal}


def labels_table(results):
    names = [name for name in DATA_SETS if name in results]
    mean = {
        name: {key: np.mean([r[key] for r in rows]) for key in rows[0]}
        for name, rows in ((name, results[name]) for name in names)
    }
    ratio = {
        name: {way: mean[name][way] / mean[name]["random"] for way in STRATEGIES}
        for name in names
    }
    picked = chosen_elsewhere(ratio, min)
    header = ["data set", f"accuracy of {GOAL_SHOTS} random shots per class"]
    header += ["random", *STRATEGIES, "`mixed` over random", "chosen elsewhere"]
    rows = [
        [
            name,
            f"{mean[name]['goal']:.1f} %",
            *(f"{mean[name][way]:.1f}" for way in ("random", *STRATEGIES)),
            f"{ratio[name]['mixed']:.2f}",
            f"{ratio[name][picked[name]]:.2f} ({picked[name]})",
        ]
        for name in names
    ]
    over_sets = [np.mean([ratio[name][way] for name in names]) for way in STRATEGIES]
    elsewhere = np.mean([ratio[name][picked[name]] for name in names])
    rows.append(
        ["mean of the ratios to random", "", "1.00"]
        + [f"{value:.2f}" for value in over_sets]
        + [f"{over_sets[-1]:.2f}", f"{elsewhere:.2f}"]
    )
    return markdown_table(header, rows)


def chosen_elsewhere(figures, pick):
    """For each data set, the option of the best mean over all the other data sets."""
    picked = {}
    for name, own in figures.items():
        others = [figures[other] for other in figures if other != name] or [own]
        means = {key: np.mean([other[key] for other in others]) for key in own}
        picked[name] = pick(means, key=means.get)
    return picked


# Wrong labels found


def flip_labels(y, rate, rng):
    """Change a share of the labels to another class."""
    n_classes = y.max() + 1
    wrong = np.zeros(len(y), dtype=bool)
    wrong[rng.choice(len(y), round(rate * len(y)), replace=False)] = True
    shift = rng.integers(1, n_classes, size=len(y))
    return np.where(wrong, (y + shift) % n_classes, y), wrong


def precision(scores, wrong):
    """Share of wrong labels among as many rows of the lowest scores."""
    return wrong[np.argsort(scores, kind="stable")[: wrong.sum()]].mean()


def scores_by_share(classifier, X, y, shares):
    """Scores where the second pass leaves out another share of the shots."""
    codes, rows = np.unique(y, return_inverse=True)[1], np.arange(len(y))
    first = held_out_log_proba(classifier, X, y)
    doubtful = np.where(margins_of(first, codes)[0] < 0, first[rows, codes], 0)
    order = np.argsort(doubtful, kind="stable")
    for share in shares:
        doubted = np.zeros(len(y), dtype=bool)
        doubted[order[: int(share * len(y))]] = True
        doubted &= doubtful < 0
        yield held_out_log_proba(classifier, X, y, doubted=doubted)[rows, codes]


def measure_flips(job):
    """Precision of every ranking on one draw of shots and flips."""
    folder, name, draw, rate, n_shots = job
    warnings.simplefilter("ignore")
    problem = load_problem(folder, name, n_shots, draw)
    problem = problem or load_problem(folder, name, n_shots, 0)
    if problem is None:
        return None
    X, rng = problem.X, np.random.default_rng(draw)
    y, wrong = flip_labels(as_codes(problem.y), rate, rng)
    classifier = make_classifier(problem.head)
    found = {"suspicious_labels": suspicious_labels(classifier, X, y).scores}
    by_share = scores_by_share(classifier, X, y, SHARES)
    found |= dict(zip(SHARES, by_share, strict=True))
    if get_label_quality_scores is not None:
        codes, rows = np.unique(y, return_inverse=True)[1], np.arange(len(y))
        proba = np.exp(held_out_log_proba(classifier, X, y))
        alone = np.isnan(proba[rows, 0])
        proba[alone] = 1 / proba.shape[1]
        found["cleanlab"] = get_label_quality_scores(codes, proba)
        proba = cross_val_predict(
            classifier, X, y, cv=StratifiedKFold(5), method="predict_proba"
        )
        found["cleanlab, 5 folds"] = get_label_quality_scores(codes, proba)
    return (name, rate), {key: precision(s, wrong) for key, s in found.items()}


def flips_table(results):
    parts = []
    for rate in FLIP_RATES:
        names = [name for name in DATA_SETS if (name, rate) in results]
        if not names:
            continue
        mean = {
            name: {key: 100 * np.mean([r[key] for r in rows]) for key in rows[0]}
            for name, rows in ((name, results[name, rate]) for name in names)
        }
        by_share = {name: {s: mean[name][s] for s in SHARES} for name in names}
        picked = chosen_elsewhere(by_share, max)
        keys = [key for key in mean[names[0]] if isinstance(key, str)]
        rows = [
            [
                name,
                *(f"{mean[name][key]:.1f}" for key in keys),
                f"{mean[name][0.0]:.1f}",
                f"{mean[name][picked[name]]:.1f} ({100 * picked[name]:.0f} %)",
            ]
            for name in names
        ]
        over = [np.mean([mean[name][key] for name in names]) for key in [*keys, 0.0]]
        over.append(np.mean([mean[name][picked[name]] for name in names]))
        rows.append(["mean", *(f"{value:.1f}" for value in over)])
        header = ["data set", *keys, "one pass", "share chosen elsewhere"]
        parts.append(f"{100 * rate:.0f} % of the labels changed, precision in %:")
        parts.append(markdown_table(header, rows))
    return "\n\n".join(parts)


# Forecast


def measure_forecast(job):
    """Accuracy now, expected and found, of shots that are left out."""
    folder, name, draw = job
    warnings.simplefilter("ignore")
    problem = load_problem(folder, name, 2 * GOAL_SHOTS, draw)
    problem = problem or load_problem(folder, name, 2 * GOAL_SHOTS, 0)
    if problem is None:
        return None
    X, y = problem.X, problem.y
    classifier = make_classifier(problem.head)
    few = draw_rows(y, GOAL_SHOTS, np.random.default_rng(draw))
    now = shot_curve(classifier, X[few], y[few])
    later = shot_curve(classifier, X, y)
    return name, (now.accuracy[-1], now.expected, later.accuracy[-1])


def forecast_table(results):
    header = ["data set", f"at {GOAL_SHOTS - 1}", f"expected at {2 * GOAL_SHOTS}"]
    header += [f"found at {2 * GOAL_SHOTS - 1}", "error, points"]
    rows, errors = [], []
    for name in (name for name in DATA_SETS if name in results):
        figures = 100 * np.array(results[name])
        errors.append(np.abs(figures[:, 1] - figures[:, 2]).mean())
        means = figures.mean(axis=0)
        rows.append([name, *(f"{x:.1f}" for x in means), f"{errors[-1]:.1f}"])
    rows.append(["mean", "", "", "", f"{np.mean(errors):.1f}"])
    return markdown_table(header, rows)


def gathered(results):
    """Results by key, without those of data sets that do not suit."""
    found = {}
    for key, figures in filter(None, results):
        found.setdefault(key, []).append(figures)
    return found


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--datasets", nargs="+", default=list(DATA_SETS))
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--shots", type=int, default=16, help="with wrong labels")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--output", type=Path, default=None)
    options = parser.parse_args(argv)
    folder = options.features
    names = [n for n in options.datasets if (folder / f"{n}.npz").exists()]
    draws = list(product([folder], names, range(options.draws)))
    flips = [(*draw, rate, options.shots) for draw, rate in product(draws, FLIP_RATES)]
    parts = {
        "labels": ("Labels needed, per class", measure_labels, draws, labels_table),
        "flips": (
            f"Wrong labels found, {options.shots} shots per class",
            measure_flips,
            flips,
            flips_table,
        ),
        "forecast": (
            "Forecast of accuracy, % of left-out shots",
            measure_forecast,
            draws,
            forecast_table,
        ),
    }
    report = []
    with ProcessPoolExecutor(options.jobs) as workers:
        for title, measure, jobs, table in (parts[name] for name in options.parts):
            report += [f"## {title}", table(gathered(workers.map(measure, jobs)))]
    report = "\n\n".join(report)
    print(report)
    if options.output is not None:
        options.output.write_text(f"{report}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
