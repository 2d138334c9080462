import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.linear_model import LogisticRegression, Perceptron

from skbridge import (
    BridgedGDAClassifier,
    FewShotSearchCV,
    SeMoBridgeClassifier,
    TextHead,
)
from skbridge.review import (
    label_next,
    near_duplicates,
    shot_curve,
    suspicious_labels,
)
from skbridge.review._curve import _continued

NAMES = ["ant", "bee", "cat", "dog", "eel"]


def make_head(width=24, seed=0):
    rng = np.random.default_rng(seed)
    return TextHead.from_arrays(
        NAMES, eos=rng.normal(size=(5, 12)), projection=rng.normal(size=(12, width))
    )


def make_images(head, n_images, seed=1, noise=0.15):
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(len(head)), n_images)
    X = head.text_features[y] + 0.3 + noise * rng.normal(size=(len(y), 24))
    return X, np.array(head.classes)[y]


def flip(y, rows):
    wrong = y.copy()
    wrong[rows] = np.roll(NAMES, 1)[np.searchsorted(NAMES, y[rows])]
    return wrong


# suspicious_labels

FLIPPED = [3, 10, 26, 33]


@pytest.mark.parametrize(
    "make",
    [
        lambda head: BridgedGDAClassifier(head, bridge_rank=1.0, temperature=20.0),
        lambda head: SeMoBridgeClassifier(head, pinv_atol=0.1, lambda_3=0.5),
        lambda head: SeMoBridgeClassifier(head, mode="trained", max_iter=5),
        lambda head: FewShotSearchCV(BridgedGDAClassifier(head)),
        lambda head: LogisticRegression(C=100),
    ],
    ids=["gda", "semobridge", "trained", "search", "logistic"],
)
def test_flipped_labels_come_first_with_the_right_suggestion(make):
    head = make_head()
    X, y = make_images(head, 8)
    wrong = flip(y, FLIPPED)
    estimator = make(head).fit(X, wrong)
    before = estimator.predict_proba(X)
    found = suspicious_labels(estimator, X, wrong)
    assert set(found.indices[:4]) == set(FLIPPED)
    assert_array_equal(found.suggested[FLIPPED], y[FLIPPED])
    assert (np.diff(found.scores[found.indices]) >= 0).all()
    assert_array_equal(np.flatnonzero(found.margins < 0), np.sort(found.indices))
    assert_array_equal(estimator.predict_proba(X), before)


def test_scores_are_those_of_fits_without_the_shot_and_the_doubted_ones():
    head = make_head()
    X, y = make_images(head, 4)
    wrong = flip(y, [3, 9])
    classifier = BridgedGDAClassifier(head, bridge_rank=1.0, temperature=20.0)
    found = suspicious_labels(classifier, X, wrong)
    assert set(found.indices) == {3, 9}
    # The four shots of a class are in four folds; class "ant" lost one, "bee" has five.
    for row in (0, 3, 9, 19):
        own = found.scores[row]
        without = np.setdiff1d(np.arange(20), [3, 9, row])
        fitted = BridgedGDAClassifier(head, bridge_rank=1.0, temperature=20.0).fit(
            X[without], y[without]
        )
        code = NAMES.index(wrong[row])
        alone = fitted.predict_log_proba(X[row : row + 1])[0, code]
        assert own == pytest.approx(alone, rel=0.3, abs=0.1)
        assert (own < -1) == (row in (3, 9))


def test_margins_are_those_of_fits_without_the_shots():
    head = make_head()
    X, y = make_images(head, 3)
    classifier = BridgedGDAClassifier(head, bridge_rank=1.0, temperature=20.0)
    found = suspicious_labels(classifier, X, y)
    assert len(found.indices) == 0
    for fold in range(3):
        rows = np.arange(len(y)) % 3 == fold
        fitted = classifier.fit(X[~rows], y[~rows])
        log_proba = fitted.predict_log_proba(X[rows])
        own = np.arange(5)
        scores = log_proba[own, own].copy()
        assert_allclose(found.scores[rows], scores, rtol=1e-6, atol=1e-12)
        log_proba[own, own] = -np.inf
        assert_allclose(found.margins[rows], scores - log_proba.max(axis=1), rtol=1e-6)


