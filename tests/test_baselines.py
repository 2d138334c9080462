import subprocess
import sys
import textwrap

import joblib
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.covariance import empirical_covariance
from sklearn.exceptions import NotFittedError
from sklearn.kernel_ridge import KernelRidge
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks

from skbridge import TextHead
from skbridge.baselines import (
    APEClassifier,
    GDAClassifier,
    LPPlusPlusClassifier,
    ProKeRClassifier,
    TipAdapterClassifier,
    TransCLIPClassifier,
    ZeroShotClassifier,
)

NAMES = ["cat", "dog", "eel", "fox"]
SCALE = 50.0

TIP_F = {"mode": "trained", "max_iter": 4, "learning_rate": 0.01}
LEARNERS = {
    "tip": TipAdapterClassifier(),
    "tip-f": TipAdapterClassifier(**TIP_F),
    "ape": APEClassifier(),
    "gda": GDAClassifier(),
    "proker": ProKeRClassifier(),
    "lp++": LPPlusPlusClassifier(max_iter=30),
    "transclip": TransCLIPClassifier(),
}
every_learner = pytest.mark.parametrize("name", list(LEARNERS))
every_classifier = pytest.mark.parametrize("name", [*LEARNERS, "zero-shot"])
every_blend = pytest.mark.parametrize("name", ["tip", "tip-f", "ape", "gda", "proker"])


def make(name, **params):
    template = {**LEARNERS, "zero-shot": ZeroShotClassifier()}[name]
    return clone(template).set_params(**params)


