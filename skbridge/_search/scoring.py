"""Scores of held-out shots: built in, or by any scikit-learn scorer."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

from skbridge._held_out.temperature import score_shots
from skbridge._rows import softmax


def hits(stack, columns):
    """Whether each shot is right, in a stack of scores."""
    return stack.argmax(axis=2) == columns


def log_likelihoods(stack, columns):
    """Log probability of each shot's class, clipped as in scikit-learn's log loss."""
    if (columns < 0).any():
        raise ValueError(
            "log loss needs a shot of every held-out class in the training part"
        )
    p = np.exp(-score_shots(stack, columns)[1])
    eps = np.finfo(p.dtype).eps
    return np.log(np.clip(p, eps, 1 - eps))


# Scorings that are means over shots, so that many settings are scored at once.
STACK_SCORES = {
    None: hits,
    "accuracy": hits,
    "neg_log_loss": log_likelihoods,
}


@dataclass(frozen=True)
class Judge:
    """Scoring of held-out shots.

    Attributes
    ----------
    score : callable
        If `stacked`, ``score(stack, columns)`` of single shots under many settings at
        once, to be averaged; otherwise a scorer ``score(estimator, X, y,
        sample_weight=)``.
    stacked : bool
        Kind of `score`.
    weight : ndarray of shape (n_samples,) or None
        Sample weights for a scorer that takes them.
    by_log_loss : bool
        Whether log loss chooses the setting, and scores are only reported.
    """

    score: Callable
    stacked: bool
    weight: np.ndarray | None
    by_log_loss: bool


def make_judge(scoring, scorer, weight):
    """Choose how to score held-out shots.

    Parameters
    ----------
    scoring : str, callable or None
        Parameter of the search.
    scorer : callable
        The scorer that it names.
    weight : ndarray of shape (n_samples,) or None
        Sample weights, if given.

    Returns
    -------
    Judge

    Warns
    -----
    UserWarning
        If there are weights and the scorer does not take any.
    """
    by_name = scoring is None or isinstance(scoring, str)
    stacked = by_name and scoring in STACK_SCORES
    score = STACK_SCORES[scoring] if stacked else scorer
    if weight is not None and not stacked and not _accepts_weight(score):
        warnings.warn(
            f"The scoring {scoring!r} takes no sample_weight: the weights "
            "count in fits and in the temperature, but not in the scores.",
            UserWarning,
            stacklevel=5,
        )
        weight = None
    return Judge(score, stacked, weight, by_log_loss=scoring is None)


def _accepts_weight(scorer):
    function = getattr(scorer, "_score_func", scorer)
    return "sample_weight" in signature(function).parameters


class ScoredShots(ClassifierMixin, BaseEstimator):
    """A fitted classifier together with the scores of some rows, for a scorer.

    Predictions for these rows use the scores; for other rows they are the
    classifier's.

    Parameters
    ----------
    classifier : few-shot classifier
        Fitted.
    X : ndarray of shape (n_samples, n_features)
    scores : ndarray of shape (n_samples, n_classes)
    """

    def __init__(self, classifier, X, scores):
        self.classifier = classifier
        self.X = X
        self.scores = scores

    def __getattr__(self, name):
        # Parameters and fitted attributes are those of the classifier.
        if name.startswith("__") or name == "classifier":
            raise AttributeError(name)
        return getattr(self.classifier, name)

    def _knows(self, X):
        return X is self.X or np.array_equal(X, self.X)

    def predict(self, X):
        """Most probable label of each row."""
        if not self._knows(X):
            return self.classifier.predict(X)
        return self.classes_[self.scores.argmax(axis=1)]

    def decision_function(self, X):
        """Blended logits."""
        if not self._knows(X):
            return self.classifier.decision_function(X)
        if len(self.classes_) == 2:
            return self.scores[:, 1] - self.scores[:, 0]
        return self.scores

    def predict_proba(self, X):
        """Class probabilities."""
        if not self._knows(X):
            return self.classifier.predict_proba(X)
        return softmax(self.scores.copy(), self.classifier.temperature_)

    def predict_log_proba(self, X):
        """Logarithm of the class probabilities."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))
