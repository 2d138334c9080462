import subprocess
import sys
import textwrap
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax as _log_softmax
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from skbridge import (
    BridgedGDAClassifier,
    CLIPTexts,
    SemanticBridge,
    SeMoBridgeClassifier,
    TextHead,
)
from skbridge._classifiers.base import FewShotClassifier
from skbridge.baselines import TipAdapterClassifier

NAMES = ["cat", "dog", "eel", "fox"]


@parametrize_with_checks(
    [
        SeMoBridgeClassifier(texts=None),
        SeMoBridgeClassifier(texts=None, blending="exponential", lambda_2=0.5),
        BridgedGDAClassifier(None),
        SeMoBridgeClassifier(texts=None, mode="trained", max_iter=5),
    ]
)
def test_classifier_passes_the_common_checks(estimator, check):
    check(estimator)


def make(kind, texts, **options):
    """Classifier with the mean head, at every direction above 0.3, or the Gaussian."""
    if kind == "gda":
        return BridgedGDAClassifier(texts, **options)
    cut = {} if options.get("bridge") == "identity" else {"bridge_rank": 1.0}
    return SeMoBridgeClassifier(texts, **cut | options)


every_kind = pytest.mark.parametrize("kind", ["mean", "gda"])


def make_head(rng, n_classes=4, shape=(6, 9), bias=False, dtype=np.float64):
    return TextHead.from_arrays(
        range(n_classes),
        eos=(rng.normal(size=(n_classes, shape[0])) + 0.3).astype(dtype),
        projection=rng.normal(size=shape).astype(dtype),
        projection_bias=(0.1 * rng.normal(size=shape[1])).astype(dtype)
        if bias
        else None,
        logit_scale=50.0,
    )


def make_shots(rng, head, counts=(3, 1, 4, 2), noise=0.3):
    y = np.repeat(np.arange(len(counts)), counts)
    X = 2 * head.text_features[y] + noise * rng.normal(size=(len(y), head.n_features))
    return X, y


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def head(rng):
    return make_head(rng)


@pytest.fixture
def shots(rng, head):
    return make_shots(rng, head)


@pytest.mark.parametrize("extra", [None, (4.0, 5.0, 6.0, 0.8)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(6, 6), (5, 9), (9, 5)])
def test_closed_form_agrees_with_the_equations(rng, shape, bias, extra):
    head = make_head(rng, shape=shape, bias=bias)
    X, y = make_shots(rng, head)
    weight = rng.uniform(0.5, 2, size=len(y))
    queries = rng.normal(size=(7, shape[1]))
    lambdas = (0.7, 0.4, 1.1)
    options = dict(zip(("lambda_1", "lambda_2", "lambda_3"), lambdas, strict=True))
    if extra is not None:
        names = ("alpha", "beta", "gamma", "smoothness")
        options |= dict(zip(names, extra, strict=True), blending="exponential")
    classifier = SeMoBridgeClassifier(texts=head, pinv_atol=0.5, **options)
    classifier.fit(X, y, sample_weight=weight)
    c = np.zeros(shape[1]) if head.projection_bias is None else head.projection_bias
    expected = reference.closed_form(
        X,
        y,
        weight,
        queries,
        W=head.projection,
        c=c,
        eos=head.eos,
        T=head.text_features,
        atol=0.5,
        lambdas=lambdas,
        extra=extra,
        scale=50.0,
    )
    exact = {"rtol": 0, "atol": 1e-12}
    for got, want in zip(
        classifier.component_logits(queries), expected["z"], strict=True
    ):
        assert_allclose(got, want, **exact)
    assert_allclose(classifier.decision_function(queries), expected["scores"], **exact)
    assert_allclose(classifier.predict_proba(queries), expected["proba"], **exact)
    assert_allclose(
        classifier.predict_log_proba(queries), np.log(expected["proba"]), atol=1e-10
    )
    assert_allclose(classifier.prototypes_, expected["prototypes"], **exact)
    assert_allclose(
        classifier.bridged_prototypes_, expected["bridged_prototypes"], **exact
    )
    assert_allclose(classifier.inverse_projection_, expected["bridge"], **exact)
    assert_array_equal(classifier.predict(queries), expected["scores"].argmax(axis=1))


@pytest.mark.parametrize(("dtype", "rtol"), [(np.float32, 1e-4), (np.float64, 1e-7)])
def test_text_weight_alone_is_clips_zero_shot(rng, dtype, rtol):
    head = make_head(rng, dtype=dtype)
    X, y = make_shots(rng, head)
    X = X.astype(dtype)
    classifier = SeMoBridgeClassifier(
        texts=head, lambda_1=1, lambda_2=0, lambda_3=0
    ).fit(X, y)
    logits = 50.0 * X @ head.text_features.T
    logits /= np.linalg.norm(X, axis=1, keepdims=True)
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    proba = classifier.predict_proba(X)
    assert proba.dtype == dtype
    assert_allclose(proba, e / e.sum(axis=1, keepdims=True), rtol=rtol, atol=1e-7)
    # Any weight of the text alone is the same classifier.
    scaled = clone(classifier).set_params(lambda_1=0.3).fit(X, y)
    assert_allclose(scaled.predict_proba(X), proba, rtol=rtol, atol=1e-7)