def units(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def softmax(scores):
    e = np.exp(scores - scores.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def make_head(rng, n_classes=4, width=9, dtype=np.float64):
    names = range(n_classes)
    T = (rng.normal(size=(n_classes, width)) + 0.3).astype(dtype)
    return TextHead.from_features(names, T, logit_scale=SCALE)


def make_shots(rng, head, counts=(3, 1, 4, 2), noise=0.3):
    """Shots in no order of classes, of different lengths."""
    y = rng.permutation(np.repeat(np.arange(len(counts)), counts))
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


@pytest.fixture
def queries(rng, head):
    return rng.normal(size=(7, head.n_features)) + 0.3


@parametrize_with_checks(
    [
        TipAdapterClassifier(texts=None),
        TipAdapterClassifier(texts=None, **TIP_F),
        APEClassifier(texts=None),
        GDAClassifier(texts=None),
        ProKeRClassifier(texts=None),
        LPPlusPlusClassifier(texts=None),
        TransCLIPClassifier(texts=None),
    ]
)
def test_rival_passes_the_common_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize(
    "check",
    [
        "check_do_not_raise_errors_in_init_or_set_params",
        "check_estimator_cloneable",
        "check_estimator_repr",
        "check_estimator_tags_renamed",
        "check_get_params_invariance",
        "check_mixin_order",
        "check_no_attributes_set_in_init",
        "check_param_validation",
        "check_parameters_default_constructible",
        "check_set_params",
        "check_valid_tag_types",
    ],
)
def test_zero_shot_passes_the_checks_that_need_no_data(check):
    getattr(estimator_checks, check)("ZeroShotClassifier", ZeroShotClassifier())


# Each against its equation, written plainly ------------------------------------


def test_zero_shot_is_the_nearest_text(head, shots, queries):
    z1 = units(queries) @ head.text_features.T
    classifier = ZeroShotClassifier(texts=head).fit(*shots)
    assert_allclose(classifier.decision_function(queries), z1)
    assert_allclose(classifier.predict_proba(queries), softmax(SCALE * z1))
    assert_array_equal(classifier.predict(queries), z1.argmax(axis=1))


@pytest.mark.parametrize("texts", [True, False])
def test_tip_adapter_agrees_with_its_equation(rng, head, shots, queries, texts):
    X, y = shots
    weight = rng.uniform(0.5, 2, size=len(y))
    classifier = TipAdapterClassifier(
        texts=head if texts else None, alpha=1.3, beta=4.0
    ).fit(X, y, sample_weight=weight)
    expected = np.zeros((len(queries), 4))
    for i, q in enumerate(units(queries)):
        if texts:
            expected[i] += SCALE * (head.text_features @ q)
        for f, k, w in zip(units(X), y, weight, strict=True):
            expected[i, k] += 1.3 * w * np.exp(-4.0 * (1 - q @ f))
    assert_allclose(classifier.decision_function(queries), expected)
    assert_allclose(classifier.predict_proba(queries), softmax(expected))
    assert classifier.cache_keys_.shape == X.shape
    assert_array_equal(np.sort(classifier.cache_labels_), classifier.cache_labels_)


def adamw(keys, gradient, n_steps, lr):
    """AdamW as in its paper, the rate falling to zero along a cosine."""
    m, v = np.zeros_like(keys), np.zeros_like(keys)
    for t in range(n_steps):
        rate = lr * (1 + np.cos(np.pi * t / n_steps)) / 2
        g = gradient(keys)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        m_hat, v_hat = m / (1 - 0.9 ** (t + 1)), v / (1 - 0.999 ** (t + 1))
        keys = keys * (1 - rate * 0.01) - rate * m_hat / (np.sqrt(v_hat) + 1e-4)
    return keys


@pytest.mark.parametrize("texts", [True, False])
def test_tip_adapter_f_descends_the_cross_entropy(head, shots, texts):
    X, y = shots
    order = np.argsort(y, kind="stable")
    F, Y = units(X)[order], np.eye(4)[y[order]]
    a, b = 0.8, 3.0
    base = SCALE * F @ head.text_features.T if texts else 0

    def gradient(keys):
        near = np.exp(-b * (1 - F @ keys.T))
        slope = (softmax(base + a * near @ Y) - Y) / len(Y)
        return (near * (a * b * slope @ Y.T)).T @ F

    expected = adamw(F, gradient, n_steps=6, lr=0.01)
    classifier = TipAdapterClassifier(
        texts=head if texts else None,
        mode="trained",
        max_iter=6,
        learning_rate=0.01,
        train_alpha=a,
        train_beta=b,
    ).fit(X, y)
    assert_allclose(classifier.cache_keys_, expected, rtol=1e-9)
    assert np.abs(expected - F).max() > 0.01
    assert classifier.n_iter_ == len(classifier.loss_curve_) == 6
    assert classifier.loss_curve_[-1] < classifier.loss_curve_[0]


def test_tip_adapter_f_learns_in_batches(rng, head):
    X, y = make_shots(rng, head, counts=(4, 4, 4, 4))
    classifier = make("tip-f", texts=head, batch_size=5).fit(X, y)
    assert classifier.n_iter_ == 4 * 4
    again = clone(classifier).fit(X, y)
    assert_array_equal(again.cache_keys_, classifier.cache_keys_)
    other = clone(classifier).set_params(random_state=1).fit(X, y)
    assert np.abs(other.cache_keys_ - classifier.cache_keys_).max() > 0


@pytest.mark.parametrize("texts", [True, False])
def test_ape_agrees_with_its_equations(rng, head, shots, queries, texts):
    X, y = shots
    T, F = head.text_features, units(X)
    weight = rng.integers(1, 4, size=len(y))
    classifier = APEClassifier(
        texts=head if texts else None,
        lmbda=0.6,
        n_channels=5,
        alpha=1.3,
        beta=2.0,
        gamma=0.4,
    ).fit(X, y, sample_weight=weight)
    members = [
        np.concatenate([T[[k]] if texts else T[:0], np.repeat(F, weight, 0)[labels]])
        for k, labels in ((k, np.repeat(y, weight) == k) for k in range(4))
    ]
    products = [
        a * b
        for i in range(4)
        for j in range(4)
        if i != j
        for a in members[i]
        for b in members[j]
    ]
    stand_ins = T if texts else units(np.stack([m.mean(axis=0) for m in members]))
    criterion = 0.6 * np.mean(products, 0) - 0.4 * np.var(stand_ins, 0, ddof=1)
    kept = np.sort(np.argsort(criterion)[:5])
    assert_array_equal(classifier.channels_, kept)
    refined, T_kept = units(X[:, kept]), units(T[:, kept])
    expected = np.zeros((len(queries), 4))
    for i, q in enumerate(queries):
        if texts:
            expected[i] += SCALE * (T @ q) / np.linalg.norm(q)
        q_kept = q[kept] / np.linalg.norm(q[kept])
        for f, k, w in zip(refined, y, weight, strict=True):
            p = softmax(f[None] @ T_kept.T)[0, k]
            kl = np.log2((1 + 1e-6) / (p + 1e-6)) if texts else 0
            vote = np.exp(-2.0 * (1 - q_kept @ f)) * np.exp(0.4 * kl)
            expected[i, k] += 1.3 * w * vote
    assert_allclose(classifier.decision_function(queries), expected)


@pytest.mark.parametrize(
    ("n_channels", "kept"), [(1, 1), (0.01, 1), (0.5, 4), (1.0, 9), (9, 9)]
)
def test_ape_keeps_a_number_or_a_share_of_the_channels(head, shots, n_channels, kept):
    classifier = APEClassifier(texts=head, n_channels=n_channels).fit(*shots)
    assert classifier.channels_.shape == (kept,)


@pytest.mark.parametrize("texts", [True, False])
def test_gda_agrees_with_its_equations(head, shots, queries, texts):
    X, y = shots
    F, q, d = units(X), units(queries), 9
    mu = np.stack([F[y == k].mean(axis=0) for k in range(4)])
    S = empirical_covariance(F - mu[y], assume_centered=True) * len(y) / (len(y) - 1)
    P = d * np.linalg.inv((len(y) - 1) * S + np.trace(S) * np.eye(d))
    scores = q @ P @ mu.T - np.diag(mu @ P @ mu.T) / 2
    expected = 0.7 * scores
    if texts:
        expected += SCALE * q @ head.text_features.T
    classifier = GDAClassifier(texts=head if texts else None, alpha=0.7).fit(X, y)
    assert_allclose(classifier.means_, mu)
    # What all classes share is left out of the scores.
    difference = classifier.decision_function(queries) - expected
    assert_allclose(difference, difference[:, :1] * np.ones(4), atol=1e-10)
    assert_allclose(classifier.predict_proba(queries), softmax(expected), rtol=1e-9)


@pytest.mark.parametrize("copies", [1, 3])
def test_gda_takes_the_scatter_of_all_where_classes_have_none(head, queries, copies):
    X = np.repeat(head.text_features + 0.1, copies, axis=0)
    classifier = GDAClassifier(texts=None, alpha=1).fit(X, np.repeat(NAMES, copies))
    F, n, d = units(X), len(X), 9
    S = np.cov(F.T)
    P = d * np.linalg.inv((n - 1) * S + np.trace(S) * np.eye(d))
    mu = F[::copies]
    expected = units(queries) @ P @ mu.T - np.diag(mu @ P @ mu.T) / 2
    assert_allclose(classifier.predict_proba(queries), softmax(expected), rtol=1e-8)


def test_gda_of_equal_shots_holds_every_class_alike():
    classifier = GDAClassifier(texts=None).fit(np.ones((4, 3)), [0, 0, 1, 1])
    assert_allclose(classifier.predict_proba([[1.0, 2.0, 3.0]]), [[0.5, 0.5]])


@pytest.mark.parametrize("texts", [True, False])
def test_proker_minimises_its_objective(rng, head, shots, queries, texts):
    X, y = shots
    F, q, Y, T = units(X), units(queries), np.eye(4)[y], head.text_features
    weight = rng.uniform(0.5, 2, size=len(y))
    K = np.exp(-2.0 * (1 - F @ F.T))
    z1 = F @ T.T if texts else np.zeros_like(Y)
    gamma = np.linalg.inv(K + 0.2 * np.diag(1 / weight)) @ (Y - z1)

    def objective(gamma):
        fitted = z1 + K @ gamma
        return weight @ ((fitted - Y) ** 2).sum(1) + 0.2 * np.trace(gamma.T @ K @ gamma)

    nudges = 1e-3 * rng.normal(size=(20, *gamma.shape))
    assert all(objective(gamma + nudge) > objective(gamma) for nudge in nudges)
    expected = 0.6 * np.exp(-2.0 * (1 - q @ F.T)) @ gamma
    if texts:
        expected += q @ T.T
    classifier = ProKeRClassifier(
        texts=head if texts else None, beta=2, lmbda=0.2, alpha=0.6
    ).fit(X, y, sample_weight=weight)
    scale = SCALE if texts else 100
    assert_allclose(classifier.decision_function(queries), expected, rtol=1e-9)
    assert_allclose(
        classifier.predict_proba(queries), softmax(scale * expected), rtol=1e-7
    )


def test_proker_without_texts_is_kernel_ridge(shots, queries):
    X, y = shots
    # exp(-beta (1 - cos)) of unit rows is exp(-beta / 2 |x - x'|^2).
    ridge = make_pipeline(
        FunctionTransformer(units), KernelRidge(alpha=0.3, kernel="rbf", gamma=1.0)
    )
    expected = ridge.fit(X, np.eye(4)[y]).predict(queries)
    classifier = ProKeRClassifier(texts=None, beta=2, lmbda=0.3, alpha=1).fit(X, y)
    assert_allclose(classifier.decision_function(queries), expected, rtol=1e-9)


@pytest.mark.parametrize("texts", [True, False])
@pytest.mark.parametrize("counts", [(3, 1, 4, 2), (1, 1, 1, 1)])
def test_lp_plus_plus_agrees_with_its_updates(rng, head, counts, texts):
    X, y = make_shots(rng, head, counts)
    F, Y, T, n = units(X), np.eye(4)[y], head.text_features, len(y)
    w = Y.T @ F
    velocity = np.zeros_like(w)
    own = [np.mean([F[i] @ T[k] for i in np.flatnonzero(y == k)]) for k in range(4)]
    alpha = np.full(4, 250 * np.mean(own)) if texts else np.zeros(4)
    step = 4 * n / np.linalg.eigvalsh(F.T @ F).max()
    text_step = n / (4 * max(sum((f @ t) ** 2 for f in F) for t in T))
    losses = []
    for t in range(1, 26):
        p = softmax(F @ (w + alpha[:, None] * T).T)
        losses.append(-np.mean(np.log(p[np.arange(n), y])))
        velocity = 0.9 * velocity + (p - Y).T @ F / n
        w = w - step * velocity
        if t % 10 == 0 and texts:
            alpha = alpha - text_step * ((p - Y) * (F @ T.T)).sum(axis=0) / n
    classifier = LPPlusPlusClassifier(texts=head if texts else None, max_iter=25).fit(
        X, y
    )
    assert_allclose(classifier.prototypes_, w, rtol=1e-8, atol=1e-10)
    assert_allclose(classifier.text_weight_, alpha)
    assert_allclose(classifier.loss_curve_, losses)
    assert_allclose(
        classifier.decision_function(X), F @ (w + alpha[:, None] * T).T, rtol=1e-8
    )


def test_lp_plus_plus_lowers_its_loss_with_more_steps(head, shots):
    losses = LPPlusPlusClassifier(texts=head).fit(*shots).loss_curve_
    assert losses.shape == (300,)
    assert losses[-1] < losses[100] < losses[0]


def test_lp_plus_plus_stays_where_its_loss_is_flat():
    head = TextHead.from_features(["cat", "dog"], np.eye(4)[:2])
    X = np.eye(4)[2:]
    classifier = LPPlusPlusClassifier(texts=head).fit(X, ["cat", "dog"])
    assert_array_equal(classifier.text_weight_, [0, 0])
    assert_array_equal(classifier.predict(X), ["cat", "dog"])


@every_learner
def test_shots_of_zeros_tell_nothing_without_texts(name):
    classifier = make(name, texts=None)
    with pytest.warns(UserWarning, match="4 of 4 rows of X in fit are all zero"):
        classifier.fit(np.zeros((4, 3)), [0, 0, 1, 1])
    assert_allclose(classifier.predict_proba(np.ones((1, 3))), [[0.5, 0.5]])


# What all have in common -------------------------------------------------------


@every_blend
@pytest.mark.parametrize(("dtype", "rtol"), [(np.float32, 1e-4), (np.float64, 1e-7)])
def test_no_weight_on_the_shots_is_clips_zero_shot(rng, name, dtype, rtol):
    head = make_head(rng, dtype=dtype)
    X, y = make_shots(rng, head)
    X = X.astype(dtype)
    classifier = make(name, texts=head, alpha=0).fit(X, y)
    zero_shot = ZeroShotClassifier(texts=head).fit(X, y)
    proba = classifier.predict_proba(X)
    assert proba.dtype == dtype
    assert_allclose(proba, zero_shot.predict_proba(X), rtol=rtol, atol=1e-7)


def test_proker_with_a_large_lambda_is_clips_zero_shot(head, shots):
    X, y = shots
    classifier = ProKeRClassifier(texts=head, lmbda=1e12, alpha=1).fit(X, y)
    zero_shot = ZeroShotClassifier(texts=head).fit(X, y)
    assert_allclose(classifier.predict_proba(X), zero_shot.predict_proba(X))


@every_classifier
@pytest.mark.parametrize("value", [np.float64(0.5), 0.5])
def test_float32_stays_float32_and_agrees_with_float64(rng, name, value):
    head = make_head(rng, dtype=np.float32)
    X, y = make_shots(rng, head)
    params = {"alpha": value} if "alpha" in make(name).get_params() else {}
    single = make(name, texts=head, **params).fit(X.astype(np.float32), y)
    double = make(name, texts=head, **params).fit(X, y)
    proba = single.predict_proba(X.astype(np.float32))
    assert proba.dtype == np.float32
    assert_allclose(proba, double.predict_proba(X), rtol=2e-3, atol=1e-6)


@every_learner
@pytest.mark.parametrize("texts", [True, False])
def test_weights_are_repetitions_and_zero_leaves_a_class_out(head, shots, name, texts):
    X, y = shots
    weight = np.where(y == 1, 0, np.arange(len(y)) % 3 + 1)
    classifier = make(name, texts=head if texts else None)
    weighted = clone(classifier).fit(X, y, sample_weight=weight)
    rows = np.repeat(np.arange(len(y)), weight)
    repeated = clone(classifier).fit(X[rows], y[rows])
    assert_array_equal(weighted.classes_, [0, 2, 3])
    assert_allclose(
        weighted.decision_function(X), repeated.decision_function(X), rtol=1e-7
    )


@every_learner
def test_order_of_the_shots_does_not_matter(rng, head, shots, name):
    X, y = shots
    expected = make(name, texts=head).fit(X, y).decision_function(X)
    order = rng.permutation(len(y))
    shuffled = make(name, texts=head).fit(X[order], y[order])
    assert_allclose(shuffled.decision_function(X), expected, rtol=1e-8)


@every_classifier
def test_string_labels_find_their_texts_in_any_order(head, shots, name):
    X, y = shots
    by_index = make(name, texts=head).fit(X, y)
    by_name = make(name, texts=head.relabelled(NAMES)[["fox", "eel", "dog", "cat"]])
    by_name.fit(X, np.array(NAMES)[y])
    assert_allclose(by_name.decision_function(X), by_index.decision_function(X))
    assert_array_equal(by_name.predict(X), np.array(NAMES)[by_index.predict(X)])


@every_classifier
def test_texts_come_from_the_named_model(tiny_clip_dir, rng, name):
    model = f"local-dir:{tiny_clip_dir}"
    X = rng.normal(size=(4, 24)).astype(np.float32)
    head = TextHead.from_clip(["cat", "dog"], model=model)
    by_model = make(name, texts=model).fit(X, ["cat", "dog", "cat", "dog"])
    by_head = make(name, texts=head).fit(X, ["cat", "dog", "cat", "dog"])
    assert_allclose(by_model.predict_proba(X), by_head.predict_proba(X))


@every_learner
@pytest.mark.parametrize("texts", [True, False])
def test_one_shot_a_class_is_enough(rng, head, name, texts):
    X, y = make_shots(rng, head, counts=(1, 1, 1, 1), noise=0.05)
    classifier = make(name, texts=head if texts else None).fit(X, y)
    assert classifier.score(X, y) == 1


@every_classifier
def test_two_classes_give_one_dimensional_scores(head, shots, name):
    X, y = shots
    pair = y < 2
    classifier = make(name, texts=head[[0, 1]]).fit(X[pair], y[pair])
    scores = classifier.decision_function(X)
    assert scores.shape == (len(X),)
    assert_array_equal(classifier.predict(X), (scores > 0).astype(int))
    log_odds = np.diff(classifier.predict_log_proba(X), axis=1)[:, 0]
    assert_allclose(log_odds, classifier.temperature_ * scores, rtol=1e-6)


@every_classifier
def test_temperature_scales_the_softmax(head, shots, name):
    X, y = shots
    classifier = make(name, texts=head, temperature=0.7).fit(X, y)
    expected = softmax(0.7 * classifier.decision_function(X))
    assert_allclose(classifier.predict_proba(X), expected)


@every_classifier
def test_blocks_of_rows_change_nothing(head, shots, queries, monkeypatch, name):
    classifier = make(name, texts=head).fit(*shots)
    whole = classifier.predict_proba(queries)
    monkeypatch.setattr("skbridge._classifiers.base._BLOCK_FLOATS", 1)
    assert_allclose(classifier.predict_proba(queries), whole, rtol=1e-12)


@every_classifier
def test_fit_twice_equals_fit_once(head, shots, name):
    X, y = shots
    once = make(name, texts=head).fit(X, y)
    twice = make(name, texts=head).fit(X[::2], y[::2]).fit(X, y)
    assert_array_equal(twice.decision_function(X), once.decision_function(X))


@every_classifier
def test_grid_search_over_the_methods_themselves(rng, head, name):
    X, y = make_shots(rng, head, counts=(4, 4, 4, 4))
    classifier = make(name, texts=head)
    grid = {"temperature": [1.0, 2.0]}
    for key, values in classifier.search_space(4, head).items():
        grid[key] = values[:2] if isinstance(values, list) else values.ppf([0.3, 0.7])
    search = GridSearchCV(classifier, grid, cv=2).fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_estimator_.texts is head
    assert cross_val_score(search.best_estimator_, X, y, cv=2).shape == (2,)


def test_the_method_can_be_searched_as_a_step(rng, head):
    X, y = make_shots(rng, head, counts=(4, 4, 4, 4))
    pipeline = make_pipeline(ZeroShotClassifier())
    steps = [make(name, texts=head) for name in ("gda", "proker", "zero-shot")]
    search = GridSearchCV(pipeline, {"zeroshotclassifier": steps}, cv=2).fit(X, y)
    assert len(search.cv_results_["params"]) == 3


@pytest.mark.parametrize(
    ("name", "texts"),
    [("zero-shot", True), *((name, texts) for name in LEARNERS for texts in (0, 1))],
)
def test_default_search_space_holds_parameters_that_matter(head, name, texts):
    classifier = make(name, texts=head if texts else None)
    space = classifier.search_space(4, head if texts else None)
    assert set(space) <= set(classifier.get_params())
    assert ("alpha" in space) == bool(texts and "alpha" in classifier.get_params())
    assert set(classifier.blend_parameters) <= set(classifier.get_params())


def test_a_head_without_classes_is_searched_as_without_texts(rng, shots):
    bank = TextHead.from_features(text_bank=rng.normal(size=(20, 9)))
    classifier = GDAClassifier(texts=bank)
    assert classifier.search_space(4, bank) == {}
    without = GDAClassifier(texts=None).fit(*shots).decision_function(shots[0])
    assert_allclose(classifier.fit(*shots).decision_function(shots[0]), without)


@every_blend
def test_blend_settings_need_no_other_fit(head, shots, queries, name):
    first = make(name, texts=head).fit(*shots)
    space = {"alpha": [0.0, 0.5, 2.0], "beta": [1.0, 4.0, 1.0], "gamma": [0, 0.5, 1]}
    settings = [
        {key: space[key][i] for key in first.blend_parameters} for i in range(3)
    ]
    components = first.component_logits(queries)
    variants = [first.reblend(**setting) for setting in settings]
    stack = first.stack_blends([variant.blend_ for variant in variants])
    stack = stack.scores(components, np.ones(3))
    for scores, variant, setting in zip(stack, variants, settings, strict=True):
        refitted = make(name, texts=head, **setting).fit(*shots)
        expected = refitted.decision_function(queries)
        assert_allclose(scores, expected, rtol=1e-12)
        assert_allclose(variant.decision_function(queries), expected, rtol=1e-12)


def test_joblib_round_trip_predicts_where_torch_cannot_be_imported(
    head, shots, tmp_path
):
    X, y = shots
    fitted = [make(name, texts=head).fit(X, y) for name in [*LEARNERS, "zero-shot"]]
    expected = [classifier.predict_proba(X) for classifier in fitted]
    joblib.dump((fitted, X, expected), tmp_path / "fitted")
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
        fitted, X, expected = joblib.load(sys.argv[1])
        for classifier, proba in zip(fitted, expected, strict=True):
            np.testing.assert_array_equal(classifier.predict_proba(X), proba)
            for value in vars(classifier).values():
                assert "torch" not in type(value).__module__
            if getattr(classifier, "mode", None) != "trained":
                classifier.fit(X, np.arange(len(X)) % 4).predict(X)
        """
    )
    command = [sys.executable, "-c", script, str(tmp_path / "fitted")]
    subprocess.run(command, check=True)


# Bad input ---------------------------------------------------------------------


def test_zero_shot_without_texts_says_what_it_needs(rng, shots):
    with pytest.raises(ValueError, match="needs class texts, but texts is None"):
        ZeroShotClassifier(texts=None).fit(*shots)
    bank = TextHead.from_features(text_bank=rng.normal(size=(20, 9)))
    with pytest.raises(ValueError, match=r"but texts has no classes\. .*with classes"):
        ZeroShotClassifier(texts=bank).fit(*shots)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("tip", {"alpha": -1}),
        ("tip", {"beta": -0.1}),
        ("tip", {"mode": "frozen"}),
        ("tip", {"train_alpha": 0}),
        ("tip", {"learning_rate": 0}),
        ("tip", {"max_iter": 0}),
        ("tip", {"batch_size": 0}),
        ("ape", {"lmbda": 1.1}),
        ("ape", {"gamma": -1}),
        ("ape", {"n_channels": 0}),
        ("ape", {"n_channels": 1.5}),
        ("gda", {"alpha": -1}),
        ("proker", {"beta": 0}),
        ("proker", {"lmbda": 0}),
        ("lp++", {"max_iter": 2.5}),
        ("transclip", {"lmbda": -1}),
        ("transclip", {"gamma": 0}),
        ("transclip", {"gamma": "best"}),
        ("transclip", {"n_neighbors": 0}),
        ("zero-shot", {"temperature": 0}),
    ],
)
def test_bad_values_are_named(head, shots, name, params):
    (parameter,) = params
    with pytest.raises(ValueError, match=f"'{parameter}' parameter of .* must be"):
        make(name, texts=head, **params).fit(*shots)


@every_blend
def test_no_weight_on_the_shots_without_texts_is_refused(shots, name):
    with pytest.raises(ValueError, match=r"alpha=0 gives the shots no weight.*texts"):
        make(name, texts=None, alpha=0).fit(*shots)


def test_more_channels_than_features_are_refused(shots):
    with pytest.raises(ValueError, match=r"n_channels=10 is more than the 9 features"):
        APEClassifier(texts=None, n_channels=10).fit(*shots)


def test_gda_refuses_weights_that_sum_to_one(shots):
    X, y = shots
    with pytest.raises(ValueError, match=r"sums to 1, .* more than one shot.*Scale"):
        GDAClassifier(texts=None).fit(X, y, sample_weight=np.full(len(y), 1 / len(y)))


def test_proker_refuses_a_lambda_lost_to_rounding(shots):
    X, y = shots
    equal = np.repeat(X[:1], len(y), axis=0)
    with pytest.raises(ValueError, match=r"lmbda=1e-20 is too small .* 1e-3"):
        ProKeRClassifier(texts=None, lmbda=1e-20).fit(equal, y)


@every_classifier
def test_failed_fit_changes_nothing(head, shots, queries, name):
    X, y = shots
    classifier = make(name, texts=head)
    with pytest.raises(ValueError, match=r"no text for the labels 9"):
        classifier.fit(X[:2], [0, 9])
    with pytest.raises(NotFittedError):
        classifier.predict(queries)
    scores = classifier.fit(X, y).decision_function(queries)
    before = vars(classifier).copy()
    with pytest.raises(ValueError, match=r"no text for the labels 9"):
        classifier.fit(X[:2], [0, 9])
    assert vars(classifier) == before
    assert_allclose(classifier.decision_function(queries), scores)


@every_classifier
def test_contradictions_and_mismatches_are_refused(head, shots, name):
    X, y = shots
    with pytest.raises(ValueError, match="X has 8 features, but the text head has 9"):
        make(name, texts=head).fit(X[:, :8], y)
    with pytest.raises(ValueError, match=r"no text for the labels 'cow'"):
        make(name, texts=head.relabelled(NAMES)).fit(X[:2], ["cat", "cow"])
    with pytest.raises(ValueError, match="one class only"):
        make(name, texts=head).fit(X, np.zeros(len(y)))
    with pytest.raises(ValueError, match="sample_weight must not be negative"):
        make(name, texts=head).fit(X, y, sample_weight=0.5 - (y == 1))
    with pytest.raises(ValueError, match="zero everywhere"):
        make(name, texts=head).fit(X, y, sample_weight=0.0 * y)
    with pytest.raises(NotFittedError):
        make(name, texts=head).predict(X)
