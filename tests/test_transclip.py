"""TransCLIPClassifier: a mixture of shots and unlabelled images."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import log_softmax, softmax
from sklearn.base import clone

from skbridge import FewShotSearchCV, TextHead
from skbridge._held_out.folds import shot_folds
from skbridge.baselines import TransCLIPClassifier

N_CLASSES, WIDTH, SCALE = 4, 9, 50.0


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def head():
    texts = np.random.default_rng(1).normal(size=(N_CLASSES, WIDTH)) + 0.3
    return TextHead.from_features(range(N_CLASSES), texts, logit_scale=SCALE)


def units(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def images(rng, counts, noise=0.35):
    """Images about centres that no text names exactly."""
    y = np.repeat(np.arange(N_CLASSES), counts)
    centres = np.random.default_rng(1).normal(size=(N_CLASSES, WIDTH)) + 0.3
    centres = units(centres + 0.5 * np.random.default_rng(2).normal(size=centres.shape))
    return centres[y] + noise * rng.normal(size=(len(y), WIDTH)), y


def problem(rng, shots=3, counts=25, noise=0.35):
    """Shots, then unlabelled images, with -1 as their label."""
    (X, y), (U, hidden) = images(rng, shots, noise), images(rng, counts, noise)
    order = rng.permutation(len(U))
    labels = np.concatenate([y, np.full(len(U), -1)])
    return np.concatenate([X, U[order]]), labels, hidden[order]


def classifier(texts, **params):
    return TransCLIPClassifier(texts, missing_label=-1, **params)


def updates(S, labels, w, U, v, T, lmbda, gamma, k):
    """The paper's block updates, image by image and class by class."""
    n, v, w = len(U), v / v.sum(), w.copy()
    t = softmax(SCALE * U @ T.T, axis=1) if T is not None else np.full((n, 4), 0.25)
    if T is None:
        lmbda = 0
    links = np.zeros((n, n))
    for i in range(n):
        others = [j for j in np.argsort(-U @ U[i]) if j != i][:k]
        links[i, others] = np.maximum(U[others] @ U[i], 0)
    to_shots = np.zeros((n, N_CLASSES))
    for s, label, weight in zip(S, labels, w, strict=True):
        for i in np.argsort(-U @ s)[:k]:
            to_shots[i, label] += weight * max(U[i] @ s, 0)
    a = 50 * gamma * w / w.sum()
    mu = np.stack([np.average(S[labels == c], 0, w[labels == c]) for c in range(4)])
    variance = np.full(WIDTH, 1 / WIDTH)
    z = t
    for step in range(11):
        density = -0.5 * np.stack([((U - m) ** 2 / variance).sum(1) for m in mu], 1)
        for _ in range(5):
            near = ((links + links.T) @ z + to_shots) / (2 * k)
            z = softmax(lmbda * np.log(t) + density / 50 + near, axis=1)
        if step == 10:
            return z, mu, variance
        total, squares = 0.0, np.zeros(WIDTH)
        for c in range(N_CLASSES):
            own = labels == c
            rows = np.concatenate([S[own], U])
            weight = np.concatenate([a[own], v * z[:, c]])
            mu[c] = np.average(rows, axis=0, weights=weight)
            squares += weight @ (rows - mu[c]) ** 2
            total += weight.sum()
        variance = squares / total


@pytest.mark.parametrize("texts", [True, False])
@pytest.mark.parametrize("gamma", [0.002, 0.2])
def test_fit_agrees_with_the_block_updates(rng, head, texts, gamma):
    X, y, _ = problem(rng, shots=[3, 1, 2, 2], counts=8)
    weight = rng.uniform(0.5, 2, size=len(y))
    lmbda = {"lmbda": 0.7} if texts else {}
    fitted = classifier(head if texts else None, gamma=gamma, n_neighbors=2, **lmbda)
    fitted.fit(X, y, sample_weight=weight)
    unlabelled = y == -1
    T = head.text_features if texts else None
    z, mu, variance = updates(
        units(X[~unlabelled]),
        y[~unlabelled],
        weight[~unlabelled],
        units(X[unlabelled]),
        weight[unlabelled],
        T,
        0.7,
        gamma,
        2,
    )
    assert_allclose(fitted.means_, mu, rtol=1e-8)
    assert_allclose(fitted.variance_, variance, rtol=1e-8)
    assert_array_equal(fitted.transduction_, z.argmax(axis=1))
    # Other images have the same update without neighbours.
    new = units(rng.normal(size=(6, WIDTH)))
    density = -0.5 * np.stack([((new - m) ** 2 / variance).sum(1) for m in mu], 1)
    logits = density / 50 + (0.7 * SCALE * new @ T.T if texts else 0)
    assert_allclose(fitted.predict_proba(new), softmax(logits, axis=1), rtol=1e-6)