def test_fitted_attributes_have_the_documented_shapes(head, shots):
    X, y = shots
    classifier = SeMoBridgeClassifier(texts=head).fit(X, y)
    assert classifier.bridge_ == "pseudo_inverse"
    assert classifier.inverse_projection_.shape == (9, 6)
    assert classifier.class_bias_.shape == (4, 6)
    assert not classifier.class_bias_.any()
    assert classifier.prototypes_.shape == (4, 9)
    assert classifier.bridged_prototypes_.shape == (4, 9)
    assert_array_equal(classifier.class_count_, [3, 1, 4, 2])
    assert classifier.n_iter_ == 1
    assert classifier.loss_curve_.shape == (0,)
    assert classifier.text_head_.classes == (0, 1, 2, 3)
    assert classifier.n_features_in_ == 9


@given(st.randoms(use_true_random=False))
def test_order_of_the_shots_does_not_matter(random):
    rng = np.random.default_rng(0)
    head = make_head(rng)
    X, y = make_shots(rng, head)
    order = list(range(len(y)))
    random.shuffle(order)
    classifier = SeMoBridgeClassifier(texts=head, lambda_2=0.5)
    expected = classifier.fit(X, y).decision_function(X)
    shuffled = classifier.fit(X[order], y[order]).decision_function(X)
    assert_allclose(shuffled, expected, rtol=1e-10, atol=1e-12)


@given(st.permutations(range(4)))
def test_relabelling_the_classes_permutes_the_scores(permutation):
    rng = np.random.default_rng(0)
    head = make_head(rng)
    X, y = make_shots(rng, head)
    classifier = SeMoBridgeClassifier(texts=head, lambda_2=0.5, blending="exponential")
    expected = classifier.fit(X, y).decision_function(X)
    permutation = np.array(permutation)
    moved = head[np.argsort(permutation)].relabelled(range(4))
    classifier.set_params(texts=moved).fit(X, permutation[y])
    assert_allclose(classifier.decision_function(X)[:, permutation], expected)


@given(st.integers(1, 5), st.floats(0.01, 100))
def test_one_shot_is_the_shot_repeated_and_its_length_is_ignored(n, scale):
    rng = np.random.default_rng(0)
    head = make_head(rng)
    X, y = make_shots(rng, head, counts=(1, 1, 1, 1))
    classifier = SeMoBridgeClassifier(texts=head, lambda_2=0.5, lambda_3=0.5)
    expected = classifier.fit(X, y).decision_function(X)
    repeated = classifier.fit(np.repeat(scale * X, n, axis=0), np.repeat(y, n))
    assert_allclose(repeated.decision_function(X), expected, rtol=1e-9)
    assert_allclose(repeated.decision_function(scale * X), expected, rtol=1e-9)


def test_weights_are_repetitions_and_zero_leaves_a_class_out(head, shots):
    X, y = shots
    weight = np.array([2, 1, 0, 0, 1, 3, 1, 1, 1, 2])
    classifier = SeMoBridgeClassifier(texts=head, lambda_2=0.5)
    weighted = classifier.fit(X, y, sample_weight=weight).decision_function(X)
    assert_array_equal(classifier.classes_, [0, 2, 3])
    rows = np.repeat(np.arange(len(y)), weight)
    repeated = classifier.fit(X[rows], y[rows]).decision_function(X)
    assert_allclose(weighted, repeated, rtol=1e-12)


def test_string_labels_find_their_texts_in_any_order(head, shots):
    X, y = shots
    labels = np.array(NAMES)[y]
    named = head.relabelled(NAMES)
    by_name = SeMoBridgeClassifier(texts=named[["fox", "eel", "dog", "cat"]])
    by_index = SeMoBridgeClassifier(texts=head).fit(X, y)
    by_name.fit(X, labels)
    assert_allclose(by_name.decision_function(X), by_index.decision_function(X))
    assert set(by_name.predict(X)) <= set(NAMES)


def test_texts_without_shots_are_ignored(head, shots):
    X, y = shots
    kept = y != 1
    classifier = SeMoBridgeClassifier(texts=head).fit(X[kept], y[kept])
    assert classifier.text_head_.classes == (0, 2, 3)
    assert classifier.predict_proba(X).shape == (len(X), 3)


def test_two_classes_give_one_dimensional_scores(head, shots):
    X, y = shots
    pair = y < 2
    classifier = SeMoBridgeClassifier(texts=head[[0, 1]]).fit(X[pair], y[pair])
    scores = classifier.decision_function(X)
    assert scores.shape == (len(X),)
    assert_array_equal(classifier.predict(X), (scores > 0).astype(int))
    log_odds = np.diff(classifier.predict_log_proba(X), axis=1)[:, 0]
    assert_allclose(log_odds, classifier.temperature_ * scores)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((4, 8, 8, 3)),
        [np.zeros((8, 8, 3)), *[np.zeros((9, 9, 3))] * 3],
        [Image.new("RGB", (8, 8))] * 4,
        np.zeros((8, 8, 3)),
        Image.new("RGB", (8, 8)),
        ["1.jpg", "2.jpg", "3.jpg", "4.jpg"],
        pd.Series(["1.jpg", "2.jpg", "3.jpg", "4.jpg"]),
        pd.DataFrame({"path": ["1.jpg", "2.jpg", "3.jpg", "4.jpg"]}),
        "1.jpg",
        Path("1.jpg"),
        b"jpeg",
    ],
    ids=[
        "array",
        "list of arrays",
        "PIL",
        "one array",
        "one PIL",
        "paths",
        "column of paths",
        "table of paths",
        "string",
        "path",
        "bytes",
    ],
)
@pytest.mark.filterwarnings("ignore:X has feature names")
def test_images_in_place_of_embeddings_are_an_error_that_names_the_embedder(
    head, shots, images
):
    X, y = shots
    fitted = SeMoBridgeClassifier(texts=head).fit(X, y)
    bridge = SemanticBridge(head).fit(X)
    for call in (
        lambda: SeMoBridgeClassifier(texts=head).fit(images, y[:4]),
        lambda: fitted.predict(images),
        lambda: fitted.component_logits(images),
        lambda: SemanticBridge(head).fit(images),
        lambda: bridge.transform(images),
    ):
        with pytest.raises(ValueError, match=r"takes embeddings.*with CLIPEmbedder"):
            call()


