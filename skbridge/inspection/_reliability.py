"""ReliabilityDisplay: accuracy of predictions against their probability."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skbridge.inspection._common import (
    COLOURS,
    check_estimators,
    import_pyplot,
    make_axes,
)

_MARKERS = "osD^vP"


def reliability_curve(hit, confidence, n_bins):
    """Accuracy and mean confidence in bins of equal width.

    Parameters
    ----------
    hit : ndarray of shape (n_samples,), bool
        Whether the most probable class is the true one.
    confidence : ndarray of shape (n_samples,)
        Its probability.
    n_bins : int

    Returns
    -------
    count : ndarray of shape (n_bins,), int
    confidence, accuracy : ndarray of shape (n_bins,)
        Means over the samples of a bin; NaN for an empty bin.
    """
    # A bin includes its upper edge, so that 1 is in the last bin.
    bins = np.clip(np.ceil(confidence * n_bins).astype(int) - 1, 0, n_bins - 1)
    count = np.bincount(bins, minlength=n_bins)
    some = np.where(count > 0, count, np.nan)
    return (
        count,
        np.bincount(bins, weights=confidence, minlength=n_bins) / some,
        np.bincount(bins, weights=hit, minlength=n_bins) / some,
    )


def calibration_error(count, confidence, accuracy):
    """Average the gaps of the bins, weighted by samples: the ECE."""
    return float(np.nansum(count * np.abs(accuracy - confidence)) / count.sum())


class ReliabilityDisplay:
    """Reliability diagram: accuracy against confidence, and how often each occurs.

    The confidence of a prediction is the probability of its class. On the diagonal,
    80 % of the predictions with confidence 0.8 are correct. Below the diagonal the
    classifier is overconfident, and above it underconfident.

    It is recommended to use :meth:`from_estimator`, :meth:`from_estimators` or
    :meth:`from_predictions`. All parameters are stored as attributes.

    Parameters
    ----------
    curves : dict of str -> (count, confidence, accuracy)
        By name of the classifier three ndarrays of shape (n_bins,): number of
        samples, mean confidence and accuracy in bins of equal width from 0 to 1. The
        means of an empty bin are NaN.

    Attributes
    ----------
    calibration_error : dict of str -> float
        Expected calibration error: the mean over samples of the gap between accuracy
        and mean confidence of their bin.
    axes_ : ndarray of two Axes
        The diagram and, below it, the histogram of confidences, once plotted.
    figure_ : Figure
        Once plotted.

    See Also
    --------
    skbridge.FewShotSearchCV : Chooses the temperature on held-out shots.

    Examples
    --------
    >>> from skbridge.inspection import ReliabilityDisplay
    >>> display = ReliabilityDisplay.from_predictions(
    ...     ["cat", "dog"], [[0.8, 0.2], [0.8, 0.2]], ["cat", "dog"], plot=False
    ... )
    >>> round(display.calibration_error["classifier"], 3)
    0.3
    """

    def __init__(self, curves):
        self.curves = curves

    @property
    def calibration_error(self):
        """Expected calibration error of each classifier."""
        return {name: calibration_error(*curve) for name, curve in self.curves.items()}

    @classmethod
    def from_estimator(
        cls, estimator, X, y, *, name=None, n_bins=10, plot=True, ax=None, **kwargs
    ):
        """Compare confidence and accuracy of a fitted classifier on labelled rows.

        Parameters
        ----------
        estimator : classifier
            Fitted, with `predict_proba`; any classifier of scikit-learn.
        X : array-like
            Input of the classifier. Not the shots, on which it is overconfident.
        y : array-like of shape (n_samples,)
            True labels.
        name : str, default=None
            Name to show; None means the name of the estimator's class.
        n_bins : int, default=10
            Number of bins.
        plot : bool, default=True
            Whether to plot at once.
        ax : array-like of two Axes, default=None
            Diagram and histogram.
        **kwargs
            As in :meth:`plot`.

        Returns
        -------
        ReliabilityDisplay
        """
        name = type(estimator).__name__ if name is None else name
        return cls.from_estimators(
            {name: estimator}, X, y, n_bins=n_bins, plot=plot, ax=ax, **kwargs
        )

    @classmethod
    def from_estimators(
        cls, estimators, X, y, *, n_bins=10, plot=True, ax=None, **kwargs
    ):
        """Compare several fitted classifiers on the same rows.

        Parameters
        ----------
        estimators : dict of str -> classifier
            As in :meth:`from_estimator`, by the name to show.
        X : array-like
            Input of all of them.
        y : array-like of shape (n_samples,)
            True labels.
        n_bins : int, default=10
            Number of bins.
        plot : bool, default=True
            Whether to plot at once.
        ax : array-like of two Axes, default=None
            Diagram and histogram.
        **kwargs
            As in :meth:`plot`.

        Returns
        -------
        ReliabilityDisplay

        Raises
        ------
        TypeError
            If a classifier has no `predict_proba`.
        """
        check_estimators(estimators, cls)
        curves = {}
        for name, estimator in estimators.items():
            check_is_fitted(estimator)
            if not hasattr(estimator, "predict_proba"):
                raise TypeError(
                    "ReliabilityDisplay needs classifiers with predict_proba, but "
                    f"{name!r} ({type(estimator).__name__}) has none. Wrap it in "
                    "sklearn.calibration.CalibratedClassifierCV."
                )
            one = cls.from_predictions(
                y,
                estimator.predict_proba(X),
                estimator.classes_,
                name=name,
                n_bins=n_bins,
                plot=False,
            )
            curves |= one.curves
        display = cls(curves)
        return display.plot(ax=ax, **kwargs) if plot else display

    @classmethod
    def from_predictions(
        cls,
        y_true,
        y_proba,
        classes,
        *,
        name="classifier",
        n_bins=10,
        plot=True,
        ax=None,
        **kwargs,
    ):
        """Compare confidence and accuracy of given probabilities.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,)
            Labels.
        y_proba : array-like of shape (n_samples, n_classes)
            Probabilities.
        classes : array-like of shape (n_classes,)
            Label of each column. Other labels in `y_true` count as errors.
        name : str, default="classifier"
            Name to show.
        n_bins : int, default=10
            Number of bins.
        plot : bool, default=True
            Whether to plot at once.
        ax : array-like of two Axes, default=None
            Diagram and histogram.
        **kwargs
            As in :meth:`plot`.

        Returns
        -------
        ReliabilityDisplay

        Raises
        ------
        ValueError
            If shapes do not match, or values lie outside [0, 1].
        """
        y_true, classes = np.asarray(y_true), np.asarray(classes)
        y_proba = np.asarray(y_proba, dtype=np.float64)
        if y_proba.shape != (len(y_true), len(classes)) or not len(y_true):
            raise ValueError(
                "y_proba must have a row for each of the labels in y_true and a column "
                f"for each of the classes, ({len(y_true)}, {len(classes)}), with at "
                f"least one row; got shape {y_proba.shape}."
            )
        # NaN fails this comparison too; rounding in float32 may exceed 1.
        if not (y_proba.min() >= 0 and y_proba.max() <= 1 + 1e-5):
            raise ValueError(
                "y_proba must be probabilities in [0, 1], got values from "
                f"{y_proba.min():.6g} to {y_proba.max():.6g}. Pass predict_proba, not "
                "decision_function."
            )
        hit = classes[y_proba.argmax(axis=1)] == y_true
        display = cls({name: reliability_curve(hit, y_proba.max(axis=1), n_bins)})
        return display.plot(ax=ax, **kwargs) if plot else display

    def plot(self, ax=None):
        """Draw the diagram, and the histogram of confidences below it.

        Parameters
        ----------
        ax : array-like of two Axes, default=None
            None makes a new figure.

        Returns
        -------
        ReliabilityDisplay
        """
        if ax is None:
            _, ax = import_pyplot(self).subplots(
                2,
                1,
                figsize=(5.0, 6.2),
                sharex=True,
                height_ratios=(3, 1),
                layout="constrained",
            )
        self.figure_, self.axes_ = make_axes(self, ax, 2)
        diagram, histogram = self.axes_
        diagram.plot([0, 1], [0, 1], "--", color="0.5", lw=1, label="perfect")
        errors = self.calibration_error
        for i, (name, (count, confidence, accuracy)) in enumerate(self.curves.items()):
            colour = COLOURS[i % len(COLOURS)]
            some = count > 0
            diagram.plot(
                confidence[some],
                accuracy[some],
                color=colour,
                marker=_MARKERS[i % len(_MARKERS)],
                ms=5,
                clip_on=False,
                label=f"{name} (ECE {100 * errors[name]:.1f} %)",
            )
            edges = np.linspace(0, 1, len(count) + 1)
            share = 100 * count / count.sum()
            histogram.stairs(share, edges, color=colour, lw=1.5)
        diagram.set(ylabel="Accuracy", xlim=(0, 1), ylim=(0, 1))
        diagram.grid(alpha=0.3)
        diagram.legend(
            frameon=False, fontsize=9, loc="lower left", bbox_to_anchor=(0, 1)
        )
        histogram.set(xlabel="Confidence", ylabel="Samples (%)", xlim=(0, 1))
        histogram.set_ylim(bottom=0)
        histogram.grid(alpha=0.3)
        return self