@pytest.mark.parametrize("texts", [True, False])
def test_shots_alone_make_diagonal_discriminant_analysis(rng, head, texts):
    X, y = images(rng, [3, 2, 4, 2])
    fitted = TransCLIPClassifier(head if texts else None).fit(X, y)
    x = units(X)
    mu = np.stack([x[y == c].mean(axis=0) for c in range(N_CLASSES)])
    variance = ((x - mu[y]) ** 2).mean(axis=0)
    density = -0.5 * np.stack([((x - m) ** 2 / variance).sum(1) for m in mu], 1)
    logits = density / 50 + (0.5 * SCALE * x @ head.text_features.T if texts else 0)
    assert_allclose(fitted.predict_proba(X), softmax(logits, axis=1), rtol=1e-6)
    assert fitted.gamma_ is None
    assert fitted.transduction_.shape == (0,)


@pytest.mark.parametrize("texts", [True, False])
def test_unlabelled_images_raise_accuracy(texts):
    n_classes, width = 10, 256
    gains = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        named = units(rng.normal(size=(n_classes, width)))
        centres = named + 1.5 * units(rng.normal(size=(n_classes, width)))
        head = TextHead.from_features(range(n_classes), named, logit_scale=10)
        X, U, new = (
            np.repeat(centres, n, axis=0)
            + 0.3 * rng.normal(size=(n * n_classes, width))
            for n in (1, 30, 30)
        )
        y, targets = np.arange(n_classes), np.repeat(np.arange(n_classes), 30)
        plain = TransCLIPClassifier(head if texts else None).fit(X, y)
        both = clone(plain).fit(np.concatenate([X, U]), [*y, *[None] * len(U)])
        own = np.mean(both.transduction_ == targets) - plain.score(U, targets)
        gains.append((own, both.score(new, targets) - plain.score(new, targets)))
    own, others = np.mean(gains, axis=0)
    assert own > 0.01
    assert others > 0.005


def test_gamma_is_that_of_the_best_held_out_accuracy(head):
    chosen = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        X, y, _ = problem(rng, shots=4, counts=6, noise=0.6)
        shots, unlabelled = np.flatnonzero(y >= 0), np.flatnonzero(y < 0)
        losses = {}
        for gamma in (0.002, 0.01, 0.02, 0.2):
            wrong = log_loss = 0
            for train, test in shot_folds(y[shots], n_splits=2):
                rows = np.concatenate([shots[train], unlabelled])
                fitted = classifier(head, gamma=gamma).fit(X[rows], y[rows])
                held_out, own = X[shots[test]], y[shots[test]]
                wrong += (fitted.predict(held_out) != own).sum()
                scores = log_softmax(fitted.decision_function(held_out), axis=1)
                log_loss -= scores[np.arange(len(own)), own].sum()
            losses[gamma] = wrong, log_loss
        fitted = classifier(head).fit(X, y)
        assert fitted.gamma_ == min(losses, key=losses.get)
        chosen.append(fitted.gamma_)
    assert len(set(chosen)) > 1


def test_gamma_is_fixed_where_no_shot_can_be_left_out(rng, head):
    X, y, _ = problem(rng, shots=1)
    assert classifier(head).fit(X, y).gamma_ == 0.002
    assert classifier(None).fit(X, y).gamma_ == 0.01
    # Equal shots are one shot.
    twice = np.concatenate([X, X[y >= 0]]), np.concatenate([y, y[y >= 0]])
    assert classifier(head).fit(*twice).gamma_ == 0.002


def test_weights_of_shots_are_repetitions_beside_unlabelled_images(rng, head):
    X, y, _ = problem(rng)
    weight = np.where(y >= 0, np.arange(len(y)) % 3, 1)
    weighted = classifier(head).fit(X, y, sample_weight=weight)
    rows = np.repeat(np.arange(len(y)), weight)
    repeated = classifier(head).fit(X[rows], y[rows])
    assert weighted.gamma_ == repeated.gamma_
    assert_allclose(weighted.means_, repeated.means_, rtol=1e-9)
    assert_array_equal(weighted.transduction_, repeated.transduction_)