def test_text_free_classifier_with_a_projection_still_bridges(rng, shots):
    X, y = shots
    W = rng.normal(size=(4, 9))
    bare = TextHead.from_arrays(projection=W)
    classifier = SeMoBridgeClassifier(bare, bridge_rank=1.0).fit(X, y)
    z1, _, z3 = classifier.component_logits(X)
    assert z1 is None
    bridged = X @ np.linalg.pinv(W) @ W
    means = np.stack(
        [
            (
                bridged[y == k]
                / np.linalg.norm(X[y == k] @ np.linalg.pinv(W), axis=1)[:, None]
            ).mean(axis=0)
            for k in range(4)
        ]
    )
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    q = X / np.linalg.norm(X, axis=1, keepdims=True)
    assert_allclose(z3, q @ means.T, atol=1e-10)
    assert_allclose(classifier.decision_function(X), z3)


def test_text_subspace_and_identity_bridges_are_searchable(rng):
    bank = rng.normal(size=(80, 9))
    T = rng.normal(size=(4, 9))
    head = TextHead.from_features(range(4), T, text_bank=bank)
    X, y = make_shots(rng, head, counts=(4, 4, 4, 4))
    search = GridSearchCV(
        SeMoBridgeClassifier(texts=head, bridge="text_subspace"),
        [{"bridge_rank": [2, 5]}, {"bridge": ["identity"]}],
        cv=2,
    ).fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_grid_search_tries_the_weights_and_copies_no_head(head, rng):
    X, y = make_shots(rng, head, counts=(4, 4, 4, 4))
    search = GridSearchCV(
        SeMoBridgeClassifier(texts=head),
        {"lambda_1": [0, 1], "lambda_2": [0.0, 0.5], "lambda_3": [0.5, 1]},
        cv=2,
    ).fit(X, y)
    assert search.best_estimator_.texts is head
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert cross_val_score(search.best_estimator_, X, y, cv=2).shape == (2,)


@every_kind
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("blending", ["linear", "exponential"])
def test_blocks_of_rows_change_nothing(rng, monkeypatch, blending, bias, kind):
    head = make_head(rng, bias=bias)
    X, y = make_shots(rng, head)
    queries = rng.normal(size=(50, 9))
    options = {}
    if kind == "mean":
        options = {"lambda_2": 0.5, "blending": blending}
        options |= {"smoothness": 0.5} if blending == "exponential" else {}
    classifier = make(kind, head, **options).fit(X, y)
    methods = ("decision_function", "predict_proba", "predict")
    whole = [getattr(classifier, method)(queries) for method in methods]
    scores = classifier.blend_.scores(classifier.component_logits(queries))
    assert_allclose(whole[0], scores, rtol=1e-12, atol=1e-12)
    monkeypatch.setattr("skbridge._classifiers.base._BLOCK_FLOATS", 200)
    # Matrix products of other shapes may round differently.
    blocks = [getattr(classifier, method)(queries) for method in methods]
    assert_allclose(blocks[0], whole[0], rtol=1e-12, atol=1e-12)
    assert_allclose(blocks[1], whole[1], rtol=1e-12)
    assert_array_equal(blocks[2], whole[2])


def test_wider_queries_are_scored_in_their_own_precision(rng):
    head = make_head(rng, dtype=np.float32)
    X, y = make_shots(rng, head)
    classifier = SeMoBridgeClassifier(texts=head, lambda_2=0.5, lambda_3=0.5)
    classifier.fit(X.astype(np.float32), y)
    assert classifier.decision_function(X.astype(np.float32)).dtype == np.float32
    scores = classifier.decision_function(X)
    assert scores.dtype == np.float64
    # Class vectors are float32, and so is their rounding when they are weighed.
    blended = classifier.blend_.scores(classifier.component_logits(X))
    assert_allclose(scores, blended, atol=1e-7)


