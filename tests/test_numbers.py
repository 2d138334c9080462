"""Scores at the edge of their range, and predictions beside a growing fit."""

import threading

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skbridge import (
    BridgedGDAClassifier,
    SemanticBridge,
    SeMoBridgeClassifier,
    TextHead,
)
from skbridge._rows import unit
from skbridge.baselines import (
    APEClassifier,
    GDAClassifier,
    LPPlusPlusClassifier,
    ProKeRClassifier,
    TipAdapterClassifier,
    TransCLIPClassifier,
    ZeroShotClassifier,
)
from skbridge.review import label_next, near_duplicates

CLASSIFIERS = [
    SeMoBridgeClassifier,
    BridgedGDAClassifier,
    APEClassifier,
    GDAClassifier,
    LPPlusPlusClassifier,
    ProKeRClassifier,
    TipAdapterClassifier,
    TransCLIPClassifier,
    ZeroShotClassifier,
]
N_CLASSES, WIDTH = 8, 64


def clip_like(rng, n_shots, dtype=np.float32):
    """Texts, and images whose cosines with them are about 0.3, as CLIP's are."""
    texts = rng.normal(size=(N_CLASSES, WIDTH))
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    gap = rng.normal(size=WIDTH)
    gap /= np.linalg.norm(gap)

    def images(n):
        y = np.repeat(np.arange(N_CLASSES), n)
        X = 0.3 * texts[y] + 0.9 * gap + 0.04 * rng.normal(size=(len(y), WIDTH))
        return X.astype(dtype), y

    return TextHead.from_features(range(N_CLASSES), texts), images(n_shots), images(20)


def check_agreement(classifier, queries):
    proba = classifier.predict_proba(queries)
    scores = classifier.decision_function(queries)
    labels = classifier.predict(queries)
    assert np.isfinite(proba).all()
    assert_allclose(proba.sum(axis=1), 1, rtol=1e-5)
    assert_array_equal(classifier.classes_[proba.argmax(axis=1)], labels)
    assert_array_equal(classifier.classes_[scores.argmax(axis=1)], labels)


@pytest.mark.parametrize("sharpness", [0.0, 1.0, 5.0, 25.0, 50.0, 100.0])
@pytest.mark.parametrize("smoothness", [0.0, 1.5, 4.0])
def test_exponential_blends_agree_with_themselves(sharpness, smoothness):
    head, (X, y), (queries, targets) = clip_like(np.random.default_rng(0), 4)
    classifier = SeMoBridgeClassifier(
        head,
        bridge="identity",
        blending="exponential",
        alpha=sharpness,
        beta=sharpness,
        gamma=sharpness,
        smoothness=smoothness,
        lambda_2=0.5,
    ).fit(X, y)
    check_agreement(classifier, queries)
    if sharpness and not smoothness:
        assert classifier.score(queries, targets) > 0.8


def opposite(rng, dtype):
    """Texts and shots at cosines of about -0.9, where exponentials are smallest."""
    texts = np.full(WIDTH, 1.0) + 0.4 * rng.normal(size=(N_CLASSES, WIDTH))
    head = TextHead.from_features(range(N_CLASSES), texts)
    y = np.repeat(np.arange(N_CLASSES), 4)
    X = 0.3 * head.text_features[y] - head.text_features.mean(axis=0)
    X += 0.01 * rng.normal(size=X.shape)
    return head, X.astype(dtype), y


@pytest.mark.parametrize("sharpness", [15.0, 25.0, 45.0, 100.0])
def test_exponentials_of_negative_cosines_do_not_vanish(sharpness):
    head, X, y = opposite(np.random.default_rng(0), np.float32)
    options = {"bridge": "identity", "blending": "exponential", "alpha": sharpness}
    classifier = SeMoBridgeClassifier(head, lambda_3=0.0, **options).fit(X, y)
    check_agreement(classifier, X)
    assert classifier.score(X, y) > 0.9
    # The search evaluates many blends at once.
    (z1, *_) = classifier.component_logits(X)
    stack = classifier.stack_blends([classifier.blend_] * 2)
    scores = stack.scores((z1, None, None), np.array([1.0, 2.0]))
    assert_array_equal(scores[1].argmax(axis=1), classifier.predict(X))


@pytest.mark.parametrize(
    "kind", [APEClassifier, ProKeRClassifier, TipAdapterClassifier]
)
@pytest.mark.parametrize("beta", [15.0, 25.0, 100.0])
def test_votes_of_shots_at_negative_cosines_do_not_vanish(kind, beta):
    _, X, y = opposite(np.random.default_rng(0), np.float32)
    classifier = kind(None, beta=beta).fit(X, y)
    queries = 0.5 * X - 3 * X.mean(axis=0)  # cosines with the shots of about -0.9
    check_agreement(classifier, queries)
    assert np.ptp(classifier.decision_function(queries), axis=1).min() > 0


