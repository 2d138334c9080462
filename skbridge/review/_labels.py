"""Labels of shots that the other shots contradict."""

import numpy as np
from sklearn.utils import Bunch

from skbridge.review._held_out import (
    check_reviewed,
    held_out_log_proba,
    unfitted_copy,
)

# Shots that the second pass leaves out: as many as may well be wrong. Right ones that
# leave with them are few of the shots of their class.
_DOUBTED_SHARE = 0.1


def suspicious_labels(estimator, X, y, *, groups=None):
    """Find labels of shots that a classifier of the other shots contradicts.

    Each shot is judged by a fit without it, and without the tenth of all shots that a
    first pass found most suspicious.

    Parameters
    ----------
    estimator : classifier
        Fitted or not; it is cloned, and stays as it is. A bridged classifier in closed
        form is fitted once, and shots are subtracted from its sums. Any other
        scikit-learn classifier with `predict_proba` is fitted on five folds.
    X : array-like of shape (n_samples, n_features)
        Embeddings of the shots.
    y : array-like of shape (n_samples,)
        Their labels.
    groups : array-like of shape (n_samples,), default=None
        The image that each row is a view of. Views of one image are left out
        together: otherwise they would confirm each other's label.

    Returns
    -------
    Bunch
        ``indices`` : ndarray of shape (n_suspicious,)
            Rows with a negative margin, the most suspicious first: in increasing
            order of their scores.
        ``scores`` : ndarray of shape (n_samples,)
            Log probability of the label of every row, in nats; NaN for a shot that is
            alone in its class.
        ``margins`` : ndarray of shape (n_samples,)
            The same minus the log probability of the most probable other class:
            negative where another class is more probable.
        ``suggested`` : ndarray of shape (n_samples,)
            Most probable label of every row; the label of y where the margin is NaN.

    Raises
    ------
    TypeError
        If `estimator` is not a classifier with `predict_proba`.
    ValueError
        If labels are missing, or `fit` refuses X and y.

    See Also
    --------
    label_next : Images without labels that are most worth one.

    Notes
    -----
    Where the classifier is weak, many labels that are right have a negative margin:
    look at the first indices first. Two equal images with one wrong label confirm each
    other, see :func:`near_duplicates`.

    Shots are left out by folds, which take one shot of each class, or a 32nd part of
    a class that has more than 32. At most 65 fits are needed, one on all shots and 32
    in each of two passes, so that the time is linear in the number of shots.

    The ranking is that of "self-confidence" in confident learning [1]_, but for the
    shots that are left out of all fits.

    References
    ----------
    .. [1] Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in
       Dataset Labels", Journal of Artificial Intelligence Research 70, 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from skbridge import BridgedGDAClassifier
    >>> from skbridge.review import suspicious_labels
    >>> X = np.repeat(np.eye(2, 8), 4, axis=0)
    >>> X += 0.1 * np.random.default_rng(0).normal(size=X.shape)
    >>> y = np.array(["cat", "cat", "dog", "cat", "dog", "dog", "dog", "dog"])
    >>> found = suspicious_labels(BridgedGDAClassifier(None), X, y)
    >>> found.indices, found.suggested[found.indices]
    (array([2]), array(['cat'], dtype='<U3'))
    """
    X, y = check_reviewed(estimator, X, y)
    classes, codes = np.unique(y, return_inverse=True)
    classifier = unfitted_copy(estimator)
    log_proba = held_out_log_proba(classifier, X, y, groups)
    order, *_ = _rank(log_proba, codes)
    if len(order):
        doubted = np.zeros(len(y), dtype=bool)
        doubted[order[: int(_DOUBTED_SHARE * len(y))]] = True
        log_proba = held_out_log_proba(classifier, X, y, groups, doubted=doubted)
    order, margins, best = _rank(log_proba, codes)
    return Bunch(
        indices=order,
        scores=log_proba[np.arange(len(y)), codes],
        margins=margins,
        suggested=classes[best],
    )


def _rank(log_proba, codes):
    """Order the rows with a negative margin by the log probability of their labels."""
    margins, best = margins_of(log_proba, codes)
    suspicious = np.flatnonzero(margins < 0)
    scores = log_proba[suspicious, codes[suspicious]]
    return suspicious[np.argsort(scores, kind="stable")], margins, best


def margins_of(scores, codes):
    """Margin of each row's own class over the best other one, and the best class.

    Parameters
    ----------
    scores : ndarray of shape (n_samples, n_classes)
        NaN in the rows that have none.
    codes : ndarray of shape (n_samples,)
        Own class of each row.

    Returns
    -------
    margins : ndarray of shape (n_samples,)
        NaN where the scores are.
    best : ndarray of shape (n_samples,)
        The own class where the scores are NaN.
    """
    rows = np.arange(len(scores))
    others = scores.copy()
    others[rows, codes] = -np.inf
    margins = scores[rows, codes] - others.max(axis=1)
    return margins, np.where(margins < 0, others.argmax(axis=1), codes)