@every_kind
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_partial_fit_equals_fit_on_all_shots(rng, bias, weighted, kind):
    head = make_head(rng, bias=bias)
    X, y = make_shots(rng, head, counts=(4, 3, 5, 2))
    order = rng.permutation(len(y))
    X, y = X[order], y[order]
    weight = rng.uniform(0.5, 2, len(y)) if weighted else None
    options = {}
    if kind == "mean":
        options = {"lambda_2": 0.5, "blending": "exponential", "smoothness": 0.1}
    whole = make(kind, head, **options).fit(X, y, sample_weight=weight)
    grown = make(kind, head, **options)
    # Class 2 comes first, then 0 and 3, and 1 only with the remaining shots.
    first = np.flatnonzero(y == 2)[:2]
    second = np.flatnonzero(np.isin(y, [0, 3]))[::2]
    third = np.setdiff1d(np.arange(len(y)), [*first, *second])
    for rows in (first, second, third):
        grown.partial_fit(
            X[rows], y[rows], sample_weight=None if weight is None else weight[rows]
        )
    exact = {"rtol": 1e-12, "atol": 1e-12}
    assert_array_equal(grown.classes_, whole.classes_)
    assert grown.text_head_ == whole.text_head_
    assert_array_equal(grown._bridge.eos_unit, whole._bridge.eos_unit)
    means = "means_" if kind == "gda" else "bridged_prototypes_"
    for name in ("prototypes_", means, "class_count_", "inverse_projection_"):
        assert_allclose(getattr(grown, name), getattr(whole, name), **exact)
    scores = grown.decision_function(X), whole.decision_function(X)
    assert_allclose(*scores, **exact)
    if kind == "mean":
        # The other one finds its temperature from the shots of the last call.
        assert_allclose(grown.predict_proba(X), whole.predict_proba(X), **exact)


@pytest.mark.parametrize("texts", [True, False])
@pytest.mark.parametrize("bridge", ["pseudo_inverse", "identity"])
def test_gda_agrees_with_its_equations(rng, bridge, texts):
    head = make_head(rng)
    X, y = make_shots(rng, head)
    weight = rng.uniform(0.5, 2, len(y))
    T, W = head.text_features, head.projection
    given = head if texts else TextHead.from_arrays(projection=W)
    rank = {"bridge_rank": 4} if bridge == "pseudo_inverse" else {}
    classifier = BridgedGDAClassifier(given, shrinkage=0.7, bridge=bridge, **rank)
    classifier.fit(X, y, sample_weight=weight)

    x = X / np.linalg.norm(X, axis=1, keepdims=True)
    n = np.array([weight[y == k].sum() for k in range(4)])
    m = np.array([np.average(x[y == k], 0, weight[y == k]) for k in range(4)])
    c = m.mean(axis=0)
    S = sum(w * np.outer(r, r) for w, r in zip(weight, x - m[y], strict=True))
    variance = np.average(((x - c) ** 2).sum(axis=1), weights=weight)
    P = np.eye(9)
    if bridge == "pseudo_inverse":
        V = np.linalg.svd(W)[2][:4].T
        P = V @ V.T
    identity = np.eye(9)
    prior = identity + 20 / n.mean() * (identity - P)
    A = np.linalg.inv(S + 0.7 * variance * prior)
    M = m - c
    if texts:
        E = T - T.mean(axis=0)
        dots = [(M[k] @ A @ E[k], E[k] @ A @ E[k]) for k in range(4)]
        g = sum(dot for dot, _ in dots) / sum(length for _, length in dots)
        M = np.array([(n[k] * M[k] + 2 * g * E[k]) / (n[k] + 2) for k in range(4)])
        assert classifier.text_gain_ == pytest.approx(g, rel=1e-9)
    assert_allclose(classifier.centre_, c, atol=1e-12)
    assert_allclose(classifier.means_, M, atol=1e-12)
    _, z2, z3 = classifier.component_logits(X)
    assert z2 is None
    for i, q in enumerate(x - c):
        for k in range(4):
            cosine = q @ A @ M[k] / np.sqrt((q @ A @ q) * (M[k] @ A @ M[k]))
            assert z3[i, k] == pytest.approx(cosine, abs=1e-12)
    scores = z3
    if texts:
        lambda_3 = 100 / 50 * (n.mean() + 1) / 12 * (50 / 4) ** 0.3
        scores = x @ T.T + lambda_3 * z3
    assert_allclose(classifier.decision_function(X), scores, atol=1e-12)


@pytest.mark.parametrize("texts", [True, False])
def test_temperature_of_gda_is_that_of_shots_left_out(rng, texts):
    head = make_head(rng, n_classes=3)
    X, y = make_shots(rng, head, counts=(2, 3, 4), noise=1.0)
    given = head if texts else None
    weight = rng.uniform(0.5, 2, len(y))
    classifier = BridgedGDAClassifier(given).fit(X, y, sample_weight=weight)
    x = X / np.linalg.norm(X, axis=1, keepdims=True)
    c, G = classifier.centre_, classifier.metric_
    A = np.linalg.inv(G @ G.T)
    z3 = np.empty((len(y), 3))
    for i in range(len(y)):
        rest = np.arange(len(y)) != i
        n = np.array([weight[rest & (y == k)].sum() for k in range(3)])
        m = np.array(
            [weight[rest & (y == k)] @ x[rest & (y == k)] / n[k] for k in range(3)]
        )
        M = m - c
        if texts:
            E = head.text_features - head.text_features.mean(axis=0)
            E = classifier.text_gain_ * E
            M = (n[:, None] * M + 2 * E) / (n[:, None] + 2)
        # The scatter without the shot.
        every = weight[y == y[i]]
        mean = every @ x[y == y[i]] / every.sum()
        d = x[i] - mean
        B = A - weight[i] * every.sum() / (every.sum() - weight[i]) * np.outer(d, d)
        B = np.linalg.inv(B)
        q = x[i] - c
        for k in range(3):
            z3[i, k] = q @ B @ M[k] / np.sqrt((q @ B @ q) * (M[k] @ B @ M[k]))
    n = np.array([weight[y == y[i]].sum() for i in range(len(y))])
    scores, scale = z3, 100 / 8
    if texts:
        n_mean = np.bincount(y, weights=weight).mean()
        lambda_3 = 2 * (n_mean + 1) / 12 * (50 / 3) ** 0.3
        scores, scale = (
            x @ head.text_features.T + lambda_3 * z3,
            50 / (1 + 4 * lambda_3),
        )

    def loss(t):
        own = _log_softmax(t * scores, axis=1)[np.arange(len(y)), y]
        return -weight @ own + 5 * (t / scale - np.log(t / scale))

    best = minimize_scalar(loss, bounds=(1e-3, 1e3), method="bounded").x
    growth = np.average((n / (n - weight)) ** (0.2 if texts else 0.4), weights=weight)
    assert classifier.temperature_ == pytest.approx(growth * best, rel=1e-3)


