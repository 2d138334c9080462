"""Accuracy and probabilities of every method, tuned in one way from the shots alone.

Methods x data sets x numbers of shots x seeds, on a folder of CLIP features and on
the bundled emoji. Prints Markdown tables, and writes them where told to:

    python benchmarks/accuracy.py --features FOLDER --emoji --output accuracy.md

A data set is a file ``NAME.npz`` in the folder. It has the images' features in one
of three layouts (K is a number of shots):

- ``shots_K``, ``shot_labels_K`` for each K, with ``test``, ``test_labels``: the shots
  are given, so there is one draw of them;
- ``support``, ``support_labels``, ``test``, ``test_labels``: K images per class are
  drawn from the support, once for each seed;
- ``features``, ``labels``: 16 images per class are set aside for each seed, the first
  K of them are the shots; all others are the queries.

In the first layout a file without ``test`` is queried with its own shots: those of the
largest K or, at the largest K, those of the smallest.

``text_features``, one row per class, are optional: without them all methods run
text-free, and zero-shot CLIP cannot run. ``template_text_features``, of shape
(n_templates, n_classes, n_features), stand in for them by their mean, and are the text
bank. A data set whose name ends in BACKBONE is bridged by the pseudo-inverse of
``BACKBONE_text_projection.npy`` where the folder has that file, and others by the text
subspace of ``text_bank.npz`` (array ``text_features``), if it has their width.

Nothing is chosen on the queries. Every method but scikit-learn's is tuned by
FewShotSearchCV with the space that it declares, LogisticRegressionCV by its own
cross-validation; rows that say "no search" are not tuned at all. With ``--records``
results are kept as they come, and a later run makes only those that are missing.
"""

import os

# One thread a process; read when NumPy is imported.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import argparse
import json
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
from scipy.stats import rankdata, wilcoxon
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.model_selection import StratifiedKFold

from skbridge import (
    BridgedGDAClassifier,
    CLIPEmbedder,
    FewShotSearchCV,
    SeMoBridgeClassifier,
    TextHead,
)
from skbridge.baselines import (
    APEClassifier,
    GDAClassifier,
    LPPlusPlusClassifier,
    ProKeRClassifier,
    TipAdapterClassifier,
    ZeroShotClassifier,
)
from skbridge.datasets import load_emoji

DATA_SETS = (
    "caltech101",
    "oxford_flowers",
    "fgvc",
    "fgvc_vit_b_16",
    "stanford_cars",
    "dtd",
    "imagenet",
    "whurs19_vit_b_32",
    "whurs19_rn50",
    "microstructure_mobilenet_v3",
)
EMOJI = "emoji"
SHOTS = (1, 2, 4, 8, 16)
SET_ASIDE = 16
EMOJI_SHOTS = 4

TRAINING_FREE, TRAINED, OURS = "training-free rivals", "trained rivals", "skbridge"
ABLATION = "bridges and cuts"

# Data sets


@dataclass(frozen=True)
class Problem:
    """Shots, queries and the text side of one data set."""

    X: np.ndarray
    y: np.ndarray
    queries: np.ndarray
    targets: np.ndarray
    head: TextHead | None

    @property
    def has_texts(self):
        return self.head is not None and self.head.text_features is not None

    @property
    def rival_texts(self):
        """Texts of a rival: those of the classes, or none."""
        if not self.has_texts:
            return {"texts": None}
        head = TextHead.from_features(
            self.head.classes,
            self.head.text_features,
            logit_scale=self.head.logit_scale,
        )
        return {"texts": head}

    @property
    def bridge(self):
        if self.head is None:
            return "identity"
        return "text_subspace" if self.head.projection is None else "pseudo_inverse"

    @property
    def has_text_subspace(self):
        return self.has_texts or (
            self.head is not None and self.head.text_bank is not None
        )


@cache
def read_arrays(path):
    with np.load(path) as arrays:
        return {name: arrays[name] for name in arrays.files}


