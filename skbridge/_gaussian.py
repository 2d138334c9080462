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
    """Gaussian classes with one covariance, and the metric in which it is the identity.

    Attributes
    ----------
    centre : ndarray of shape (n_features,)
        mu, the mean of the class means of the shots.
    means : ndarray of shape (n_classes, n_features)
        M_k, relative to the centre.
    metric : ndarray of shape (n_features, n_features)
        G.
    gain : float
        g, the slope of the regression of ``(m_k - mu) G`` on ``D_k G``; at least zero.
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
        q = (x - self.centre) @ self.metric
        M = self.means @ self.metric
        # Without the shot, S loses v' v with v = sqrt(w n / (n - w)) (x - m_k). Here v
        # is in the metric G.
        v = np.sqrt(w * n / (n - w)) * (x - sums[codes] / n) @ self.metric
        total = n + self.text_shots
        # The mean of the shot's class without it.
        M_own = (total * M[codes] - w * q) / (total - w)

        # Sherman-Morrison: a . b becomes a . b + (a . v) (b . v) / (1 - v . v).
        factor = 1 / (1 - _dots(v, v))
        qv, ov, Mv = _dots(q, v), _dots(M_own, v), v @ M.T
        products = q @ M.T + (factor * qv)[:, None] * Mv
        squares = _dots(M, M) + factor[:, None] * Mv**2
        rows = np.arange(len(x))
        products[rows, codes] = _dots(q, M_own) + factor * qv * ov
        squares[rows, codes] = _dots(M_own, M_own) + factor * ov**2
        squares *= (_dots(q, q) + factor * qv**2)[:, None]
        tiny = np.finfo(np.float64).tiny
        return products / np.sqrt(np.maximum(squares, tiny))


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
        Prior scatter, in units of the mean squared distance of the shots from their
        centre.
    span : ndarray of shape (n_features, rank), default=None
        Orthonormal columns V with ``P = V V'``; None means that P is the identity.
    texts : ndarray of shape (n_classes, n_features), default=None
        Unit class texts. None makes ``M_k = m_k - mu``.

    Returns
    -------
    GaussianClasses
    """
    seen = count > 0
    class_means = np.zeros_like(sums)
    np.divide(sums, count[:, None], out=class_means, where=seen[:, None])
    centre = class_means[seen].mean(axis=0)
    # The mean of ||x - mu||^2, multiplied out.
    n = count.sum()
    square, mean = second_moment.trace() / n, sums.sum(axis=0) / n
    variance = square - 2 * mean @ centre + centre @ centre
    # If all embeddings are equal, the variance is zero. A prior of at least the
    # rounding error of the scatter makes the matrix positive definite.
    rounding = 10 * len(second_moment) * np.finfo(np.float64).eps * n
    prior = max(shrinkage * variance, rounding)
    outside = prior * _SCATTER_OUTSIDE / max(1.0, count[seen].mean())
    metric = _metric(second_moment - sums.T @ class_means, prior, outside, span)
    offsets = np.where(seen[:, None], class_means - centre, 0)
    if texts is None:
        return GaussianClasses(centre, offsets, metric, gain=0.0, text_shots=0)
    text_offsets = texts - texts[seen].mean(axis=0)
    gain = _gain(offsets[seen] @ metric, text_offsets[seen] @ metric)
    weight = (count / (count + TEXT_SHOTS))[:, None]
    means = weight * offsets + (1 - weight) * gain * text_offsets
    return GaussianClasses(centre, means, metric, gain, TEXT_SHOTS)


def _gain(targets, regressors):
    """Slope of the regression of targets without intercept; at least zero."""
    square = np.vdot(regressors, regressors)
    slope = np.vdot(targets, regressors) / square if square > 0 else 0.0
    return max(0.0, float(slope))


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
