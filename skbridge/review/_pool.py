"""Images of a pool that are most worth a label."""

from numbers import Integral

import numpy as np
from sklearn.utils import Bunch, check_array
from sklearn.utils._param_validation import Interval, StrOptions, validate_params

from skbridge._rows import unit


@validate_params(
    {
        "estimator": [None, object],
        "pool": ["array-like"],
        "n": [Interval(Integral, 1, None, closed="left")],
        "labelled": ["array-like", None],
        "strategy": [StrOptions({"margin", "coverage", "mixed"})],
    },
    prefer_skip_nested_validation=True,
)
def label_next(estimator, pool, n=20, *, labelled=None, strategy="mixed"):
    """Choose the images of a pool that are most worth a label.

    Parameters
    ----------
    estimator : classifier
        Fitted; its `predict_proba` takes the embeddings. Not used by
        ``strategy="coverage"``, where it may be None.
    pool : array-like of shape (n_pool, n_features)
        Embeddings of images without labels.
    n : int, default=20
        Number of images to choose; all of the pool if that is smaller.
    labelled : array-like of shape (n_labelled, n_features), default=None
        Embeddings of images that have labels: images like these are not chosen,
        except by ``strategy="margin"``.
    strategy : {"mixed", "margin", "coverage"}, default="mixed"
        ``"margin"`` takes the images whose two most probable classes are nearest to
        each other, alike or not. ``"coverage"`` takes, one after another, the image
        that is least like the labelled and the chosen ones. ``"mixed"`` takes the one
        for which the product of both is largest: uncertain, and unlike the others.

    Returns
    -------
    Bunch
        ``indices`` : ndarray of shape (n,)
            Rows of the pool, in the order in which to label them.
        ``scores`` : ndarray of shape (n,)
            What the strategy maximised when it chose each.

    Raises
    ------
    ValueError
        If `pool` and `labelled` have different widths, or a parameter is invalid.

    See Also
    --------
    suspicious_labels : Labels that may be wrong.

    Notes
    -----
    Let u be 1 minus the difference of the two largest probabilities, and v be 1 minus
    the largest cosine similarity with a labelled or chosen image. The strategies
    maximise u, v, and u v. Each chosen image costs one product of the pool with a
    vector; memory is linear in the pool.

    Examples
    --------
    >>> import numpy as np
    >>> from skbridge.review import label_next
    >>> pool = np.array([[1.0, 0.0], [0.99, 0.01], [0.0, 1.0]])
    >>> label_next(None, pool, 2, strategy="coverage").indices
    array([0, 2])
    """
    pool = check_array(pool, dtype=[np.float32, np.float64])
    n = min(n, len(pool))
    uncertainty = np.ones(len(pool))
    if strategy != "coverage":
        uncertainty = _uncertainty(estimator, pool)
    if strategy == "margin":
        indices = np.argsort(-uncertainty, kind="stable")[:n]
        return Bunch(indices=indices, scores=uncertainty[indices])
    rows = unit(pool)
    distance = np.ones(len(rows))
    if labelled is not None:
        distance = _distance(rows, labelled)
    return _choose(rows, uncertainty, distance, n)


def _uncertainty(estimator, pool):
    """1 minus the difference of the two largest probabilities of each row."""
    proba = estimator.predict_proba(pool)
    two = np.partition(proba, -2, axis=1)[:, -2:]
    return 1 - np.abs(two[:, 1] - two[:, 0])


def _distance(rows, labelled):
    labelled = unit(check_array(labelled, dtype=[np.float32, np.float64]))
    if labelled.shape[1] != rows.shape[1]:
        raise ValueError(
            f"labelled has {labelled.shape[1]} columns, but pool has {rows.shape[1]}. "
            "Give embeddings of one model."
        )
    distance = np.full(len(rows), np.inf)
    for row in labelled:
        np.minimum(distance, 1 - rows @ row, out=distance)
    return distance


def _choose(rows, uncertainty, distance, n):
    """Take one row after another for which uncertainty times distance is largest."""
    indices, scores = np.empty(n, dtype=np.intp), np.empty(n)
    free = np.ones(len(rows), dtype=bool)
    for position in range(n):
        worth = np.where(free, uncertainty * distance, -np.inf)
        chosen = indices[position] = worth.argmax()
        scores[position] = worth[chosen]
        free[chosen] = False
        np.minimum(distance, 1 - rows @ rows[chosen], out=distance)
    return Bunch(indices=indices, scores=scores)