@cache
def read_head(folder, name):
    """Text side of a data set, None where the folder has nothing of it."""
    arrays = read_arrays(folder / f"{name}.npz")
    texts, bank = arrays.get("text_features"), None
    if "template_text_features" in arrays:
        templates = arrays["template_text_features"]
        texts, bank = templates.mean(axis=0), templates.reshape(-1, templates.shape[-1])
    classes = None if texts is None else range(len(texts))
    suffix = "_text_projection.npy"
    for path in sorted(folder.glob(f"*{suffix}")):
        if name.endswith(path.name.removesuffix(suffix)):
            return TextHead.from_arrays(projection=np.load(path).astype(np.float32))
    shared = folder / "text_bank.npz"
    if bank is None and shared.exists():
        bank = read_arrays(shared)["text_features"]
        images = next(
            rows
            for key, rows in arrays.items()
            if key in ("features", "support") or key.startswith("shots_")
        )
        # Texts of another model say nothing of these images.
        bank = bank if bank.shape[1] == images.shape[1] else None
    if texts is None and bank is None:
        return None
    return TextHead.from_features(classes, texts, text_bank=bank)


def draw_rows(y, n_shots, rng):
    """`n_shots` random rows of each class, ordered by class."""
    return np.concatenate(
        [
            rng.choice(np.flatnonzero(y == label), n_shots, replace=False)
            for label in np.unique(y)
        ]
    )


def as_codes(labels):
    """Labels as integers; names are numbered in sorted order."""
    if np.issubdtype(labels.dtype, np.number):
        return labels.astype(int)
    return np.unique(labels, return_inverse=True)[1]


def read_queries(arrays, n_shots):
    """Test images, or other shots where there are none."""
    if "test" in arrays:
        return arrays["test"], arrays["test_labels"].astype(int)
    sizes = [k for k in SHOTS if f"shots_{k}" in arrays]
    other = sizes[-1] if n_shots != sizes[-1] else sizes[0]
    return arrays[f"shots_{other}"], arrays[f"shot_labels_{other}"].astype(int)


def load_problem(folder, name, n_shots, seed):
    """One data set with its shots; None where it has not so many, or no such draw."""
    if name == EMOJI:
        return load_emoji_problem(n_shots, seed)
    arrays, head = read_arrays(folder / f"{name}.npz"), read_head(folder, name)
    rng = np.random.default_rng(seed)
    if "features" in arrays:
        X, y = arrays["features"], as_codes(arrays["labels"])
        if n_shots > SET_ASIDE:
            return None
        order = rng.permutation(len(y))
        aside = [order[y[order] == label][:SET_ASIDE] for label in np.unique(y)]
        shots = np.concatenate([rows[:n_shots] for rows in aside])
        others = np.setdiff1d(np.arange(len(y)), np.concatenate(aside))
        X, y, queries, targets = X[shots], y[shots], X[others], y[others]
    else:
        if "support" in arrays:
            X, y = arrays["support"], arrays["support_labels"].astype(int)
            if n_shots > np.bincount(y).min():
                return None
            shots = draw_rows(y, n_shots, rng)
            X, y = X[shots], y[shots]
        elif f"shots_{n_shots}" in arrays and seed == 0:
            X = arrays[f"shots_{n_shots}"]
            y = arrays[f"shot_labels_{n_shots}"].astype(int)
        else:
            return None
        queries, targets = read_queries(arrays, n_shots)
    return Problem(X.astype(np.float32), y, queries.astype(np.float32), targets, head)


@cache
def embed_emoji():
    emoji = load_emoji()
    X = CLIPEmbedder(model="skbridge-tiny").fit_transform(list(emoji.images))
    names = emoji.target_names
    head = TextHead.from_clip(names, "skbridge-tiny", classes=range(len(names)))
    return np.asarray(X, dtype=np.float32), emoji.target, emoji.styles, head


def load_emoji_problem(n_shots, seed):
    """Emoji of some styles as shots, those of all the other styles as queries."""
    X, y, styles, head = embed_emoji()
    order = np.random.default_rng(seed).permutation(np.unique(styles))
    # With more, too few styles are left to be queries.
    if n_shots > EMOJI_SHOTS:
        return None
    shots = np.isin(styles, order[:n_shots])
    return Problem(X[shots], y[shots], X[~shots], y[~shots], head)


# Methods


@dataclass(frozen=True)
class Method:
    """A row of the tables.

    `make` turns a Problem into an unfitted classifier, or into None where the
    method cannot run on it. `search` wraps that in FewShotSearchCV.
    """

    make: Callable
    group: str
    search: bool = False


OFFICIAL_CUT = "official"
OFFICIAL_RANK = 250


