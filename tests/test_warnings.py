"""Warnings and threads: none is lost, and their filters stay as they are."""

import sys
import threading
import warnings

import numpy as np
import pytest

from skbridge import (
    BridgedGDAClassifier,
    CLIPEmbedder,
    FewShotSearchCV,
    SemanticBridge,
    SeMoBridgeClassifier,
    TextHead,
)
from skbridge._messages import quiet, warn

N_CLASSES = 4


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    head = TextHead.from_features(range(N_CLASSES), rng.normal(size=(N_CLASSES, 16)))
    y = np.repeat(np.arange(N_CLASSES), 10)
    X = head.text_features[y] + 0.1 * rng.normal(size=(len(y), 16))
    return X.astype(np.float32), y, head


@pytest.fixture
def frequent_switches():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def in_threads(work, times):
    """Work in eight threads at once, and return what they raise."""
    errors = []

    def repeat():
        try:
            for _ in range(times):
                work()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=repeat) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def calls(X, y, head):
    """Pairs of a call and how often to make it."""
    gda = BridgedGDAClassifier(head).fit(X, y)
    paper = SeMoBridgeClassifier(head).fit(X, y)
    bridge = SemanticBridge(None, bridge="identity").fit(X)
    embedder = CLIPEmbedder("skbridge-tiny", device="cpu")
    images = [np.zeros((8, 8, 3), np.uint8)]
    embedder.transform(images)
    search = FewShotSearchCV(SeMoBridgeClassifier(head), n_settings=2)
    return {
        "predict": (lambda: paper.predict(X), 100),
        "predict_proba": (lambda: gda.predict_proba(X), 100),
        "bridge": (lambda: bridge.transform(X), 100),
        "transform": (lambda: embedder.transform(images), 3),
        "fit": (lambda: SeMoBridgeClassifier(head).fit(X, y), 30),
        "fit strings": (lambda: BridgedGDAClassifier(None).fit(X, y.astype(str)), 30),
        "search": (lambda: search.fit(X, y), 2),
    }


@pytest.mark.parametrize(
    "name",
    ["predict", "predict_proba", "bridge", "transform", "fit", "fit strings", "search"],
)
def test_threads_leave_the_filters_of_warnings_alone(problem, frequent_switches, name):
    work, times = calls(*problem)[name]
    # Two filters that differ from each other, so that lost ones are seen.
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always", UserWarning)
        before = list(warnings.filters)
        assert not in_threads(work, times)
        assert warnings.filters == before
        warnings.warn("after the threads", UserWarning, stacklevel=1)
    assert [str(one.message) for one in seen] == ["after the threads"]


def test_quiet_silences_its_own_thread_only():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with quiet():
            warn("silenced", stacklevel=1)
            thread = threading.Thread(
                target=warn, args=["told"], kwargs={"stacklevel": 1}
            )
            thread.start()
            thread.join()
        warn("after", stacklevel=1)
    assert [str(one.message) for one in seen] == ["told", "after"]
    assert seen[1].filename == __file__


@pytest.mark.parametrize(
    "labels", [np.arange(30), np.arange(30.0), [*map(str, range(30))]]
)
def test_labels_that_occur_once_are_no_regression_targets(labels):
    X = np.random.default_rng(0).normal(size=(30, 8))
    assert len(SeMoBridgeClassifier(None).fit(X, labels).classes_) == 30
    with pytest.raises(ValueError, match="Unknown label type: continuous"):
        SeMoBridgeClassifier(None).fit(X, np.asarray(labels, dtype=float) + 0.5)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arrays_that_need_no_conversion_are_checked_all_the_same(problem, dtype, value):
    X, y, head = problem
    X = X.astype(dtype)
    classifier = SeMoBridgeClassifier(head).fit(X, y)
    wrong = X.copy()
    wrong[3, 2] = value
    for call in (classifier.predict, lambda X: classifier.fit(X, y)):
        with pytest.raises(ValueError, match=r"1 of 40 rows.*: 3"):
            call(wrong)
    with pytest.raises(ValueError, match=r"15 features, but .* expecting 16"):
        classifier.predict(X[:, 1:])
    with pytest.raises(ValueError, match="0 sample"):
        classifier.predict(X[:0])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        classifier.fit(X, y[1:])
    # The sum of these is infinite, but none of them is.
    large = np.full((1, 16), np.finfo(dtype).max / 4, dtype)
    assert np.isfinite(classifier.predict_proba(large)).all()
