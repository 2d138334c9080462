"""Softmax temperatures of least log loss on held-out scores."""

import numpy as np

from skbridge._rows import batches

# Scores per block of shots: 1 MB in float32, for the processor's cache.
BLOCK_SCORES = 2**18
# exp() of scores as large as this, or as small, still adds up in float32.
_SAFE_EXPONENT = 70.0
# Weight of the default temperature, in held-out shots.
PRIOR_SHOTS = 5.0
# Enough rows to find a temperature by which to compare settings.
_SAMPLE_ROWS = 256
_MAX_NEWTON_STEPS = 50
# The loss is flat about its minimum: this share of t costs some 1e-4 of it.
_NEWTON_TOLERANCE = 0.02


def fit_temperature(folds, default, *, prior_shots=PRIOR_SHOTS):
    """Softmax temperature of least log loss on held-out scores.

    Minimises ``sum_i w_i [log sum_k exp(t s_ik) - t s_iy] + m (t / t_0 - log(t /
    t_0))`` over t > 0, which is convex. The second part is the logarithm of a
    gamma prior whose mode is the default t_0: it keeps t finite where every shot
    is classified correctly, and positive where the scores tell nothing.

    Parameters
    ----------
    folds : list of (scores, codes, weight)
        Scores of shape (n_samples, n_classes), the column of each right class,
        or -1 where there is none, and the sample weights.
    default : float
        t_0.
    prior_shots : float, default=5.0
        m: near t_0 the prior is about as strong as this many shots.

    Returns
    -------
    float

    Examples
    --------
    >>> import numpy as np
    >>> scores = np.array([[0.3, 0.2], [0.1, 0.3], [0.2, 0.1]])
    >>> weight = np.ones(3)
    >>> folds = [(scores, np.array([0, 1, 1]), weight)]
    >>> round(fit_temperature(folds, default=10.0), 2)
    9.63
    """
    margins = []
    for scores, codes, weight in folds:
        known = np.flatnonzero(codes >= 0)
        for rows in batches(len(known), BLOCK_SCORES // scores.shape[1]):
            shots = known[rows]
            block, columns = scores[shots], codes[shots]
            block -= block[np.arange(len(shots)), columns][:, None]
            margins.append((block[None], columns, weight[shots]))
    (ratio,) = best_ratios(
        margins, np.array([default]), np.ones(1), prior_shots, tolerance=1e-5
    )
    return float(default * ratio)


def stacked_log_losses(stacks, codes, weights, defaults, start=1.0):
    """Log loss of every held-out shot under many settings, each at its temperature.

    The temperatures minimise what :func:`fit_temperature` does, found by a few Newton
    steps on at most 256 of the shots.

    Parameters
    ----------
    stacks : list of ndarray of shape (n_settings, n_samples, n_classes)
        Scores, one array per fold.
    codes, weights : list of ndarray of shape (n_samples,)
        Column of each right class, and sample weights.
    defaults : ndarray of shape (n_settings,)
        Default temperatures.
    start : float, default=1.0
        Where to start: temperature over the default one.

    Returns
    -------
    losses : ndarray of shape (n_settings, n_samples of all folds)
    start : float
        A start for settings like these.
    """
    step = sample_step(sum(map(len, codes)))
    sample = [
        (stack[:, ::step], columns[::step], weight[::step])
        for stack, columns, weight in zip(stacks, codes, weights, strict=True)
    ]
    share = sum(w.sum() for _, _, w in sample) / sum(w.sum() for w in weights)
    ratios = np.full(len(defaults), start)
    ratios = best_ratios(sample, defaults, ratios, PRIOR_SHOTS * share)
    losses = [
        score_shots(_times(ratios * defaults, stack), columns)[1]
        for stack, columns in zip(stacks, codes, strict=True)
    ]
    return np.concatenate(losses, axis=1), float(np.median(ratios))


def sample_step(n_rows):
    """Step at which rows are taken to find a temperature, at most 256 of them."""
    return max(1, -(-n_rows // _SAMPLE_ROWS))


def _times(t, stack):
    return t.astype(stack.dtype)[:, None, None] * stack


def best_ratios(blocks, defaults, start, prior, *, tolerance=_NEWTON_TOLERANCE):
    """Ratio of the best softmax temperatures to the default ones, by Newton's method.

    Parameters
    ----------
    blocks : list of (stack, columns, weight)
        Held-out scores of shape (n_settings, n_samples, n_classes), the columns of
        their right classes, and their weights.
    defaults, start : ndarray of shape (n_settings,)
        Default temperatures, and the ratios to start at.
    prior : float
        Weight of the default, in shots.
    tolerance : float
        Size of the last step, in the logarithm of the temperature.

    Returns
    -------
    ndarray of shape (n_settings,)
    """
    log_ratio = np.log(start)
    low, high = np.full(len(start), -np.inf), np.full(len(start), np.inf)
    for _ in range(_MAX_NEWTON_STEPS):
        ratio = np.exp(log_ratio)
        # Derivatives of the loss: t dL/dt and t^2 d^2L/dt^2, the prior's terms first.
        gradient, curvature = prior * (ratio - 1), np.full(len(start), prior)
        for scores, columns, weight in blocks:
            stack = _times(ratio * defaults, scores)
            _shift_if_large(stack)
            own = stack[:, np.arange(len(columns)), columns]
            p = np.exp(stack)
            total = _row_sums(p)
            p *= stack
            mean = _row_sums(p) / total
            square = np.einsum("snc,snc->sn", p, stack) / total
            gradient += (mean - own) @ weight
            curvature += (square - mean**2) @ weight
        low = np.where(gradient <= 0, log_ratio, low)
        high = np.where(gradient > 0, log_ratio, high)
        # Newton's step in log t divides by the second derivative, curvature + gradient.
        # In log t the loss need not be convex: where the gradient is negative, its
        # absolute value keeps the divisor positive.
        change = np.clip(gradient / (curvature + np.abs(gradient)), -1, 1)
        log_ratio = log_ratio - change
        if np.abs(change).max() < tolerance:
            break
        # A step out of the interval that has the minimum goes to its middle instead.
        beyond = (log_ratio < low) | (log_ratio > high)
        log_ratio[beyond] = (low[beyond] + high[beyond]) / 2
    return np.exp(log_ratio)


def mean_spreads(blocks, n_settings):
    """Average the standard deviation of a shot's scores over shots."""
    total, n_rows = np.zeros(n_settings), 0
    for stack, columns, _ in blocks:
        total += stack.std(axis=2).sum(axis=1)
        n_rows += len(columns)
    return total / max(1, n_rows)


def _row_sums(stack):
    """Sum over the last axis, as a product, which is quicker than a sum."""
    ones = np.ones(stack.shape[-1], dtype=stack.dtype)
    return (stack.reshape(-1, len(ones)) @ ones).reshape(stack.shape[:-1])


def _shift_if_large(stack):
    """Shift rows, in place, if exp() of some score would overflow or underflow.

    Returns
    -------
    ndarray of shape (n_settings, n_samples)
        Position of the largest score of each row.
    """
    best = stack.argmax(axis=2)
    rows = stack.reshape(-1, stack.shape[2])
    top = rows[np.arange(len(rows)), best.ravel()]
    if np.abs(top).max(initial=0) > _SAFE_EXPONENT:
        stack -= top.reshape(*best.shape, 1)
    return best


def score_shots(stack, columns):
    """Judge held-out shots one by one.

    Parameters
    ----------
    stack : ndarray of shape (n_settings, n_samples, n_classes)
        Scores times the temperature; overwritten.
    columns : ndarray of shape (n_samples,)
        Column of each right class, or -1 where there is none.

    Returns
    -------
    hits, losses : ndarray of shape (n_settings, n_samples)
        Whether each is right, and its log loss; without a right class wrong, and
        a loss that means nothing.
    """
    best = _shift_if_large(stack)
    own = stack[:, np.arange(len(columns)), columns]
    np.exp(stack, out=stack)
    return best == columns, np.log(_row_sums(stack)) - own