def cut(bridge, head):
    """Parameters of the official cut, or of 250 directions of a bank."""
    if bridge == "pseudo_inverse":
        s = np.linalg.svd(head.projection.astype(float), compute_uv=False)
        return {"bridge_rank": int(np.count_nonzero(s > 0.3))}
    bank = head.text_features if head.text_bank is None else head.text_bank
    rank = np.linalg.matrix_rank(bank - bank.mean(axis=0))
    return {"bridge_rank": int(min(OFFICIAL_RANK, rank))}


def bridged(estimator_class=SeMoBridgeClassifier, **params):
    """Make a bridged classifier with the problem's own bridge."""

    def make(problem):
        options = {"bridge": problem.bridge} | params
        bridge = options["bridge"]
        if bridge == "text_subspace" and not problem.has_text_subspace:
            return None
        if bridge == "pseudo_inverse" and problem.bridge != "pseudo_inverse":
            return None
        if "pinv_atol" in params and bridge != "pseudo_inverse":
            return None
        if bridge == "identity":
            options.pop("bridge_rank", None)
        elif options.get("bridge_rank") == OFFICIAL_CUT:
            options.pop("bridge_rank")
            options |= cut(bridge, problem.head)
        if bridge == "identity" and not problem.has_texts:
            options.pop("lambda_1", None)
            return estimator_class(None, **options)
        if not problem.has_texts:
            options.pop("lambda_1", None)
        return estimator_class(problem.head, **options)

    return make


def rival(estimator_class, **params):
    return lambda problem: estimator_class(**problem.rival_texts, **params)


def zero_shot(problem):
    return ZeroShotClassifier(**problem.rival_texts) if problem.has_texts else None


def logistic_folds(problem):
    fewest = int(np.bincount(problem.y).min())
    return StratifiedKFold(min(fewest, 4)) if fewest > 1 else None


def logistic_regression(problem):
    """LogisticRegressionCV; with one shot per class there is nothing to tune by."""
    folds = logistic_folds(problem)
    if folds is None:
        return LogisticRegression(C=100.0, max_iter=300)
    return LogisticRegressionCV(
        Cs=[1.0, 10.0, 100.0, 1000.0], cv=folds, max_iter=300, scoring="accuracy"
    )


class CalibratedLogisticRegression:
    """LogisticRegressionCV's C, calibrated by CalibratedClassifierCV."""

    def __init__(self, problem):
        self.tuned, self.folds = logistic_regression(problem), logistic_folds(problem)

    def fit(self, X, y):
        self.tuned.fit(X, y)
        plain = LogisticRegression(C=float(np.median(self.tuned.C_)), max_iter=300)
        self.best = CalibratedClassifierCV(plain, cv=self.folds, ensemble=False)
        self.best.fit(X, y)
        self.classes_ = self.best.classes_
        return self

    def predict_proba(self, X):
        return self.best.predict_proba(X)


def calibrated_logistic_regression(problem):
    if logistic_folds(problem) is None:
        return None
    return CalibratedLogisticRegression(problem)


PAPER = {"lambda_1": 1.0, "lambda_2": 1.0, "lambda_3": 1.0}
PAPER |= {"bridge_rank": OFFICIAL_CUT}
TRAINED_MODE = {"mode": "trained"}

METHODS = {
    "zero-shot CLIP": Method(zero_shot, TRAINING_FREE),
    "Tip-Adapter": Method(rival(TipAdapterClassifier), TRAINING_FREE, True),
    "APE": Method(rival(APEClassifier), TRAINING_FREE, True),
    "GDA": Method(rival(GDAClassifier), TRAINING_FREE, True),
    "ProKeR": Method(rival(ProKeRClassifier), TRAINING_FREE, True),
    "LP++": Method(rival(LPPlusPlusClassifier), TRAINED, True),
    "Tip-Adapter-F": Method(rival(TipAdapterClassifier, mode="trained"), TRAINED, True),
    "LogisticRegressionCV": Method(logistic_regression, TRAINED),
    "LogisticRegressionCV, calibrated": Method(calibrated_logistic_regression, TRAINED),
    "SeMoBridge, paper plain": Method(bridged(**PAPER), OURS),
    "SeMoBridge, default": Method(bridged(), OURS),
    "SeMoBridge, default, searched": Method(bridged(), OURS, True),
    "SeMoBridge-T": Method(bridged(**TRAINED_MODE), OURS),
    "BridgedGDA": Method(bridged(BridgedGDAClassifier), OURS),
    "BridgedGDA, searched": Method(bridged(BridgedGDAClassifier), OURS, True),
    "BridgedGDA without bank, searched": Method(
        bridged(BridgedGDAClassifier, bridge="identity"), OURS, True
    ),
}

