"""Every meta-estimator with every kind of texts and labels: right, or refused by name.

scikit-learn's meta-estimators encode labels before they hand them on, so that labels
and texts can come apart. No combination may do so in silence.
"""

import re
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import BaggingClassifier, StackingClassifier, VotingClassifier
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    cross_val_predict,
    learning_curve,
)
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.semi_supervised import SelfTrainingClassifier

from skbridge import BridgedGDAClassifier, CLIPTexts, SeMoBridgeClassifier, TextHead

# In an order that is not the sorted one.
NAMES = ["lion", "apple", "tent", "bus"]
MARGIN = 0.1
BY_NAME = re.compile(r"texts|labels|class_names|text head")
MODEL = "skbridge-tiny"


def fitted_accuracy(wrap):
    def accuracy(estimator, X, y, truth):
        return np.mean(np.asarray(wrap(estimator).fit(X, y).predict(X)) == truth)

    return accuracy


def cross_predicted(method):
    def accuracy(estimator, X, y, truth):
        scores = cross_val_predict(estimator, X, y, cv=2, method=method)
        return np.mean(np.unique(truth)[scores.argmax(axis=1)] == truth)

    return accuracy


def self_trained(estimator, X, y, truth):
    y = y.copy()
    y[::5] = -1
    return np.mean(SelfTrainingClassifier(estimator).fit(X, y).predict(X) == truth)


def curve(estimator, X, y, truth):
    shuffled = {"shuffle": True, "random_state": 0}
    scores = learning_curve(
        estimator, X, y, cv=2, train_sizes=[0.9], error_score="raise", **shuffled
    )[2]
    return scores.mean()


def halving(estimator):
    # Every classifier here has a weight for the shots, or an inverse penalty.
    name = "C" if isinstance(estimator, LogisticRegression) else "lambda_3"
    return HalvingGridSearchCV(
        estimator, {name: [0.5, 1.0]}, cv=2, min_resources=32, error_score="raise"
    )


def stacking(estimator):
    return StackingClassifier([("a", estimator)], LogisticRegression(C=100), cv=2)


USES = {
    "voting_soft": fitted_accuracy(
        lambda e: VotingClassifier([("a", e)], voting="soft")
    ),
    "voting_hard": fitted_accuracy(lambda e: VotingClassifier([("a", e)])),
    "stacking": fitted_accuracy(stacking),
    "bagging": fitted_accuracy(lambda e: BaggingClassifier(e, 2, random_state=0)),
    "calibrated": fitted_accuracy(lambda e: CalibratedClassifierCV(e, cv=2)),
    "calibrated_one": fitted_accuracy(
        lambda e: CalibratedClassifierCV(e, cv=2, ensemble=False)
    ),
    "predict_proba": cross_predicted("predict_proba"),
    "decision_function": cross_predicted("decision_function"),
    "one_vs_rest": fitted_accuracy(OneVsRestClassifier),
    "one_vs_one": fitted_accuracy(OneVsOneClassifier),
    "self_training": self_trained,
    "halving": fitted_accuracy(halving),
    "learning_curve": curve,
    "calibrated_temperature": fitted_accuracy(
        lambda e: CalibratedClassifierCV(e, cv=2, method="temperature")
    ),
}

LABELS = {
    "str": np.asarray,
    "int": np.asarray,
    "category": lambda y: pd.Series(y, dtype="category"),
    "string": lambda y: pd.Series(y, dtype="string"),
    "Int64": lambda y: pd.Series(y, dtype="Int64"),
}


@pytest.fixture(scope="session")
def head():
    return TextHead.from_clip(NAMES, MODEL)


@pytest.fixture(scope="session")
def problem(head):
    """Easy shots around the texts: embeddings and positions in NAMES."""
    rng = np.random.default_rng(0)
    # The texts of one model are alike; what differs is what tells them apart.
    T = head.text_features - head.text_features.mean(axis=0)
    T /= np.linalg.norm(T, axis=1, keepdims=True)
    codes = np.tile(np.arange(len(NAMES)), 12)
    X = 3 * T[codes] + 0.3 * rng.normal(size=(len(codes), T.shape[1])) / 4
    return X, codes


def make_texts(kind, head, integers):
    if kind == "model":
        return CLIPTexts(MODEL)
    if kind == "head_sorted":
        return head[sorted(NAMES)]
    if kind == "head_unsorted":
        return head
    if kind == "head_of_more":
        others = TextHead.from_clip(["anchor", "clock", *NAMES], MODEL)
        return others.relabelled(range(6)) if integers else others
    names = {
        "list_sorted": sorted(NAMES),
        "list_unsorted": list(NAMES),
        "dict": dict(enumerate(NAMES)) if integers else {n: n for n in NAMES},
        "dict_of_more": dict(enumerate(["anchor", "clock", *NAMES]))
        if integers
        else {n: n for n in ["anchor", *NAMES]},
    }
    return CLIPTexts(MODEL, class_names=names[kind])


TEXTS = [
    "model",
    "head_sorted",
    "head_unsorted",
    "head_of_more",
    "list_sorted",
    "list_unsorted",
    "dict",
    "dict_of_more",
    "none",
]


def make_labels(codes, texts, labels):
    """Labels in the order that the texts have where they are integers."""
    names = np.array(NAMES)[codes]
    if labels not in ("int", "Int64"):
        return names
    if texts.endswith("of_more"):
        return codes + 2
    if texts.endswith("sorted") and not texts.endswith("unsorted"):
        return np.searchsorted(sorted(NAMES), names)
    return codes


def outcome(use, estimator, X, y, truth, least):
    """Say what came of one cell, or fail where it is silently wrong."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            accuracy = USES[use](clone(estimator), X, y, truth)
        except ValueError as error:
            if BY_NAME.search(str(error)):
                return "raises"
            raise
    if accuracy >= least - MARGIN:
        return "right"
    named = [w for w in caught if BY_NAME.search(str(w.message))]
    assert named, f"silently wrong: accuracy {accuracy:.2f}, {least:.2f} without texts"
    return "warns"


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("use", USES)
def test_no_combination_is_silently_wrong(use, labels, head, problem, record_property):
    X, codes = problem
    for texts in TEXTS:
        truth = make_labels(codes, texts, labels)
        y = LABELS[labels](truth)
        try:
            plain = USES[use](LogisticRegression(C=100), X, y, truth)
        except (TypeError, ValueError) as error:
            pytest.skip(f"scikit-learn itself cannot: {error}")
        assert plain > 0.9
        integers = labels in ("int", "Int64")
        made = None if texts == "none" else make_texts(texts, head, integers)
        kinds = [BridgedGDAClassifier(made)]
        if use in ("voting_soft", "predict_proba"):
            kinds.append(SeMoBridgeClassifier(made))
        for estimator in kinds:
            came = outcome(use, estimator, X, y, truth, plain)
            record_property(f"{texts}-{type(estimator).__name__}", came)
            if texts == "none":
                assert came == "right"


def test_templates_and_mode_can_be_searched(problem):
    X, codes = problem
    grid = {"texts__templates": ["simple", "a drawing of a {}."]}
    grid["mode"] = ["closed_form", "trained"]
    classifier = SeMoBridgeClassifier(CLIPTexts(MODEL))
    search = GridSearchCV(classifier, grid, cv=2, error_score="raise")
    search.fit(X, np.array(NAMES)[codes])
    assert len(search.cv_results_["params"]) == 4
    assert search.best_score_ > 0.9
