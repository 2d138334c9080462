"""Helpers of all displays: checks of estimators and labels, axes, colours."""

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from skbridge._classifiers.bridged import BridgedClassifier
from skbridge._classifiers.semobridge import SeMoBridgeClassifier
from skbridge._messages import shown
from skbridge._search.search_cv import FewShotSearchCV

# Colours of Okabe and Ito, which colour-blind readers can tell apart. Black is for
# reference lines and totals.
BLUE, ORANGE, GREEN = "#0072B2", "#E69F00", "#009E73"
COLOURS = (BLUE, ORANGE, GREEN, "#CC79A7", "#D55E00", "#56B4E9")
# For shares and accuracies: uniform in lightness, and safe for colour-blind readers.
COLOUR_MAP = "cividis"

# Points of height that a class name needs as a tick label.
_NAME_HEIGHT = 6.5
_LONGEST_NAME = 26


def import_pyplot(display):
    """Return matplotlib.pyplot, or say how to install it.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError(
            f"{type(display).__name__}.plot needs matplotlib, which is not installed. "
            'Install it with: pip install "skbridge[plots]"'
        ) from error
    return pyplot


def check_classifier(estimator, display, *, only_semobridge=False):
    """Find the fitted classifier in a search or a pipeline.

    Parameters
    ----------
    estimator : estimator
        A bridged classifier, a FewShotSearchCV over one, or a Pipeline that ends in
        either.
    display : type
        The display, whose name is used in errors.
    only_semobridge : bool, default=False
        Whether to refuse a BridgedGDAClassifier.

    Returns
    -------
    classifier : SeMoBridgeClassifier or BridgedGDAClassifier
    embed : callable
        From the estimator's X to embeddings.

    Raises
    ------
    TypeError
        If there is no such classifier.
    NotFittedError
        If it is not fitted.
    """

    def embed(X):
        return np.asarray(X)

    classifier = estimator
    if isinstance(classifier, Pipeline):
        if len(classifier) > 1:
            embed = classifier[:-1].transform
        classifier = classifier[-1]
    if isinstance(classifier, FewShotSearchCV):
        check_is_fitted(classifier, "best_estimator_")
        classifier = classifier.best_estimator_
    kind = SeMoBridgeClassifier if only_semobridge else BridgedClassifier
    if not isinstance(classifier, kind):
        also = "" if only_semobridge else " or BridgedGDAClassifier"
        raise TypeError(
            f"{display.__name__} takes a fitted SeMoBridgeClassifier{also}, a "
            "FewShotSearchCV over one, or a Pipeline that ends in either; got "
            f"{type(classifier).__name__}."
        )
    check_is_fitted(classifier)
    return classifier, embed


def check_estimators(estimators, display):
    """Refuse anything but a mapping from names to estimators.

    Raises
    ------
    TypeError, ValueError
        If it is not a mapping, or is empty.
    """
    if not hasattr(estimators, "items"):
        raise TypeError(
            f"{display.__name__}.from_estimators takes a dict of name -> fitted "
            f"estimator, got {type(estimators).__name__}. For a single estimator "
            "use from_estimator."
        )
    if not estimators:
        raise ValueError(
            f"{display.__name__}.from_estimators got an empty dict; give at least one "
            "fitted estimator, {name: estimator}."
        )


def class_codes(y, classes, n_rows):
    """Position of each label in `classes`, which are sorted.

    Raises
    ------
    ValueError
        If y has another length than `n_rows`, or a label outside `classes`.
    """
    y = np.asarray(y)
    if y.shape != (n_rows,):
        raise ValueError(
            f"y must have one label for each of the {n_rows} rows of X, got shape "
            f"{y.shape}."
        )
    unknown = np.setdiff1d(y, classes)
    if len(unknown):
        raise ValueError(
            f"y has the labels {shown(unknown.tolist())}, which the estimator was not "
            f"fitted on; it knows {len(classes)} classes. Leave those rows out, or fit "
            "on shots of those classes too."
        )
    return np.searchsorted(classes, y)


def make_axes(display, ax, n_panels, panel_size=None, **subplots_kw):
    """Make a figure with axes for the panels, or use the given axes.

    Parameters
    ----------
    display : object
        The display that plots.
    ax : None, Axes, or array-like of Axes
    n_panels : int
    panel_size : tuple of two floats
        Width and height of a new panel, in inches; unused if `ax` is given.
    **subplots_kw
        Arguments of ``pyplot.subplots`` for new axes.

    Returns
    -------
    figure : Figure
    axes : ndarray of shape (n_panels,), Axes

    Raises
    ------
    ValueError
        If the number of given axes is not `n_panels`.
    """
    pyplot = import_pyplot(display)
    if ax is None:
        width, height = panel_size
        figure, axes = pyplot.subplots(
            1,
            n_panels,
            figsize=(width * n_panels, height),
            squeeze=False,
            **{"layout": "constrained"} | subplots_kw,
        )
        return figure, axes[0]
    axes = np.asarray(ax, dtype=object).ravel()
    if len(axes) != n_panels:
        raise ValueError(
            f"ax must be {n_panels} axes, one per panel of this "
            f"{type(display).__name__}; got {len(axes)}. Make them with "
            f"plt.subplots(1, {n_panels}), or leave ax=None."
        )
    return axes[0].figure, axes


def label_classes(many_axes, names, sides="x"):
    """Label the class axis with class names if they fit, otherwise with positions.

    Otherwise the ticks are positions of classes.

    Parameters
    ----------
    many_axes : sequence of Axes
        Axes of one figure and of one size.
    names : sequence
        One label per class.
    sides : {"x", "xy"}
        ``"xy"`` also labels the vertical axis of the first axes.
    """
    first = many_axes[0]
    figure = first.figure
    # The size of the axes is known only after the layout.
    figure.draw_without_rendering()
    box = first.get_window_extent()
    points = box.width * 72 / figure.dpi / len(names)
    labelled = [axes.xaxis for axes in many_axes]
    if sides == "xy":
        labelled.append(first.yaxis)
    for axis in labelled:
        if points < _NAME_HEIGHT:
            axis.axes.locator_params(axis=axis.axis_name, integer=True)
            axis.set_label_text(f"{axis.get_label_text()} (position in classes_)")
            continue
        axis.set_ticks(
            np.arange(len(names)),
            [shorten(name, _LONGEST_NAME) for name in names],
            rotation=90 if axis.axis_name == "x" else 0,
            fontsize=min(9.0, 0.9 * points),
        )
    # The labels make the axes smaller: lay out again.
    figure.draw_without_rendering()


def shorten(name, most):
    """Text of a label, cut to `most` characters."""
    name = str(name)
    return name if len(name) <= most else f"{name[: most - 1].rstrip()}…"
