"""The blend: the weighted sum of z1, z2 and z3, written once. NumPy only.

Symbols follow the paper: ``z1`` compares a query with the class texts, ``z2`` the
bridged query with the few-shot prototypes, ``z3`` the query with the bridged
prototypes. `Blend` owns the equation; prediction, search and explanation use it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from skbridge._rows import log_softmax, unit

BLENDINGS = ("linear", "exponential")

_KL_EPS = 1e-6
# Scores of float32 neither overflow nor underflow while the largest weight is within
# these bounds and the exponents of the terms are at most `_MAX_EXPONENT` in size.
_LEAST_WEIGHT, _MOST_WEIGHT = 1e-20, 1e20
_MAX_EXPONENT = 40.0


def divergence_bits(p: np.ndarray) -> np.ndarray:
    """``KL = log2((1 + 1e-6) / (p + 1e-6))`` of a class's own probability p."""
    return np.log2((1 + _KL_EPS) / (p + _KL_EPS))


def exponential_type(exponent, dtype):
    """Type for exponentials of exponents of this size: float64 if float32 is narrow."""
    return np.result_type(dtype, np.float64 if exponent > _MAX_EXPONENT else dtype)


def text_divergence(prototypes, text_features):
    """KL divergence of each class's text from its prototype, in bits.

    KL of p_kk, where ``p`` is the softmax over classes of the cosine of prototype k
    and each class text, without a temperature.

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
    return divergence_bits(p)


@dataclass(frozen=True, eq=False)
class LinearView:
    """A linear map of queries to unit rows: ``unit((x - c) M)``.

    Attributes
    ----------
    matrix : ndarray of shape (n_features, n_columns)
        M.
    bias : ndarray of shape (n_features,) or None
        c; None means zero.
    """

    matrix: np.ndarray
    bias: np.ndarray | None = None

    def __call__(self, X: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Map rows, into `out` where it is given."""
        centred = X if self.bias is None else X - self.bias
        rows = np.matmul(centred, self.matrix, out=out)
        return unit(rows, rows)


@dataclass(frozen=True, eq=False)
class Term:
    """One component logit: the cosines of seen queries and class vectors.

    Attributes
    ----------
    view : callable
        Maps queries to unit rows, ``view(X, out=None)``.
    vectors : ndarray of shape (n_classes, n_columns)
        Unit class vectors.
    """

    view: Callable
    vectors: np.ndarray

    def cosines(self, X: np.ndarray) -> np.ndarray:
        """Compare queries with the class vectors, (n_samples, n_classes)."""
        return self.view(X) @ self.vectors.T


@dataclass(frozen=True, eq=False)
class Blend:
    """Weights and sharpness of the component logits.

    Linear: ``s_k = lambda_1 z1 + lambda_2 z2 + lambda_3 z3``. Exponential: ``s_k =
    lambda_1 exp(-alpha (1 - z1)) + w_k [lambda_2 exp(-beta (1 - z2)) + lambda_3
    exp(-gamma (1 - z3))]`` with ``w_k = exp(smoothness KL_k)``.

    Attributes
    ----------
    lambdas : tuple of three floats
        Zero for a component that is not there.
    sharpness : tuple of three floats or None
        alpha, beta and gamma; None makes the blend linear.
    smoothness : float
    divergence : ndarray of shape (n_classes,) or None
        KL; needed where `smoothness` is positive.
    logit_scale : float
        CLIP's factor on cosines.
    spreads : tuple of three floats
        Spread of each component over classes, relative to z1.
    """

    lambdas: tuple[float, float, float]
    sharpness: tuple[float, float, float] | None = None
    smoothness: float = 0.0
    divergence: np.ndarray | None = None
    logit_scale: float = 100.0
    spreads: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self):
        largest = max(self.lambdas)
        if largest and not _LEAST_WEIGHT <= largest <= _MOST_WEIGHT:
            raise ValueError(
                f"The largest weight of the blend must lie between {_LEAST_WEIGHT:g} "
                f"and {_MOST_WEIGHT:g}, but lambda_1, lambda_2 and lambda_3 are "
                f"{', '.join(f'{weight:g}' for weight in self.lambdas)}. Multiply all "
                "of them by one factor: predicted labels do not change."
            )

    @property
    def default_temperature(self) -> float:
        """Softmax temperature that preserves CLIP's logit scale for any weights.

        A change ``dz`` of z1, and of ``spread dz`` in the others, moves a linear
        blend by ``sum(lambda spread) dz`` and, next to ``z = 1``, an exponential one
        by ``(lambda_1 alpha + lambda_2 beta + lambda_3 gamma) dz`` for spreads of 1.
        CLIP's scale is divided by that slope; a flat blend (every sharpness zero)
        keeps CLIP's scale.
        """
        slopes = np.multiply(self.sharpness or np.ones(3), self.spreads)
        slope = np.dot(self.lambdas, slopes)
        return float(self.logit_scale / slope) if slope > 0 else float(self.logit_scale)

    @property
    def skip(self) -> tuple[int, ...]:
        """Positions of the components that have no weight."""
        return tuple(i for i, weight in enumerate(self.lambdas) if not weight)

    def part(self, i: int, z: np.ndarray) -> np.ndarray:
        """Part of component `i` (0 for z1) in the scores."""
        return self.lambdas[i] * self._sharpened(i, z)

    def scores(self, components: Sequence[np.ndarray | None]) -> np.ndarray:
        """Blend component logits of shape (n_samples, n_classes)."""
        return BlendStack([self]).scores(components, np.ones(1))[0]

    def fold(self, terms: Sequence[Term | None], n_rows: int, dtype):
        """Fold the weights into the class vectors, for many blocks of queries.

        Parameters
        ----------
        terms : sequence of three Terms or None
        n_rows : int
            The most rows of a block.
        dtype : numpy dtype
            Of the scores, unless an exponential blend needs float64.

        Returns
        -------
        callable
            ``score(X, out=None)`` gives the scores of a block. The next call
            overwrites what it gave, unless it was written to `out`.
        """
        weighed = [
            (i, term)
            for i, term in enumerate(terms)
            if term is not None and self.lambdas[i]
        ]
        if self.sharpness is None:
            return _LinearScorer(self, weighed, n_rows, dtype)
        for i, _ in weighed:
            dtype = self._term_type(i, dtype)
        return _ExponentialScorer(self, weighed, n_rows, dtype)

    def offset(self, i: int):
        """Logarithm of the factor of a sharpened term, one per class or one for all."""
        offset = -self.sharpness[i]
        if i and self.smoothness:
            offset = offset + self.smoothness * self.divergence
        return offset

    def _sharpened(self, i, z):
        """``exp(-sharpness (1 - z)) w_k``; a linear blend's term is z itself."""
        if self.sharpness is None:
            return z
        term = np.multiply(self.sharpness[i], z, dtype=self._term_type(i, z.dtype))
        term += self.offset(i)
        return np.exp(term, out=term)

    def _term_type(self, i, dtype):
        """Type of a sharpened term: float64 where float32 could over- or underflow."""
        # Cosines may be as low as -1.
        exponents = [2 * self.sharpness[i]]
        if i and self.smoothness:
            exponents.append(self.smoothness * self.divergence.max())
        return exponential_type(max(exponents), dtype)

    def _term_key(self, i):
        """Equal for blends of one fit that share the term of component `i`."""
        if self.sharpness is None:
            return i, None, None
        return i, self.sharpness[i], self.smoothness if i else 0.0