for _name, _class in (("gda", BridgedGDAClassifier), ("mean", SeMoBridgeClassifier)):
    for _bridge in ("text_subspace", "pseudo_inverse", "identity"):
        METHODS[f"{_name}, {_bridge}"] = Method(
            bridged(_class, bridge=_bridge), ABLATION
        )
    METHODS[f"{_name}, official cut, 0.3 (250 directions of a bank)"] = Method(
        bridged(_class, bridge_rank=OFFICIAL_CUT), ABLATION
    )
    for _share in (0.8, 0.9, 0.95, 0.97, 1.0):
        METHODS[f"{_name}, {100 * _share:g} % of the energy"] = Method(
            bridged(_class, bridge_rank=_share), ABLATION
        )
METHODS["mean, cut 0.25"] = Method(bridged(pinv_atol=0.25), ABLATION)


QUICK_METHODS = [
    "zero-shot CLIP",
    "Tip-Adapter",
    "GDA",
    "ProKeR",
    "SeMoBridge, default",
    "BridgedGDA",
]

# Measuring


def log_loss(proba, codes):
    """Mean negative log probability of the true class."""
    true = proba[np.arange(len(codes)), codes]
    return float(-np.log(np.maximum(true, np.finfo(np.float64).tiny)).mean())


def expected_calibration_error(proba, codes, n_bins=15):
    """Mean gap of confidence and accuracy over bins of equal width."""
    confidence, right = proba.max(axis=1), proba.argmax(axis=1) == codes
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    gaps = np.bincount(bins, weights=confidence - right, minlength=n_bins)
    return float(np.abs(gaps).sum() / len(codes))


def area_under_risk_coverage(proba, codes):
    """Mean error rate of the most certain images, over all shares of the images."""
    wrong = proba.argmax(axis=1) != codes
    order = np.argsort(-proba.max(axis=1), kind="stable")
    return float((np.cumsum(wrong[order]) / np.arange(1, len(codes) + 1)).mean())


def measure(folder, name, n_shots, seed, method):
    """Record of one method on one data set; None where it cannot run there."""
    problem = load_problem(folder, name, n_shots, seed)
    estimator = None if problem is None else METHODS[method].make(problem)
    if estimator is None:
        return None
    if METHODS[method].search:
        estimator = FewShotSearchCV(estimator, random_state=0)
    with warnings.catch_warnings():
        # One shot per class, small banks, and solvers that stop early are on purpose.
        warnings.simplefilter("ignore")
        started = time.process_time()
        estimator.fit(problem.X, problem.y)
        seconds = time.process_time() - started
        proba = np.asarray(estimator.predict_proba(problem.queries), dtype=np.float64)
    codes = np.searchsorted(estimator.classes_, problem.targets)
    return {
        "method": method,
        "data": name,
        "shots": n_shots,
        "seed": seed,
        "accuracy": 100 * float((proba.argmax(axis=1) == codes).mean()),
        "ece": 100 * expected_calibration_error(proba, codes),
        "log_loss": log_loss(proba, codes),
        "risk": 100 * area_under_risk_coverage(proba, codes),
        "seconds": seconds,
    }


def measured(folder, jobs, n_jobs):
    """Records of the jobs, as they come."""
    if n_jobs == 1:
        yield from (measure(folder, *job) for job in jobs)
        return
    with ProcessPoolExecutor(n_jobs) as pool:
        futures = [pool.submit(measure, folder, *job) for job in jobs]
        for future in as_completed(futures):
            yield future.result()


def run(folder, data_sets, shots, n_seeds, methods, n_jobs=2, records=None):
    """Measure every combination; with `records` (a path) only those not in it."""
    known = []
    if records is not None and records.exists():
        known = [json.loads(line) for line in records.read_text().splitlines()]
    key = ("data", "shots", "seed", "method")
    done = {tuple(record[name] for name in key) for record in known}
    # Long fits come first, so that no process waits for one at the end.
    jobs = [
        (name, n_shots, seed, method)
        for n_shots, name, method, seed in product(
            sorted(shots, reverse=True), data_sets, methods, range(n_seeds)
        )
        if (name, n_shots, seed, method) not in done
    ]
    for record in measured(folder, jobs, n_jobs):
        if record is not None:
            known.append(record)
            if records is not None:
                with records.open("a") as file:
                    file.write(json.dumps(record) + "\n")
    return [
        record
        for record in known
        if record["data"] in data_sets
        and record["shots"] in shots
        and record["seed"] < n_seeds
        and record["method"] in methods
    ]


