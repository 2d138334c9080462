"""Gaussian discriminant analysis of unit embeddings, from their sums. NumPy."""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular

# A class text counts as this many shots in the mean of its class.
TEXT_SHOTS = 2
# Directions that the bridge leaves out have this many times more prior scatter at one
# shot per class; at n shots, an n-th of that.
_SCATTER_OUTSIDE = 20.0


@dataclass(frozen=True, eq=False)
class GaussianClasses:
    """Classes as Gaussians of one covariance, in a metric that makes it the identity.

    Attributes
    ----------
    centre : ndarray of shape (n_features,)
        mu, the mean of the class means of the shots.
    means : ndarray of shape (n_classes, n_features)
        M_k, relative to the centre.
    metric : ndarray of shape (n_features, n_features)
        G.
    gain : float
        g, the length of a text's offset among the shots, over that among the texts.
    text_shots : int
        Number of shots that the text counts as; 0 without texts.
    """

    centre: np.ndarray
    means: np.ndarray
    metric: np.ndarray
    gain: float
    text_shots: int

    def leave_one_out(self, x, codes, weight, count, sums):
        """Cosines z3 of shots, each compared with the fit without it.

        The means, counts and scatter are those of the other shots, by a rank-one
        update of the metric; the centre, the prior of the scatter and the gain, which
        depend on all shots alike, stay.

        Parameters
        ----------
        x : ndarray of shape (n_samples, n_features)
            Unit shots.
        codes : ndarray of shape (n_samples,)
            Classes of the shots.
        weight : ndarray of shape (n_samples,)
            Their weights in the fit.
        count : ndarray of shape (n_classes,)
            n_k of the fit; larger than the weight of each shot of the class.
        sums : ndarray of shape (n_classes, n_features)
            Sums of w x of the fit.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
        """
        n, w = count[codes][:, None], weight[:, None]
        y = (x - self.centre) @ self.metric
        means = self.means @ self.metric
        # Without the shot, S loses v' v.
        v = np.sqrt(w * n / (n - w)) * (x - sums[codes] / n) @ self.metric
        total = n + self.text_shots
        own = (total * means[codes] - w * y) / (total - w)

        # Sherman-Morrison: products in the metric of S - v' v.
        factor = 1 / (1 - _dots(v, v))
        yv, ov, mv = _dots(y, v), _dots(own, v), v @ means.T
        products = y @ means.T + (factor * yv)[:, None] * mv
        lengths = _dots(means, means) + factor[:, None] * mv**2
        rows = np.arange(len(x))
        products[rows, codes] = _dots(y, own) + factor * yv * ov
        lengths[rows, codes] = _dots(own, own) + factor * ov**2
        lengths *= (_dots(y, y) + factor * yv**2)[:, None]
        tiny = np.finfo(np.float64).tiny
        return products / np.sqrt(np.maximum(lengths, tiny))


def _dots(a, b):
    """Products of the rows of `a` and `b`, one by one."""
    return np.einsum("ij,ij->i", a, b)


def fit_gaussians(count, sums, second_moment, shrinkage, *, span=None, texts=None):
    """Estimate class means and their metric, with the class texts as prior.

    With the unit embeddings x of the shots, their weighted class means m_k, the
    centre ``mu = mean_k m_k`` and the scatter ``S = sum w (x - m_y)' (x - m_y)``, a sum
    and no average:

    - ``G G' = (S + a [I + 20/n (I - P)])^-1`` with ``a = shrinkage mean ||x - mu||^2``
      and n the mean number of shots per class, at least 1. P projects onto the span
      of the texts. Outside it, embeddings differ in what texts do not describe, so that
      the prior of the scatter is larger there, the more so the fewer shots there are.
    - ``M_k = (n_k (m_k - mu) + 2 g D_k) / (n_k + 2)``: the text counts as two shots.
      D_k is the class text minus the mean text, and g the least-squares gain of the
      regression of ``(m_k - mu) G`` on ``D_k G`` over all classes; not negative.

    Parameters
    ----------
    count : ndarray of shape (n_classes,)
        n_k, sums of the weights. A class may have none where there are texts.
    sums : ndarray of shape (n_classes, n_features)
        Weighted sums of x per class.
    second_moment : ndarray of shape (n_features, n_features)
        Weighted sum of ``x' x`` over all shots.
    shrinkage : float
        Prior scatter, in shots.
    span : ndarray of shape (n_features, rank), default=None
        Orthonormal columns V with ``P = V V'``; None means that P is the identity.
    texts : ndarray of shape (n_classes, n_features), default=None
        Unit class texts. None makes ``M_k = m_k - mu``.

    Returns
    -------
    GaussianClasses
    """
    seen = count > 0
    means = np.zeros_like(sums)
    np.divide(sums, count[:, None], out=means, where=seen[:, None])
    centre = means[seen].mean(axis=0)
    total = second_moment.trace() - 2 * sums.sum(axis=0) @ centre
    variance = total / count.sum() + centre @ centre
    # Embeddings that are all alike have no variance. At least what rounding makes of
    # their scatter keeps it positive definite.
    rounding = 10 * len(second_moment) * np.finfo(np.float64).eps * count.sum()
    prior = max(shrinkage * variance, rounding)
    outside = prior * _SCATTER_OUTSIDE / max(1.0, count[seen].mean())
    metric = _metric(second_moment - sums.T @ means, prior, outside, span)
    means[seen] -= centre
    gain = 0.0
    if texts is not None:
        offsets = texts - texts[seen].mean(axis=0)
        regressor = offsets[seen] @ metric
        length = np.vdot(regressor, regressor)
        if length > 0:
            gain = max(0.0, float(np.vdot(means[seen] @ metric, regressor) / length))
        weight = (count / (count + TEXT_SHOTS))[:, None]
        means = weight * means + (1 - weight) * gain * offsets
    text_shots = 0 if texts is None else TEXT_SHOTS
    return GaussianClasses(centre, means, metric, gain, text_shots)


def _metric(scatter, prior, outside, span):
    """G with ``G G'`` the inverse of the scatter and its prior.

    The prior is `prior` in the span, and larger by `outside` in other directions.
    """
    identity = np.eye(len(scatter))
    scatter = scatter + prior * identity
    if span is not None:
        scatter += outside * (identity - span @ span.T)
    lower = np.linalg.cholesky(scatter)
    return solve_triangular(lower, identity, lower=True).T