def test_a_shot_alone_in_its_class_has_no_margin():
    head = make_head()
    X, y = make_images(head, 4)
    X, y = X[: 4 * 4 + 1], y[: 4 * 4 + 1]
    found = suspicious_labels(BridgedGDAClassifier(head), X, y)
    assert_array_equal(np.isnan(found.margins), y == "eel")
    assert found.suggested[-1] == "eel"
    alone = suspicious_labels(BridgedGDAClassifier(head), X[::4], y[::4])
    assert np.isnan(alone.margins).all()
    assert len(alone.indices) == 0


def test_views_of_one_image_do_not_confirm_each_other():
    head = make_head()
    X, y = make_images(head, 6)
    wrong = flip(y, [3])
    X, wrong = np.repeat(X, 2, axis=0), np.repeat(wrong, 2)
    images = np.repeat(np.arange(30), 2)
    classifier = BridgedGDAClassifier(head, bridge_rank=1.0)
    apart = suspicious_labels(classifier, X, wrong).margins[6]
    together = suspicious_labels(classifier, X, wrong, groups=images).margins[6]
    assert together < apart


def test_labels_are_judged_by_a_classifier_with_probabilities_only():
    head = make_head()
    X, y = make_images(head, 4)
    with pytest.raises(TypeError, match=r"has predict_proba.*got Perceptron"):
        suspicious_labels(Perceptron(), X, y)
    with pytest.raises(ValueError, match="1 of 20 labels in y are missing"):
        suspicious_labels(BridgedGDAClassifier(head), X, [None, *y[1:]])
    with pytest.raises(ValueError, match="4 of 20 labels in y are missing_label='eel'"):
        suspicious_labels(BridgedGDAClassifier(head, missing_label="eel"), X, y)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        suspicious_labels(BridgedGDAClassifier(head), X, y[1:])


# label_next


@pytest.fixture(scope="module")
def pool():
    head = make_head()
    X, y = make_images(head, 4)
    rows, _ = make_images(head, 40, seed=2, noise=0.5)
    # Less sure of itself than by default.
    classifier = BridgedGDAClassifier(head, bridge_rank=1.0, temperature=10)
    return classifier.fit(X, y), X, rows


def test_margin_takes_the_images_between_two_classes(pool):
    classifier, _, rows = pool
    found = label_next(classifier, rows, 7, strategy="margin")
    two = np.sort(classifier.predict_proba(rows), axis=1)[:, -2:]
    gaps = two[:, 1] - two[:, 0]
    assert_array_equal(found.indices, np.argsort(gaps, kind="stable")[:7])
    assert_allclose(found.scores, 1 - gaps[found.indices])