def test_unlabelled_images_of_weight_zero_are_left_out(rng, head):
    X, y, _ = problem(rng)
    weight = np.where((y < 0) & (rng.random(len(y)) < 0.5), 0, 1.0)
    weighted = classifier(head).fit(X, y, sample_weight=weight)
    counted = classifier(head).fit(X[weight > 0], y[weight > 0])
    assert len(weighted.transduction_) == ((y < 0) & (weight > 0)).sum()
    assert_array_equal(weighted.transduction_, counted.transduction_)
    assert_allclose(weighted.means_, counted.means_)


def test_order_does_not_matter_beside_unlabelled_images(rng, head):
    X, y, _ = problem(rng)
    expected = classifier(head, gamma=0.01).fit(X, y)
    order = rng.permutation(len(y))
    shuffled = classifier(head, gamma=0.01).fit(X[order], y[order])
    assert_allclose(shuffled.means_, expected.means_, rtol=1e-8)
    rank = np.argsort(order[y[order] < 0])
    assert_array_equal(shuffled.transduction_[rank], expected.transduction_)


def test_single_precision_agrees_with_double(rng):
    texts = np.random.default_rng(1).normal(size=(N_CLASSES, WIDTH)).astype(np.float32)
    head = TextHead.from_features(range(N_CLASSES), texts, logit_scale=SCALE)
    X, y, _ = problem(rng)
    single = classifier(head, gamma=0.01, lmbda=np.float64(0.5))
    single.fit(X.astype(np.float32), y)
    assert single.predict_proba(X.astype(np.float32)).dtype == np.float32
    double = classifier(head, gamma=0.01).fit(X, y)
    assert single.means_.dtype == single.variance_.dtype == np.float32
    assert_allclose(single.means_, double.means_, atol=1e-4)
    assert_allclose(single.variance_, double.variance_, rtol=1e-3)


@pytest.mark.parametrize("n_unlabelled", [1, 2, 3])
def test_few_unlabelled_images_have_fewer_neighbours(rng, head, n_unlabelled):
    X, y, _ = problem(rng, shots=2)
    rows = slice(8 + n_unlabelled)
    fitted = classifier(head, n_neighbors=5).fit(X[rows], y[rows])
    assert fitted.transduction_.shape == (n_unlabelled,)
    assert np.isfinite(fitted.predict_proba(X)).all()


@pytest.mark.parametrize(
    "y",
    [
        ["a", "b", None, "a", "b", None],
        pd.Series(["a", "b", pd.NA, "a", "b", pd.NA], dtype="string"),
        np.array([0, 1, np.nan, 0, 1, np.nan]),
    ],
    ids=["list", "pandas", "array"],
)
def test_missing_labels_are_unlabelled_images(y):
    X = [[1.0, 0.1], [0.1, 1.0], [2.0, 0.3], [1.0, 0.2], [0.2, 1.0], [0.3, 2.0]]
    fitted = TransCLIPClassifier(None).fit(X, y)
    assert_array_equal(fitted.transduction_, fitted.classes_)
    assert fitted.class_count_.tolist() == [2, 2]


def test_memory_grows_linearly_with_the_unlabelled_images(rng, head):
    X, y, _ = problem(rng, shots=1, counts=2000)
    X = X.astype(np.float32)
    tracemalloc.start()
    classifier(head).fit(X, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # The similarities of all pairs would take 256 MB.
    assert peak < 20e6


def test_bad_input_is_named(rng, head):
    X, y, _ = problem(rng)
    with pytest.raises(ValueError, match="All 112 labels in y are missing"):
        classifier(head).fit(X, np.full(len(y), -1))
    X[-1] = 0
    with pytest.raises(ValueError, match=r"1 of 100 rows of X in the unlabelled rows"):
        classifier(head).fit(X, y)
    with pytest.warns(UserWarning, match="the first at index 99"):
        classifier(None).fit(X, y)


def test_a_search_takes_shots_alone(rng, head):
    X, y, _ = problem(rng)
    with pytest.raises(ValueError, match="100 of 112 labels in y are missing"):
        FewShotSearchCV(TransCLIPClassifier(head)).fit(X, np.where(y < 0, np.nan, y))
