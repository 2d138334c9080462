import subprocess
import sys
import textwrap
from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Perceptron
from sklearn.metrics import accuracy_score, confusion_matrix, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skbridge import (
    BridgedGDAClassifier,
    FewShotSearchCV,
    SeMoBridgeClassifier,
    TextHead,
)
from skbridge.inspection import (
    BiasNormDisplay,
    BlendSimplexDisplay,
    LossCurveDisplay,
    PrototypeConfusionDisplay,
    QueryExplanationDisplay,
    ReliabilityDisplay,
    SimilarityDisplay,
)
from skbridge.inspection._blend_simplex import best_point, simplex_grid
from skbridge.inspection._confusion import normalise_rows, pool_cells

mpl.use("Agg")
from matplotlib import pyplot as plt

NAMES = ["ant", "bee", "cat", "dog", "eel"]
TRAINED = {"mode": "trained", "solver": "adamw", "max_iter": 30, "learning_rate": 0.01}


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def make_head(n_classes=5, width=12, seed=0):
    rng = np.random.default_rng(seed)
    return TextHead.from_arrays(
        NAMES if n_classes == 5 else [f"class number {i}" for i in range(n_classes)],
        eos=rng.normal(size=(n_classes, 8)),
        projection=rng.normal(size=(8, width)),
    )


def make_images(head, n_images, seed=1, noise=0.25):
    rng = np.random.default_rng(seed)
    y = np.tile(np.arange(len(head)), n_images)
    X = 3 * head.text_features[y] + 1
    X += noise * 3 * rng.normal(size=X.shape)
    return X, np.array(head.classes)[y]


@pytest.fixture(scope="module")
def data():
    head = make_head()
    return head, make_images(head, 4), make_images(head, 6, seed=2)


def fit(data, kind=SeMoBridgeClassifier, **params):
    head, (X, y), _ = data
    if kind is SeMoBridgeClassifier:
        params = {"pinv_atol": 0.1, "lambda_3": 0.5} | params
    else:
        params = {"bridge_rank": 1.0} | params
    return kind(head, **params).fit(X, y)


@pytest.fixture(scope="module")
def trained(data):
    return {
        "without": fit(data, **TRAINED, lambda_b=0.0),
        "with": fit(data, **TRAINED, lambda_b=5.0),
    }


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def assert_no_overlap(figure):
    """No tick label touches the next one along its axis."""
    figure.draw_without_rendering()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            boxes = [
                label.get_window_extent()
                for label in axis.get_ticklabels()
                if label.get_visible() and label.get_text()
            ]
            for one, other in pairwise(boxes):
                assert not one.overlaps(other)


# What all of them share


def test_matplotlib_is_imported_by_plot_only():
    code = """
        import sys
        import skbridge
        assert "skbridge.inspection" not in sys.modules
        skbridge.inspection.ReliabilityDisplay
        import numpy as np
        display = skbridge.inspection.LossCurveDisplay(np.ones(3), {})
        assert not [name for name in sys.modules if name.startswith("matplotlib")]
        import matplotlib
        matplotlib.use("Agg")
        display.plot()
        assert "matplotlib.pyplot" in sys.modules
        assert "torch" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_a_missing_matplotlib_is_an_error_that_says_what_to_install():
    code = """
        import sys
        class Missing:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] == "matplotlib":
                    raise ModuleNotFoundError(name)
        sys.meta_path.insert(0, Missing())
        import numpy as np
        from skbridge.inspection import LossCurveDisplay
        try:
            LossCurveDisplay(np.ones(3), {}).plot()
        except ImportError as error:
            assert "LossCurveDisplay.plot needs matplotlib" in str(error), error
            assert 'pip install "skbridge[plots]"' in str(error), error
        else:
            raise AssertionError("plotted without matplotlib")
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_an_unknown_attribute_of_the_package_is_an_attribute_error():
    import skbridge

    with pytest.raises(AttributeError, match="no attribute 'inspektion'"):
        skbridge.inspektion  # noqa: B018


