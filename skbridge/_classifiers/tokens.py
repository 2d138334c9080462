"""Bridged prototypes from sums of shots: the paper's F^, in closed form. NumPy only."""

import numpy as np

from skbridge._bridge import Bridge
from skbridge._class_sums import TokenSums, class_sums
from skbridge._rows import batches, row_lengths, unit

# Shots that are bridged at once: few enough to stay in the processor's caches.
BRIDGED_ROWS = 1024


def token_sums(X, codes, weight, bridge: Bridge, class_bias) -> TokenSums:
    """Sum shots by class, such that their mean bridged tokens follow.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
    codes : ndarray of shape (n_samples,)
        Class of each shot.
    weight : ndarray of shape (n_samples,)
    bridge : Bridge
    class_bias : ndarray of shape (n_classes, n_text_features)
        b; zeros in closed form.
    """
    n_classes = len(class_bias)
    scaled = weight * _inverse_lengths(X, codes, bridge, class_bias)
    features, scaled_features = class_sums(
        X, codes, np.stack([weight, scaled]), n_classes
    )
    return TokenSums(
        count=np.bincount(codes, weights=weight, minlength=n_classes),
        features=features,
        inverse_lengths=np.bincount(codes, weights=scaled, minlength=n_classes),
        scaled_features=scaled_features,
    )


def _inverse_lengths(X, codes, bridge, class_bias):
    """``1 / ||u||`` of each shot, ``u = (f - c) W+ + b``; 0 where u is 0."""
    has_bias = class_bias.any()
    # Without b the lengths alone are needed, and a narrower matrix preserves them.
    matrix = bridge.inverse if has_bias or bridge.root is None else bridge.root
    lengths = np.empty(len(X))
    for rows in batches(len(X), BRIDGED_ROWS):
        u = bridge.centred(X[rows]) @ matrix
        if has_bias:
            u += class_bias[codes[rows]]
        lengths[rows] = row_lengths(u)
    return np.divide(1, lengths, where=lengths > 0, out=np.zeros(len(X)))


def bridged_prototypes(sums: TokenSums, bridge: Bridge, class_bias):
    """Bridged prototypes F^, from ``mean e^ = L sum(w u / ||u||) / sum(w)``.

    The sum of ``w u / ||u||`` is linear in the sums of ``w f / ||u||`` and of
    ``w / ||u||``. As the projection is affine, ``mean f^ = mean(e^) W + c``.

    Returns
    -------
    ndarray of shape (n_classes, n_features)
    """
    dtype = class_bias.dtype
    scaled = sums.scaled_features
    if bridge.bias is not None:
        scaled = scaled - sums.inverse_lengths[:, None] * bridge.bias
    tokens = scaled.astype(dtype) @ bridge.inverse
    tokens += sums.inverse_lengths[:, None].astype(dtype) * class_bias
    tokens *= (bridge.length / sums.count[:, None]).astype(dtype)
    return unit(bridge.to_joint(tokens))
