"""Row-wise operations on arrays that every part of the library shares."""

from collections.abc import Iterator

import numpy as np


def batches(n: int, size: int) -> Iterator[slice]:
    """Divide `n` rows into slices of at most `size` rows, at least one each."""
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
    """Scale rows so long or short that their squares would over- or underflow."""
    limits = np.finfo(x.dtype)
    peak = np.maximum(x.max(axis=1), -x.min(axis=1))
    is_far = (peak > 0) & ((peak < limits.tiny**0.4) | (peak > limits.max**0.4))
    if is_far.any():
        x = x.copy()
        x[is_far] /= peak[is_far, None]
    return x


def log_softmax(scores):
    """Row-wise log softmax that neither over- nor underflows."""
    shifted = scores - scores.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def softmax(scores, temperature):
    """Row-wise softmax of `temperature` times `scores`, which are overwritten.

    The largest score has the largest probability, by one last digit where the
    floating point type cannot tell them apart otherwise.
    """
    first = scores.argmax(axis=-1)[..., None]
    scores -= np.take_along_axis(scores, first, axis=-1)
    scores *= temperature
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
