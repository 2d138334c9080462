"""Sets of labels that contain the right one with a stated probability.

Full conformal prediction within classes (Vovk, Gammerman and Shafer, Algorithmic
Learning in a Random World, 2005, section 4.5). To test whether a query belongs to
class k, it joins the shots of k, and each of these images is compared with the others.
If the query is of class k, all orders of their scores are equally likely, and its
p-value is uniform or larger. This needs a score that treats the query like the shots:
the metric, the centre and the means of the other classes come from the shots of these
classes alone.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from skbridge._class_sums import ScatterSums
from skbridge._gaussian import GaussianClasses
from skbridge._rows import batches, row_lengths, unit

# Queries that are scored at once.
_ROWS = 4096


def fewest_shots(alpha):
    """Shots of a class with which a p-value can be as small as `alpha`."""
    # 1 / 0.1 - 1 is 9, but for rounding.
    return int(np.ceil(1 / alpha - 1 - 1e-9))


@dataclass(frozen=True, eq=False)
class ClassTest:
    """Test of the hypothesis that a query belongs to class k.

    Attributes
    ----------
    k : int
    gaussians : GaussianClasses
        Fitted to the shots of the other classes.
    shots : ndarray of shape (n_k, n_features)
        Unit shots of class k.
    texts : ndarray of shape (n_classes, n_features) or None
    lambda_1, lambda_3 : float
    """

    k: int
    gaussians: GaussianClasses
    shots: np.ndarray
    texts: np.ndarray | None
    lambda_1: float
    lambda_3: float

    def p_values(self, x):
        """Share of the shots and the query that conform no better than the query.

        Parameters
        ----------
        x : ndarray of shape (n_samples, n_features)
            Unit queries.

        Returns
        -------
        ndarray of shape (n_samples,)
        """
        y, own = self._in_metric(x), self._in_metric(self.shots)
        rest, own_rest = self._best_other(x, y), self._best_other(self.shots, own)
        # The mean of class k, but for its length: all shots and the text.
        total = own.sum(axis=0) + self._prior()
        margin = self.lambda_3 * _cosines(y @ total, y, row_lengths(total)) - rest

        # A shot is compared with the other shots and the query.
        others = total - own
        products = _dots(own, others)[:, None] + own @ y.T
        squares = _dots(others, others)[:, None] + 2 * others @ y.T + _dots(y, y)
        lengths = np.sqrt(np.maximum(squares, 0))
        shot_margins = self.lambda_3 * _cosines(products.T, own, lengths.T).T
        shot_margins -= own_rest[:, None]
        no_better = (shot_margins <= margin).sum(axis=0)
        return (1 + no_better) / (1 + len(self.shots))

    def _in_metric(self, x):
        return (x - self.gaussians.centre) @ self.gaussians.metric

    def _prior(self):
        """Return what the text of class k adds to the sum of its shots."""
        offset = self.gaussians.means[self.k] @ self.gaussians.metric
        return self.gaussians.text_shots * offset

    def _best_other(self, x, y):
        """Best score of another class, minus what the text of class k scores."""
        scores = unit(y) @ unit(self.gaussians.means @ self.gaussians.metric).T
        scores *= self.lambda_3
        own = 0.0
        if self.texts is not None:
            text_scores = self.lambda_1 * (x @ self.texts.T)
            scores += text_scores
            own = text_scores[:, self.k]
        scores[:, self.k] = -np.inf
        return scores.max(axis=1) - own


def class_p_values(
    X,
    x_shots,
    codes,
    n_classes,
    fit: Callable[[ScatterSums], GaussianClasses],
    texts,
    lambda_1,
    lambda_3,
):
    """p-values of the hypotheses that each query belongs to each class.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Queries.
    x_shots : ndarray of shape (n_shots, n_features), float64
        Unit shots.
    codes : ndarray of shape (n_shots,)
        Class of each shot.
    n_classes : int
    fit : callable
        Fits Gaussians to class sums, some of whose classes have no shots.
    texts : ndarray of shape (n_classes, n_features) or None
        Unit class texts.
    lambda_1, lambda_3 : float
        Blending weights.

    Returns
    -------
    ndarray of shape (n_samples, n_classes)
    """
    p = np.empty((len(X), n_classes))
    weight = np.ones(len(codes))
    all_sums = ScatterSums.of_shots(x_shots, codes, weight, n_classes)
    for k in range(n_classes):
        own = codes == k
        sums = ScatterSums.of_shots(x_shots[own], codes[own], weight[own], n_classes)
        fitted = fit(all_sums - sums)
        test = ClassTest(k, fitted, x_shots[own], texts, lambda_1, lambda_3)
        for rows in batches(len(X), _ROWS):
            p[rows, k] = test.p_values(unit(X[rows].astype(np.float64)))
    return p


def _dots(a, b):
    return np.einsum("ij,ij->i", a, b)


def _cosines(products, rows, lengths):
    """Divide products by the lengths of both sides; 0 where one has none."""
    both = row_lengths(rows) * lengths
    return np.divide(products, both, where=both > 0, out=np.zeros_like(products))
