"""Sums of shots by class."""

import numpy as np
from sklearn.utils import gen_batches

# Rows that are summed by class at once: few, so that they stay in the caches and are
# of few classes.
_SUMMED_ROWS = 64


def class_sums(rows, codes, weights, n_classes):
    """Weighted sums of the rows of each class, in float64 whatever their type.

    Parameters
    ----------
    rows : ndarray of shape (n_samples, n_columns)
    codes : ndarray of shape (n_samples,)
    weights : ndarray of shape (..., n_samples)
        One or more weightings; the rows are read once for all of them.
    n_classes : int

    Returns
    -------
    ndarray of shape (..., n_classes, n_columns)
    """
    weights = np.asarray(weights, dtype=np.float64)
    stacked = np.atleast_2d(weights)
    sums = np.zeros((len(stacked), n_classes, rows.shape[1]))
    ordered = (codes[1:] >= codes[:-1]).all()
    order = None if ordered else np.argsort(codes, kind="stable")
    for batch in gen_batches(len(rows), _SUMMED_ROWS):
        # Ordered by class, a block has few classes: a small dense product sums it.
        chosen = batch if ordered else order[batch]
        own = codes[chosen]
        present = slice(own[0], own[-1] + 1)
        members = np.arange(own[0], own[-1] + 1)[:, None] == own
        members = (members * stacked[:, None, chosen]).reshape(-1, len(own))
        block = rows[chosen].astype(np.float64, copy=False)
        sums[:, present] += (members @ block).reshape(len(stacked), -1, block.shape[1])
    return sums.reshape(*weights.shape[:-1], *sums.shape[1:])