def test_temperature_of_single_shots_is_the_prior(rng, head):
    X, y = make_shots(rng, head, counts=(1, 1, 1, 1))
    assert BridgedGDAClassifier(None).fit(X, y).temperature_ == 100 / 8
    lambda_3 = 2 * 2 / 12 * (50 / 4) ** 0.3
    temperature = BridgedGDAClassifier(head).fit(X, y).temperature_
    assert temperature == pytest.approx(50 / (1 + 4 * lambda_3))


@every_kind
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {"bridge_rank": 4},
        {"bridge": "text_subspace", "bridge_rank": 3},
        {"bridge": "identity"},
    ],
    ids=["pseudo_inverse", "text_subspace", "identity"],
)
def test_bridged_queries_meet_the_prototypes_in_the_joint_space(
    rng, options, bias, kind
):
    head = make_head(rng, bias=bias)
    bank = TextHead.from_features(text_bank=rng.normal(size=(70, 9)))
    if options.get("bridge") == "text_subspace":
        head = bank
    X, y = make_shots(rng, make_head(rng))
    classifier = make(kind, head, **options).fit(X, y)
    bridged = SemanticBridge(head, **options).fit(X).transform(X)
    bridged /= np.linalg.norm(bridged, axis=1, keepdims=True)
    assert_allclose(classifier.bridge_embeddings(X), bridged, atol=1e-12)
    if kind == "mean":
        _, z2, _ = classifier.component_logits(X)
        assert_allclose(z2, bridged @ classifier.prototypes_.T, atol=1e-12)


def test_gda_of_one_shot_compares_centred_shots_without_texts(rng, head):
    X, y = make_shots(rng, head, counts=(1, 1, 1, 1))
    gda = BridgedGDAClassifier(None).fit(X, y).component_logits(X)
    x = X / np.linalg.norm(X, axis=1, keepdims=True)
    x -= x.mean(axis=0)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    assert_allclose(gda[2], x @ x.T, atol=1e-12)


def test_gda_ignores_texts_that_oppose_the_shots(rng, head):
    y = np.arange(4)
    X = head.text_features.mean(axis=0) - 0.2 * head.text_features[y]
    assert BridgedGDAClassifier(head).fit(X, y).text_gain_ == 0


def test_gda_of_equal_shots_scores_them_alike(head):
    X, y = np.ones((4, 9)), np.arange(4)
    scores = BridgedGDAClassifier(None).fit(X, y).decision_function(X)
    assert_allclose(scores, 0, atol=1e-6)


def test_automatic_weight_of_the_shots_grows_with_their_number(rng, head):
    for n, weight in ((1, 100 / 50 / 8), (4, 100 / 50 * 4 / 8)):
        X, y = make_shots(rng, head, counts=(n,) * 4)
        classifier = SeMoBridgeClassifier(texts=head, lambda_3="auto").fit(X, y)
        z1, _, z3 = classifier.component_logits(X)
        assert_allclose(classifier.decision_function(X), z1 + weight * z3)
        assert classifier.temperature_ == pytest.approx(50 / (1 + weight))


def test_partial_fit_continues_a_fit(head, shots):
    X, y = shots
    first = y != 1
    grown = SeMoBridgeClassifier(texts=head).fit(X[first], y[first])
    grown.partial_fit(X[~first], y[~first], classes=[0, 1, 2, 3])
    whole = SeMoBridgeClassifier(texts=head).fit(X, y)
    assert_allclose(grown.decision_function(X), whole.decision_function(X), atol=1e-12)


def test_partial_fit_refuses_labels_outside_classes(head, shots):
    X, y = shots
    with pytest.raises(ValueError, match=r"labels 3, which are not in classes"):
        SeMoBridgeClassifier(texts=head).partial_fit(X, y, classes=[0, 1, 2])


def test_partial_fit_needs_a_text_for_a_new_class(head, shots):
    X, y = shots
    classifier = SeMoBridgeClassifier(texts=head).fit(X, y)
    with pytest.raises(ValueError, match=r"no text for the labels 7"):
        classifier.partial_fit(X[:1], [7])


def test_partial_fit_cannot_add_to_a_subspace_of_class_texts(rng):
    T = rng.normal(size=(70, 9))
    head = TextHead.from_features(range(70), T)
    y = np.arange(69)
    classifier = SeMoBridgeClassifier(texts=head, bridge="text_subspace")
    classifier.fit(T[:69], y)
    with pytest.raises(ValueError, match=r"new classes 69.*text_bank"):
        classifier.partial_fit(T[69:], [69])