# Tables


class Results:
    """Means over seeds, by method, data set and number of shots."""

    def __init__(self, records):
        self.data_sets = list(dict.fromkeys(record["data"] for record in records))
        self.shots = sorted({record["shots"] for record in records})
        self._values = {}
        for record in records:
            cell = record["method"], record["data"], record["shots"]
            self._values.setdefault(cell, []).append(record)
        self._cells = {(data, shots) for _, data, shots in self._values}

    def is_complete(self, method):
        """Whether a method ran wherever any did."""
        return all((method, *cell) in self._values for cell in self._cells)

    def mean_table(self, method, name="accuracy"):
        """Means over data sets, by number of shots; NaN unless it ran on all."""
        if not self.is_complete(method):
            return np.full(len(self.shots), np.nan)
        return np.nanmean(self.table(method, name), axis=0)

    def cell(self, method, data, shots, name="accuracy"):
        values = self._values.get((method, data, shots))
        return np.nan if values is None else np.mean([v[name] for v in values])

    def table(self, method, name="accuracy", data_sets=None):
        """Array of shape (n_data_sets, n_shots)."""
        return np.array(
            [
                [self.cell(method, data, k, name) for k in self.shots]
                for data in (self.data_sets if data_sets is None else data_sets)
            ]
        )

    def standard_error(self, method):
        """Error of the overall mean that comes from which shots were drawn.

        One draw varies as those of the data sets with several draws do on average;
        NaN where there is no such data set.
        """
        cells = [
            [value["accuracy"] for value in values]
            for (name, _, _), values in self._values.items()
            if name == method
        ]
        variances = [np.var(cell, ddof=1) for cell in cells if len(cell) > 1]
        if not variances:
            return np.nan
        errors = np.mean(variances) / np.array([len(cell) for cell in cells])
        return np.sqrt(errors.sum()) / len(cells)


