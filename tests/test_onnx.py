import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression

from skbridge import (
    BridgedGDAClassifier,
    FewShotSearchCV,
    SeMoBridgeClassifier,
    TextHead,
    to_onnx,
)

NAMES = ["ant", "bee", "cat", "dog", "éel"]
WIDTH = 16


def make_head(bias=False, classes=NAMES):
    rng = np.random.default_rng(0)
    return TextHead.from_arrays(
        classes,
        eos=rng.normal(size=(5, 12)),
        projection=rng.normal(size=(12, WIDTH)),
        projection_bias=rng.normal(size=WIDTH) if bias else None,
    )


def make_features():
    texts = make_head().text_features
    return TextHead.from_features(NAMES, texts)


def make_images(n, seed, head, dtype=np.float32):
    rng = np.random.default_rng(seed)
    codes = np.tile(np.arange(5), n)
    X = head.text_features[codes] + 0.2 + 0.3 * rng.normal(size=(5 * n, WIDTH))
    return (7 * X).astype(dtype), np.array(head.classes)[codes]


CLASSIFIERS = {
    "gda": lambda: BridgedGDAClassifier(make_head()),
    "gda, identity": lambda: BridgedGDAClassifier(make_head(), bridge="identity"),
    "gda, no texts": lambda: BridgedGDAClassifier(None, lambda_1=0),
    "semobridge": lambda: SeMoBridgeClassifier(make_head()),
    "all terms": lambda: SeMoBridgeClassifier(make_head(), lambda_2=0.7, pinv_atol=0.5),
    "bias": lambda: SeMoBridgeClassifier(make_head(bias=True), lambda_2=0.7),
    "subspace": lambda: SeMoBridgeClassifier(
        make_features(),
        bridge="text_subspace",
        bridge_rank=3,
        lambda_2=0.7,
    ),
    "trained": lambda: SeMoBridgeClassifier(
        make_head(bias=True), mode="trained", max_iter=5, lambda_2=0.7
    ),
    "search": lambda: FewShotSearchCV(BridgedGDAClassifier(make_head())),
}


def run(model, X):
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(["label", "probabilities"], {"X": X})


@pytest.mark.filterwarnings("ignore:bridge='text_subspace' takes")
@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_labels_and_probabilities_are_those_of_the_classifier(name, dtype):
    pytest.importorskip("onnx")
    head = make_head(bias=name in ("bias", "trained"))
    X, y = make_images(4, 1, head, dtype)
    queries, _ = make_images(40, 2, head, dtype)
    classifier = CLASSIFIERS[name]().fit(X, y)
    labels, proba = run(to_onnx(classifier), queries)
    assert proba.dtype == dtype
    rtol, atol = (1e-4, 1e-6) if dtype == np.float32 else (1e-9, 1e-12)
    assert_allclose(proba, classifier.predict_proba(queries), rtol=rtol, atol=atol)
    assert_array_equal(labels, classifier.predict(queries))
    assert len(set(labels)) > 1


def test_integer_labels_stay_integers_and_zeros_stay_zeros():
    pytest.importorskip("onnx")
    classes = [3, 5, 7, 11, 13]
    head = make_head(classes=classes)
    X, y = make_images(4, 1, head)
    classifier = BridgedGDAClassifier(head).fit(X, y)
    queries = np.concatenate([X, np.zeros((1, WIDTH), np.float32)])
    labels, proba = run(to_onnx(classifier), queries)
    assert labels.dtype == np.int64
    assert_array_equal(labels[:-1], classifier.predict(X))
    with pytest.warns(UserWarning, match="all zero"):
        expected = classifier.predict_proba(queries)
    assert_allclose(proba, expected, rtol=1e-4, atol=1e-6)


def test_what_cannot_be_converted_is_refused():
    pytest.importorskip("onnx")
    X, y = make_images(4, 1, make_head())
    blend = {"blending": "exponential", "alpha": 5.0, "gamma": 5.0}
    exponential = SeMoBridgeClassifier(make_head(), lambda_3=1.0, **blend).fit(X, y)
    with pytest.raises(ValueError, match=r"blending is 'exponential'.*Fit with"):
        to_onnx(exponential)
    with pytest.raises(TypeError, match="got LogisticRegression"):
        to_onnx(LogisticRegression().fit(X, y))
    with pytest.raises(NotFittedError):
        to_onnx(BridgedGDAClassifier(None))
    rejecting = BridgedGDAClassifier(make_head(), reject=0.1, reject_label="?").fit(
        X, y
    )
    with pytest.raises(ValueError, match=r"reject=0\.1: the graph would give unknown"):
        to_onnx(rejecting)
    to_onnx(rejecting.reblend())
    halves = np.searchsorted(NAMES, y) > 2
    binary = BridgedGDAClassifier(None, lambda_1=0).fit(X, halves)
    with pytest.raises(TypeError, match="strings or integers, but classes_ holds bool"):
        to_onnx(binary)


def test_missing_onnx_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r'pip install "skbridge\[onnx\]"'):
        to_onnx(BridgedGDAClassifier(None))