def test_partial_fit_keeps_the_kind_of_bridge(rng):
    # Of 63 class texts "auto" makes the identity, of 64 a subspace.
    T = rng.normal(size=(64, 9))
    head = TextHead.from_features(range(64), T)
    grown = SeMoBridgeClassifier(head).fit(T[:63], np.arange(63))
    grown.partial_fit(T[63:], [63])
    assert grown.bridge_ == "identity"
    whole = SeMoBridgeClassifier(head, bridge="identity").fit(T, np.arange(64))
    assert_allclose(grown.decision_function(T), whole.decision_function(T))


def test_failed_partial_fit_changes_nothing(head, shots):
    X, y = shots
    classifier = SeMoBridgeClassifier(texts=head)
    with pytest.raises(ValueError, match=r"no text for the labels 7"):
        classifier.partial_fit(X[:2], [0, 7])
    with pytest.raises(NotFittedError):
        classifier.predict(X)
    present = y != 3
    classifier.partial_fit(X[present], y[present])
    before = vars(classifier).copy()
    scores = classifier.decision_function(X)
    # The new class has a text, but its two shots cancel.
    with pytest.raises(ValueError, match=r"classes 3 sum to zero"):
        classifier.partial_fit(np.stack([X[0], -X[0]]), [3, 3])
    assert vars(classifier) == before
    assert_allclose(classifier.decision_function(X), scores)
    classifier.partial_fit(X[~present], y[~present])
    whole = SeMoBridgeClassifier(texts=head).fit(X, y)
    assert_allclose(classifier.decision_function(X), whole.decision_function(X))


def test_trained_mode_has_no_partial_fit():
    assert hasattr(SeMoBridgeClassifier(), "partial_fit")
    trained = SeMoBridgeClassifier(mode="trained")
    assert not hasattr(trained, "partial_fit")
    with pytest.raises(AttributeError) as error:
        trained.partial_fit([[1.0]], [0])
    assert "with the old and the new shots" in str(error.value.__cause__)


def test_joblib_round_trip_predicts_where_torch_cannot_be_imported(
    head, shots, tmp_path
):
    X, y = shots
    for mode in ("closed_form", "trained"):
        classifier = SeMoBridgeClassifier(texts=head, mode=mode)
        classifier.fit(X, y)
        joblib.dump((classifier, X, classifier.predict_proba(X)), tmp_path / mode)
    script = textwrap.dedent(
        """
        import sys

        class Block:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in ("torch", "open_clip", "torchvision"):
                    raise ModuleNotFoundError(name)

        sys.meta_path.insert(0, Block())
        import joblib
        import numpy as np
        for path in sys.argv[1:]:
            classifier, X, expected = joblib.load(path)
            np.testing.assert_array_equal(classifier.predict_proba(X), expected)
            classifier.predict(X), classifier.component_logits(X)
        """
    )
    paths = [str(tmp_path / mode) for mode in ("closed_form", "trained")]
    subprocess.run([sys.executable, "-c", script, *paths], check=True)


def test_import_needs_neither_torch_nor_open_clip():
    script = (
        "import sys, skbridge; "
        "print(sorted({'torch', 'open_clip', 'torchvision'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    assert result.stdout.strip() == "[]"


def test_fit_twice_equals_fit_once(head, shots):
    X, y = shots
    classifier = SeMoBridgeClassifier(texts=head).fit(X[::2], y[::2] + 0)
    again = classifier.fit(X, y).decision_function(X)
    once = SeMoBridgeClassifier(texts=head).fit(X, y).decision_function(X)
    assert_array_equal(again, once)


def test_texts_come_from_the_named_model(tiny_clip_dir, rng):
    X = rng.normal(size=(4, 24)).astype(np.float32)
    model = f"local-dir:{tiny_clip_dir}"
    head = TextHead.from_clip(["cat", "sea_lion"], model=model, templates="simple")
    labels = SeMoBridgeClassifier(model).fit(X, ["cat", "cat", "sea_lion", "sea_lion"])
    listed = CLIPTexts(model, class_names=["cat", "sea_lion"])
    mapped = CLIPTexts(model, class_names={0: "cat", 1: "sea_lion"})
    for classifier in (
        labels,
        SeMoBridgeClassifier(listed).fit(X, [0, 0, 1, 1]),
        SeMoBridgeClassifier(mapped).fit(X, [0, 0, 1, 1]),
    ):
        assert_allclose(classifier.text_head_.text_features, head.text_features)
    texts = CLIPTexts(model, templates={"cat": ["a cat"], "sea_lion": ["a sea lion"]})
    prompted = SeMoBridgeClassifier(texts).fit(
        X, ["cat", "cat", "sea_lion", "sea_lion"]
    )
    assert prompted.text_head_.prompts == (("a cat",), ("a sea lion",))


def test_labels_that_share_a_name_share_its_text_with_a_warning(tiny_clip_dir, rng):
    X = rng.normal(size=(3, 24))
    texts = CLIPTexts(
        f"local-dir:{tiny_clip_dir}", class_names={0: "cat", 1: "dog", 2: "cat"}
    )
    classifier = SeMoBridgeClassifier(texts)
    with pytest.warns(UserWarning, match=r"labels 0, 2 are all called 'cat'"):
        classifier.fit(X, [0, 1, 2])
    T = classifier.text_head_.text_features
    assert_array_equal(T[0], T[2])


def test_texts_of_another_model_are_suspected_at_chance(rng):
    head = make_head(rng, n_classes=10, shape=(6, 40))
    X, y = make_shots(rng, head, counts=[3] * 10)
    SeMoBridgeClassifier(texts=head).fit(X, y)
    turned = X @ np.linalg.qr(rng.normal(size=(40, 40)))[0]
    with pytest.warns(UserWarning, match=r"\d+ of the 30 shots .* better than chance"):
        SeMoBridgeClassifier(texts=head).fit(turned, y)


# Bad input ---------------------------------------------------------------------


def test_unfitted_calls_say_so():
    classifier = SeMoBridgeClassifier()
    for method in ("predict", "predict_proba", "decision_function", "component_logits"):
        with pytest.raises(NotFittedError, match="not fitted yet"):
            getattr(classifier, method)(np.ones((1, 4)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lambda_1": -1}, r"'lambda_1' parameter .* range \[0.*Got -1"),
        ({"lambda_3": -0.1}, "'lambda_3' parameter"),
        ({"mode": "exact"}, r"'mode' parameter .* \{.*\}.*Got 'exact'"),
        ({"blending": "cubic"}, "'blending' parameter"),
        ({"bridge": "pinv"}, "'bridge' parameter"),
        ({"solver": "sgd"}, "'solver' parameter"),
        ({"temperature": 0}, "'temperature' parameter"),
        ({"bridge_rank": 0}, "'bridge_rank' parameter"),
        ({"max_iter": 0}, "'max_iter' parameter"),
        ({"lambda_it": 1.5}, "'lambda_it' parameter"),
    ],
)
def test_unknown_options_and_bad_values_are_named(shots, options, message):
    with pytest.raises(ValueError, match=message):
        SeMoBridgeClassifier(texts=None, **options).fit(*shots)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lambda_1": 0, "lambda_3": 0}, r"At least one of .* got 0, 0\.0 and 0"),
        ({"pinv_atol": 1e6}, r"pinv_atol=1000000\.0 cuts every singular value"),
    ],
)
def test_contradictions_with_a_text_head(head, shots, options, message):
    with pytest.raises(ValueError, match=message):
        SeMoBridgeClassifier(texts=head, **options).fit(*shots)


