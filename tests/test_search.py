import pickle
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import minimize_scalar
from scipy.stats import loguniform, uniform
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import FitFailedWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import get_scorer, make_scorer, roc_auc_score
from sklearn.model_selection import (
    GridSearchCV,
    LeaveOneOut,
    ShuffleSplit,
    StratifiedKFold,
    cross_val_score,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

import skbridge._search.evaluate
import skbridge._search.fits
from skbridge import (
    BridgedGDAClassifier,
    CLIPTexts,
    FewShotSearchCV,
    SeMoBridgeClassifier,
    TextHead,
)
from skbridge._held_out.folds import shot_folds
from skbridge._held_out.selection import distance_from, within_one_standard_error
from skbridge._held_out.temperature import fit_temperature, stacked_log_losses
from skbridge.baselines import (
    GDAClassifier,
    LPPlusPlusClassifier,
    ProKeRClassifier,
    TipAdapterClassifier,
    TransCLIPClassifier,
    ZeroShotClassifier,
)

NAMES = [f"class {i}" for i in range(6)]
GRID = {
    "lambda_2": [0.0, 0.4],
    "lambda_3": [0.1, 0.5, 2.0],
    "bridge_rank": [3, 8],
}


@parametrize_with_checks(
    [
        FewShotSearchCV(SeMoBridgeClassifier(texts=None), n_settings=3),
        FewShotSearchCV(
            SeMoBridgeClassifier(texts=None, blending="exponential"),
            {"gamma": [1.0, 5.0], "lambda_2": [0.0, 1.0]},
            n_settings=3,
        ),
        FewShotSearchCV(TipAdapterClassifier(texts=None), n_settings=2),
    ]
)
def test_search_passes_the_common_checks(estimator, check):
    check(estimator)


def make_problem(counts=(5, 4, 6, 4, 5, 4), *, noise=0.6, seed=0, dtype=np.float64):
    """Shots whose classes the texts tell apart in part only."""
    rng = np.random.default_rng(seed)
    n = len(counts)
    head = TextHead.from_arrays(
        NAMES[:n],
        eos=(rng.normal(size=(n, 10)) + 0.3).astype(dtype),
        projection=rng.normal(size=(10, 12)).astype(dtype),
        logit_scale=20.0,
    )
    y = np.repeat(np.arange(n), counts)
    own = rng.normal(size=(n, 12))
    own /= np.linalg.norm(own, axis=1, keepdims=True)
    X = head.text_features[y] + own[y] + noise * rng.normal(size=(len(y), 12))
    order = rng.permutation(len(y))
    return X[order].astype(dtype), y[order], head


@pytest.fixture
def problem():
    return make_problem()


def search_of(head, space=GRID, **options):
    return FewShotSearchCV(SeMoBridgeClassifier(texts=head), space, **options)


def auc(estimator, X, y):
    proba = estimator.predict_proba(X)
    return roc_auc_score(y, proba, multi_class="ovr", labels=estimator.classes_)


@pytest.mark.parametrize(
    "scoring", ["accuracy", "neg_log_loss", "balanced_accuracy", auc, None]
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scores_equal_those_of_grid_search(scoring, dtype):
    X, y, head = make_problem(dtype=dtype)
    cv = StratifiedKFold(4)
    classifier = SeMoBridgeClassifier(texts=head)
    ours = FewShotSearchCV(classifier, GRID, cv=cv, scoring=scoring).fit(X, y)
    theirs = GridSearchCV(classifier, GRID, cv=cv, scoring=scoring).fit(X, y)
    assert ours.cv_results_["params"] == theirs.cv_results_["params"]
    exact = scoring in ("accuracy", "balanced_accuracy", None)
    rtol = 0 if exact else 1e-12 if dtype == np.float64 else 1e-5
    for key in theirs.cv_results_:
        if "test_score" in key and (exact or "rank" not in key):
            assert_allclose(ours.cv_results_[key], theirs.cv_results_[key], rtol=rtol)
    assert set(theirs.cv_results_) <= set(ours.cv_results_)
    for name in GRID:
        assert_array_equal(
            ours.cv_results_[f"param_{name}"].astype(float),
            theirs.cv_results_[f"param_{name}"].astype(float),
        )
    if scoring is not None:
        best = theirs.cv_results_["mean_test_score"].max()
        assert_allclose(ours.best_score_, best, rtol=max(rtol, 1e-12))
    assert ours.n_splits_ == 4
    assert ours.multimetric_ is False
    assert ours.refit_time_ > 0


@pytest.mark.parametrize(
    ("estimator", "space"),
    [
        (
            SeMoBridgeClassifier(blending="exponential"),
            {
                "lambda_2": [0.2, 1.0],
                "beta": [1.0, 6.0],
                "gamma": [2],
                "smoothness": [0, 1],
            },
        ),
        (
            SeMoBridgeClassifier(lambda_2=1),
            [
                {"blending": ["linear"], "lambda_1": [0, 1]},
                {
                    "blending": ["exponential"],
                    "lambda_1": [0, 1],
                    "alpha": np.linspace(1, 6, 3),
                },
            ],
        ),
        (
            SeMoBridgeClassifier(mode="trained", max_iter=3, device="cpu"),
            {"csb": [True, False], "lambda_3": [0.3, 3.0]},
        ),
        (
            SeMoBridgeClassifier(bridge="text_subspace"),
            {"bridge_rank": [2, "auto"], "lambda_3": [0.3, 3.0]},
        ),
        (TipAdapterClassifier(), {"alpha": [0.3, 3.0], "beta": [1.0, 5.0]}),
        (ProKeRClassifier(), {"alpha": [0.0, 1.0], "beta": [1.0, 5.0]}),
        (GDAClassifier(), {"alpha": [0.01, 1.0], "temperature": [0.5, None]}),
        (LPPlusPlusClassifier(), {"max_iter": [3, 5]}),
        (TransCLIPClassifier(), {"lmbda": [0.5, 2.0]}),
        (ZeroShotClassifier(), {"temperature": [1.0, 5.0]}),
    ],
)
@pytest.mark.parametrize("scoring", ["accuracy", "neg_log_loss"])
@pytest.mark.filterwarnings("ignore:bridge='text_subspace'")
def test_every_estimator_is_scored_as_by_grid_search(estimator, space, scoring):
    X, y, head = make_problem()
    estimator = clone(estimator).set_params(texts=head)
    cv = StratifiedKFold(3)
    ours = FewShotSearchCV(estimator, space, cv=cv, scoring=scoring).fit(X, y)
    theirs = GridSearchCV(estimator, space, cv=cv, scoring=scoring).fit(X, y)
    assert_allclose(
        ours.cv_results_["mean_test_score"],
        theirs.cv_results_["mean_test_score"],
        rtol=1e-9,
    )
    assert ours.cv_results_["params"] == theirs.cv_results_["params"]


@pytest.mark.parametrize("cv", [LeaveOneOut(), ShuffleSplit(3, random_state=0)])
def test_any_splitter_gives_the_folds_of_grid_search(cv):
    # With two shots of a class, splits may leave it out of training.
    X, y, head = make_problem((2, 5, 6, 4, 5, 4))
    classifier = SeMoBridgeClassifier(texts=head)
    ours = FewShotSearchCV(classifier, GRID, cv=cv, scoring="accuracy").fit(X, y)
    theirs = GridSearchCV(classifier, GRID, cv=cv).fit(X, y)
    for key in theirs.cv_results_:
        if key.startswith("split"):
            assert_allclose(ours.cv_results_[key], theirs.cv_results_[key], rtol=1e-12)


def test_an_iterable_of_splits_and_an_int_are_taken_as_by_grid_search(problem):
    X, y, head = problem
    splits = list(StratifiedKFold(3).split(X, y))
    by_int = search_of(head, cv=3).fit(X, y)
    by_splits = search_of(head, cv=iter(splits)).fit(X, y)
    for key in ("split0_test_score", "split2_test_score", "log_loss"):
        assert_array_equal(by_int.cv_results_[key], by_splits.cv_results_[key])


@pytest.mark.filterwarnings("ignore:y_pred contains classes")
@pytest.mark.parametrize("scoring", ["accuracy", "neg_log_loss", "balanced_accuracy"])
def test_weights_count_as_repetitions(problem, scoring):
    X, y, head = problem
    repeats = np.arange(len(y)) % 3
    repeats[:6] = 1
    groups = np.arange(len(y)) % 4
    again = np.repeat(np.arange(len(y)), repeats)

    def splits(groups):
        return [
            (np.flatnonzero(groups != k), np.flatnonzero(groups == k)) for k in range(4)
        ]

    weighted = search_of(head, cv=splits(groups), scoring=scoring)
    weighted.fit(X, y, sample_weight=repeats)
    repeated = search_of(head, cv=splits(groups[again]), scoring=scoring)
    repeated.fit(X[again], y[again])
    assert_allclose(
        weighted.cv_results_["mean_test_score"],
        repeated.cv_results_["mean_test_score"],
        rtol=1e-12,
    )
    assert_allclose(weighted.temperature_, repeated.temperature_, rtol=1e-5)
    assert_allclose(weighted.predict_proba(X), repeated.predict_proba(X), rtol=1e-4)
    assert weighted.score(X, y, sample_weight=repeats) == pytest.approx(
        repeated.score(X[again], y[again])
    )


def test_a_scorer_without_weights_is_told_of(problem):
    X, y, head = problem
    weight = np.ones(len(y))
    with pytest.warns(UserWarning, match="takes no sample_weight"):
        search_of(head, scoring=auc).fit(X, y, sample_weight=weight)
    scorer = make_scorer(lambda y, p: (y == p).mean())
    with pytest.warns(UserWarning, match="takes no sample_weight"):
        search_of(head, scoring=scorer).fit(X, y, sample_weight=weight)


def test_a_scorer_may_ask_the_estimator_anything(problem):
    X, y, head = problem
    seen = []

    def scorer(estimator, X_test, y_test):
        assert_allclose(
            estimator.decision_function(X_test[::-1]),
            estimator.decision_function(X_test)[::-1],
            rtol=1e-12,
        )
        seen.append(estimator.lambda_3)
        return estimator.score(X_test, y_test)

    search = search_of(head, {"lambda_3": [0.1, 1.0]}, scoring=scorer).fit(X, y)
    assert len(seen) == 2 * search.n_splits_
    assert set(seen) == {0.1, 1.0}


def test_a_constructed_scorer_of_a_known_name_scores_alike(problem):
    X, y, head = problem
    named = search_of(head, scoring="neg_log_loss").fit(X, y)
    given = search_of(head, scoring=get_scorer("neg_log_loss")).fit(X, y)
    assert_allclose(
        named.cv_results_["mean_test_score"], given.cv_results_["mean_test_score"]
    )


# Choice


def test_equal_scores_are_decided_by_log_loss():
    X, y, head = make_problem(noise=0.05)
    space = {"lambda_1": [1e-3, 1.0], "lambda_3": [0.0, 0.1, 1.0, 3.0]}
    search = search_of(head, space, scoring="accuracy").fit(X, y)
    scores, losses = (
        search.cv_results_[key] for key in ("mean_test_score", "log_loss")
    )
    best = np.flatnonzero(scores == scores.max())
    assert len(best) > 1
    assert search.best_index_ == best[np.argmin(losses[best])]
    assert np.isnan(np.delete(losses, best)).all()


def test_without_scoring_log_loss_chooses_within_one_standard_error(problem):
    X, y, head = problem
    space = {"lambda_3": np.geomspace(0.01, 20, 15).tolist()}
    search = search_of(head, space).fit(X, y)
    losses = search.cv_results_["log_loss"]
    assert np.isfinite(losses).all()
    chosen = losses[search.best_index_]
    assert losses.min() <= chosen < losses.max()
    prior = 100 / 20 * 2 * 4.5 / (4.5 + 8)
    nearer = np.abs(np.arange(15) - np.interp(prior, space["lambda_3"], np.arange(15)))
    between = nearer < nearer[search.best_index_]
    # Whatever is nearer to the prior is worse by more than a standard error.
    assert (losses[between] > losses.min()).all()


def test_one_standard_error_prefers_the_least_distant_of_the_undecided():
    rng = np.random.default_rng(0)
    base = rng.uniform(size=100)
    noise = 0.1 * rng.normal(size=100)
    noise -= noise.mean()
    losses = np.stack(
        [base, base + noise + 0.005, base + 0.5, np.full(100, np.nan), base + 1e-9]
    )
    weight = np.ones(100)
    assert within_one_standard_error(losses, weight, np.array([2, 1, 0, 0, 3])) == 1
    assert within_one_standard_error(losses, weight, np.array([1, 1, 0, 0, 3])) == 0


def test_distances_go_by_rank_and_by_equality():
    settings = [
        {"a": 1.0, "b": "x"},
        {"a": 10.0, "b": "y"},
        {"a": 100.0, "b": "y"},
        {"b": "x"},
        {"a": None, "b": "x"},
    ]
    target = {"a": 10.0, "b": "y"}
    assert_allclose(distance_from(settings[:4], target), [1.5, 0, 0.5, 1])
    assert_allclose(distance_from(settings, target), [2, 0, 1, 1, 2])


# Spaces


def test_default_space_follows_texts_shots_and_cut(problem):
    X, y, head = problem
    search = search_of(head, None).fit(X, y)
    tried = search.cv_results_
    ranks = set(tried["param_bridge_rank"])
    assert ranks == {0.8, 0.9, 0.95, 0.98, 1.0}
    prior = 100 / 20 * 2 * 4.5 / (4.5 + 8)
    assert min(tried["param_lambda_3"]) == pytest.approx(prior / 16)
    assert max(tried["param_lambda_3"]) == pytest.approx(prior * 16)
    fixed = FewShotSearchCV(SeMoBridgeClassifier(texts=head, bridge_rank=4))
    assert "param_bridge_rank" not in fixed.fit(X, y).cv_results_
    trained = SeMoBridgeClassifier(texts=head, mode="trained", max_iter=2)
    assert "param_bridge_rank" not in FewShotSearchCV(trained).fit(X, y).cv_results_
    sharp = SeMoBridgeClassifier(texts=head, blending="exponential")
    assert "param_gamma" in FewShotSearchCV(sharp, n_settings=5).fit(X, y).cv_results_


def test_text_free_space_searches_the_cut_alone(problem):
    X, y, head = problem
    known = TextHead.from_arrays(projection=head.projection)
    search = search_of(known, None).fit(X, y)
    assert set(search.best_params_) == {"bridge_rank"}
    nothing = FewShotSearchCV(SeMoBridgeClassifier(texts=None)).fit(X, y)
    assert nothing.best_params_ == {}
    assert nothing.cv_results_["params"] == [{}]


@pytest.mark.parametrize(
    "estimator",
    [
        TipAdapterClassifier(),
        ProKeRClassifier(),
        GDAClassifier(),
        TransCLIPClassifier(),
        ZeroShotClassifier(),
    ],
)
def test_rivals_are_searched_by_default(problem, estimator):
    X, y, head = problem
    estimator.set_params(texts=head)
    search = FewShotSearchCV(estimator, n_settings=5, random_state=0).fit(X, y)
    assert search.score(X, y) > 0.5
    assert len(search.cv_results_["params"]) <= 5


def test_distributions_are_drawn_and_lists_are_gone_through(problem):
    X, y, head = problem
    space = {"lambda_3": loguniform(0.01, 10), "bridge_rank": [3, 8]}
    drawn = search_of(head, space, n_settings=7, random_state=0).fit(X, y)
    again = search_of(head, space, n_settings=7, random_state=0).fit(X, y)
    assert drawn.cv_results_["params"] == again.cv_results_["params"]
    assert len(drawn.cv_results_["params"]) == 7
    assert len(search_of(head, space).fit(X, y).cv_results_["params"]) == 200
    capped = search_of(head, n_settings=4, random_state=0).fit(X, y)
    assert len(capped.cv_results_["params"]) == 4
    assert len(search_of(head, n_settings=99).fit(X, y).cv_results_["params"]) == 12


def test_a_list_of_spaces_leaves_gaps_in_the_table(problem):
    X, y, head = problem
    space = [
        {"lambda_3": [0.5, 1.0]},
        {"blending": ["exponential"], "gamma": [1.0, 4.0]},
    ]
    search = search_of(head, space).fit(X, y)
    assert_array_equal(
        search.cv_results_["param_gamma"].mask, [True, True, False, False]
    )
    drawn = [{"lambda_3": uniform(0, 1)}, {"lambda_2": [1.0]}]
    search = search_of(head, drawn, n_settings=6, random_state=0).fit(X, y)
    assert len(search.cv_results_["params"]) == 6


def test_texts_may_be_searched_as_well(problem):
    X, y, head = problem
    rng = np.random.default_rng(1)
    wrong = TextHead.from_arrays(
        NAMES, eos=rng.normal(size=(6, 10)), projection=head.projection
    )
    space = {"texts": [wrong, head], "lambda_3": [0.0, 0.01]}
    search = search_of(None, space, scoring="accuracy").fit(X, y)
    assert search.best_params_["texts"] is head
    assert search.best_estimator_.text_head_ == head.relabelled(range(6))


@pytest.mark.parametrize(
    ("space", "error", "message"),
    [
        ({"lamda_3": [1.0]}, ValueError, "Did you mean 'lambda_3'"),
        ({"zzzz": [1.0]}, ValueError, "not a parameter of SeMoBridgeClassifier. Its"),
        ({"lambda_3": [-1.0]}, ValueError, "'lambda_3' parameter of SeMoBridge"),
        ({"lambda_3": 1.0}, TypeError, "lambda_3"),
        ({"lambda_3": []}, ValueError, "lambda_3"),
        ("lambda_3", TypeError, "param_space must be a dict"),
        (3, TypeError, "param_space must be a dict"),
        ([], TypeError, "param_space must be a dict"),
        (["lambda_3"], TypeError, "param_space must be a dict"),
    ],
)
def test_bad_spaces_are_refused(problem, space, error, message):
    X, y, head = problem
    with pytest.raises(error, match=message):
        search_of(head, space).fit(X, y)


def test_failing_settings_come_last_and_are_reported(problem):
    X, y, head = problem
    space = [
        {"lambda_1": [0.0, 1.0], "lambda_3": [0.0, 1.0]},
        {"bridge_rank": [99]},
    ]
    search = search_of(head, space)
    with pytest.warns(FitFailedWarning, match="2 of 5 settings failed"):
        search.fit(X, y)
    failed = np.isnan(search.cv_results_["mean_test_score"])
    assert_array_equal(failed, [True, False, False, False, True])
    assert (search.cv_results_["rank_test_score"][failed] == 4).all()
    assert not failed[search.best_index_]


def testblend_parameters_that_contradict_each_other_fail_alone(problem):
    X, y, head = problem
    classifier = SeMoBridgeClassifier(texts=head, lambda_1=0, lambda_3=0)
    search = FewShotSearchCV(classifier, {"lambda_3": [0.0, 1.0]})
    with pytest.warns(FitFailedWarning, match="At least one of lambda_1"):
        search.fit(X, y)
    assert search.best_params_ == {"lambda_3": 1.0}


def test_a_search_of_which_everything_fails_raises(problem):
    X, y, head = problem
    with pytest.raises(ValueError, match=r"Every setting failed.*bridge_rank=99"):
        search_of(head, {"bridge_rank": [99]}).fit(X, y)

    def broken(estimator, X, y):
        raise ValueError("broken scorer")

    with pytest.raises(ValueError, match=r"Every setting failed.*broken scorer"):
        search_of(head, scoring=broken).fit(X, y)
    splits = [(np.flatnonzero(y > 0), np.flatnonzero(y == 0))]
    with pytest.raises(ValueError, match=r"Every setting failed.*log loss needs"):
        search_of(head, cv=splits, scoring="neg_log_loss").fit(X, y)
    with pytest.raises(ValueError, match="Every setting scored NaN"):
        search_of(head, scoring=lambda *_: np.nan).fit(X, y)


def test_a_search_that_raises_stays_as_it_was(problem):
    X, y, head = problem
    search = search_of(head).fit(X, y)
    before = search.predict_proba(X)
    with pytest.raises(ValueError, match="integers"):
        search.fit(X, np.where(y == 0, 99, y))
    assert_array_equal(search.classes_, np.unique(y))
    assert_array_equal(search.predict_proba(X), before)


def test_splits_without_a_known_class_still_find_a_setting(problem):
    X, y, head = problem
    splits = [(np.flatnonzero(y > 0), np.flatnonzero(y == 0))]
    search = search_of(head, cv=splits).fit(X, y)
    assert search.best_score_ == 0
    assert search.temperature_ == pytest.approx(
        20 / sum(search.best_estimator_._lambdas())
    )


def test_a_fold_that_fails_is_a_failure_of_the_setting(problem):
    X, y, head = problem
    splits = [
        (np.arange(10, len(y)), np.arange(10)),
        (np.flatnonzero(y == 0), np.flatnonzero(y != 0)),
    ]
    with pytest.raises(ValueError, match=r"Every setting failed.*two classes"):
        search_of(head, cv=splits).fit(X, y)


# Folds


def test_folds_follow_the_median_class_and_hold_out_every_shot():
    codes = np.repeat([0, 1, 2], [4, 4, 9])
    folds = shot_folds(codes)
    assert len(folds) == 4
    assert_array_equal(
        np.sort(np.concatenate([test for _, test in folds])), np.arange(17)
    )
    for train, test in folds:
        assert not set(train) & set(test)
        assert set(codes[train]) == {0, 1, 2}
    assert len(shot_folds(np.repeat([0, 1], 50))) == 8


def test_folds_are_shuffled_by_random_state_alone():
    codes = np.repeat([0, 1, 2], 6)

    def tests(random_state):
        return [
            test.tolist() for _, test in shot_folds(codes, random_state=random_state)
        ]

    assert tests(0) == tests(0)
    assert tests(0) != tests(1)
    assert tests(None) == tests(None)


@pytest.mark.parametrize("random_state", [None, 0])
def test_folds_are_those_of_scikit_learn_for_any_numbers_of_shots(random_state):
    rng = np.random.default_rng(0)
    for _ in range(20):
        codes = rng.permutation(np.repeat(np.arange(5), rng.integers(2, 9, size=5)))
        n_splits = int(rng.integers(2, min(8, np.bincount(codes).max()) + 1))
        reference = StratifiedKFold(
            n_splits, shuffle=random_state is not None, random_state=random_state
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = [test for _, test in reference.split(codes, codes)]
        folds = shot_folds(codes, n_splits=n_splits, random_state=random_state)
        for (train, test), own in zip(folds, expected, strict=True):
            assert_array_equal(test, own)
            assert_array_equal(np.setdiff1d(np.arange(len(codes)), own), train)


def test_single_shots_stay_in_training():
    codes = np.array([0, 1, 1, 1, 2, 2, 3])
    folds = shot_folds(codes)
    held_out = np.concatenate([test for _, test in folds])
    assert set(codes[held_out]) == {1, 2}
    for train, _ in folds:
        assert {0, 6} <= set(train)
    assert shot_folds(np.arange(5)) == []


@pytest.mark.parametrize("random_state", [None, 0])
def test_views_of_one_image_never_straddle_a_fold(random_state):
    codes = np.repeat([0, 1, 2], [9, 6, 3])
    groups = np.array([f"image {i}" for i in np.arange(18) // 3])
    folds = shot_folds(codes, groups, random_state=random_state)
    assert len(folds) == 2
    for train, test in folds:
        assert not set(groups[train]) & set(groups[test])
        # The one image of class 2 cannot be held out.
        assert {15, 16, 17} <= set(train)
    assert shot_folds(codes, codes) == []


def test_groups_across_classes_are_kept_together():
    codes = np.tile([0, 1, 2], 6)
    groups = np.repeat(np.arange(6), 3)
    folds = shot_folds(codes, groups)
    assert len(folds) == 6
    for train, test in folds:
        assert not set(groups[train]) & set(groups[test])
    # A class that a fold leaves without training is not judged there.
    codes = np.array([0, 1, 0, 1, 2, 2])
    groups = np.array([0, 0, 1, 1, 1, 2])
    for train, test in shot_folds(codes, groups):
        assert set(codes[test]) <= set(codes[train])
    assert shot_folds(np.array([0, 0, 1]), np.zeros(3)) == []


def test_groups_of_the_search_reach_the_folds(problem):
    X, y, head = problem
    views = np.repeat(np.arange(len(y)), 2)
    X2, y2 = X[views] + 0.01, y[views]
    search = search_of(head).fit(X2, y2, groups=views)
    assert search.n_splits_ == 4
    seen = search_of(head, scoring="accuracy").fit(X2, y2)
    # Without groups, views of a held-out image were seen in training.
    assert seen.best_score_ > search.best_score_
    with pytest.raises(ValueError, match="inconsistent numbers"):
        search_of(head).fit(X, y, groups=views)
    by_int = search_of(head, cv=4).fit(X2, y2, groups=views)
    assert_array_equal(by_int.cv_results_["log_loss"], search.cv_results_["log_loss"])


def test_more_folds_than_shots_explains_the_fallback(problem):
    X, y, head = problem
    with pytest.raises(
        ValueError, match=r"cv=5 needs at least 5 shots.* has 4.*cv=None"
    ):
        search_of(head, cv=5).fit(X, y)
    with pytest.raises(ValueError, match=r"images \(groups\) of every class.* has 1"):
        search_of(head, cv=2).fit(X, y, groups=y)
    with pytest.raises(ValueError, match="'cv' parameter of FewShotSearchCV"):
        search_of(head, cv=1).fit(X, y)


def test_splits_with_nothing_to_hold_out_are_refused(problem):
    X, y, head = problem
    weight = np.ones(len(y))
    weight[:3] = 0
    splits = [(np.arange(3, len(y)), np.arange(3))]
    with pytest.raises(ValueError, match="Split 0 of cv leaves out no shot"):
        search_of(head, cv=splits).fit(X, y, sample_weight=weight)
    with pytest.raises(ValueError, match="cv has no splits"):
        search_of(head, cv=[]).fit(X, y)


# One shot a class


@pytest.mark.parametrize("space", [None, GRID])
def test_one_shot_a_class_takes_the_prior_and_says_so(space):
    X, y, head = make_problem((1,) * 6)
    search = search_of(head, space)
    with pytest.warns(UserWarning, match="No shot could be held out"):
        search.fit(X, y)
    assert "No shot could be held out" in search.fallback_
    assert np.isnan(search.best_score_)
    assert search.n_splits_ == 0
    assert search.temperature_ is None
    chosen = search.best_estimator_
    assert chosen.temperature is None
    if space is None:
        assert chosen.lambda_3 == pytest.approx(100 / 20 * 2 / 9)
        assert chosen.bridge_rank == 0.9
        assert len(search.cv_results_["params"]) == 1
    else:
        assert chosen.lambda_3 == 0.5
        assert len(search.cv_results_["params"]) == 12
        assert (search.cv_results_["rank_test_score"] == 1).all()
    assert search.predict(X).shape == y.shape


def test_one_shot_text_free_keeps_the_estimators_own_values():
    X, y, _ = make_problem((1,) * 6)
    search = FewShotSearchCV(SeMoBridgeClassifier(texts=None), refit=False)
    with pytest.warns(UserWarning, match="No shot could be held out"):
        search.fit(X, y)
    assert search.best_params_ == {}


def test_views_of_single_images_are_one_shot():
    X, y, head = make_problem((3,) * 6)
    with pytest.warns(UserWarning, match="views of a single image"):
        search_of(head).fit(X, y, groups=y)


def test_some_single_shots_are_searched_without():
    X, y, head = make_problem((1, 4, 4, 1, 4, 4))
    search = search_of(head).fit(X, y)
    assert search.fallback_.startswith("2 of 6 classes have a single shot")
    assert np.isfinite(search.best_score_)
    assert_array_equal(search.classes_, np.arange(6))
    assert search_of(head).fit(*make_problem()[:2]).fallback_ is None


# Temperature


def test_temperature_minimises_the_penalised_log_loss():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(40, 5))
    codes = scores.argmax(axis=1)
    codes[:15] = rng.integers(5, size=15)
    weight = rng.uniform(0.5, 2, size=40)

    def objective(log_t):
        t = np.exp(log_t)
        z = t * scores
        nll = np.logaddexp.reduce(z, axis=1) - z[np.arange(40), codes]
        return weight @ nll + 5 * (t / 3 - np.log(t / 3))

    best = minimize_scalar(objective, bounds=(-5, 5), options={"xatol": 1e-10})
    folds = [
        (scores[rows], codes[rows], weight[rows])
        for rows in (slice(0, 25), slice(25, 40))
    ]
    assert fit_temperature(folds, 3.0) == pytest.approx(np.exp(best.x), rel=1e-5)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_temperature_stays_finite_where_every_shot_is_right(scale):
    scores = scale * np.eye(4)[[0, 1, 2, 3, 0, 1]]
    codes = np.array([0, 1, 2, 3, 0, 1])
    fitted = fit_temperature([(scores, codes, np.ones(6))], 10.0)
    assert 10 * 0.9 <= fitted < 30


def test_temperature_stays_positive_where_scores_mislead():
    scores = np.eye(4)[[1, 2, 3, 0] * 50]
    codes = np.array([0, 1, 2, 3] * 50)
    assert 0 < fit_temperature([(scores, codes, np.ones(200))], 10.0) < 1


def test_temperature_without_evidence_is_the_default():
    nothing = (np.eye(3), np.full(3, -1), np.ones(3))
    assert fit_temperature([nothing], 7.0) == pytest.approx(7.0)
    flat = (np.ones((4, 3)), np.array([0, 1, 2, 0]), np.ones(4))
    assert fit_temperature([flat], 7.0) == pytest.approx(7.0)


@pytest.mark.parametrize("n_samples", [30, 700])
def test_stacked_losses_are_those_of_the_fitted_temperatures(n_samples):
    rng = np.random.default_rng(0)
    scale = np.geomspace(0.1, 10, 6)[:, None, None]
    scores = scale * rng.normal(size=(6, n_samples, 8))
    codes = scores[0].argmax(axis=1)
    codes[rng.uniform(size=n_samples) < 0.3] = 0
    weight = np.ones(n_samples)
    defaults = np.full(6, 2.0)
    half = n_samples // 2
    losses, _ = stacked_log_losses(
        [scores[:, :half].copy(), scores[:, half:].copy()],
        [codes[:half], codes[half:]],
        [weight[:half], weight[half:]],
        defaults,
    )
    for got, one in zip(losses, scores, strict=True):
        z = fit_temperature([(one, codes, weight)], 2.0) * one
        nll = np.logaddexp.reduce(z, axis=1) - z[np.arange(n_samples), codes]
        assert got.mean() == pytest.approx(nll.mean(), rel=0.01)


def test_scores_that_exp_cannot_take_have_the_losses_of_shifted_ones():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(3, 20, 6)).astype(np.float32)
    codes, weight = rng.integers(6, size=20), np.ones(20)
    defaults = np.full(3, 2.0)
    near, _ = stacked_log_losses([scores], [codes], [weight], defaults)
    for shift in (-1000, 1000):
        far, _ = stacked_log_losses([scores + shift], [codes], [weight], defaults)
        assert_allclose(far, near, atol=2e-3)


def test_settings_that_differ_by_a_common_factor_have_equal_losses(problem):
    X, y, head = problem
    space = [{"lambda_1": [c], "lambda_2": [c], "lambda_3": [2 * c]} for c in (0.1, 3)]
    losses = search_of(head, space).fit(X, y).cv_results_["log_loss"]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize("scoring", [None, "accuracy", "neg_log_loss"])
def test_results_do_not_depend_on_how_shots_and_settings_are_cut(
    problem, monkeypatch, scoring
):
    X, y, head = problem
    whole = search_of(head, scoring=scoring).fit(X, y)
    monkeypatch.setattr(skbridge._search.fits, "BLOCK_SCORES", 1)
    monkeypatch.setattr(skbridge._search.evaluate, "_BLOCK_SETTINGS", 2)
    parts = search_of(head, scoring=scoring).fit(X, y)
    assert parts.best_index_ == whole.best_index_
    for key in ("mean_test_score", "log_loss"):
        assert_allclose(parts.cv_results_[key], whole.cv_results_[key], rtol=1e-4)


def test_best_estimator_has_the_temperature_of_the_held_out_scores(problem):
    X, y, head = problem
    search = search_of(head).fit(X, y)
    best = search.best_estimator_
    assert best.temperature == best.temperature_ == search.temperature_
    folds = []
    for train, test in shot_folds(y):
        fold = SeMoBridgeClassifier(texts=head, **search.best_params_)
        fold.fit(X[train], y[train])
        folds.append((fold.decision_function(X[test]), y[test], np.ones(len(test))))
    expected = fit_temperature(folds, fold.temperature_)
    assert search.temperature_ == pytest.approx(expected, rel=1e-4)


def test_a_temperature_of_ones_own_is_kept(problem):
    X, y, head = problem
    own = SeMoBridgeClassifier(texts=head, temperature=3.0)
    search = FewShotSearchCV(own, GRID).fit(X, y)
    assert search.best_estimator_.temperature_ == 3.0
    searched = search_of(head, {"temperature": [2.0, None]}, scoring="neg_log_loss")
    searched.fit(X, y)
    assert searched.best_estimator_.temperature == searched.best_params_["temperature"]


def test_held_out_temperature_beats_the_default_on_new_data():
    X, y, head = make_problem((12,) * 6, noise=0.9)
    search = search_of(head).fit(X[:48], y[:48])
    default = clone(search.best_estimator_).set_params(temperature=None)
    default.fit(X[:48], y[:48])
    loss = get_scorer("neg_log_loss")
    assert loss(search, X[48:], y[48:]) > loss(default, X[48:], y[48:])


# Work that is not repeated


def test_values_that_cannot_be_hashed_are_grouped(problem, monkeypatch):
    X, y, head = problem
    calls = []

    def from_clip(names, *args, templates, **options):
        calls.append(templates)
        return head

    monkeypatch.setattr(TextHead, "from_clip", from_clip)
    templates = [["a {}."], ["the {}.", "a {}."]]
    classifier = SeMoBridgeClassifier(CLIPTexts("some-clip", class_names=NAMES))
    space = {"texts__templates": templates, "lambda_3": [0.1, 1.0]}
    search = FewShotSearchCV(classifier, space).fit(X, y)
    # Once for each, and for the refit.
    assert calls[:2] == templates
    assert len(calls) == 3
    assert search.best_params_["texts__templates"] in templates


def test_texts_are_encoded_once(problem, monkeypatch):
    X, y, head = problem
    calls = []

    def from_clip(names, *args, **options):
        calls.append(names)
        return head[list(names)]

    monkeypatch.setattr(TextHead, "from_clip", from_clip)
    labels = np.array(["f", "e", "d", "c", "b", "a"])[y]
    names = dict(zip("fedcba", NAMES, strict=True))
    classifier = SeMoBridgeClassifier(CLIPTexts("some-clip", class_names=names))
    splits = [(np.flatnonzero(y > 0), np.arange(8)), (np.arange(8), np.arange(8, 26))]
    search = FewShotSearchCV(classifier, GRID, cv=splits).fit(X, labels)
    # For all settings and folds, and for the refit.
    assert calls == [NAMES[::-1]] * 2
    reference = GridSearchCV(classifier, GRID, cv=splits).fit(X, labels)
    assert len(calls) > 20
    assert_allclose(
        search.cv_results_["mean_test_score"],
        reference.cv_results_["mean_test_score"],
    )
    # The best estimator has the texts that were given: new classes get theirs.
    calls.clear()
    fewer = search_of(None, GRID).set_params(estimator=classifier)
    fewer.fit(X[y > 0], labels[y > 0])
    fewer.best_estimator_.partial_fit(X[y == 0], labels[y == 0])
    assert_array_equal(fewer.best_estimator_.classes_, list("abcdef"))
    assert len(calls) == 3


def test_one_decomposition_serves_all_cuts_and_folds(monkeypatch):
    X, y, head = make_problem(seed=7)
    svd, calls = np.linalg.svd, []
    monkeypatch.setattr(
        np.linalg, "svd", lambda *a, **k: calls.append(1) or svd(*a, **k)
    )
    search_of(head, {"bridge_rank": [2, 4, 6, 8]}).fit(X, y)
    assert len(calls) == 1


def test_components_that_nothing_weighs_are_not_computed(problem, monkeypatch):
    X, y, head = problem
    asked, component_logits = [], SeMoBridgeClassifier.component_logits

    def recorded(self, X, *, skip=()):
        asked.append(skip)
        return component_logits(self, X, skip=skip)

    monkeypatch.setattr(SeMoBridgeClassifier, "component_logits", recorded)
    search_of(head, {"lambda_3": [0.5, 2.0]}).fit(X, y)
    assert set(asked) == {(1,)}
    asked.clear()
    search_of(head, {"lambda_2": [0.0, 0.1]}).fit(X, y)
    assert set(asked) == {()}


def test_closed_form_fits_once_for_all_folds(problem, monkeypatch):
    X, y, head = problem
    calls, fit = [], SeMoBridgeClassifier.fit

    def counted(self, *args, **kwargs):
        calls.append(1)
        return fit(self, *args, **kwargs)

    monkeypatch.setattr(SeMoBridgeClassifier, "fit", counted)
    search_of(head, {"lambda_3": [0.5, 2.0]}).fit(X, y)
    # One fit of all shots for the folds, and the last one.
    assert len(calls) == 2


def test_training_is_not_repeated_for_blend_settings(problem, monkeypatch):
    X, y, head = problem
    train, calls = SeMoBridgeClassifier._train, []

    def counted(self, *args):
        calls.append(1)
        return train(self, *args)

    monkeypatch.setattr(SeMoBridgeClassifier, "_train", counted)
    classifier = SeMoBridgeClassifier(texts=head, mode="trained", max_iter=2)
    space = {"lambda_3": np.geomspace(0.1, 5, 40).tolist()}
    search = FewShotSearchCV(classifier, space).fit(X, y)
    assert len(calls) == search.n_splits_ + 1


def test_default_space_of_gda_searches_its_shrinkage(problem):
    X, y, head = problem
    classifier = BridgedGDAClassifier(head)
    tried = FewShotSearchCV(classifier).fit(X, y).cv_results_
    assert set(tried["param_shrinkage"]) == {0.1, 0.3, 1.0}
    assert "param_bridge_rank" not in tried
    assert len(tried["params"]) == 51
    alone = FewShotSearchCV(BridgedGDAClassifier(None)).fit(X, y).cv_results_
    assert len(alone["params"]) == 3


# A citizen of scikit-learn


def test_the_search_delegates_to_its_best_estimator(problem):
    X, y, head = problem
    search = search_of(head).fit(X, y)
    best = search.best_estimator_
    for method in (
        "predict",
        "predict_proba",
        "predict_log_proba",
        "decision_function",
        "component_logits",
    ):
        assert_array_equal(getattr(search, method)(X), getattr(best, method)(X))
    assert search.score(X, y) == best.score(X, y)
    assert search.n_features_in_ == 12
    assert_array_equal(search.classes_, best.classes_)
    with pytest.raises(NotFittedError):
        search_of(head).predict(X)


def test_without_refit_there_are_results_and_no_predictions(problem):
    X, y, head = problem
    search = search_of(head, refit=False).fit(X, y)
    assert search.best_params_ == search_of(head).fit(X, y).best_params_
    assert not hasattr(search, "predict")
    assert not hasattr(search, "best_estimator_")
    with pytest.raises(AttributeError) as error:
        search.predict_proba(X)
    assert "refit=False" in str(error.value.__cause__)


def test_a_pipeline_as_estimator_says_where_the_search_goes(problem):
    X, y, head = problem
    inner = make_pipeline(FunctionTransformer(), SeMoBridgeClassifier(texts=head))
    with pytest.raises(TypeError, match="Put the search last in the pipeline"):
        FewShotSearchCV(inner).fit(X, y)
    with pytest.raises(TypeError, match="estimators use sklearn"):
        FewShotSearchCV(LogisticRegression()).fit(X, y)
    with pytest.raises(TypeError, match="texts must be"):
        search_of(7).fit(X, y)


def test_the_default_estimator_is_the_recommended_one():
    search = FewShotSearchCV()
    assert isinstance(search._check_estimator(), BridgedGDAClassifier)
    assert hasattr(search, "component_logits")


def test_the_search_works_inside_of_everything(problem):
    X, y, head = problem
    search = search_of(head, {"lambda_3": [0.1, 1.0]}, random_state=0)
    assert cross_val_score(search, X, y, cv=2).mean() > 0.5
    pipeline = make_pipeline(FunctionTransformer(), search)
    groups = np.arange(len(y))
    pipeline.fit(X, y, fewshotsearchcv__groups=groups)
    assert pipeline.predict_proba(X).shape == (len(y), 6)
    calibrated = CalibratedClassifierCV(search, cv=2).fit(X, y)
    assert calibrated.score(X, y) > 0.5
    outer = GridSearchCV(search, {"estimator__bridge_rank": [4, 8]}, cv=2).fit(X, y)
    assert outer.best_estimator_.best_estimator_.bridge_rank in (4, 8)
    jobs = joblib.Parallel(n_jobs=2, backend="threading")(
        joblib.delayed(clone(search).fit)(X, y) for _ in range(3)
    )
    assert len({job.temperature_ for job in jobs}) == 1


def test_a_fitted_search_survives_pickling(problem):
    X, y, head = problem
    for scoring in (None, "balanced_accuracy"):
        search = search_of(head, scoring=scoring).fit(X, y)
        again = pickle.loads(pickle.dumps(search))
        assert_array_equal(again.predict_proba(X), search.predict_proba(X))
        assert again.score(X, y) == search.score(X, y)


def test_column_names_reach_the_best_estimator(problem):
    X, y, head = problem
    frame = pd.DataFrame(X, columns=[f"clip_{i}" for i in range(12)])
    search = search_of(head).fit(frame, pd.Series(y, index=np.arange(len(y)) + 50))
    assert_array_equal(search.feature_names_in_, frame.columns)
    assert_array_equal(search.best_estimator_.feature_names_in_, frame.columns)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        search.predict(frame)


@pytest.mark.parametrize(
    ("weight", "message"),
    [(-1.0, "must not be negative"), (0.0, "zero everywhere")],
)
def test_bad_weights_are_refused(problem, weight, message):
    X, y, head = problem
    with pytest.raises(ValueError, match=message):
        search_of(head).fit(X, y, sample_weight=np.full(len(y), weight))


def test_one_class_is_refused(problem):
    X, _, head = problem
    with pytest.raises(ValueError, match="at least two classes"):
        search_of(head).fit(X, np.zeros(len(X), dtype=int))