def nanmean(values, axis=None):
    """Mean of the values that there are, NaN where there are none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmean(values, axis=axis)


def figure(value, digits=2):
    return "n/a" if np.isnan(value) else f"{value:.{digits}f}"


def markdown(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def accuracy_table(results, methods):
    complete = [m for m in methods if results.is_complete(m)]
    # A rank of each complete method on each data set at each number of shots.
    stack = np.array([results.table(m).ravel() for m in complete])
    stack = stack[:, ~np.isnan(stack).all(axis=0)] if complete else stack
    ranks = rankdata(-stack, axis=0).mean(axis=1) if complete else []
    ranks = dict(zip(complete, ranks, strict=True))
    rows = []
    for method in methods:
        table = results.table(method)
        whole = table if results.is_complete(method) else np.full_like(table, np.nan)
        spread = nanmean(table, axis=1).std(ddof=1) if len(table) > 1 else np.nan
        rows.append(
            [
                method,
                *(figure(value) for value in nanmean(whole, axis=0)),
                f"**{figure(nanmean(whole))}**",
                figure(results.standard_error(method)),
                figure(spread / np.sqrt(len(table))),
                figure(ranks.get(method, np.nan), 1),
                *(figure(value) for value in nanmean(table, axis=1)),
            ]
        )
    header = ["method", *(f"{k} shot" for k in results.shots), "mean"]
    header += ["s.e. of draws", "s.e. of sets", "rank", *results.data_sets]
    return markdown(header, rows)


def rows_by_data_set(results, methods, name="accuracy", digits=2):
    rows = []
    for data in results.data_sets:
        for method in methods:
            values = results.table(method, name, [data])[0]
            if not np.isnan(values).all():
                mean = f"**{figure(nanmean(values), digits)}**"
                shown = [figure(value, digits) for value in values]
                rows.append([data, method, *shown, mean])
    header = ["data set", "method", *(f"{k} shot" for k in results.shots), "mean"]
    return markdown(header, rows)


def probability_table(results, methods):
    """ECE and log loss by shots, over the data sets on which a method runs."""
    rows = []
    for method in methods:
        ece, loss = results.table(method, "ece"), results.table(method, "log_loss")
        runs = ~np.isnan(loss).all(axis=1)
        if runs.any():
            columns = zip(nanmean(ece, axis=0), nanmean(loss, axis=0), strict=True)
            shown = ["n/a" if np.isnan(a) else f"{a:.1f} / {b:.2f}" for a, b in columns]
            rows.append([method, str(int(runs.sum())), *shown])
    header = ["method", "sets", *(f"{k} shot" for k in results.shots)]
    return markdown(header, rows)


def margins(results, ours, rivals):
    """Ours less the best rival, by shots and in the mean over everything."""
    known = [m for m in rivals if results.is_complete(m)]
    rows = []
    for method in ours:
        if not results.is_complete(method) or not known:
            continue
        row = [method]
        for column in range(len(results.shots)):
            means = {m: results.mean_table(m)[column] for m in known}
            best = max(means, key=means.get)
            difference = results.mean_table(method)[column] - means[best]
            row.append(f"{difference:+.2f} ({best})")
        means = {m: nanmean(results.table(m)) for m in known}
        best = max(means, key=means.get)
        difference = nanmean(results.table(method)) - means[best]
        rows.append([*row, f"**{difference:+.2f}** ({best})"])
    header = ["method", *(f"{k} shot" for k in results.shots), "mean"]
    return markdown(header, rows)


def losses(results, method, rivals):
    """Data sets and numbers of shots where a rival is more than 0.5 points ahead."""
    known = [m for m in rivals if results.is_complete(m)]
    rows = []
    for data, shots in product(results.data_sets, results.shots):
        cells = {m: results.cell(m, data, shots) for m in known}
        own = results.cell(method, data, shots)
        if not cells or np.isnan(own):
            continue
        best = max(cells, key=cells.get)
        if cells[best] - own > 0.5:
            row = [data, str(shots), figure(own), figure(cells[best]), best]
            rows.append([*row, f"{own - cells[best]:+.2f}"])
    header = ["data set", "shots", method, "best rival", "which", "difference"]
    return markdown(header, rows) if rows else "Nowhere."


def signed_ranks(results, method, rivals):
    """Wilcoxon's signed-rank test over data sets, of means over numbers of shots."""
    own = nanmean(results.table(method), axis=1)
    rows = []
    for rival_name in rivals:
        if results.is_complete(rival_name):
            difference = own - nanmean(results.table(rival_name), axis=1)
            p = wilcoxon(difference, alternative="greater").pvalue
            rows.append(
                [
                    rival_name,
                    f"{difference.mean():+.2f}",
                    f"{np.count_nonzero(difference > 0)} of {len(difference)}",
                    f"{p:.3f}",
                ]
            )
    header = ["rival", "mean difference", "data sets won", "one-sided p"]
    return markdown(header, rows)


def report(records):
    """All tables, as Markdown."""
    real = [record for record in records if record["data"] != EMOJI]
    emoji = [record for record in records if record["data"] == EMOJI]
    parts = ["# Accuracy", NOTES]
    for title, chosen in (("CLIP features", real), ("Emoji, skbridge-tiny", emoji)):
        if chosen:
            parts += [f"## {title}", *sections(Results(chosen), chosen)]
    return "\n\n".join(parts) + "\n"


