"""A few shots per class, drawn from a larger set."""

import warnings
from numbers import Integral

import numpy as np
from sklearn.utils import (
    _safe_indexing,
    check_consistent_length,
    check_random_state,
    column_or_1d,
)
from sklearn.utils._param_validation import Interval, StrOptions, validate_params


@validate_params(
    {
        "X": "no_validation",
        "y": "no_validation",
        "n_shots": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
        "too_few": [StrOptions({"raise", "warn", "ignore"})],
    },
    prefer_skip_nested_validation=True,
)
def sample_few_shot(X, y, n_shots, random_state=None, *, too_few="raise"):
    """Draw a few shots of every class, at random and without replacement.

    Parameters
    ----------
    X : list, array-like, sparse matrix or DataFrame of length n_samples
        Paths, images or embeddings.
    y : array-like of shape (n_samples,)
        Labels.
    n_shots : int
        Samples of each class.
    random_state : int, RandomState instance or None, default=None
        An int makes the draw repeatable.
    too_few : {"raise", "warn", "ignore"}, default="raise"
        What to do about classes with fewer samples than `n_shots`: raise an error,
        or take all their samples, with a warning or without.

    Returns
    -------
    X_shots : same type as `X`
        The shots by class, classes sorted, and within a class in the order in which
        they were drawn.
    y_shots : same type as `y`
        Their labels.

    Raises
    ------
    ValueError
        If `X` and `y` differ in length, there is no sample, or a class has fewer
        than `n_shots` samples and ``too_few="raise"``.

    Notes
    -----
    Samples are nested: with the same `X`, `y` and int `random_state` the shots of
    a smaller `n_shots` are the first shots of each class of a larger one. A curve
    over numbers of shots then shows the effect of more shots, not of another draw.

    Examples
    --------
    >>> from skbridge.datasets import sample_few_shot
    >>> paths = [f"{i}.jpg" for i in range(8)]
    >>> labels = ["cat", "dog"] * 4
    >>> sample_few_shot(paths, labels, 1, random_state=0)
    (['4.jpg', '1.jpg'], ['cat', 'dog'])
    >>> sample_few_shot(paths, labels, 2, random_state=0)
    (['4.jpg', '6.jpg', '1.jpg', '5.jpg'], ['cat', 'cat', 'dog', 'dog'])
    """
    check_consistent_length(X, y)
    classes, codes, counts = np.unique(
        column_or_1d(y), return_inverse=True, return_counts=True
    )
    if not len(classes):
        raise ValueError("X and y have no samples; expected at least one sample.")
    few = np.flatnonzero(counts < n_shots)
    if len(few) and too_few != "ignore":
        shown = ", ".join(f"{classes[k]!s} ({counts[k]})" for k in few[:5])
        message = (
            f"{len(few)} of {len(classes)} classes have fewer than n_shots={n_shots} "
            f"samples: {shown}{', ...' if len(few) > 5 else ''}."
        )
        if too_few == "raise":
            raise ValueError(
                f"{message} Lower n_shots, or take the samples that there are with "
                "too_few='warn'."
            )
        warnings.warn(f"{message} All their samples are taken.", stacklevel=2)
    rng = check_random_state(random_state)
    # Each class is permuted as a whole, so that samples are nested.
    drawn = [
        rng.permutation(np.flatnonzero(codes == k))[:n_shots]
        for k in range(len(classes))
    ]
    rows = np.concatenate(drawn)
    return _safe_indexing(X, rows), _safe_indexing(y, rows)
