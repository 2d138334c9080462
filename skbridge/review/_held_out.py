"""Scores of each shot from a classifier that was fitted without it."""

import numpy as np
from sklearn.base import clone, is_classifier

from skbridge._held_out.folds import images_per_class, shot_folds
from skbridge._search.folds import number_images

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
    # Encoding the names again would take seconds.
    if getattr(estimator, "text_head_", None) is not None:
        copy.set_params(texts=estimator.text_head_)
    return copy


def held_out_log_proba(estimator, X, y, groups=None):
    """Log probabilities of shots under fits on the other shots.

    Shots are left out by folds that take one image of each class, or a 32nd part of
    it where that is more. A bridged classifier in closed form is fitted once, and the
    sums of each fold are subtracted; others are fitted on five folds.

    Parameters
    ----------
    estimator : classifier
        Not changed.
    X : ndarray of shape (n_samples, n_features)
    y : ndarray of shape (n_samples,)
    groups : ndarray of shape (n_samples,), default=None
        The image that each shot is a view of; views are left out together.

    Returns
    -------
    classes : ndarray of shape (n_classes,)
    codes : ndarray of shape (n_samples,)
        Position of each label in `classes`.
    log_proba : ndarray of shape (n_samples, n_classes)
        NaN for a shot that is alone in its class, which no fit can leave out.
    """
    classes, codes = np.unique(y, return_inverse=True)
    classifier = unfitted_copy(estimator)
    subtracts = hasattr(classifier, "leave_out")
    images = number_images(groups, X, np.arange(len(X)))
    most = int(images_per_class(codes, images).max())
    n_splits = min(most, _SUBTRACTED_FOLDS if subtracts else _REFITTED_FOLDS)
    folds = shot_folds(codes, images, n_splits=n_splits) if n_splits > 1 else []
    if subtracts:
        classifier.fit(X, y)
    log_proba = np.full((len(X), len(classes)), np.nan)
    for train, test in folds:
        if subtracts:
            fitted = classifier.leave_out(X[test], y[test])
        else:
            fitted = clone(classifier).fit(X[train], y[train])
        # A fold of views may leave a class without shots.
        columns = np.searchsorted(classes, fitted.classes_)
        scored = np.full((len(test), len(classes)), -np.inf)
        scored[:, columns] = _log_proba(fitted, X[test])
        log_proba[test] = scored
    return classes, codes, np.maximum(log_proba, _LEAST_LOG_PROBA)


def _log_proba(fitted, X):
    if hasattr(fitted, "predict_log_proba"):
        return fitted.predict_log_proba(X)
    with np.errstate(divide="ignore"):
        return np.log(fitted.predict_proba(X))