def sections(results, records):
    ran = {record["method"] for record in records}
    methods = [m for m in METHODS if m in ran and METHODS[m].group != ABLATION]
    ablation = [m for m in METHODS if m in ran and METHODS[m].group == ABLATION]
    ours = [m for m in methods if METHODS[m].group == OURS]
    rivals = [m for m in methods if METHODS[m].group == TRAINING_FREE]
    trained = [m for m in methods if METHODS[m].group == TRAINED]
    text_sets = {r["data"] for r in records if r["method"] == "zero-shot CLIP"}
    with_texts = Results([r for r in records if r["data"] in text_sets])
    if methods:
        yield "### Top-1 accuracy, %"
        yield accuracy_table(results, methods)
    if ours and rivals:
        yield "### Lead over the best training-free rival there, points"
        yield margins(results, ours, rivals)
    if ours and rivals + trained:
        yield "### Lead over the best of all rivals there, points"
        yield margins(results, ours, rivals + trained)
    if "BridgedGDA" in ours and rivals + trained:
        yield "### Where a rival is ahead by more than 0.5 points"
        yield losses(results, "BridgedGDA", rivals + trained)
        if len(results.data_sets) > 1:
            yield "### Signed-rank test over data sets"
            yield signed_ranks(results, "BridgedGDA", rivals + trained)
    if methods:
        yield "### Probabilities: expected calibration error in % / log loss"
        yield probability_table(results, methods)
        yield (
            "### Errors in % among the images that are kept, where the least certain "
            "are given up; mean over all shares"
        )
        yield rows_by_data_set(results, methods, "risk")
    if methods and 0 < len(text_sets) < len(results.data_sets):
        yield "The same on data sets with class texts only:"
        yield probability_table(with_texts, methods)
    if ablation:
        yield "### Bridges and cuts: accuracy without search, %"
        yield (
            "The classifier named first (``mean`` is SeMoBridge, ``gda`` BridgedGDA), "
            "``lambda_3='auto'``. Cuts are those of each data set's own bridge."
        )
        yield rows_by_data_set(results, ablation)
        complete = [m for m in ablation if results.is_complete(m)]
        if len(results.data_sets) > 1 and complete:
            yield "Those that run on every data set:"
            yield accuracy_table(results, complete)
    if methods:
        yield "### Accuracy by data set, %"
        yield rows_by_data_set(results, methods)
        yield "### CPU seconds of one fit, search included"
        yield rows_by_data_set(results, methods, "seconds")


NOTES = """\
`python benchmarks/accuracy.py` writes this page; `--help` lists its data sets. Where
shots are drawn at random, results are means of ten draws.

Figures are means over the data sets that have so many shots (ImageNet has up to 4).
"mean" is over all pairs of data set and number of shots. "s.e. of draws" is the
standard error of the overall mean with respect to the draws of the shots, from the data
sets with several draws; "s.e. of sets" with respect to the data sets. "rank" is the
mean rank among the methods that ran everywhere. "n/a": cannot run on all data sets of
that mean (zero-shot CLIP without class texts, calibration with one shot).

Every method had the same shots and class texts, and was tuned on the shots alone:
FewShotSearchCV searched the space that the method declares, LogisticRegressionCV used
its own folds. "BridgedGDA", "paper plain" and "default" are not tuned. On data sets
without class texts all methods run without texts. This library's methods also use a
bank of unlabelled texts, or the text projection, for the bridge. The rivals can use
neither; the rows "without bank" are the comparison on equal terms. The paper's plain
setting has all blending weights 1 and the official cut.

The constants of this library's methods were chosen on training images alone: shots
were drawn from them, and the other training images measured the accuracy. `python
benchmarks/constants.py` prints the comparison."""


def parse(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--features", type=Path, help="folder of CLIP features")
    parser.add_argument("--emoji", action="store_true", help="run on the emoji too")
    parser.add_argument("--data", nargs="+", default=list(DATA_SETS))
    parser.add_argument("--shots", nargs="+", type=int, default=list(SHOTS))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument(
        "--quick", action="store_true", help="one draw, and methods that fit quickly"
    )
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="NAME"
    )
    parser.add_argument("--jobs", type=int, default=2, help="number of processes")
    parser.add_argument("--records", type=Path, help="JSON lines, read and extended")
    parser.add_argument("--output", type=Path, help="where to write the tables")
    options = parser.parse_args(arguments)
    if options.quick:
        options.seeds, options.methods = 1, QUICK_METHODS
    if options.features is None and not options.emoji:
        parser.error("nothing to run on: give --features FOLDER, --emoji, or both.")
    if options.features is not None:
        missing = [
            n for n in options.data if not (options.features / f"{n}.npz").exists()
        ]
        if missing:
            parser.error(
                f"--features {options.features} has no {', '.join(missing)} (as .npz). "
                "Name the data sets it has with --data."
            )
    return options


def main(arguments=None):
    options = parse(arguments)
    data_sets = [] if options.features is None else list(options.data)
    data_sets += [EMOJI] if options.emoji else []
    started = time.perf_counter()
    records = run(
        options.features,
        data_sets,
        options.shots,
        options.seeds,
        options.methods,
        options.jobs,
        options.records,
    )
    text = report(records)
    print(text)
    print(f"{len(records)} fits, {(time.perf_counter() - started) / 60:.1f} minutes")
    if options.output is not None:
        options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