@pytest.mark.parametrize("strategy", ["coverage", "mixed"])
def test_copies_are_not_chosen_twice(pool, strategy):
    classifier, _, rows = pool
    rng = np.random.default_rng(0)
    copies = np.repeat(rows, 10, axis=0) + 1e-3 * rng.normal(size=(2000, 24))
    found = label_next(classifier, copies, 20, strategy=strategy)
    assert len(set(found.indices // 10)) == 20
    by_margin = label_next(classifier, copies, 20, strategy="margin")
    assert len(set(by_margin.indices // 10)) < 10


def test_mixed_takes_more_uncertain_images_than_coverage(pool):
    classifier, _, rows = pool
    proba = np.sort(classifier.predict_proba(rows), axis=1)
    uncertainty = 1 - (proba[:, -1] - proba[:, -2])
    mean = {
        strategy: uncertainty[
            label_next(classifier, rows, 15, strategy=strategy).indices
        ].mean()
        for strategy in ("margin", "mixed", "coverage")
    }
    # Equal choices in another order have another rounding of the mean.
    assert mean["margin"] > mean["mixed"] - 1e-12
    assert mean["mixed"] > mean["coverage"]


def test_mixed_maximises_what_its_notes_say():
    head = make_head()
    X, y = make_images(head, 8)
    shots = (y != "eel") | (np.arange(len(y)) % 8 == 0)
    classifier = BridgedGDAClassifier(head, bridge_rank=1.0, temperature=10)
    classifier.fit(X[shots], y[shots])
    rows, _ = make_images(head, 40, seed=2, noise=0.5)
    found = label_next(classifier, rows, 12, labelled=X[shots])
    proba = classifier.predict_proba(rows)
    two = np.sort(proba, axis=1)[:, -2:]
    rows, known = (
        z / np.linalg.norm(z, axis=1, keepdims=True) for z in (rows, X[shots])
    )
    mean = rows.mean(axis=0)
    from_mean = 1 - rows @ mean / np.linalg.norm(mean)
    count = np.array([8, 8, 8, 8, 1.0])
    for row, score in zip(found.indices, found.scores, strict=True):
        v = (1 - (rows @ known.T).max(axis=1)) / from_mean
        b = (proba / (count + 1)).sum(axis=1)
        worth = (1 - two[:, 1] + two[:, 0]) * b * np.minimum(1, 2 * v)
        assert worth[row] == pytest.approx(score)
        assert score == pytest.approx(worth.max())
        count += proba[row]
        known = np.vstack([known, rows[row]])


def test_coverage_leaves_outliers_for_later(pool):
    _, _, rows = pool
    odd = np.concatenate([rows, 5 * np.eye(24)[:3] - 1])
    nearest = label_next(None, odd, 1, strategy="coverage").indices
    assert nearest[0] < len(rows)


@pytest.mark.parametrize("strategy", ["coverage", "mixed"])
def test_images_like_the_labelled_ones_are_passed_over(pool, strategy):
    classifier, _, rows = pool
    first = label_next(classifier, rows, 10, strategy=strategy).indices
    second = label_next(
        classifier, rows, 10, labelled=rows[first], strategy=strategy
    ).indices
    assert not set(first) & set(second)


def test_a_small_pool_is_chosen_whole(pool):
    classifier, X, rows = pool
    found = label_next(classifier, rows[:5], 20, labelled=X)
    assert_array_equal(np.sort(found.indices), np.arange(5))
    with pytest.raises(ValueError, match="labelled has 8 columns, but pool has 24"):
        label_next(classifier, rows, labelled=X[:, :8])
    with pytest.raises(ValueError, match="'strategy' parameter of label_next"):
        label_next(classifier, rows, strategy="random")


# near_duplicates


def test_near_duplicates_are_those_of_all_pairs(monkeypatch):
    monkeypatch.setattr("skbridge.review._nearest._BLOCK_ROWS", 7)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 3)).astype(np.float32)
    cosines = X @ X.T / np.linalg.norm(X, axis=1) / np.linalg.norm(X, axis=1)[:, None]
    earlier = np.where(np.tri(40, k=-1), cosines, -np.inf)
    found = near_duplicates(X, threshold=0.9)
    assert_array_equal(found.indices, np.flatnonzero(earlier.max(axis=1) >= 0.9))
    assert_array_equal(found.nearest, earlier.argmax(axis=1)[found.indices])
    assert_allclose(found.similarity, earlier.max(axis=1)[found.indices], rtol=1e-5)
    others = near_duplicates(X[:25], X[25:], threshold=0.9)
    between = cosines[:25, 25:]
    assert_array_equal(others.indices, np.flatnonzero(between.max(axis=1) >= 0.9))
    assert_array_equal(others.nearest, between.argmax(axis=1)[others.indices])


def test_rows_left_over_have_no_near_duplicates():
    X = np.random.default_rng(0).normal(size=(300, 3))
    left = np.delete(X, near_duplicates(X, threshold=0.95).indices, axis=0)
    assert 2 < len(left) < 300
    assert len(near_duplicates(left, threshold=0.95).indices) == 0


def test_equal_rows_are_found_at_threshold_1_and_zeros_are_not():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 512)).astype(np.float32)
    X = np.concatenate([X, 3 * X, np.zeros((2, 512), np.float32)])
    found = near_duplicates(X, threshold=1.0)
    assert_array_equal(found.indices, np.arange(50, 100))
    assert_array_equal(found.nearest, np.arange(50))
    assert found.similarity.max() <= 1


