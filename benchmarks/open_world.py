"""Unlabelled images, and images of no known class, on real CLIP features.

    python benchmarks/open_world.py --features FOLDER --output open_world.md

The folder is that of ``accuracy.py``; ImageNet, which has no queries of its own, is
left out of the first part.

- Unlabelled images: half of the queries, drawn anew for each seed, are given without
  labels, and accuracy is that on the other half. Beside `BridgedGDAClassifier` are
  scikit-learn's `SelfTrainingClassifier` around it, `LabelSpreading` on the unit
  embeddings, and `TransCLIPClassifier`. A second table has the accuracy on the
  unlabelled images themselves: TransCLIP and LabelSpreading then give the labels found
  in `fit`, the others predict. Gains are over `BridgedGDAClassifier` without unlabelled
  images.
- Unknown classes: a third of the classes, drawn anew, has neither shots nor texts. The
  AUROC is that of telling their queries from the others, by `score_samples`, by the
  largest probability, and by MCM (the largest softmax probability of the cosines with
  the class texts, at temperature 1). Beside it what ``reject=0.05`` gives up.

Nothing is chosen on the queries. With ``--records`` results are kept as they come, and
a later run makes only those that are missing.
"""

import argparse
import json
import os
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import product
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np
from _measure import markdown_table
from accuracy import DATA_SETS, SHOTS, expected_calibration_error, load_problem
from scipy.special import softmax
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.semi_supervised import LabelSpreading, SelfTrainingClassifier

from skbridge import BridgedGDAClassifier
from skbridge._rows import unit
from skbridge.baselines import TransCLIPClassifier

REJECTED = 0.05
BEFORE = "before"
UNKNOWN = ["score_samples", "largest probability", "MCM"]
INTRODUCTION = """\
How much accuracy unlabelled images add to a few shots, and how well images of unknown
classes are recognised, on real CLIP features. `stanford_cars`, `dtd`, `whurs19` and
`imagenet` have class texts, the other data sets have none. Nothing is chosen on the
queries. `python benchmarks/open_world.py --features FOLDER` prints the tables."""
HALVES = """\
Half of the queries, drawn anew for each seed, are added to the shots without labels.
Figures are the gains in accuracy over `BridgedGDAClassifier` without unlabelled images.
SelfTrainingClassifier, around `BridgedGDAClassifier`, and LabelSpreading, on the unit
embeddings, are those of scikit-learn; TransCLIP is that of `skbridge.baselines`."""
REST = """\
Accuracy of `BridgedGDAClassifier` without unlabelled images in % ("before"), share of
fits that use them ("used"), and calibration error with them in % ("ECE"):"""
UNKNOWN_CLASSES = """\
A third of the classes, drawn anew for each seed, has neither shots nor texts. The AUROC
measures how well a score distinguishes their queries from the others: `score_samples`,
the largest probability, or MCM, the largest softmax probability of the cosines with the
class texts at temperature 1."""
REJECTION = f"""\
Share of the queries of known and of unknown classes in % that `reject={REJECTED}`
labels as unknown:"""


# Each fits to unlabelled images too, whose label is -1, and returns the classifier.


def before(problem, X, y):
    return BridgedGDAClassifier(problem.head).fit(problem.X, problem.y)


def bridged(problem, X, y):
    return BridgedGDAClassifier(problem.head, missing_label=-1).fit(X, y)


def self_training(problem, X, y):
    return SelfTrainingClassifier(BridgedGDAClassifier(problem.head)).fit(X, y)


def label_spreading(problem, X, y):
    spreading = LabelSpreading(kernel="knn", n_neighbors=10)
    return make_pipeline(FunctionTransformer(unit), spreading).fit(X, y)


def transclip(problem, X, y):
    return TransCLIPClassifier(**problem.rival_texts, missing_label=-1).fit(X, y)


UNLABELLED = {
    BEFORE: before,
    "BridgedGDA": bridged,
    "SelfTrainingClassifier": self_training,
    "LabelSpreading": label_spreading,
    "TransCLIP": transclip,
}
GAINS = [method for method in UNLABELLED if method != BEFORE]


def accuracy(labels, y):
    return 100 * float(np.mean(labels == y))


