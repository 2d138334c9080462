"""Labelled embeddings, as training and held-out parts are taken of them."""

from dataclasses import dataclass
from typing import Self

import numpy as np


@dataclass(frozen=True, eq=False)
class Shots:
    """Labelled embeddings.

    Attributes
    ----------
    X : ndarray of shape (n_samples, n_features)
    codes : ndarray of shape (n_samples,)
        Class of each shot, from 0 to n_classes - 1.
    weight : ndarray of shape (n_samples,)
        Positive weights.
    """

    X: np.ndarray
    codes: np.ndarray
    weight: np.ndarray

    def take(self, rows) -> Self:
        """Select some of the shots."""
        return type(self)(self.X[rows], self.codes[rows], self.weight[rows])

    def distinct(self) -> Self:
        """Merge equal shots of one class into one of their summed weight.

        Otherwise a repeated shot would be tested on while its copy is trained on. The
        shots are sorted if any are equal, and otherwise these shots themselves.
        """
        # Shots that differ in their first column, as nearly all do, need no more.
        first = np.unique(np.column_stack([self.codes, self.X[:, 0]]), axis=0)
        if len(first) == len(self.X):
            return self
        _, first, shot = np.unique(
            np.column_stack([self.codes, self.X]),
            axis=0,
            return_index=True,
            return_inverse=True,
        )
        weight = np.bincount(shot.ravel(), weights=self.weight)
        return type(self)(self.X[first], self.codes[first], weight)