def test_all_weight_on_absent_texts_is_refused(shots):
    with pytest.raises(ValueError, match="lambda_1 does not count without texts"):
        SeMoBridgeClassifier(texts=None, lambda_3=0).fit(*shots)


def test_width_mismatch_names_both_widths(head, shots):
    X, y = shots
    with pytest.raises(ValueError, match=r"X has 8 features, .* has 9.* same CLIP"):
        SeMoBridgeClassifier(texts=head).fit(X[:, :8], y)


def test_width_mismatch_names_the_model(tiny_clip_dir):
    classifier = SeMoBridgeClassifier(f"local-dir:{tiny_clip_dir}")
    with pytest.raises(ValueError, match=r"8 features, .* \(made by .*\) has 24"):
        classifier.fit(np.ones((2, 8)), ["cat", "dog"])


@pytest.mark.parametrize(
    ("y", "class_names", "error", "message"),
    [
        ([0, 1], None, ValueError, r"not strings \(0, 1\).*class_names=\{label: name"),
        ([0, 5], ["cat", "dog"], ValueError, r"no name for the labels 5"),
        ([0, 1], {0: "cat"}, ValueError, r"no name for the labels 1"),
        ([0, 1], {0: "cat", 1: " "}, ValueError, r"labels 1 are not"),
        ([0, 1], {0: "cat", 1: 3}, ValueError, r"must be non-empty strings"),
        (["a", "b"], ["cat", "dog"], ValueError, r"indexed by integer labels"),
        ([-1, 1], ["cat", "dog"], ValueError, r"no name for the labels -1"),
        ([0, 1], "cat", TypeError, r"must be a dict .* got str"),
        ([0, 1], 7, TypeError, r"must be a dict .* got int"),
    ],
)
def test_labels_without_a_proper_name(tiny_clip_dir, y, class_names, error, message):
    texts = CLIPTexts(f"local-dir:{tiny_clip_dir}", class_names=class_names)
    classifier = SeMoBridgeClassifier(texts)
    with pytest.raises(error, match=message):
        classifier.fit(np.ones((2, 24)), y)


@pytest.mark.parametrize("y", [[3, 7], [0, 9]])
def test_label_without_a_text_in_the_head(head, shots, y):
    with pytest.raises(ValueError, match=r"no text for the labels [79] \(1 of 2\)"):
        SeMoBridgeClassifier(texts=head).fit(shots[0][:2], y)


@pytest.mark.parametrize("X", [[[1.0, 2.0], [3.0]], np.array(1.0), [], 5.0])
def test_what_is_no_table_gets_the_message_of_scikit_learn(X):
    with pytest.raises(ValueError, match=r"inhomogeneous|Expected 2D array"):
        SeMoBridgeClassifier(texts=None).fit(X, [0, 1])


def test_label_without_a_text_lists_the_head_s_names(rng):
    X, y = rng.normal(size=(2, 9)), ["cat", "yak"]
    few = TextHead.from_features(["cat", "dog"], rng.normal(size=(2, 9)))
    with pytest.raises(ValueError, match=r"2 classes, 'cat', 'dog'\. Make"):
        SeMoBridgeClassifier(texts=few).fit(X, y)
    many = TextHead.from_features([*"abcdefg"], rng.normal(size=(7, 9)))
    with pytest.raises(ValueError, match=r"7 classes, 'a', .*'e' and 2 more\. Make"):
        SeMoBridgeClassifier(texts=many).fit(X, y)


