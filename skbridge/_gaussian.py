"""Prototypes in the metric of the within-class scatter, from sums of shots. NumPy."""

import numpy as np


def whiten(count, sums, second_moment, shrinkage, texts=None):
    """Class means, and the metric in which to compare with them.

    With the unit bridged shots x, their weighted class means m_k and the scatter
    ``S = sum w (x - m_y)' (x - m_y)``, a sum and no average, the metric is
    ``A = shrinkage (S + shrinkage I)^-1 = G G'``: that of Gaussian discriminant
    analysis under a prior worth the scatter `shrinkage` in every direction. One
    shot a class leaves ``S = 0`` and the plain cosine.

    A class text counts as one more shot, moved across the modality gap to where
    the shots are: ``t_k = mean_j m_j + E_k - mean_j E_j``.

    Parameters
    ----------
    count : ndarray of shape (n_classes,)
        Sums of the weights of each class.
    sums : ndarray of shape (n_classes, n_features)
        Weighted sums of x by class.
    second_moment : ndarray of shape (n_features, n_features)
        Weighted sum of ``x' x`` over all shots.
    shrinkage : float
        Prior scatter in every direction.
    texts : ndarray of shape (n_classes, n_features), default=None
        Unit bridged class texts E.

    Returns
    -------
    means : ndarray of shape (n_classes, n_features)
    metric : ndarray of shape (n_features, n_features)
        G.
    """
    means = sums / count[:, None]
    scatter = second_moment - sums.T @ means
    s, u = np.linalg.eigh(scatter)
    # Rounding may leave a zero eigenvalue slightly negative.
    metric = u * np.sqrt(shrinkage / (np.maximum(s, 0) + shrinkage))
    if texts is not None:
        moved = means.mean(axis=0) + texts - texts.mean(axis=0)
        means = (sums + moved) / (count + 1)[:, None]
    return means, metric
