"""BridgedGDAClassifier.predict_set: coverage, its definition, and bad input."""

import numpy as np
import pytest

from skbridge import BridgedGDAClassifier, TextHead
from skbridge._class_sums import ScatterSums
from skbridge._rows import unit

N_CLASSES, WIDTH = 4, 12
CENTRES = np.random.default_rng(7).normal(size=(N_CLASSES, WIDTH))
TEXTS = TextHead.from_features(
    range(N_CLASSES), CENTRES + np.random.default_rng(8).normal(size=CENTRES.shape)
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def images(rng, n_per_class):
    y = np.repeat(np.arange(N_CLASSES), n_per_class)
    return CENTRES[y] + 3 + 1.5 * rng.normal(size=(len(y), WIDTH)), y


@pytest.mark.parametrize("texts", [None, TEXTS], ids=["no texts", "texts"])
@pytest.mark.parametrize(("alpha", "n_shots"), [(0.2, 4), (0.1, 9), (0.05, 19)])
def test_sets_contain_the_right_label_as_often_as_promised(texts, alpha, n_shots):
    covered, sizes = [], []
    for seed in range(50):
        rng = np.random.default_rng(seed)
        X, y = images(rng, n_shots)
        new, labels = images(rng, 20)
        fitted = BridgedGDAClassifier(texts).fit(X, y)
        found = fitted.predict_set(new, alpha, X, y)
        covered.append(found[np.arange(len(new)), labels].reshape(N_CLASSES, -1))
        sizes.append(found.sum(axis=1).mean())
    # With 1 / alpha - 1 shots p-values are uniform on 1/n .. 1, so that the coverage
    # is exact. Draws are independent; images of one draw share its shots.
    share = np.mean(covered, axis=2)
    error = share.std(axis=0) / np.sqrt(len(share))
    assert (np.abs(share.mean(axis=0) - (1 - alpha)) < 4 * error).all()
    assert np.mean(sizes) < 0.8 * N_CLASSES


@pytest.mark.parametrize("texts", [None, TEXTS], ids=["no texts", "texts"])
def test_p_values_are_those_of_the_definition(rng, texts):
    n_shots, alpha = 5, 0.35
    X, y = images(rng, n_shots)
    query = images(rng, 1)[0][2:3]
    fitted = BridgedGDAClassifier(texts, lambda_3=0.7).fit(X, y)
    found = fitted.predict_set(query, alpha, X, y)[0]
    T = None if texts is None else unit(TEXTS.text_features)
    for k in range(N_CLASSES):
        rest = y != k
        gaussians = fitted._fit_gaussians(
            ScatterSums.of_shots(X[rest], y[rest], np.ones(rest.sum()), N_CLASSES)
        )
        bag = unit(np.concatenate([X[y == k], query]))
        in_metric = (bag - gaussians.centre) @ gaussians.metric
        means = gaussians.means @ gaussians.metric
        margins = []
        for i, row in enumerate(in_metric):
            own = np.delete(in_metric, i, axis=0).sum(axis=0)
            own = own + gaussians.text_shots * means[k]
            scores = 0.7 * unit(row[None]) @ unit(np.vstack([means, own])).T
            if T is not None:
                scores += np.append(bag[i] @ T.T, bag[i] @ T[k])
            others = np.delete(scores[0, :N_CLASSES], k)
            margins.append(scores[0, -1] - others.max())
        p = np.mean(np.array(margins) <= margins[-1])
        assert found[k] == (p > alpha)


def test_lengths_and_kinds_of_labels_do_not_matter(rng):
    X, y = images(rng, 9)
    names = np.array(["ant", "bee", "cat", "dog"])[y]
    new = images(rng, 3)[0]
    expected = BridgedGDAClassifier(None).fit(X, y).predict_set(new, 0.1, X, y)
    fitted = BridgedGDAClassifier(None).fit(X, names)
    found = fitted.predict_set(1e20 * new, 0.1, (2 * X).tolist(), names.tolist())
    np.testing.assert_array_equal(found, expected)


def test_too_few_shots_are_told_of(rng):
    X, y = images(rng, 9)
    fitted = BridgedGDAClassifier(None).fit(X, y)
    with pytest.raises(ValueError, match=r"alpha=0.05 needs at least 19 shots .* 0.1"):
        fitted.predict_set(X, 0.05, X, y)
    with pytest.raises(ValueError, match=r"1 of 4 classes have fewer: 3\."):
        fitted.predict_set(X, 0.1, X[:-1], y[:-1])
    assert fitted.predict_set(X, 0.1, X, y).shape == (len(X), N_CLASSES)


@pytest.mark.parametrize("alpha", [0, 1, -0.1, "0.1", None, float("nan")])
def test_alpha_outside_its_range_is_refused(rng, alpha):
    X, y = images(rng, 9)
    fitted = BridgedGDAClassifier(None).fit(X, y)
    with pytest.raises(ValueError, match=r"alpha must be a number in \(0, 1\), got"):
        fitted.predict_set(X, alpha, X, y)


def test_shots_of_another_fit_are_refused(rng):
    X, y = images(rng, 9)
    fitted = BridgedGDAClassifier(None).fit(X, y)
    with pytest.raises(ValueError, match="labels that are not in classes_: 4"):
        fitted.predict_set(X, 0.1, X, y + 1)
    with pytest.raises(ValueError, match="12 features"):
        fitted.predict_set(X, 0.1, X[:, :5], y)
    with pytest.raises(ValueError, match="labels in y are missing"):
        fitted.predict_set(X, 0.1, X, np.where(y == 0, None, y))