@pytest.mark.parametrize("fail_late", [False, True])
@pytest.mark.parametrize(
    "options",
    [{"kind": "mean"}, {"kind": "gda"}, {"kind": "mean", "mode": "trained"}],
    ids=["mean", "gda", "trained"],
)
def test_failed_fit_changes_nothing(head, shots, monkeypatch, options, fail_late):
    X, y = shots
    classifier = make(texts=head, **options)
    other = [0, 1, 3] if fail_late else [0, 1, 9]

    def refit():
        with monkeypatch.context() as patch:
            if fail_late:
                # The last that a fit does.
                patch.delattr(FewShotClassifier, "_finish_fit")
            with pytest.raises((ValueError, AttributeError)):
                classifier.fit(X[:3], other)

    refit()
    with pytest.raises(NotFittedError):
        classifier.predict(X)
    classifier.fit(X, y)
    scores = classifier.decision_function(X)
    before = vars(classifier).copy()
    refit()
    assert vars(classifier) == before
    assert_allclose(classifier.decision_function(X), scores)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_are_refused(head, shots, bad):
    X, y = shots
    fitted = SeMoBridgeClassifier(texts=head).fit(X, y)
    X = X.copy()
    X[[2, 5], 3] = bad
    message = rf"^2 of {len(X)} rows of X hold NaN or infinite values: 2, 5\..*valid_"
    with pytest.raises(ValueError, match=message):
        fitted.fit(X, y)
    with pytest.raises(ValueError, match=message):
        fitted.predict(X)
    with pytest.raises(ValueError, match="1 of 10 labels in y are missing"):
        fitted.fit(shots[0], np.where(y == 1, np.nan, y))


def test_zero_embeddings_warn_in_predict_and_text_free_fit(shots):
    X, y = shots
    X = X.copy()
    X[[1, 2]] = 0
    classifier = SeMoBridgeClassifier(texts=None)
    with pytest.warns(UserWarning, match=r"2 of 10 rows of X in fit .* index 1\."):
        classifier.fit(X, y)
    with pytest.warns(UserWarning, match=r"2 of 10 rows of X in predict"):
        classifier.predict(X)


def test_zero_embeddings_are_refused_beside_texts(head, shots):
    X, y = shots
    X = X.copy()
    X[1] = 0
    with pytest.raises(ValueError, match=r"1 of 10 rows .* no CLIP embedding is zero"):
        SeMoBridgeClassifier(texts=head).fit(X, y)


def test_shots_that_cancel_leave_no_prototype():
    X = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    with pytest.raises(ValueError, match=r"classes 'a' sum to zero"):
        SeMoBridgeClassifier(texts=None).fit(X, ["a", "a", "b"])


def test_one_class_only_is_refused(shots):
    X, _ = shots
    with pytest.raises(ValueError, match="one class only"):
        SeMoBridgeClassifier(texts=None).fit(X, np.zeros(len(X)))


def test_many_classes_of_one_shot_raise_no_alarm(rng):
    head = make_head(rng, n_classes=30, shape=(6, 40))
    X, y = make_shots(rng, head, counts=[1] * 30)
    assert SeMoBridgeClassifier(texts=head).fit(X, y).score(X, y) > 0.9


def test_sparse_input_is_refused(shots):
    from scipy.sparse import csr_array

    X, y = shots
    with pytest.raises(TypeError, match="Sparse data was passed"):
        SeMoBridgeClassifier(texts=None).fit(csr_array(X), y)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (lambda y: np.where(y == 1, -1, 1), r"is -1 at index 3"),
        (lambda y: np.zeros(len(y)), "zero everywhere"),
    ],
)
def test_unusable_sample_weights(shots, weight, message):
    X, y = shots
    with pytest.raises(ValueError, match=message):
        SeMoBridgeClassifier(texts=None).fit(X, y, sample_weight=weight(y))


@pytest.mark.parametrize("length", [1e-40, 1e-25, 1e20, 1e30])
def test_lengths_of_queries_do_not_matter_at_the_ends_of_float32(length):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(12, 16)).astype(np.float32)
    head = TextHead.from_features(["a", "b", "c"], rng.normal(size=(3, 16)))
    classifier = SeMoBridgeClassifier(texts=head, bridge="identity")
    classifier.fit(X, ["a", "b", "c"] * 4)
    # Below 1e-38 float32 has fewer digits.
    np.testing.assert_allclose(
        classifier.decision_function(X * np.float32(length)),
        classifier.decision_function(X),
        atol=1e-3,
    )


@pytest.mark.filterwarnings("ignore:overflow")
def test_scores_that_overflow_are_an_error_and_no_first_class():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(12, 16)).astype(np.float32)
    head = TextHead.from_features(["a", "b", "c"], rng.normal(size=(3, 16)))
    classifier = TipAdapterClassifier(head, alpha=3e38).fit(X, ["a", "b", "c"] * 4)
    for predict in (classifier.predict, classifier.predict_proba):
        with (
            np.errstate(over="ignore"),
            pytest.raises(ValueError, match=r"Scores must be finite.*smoothness"),
        ):
            predict(X)
