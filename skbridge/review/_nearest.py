"""Most similar rows, in blocks."""

import numpy as np
from sklearn.utils import check_array

from skbridge._rows import batches, unit, within_range

# Similarities of one block: 16 MB in float32.
_BLOCK_ROWS = 2048


def check_like(Y, X, name, name_of_x):
    """Validate embeddings that are compared with X, and scale them to unit length.

    Raises
    ------
    ValueError
        If they have another width than X, or hold NaN or infinite values.
    """
    Y = check_array(Y, dtype=[np.float32, np.float64], input_name=name)
    Y = unit(within_range(Y))
    if X.shape[1] != Y.shape[1]:
        raise ValueError(
            f"{name} has {Y.shape[1]} columns, but {name_of_x} has {X.shape[1]}. "
            "Give embeddings of one model."
        )
    return Y


def nearest_rows(X, Y=None):
    """Find the most similar row of Y for every row of X, with no matrix of all pairs.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Unit rows.
    Y : ndarray of shape (n_others, n_features), default=None
        Unit rows. None compares each row of X with the earlier rows of X.

    Returns
    -------
    cosine : ndarray of shape (n_samples,)
        Minus infinity if there is no row to compare with.
    nearest : ndarray of shape (n_samples,)
        The first of equally similar rows.
    """
    others = X if Y is None else Y
    best = np.full(len(X), -np.inf, dtype=np.result_type(X, others))
    nearest = np.zeros(len(X), dtype=np.intp)
    for rows in batches(len(X), _BLOCK_ROWS):
        for columns in batches(len(others), _BLOCK_ROWS):
            if Y is None and columns.start > rows.start:
                break
            cosines = X[rows] @ others[columns].T
            if Y is None and columns.start == rows.start:
                cosines[np.triu_indices_from(cosines)] = -np.inf
            found = cosines.argmax(axis=1)
            values = np.take_along_axis(cosines, found[:, None], axis=1)[:, 0]
            nearer = values > best[rows]
            best[rows][nearer] = values[nearer]
            nearest[rows][nearer] = columns.start + found[nearer]
    return best, nearest
