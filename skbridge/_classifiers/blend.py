"""Component logits, their blending and the softmax temperature. NumPy only.

Symbols follow the paper: ``z1`` compares a query with the class texts, ``z2``
the bridged query with the few-shot prototypes, ``z3`` the query with the
bridged prototypes.
"""

import numpy as np

from skbridge._rows import log_softmax

BLENDINGS = ("linear", "exponential")

_KL_EPS = 1e-6


def text_divergence(prototypes, text_features):
    """How badly the text of each class fits its prototype, in bits.

    ``KL_k = log2((1 + 1e-6) / (p_kk + 1e-6))``, where ``p`` is the softmax over
    classes of the cosine of prototype k and each class text (no temperature).

    Parameters
    ----------
    prototypes : ndarray of shape (n_classes, n_features)
        Unit prototypes F'.
    text_features : ndarray of shape (n_classes, n_features) or None
        Unit class texts T; None (no texts) gives zeros.

    Returns
    -------
    ndarray of shape (n_classes,)
    """
    if text_features is None:
        return np.zeros(len(prototypes), dtype=prototypes.dtype)
    p = np.exp(np.diagonal(log_softmax(prototypes @ text_features.T)))
    return np.log2((1 + _KL_EPS) / (p + _KL_EPS))


def class_weights(divergence, smoothness):
    """Weight ``w_k = exp(smoothness KL_k)`` of a class's few-shot logits.

    Parameters
    ----------
    divergence : ndarray of shape (n_classes,)
        KL, from :func:`text_divergence`.
    smoothness : float
        Zero weighs all classes alike.

    Returns
    -------
    ndarray of shape (n_classes,)
    """
    return np.exp(smoothness * divergence)


def sharpened(z, sharpness, offset=0.0):
    """``exp(-sharpness (1 - z) + offset)``, a term of the official code's blend.

    Parameters
    ----------
    z : ndarray of shape (n_samples, n_classes)
        Component logits.
    sharpness : float
        alpha, beta or gamma.
    offset : float or ndarray of shape (n_classes,)
        Logarithm of the class weights.

    Returns
    -------
    ndarray of shape (n_samples, n_classes)
    """
    term = sharpness * z
    term += offset - sharpness
    return np.exp(term, out=term)


def weighted_sums(weights, terms):
    """Add terms up under many weights at once.

    Parameters
    ----------
    weights : ndarray of shape (n_settings, n_terms)
    terms : list of ndarray of shape (n_samples, n_classes)

    Returns
    -------
    ndarray of shape (n_settings, n_samples, n_classes)
    """
    flat = np.concatenate(terms).reshape(len(terms), -1)
    return (weights.astype(flat.dtype) @ flat).reshape(-1, *terms[0].shape)


def default_temperature(logit_scale, lambdas, sharpness=None):
    """Temperature that keeps CLIP's logit scale whatever the blending weights.

    A change ``dz`` of all components moves a linear blend by ``sum(lambda) dz``
    and, next to ``z = 1``, an exponential one by
    ``(lambda_1 alpha + lambda_2 beta + lambda_3 gamma) dz``; dividing CLIP's
    scale by that slope makes the softmax as sharp as CLIP's own. A blend that
    is flat (every sharpness zero) keeps CLIP's scale as it is.
    """
    slope = np.dot(lambdas, np.ones(3) if sharpness is None else sharpness)
    return float(logit_scale / slope) if slope > 0 else float(logit_scale)
