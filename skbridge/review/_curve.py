"""Accuracy by the number of shots, and what more would do."""

from numbers import Integral

import numpy as np
from sklearn.utils import Bunch, check_random_state
from sklearn.utils._param_validation import Interval, validate_params

from skbridge.review._held_out import Refits, check_reviewed, unfitted_copy

# An error of zero has no logarithm.
_LEAST_ERROR = 1e-3


@validate_params(
    {
        "estimator": [object],
        "X": ["array-like"],
        "y": ["array-like"],
        "n_repeats": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def shot_curve(estimator, X, y, *, n_repeats=10, random_state=0):
    """Estimate accuracy by the number of shots, and whether more would help.

    Parameters
    ----------
    estimator : classifier
        As in :func:`suspicious_labels`.
    X : array-like of shape (n_samples, n_features)
        Embeddings of the shots; at least two per class in half of the classes.
    y : array-like of shape (n_samples,)
        Their labels.
    n_repeats : int, default=10
        Random choices of shots that are averaged.
    random_state : int, RandomState instance or None, default=0
        Chooses the shots.

    Returns
    -------
    Bunch
        ``n_shots`` : ndarray of shape (n_sizes,)
            1, 2, 4, ... shots per class, and finally one less than the median number
            of shots per class.
        ``accuracy`` : ndarray of shape (n_sizes,)
            Mean over classes of the accuracy on shots that were left out.
        ``std`` : ndarray of shape (n_sizes,)
            Standard deviation over repeats.
        ``expected`` : float
            Accuracy to expect at twice the median number of shots per class; NaN if
            there are fewer than two sizes.

    Raises
    ------
    TypeError
        If `estimator` is not a classifier with `predict_proba`.
    ValueError
        If fewer than half of the classes have two shots.

    Notes
    -----
    `expected` continues the errors by a power of the number of shots, ``c n^-a`` with
    ``a >= 0``, fitted by least squares to their logarithms. It is a forecast:
    compare it with the accuracy at the last size.

    A class with no more than n shots gives all but one.

    Examples
    --------
    >>> import numpy as np
    >>> from skbridge import BridgedGDAClassifier
    >>> from skbridge.review import shot_curve
    >>> rng = np.random.default_rng(0)
    >>> y = np.repeat(["ant", "bee", "cat"], 8)
    >>> X = np.repeat(np.eye(3, 16), 8, axis=0) + 0.4 * rng.normal(size=(24, 16))
    >>> curve = shot_curve(BridgedGDAClassifier(None), X, y)
    >>> curve.n_shots, bool(curve.accuracy[-1] > curve.accuracy[0])
    (array([1, 2, 4, 7]), True)
    """
    X, y = check_reviewed(estimator, X, y)
    classes, codes = np.unique(y, return_inverse=True)
    median = int(np.median(np.bincount(codes)))
    if median < 2:
        raise ValueError(
            "shot_curve leaves out shots, but fewer than half of the classes have two. "
            "Label a second image of most classes."
        )
    sizes = 2 ** np.arange(int(np.log2(median - 1)) + 1)
    sizes = np.union1d(sizes, [median - 1])
    refits = Refits(unfitted_copy(estimator), X, y)
    rng = check_random_state(random_state)
    accuracy = np.empty((n_repeats, len(sizes)))
    for repeat in range(n_repeats):
        rank = _random_rank(codes, rng)
        limit = np.maximum(1, np.bincount(codes) - 1)[codes]
        for column, size in enumerate(sizes):
            chosen = rank < np.minimum(size, limit)
            right = refits.fit(chosen).predict(X[~chosen]) == y[~chosen]
            left_out = codes[~chosen]
            hits = np.bincount(left_out, weights=right, minlength=len(classes))
            count = np.bincount(left_out, minlength=len(classes))
            accuracy[repeat, column] = (hits[count > 0] / count[count > 0]).mean()
    mean = accuracy.mean(axis=0)
    return Bunch(
        n_shots=sizes,
        accuracy=mean,
        std=accuracy.std(axis=0),
        expected=_continued(sizes, mean, 2 * median),
    )


def _random_rank(codes, rng):
    """Position of each row in a random order of its class."""
    order = rng.permutation(len(codes))
    order = order[np.argsort(codes[order], kind="stable")]
    first = np.searchsorted(codes[order], codes[order])
    rank = np.empty(len(codes), dtype=int)
    rank[order] = np.arange(len(codes)) - first
    return rank


def _continued(sizes, accuracy, n_shots):
    """Accuracy at `n_shots` if the error is a power of the number of shots."""
    if len(sizes) < 2:
        return float("nan")
    errors = np.log(np.maximum(1 - accuracy, _LEAST_ERROR))
    slope, offset = np.polyfit(np.log(sizes), errors, 1)
    if slope > 0:
        slope, offset = 0.0, errors.mean()
    return float(1 - np.exp(offset + slope * np.log(n_shots)))