def test_public_subpackages_are_imported_at_their_first_use():
    code = """
        import skbridge
        for name in "baselines datasets inspection photos review scale".split():
            assert getattr(skbridge, name).__name__ == f"skbridge.{name}"
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


@pytest.mark.parametrize("display", [SimilarityDisplay, PrototypeConfusionDisplay])
def test_search_and_pipeline_show_what_their_classifier_does(data, display):
    head, (X, y), (X_query, y_query) = data
    search = FewShotSearchCV(SeMoBridgeClassifier(texts=head), n_settings=2)
    search.fit(X, y)
    pipeline = make_pipeline(FunctionTransformer(lambda X: np.array(X) / 2), search)
    pipeline.fit((2 * X).tolist(), y)
    shown = [
        vars(display.from_estimator(estimator, rows, y_query, plot=False))
        for estimator, rows in (
            (search.best_estimator_, X_query),
            (search, X_query),
            (pipeline, (2 * X_query).tolist()),
            (make_pipeline(search.best_estimator_), X_query),
        )
    ]
    for other in shown[1:]:
        for one, same in zip(shown[0].values(), other.values(), strict=True):
            assert_array_equal(str(one), str(same))


def test_other_estimators_are_refused(data):
    _, _, (X, y) = data
    with pytest.raises(TypeError, match=r"SimilarityDisplay takes.*got Perceptron"):
        SimilarityDisplay.from_estimator(Perceptron().fit(X, y), X, y)


@pytest.mark.parametrize(
    "estimator", [SeMoBridgeClassifier(), FewShotSearchCV(SeMoBridgeClassifier())]
)
def test_unfitted_estimators_are_refused(data, estimator):
    _, _, (X, y) = data
    with pytest.raises(NotFittedError, match=r"not fitted yet. Call 'fit'"):
        PrototypeConfusionDisplay.from_estimator(estimator, X, y)


@pytest.mark.parametrize(
    "display", [SimilarityDisplay, PrototypeConfusionDisplay, BlendSimplexDisplay]
)
def test_labels_must_be_known_and_fit_the_rows(data, display):
    _, _, (X, y) = data
    classifier = fit(data)
    with pytest.raises(ValueError, match=r"labels 'fox', .*knows 5"):
        display.from_estimator(classifier, X, np.where(y == "ant", "fox", y))
    with pytest.raises(ValueError, match=r"each of the 30 rows of X, got shape"):
        display.from_estimator(classifier, X, y[1:])


@pytest.mark.parametrize("display", [BiasNormDisplay, ReliabilityDisplay])
def test_several_estimators_come_in_a_dict_of_some(data, display):
    rest = data[2] if display is ReliabilityDisplay else ()
    with pytest.raises(TypeError, match="takes a dict of name -> fitted estimator"):
        display.from_estimators([fit(data)], *rest)
    with pytest.raises(ValueError, match="got an empty dict"):
        display.from_estimators({}, *rest)


def test_another_number_of_axes_is_refused(data):
    _, _, (X, y) = data
    _, axes = plt.subplots(1, 2)
    with pytest.raises(ValueError, match=r"must be 3 axes.*got 2"):
        SimilarityDisplay.from_estimator(fit(data), X, y, ax=axes)


def test_displays_plot_on_axes_that_they_are_given(data, trained):
    _, _, (X, y) = data
    figure, axes = plt.subplots(4, 3)
    classifier = fit(data)
    one = SimilarityDisplay.from_estimator(classifier, X, y, ax=axes[0])
    two = BiasNormDisplay.from_estimators(trained, ax=axes[1, :2])
    three = ReliabilityDisplay.from_estimator(classifier, X, y, ax=axes[2, :2])
    four = LossCurveDisplay(np.ones(3), {}).plot(axes[3, 0])
    five = BlendSimplexDisplay.from_estimator(classifier, X, y, ax=axes[3, 1])
    six = PrototypeConfusionDisplay.from_estimator(
        classifier, X, y, ax=[axes[1, 2], axes[2, 2]]
    )
    assert all(d.figure_ is figure for d in (one, two, three, four, five, six))
    assert_array_equal(one.axes_, axes[0])
    assert_array_equal(four.axes_, [axes[3, 0]])
    assert five.ax_ is axes[3, 1]


# SimilarityDisplay


@pytest.mark.parametrize("kind", [SeMoBridgeClassifier, BridgedGDAClassifier])
def test_similarity_counts_every_pair_once_and_in_its_bin(data, kind):
    head_, _, (X, y) = data
    classifier = fit(data, kind)
    display = SimilarityDisplay.from_estimator(classifier, X, y, plot=False)
    projection = head_.projection.astype(np.float64)
    _, s, vt = np.linalg.svd(projection)
    rows = vt[: len(s)][s > 0.1]
    q = unit(X)
    cosines = {
        "image, image": q @ q.T,
        "image, bridged image": q @ unit(X @ rows.T @ rows).T,
        "image, class text": q @ head_.text_features.T,
    }
    assert list(display.paired) == list(cosines)
    for name, expected in cosines.items():
        columns = np.array(head_.classes) if name == "image, class text" else y
        same = y[:, None] == columns
        counted = np.ones_like(same)
        if columns is y:
            np.fill_diagonal(counted, False)
        for counts, kind in (
            (display.paired[name], same & counted),
            (display.unpaired[name], ~same),
        ):
            assert counts.sum() == kind.sum()
            histogram, _ = np.histogram(expected[kind], display.bin_edges)
            # Rounding may put a cosine on the other side of an edge.
            assert np.abs(np.cumsum(counts) - np.cumsum(histogram)).max() <= 1
        auc = roc_auc_score(same[counted], expected[counted])
        assert display.separation[name] == pytest.approx(auc, abs=2e-3)


def test_similarity_is_the_same_in_one_block_of_rows_and_in_many(data, monkeypatch):
    _, _, (X, y) = data
    classifier = fit(data)
    whole = SimilarityDisplay.from_estimator(classifier, X, y, plot=False)
    monkeypatch.setattr("skbridge.inspection._similarity._ROWS_AT_ONCE", 7)
    parts = SimilarityDisplay.from_estimator(classifier, X, y, plot=False)
    for name in whole.paired:
        assert whole.paired[name].sum() == parts.paired[name].sum()
        assert whole.separation[name] == pytest.approx(parts.separation[name], abs=1e-3)


def test_similarity_without_texts_compares_images_alone(data):
    _, (X, y), (X_query, y_query) = data
    classifier = SeMoBridgeClassifier(texts=None).fit(X, y)
    display = SimilarityDisplay.from_estimator(classifier, X_query, y_query)
    assert list(display.paired) == ["image, image", "image, bridged image"]
    assert len(display.axes_) == 2


@pytest.mark.parametrize("rows", [[0, 1, 2], [0, 5, 10]])
def test_similarity_needs_pairs_of_both_kinds(data, rows):
    _, _, (X, y) = data
    with pytest.raises(ValueError, match=r"Got 3 images of [13] classes"):
        SimilarityDisplay.from_estimator(fit(data), X[rows], y[rows])


def test_similarity_draws_densities_that_integrate_to_one(data):
    _, _, (X, y) = data
    display = SimilarityDisplay.from_estimator(fit(data), X, y, n_bins=20)
    for axes in display.axes_:
        for patch in axes.patches:
            values, edges, _ = patch.get_data()
            assert (values * np.diff(edges)).sum() == pytest.approx(1)
            assert len(values) <= 20
    assert display.axes_[0].get_xlabel() == "Cosine similarity"
    assert_no_overlap(display.figure_)


# BiasNormDisplay


def test_bias_norms_are_those_of_the_classifiers(trained):
    display = BiasNormDisplay.from_estimators(trained)
    assert_array_equal(display.classes, NAMES)
    for axes, (name, classifier) in zip(display.axes_, trained.items(), strict=True):
        expected = np.sqrt((classifier.class_bias_**2).sum(axis=1))
        assert_allclose(display.norms[name], expected)
        points = axes.collections[0].get_offsets()
        assert_allclose(points[:, 1], expected)
        assert f"mean {expected.mean():.3g}" in axes.get_title()
        assert name in axes.get_title()
    assert [t.get_text() for t in display.axes_[0].get_xticklabels()] == NAMES


def test_bias_norm_of_one_classifier_is_named_by_its_regulariser(trained):
    display = BiasNormDisplay.from_estimator(trained["with"], plot=False)
    assert list(display.norms) == ["lambda_b = 5"]
    named = BiasNormDisplay.from_estimator(trained["with"], name="CSB", plot=False)
    assert list(named.norms) == ["CSB"]


@pytest.mark.parametrize("params", [{}, {**TRAINED, "csb": False}])
def test_bias_norm_needs_a_learned_bias(data, params):
    with pytest.raises(ValueError, match=r"class_bias_ is zero.*Fit it with mode='tra"):
        BiasNormDisplay.from_estimator(fit(data, **params))


def test_bias_norms_are_of_the_same_classes(data, trained):
    head, (X, y), _ = data
    fewer = SeMoBridgeClassifier(texts=head, **TRAINED).fit(
        X[y != "ant"], y[y != "ant"]
    )
    with pytest.raises(ValueError, match=r"'fewer' \(4\) differ from .*'with' \(5\)"):
        BiasNormDisplay.from_estimators({"with": trained["with"], "fewer": fewer})


# PrototypeConfusionDisplay


def test_confusion_counts_nearest_plain_and_bridged_prototypes(data):
    head, (X, y), (X_query, y_query) = data
    classifier = fit(data, lambda_3=0.0)
    display = PrototypeConfusionDisplay.from_estimator(classifier, X_query, y_query)
    _, s, vt = np.linalg.svd(head.projection.astype(np.float64))
    rows = vt[: len(s)][s > 0.1]
    for name, shots in (
        ("plain prototypes", X),
        ("bridged prototypes", unit(X @ rows.T) @ rows),
    ):
        means = np.array([shots[y == label].mean(axis=0) for label in NAMES])
        predicted = np.array(NAMES)[(X_query @ unit(means).T).argmax(axis=1)]
        expected = confusion_matrix(y_query, predicted, labels=NAMES)
        assert_array_equal(display.confusion_matrices[name], expected)
        assert display.accuracy[name] == accuracy_score(y_query, predicted)
    drawn = display.axes_[1].images[0].get_array()
    assert_allclose(drawn, expected / expected.sum(axis=1, keepdims=True))
    assert f"{100 * display.accuracy[name]:.1f} %" in display.axes_[1].get_title()


def test_confusion_from_predictions_shows_the_classes_asked_for():
    display = PrototypeConfusionDisplay.from_predictions(
        [0, 1, 1], {"plain": [0, 1, 2]}, plot=False
    )
    assert_array_equal(display.classes, [0, 1, 2])
    display = PrototypeConfusionDisplay.from_predictions(
        [0, 1, 1], {"plain": [0, 1, 0]}, classes=[1, 0, 5]
    )
    assert_array_equal(
        display.confusion_matrices["plain"], [[1, 1, 0], [0, 1, 0], 3 * [0]]
    )
    assert_allclose(display.axes_[0].images[0].get_array()[0], [0.5, 0.5, 0])


def test_confusion_takes_predictions_by_name():
    with pytest.raises(TypeError, match="predictions must be a dict of method"):
        PrototypeConfusionDisplay.from_predictions([0, 1], [0, 1])


def test_pooled_cells_are_mean_shares_of_groups_of_classes():
    rng = np.random.default_rng(0)
    shares = normalise_rows(rng.integers(0, 9, size=(7, 7)))
    pooled = pool_cells(shares, 3)
    groups = [slice(0, 3), slice(3, 6), slice(6, 7)]
    expected = [[shares[r, c].sum(axis=1).mean() for c in groups] for r in groups]
    assert_allclose(pooled, expected)
    assert_allclose(pool_cells(shares, 1), shares)
    assert_array_equal(normalise_rows(np.zeros((2, 2))), np.zeros((2, 2)))


@pytest.mark.parametrize(("n_classes", "named"), [(37, True), (1000, False)])
def test_class_labels_do_not_overlap_whatever_the_number_of_classes(n_classes, named):
    classes = [f"a class of rather long name, {i}" for i in range(n_classes)]
    display = PrototypeConfusionDisplay.from_predictions(
        classes, {"plain": classes, "bridged": classes[::-1]}, classes=classes
    )
    first = display.axes_[0]
    assert (len(first.get_xticklabels()) == n_classes) == named
    assert (first.get_xlabel() == "Predicted class") == named
    assert ("groups of 5" in first.get_ylabel()) != named
    norms = BiasNormDisplay({"a": np.ones(n_classes), "b": np.ones(n_classes)}, classes)
    norms.plot()
    assert (len(norms.axes_[1].get_xticklabels()) == n_classes) == named
    if not named:
        # Rotated names only seem to overlap: matplotlib's boxes have a margin.
        assert_no_overlap(display.figure_)
        assert_no_overlap(norms.figure_)


# BlendSimplexDisplay


@pytest.mark.parametrize(
    "params",
    [
        {"lambda_2": 0.5},
        {"lambda_3": "auto"},
        {"blending": "exponential", "alpha": 2.0, "smoothness": 0.5},
    ],
)
def test_simplex_accuracy_is_that_of_a_classifier_with_those_weights(data, params):
    _, _, (X_query, y_query) = data
    classifier = fit(data, **params)
    display = BlendSimplexDisplay.from_estimator(
        classifier, X_query, y_query, n_steps=4, plot=False
    )
    assert len(display.lambdas) == 15
    for lambdas, accuracy in zip(display.lambdas, display.accuracy, strict=True):
        other = fit(
            data,
            **params
            | dict(zip(["lambda_1", "lambda_2", "lambda_3"], lambdas, strict=True)),
        )
        assert accuracy == other.score(X_query, y_query)
    assert display.best_accuracy == display.accuracy.max()
    assert display.estimator_accuracy == classifier.score(X_query, y_query)
    assert display.estimator_lambdas.sum() == pytest.approx(1)


def test_simplex_is_the_same_in_one_block_of_rows_and_in_many(data, monkeypatch):
    _, _, (X, y) = data
    classifier = fit(data)
    whole = BlendSimplexDisplay.from_estimator(classifier, X, y, plot=False)
    monkeypatch.setattr("skbridge.inspection._blend_simplex._FLOATS_AT_ONCE", 35)
    parts = BlendSimplexDisplay.from_estimator(classifier, X, y, plot=False)
    assert_array_equal(whole.accuracy, parts.accuracy)


def test_simplex_grid_holds_every_triple_once():
    grid = simplex_grid(5)
    assert grid.shape == (21, 3)
    assert_allclose(grid.sum(axis=1), 1)
    assert grid.min() == 0
    assert len(np.unique(grid.round(6), axis=0)) == 21


def test_the_best_point_lies_inside_its_plateau():
    lambdas = simplex_grid(2)
    accuracy = np.full(6, 0.5)
    accuracy[0] = 0.4
    centre = lambdas[1:].mean(axis=0)
    nearest = np.linalg.norm(lambdas[1:] - centre, axis=1).argmin() + 1
    assert best_point(lambdas, accuracy) == nearest
    accuracy[0] = 0.6
    assert best_point(lambdas, accuracy) == 0


def test_simplex_marks_the_best_point_in_the_triangle(data):
    _, _, (X, y) = data
    display = BlendSimplexDisplay.from_estimator(fit(data), X, y, n_steps=5)
    best = next(line for line in display.ax_.lines if "best" in line.get_label())
    x, height = best.get_xydata()[0]
    lambda_1, _, lambda_3 = display.best_lambdas
    assert_allclose([x, height], [lambda_1 / 2 + lambda_3, lambda_1 * np.sqrt(0.75)])
    assert f"{100 * display.best_accuracy:.1f} %" in best.get_label()
    assert display.colorbar_.ax.get_ylabel() == "Accuracy on the images given (%)"


def test_simplex_needs_texts_and_a_number_of_steps(data):
    _, (X, y), _ = data
    for params in ({}, {"lambda_1": 0}):
        plain = SeMoBridgeClassifier(texts=None, **params).fit(X, y)
        with pytest.raises(ValueError, match=r"no class texts, so no z1. Fit one with"):
            BlendSimplexDisplay.from_estimator(plain, X, y)
    for n_steps in (0, 2.5):
        with pytest.raises(ValueError, match=f"positive int, got {n_steps} instead"):
            BlendSimplexDisplay.from_estimator(fit(data), X, y, n_steps=n_steps)


# LossCurveDisplay


def test_loss_curves_are_drawn_as_they_are(trained):
    classifier = trained["with"]
    terms = {"bias": np.linspace(1, 3, 30), "image": np.linspace(2, 1, 30)}
    display = LossCurveDisplay(classifier.loss_curve_, terms).plot()
    titles = [axes.get_title() for axes in display.axes_]
    assert titles == ["total, weighted", "image", "variance of bias norms"]
    for axes, curve in zip(
        display.axes_,
        (classifier.loss_curve_, terms["image"], terms["bias"]),
        strict=True,
    ):
        assert_array_equal(axes.lines[0].get_ydata(), curve)
        assert axes.get_xlabel() == "Training step"
    assert_no_overlap(display.figure_)
    alone = LossCurveDisplay(np.ones(3), {}).plot()
    assert len(alone.axes_) == 1


def test_weighted_loss_terms_add_up_to_the_curve(data):
    weights = {"lambda_it": 0.3, "lambda_c": 0.2, "lambda_b": 0.7}
    classifier = fit(data, **TRAINED, **weights)
    display = LossCurveDisplay.from_estimator(classifier)
    terms = display.loss_terms
    assert len(display.axes_) == 6
    total = (
        0.3 * terms["image"]
        + 0.7 * (terms["text_eos"] + terms["text_joint"]) / 2
        + 0.2 * terms["consistency"]
        + 0.7 * terms["bias"]
    )
    assert_allclose(total, display.loss_curve)


def test_loss_curve_needs_training(data):
    with pytest.raises(ValueError, match="mode is 'closed_form'; fit it with mode='tr"):
        LossCurveDisplay.from_estimator(fit(data))
    _, (X, y), _ = data
    one_shot = SeMoBridgeClassifier(None, mode="trained").fit(X[:5], y[:5])
    with pytest.raises(ValueError, match="early stopping took no step"):
        LossCurveDisplay.from_estimator(one_shot)


# ReliabilityDisplay


def test_reliability_bins_are_plain_means(data):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, size=200)
    proba = rng.dirichlet(np.ones(4), size=200)
    display = ReliabilityDisplay.from_predictions(y, proba, range(4), n_bins=7)
    count, confidence, accuracy = display.curves["classifier"]
    top, hit = proba.max(axis=1), proba.argmax(axis=1) == y
    error = 0.0
    for i in range(7):
        rows = (top > i / 7) & (top <= (i + 1) / 7)
        assert count[i] == rows.sum()
        if rows.any():
            assert confidence[i] == pytest.approx(top[rows].mean())
            assert accuracy[i] == pytest.approx(hit[rows].mean())
            error += rows.mean() * abs(top[rows].mean() - hit[rows].mean())
        else:
            assert np.isnan(accuracy[i])
    assert display.calibration_error["classifier"] == pytest.approx(error)
    legend = [text.get_text() for text in display.axes_[0].get_legend().get_texts()]
    assert f"classifier (ECE {100 * error:.1f} %)" in legend
    heights, _, _ = display.axes_[1].patches[0].get_data()
    assert_allclose(heights, 100 * count / 200)


def test_reliability_of_certain_predictions_is_in_the_last_bin():
    display = ReliabilityDisplay.from_predictions(
        ["a", "c"], [[1.0, 0.0], [0.0, 1.0]], ["a", "b"], plot=False
    )
    assert display.curves["classifier"][0][-1] == 2
    assert display.calibration_error["classifier"] == 0.5


def test_reliability_judges_several_classifiers_on_one_diagram(data):
    _, _, (X, y) = data
    classifiers = {"plain": fit(data), "sharp": fit(data, temperature=1000.0)}
    display = ReliabilityDisplay.from_estimators(classifiers, X, y)
    for name, classifier in classifiers.items():
        alone = ReliabilityDisplay.from_estimator(classifier, X, y, plot=False)
        assert (
            display.calibration_error[name]
            == alone.calibration_error["SeMoBridgeClassifier"]
        )
    assert len(display.axes_[0].lines) == 3
    named = ReliabilityDisplay.from_estimator(
        classifiers["sharp"], X, y, name="mine", n_bins=5, ax=display.axes_
    )
    assert len(named.curves["mine"][0]) == 5


def test_reliability_needs_probabilities(data):
    _, _, (X, y) = data
    with pytest.raises(TypeError, match="needs classifiers with predict_proba, but 'P"):
        ReliabilityDisplay.from_estimator(Perceptron().fit(X, y), X, y)
    with pytest.raises(ValueError, match=r"values from -2 to 3. Pass predict_proba"):
        ReliabilityDisplay.from_predictions([0], [[-2.0, 3.0]], [0, 1])
    with pytest.raises(ValueError, match=r"\(2, 2\), with at least one row; got sha"):
        ReliabilityDisplay.from_predictions([0, 1], [[0.5, 0.5]], [0, 1])


# QueryExplanationDisplay

EXPLAINED = {
    "linear": {"lambda_2": 0.4, "lambda_3": 0.7},
    "exponential": {"blending": "exponential", "lambda_2": 0.4, "smoothness": 0.3},
    "trained": {**TRAINED, "lambda_2": 0.2},
    "gda": {"kind": BridgedGDAClassifier},
}


def explain(data, classifier, query=3, **kwargs):
    _, (X, y), (X_query, _) = data
    return QueryExplanationDisplay.from_estimator(
        classifier, X_query[query], X, y, **{"plot": False} | kwargs
    )


@pytest.mark.parametrize("params", EXPLAINED.values(), ids=EXPLAINED)
def test_terms_add_up_to_the_scores(data, params):
    _, _, (X, _) = data
    classifier = fit(data, **params)
    scores = classifier.decision_function(X[3:4])[0]
    display = explain(data, classifier)
    assert_allclose(display.terms.sum(axis=0), scores)
    assert display.prediction == classifier.predict(X[3:4])[0]
    second, first = np.argsort(scores)[-2:]
    assert display.runner_up == NAMES[second]
    assert_allclose(display.score_share, display.terms[:, first] / scores[first])
    assert_allclose(display.score_share.sum(), 1)
    margin = display.terms[:, first] - display.terms[:, second]
    assert_allclose(display.margin_share, margin / (scores[first] - scores[second]))


@pytest.mark.parametrize("params", [EXPLAINED["linear"], EXPLAINED["trained"]])
def test_linear_terms_are_weighted_cosines(data, params):
    _, _, (X, _) = data
    classifier = fit(data, **params)
    z = np.concatenate(classifier.component_logits(X[3:4]))
    lambdas = [1.0, classifier.lambda_2, classifier.lambda_3]
    assert_allclose(explain(data, classifier).terms, np.array(lambdas)[:, None] * z)


@pytest.mark.parametrize("name", ["linear", "exponential", "trained"])
def test_shots_and_text_share_the_score_without_remainder(data, name):
    classifier = fit(data, **EXPLAINED[name])
    display = explain(data, classifier)
    for label, (rows, parts) in display.shots.items():
        assert_array_equal(rows, np.flatnonzero(data[1][1] == label))
        k = NAMES.index(label)
        # What the shots leave is the text's, and the text's is the term of z1.
        assert_allclose(parts.sum(), display.terms[1:, k].sum())
        assert_allclose(display.text_part[label], display.terms[0, k])


def test_the_part_of_a_shot_is_its_summand_of_the_cosines(data):
    head, (X, y), (X_query, _) = data
    display = explain(data, fit(data, lambda_2=0.4, lambda_3=0.7))
    _, s, vt = np.linalg.svd(head.projection)
    rows = vt[: len(s)][s > 0.1]
    query = unit(X_query[3:4])[0]
    for label, (_, parts) in display.shots.items():
        shots = X[y == label]
        # All tokens are scaled to one length before they are projected.
        bridged = unit(shots @ np.linalg.pinv(head.projection)) @ head.projection
        bridged_query = unit(query[None] @ rows.T)[0] @ rows
        z2 = shots @ bridged_query / np.linalg.norm(shots.sum(axis=0))
        z3 = bridged @ query / np.linalg.norm(bridged.sum(axis=0))
        assert_allclose(parts, 0.4 * z2 + 0.7 * z3)


def test_the_text_is_two_more_shots_of_gda(data):
    _, (X, y), (X_query, _) = data
    classifier = fit(data, **EXPLAINED["gda"])
    display = explain(data, classifier)
    metric, centre = classifier.metric_, classifier.centre_
    own = unit((unit(X_query[3:4]) - centre) @ metric)[0]
    texts = classifier.text_head_.text_features
    offsets = classifier.text_gain_ * (texts - texts.mean(axis=0))
    means = np.array([unit(X[y == label]).mean(axis=0) for label in NAMES]) - centre
    for label in display.shots:
        k = NAMES.index(label)
        both = (4 * means[k] + 2 * offsets[k]) @ metric
        share = 2 * offsets[k] @ metric @ own / np.linalg.norm(both)
        _, _, lambda_3 = classifier.blend_.lambdas
        expected = display.terms[0, k] + lambda_3 * share
        assert_allclose(display.text_part[label], expected)


def test_without_texts_the_shots_are_all(data):
    _, (X, y), (X_query, _) = data
    for classifier in (
        SeMoBridgeClassifier(None, lambda_2=0.5),
        BridgedGDAClassifier(None),
    ):
        display = QueryExplanationDisplay.from_estimator(
            classifier.fit(X, y), X_query[:1], X, y
        )
        assert_array_equal(display.terms[0], 0)
        assert_allclose(list(display.text_part.values()), 0, atol=1e-12)
        assert list(display.prompts.values()) == [None, None]


def test_a_shot_of_weight_two_has_the_part_of_two_shots(data):
    head, (X, y), (X_query, _) = data
    weight = np.tile([2.0, 1.0, 0.0, 1.0, 1.0], 4)
    classifier = SeMoBridgeClassifier(texts=head, lambda_2=0.5)
    weighted = QueryExplanationDisplay.from_estimator(
        classifier.fit(X[weight > 0], y[weight > 0], weight[weight > 0]),
        X_query[0],
        X[weight > 0],
        y[weight > 0],
        sample_weight=weight[weight > 0],
        plot=False,
    )
    rows = np.repeat(np.arange(20), weight.astype(int))
    repeated = QueryExplanationDisplay.from_estimator(
        classifier.fit(X[rows], y[rows]), X_query[0], X[rows], y[rows], plot=False
    )
    assert list(weighted.shots) == list(repeated.shots)
    assert "ant" in weighted.shots
    _, parts = weighted.shots["ant"]
    assert_allclose(np.repeat(parts / 2, 2), repeated.shots["ant"][1])


def test_other_shots_than_those_of_the_fit_are_refused(data):
    _, (X, y), (X_query, _) = data
    classifier = fit(data)
    for shots, weight in ((X[::-1], None), (X, np.full(20, 2.0))):
        with pytest.raises(ValueError, match=r"must be the shots .* Pass what fit was"):
            QueryExplanationDisplay.from_estimator(
                classifier, X_query[0], shots, y, sample_weight=weight
            )
    rest = y != classifier.predict(X_query[:1])[0]
    with pytest.raises(ValueError, match="there are 0 of summed weight 0"):
        QueryExplanationDisplay.from_estimator(classifier, X_query[0], X[rest], y[rest])


def test_several_queries_are_refused(data):
    _, (X, y), (X_query, _) = data
    with pytest.raises(ValueError, match=r"query must be one .* got shape \(2, 12\)"):
        QueryExplanationDisplay.from_estimator(fit(data), X_query[:2], X, y)


def test_explanation_of_a_pipeline_takes_one_row_of_its_input(data):
    head, (X, y), (X_query, _) = data
    pipeline = make_pipeline(
        FunctionTransformer(lambda X: np.array(X) / 2),
        SeMoBridgeClassifier(head, pinv_atol=0.1, lambda_3=0.5),
    ).fit((2 * X).tolist(), y)
    through = QueryExplanationDisplay.from_estimator(
        pipeline, (2 * X_query[3]).tolist(), (2 * X).tolist(), y, plot=False
    )
    assert_allclose(through.terms, explain(data, fit(data)).terms)


def test_explanation_draws_the_terms_and_the_images_that_decided(data):
    images = np.random.default_rng(0).integers(0, 255, (20, 4, 4, 3), dtype=np.uint8)
    classifier = fit(data, lambda_2=0.4)
    display = explain(
        data, classifier, plot=True, image=images[0], shot_images=images, n_classes=4
    )
    scores, margin = display.axes_
    widths = np.array([bar.get_width() for bar in scores.patches]).reshape(3, 4)
    order = np.argsort(-display.terms.sum(axis=0))
    assert_allclose(widths, display.terms[:, order[:4]])
    assert_allclose(
        [bar.get_width() for bar in margin.patches],
        display.terms[:, order[0]] - display.terms[:, order[1]],
    )
    drawn = [axes.images[0].get_array() for axes in display.figure_.axes if axes.images]
    assert len(drawn) == 7
    assert_array_equal(drawn[0], images[0])
    for i, (rows, parts) in enumerate(display.shots.values()):
        best = rows[np.argsort(-parts)]
        for array, row in zip(drawn[1 + 3 * i :], best[:3], strict=False):
            assert_array_equal(array, images[row])
    assert scores.get_xlabel() == "Score, by term"
    assert_no_overlap(display.figure_)


def test_explanation_without_images_names_the_shots(data):
    prompts = tuple(f"a photo of a dog, number {i}" for i in range(5))
    display = QueryExplanationDisplay(
        np.array(["cat", "dog"]),
        np.array([[0.2, 0.2], [-0.1, -0.1], [0.1, 0.1]]),
        {"cat": (np.array([4]), np.array([0.0])), "dog": (np.array([7]), np.zeros(1))},
        {"cat": None, "dog": prompts},
    ).plot()
    texts = [t.get_text() for t in display.figure_.findobj(mpl.text.Text)]
    assert "shot 4" in texts
    assert "the class text" in texts
    assert any("+ 3 more" in text for text in texts)
    assert "z1 (tie)" in texts
    assert np.isnan(display.margin_share).all()
    # The negative part lies left of zero, and the positive ones are stacked.
    lefts = [bar.get_x() for bar in display.axes_[0].patches]
    assert_allclose(lefts, [0, 0, 0, 0, 0.2, 0.2])


def test_explanation_draws_scores_alone_on_axes_given(data):
    figure, axes = plt.subplots(1, 2)
    display = explain(data, fit(data), plot=True, ax=axes)
    assert display.figure_ is figure
    assert len(figure.axes) == 2
