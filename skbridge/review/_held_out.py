"""Scores of each shot from a classifier that was fitted without it."""

import numpy as np
from sklearn.base import clone, is_classifier
from sklearn.utils import check_array, check_consistent_length, column_or_1d

from skbridge._held_out.folds import images_per_class, shot_folds
from skbridge._messages import shown
from skbridge._search.folds import number_images
from skbridge._validation import check_labels

# Folds where leaving out shots is a subtraction of sums: enough that each fit has
# nearly all shots. Up to so many shots per class, each class loses one at a time.
_SUBTRACTED_FOLDS = 32
_REFITTED_FOLDS = 5
# Stands for the logarithm of zero, so that differences stay finite.
_LEAST_LOG_PROBA = -1e3


def unfitted_copy(estimator):
    """Clone a classifier, with the class texts that it was fitted with.

    Parameters
    ----------
    estimator : classifier
        Fitted or not. A fitted search stands for its best estimator.

    Returns
    -------
    classifier
        Not fitted.

    Raises
    ------
    TypeError
        If it is not a classifier with probabilities.
    """
    estimator = getattr(estimator, "best_estimator_", estimator)
    if not is_classifier(estimator) or not hasattr(estimator, "predict_proba"):
        raise TypeError(
            "estimator must be a classifier that has predict_proba, such as "
            f"BridgedGDAClassifier; got {type(estimator).__name__}."
        )
    copy = clone(estimator)
    if getattr(copy, "reject", None) is not None:
        # Images of no known class do not occur here: shots have classes.
        copy.set_params(reject=None, reject_label=None)
    # Encoding the names again would take seconds.
    if getattr(estimator, "text_head_", None) is not None:
        copy.set_params(texts=estimator.text_head_)
    return copy


def check_reviewed(estimator, X, y):
    """Validate shots, each with a label.

    Returns
    -------
    X : ndarray of shape (n_samples, n_features), float32 or float64
    y : ndarray of shape (n_samples,)

    Raises
    ------
    ValueError
        If X holds NaN or infinite values, has another length than y, or labels are
        missing.
    """
    X = check_array(X, dtype=[np.float32, np.float64], estimator=estimator)
    y = column_or_1d(check_labels(estimator, y))
    check_consistent_length(X, y)
    marker = getattr(estimator, "missing_label", None)
    unlabelled = np.flatnonzero(y == marker) if marker is not None else ()
    if len(unlabelled):
        raise ValueError(
            f"{len(unlabelled)} of {len(y)} labels in y are missing_label={marker!r}, "
            f"in the rows {shown(unlabelled.tolist())}. Only shots can be reviewed: "
            "leave out these rows of X and y."
        )
    return X, y


class Refits:
    """Fits of a classifier to parts of its shots.

    A bridged classifier in closed form is fitted once, and shots are subtracted from
    its sums; others are fitted again each time.

    Parameters
    ----------
    classifier : classifier
        It is fitted here, and need not be before.
    X : ndarray of shape (n_samples, n_features)
    y : ndarray of shape (n_samples,)
    """

    def __init__(self, classifier, X, y):
        self.subtracts = hasattr(classifier, "leave_out")
        self._classifier = classifier.fit(X, y) if self.subtracts else classifier
        self._X, self._y = X, y

    def fit(self, chosen):
        """Fit to the chosen shots, a mask that is true for some of each class."""
        X, y = self._X, self._y
        if not self.subtracts:
            return clone(self._classifier).fit(X[chosen], y[chosen])
        if chosen.all():
            return self._classifier
        return self._classifier.leave_out(X[~chosen], y[~chosen])


def held_out_log_proba(classifier, X, y, groups=None, *, doubted=None):
    """Log probabilities of shots under fits on other shots.

    Shots are left out by folds that take one image of each class, or a 32nd part of
    it where that is more; a classifier that has to be fitted anew, by five folds.

    Parameters
    ----------
    classifier : classifier
        It is fitted here, and need not be before.
    X : ndarray of shape (n_samples, n_features)
    y : ndarray of shape (n_samples,)
    groups : array-like of shape (n_samples,), default=None
        The image that each shot is a view of; views are left out together.
    doubted : ndarray of shape (n_samples,), bool, default=None
        Shots to leave out of every fit, unless a class would have no others.

    Returns
    -------
    ndarray of shape (n_samples, n_classes)
        Columns in the order of the sorted labels. NaN for a shot that is alone in its
        class, which no fit can leave out.
    """
    classes, codes = np.unique(y, return_inverse=True)
    refits = Refits(classifier, X, y)
    images = number_images(groups, X, np.arange(len(X)))
    most = int(images_per_class(codes, images).max())
    n_splits = min(most, _SUBTRACTED_FOLDS if refits.subtracts else _REFITTED_FOLDS)
    folds = shot_folds(codes, images, n_splits=n_splits) if n_splits > 1 else []
    log_proba = np.full((len(X), len(classes)), np.nan)
    for _, scored in folds:
        fitted_on = np.ones(len(X), dtype=bool)
        fitted_on[scored] = False
        if doubted is not None:
            sure = fitted_on & ~doubted
            fitted_on &= sure | ~np.isin(codes, codes[sure])
        fitted = refits.fit(fitted_on)
        log_proba[scored] = np.maximum(_log_proba(fitted, X[scored]), _LEAST_LOG_PROBA)
    return log_proba


def _log_proba(fitted, X):
    if hasattr(fitted, "predict_log_proba"):
        return fitted.predict_log_proba(X)
    with np.errstate(divide="ignore"):
        return np.log(fitted.predict_proba(X))
