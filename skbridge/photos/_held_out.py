"""Held-out scores of the shots: each is scored by a fit without it."""

from dataclasses import asdict, dataclass
from math import sqrt

import numpy as np

from skbridge._held_out.folds import images_per_class, shot_folds
from skbridge._rows import softmax

_MOST_FOLDS = 32
# Quantile of the normal distribution for an interval of 95 %.
_NORMAL_975 = 1.959964


@dataclass(frozen=True)
class HeldOut:
    """Accuracy and calibration of held-out shots.

    Attributes
    ----------
    classes : list of str
    shots, scored, right : list of int
        Per class: shots, those that could be held out, and those of them that the
        other shots classified correctly.
    accuracy : float or None
        Share of right ones; None where no class has two shots.
    interval : tuple of (float, float) or None
        Wilson's interval of 95 % for the accuracy.
    confidence : float or None
        Mean probability of the predicted label.
    calibration_error : float or None
        Mean difference of probability and accuracy, over ten equal groups of shots.
    """

    classes: list
    shots: list
    scored: list
    right: list
    accuracy: float | None = None
    interval: tuple | None = None
    confidence: float | None = None
    calibration_error: float | None = None

    def as_dict(self):
        """All of it, for JSON."""
        return asdict(self)


def all_scores(classifier, X):
    """Blended scores of every class, with one column per class also for two."""
    return classifier.blend_.scores(classifier.component_logits(X))


def held_out_scores(classifier, X, codes):
    """Score each shot by a fit without it and some others.

    Parameters
    ----------
    classifier : BridgedClassifier
        Fitted to all shots, in closed form.
    X : ndarray of shape (n_shots, n_features)
    codes : ndarray of shape (n_shots,)

    Returns
    -------
    ndarray of shape (n_shots, n_classes)
        NaN for a shot that is alone in its class.
    """
    scores = np.full((len(X), len(classifier.classes_)), np.nan)
    most = int(images_per_class(codes, np.arange(len(codes))).max())
    if most < 2:
        return scores
    labels = classifier.classes_[codes]
    for train, test in shot_folds(codes, n_splits=min(most, _MOST_FOLDS)):
        left_out = np.setdiff1d(np.arange(len(X)), train)
        fitted = classifier.leave_out(X[left_out], labels[left_out])
        scores[test] = all_scores(fitted, X[test])
    return scores


def judge(classifier, X, codes):
    """Measure a classifier on its own shots, each held out.

    Parameters
    ----------
    classifier : BridgedClassifier
        Fitted to all shots, in closed form.
    X : ndarray of shape (n_shots, n_features)
    codes : ndarray of shape (n_shots,)

    Returns
    -------
    HeldOut
    """
    classes = classifier.classes_
    scores = held_out_scores(classifier, X, codes)
    known = np.flatnonzero(np.isfinite(scores).all(axis=1))
    right = scores[known].argmax(axis=1) == codes[known]

    def per_class(rows):
        return np.bincount(rows, minlength=len(classes)).tolist()

    counts = {
        "classes": [str(label) for label in classes],
        "shots": per_class(codes),
        "scored": per_class(codes[known]),
        "right": per_class(codes[known][right]),
    }
    if not len(known):
        return HeldOut(**counts)
    confidence = softmax(scores[known], classifier.temperature_).max(axis=1)
    return HeldOut(
        **counts,
        **measures(confidence, right),
    )


def measures(confidence, right):
    """Accuracy and calibration of predicted labels.

    Parameters
    ----------
    confidence : ndarray of shape (n_images,)
        Probability of each predicted label.
    right : ndarray of shape (n_images,)
        Whether it is right.

    Returns
    -------
    dict
        ``accuracy``, ``interval``, ``confidence`` and ``calibration_error``, as in
        `HeldOut`.
    """
    return {
        "accuracy": float(right.mean()),
        "interval": wilson_interval(int(right.sum()), len(right)),
        "confidence": float(confidence.mean()),
        "calibration_error": _calibration_error(confidence, right),
    }


def wilson_interval(right, n):
    """Wilson's interval of 95 % for a share.

    Examples
    --------
    >>> from skbridge.photos._held_out import wilson_interval
    >>> low, high = wilson_interval(8, 10)
    >>> round(low, 3), round(high, 3)
    (0.49, 0.943)
    """
    z2 = _NORMAL_975**2
    share = right / n
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    spread = sqrt(share * (1 - share) / n + z2 / (4 * n * n)) * _NORMAL_975
    spread /= 1 + z2 / n
    return max(0.0, centre - spread), min(1.0, centre + spread)


def _calibration_error(confidence, right):
    groups = np.array_split(np.argsort(confidence, kind="stable"), 10)
    gaps = [
        len(rows) * abs(confidence[rows].mean() - right[rows].mean())
        for rows in groups
        if len(rows)
    ]
    return float(sum(gaps) / len(right))
