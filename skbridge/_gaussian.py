"""Gaussian discriminant analysis of unit embeddings, from their sums. NumPy."""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cholesky, solve_triangular

# A class text counts as this many shots in the mean of its class.
TEXT_SHOTS = 2
# Prior scatter of a direction that the bridge leaves out, over that of one it keeps.
_SCATTER_OUTSIDE = 10.0


@dataclass(frozen=True, eq=False)
class GaussianClasses:
    """Classes as Gaussians of one covariance, in a metric that makes it the identity.

    Attributes
    ----------
    centre : ndarray of shape (n_features,)
        c, the mean of the class means of the shots.
    means : ndarray of shape (n_classes, n_features)
        M_k, relative to the centre.
    metric : ndarray of shape (n_features, n_features)
        G.
    gain : float
        g, the length of a text's offset among the shots, over that among the texts.
    """

    centre: np.ndarray
    means: np.ndarray
    metric: np.ndarray
    gain: float


def fit_gaussians(count, sums, second_moment, shrinkage, *, span=None, texts=None):
    """Estimate class means and their metric, with the class texts as prior.

    With the unit embeddings x of the shots, their weighted class means m_k, the
    centre ``c = mean_k m_k`` and the scatter ``S = sum w (x - m_y)' (x - m_y)``, a sum
    and no average:

    - ``G G' = (S + a [P + 10 (I - P)])^-1`` with ``a = shrinkage mean ||x - c||^2``.
      The prior of the scatter is isotropic in the span of the texts, which P projects
      onto, and ten times as large outside, where embeddings differ in what texts do
      not describe.
    - ``M_k = (n_k (m_k - c) + 2 g E_k) / (n_k + 2)``: the text counts as two shots.
      E_k is the class text minus the mean text, and g the least-squares gain of the
      regression of ``(m_k - c) G`` on ``E_k G`` over all classes; not negative.

    Parameters
    ----------
    count : ndarray of shape (n_classes,)
        n_k, sums of the weights.
    sums : ndarray of shape (n_classes, n_features)
        Weighted sums of x per class.
    second_moment : ndarray of shape (n_features, n_features)
        Weighted sum of ``x' x`` over all shots.
    shrinkage : float
        Prior scatter, in shots.
    span : ndarray of shape (n_features, rank), default=None
        Orthonormal columns V with ``P = V V'``; None means that P is the identity.
    texts : ndarray of shape (n_classes, n_features), default=None
        Unit class texts. None makes ``M_k = m_k - c``.

    Returns
    -------
    GaussianClasses
    """
    means = sums / count[:, None]
    centre = means.mean(axis=0)
    total = second_moment.trace() - 2 * sums.sum(axis=0) @ centre
    variance = total / count.sum() + centre @ centre
    # Embeddings that are all alike have no variance, up to rounding.
    prior = shrinkage * max(variance, np.finfo(np.float64).eps)
    metric = _metric(second_moment - sums.T @ means, prior, span)
    means = means - centre
    gain = 0.0
    if texts is not None:
        offsets = texts - texts.mean(axis=0)
        regressor = offsets @ metric
        length = np.vdot(regressor, regressor)
        if length > 0:
            gain = max(0.0, float(np.vdot(means @ metric, regressor) / length))
        weight = (count / (count + TEXT_SHOTS))[:, None]
        means = weight * means + (1 - weight) * gain * offsets
    return GaussianClasses(centre, means, metric, gain)


def _metric(scatter, prior, span):
    """G with ``G G'`` the inverse of the scatter and its prior."""
    identity = np.eye(len(scatter))
    if span is None:
        scatter = scatter + prior * identity
    else:
        outside = _SCATTER_OUTSIDE * prior
        scatter = scatter + outside * identity + (prior - outside) * (span @ span.T)
    lower = cholesky(scatter, lower=True, overwrite_a=True)
    return solve_triangular(lower, identity, lower=True).T
