"""Sums of shots by class: all that a closed form needs of its shots."""

from dataclasses import dataclass, fields

import numpy as np

from skbridge._rows import batches, unit

# Rows that are summed by class at once: few enough to stay in the processor's
# caches and to belong to few classes.
_SUMMED_ROWS = 64
# Rows whose second moment is summed at once.
_MOMENT_ROWS = 4096


@dataclass(frozen=True, eq=False)
class ClassSums:
    """Weighted sums of shots, in float64, that add and subtract.

    Adding the sums of two sets of shots gives those of their union; subtracting
    the sums of some shots leaves those of the others. `partial_fit`, leave-one-out
    and cross-validation are built on that.

    Attributes
    ----------
    count : ndarray of shape (n_classes,)
        Sum of the weights w.
    features : ndarray of shape (n_classes, n_features)
        Sum of ``w f``.
    """

    count: np.ndarray
    features: np.ndarray

    # Fields that are sums over all classes.
    _overall = ()

    def __add__(self, other: "ClassSums") -> "ClassSums":
        return self._combine(np.add, other)

    def __sub__(self, other: "ClassSums") -> "ClassSums":
        return self._combine(np.subtract, other)

    def _combine(self, operation, other):
        return type(self)(
            **{
                field.name: operation(
                    getattr(self, field.name), getattr(other, field.name)
                )
                for field in fields(self)
            }
        )

    def with_new_classes(self, n_new: int, order: np.ndarray) -> "ClassSums":
        """Append classes without shots, then reorder the classes.

        Parameters
        ----------
        n_new : int
            Number of classes to append.
        order : ndarray of shape (n_classes + n_new,)
            Old positions, in the new order.

        Returns
        -------
        ClassSums
        """
        extended = {}
        for field in fields(self):
            sums = getattr(self, field.name)
            if field.name not in self._overall:
                empty = np.zeros((n_new, *sums.shape[1:]), dtype=sums.dtype)
                sums = np.concatenate([sums, empty])[order]
            extended[field.name] = sums
        return type(self)(**extended)


@dataclass(frozen=True, eq=False)
class TokenSums(ClassSums):
    """Sums from which the means of bridged shots follow.

    A shot's token is ``L u / ||u||`` with ``u = (f - c) W+ + b``: linear in f but
    for the length, so that sums over ``f / ||u||`` serve every linear map.

    Attributes
    ----------
    inverse_lengths : ndarray of shape (n_classes,)
        Sum of ``w / ||u||``.
    scaled_features : ndarray of shape (n_classes, n_features)
        Sum of ``w f / ||u||``.
    """

    inverse_lengths: np.ndarray
    scaled_features: np.ndarray


@dataclass(frozen=True, eq=False)
class ScatterSums(ClassSums):
    """Sums from which the means and the scatter of unit embeddings follow.

    Unlabelled images count in every sum with their probabilities as weights.

    Attributes
    ----------
    unit_features : ndarray of shape (n_classes, n_features)
        Sum of ``w x``, with ``x = unit(f)``.
    second_moment : ndarray of shape (n_features, n_features)
        Sum of ``w x' x`` over the shots of all classes.
    shots : ndarray of shape (n_classes,)
        Sum of the weights of the shots, without unlabelled images.
    """

    unit_features: np.ndarray
    second_moment: np.ndarray
    shots: np.ndarray

    _overall = ("second_moment",)

    @classmethod
    def of_shots(cls, X, codes, weight, n_classes):
        """Sum labelled rows."""
        x = unit(X.astype(np.float64))
        count = np.bincount(codes, weights=weight, minlength=n_classes)
        return cls(
            count=count,
            shots=count,
            features=class_sums(X, codes, weight, n_classes),
            unit_features=class_sums(x, codes, weight, n_classes),
            second_moment=second_moment(x, weight),
        )


def second_moment(x, weight):
    """Sum ``w x' x``, in float64 and in blocks of rows."""
    total = np.zeros((x.shape[1],) * 2)
    for rows in batches(len(x), _MOMENT_ROWS):
        scaled = np.sqrt(weight[rows])[:, None] * x[rows].astype(np.float64, copy=False)
        total += scaled.T @ scaled
    return total


def class_sums(rows, codes, weights, n_classes):
    """Weighted sums of the rows of each class, in float64 whatever their type.

    Parameters
    ----------
    rows : ndarray of shape (n_samples, n_columns)
    codes : ndarray of shape (n_samples,)
    weights : ndarray of shape (..., n_samples)
        One or more weightings; the rows are read once for all of them.
    n_classes : int

    Returns
    -------
    ndarray of shape (..., n_classes, n_columns)
    """
    weights = np.asarray(weights, dtype=np.float64)
    stacked = np.atleast_2d(weights)
    sums = np.zeros((len(stacked), n_classes, rows.shape[1]))
    ordered = (codes[1:] >= codes[:-1]).all()
    order = None if ordered else np.argsort(codes, kind="stable")
    for batch in batches(len(rows), _SUMMED_ROWS):
        # Ordered by class, a block has few classes: a small dense product sums it.
        chosen = batch if ordered else order[batch]
        own = codes[chosen]
        present = slice(own[0], own[-1] + 1)
        members = np.arange(own[0], own[-1] + 1)[:, None] == own
        members = (members * stacked[:, None, chosen]).reshape(-1, len(own))
        block = rows[chosen].astype(np.float64, copy=False)
        sums[:, present] += (members @ block).reshape(len(stacked), -1, block.shape[1])
    return sums.reshape(*weights.shape[:-1], *sums.shape[1:])
