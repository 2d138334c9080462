"""Pairs of rows that are nearly equal, in blocks."""

from numbers import Real

import numpy as np
from sklearn.utils import Bunch, check_array
from sklearn.utils._param_validation import Interval, validate_params

from skbridge._rows import unit, within_range
from skbridge.review._nearest import check_like, nearest_rows


@validate_params(
    {
        "X": ["array-like"],
        "Y": ["array-like", None],
        "threshold": [Interval(Real, 0, 1, closed="right")],
    },
    prefer_skip_nested_validation=True,
)
def near_duplicates(X, Y=None, *, threshold=0.97):
    """Find rows that nearly equal another row.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Embeddings; their lengths do not matter.
    Y : array-like of shape (n_others, n_features), default=None
        Embeddings to compare with, such as those of the shots. None compares the rows
        of X with one another.
    threshold : float, default=0.97
        Least cosine similarity of near duplicates, in (0, 1].

    Returns
    -------
    Bunch
        ``indices`` : ndarray of shape (n_duplicates,)
            Rows of X that have a near duplicate, in increasing order. Without Y only
            *earlier* rows of X count, so that X without these rows has no near
            duplicates.
        ``nearest`` : ndarray of shape (n_duplicates,)
            For each, the most similar row of Y or, without Y, of the earlier rows of
            X; the first of equals.
        ``similarity`` : ndarray of shape (n_duplicates,)
            Their cosine similarity.

    Raises
    ------
    ValueError
        If X and Y have different widths, or hold NaN or infinite values.

    Notes
    -----
    Every row is compared with every other, in blocks: the time grows with the square
    of the number of rows, the memory does not. The cosine of unrelated images differs
    between models: look at some pairs before changing the threshold.

    Rows of zeros are like no row.

    Examples
    --------
    >>> import numpy as np
    >>> from skbridge.review import near_duplicates
    >>> X = np.array([[1.0, 0.0], [0.0, 1.0], [0.99, 0.01]])
    >>> found = near_duplicates(X)
    >>> found.indices, found.nearest
    (array([2]), array([0]))
    """
    X = unit(within_range(check_array(X, dtype=[np.float32, np.float64])))
    others = None if Y is None else check_like(Y, X, "Y", "X")
    best, nearest = nearest_rows(X, others)
    # Rounding makes the cosine of equal rows slightly less than 1.
    slack = X.shape[1] ** 0.5 * np.finfo(best.dtype).eps
    indices = np.flatnonzero(best >= threshold - slack)
    return Bunch(
        indices=indices,
        nearest=nearest[indices],
        similarity=np.minimum(best[indices], 1),
    )
