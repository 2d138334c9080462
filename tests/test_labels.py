"""Labels: mixed, missing, and those of pandas."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from sklearn.ensemble import VotingClassifier

from skbridge import (
    BridgedGDAClassifier,
    CLIPTexts,
    FewShotSearchCV,
    SeMoBridgeClassifier,
    TextHead,
)

CODES = np.tile([0, 1, 2], 4)


@pytest.fixture
def X():
    centres = np.random.default_rng(0).normal(size=(3, 8))
    return centres[CODES] + 0.1 * np.random.default_rng(1).normal(size=(12, 8))


@pytest.fixture(params=[SeMoBridgeClassifier, BridgedGDAClassifier])
def classifier(request):
    return request.param(None)


@pytest.mark.parametrize("as_array", [list, lambda y: np.array(y, dtype=object)])
def test_labels_of_mixed_kinds_are_refused(classifier, X, as_array):
    y = as_array([0, "a", *CODES[2:].tolist()])
    with pytest.raises(ValueError, match=r"mixed kinds, such as 0, 'a'.*convert y"):
        classifier.fit(X, y)


def test_partial_fit_refuses_labels_of_another_kind(classifier, X):
    classifier.fit(X, CODES)
    for y in (["2", "other"], ["0", "1"]):
        with pytest.raises(ValueError, match="another kind than classes_"):
            classifier.partial_fit(X[:2], y)
        with pytest.raises(ValueError, match="another kind than classes_"):
            classifier.leave_out(X[:2], y)
    with pytest.raises(ValueError, match="another kind than classes:"):
        classifier.partial_fit(X[:2], [0, 1], classes=["0", "1"])
    assert classifier.classes_.tolist() == [0, 1, 2]


@pytest.mark.parametrize("dtype", ["Int64", "Int8", "boolean", "category", "int64"])
def test_pandas_numbers_keep_their_kind(classifier, X, dtype):
    y = CODES % 2 == 0 if dtype == "boolean" else CODES
    classifier.fit(X, pd.Series(y, dtype=dtype))
    assert classifier.classes_.dtype.kind == ("b" if dtype == "boolean" else "i")
    assert_array_equal(classifier.predict(X), y)


@pytest.mark.parametrize("dtype", ["string", "category", "object"])
def test_pandas_strings_keep_their_kind(classifier, X, dtype):
    y = np.array(["cat", "dog", "eel"])[CODES]
    classifier.fit(X, pd.Series(y, dtype=dtype))
    assert all(isinstance(label, str) for label in classifier.classes_)
    assert_array_equal(classifier.predict(X), y)


@pytest.mark.parametrize(
    "labels", [CODES.astype(float), pd.Series(CODES, dtype="Int64")]
)
def test_whole_numbers_find_the_texts_of_integers(X, labels):
    head = TextHead.from_features([0, 1, 2], X[:3])
    classifier = BridgedGDAClassifier(head).fit(X, labels)
    assert_array_equal(classifier.predict(X), CODES)


@pytest.mark.parametrize(
    "y",
    [
        [None, *"abcabcabca", None],
        [float("nan"), *"abcabcabca", float("nan")],
        pd.Series([None, *"abcabcabca", None], dtype="string"),
        pd.Series([None, *"abcabcabca", None], dtype="category"),
        pd.Series([None, *CODES[1:-1], None], dtype="Int64"),
        np.array([np.nan, *CODES[1:-1], np.nan]),
        np.array([pd.NA, *"abcabcabca", None], dtype=object),
    ],
)
def test_missing_labels_are_unlabelled_images_or_refused_by_row(classifier, X, y):
    wanted = "2 of 12 labels in y are missing.*rows 0, 11"
    with pytest.raises(ValueError, match=wanted):
        FewShotSearchCV(classifier).fit(X, y)
    if isinstance(classifier, BridgedGDAClassifier):
        labels, counts = np.unique(list(y)[1:-1], return_counts=True)
        fitted = classifier.fit(X, y)
        assert_array_equal(fitted.classes_, labels)
        assert_array_equal(fitted.class_count_, counts)
    else:
        with pytest.raises(ValueError, match=wanted):
            classifier.fit(X, y)


@pytest.mark.parametrize("missing", [np.nan, None, pd.NA])
def test_search_refuses_missing_groups(classifier, X, missing):
    groups = [missing, *range(10), missing]
    with pytest.raises(ValueError, match=r"2 of 12 groups are missing.*rows 0, 11"):
        FewShotSearchCV(classifier).fit(X, CODES, groups=groups)


NAMES_OF_SIX = ["anchor", "apple", "bus", "clock", "lion", "tent"]


@pytest.fixture(scope="module")
def six():
    return TextHead.from_clip(NAMES_OF_SIX, "skbridge-tiny", classes=range(6))


def texts_of_six(kind):
    if kind == "head":
        return TextHead.from_clip(NAMES_OF_SIX, "skbridge-tiny", classes=range(6))
    names = {"list": NAMES_OF_SIX, "dict": dict(enumerate(NAMES_OF_SIX))}[kind]
    return CLIPTexts("skbridge-tiny", class_names=names)


def one_shot(head, labels):
    """One row per label, nearest to its own text."""
    T = head[list(labels)].text_features
    return T + 0.1 * (T - head.text_features.mean(axis=0))


@pytest.mark.parametrize("kind", ["head", "list", "dict"])
def test_encoded_labels_of_more_integer_texts_warn_at_one_shot(kind, six):
    # VotingClassifier encodes 0, 1, 5 as 0, 1, 2, and 2 has a text as well.
    X, y = one_shot(six, [0, 1, 5]), [0, 1, 5]
    vote = VotingClassifier([("a", BridgedGDAClassifier(texts_of_six(kind)))])
    with pytest.warns(UserWarning, match="are 0 to 2, 6 integers have.*labels 2 are"):
        vote.fit(X, y)


@pytest.mark.parametrize("kind", ["head", "list", "dict"])
def test_first_labels_of_more_integer_texts_do_not_warn(kind, six):
    X = one_shot(six, range(3))
    classifier = BridgedGDAClassifier(texts_of_six(kind)).fit(X, [0, 1, 2])
    assert classifier.text_head_.prompts == six[[0, 1, 2]].prompts


def test_the_first_shots_of_partial_fit_are_compared_with_their_texts():
    head = TextHead.from_features(["a", "b", "c"], np.eye(3))
    X = np.roll(np.eye(3), 1, axis=0).repeat(20, axis=0)
    y = np.repeat(["a", "b", "c"], 20)
    for method in ("fit", "partial_fit"):
        with pytest.warns(UserWarning, match="no better than chance"):
            getattr(SeMoBridgeClassifier(head), method)(X, y)