@pytest.mark.parametrize(
    "kind", [APEClassifier, ProKeRClassifier, TipAdapterClassifier]
)
def test_sharpness_of_votes_beyond_the_range_is_refused(kind):
    _, X, y = opposite(np.random.default_rng(0), np.float32)
    with pytest.raises(ValueError, match="'beta' parameter"):
        kind(None, beta=101.0).fit(X, y)


@pytest.mark.parametrize("blending", ["linear", "exponential"])
@pytest.mark.parametrize("weight", [1e-300, 1e-21, 1e21, 1e300])
def test_weights_of_a_blend_that_float32_cannot_represent_are_refused(blending, weight):
    head, (X, y), _ = clip_like(np.random.default_rng(0), 2)
    classifier = SeMoBridgeClassifier(
        head, lambda_1=weight, lambda_3=min(weight, 1.0), blending=blending
    )
    with pytest.raises(ValueError, match=r"largest weight of the blend.*Multiply"):
        classifier.fit(X, y)


@pytest.mark.parametrize("kind", CLASSIFIERS)
@pytest.mark.parametrize("temperature", [1e-300, 1e39, 1e300])
def test_no_temperature_makes_probabilities_nan(kind, temperature):
    head, (X, y), (queries, _) = clip_like(np.random.default_rng(0), 2)
    check_agreement(kind(head, temperature=temperature).fit(X, y), queries)


@pytest.mark.parametrize("kind", CLASSIFIERS[:-1])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("weight", [1e-300, 1e-38, 1e-13, 1e12, 1e38, 1e300])
def test_sample_weights_beyond_what_sums_can_represent_are_refused(kind, dtype, weight):
    _, (X, y), _ = clip_like(np.random.default_rng(0), 2, dtype)
    with pytest.raises(ValueError, match=r"sample_weight.* Multiply all weights"):
        kind(None).fit(X, y, sample_weight=np.full(len(y), weight))


@pytest.mark.parametrize("weight", [1e-300, 1e-11, 1e11])
@pytest.mark.parametrize("kind", [SeMoBridgeClassifier, BridgedGDAClassifier])
def test_sample_weights_may_differ_by_as_much(kind, weight):
    head, (X, y), (queries, targets) = clip_like(np.random.default_rng(0), 4)
    weights = np.ones(len(y))
    weights[::4] = weight
    classifier = kind(head).fit(X, y, sample_weight=weights)
    check_agreement(classifier, queries)
    assert classifier.score(queries, targets) > 0.8


def test_the_weight_of_unlabelled_images_is_limited_too():
    head, (X, y), (queries, _) = clip_like(np.random.default_rng(0), 2)
    weights = np.concatenate([np.ones(len(y)), np.full(len(queries), 1e300)])
    with pytest.raises(ValueError, match="sample_weight must be at most 1e"):
        BridgedGDAClassifier(head, missing_label=-1).fit(
            np.concatenate([X, queries]),
            np.concatenate([y, np.full(len(queries), -1)]),
            sample_weight=weights,
        )


@pytest.mark.parametrize("shrinkage", [1e-300, 1e-30, 1e9])
def test_any_shrinkage_gives_a_metric(shrinkage):
    head, (X, y), (queries, targets) = clip_like(np.random.default_rng(0), 4)
    classifier = BridgedGDAClassifier(head, shrinkage=shrinkage).fit(X, y)
    check_agreement(classifier, queries)
    assert classifier.score(queries, targets) > 0.8
    with pytest.raises(ValueError, match="'shrinkage' parameter"):
        BridgedGDAClassifier(head, shrinkage=1e200).fit(X, y)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_shots_that_are_all_alike_leave_it_to_the_texts(dtype):
    head, (X, y), _ = clip_like(np.random.default_rng(0), 2, dtype)
    alike = np.repeat(X[:1], len(X), axis=0)
    classifier = BridgedGDAClassifier(head).fit(alike, y)
    check_agreement(classifier, X)
    assert classifier.score(X, y) > 0.8
    without = BridgedGDAClassifier(None).fit(alike, y).predict_proba(X)
    assert np.isfinite(without).all()


@pytest.mark.parametrize("name", ["alpha", "beta", "gamma", "smoothness"])
def test_sharpness_beyond_the_range_is_refused(name):
    head, (X, y), _ = clip_like(np.random.default_rng(0), 2)
    options = {"blending": "exponential", "lambda_2": 0.5, name: 101.0}
    with pytest.raises(ValueError, match=f"'{name}' parameter"):
        SeMoBridgeClassifier(head, **options).fit(X, y)


@pytest.mark.parametrize("kind", CLASSIFIERS)
@pytest.mark.parametrize("exponent", [-30, -10, 10, 17, 30])
def test_the_length_of_queries_does_not_matter(kind, exponent):
    head, (X, y), (queries, _) = clip_like(np.random.default_rng(0), 2)
    classifier = kind(head).fit(X, y)
    scaled = queries * np.float32(10.0**exponent)
    assert_array_equal(classifier.predict(scaled), classifier.predict(queries))
    assert_allclose(
        classifier.predict_proba(scaled), classifier.predict_proba(queries), atol=1e-4
    )