class BlendStack:
    """Many blends of the same component logits, evaluated together.

    Blends share terms: a component in a linear blend; in an exponential blend, its
    exponential under one sharpness and smoothness. All the
    scores are then one product of weights and terms.

    Parameters
    ----------
    blends : sequence of Blend
        Of one fitted classifier.
    """

    def __init__(self, blends: Sequence[Blend]):
        columns, entries = {}, []
        for row, blend in enumerate(blends):
            for i, weight in enumerate(blend.lambdas):
                if weight:
                    key = blend._term_key(i)
                    column, *_ = columns.setdefault(key, (len(columns), blend, i))
                    entries.append((row, column, weight))
        self._terms = [(blend, i) for _, blend, i in columns.values()]
        self._weights = np.zeros((len(blends), len(columns)))
        for row, column, weight in entries:
            self._weights[row, column] = weight

    def scores(self, components, factors) -> np.ndarray:
        """Scores under every blend, times one factor per blend.

        Parameters
        ----------
        components : sequence of three ndarrays of shape (n_samples, n_classes)
            z1, z2 and z3; None for those that no blend weighs.
        factors : ndarray of shape (n_blends,)

        Returns
        -------
        ndarray of shape (n_blends, n_samples, n_classes)
        """
        terms = [blend._sharpened(i, components[i]) for blend, i in self._terms]
        return weighted_sums(factors[:, None] * self._weights, terms)


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


class _LinearScorer:
    """Scores of a linear blend: one product of all views and weighted vectors."""

    def __init__(self, blend, weighed, n_rows, dtype):
        vectors = {}
        for i, term in weighed:
            weighted = blend.lambdas[i] * term.vectors
            vectors[term.view] = vectors.get(term.view, 0) + weighted
        self._views = list(vectors)
        self._edges = np.cumsum([0, *(part.shape[1] for part in vectors.values())])
        self._vectors = np.concatenate(list(vectors.values()), axis=1).T
        # Every block is worked out in the same arrays, which spares fresh memory.
        self._seen = np.empty((n_rows, self._edges[-1]), dtype)
        self._scores = np.empty((n_rows, self._vectors.shape[1]), dtype)

    def __call__(self, X, out=None):
        out = self._scores[: len(X)] if out is None else out
        seen = self._seen[: len(X)]
        edges = pairwise(self._edges)
        for view, (start, stop) in zip(self._views, edges, strict=True):
            view(X, seen[:, start:stop])
        return np.matmul(seen, self._vectors, out=out)


class _ExponentialScorer:
    """Scores of an exponential blend: ``exp(view . sharpness v_k + offset_k)``, summed.

    A last column of ones in the mapped queries adds the offsets in the same product.
    """

    def __init__(self, blend, weighed, n_rows, dtype):
        self._seen, self._folded = {}, []
        for i, term in weighed:
            vectors = term.vectors.astype(dtype, copy=False)
            offset = np.full(len(vectors), np.log(blend.lambdas[i]), dtype)
            offset += blend.offset(i)
            scaled = (blend.sharpness[i] * vectors).T
            self._folded.append((term.view, np.vstack([scaled, offset])))
            self._seen[term.view] = np.ones((n_rows, vectors.shape[1] + 1), dtype)
        self._scores = np.empty((n_rows, len(vectors)), dtype)
        self._term = np.empty_like(self._scores)

    def __call__(self, X, out=None):
        out = self._scores[: len(X)] if out is None else out
        for view, seen in self._seen.items():
            view(X, seen[: len(X), :-1])
        for number, (view, vectors) in enumerate(self._folded):
            term = self._term[: len(X)] if number else out
            np.matmul(self._seen[view][: len(X)], vectors, out=term)
            np.exp(term, out=term)
            if number:
                out += term
        return out
