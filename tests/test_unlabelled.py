"""BridgedGDAClassifier: images without a label, and images of no known class."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skbridge import BridgedGDAClassifier, TextHead
from skbridge._classifiers import unlabelled

N_CLASSES, WIDTH = 6, 24


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def centres(seed=7):
    return np.random.default_rng(seed).normal(size=(N_CLASSES, WIDTH))


def images(rng, counts, noise=1.2):
    """Images about the centres, on an offset that all share, as CLIP's have."""
    y = np.repeat(np.arange(N_CLASSES), counts)
    offset = 3 * np.ones(WIDTH)
    return centres()[y] + offset + noise * rng.normal(size=(len(y), WIDTH)), y


def texts():
    """Texts far from all images, as CLIP's are, with a hint of each centre."""
    rng = np.random.default_rng(8)
    hints = centres() + rng.normal(size=(N_CLASSES, WIDTH))
    apart = 15 * np.resize([1, -1], WIDTH)
    return TextHead.from_features(range(N_CLASSES), apart + hints)


def accuracy_gain(rng, n_shots, counts, head=None, pool=None, noise=1.2):
    """Accuracy with and without a pool, on new images like it."""
    X, y = images(rng, n_shots, noise)
    U = images(rng, counts, noise)[0] if pool is None else pool
    new, labels = images(rng, 100, noise)
    both = np.concatenate([X, U])
    known = np.concatenate([y, np.full(len(U), -1)])
    plain = BridgedGDAClassifier(head).fit(X, y)
    fitted = BridgedGDAClassifier(head, missing_label=-1).fit(both, known)
    return fitted.score(new, labels) - plain.score(new, labels), fitted


@pytest.mark.parametrize("n_shots", [1, 2])
def test_unlabelled_images_raise_accuracy(rng, n_shots):
    gain, fitted = accuracy_gain(rng, n_shots, 60)
    assert fitted.uses_unlabelled_
    assert gain > 0.05
    assert_allclose(fitted.unlabelled_count_.sum(), 60 * N_CLASSES / 2)
    assert_array_equal(fitted.class_count_, n_shots)


@pytest.mark.parametrize("n_shots", [1, 2])
def test_unlabelled_images_raise_accuracy_beside_texts(n_shots):
    runs = [
        accuracy_gain(np.random.default_rng(seed), n_shots, 60, texts(), noise=1.6)
        for seed in range(6)
    ]
    gains = [gain for gain, _ in runs]
    assert np.mean(gains) > 0.02
    # Where few held-out shots gain nothing, nothing is used.
    assert all(fitted.uses_unlabelled_ or gain == 0 for gain, fitted in runs)


@pytest.mark.parametrize("n_shots", [1, 2, 4])
def test_a_skewed_pool_does_no_harm(rng, n_shots):
    gain, _ = accuracy_gain(rng, n_shots, [200, 20, 100, 50, 20, 20])
    assert gain > -0.01