def unlabelled(folder, name, n_shots, seed, method):
    """Accuracy of a method on the unlabelled half of the queries and on the other."""
    problem = load_problem(folder, name, n_shots, seed) or load_problem(
        folder, name, n_shots, 0
    )
    if problem is None:
        return None
    order = np.random.default_rng(seed).permutation(len(problem.targets))
    pool, judged = np.split(order, [len(order) // 2])
    X = np.concatenate([problem.X, problem.queries[pool]])
    y = np.concatenate([problem.y, np.full(len(pool), -1)])
    queries, targets = problem.queries[judged], problem.targets[judged]
    fitted = UNLABELLED[method](problem, X, y)
    if method == "TransCLIP":
        found = fitted.transduction_
    elif method == "LabelSpreading":
        found = fitted[-1].transduction_[len(problem.y) :]
    else:
        found = fitted.predict(problem.queries[pool])
    record = {
        "other": accuracy(fitted.predict(queries), targets),
        "own": accuracy(found, problem.targets[pool]),
        "texts": problem.has_texts,
    }
    if method == "BridgedGDA":
        proba = fitted.predict_proba(queries)
        codes = np.searchsorted(fitted.classes_, targets)
        record["used"] = float(fitted.uses_unlabelled_)
        record["ECE"] = 100 * expected_calibration_error(proba, codes)
    return record


def unlabelled_cells(records, half):
    """Gains of the methods on one half, by (data set, number of shots)."""
    draws = {}
    for (name, n_shots, seed, method), record in records.items():
        draws.setdefault((name, n_shots, seed), {})[method] = record
    cells = {}
    for (name, n_shots, _), found in draws.items():
        start = found[BEFORE][half]
        gains = {m: r[half] - start for m, r in found.items() if m != BEFORE}
        rest = {"before": start, "texts": found[BEFORE]["texts"]}
        rest |= {key: found["BridgedGDA"][key] for key in ("used", "ECE")}
        cells.setdefault((name, n_shots), []).append(gains | rest)
    return cells


def unknown_classes(folder, name, n_shots, seed):
    """AUROC of telling unknown classes from known ones, and what is rejected."""
    problem = load_problem(folder, name, n_shots, seed) or load_problem(
        folder, name, n_shots, 0
    )
    if problem is None:
        return None
    labels = np.unique(problem.y)
    rng = np.random.default_rng(seed)
    known = rng.permutation(labels)[: len(labels) - len(labels) // 3]
    shots = np.isin(problem.y, known)
    is_known = np.isin(problem.targets, known)
    reject = {"reject": REJECTED} if n_shots > 1 else {}
    classifier = BridgedGDAClassifier(problem.head, **reject)
    classifier.fit(problem.X[shots], problem.y[shots])
    z1, _, _ = classifier.component_logits(problem.queries)
    scores = {
        "score_samples": classifier.score_samples(problem.queries),
        "largest probability": classifier.predict_proba(problem.queries).max(axis=1),
    }
    if z1 is not None:
        scores["MCM"] = softmax(z1, axis=1).max(axis=1)
    found = {key: 100 * roc_auc_score(is_known, s) for key, s in scores.items()}
    if reject:
        rejected = classifier.predict(problem.queries) == -1
        found["known rejected"] = 100 * rejected[is_known].mean()
        found["unknown rejected"] = 100 * rejected[~is_known].mean()
    return found | {"texts": problem.has_texts}


def measured(function, folder, jobs, n_jobs, path):
    """Records of the jobs; with `path` only those are made that are not in it."""
    known = {}
    if path is not None and path.exists():
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        known = {
            tuple(line["job"]): line["record"]
            for line in lines
            if line["part"] == function.__name__
        }
    with ProcessPoolExecutor(n_jobs) as pool:
        futures = {
            pool.submit(quietly, function, folder, *job): job
            for job in jobs
            if job not in known
        }
        for future in as_completed(futures):
            job, record = futures[future], future.result()
            known[job] = record
            if path is not None:
                line = {"part": function.__name__, "job": job, "record": record}
                with path.open("a") as file:
                    file.write(json.dumps(line) + "\n")
    return {job: known[job] for job in jobs if known[job] is not None}


def quietly(function, *job):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*job)


def mean(records, key):
    values = [record[key] for record in records if key in record]
    return np.mean(values) if values else np.nan


def figure(value, digits=1, sign=""):
    return "n/a" if np.isnan(value) else f"{value:{sign}.{digits}f}"


def table(cells, shots, columns, sign=""):
    """A row for each data set and column, one cell for each number of shots."""
    names = list(dict.fromkeys(name for name, _ in cells))
    rows = []
    for name, column in product(names, columns):
        values = [mean(cells.get((name, k), []), column) for k in shots]
        if not np.isnan(values).all():
            rows.append([name, column, *(figure(v, sign=sign) for v in values)])
    return markdown_table(["data set", "", *(f"{k} shot" for k in shots)], rows)


def means(cells, shots, columns, sign=""):
    """The same over data sets, with and without class texts."""
    rows = []
    for has_texts, column in product((True, False), columns):
        values = []
        for k in shots:
            found = [
                mean(records, column)
                for (_, n_shots), records in cells.items()
                if n_shots == k and records[0]["texts"] == has_texts
            ]
            found = [value for value in found if not np.isnan(value)]
            values.append(np.mean(found) if found else np.nan)
        if not np.isnan(values).all():
            kind = "with texts" if has_texts else "without"
            rows.append([kind, column, *(figure(v, sign=sign) for v in values)])
    return markdown_table(["data sets", "", *(f"{k} shot" for k in shots)], rows)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--data", nargs="+", default=list(DATA_SETS))
    parser.add_argument("--shots", nargs="+", type=int, default=list(SHOTS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--records", type=Path, help="JSON lines, read and extended")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args(argv)
    jobs = list(product(options.data, options.shots, range(options.seeds)))
    own = [
        (*job, method) for job in jobs for method in UNLABELLED if job[0] != "imagenet"
    ]
    run = {"n_jobs": options.jobs, "path": options.records}
    halves = measured(unlabelled, options.features, own, **run)
    others, own = unlabelled_cells(halves, "other"), unlabelled_cells(halves, "own")
    unknown = {}
    records = measured(unknown_classes, options.features, jobs, **run)
    for (name, n_shots, _), record in records.items():
        unknown.setdefault((name, n_shots), []).append(record)
    rejection = ["known rejected", "unknown rejected"]
    text = "\n\n".join(
        [
            "# Unlabelled images and unknown classes",
            INTRODUCTION,
            "## Half of the queries as unlabelled images: gain in points",
            HALVES,
            "On the other half:",
            means(others, options.shots, GAINS, "+"),
            table(others, options.shots, GAINS, "+"),
            "On the unlabelled images themselves:",
            means(own, options.shots, GAINS, "+"),
            REST,
            table(others, options.shots, ["before", "used", "ECE"]),
            "## A third of the classes unknown: AUROC in %",
            UNKNOWN_CLASSES,
            means(unknown, options.shots, UNKNOWN),
            table(unknown, options.shots, UNKNOWN),
            REJECTION,
            table(unknown, options.shots, rejection),
        ]
    )
    print(text)
    if options.output is not None:
        options.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
