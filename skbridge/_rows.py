"""Row-wise operations on arrays, for every part of the library."""

from collections.abc import Iterator

import numpy as np


def batches(n: int, size: int) -> Iterator[slice]:
    """Divide `n` rows into slices of at most `size` rows, and at least one row."""
    size = max(1, size)
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def row_lengths(x):
    """Euclidean length of each row, with no temporary of the size of `x`."""
    return np.sqrt(np.einsum("...i,...i->...", x, x))


def unit(x, out=None):
    """Scale the rows of `x` to length 1; a row of zeros stays as it is."""
    norm = row_lengths(x)[..., None]
    return np.divide(x, np.where(norm > 0, norm, 1), out=out)


def within_range(x):
    """Scale the rows whose squares would overflow or underflow."""
    limits = np.finfo(x.dtype)
    peak = np.maximum(x.max(axis=1), -x.min(axis=1))
    is_far = (peak > 0) & ((peak < limits.tiny**0.4) | (peak > limits.max**0.4))
    if is_far.any():
        x = x.copy()
        x[is_far] /= peak[is_far, None]
    return x


def log_softmax(scores):
    """Row-wise log softmax, without overflow or underflow."""
    shifted = scores - scores.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def softmax(scores, temperature):
    """Row-wise softmax of `temperature` times `scores`; overwrites `scores`.

    The largest score has the largest probability: where rounding makes it equal to an
    earlier one, it is raised to the next floating point number.
    """
    first = scores.argmax(axis=-1)[..., None]
    scores -= np.take_along_axis(scores, first, axis=-1)
    # An infinite factor would make the largest score, now zero, NaN.
    with np.errstate(over="ignore"):
        scores *= min(temperature, float(np.finfo(scores.dtype).max))
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    tied = scores.argmax(axis=-1)[..., None] != first
    if tied.any() and temperature > 0:
        largest = np.take_along_axis(scores, first, axis=-1)
        larger = np.where(
            tied, np.nextafter(largest, largest.dtype.type(np.inf)), largest
        )
        np.put_along_axis(scores, first, larger, axis=-1)
    return scores