def test_a_fifth_of_unknown_classes_does_no_harm(rng):
    known, _ = images(rng, 60)
    other = 3 * np.ones(WIDTH) + 1.5 * rng.normal(size=(len(known) // 4, WIDTH))
    gain, _ = accuracy_gain(rng, 2, 0, pool=np.concatenate([known, other]))
    assert gain > -0.01


def test_a_pool_of_one_class_does_little_harm(rng):
    pool, _ = images(rng, [200, 0, 0, 0, 0, 0])
    gain, _ = accuracy_gain(rng, 4, 0, pool=pool)
    assert gain > -0.02


def test_copies_of_the_shots_change_no_label(rng):
    X, y = images(rng, 4)
    plain = BridgedGDAClassifier(None).fit(X, y)
    again = BridgedGDAClassifier(None).fit(
        np.concatenate([X, X]), [*y, *[None] * len(y)]
    )
    new, _ = images(rng, 50)
    assert np.mean(plain.predict(new) == again.predict(new)) > 0.95


def test_images_that_mislead_held_out_shots_are_not_used(rng):
    X, y = images(rng, 8, noise=0.8)
    # Between the classes, where no shot is.
    pairs = centres()[rng.integers(N_CLASSES, size=(2000, 4))].mean(axis=1)
    pool = pairs + 3 * np.ones(WIDTH) + 0.1 * rng.normal(size=(2000, WIDTH))
    labels = np.concatenate([y.astype(float), np.full(len(pool), np.nan)])
    fitted = BridgedGDAClassifier(None).fit(np.concatenate([X, pool]), labels)
    assert fitted.uses_unlabelled_ is False
    assert not fitted.unlabelled_count_.any()
    plain = BridgedGDAClassifier(None).fit(X, y)
    assert_allclose(fitted.predict_proba(pool), plain.predict_proba(pool))


def test_one_round_divides_images_by_their_sharpened_probabilities(rng, monkeypatch):
    monkeypatch.setattr(unlabelled, "_ROUNDS", 1)
    X, y = images(rng, 1)
    U, _ = images(rng, 5)
    weight = np.concatenate([np.ones(len(y)), rng.uniform(0, 2, size=len(U))])
    fitted = BridgedGDAClassifier(None, temperature=9.0)
    fitted.fit(np.concatenate([X, U]), [*y, *[None] * len(U)], sample_weight=weight)
    plain = BridgedGDAClassifier(None, temperature=4 * 100 / 8).fit(X, y)
    p = plain.predict_proba(U) * weight[len(y) :, None] / 2
    assert_allclose(fitted.unlabelled_count_, p.sum(axis=0))
    x, u = (Z / np.linalg.norm(Z, axis=1, keepdims=True) for Z in (X, U))
    means = (x + p.T @ u) / (1 + p.sum(axis=0))[:, None]
    assert_allclose(fitted.centre_ + fitted.means_, means)


@pytest.mark.parametrize(
    "y",
    [
        ["a", "b", None, "a", "b", None],
        np.array(["a", "b", np.nan, "a", "b", None], dtype=object),
        pd.Series(["a", "b", pd.NA, "a", "b", pd.NA], dtype="string"),
        pd.Series(["a", "b", None, "a", "b", None], dtype="category"),
        [0, 1, None, 0, 1, None],
        np.array([0, 1, None, 0, 1, None], dtype=object),
        np.array([0, 1, np.nan, 0, 1, np.nan]),
        pd.Series([0, 1, pd.NA, 0, 1, pd.NA], dtype="Int64"),
    ],
    ids=str,
)
def test_every_kind_of_missing_label_is_taken(rng, y):
    X = rng.normal(size=(6, 4))
    fitted = BridgedGDAClassifier(None).fit(X, y)
    kinds = "UO" if isinstance(next(iter(y)), str) else "iuf"
    assert fitted.classes_.dtype.kind in kinds
    assert len(fitted.classes_) == 2
    assert fitted.class_count_.tolist() == [2, 2]


def test_only_the_named_integer_is_missing(rng):
    X, y = rng.normal(size=(4, 3)), [-1, 1, -1, 1]
    assert BridgedGDAClassifier(None).fit(X, y).classes_.tolist() == [-1, 1]
    with pytest.raises(ValueError, match="one class only: 1"):
        BridgedGDAClassifier(None, missing_label=-1).fit(X, y)
    named = BridgedGDAClassifier(None, missing_label="?").fit(X, [*"ab?b"])
    assert named.classes_.tolist() == ["a", "b"]


def test_tables_stay_tables(rng):
    X = pd.DataFrame(rng.normal(size=(4, 3)), columns=[*"xyz"])
    fitted = BridgedGDAClassifier(None).fit(X, ["a", None, "b", "a"])
    assert fitted.feature_names_in_.tolist() == [*"xyz"]


def test_bad_input_is_named(rng):
    X = rng.normal(size=(4, 3))
    classifier = BridgedGDAClassifier(None)
    with pytest.raises(ValueError, match=r"All 4 labels in y are missing.*label at"):
        classifier.fit(X, [None] * 4)
    bad = X.copy()
    bad[3] = np.nan
    with pytest.raises(ValueError, match=r"1 of 4 rows of X hold NaN.*: 3"):
        classifier.fit(bad, ["a", "b", "a", None])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        classifier.fit(X, ["a", "b", None])
    with pytest.raises(ValueError, match="one class only"):
        classifier.fit(X, ["a", "a", None, None])


def test_partial_fit_takes_unlabelled_images_and_stores_none(rng):
    X, y = images(rng, 1)
    U, _ = images(rng, 60)
    new, labels = images(rng, 100)
    grown = BridgedGDAClassifier(None, missing_label=-1).partial_fit(X, y)
    before = grown.score(new, labels)

    def size():
        return sum(getattr(value, "nbytes", 0) for value in vars(grown).values())

    start = size()
    grown.partial_fit(U[::2], np.full(len(U) // 2, -1))
    grown.partial_fit(U[1::2], np.full(len(U) // 2, -1))
    assert_allclose(grown.unlabelled_count_.sum(), len(U) / 2)
    assert grown.score(new, labels) > before + 0.05
    assert size() == start
    more, more_y = images(rng, 1)
    grown.partial_fit(more, more_y)
    assert_array_equal(grown.class_count_, 2)


# Unknown images


def test_rejects_unknown_images_and_the_given_share_of_known_ones(rng):
    X, y = images(rng, 30, noise=0.8)
    new, _ = images(rng, 300, noise=0.8)
    unknown = 3 * np.ones(WIDTH) + 1.4 * rng.normal(size=(500, WIDTH))
    for share in (0.02, 0.1, 0.3):
        fitted = BridgedGDAClassifier(None, reject=share).fit(X, y)
        rejected = fitted.predict(new) == -1
        assert abs(rejected.mean() - share) < 0.07
        assert_array_equal(rejected, fitted.score_samples(new) < fitted.threshold_)
        plain = BridgedGDAClassifier(None).fit(X, y)
        labels = fitted.predict(new), plain.predict(new)
        assert_array_equal(labels[0][~rejected], labels[1][~rejected])
        assert_allclose(fitted.predict_proba(new), plain.predict_proba(new))
    assert np.mean(fitted.predict(unknown) == -1) > 0.8


def test_score_samples_ranks_unknown_images_below_known_ones(rng):
    X, y = images(rng, 4)
    new, _ = images(rng, 100)
    unknown = 3 * np.ones(WIDTH) + 1.5 * rng.normal(size=(300, WIDTH))
    fitted = BridgedGDAClassifier(None).fit(X, y)
    scores = fitted.decision_function(new)
    assert_allclose(fitted.score_samples(new), fitted.temperature_ * scores.max(axis=1))
    known, other = fitted.score_samples(new), fitted.score_samples(unknown)
    assert np.mean(known[:, None] > other) > 0.7


def test_unknown_images_get_a_label_of_their_own(rng):
    X, y = images(rng, 4)
    new, _ = images(rng, 30)
    names = np.array([*"abcdef"])[y]
    labels = BridgedGDAClassifier(None, reject=0.5).fit(X, names).predict(new)
    assert set(labels) == {*"abcdef", "unknown"}
    other = BridgedGDAClassifier(None, reject=0.5, reject_label="something else")
    assert "something else" in other.fit(X, names).predict(new)
    numbers = BridgedGDAClassifier(None, reject=0.5, reject_label=99).fit(X, y)
    assert 99 in numbers.predict(new)
    assert numbers.predict(new).dtype.kind == "i"


@pytest.mark.parametrize("label", ["a", 3])
def test_the_label_of_unknown_images_is_no_class_and_of_their_kind(rng, label):
    X, y = images(rng, 4)
    names = np.array([*"abcdef"])[y]
    classifier = BridgedGDAClassifier(None, reject=0.1, reject_label=label)
    with pytest.raises(ValueError, match="reject_label must be a string"):
        classifier.fit(X, names)


def test_rejection_needs_shots_to_leave_out(rng):
    X, y = images(rng, 1)
    with pytest.raises(ValueError, match="no class has two shots"):
        BridgedGDAClassifier(None, reject=0.1).fit(X, y)
    for share in (0, 1, -0.5):
        with pytest.raises(ValueError, match="'reject' parameter"):
            BridgedGDAClassifier(None, reject=share).fit(X, y)


def test_another_blend_rejects_nothing(rng):
    X, y = images(rng, 4)
    fitted = BridgedGDAClassifier(None, reject=0.5).fit(X, y)
    other = fitted.reblend(lambda_3=0.5)
    assert other.threshold_ is None
    assert -1 not in other.predict(X)
    assert fitted.threshold_ is not None


# Large pools


def test_a_pool_on_the_disk_is_read_block_by_block(rng, tmp_path, monkeypatch):
    X, y = images(rng, 2000)
    X = np.hstack([X, rng.normal(size=(len(X), 200), scale=0.1)]).astype(np.float32)
    np.save(tmp_path / "X.npy", X)
    on_disk = np.load(tmp_path / "X.npy", mmap_mode="r")
    known = np.where(np.arange(len(y)) % 500 < 3, y.astype(object), None)
    whole = BridgedGDAClassifier(None).fit(X, known)
    monkeypatch.setattr(unlabelled, "BLOCK_ROWS", 100)
    tracemalloc.start()
    fitted = BridgedGDAClassifier(None).fit(on_disk, known)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert fitted.uses_unlabelled_
    assert_allclose(fitted.decision_function(X), whole.decision_function(X), atol=1e-3)
    assert peak < X.nbytes


def test_held_out_shots_may_be_more_than_one_block(rng):
    # Held-out shots are scored in blocks; a half of these is more than one.
    n_shots = 2 * unlabelled.BLOCK_ROWS // N_CLASSES + 10
    X, y = images(rng, n_shots)
    U, _ = images(rng, 5)
    known = np.concatenate([y, np.full(len(U), -1)])
    fitted = BridgedGDAClassifier(None, missing_label=-1)
    fitted.fit(np.concatenate([X, U]), known)
    assert fitted.uses_unlabelled_ is not None


@pytest.mark.parametrize("params", [{}, {"reject": 0.1}])
def test_a_given_temperature_changes_no_label(rng, params):
    X, y = images(rng, 3, noise=2.0)
    U, _ = images(rng, 40, noise=2.0)
    both = np.concatenate([X, U])
    known = np.concatenate([y, np.full(len(U), -1)])
    automatic = BridgedGDAClassifier(None, missing_label=-1).fit(both, known)
    assert automatic.uses_unlabelled_
    given = BridgedGDAClassifier(None, missing_label=-1, temperature=5.0, **params)
    given.fit(both, known)
    assert given.temperature_ == 5.0
    assert_array_equal(given.decision_function(both), automatic.decision_function(both))


def test_a_large_pool_is_judged_by_images_of_all_its_classes():
    n = 200 * N_CLASSES
    # Every N_CLASSES-th image is of the same class.
    y = np.arange(n) % N_CLASSES
    pool = unlabelled.Pool(np.zeros((n, 2)), np.arange(n), np.full(n, 0.5))
    sample = pool.sample(100)
    assert len(sample) == 100
    assert set(y[sample.rows]) == set(range(N_CLASSES))
    assert_allclose(sample.weight.sum(), pool.weight.sum())
    assert pool.sample(n) is pool