def test_near_duplicates_hold_no_matrix_of_all_pairs():
    X = np.random.default_rng(0).normal(size=(12_000, 8)).astype(np.float32)
    tracemalloc.start()
    near_duplicates(X)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 12_000**2 * 4 / 8


def test_near_duplicates_refuse_embeddings_of_two_models():
    with pytest.raises(ValueError, match="Y has 5 columns, but X has 4"):
        near_duplicates(np.eye(4), np.eye(5))
    with pytest.raises(ValueError, match="'threshold' parameter of near_duplicates"):
        near_duplicates(np.eye(4), threshold=1.5)


# shot_curve


@pytest.mark.parametrize(
    "make",
    [lambda head: BridgedGDAClassifier(head), lambda head: LogisticRegression(C=100)],
    ids=["gda", "logistic"],
)
def test_curve_is_that_of_fits_on_fewer_shots(make):
    head = make_head()
    X, y = make_images(head, 5, noise=0.6)
    curve = shot_curve(make(head), X, y, n_repeats=2, random_state=3)
    assert_array_equal(curve.n_shots, [1, 2, 4])
    again = shot_curve(make(head).fit(X, y), X, y, n_repeats=2, random_state=3)
    assert_array_equal(again.accuracy, curve.accuracy)
    # Any choice of four shots leaves one per class.
    scores = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        left_out = 5 * np.arange(5) + rng.integers(5, size=5)
        chosen = np.delete(np.arange(25), left_out)
        fitted = make(head).fit(X[chosen], y[chosen])
        scores.append(fitted.score(X[left_out], y[left_out]))
    many = shot_curve(make(head), X, y, n_repeats=30)
    assert many.accuracy[-1] == pytest.approx(np.mean(scores), abs=0.12)
    assert 0 < many.accuracy[-1] < 1
    assert many.std.shape == (3,)


def test_rejected_images_count_as_the_class_that_they_are_of():
    head = make_head()
    X, y = make_images(head, 5, noise=0.6)
    rejecting = BridgedGDAClassifier(head, reject=0.3, reject_label="unknown")
    curve = shot_curve(rejecting, X, y)
    expected = shot_curve(BridgedGDAClassifier(head), X, y)
    assert_array_equal(curve.accuracy, expected.accuracy)


def test_curve_forecasts_a_power_law():
    assert _continued(
        np.array([1, 2, 4]), 1 - 0.5 * np.array([1, 2, 4]) ** -0.3, 16
    ) == (pytest.approx(1 - 0.5 * 16**-0.3))
    # More shots are not expected to harm, and one size says nothing.
    assert _continued(np.array([1, 2]), np.array([0.9, 0.8]), 8) == pytest.approx(
        1 - np.sqrt(0.1 * 0.2)
    )
    assert np.isnan(_continued(np.array([1]), np.array([0.9]), 8))


def test_curve_gives_classes_equal_weight_and_small_ones_all_but_one():
    head = make_head()
    X, y = make_images(head, 8, noise=0.6)
    few = (y != "eel") | (np.arange(len(y)) % 8 < 2)
    curve = shot_curve(BridgedGDAClassifier(head), X[few], y[few])
    assert_array_equal(curve.n_shots, [1, 2, 4, 7])
    assert np.isfinite(curve.expected)


def test_curve_needs_two_shots_in_half_of_the_classes():
    head = make_head()
    X, y = make_images(head, 2)
    with pytest.raises(ValueError, match="fewer than half of the classes have two"):
        shot_curve(BridgedGDAClassifier(head), X[2::2], y[2::2])