@pytest.mark.parametrize("kind", CLASSIFIERS)
@pytest.mark.parametrize("exponent", [-30, -10, 10, 17, 30])
def test_the_common_length_of_shots_does_not_matter(kind, exponent):
    head, (X, y), (queries, _) = clip_like(np.random.default_rng(0), 2)
    plain = kind(head).fit(X, y)
    scaled = kind(head).fit(X * np.float32(10.0**exponent), y)
    assert_array_equal(scaled.predict(queries), plain.predict(queries))
    assert_allclose(
        scaled.predict_proba(queries), plain.predict_proba(queries), atol=1e-3
    )


@pytest.mark.parametrize("kind", [SeMoBridgeClassifier, BridgedGDAClassifier])
def test_predictions_beside_partial_fit_are_those_of_one_fit(kind):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(12, 16))
    names = [*"abcdefghijkl"]
    fits = [kind(None).fit(X[:n], names[:n]) for n in range(2, 13)]
    queries = rng.normal(size=(200, 16))
    expected = {fit.decision_function(queries).tobytes() for fit in fits}
    right = {
        tuple(fit.predict(queries)): fit.predict_proba(queries).shape for fit in fits
    }
    growing = kind(None).partial_fit(X[:2], names[:2])
    wrong = []

    def predict():
        while not done.is_set():
            scores = growing.decision_function(queries)
            if scores.tobytes() not in expected and not any(
                np.allclose(scores, np.frombuffer(e).reshape(scores.shape), atol=1e-9)
                for e in expected
                if len(e) == scores.nbytes
            ):
                wrong.append("scores")
            if tuple(growing.predict(queries)) not in right:
                wrong.append("labels")

    done = threading.Event()
    threads = [threading.Thread(target=predict) for _ in range(2)]
    for thread in threads:
        thread.start()
    for n in range(2, 12):
        growing.partial_fit(X[n : n + 1], names[n : n + 1])
    done.set()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("kind", [SeMoBridgeClassifier, BridgedGDAClassifier])
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_an_interrupt_leaves_the_estimator_as_it_was(kind, method, monkeypatch):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(8, 6)), [*"aabbccdd"]
    classifier = kind(None).fit(X, y)
    before = classifier.predict_proba(X)

    def interrupted(self, sums):
        self.classes_ = None
        raise KeyboardInterrupt

    monkeypatch.setattr(kind, "_set_sums", interrupted)
    with pytest.raises(KeyboardInterrupt):
        getattr(classifier, method)(X + 1, y)
    assert_array_equal(classifier.predict_proba(X), before)


def test_shots_of_extreme_length_are_not_mixed_with_earlier_ones():
    head, (X, y), _ = clip_like(np.random.default_rng(0), 2)
    classifier = BridgedGDAClassifier(head).fit(X, y)
    with pytest.raises(ValueError, match=r"as large as 1e\+30.*Divide X"):
        classifier.partial_fit(X * np.float32(1e30) / np.abs(X).max(), y)


@pytest.mark.parametrize("exponent", [-30, 30])
@pytest.mark.parametrize("kind", [SeMoBridgeClassifier, BridgedGDAClassifier])
def test_explanations_do_not_depend_on_lengths(kind, exponent):
    head, (X, y), (queries, _) = clip_like(np.random.default_rng(0), 4)
    classifier = kind(head).fit(X, y)
    scale = np.float32(10.0**exponent)
    assert_allclose(
        classifier.bridge_embeddings(scale * queries),
        classifier.bridge_embeddings(queries),
        atol=1e-5,
    )
    own = X[y == 2]
    expected = classifier.shot_parts(queries[:1], own, 2)
    for query, shots in ((scale * queries[:1], own), (queries[:1], scale * own)):
        parts = classifier.shot_parts(query, shots, 2)
        assert_allclose(parts, expected, atol=1e-5)


@pytest.mark.parametrize("exponent", [-30, 30])
def test_bridge_and_review_do_not_depend_on_lengths(exponent):
    head, (X, _), _ = clip_like(np.random.default_rng(0), 4)
    scale = np.float32(10.0**exponent)
    bridge = SemanticBridge(head).fit(X)
    assert_allclose(
        unit(bridge.transform(scale * X)), unit(bridge.transform(X)), atol=1e-5
    )
    found = near_duplicates(scale * X, X, threshold=0.999)
    assert_array_equal(found.indices, np.arange(len(X)))
    assert_array_equal(found.nearest, np.arange(len(X)))
    options = {"n": 5, "strategy": "coverage"}
    assert_array_equal(
        label_next(None, scale * X, labelled=scale * X[:3], **options).indices,
        label_next(None, X, labelled=X[:3], **options).indices,
    )
