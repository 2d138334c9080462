"""Images of a pool that are most worth a label."""

from dataclasses import dataclass
from numbers import Integral

import numpy as np
from sklearn.utils import Bunch, check_array
from sklearn.utils._param_validation import Interval, StrOptions, validate_params

from skbridge._rows import unit, within_range
from skbridge.review._nearest import check_like, nearest_rows

# The novelty v counts as min(1, 2 v).
_NOVEL = 2.0


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
        that is least like the labelled and the chosen ones. ``"mixed"`` takes uncertain
        images of classes that have few labels, and none like a chosen one.

    Returns
    -------
    Bunch
        ``indices`` : ndarray of shape (n,)
            Rows of the pool, in the order in which to label them.
        ``scores`` : ndarray of shape (n,)
            Value that the strategy maximised when it chose each.

    Raises
    ------
    ValueError
        If `pool` and `labelled` have different widths, or a parameter is invalid.

    See Also
    --------
    suspicious_labels : Labels that may be wrong.

    Notes
    -----
    For each image of the pool, let

    - u be 1 minus the difference of its two largest probabilities;
    - b be the sum over classes of ``p_k / (n_k + 1)``, where n_k is `class_count_` of
      the estimator, if it has one, plus the sum of p_k over the chosen images;
    - v be 1 minus the largest cosine with a labelled or chosen image, over 1 minus the
      cosine with the mean of the pool, so that outliers do not come first.

    ``"margin"`` takes the images of the largest u. ``"coverage"`` takes the largest v,
    ``"mixed"`` the largest ``u b min(1, 2 v)``, and both update v and b after each.
    Each chosen image costs one product of the pool with a vector; memory is linear in
    the pool.

    Examples
    --------
    >>> import numpy as np
    >>> from skbridge.review import label_next
    >>> pool = np.array([[1.0, 0.0], [0.99, 0.01], [0.0, 1.0]])
    >>> label_next(None, pool, 2, strategy="coverage").indices
    array([1, 2])
    """
    pool = within_range(check_array(pool, dtype=[np.float32, np.float64]))
    n = min(n, len(pool))
    if strategy == "coverage":
        return _choose(pool, labelled, n)
    proba = estimator.predict_proba(pool)
    second, first = np.partition(proba, -2, axis=1)[:, -2:].T
    uncertainty = 1 - (first - second)
    if strategy == "margin":
        indices = np.argsort(-uncertainty, kind="stable")[:n]
        return Bunch(indices=indices, scores=uncertainty[indices])
    count = np.zeros(proba.shape[1]) + getattr(estimator, "class_count_", 0)
    return _choose(pool, labelled, n, Need(uncertainty, proba, count))


@dataclass(frozen=True, eq=False)
class Need:
    """Gain of a classifier from a label of each image of a pool.

    Attributes
    ----------
    uncertainty : ndarray of shape (n_pool,)
        u.
    proba : ndarray of shape (n_pool, n_classes)
    count : ndarray of shape (n_classes,)
        Labelled images of each class.
    """

    uncertainty: np.ndarray
    proba: np.ndarray
    count: np.ndarray

    def worth(self, chosen, novelty):
        """Worth of each image, after the chosen rows: ``u b min(1, 2 v)``."""
        count = self.count + self.proba[chosen].sum(axis=0)
        worth = self.proba @ (1 / (count + 1)).astype(self.proba.dtype)
        return worth * self.uncertainty * np.minimum(1, _NOVEL * novelty)


def _choose(pool, labelled, n, need=None):
    """Take one image after another: the one of largest v, or of the largest worth."""
    rows = unit(pool)
    from_mean = 1 - rows @ unit(rows.mean(axis=0))
    distance = np.ones_like(from_mean)
    if labelled is not None:
        cosine, _ = nearest_rows(rows, check_like(labelled, rows, "labelled", "pool"))
        distance -= cosine
    indices, scores = np.empty(n, dtype=np.intp), np.empty(n)
    for position in range(n):
        chosen = indices[:position]
        worth = np.zeros_like(distance)
        np.divide(distance, from_mean, out=worth, where=from_mean > 0)
        if need is not None:
            worth = need.worth(chosen, worth)
        worth[chosen] = -np.inf
        best = indices[position] = worth.argmax()
        scores[position] = worth[best]
        np.minimum(distance, 1 - rows @ rows[best], out=distance)
    return Bunch(indices=indices, scores=scores)
