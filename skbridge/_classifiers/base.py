"""Base class of every few-shot classifier: texts, shots, prediction in blocks."""

from copy import copy
from functools import cache
from inspect import signature
from typing import ClassVar

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from skbridge._classifiers.labels import check_naming
from skbridge._messages import brief, shown
from skbridge._rows import batches, softmax, within_range
from skbridge._texts.head import check_text_head
from skbridge._texts.recipe import resolve_texts
from skbridge._validation import (
    check_classes,
    check_embeddings,
    check_shots,
    check_zero_rows,
    consistent,
)

# Floats that one block of rows may need: 16 MB in float32. Larger blocks exceed the
# processor's caches, smaller ones make the matrix products less efficient.
_BLOCK_FLOATS = 2**22


@cache
def parameter_defaults(kind):
    """Default value of each parameter of an estimator class."""
    parameters = signature(kind).parameters
    return {name: parameter.default for name, parameter in parameters.items()}


class SeparateBlends:
    """Blends that share no work, evaluated one after the other.

    Parameters
    ----------
    blends : sequence
        Each has ``scores(components)``.
    """

    def __init__(self, blends):
        self._blends = blends

    def scores(self, components, factors) -> np.ndarray:
        """Scores times one factor per blend, (n_blends, n_samples, n_classes)."""
        stack = np.stack([blend.scores(components) for blend in self._blends])
        stack *= factors.astype(stack.dtype)[:, None, None]
        return stack


class FewShotClassifier(ClassifierMixin, BaseEstimator):
    """Base class of the few-shot classifiers: texts, and prediction from a blend.

    A subclass has the parameters `texts` and `temperature`. It compares queries in
    two steps, so that a search over the blend repeats only the second:

    - `component_logits` computes arrays that depend on the fit alone; the subclass
      implements ``_components(X, skip)``;
    - ``blend_`` blends them to the scores s; the subclass implements
      ``_make_blend()``, which reads the parameters named in `blend_parameters` and
      returns an immutable object with ``scores(components)`` and
      ``default_temperature``.

    `fit` calls ``_start_fit`` first and ``_finish_fit`` last. A subclass may override
    ``_scorer`` if predictions need fewer than all components, `stack_blends` if blends
    share work, and `search_space` and `search_prior`.
    """

    #: Parameters of the blend alone, which can be changed without another fit.
    blend_parameters: ClassVar[tuple[str, ...]] = ()

    def _start_fit(self, X, y, sample_weight):
        """Validate shots, and set the attributes that depend on labels and texts.

        These are `classes_`, `text_head_`, `class_count_` and ``_text_features`` (unit
        class texts in the dtype of X, or None).

        Returns
        -------
        X : ndarray of shape (n_samples, n_features), float32 or float64
        codes : ndarray of shape (n_samples,)
            Index of each shot's label in `classes_`.
        sample_weight : ndarray of shape (n_samples,)
            Positive weights; shots of weight zero are dropped.
        """
        return self._start_checked_fit(*check_shots(self, X, y, sample_weight))

    def _start_checked_fit(self, X, y, weight):
        """Start a fit to shots that `check_shots` returned."""
        classes, codes = np.unique(y, return_inverse=True)
        check_classes(self, classes)
        self._set_classes(X, classes)
        self._check_idle_parameters()
        self.class_count_ = np.bincount(codes, weights=weight)
        if self._text_features is not None:
            check_naming(X, codes, self.text_head_, self.texts, classes)
        return X, codes, weight

    def _set_classes(self, X, classes):
        self.classes_ = classes
        self.text_head_ = head = self.resolve_texts(classes)
        check_text_head(head, X.shape[1])
        has_texts = head is not None and head.text_features is not None
        self._text_features = head.text_features.astype(X.dtype) if has_texts else None
        check_zero_rows(X, "fit", error=has_texts)

    def _finish_fit(self):
        """Set the attributes that depend on the blend parameters."""
        self.blend_ = self._make_blend()
        is_given = self.temperature not in (None, "auto")
        self.temperature_ = (
            float(self.temperature) if is_given else self._automatic_temperature()
        )

    def _automatic_temperature(self):
        """Softmax temperature where the parameter leaves it open."""
        return self.blend_.default_temperature

    def resolve_texts(self, labels):
        """Find or make the texts of labels, as `fit` does.

        Parameters
        ----------
        labels : ndarray of shape (n_classes,)
            Distinct labels, sorted.

        Returns
        -------
        TextHead or None
            Its classes are `labels`, in their order; None without texts.
        """
        return resolve_texts(self.texts, labels, device=getattr(self, "device", "auto"))

    def _idle_parameters(self):
        """Yield (names of parameters, the setting that gives them no effect)."""
        return ()

    def _check_idle_parameters(self):
        """Refuse parameters that are set but have no effect under another one."""
        defaults = parameter_defaults(type(self))
        for names, reason in self._idle_parameters():
            for name in names:
                value, default = getattr(self, name), defaults[name]
                if value is not default and value != default:
                    raise ValueError(
                        f"{name}={brief(value)} has no effect with {reason}. Omit "
                        f"{name}, or change the other parameter."
                    )

    @property
    def _logit_scale(self):
        return 100.0 if self.text_head_ is None else self.text_head_.logit_scale

    # Interface of a search

    @consistent
    def component_logits(self, X, *, skip=()):
        """Component logits of the queries, before they are blended.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Image embeddings, not normalised.
        skip : collection of int, default=()
            Positions of components that need not be computed; None is returned for
            them.

        Returns
        -------
        tuple of (ndarray of shape (n_samples, n_columns) or None)
        """
        check_is_fitted(self)
        X = within_range(check_embeddings(self, X, reset=False))
        check_zero_rows(X, "component_logits")
        return self._components(X, skip)

    def reblend(self, **params):
        """Copy the fitted classifier with other blend parameters, without a new fit.

        Parameters
        ----------
        **params
            Values of parameters named in `blend_parameters`, or of `temperature`.

        Returns
        -------
        FewShotClassifier
            A fitted classifier that shares all arrays with this one.

        Raises
        ------
        ValueError
            If a name is not a blend parameter, or the values contradict each other.
        """
        check_is_fitted(self)
        unknown = params.keys() - {*self.blend_parameters, "temperature"}
        if unknown:
            raise ValueError(
                f"{shown(sorted(unknown))} cannot be changed without another fit. The "
                f"blend parameters are {', '.join(self.blend_parameters)} and "
                "temperature; for other parameters use set_params and fit."
            )
        other = copy(self)
        vars(other).update(params)
        other._check_idle_parameters()
        other._finish_fit()
        return other

    @staticmethod
    def stack_blends(blends):
        """Evaluate many blends of one fitted classifier together.

        Parameters
        ----------
        blends : list
            Values of `blend_` of classifiers with the same fit.

        Returns
        -------
        object
            Has ``scores(components, factors)``, which gives the scores under every
            blend, times one factor per blend, of shape (n_blends, n_samples,
            n_classes).
        """
        return SeparateBlends(blends)

    def search_space(self, n_shots, head):
        """List the settings to search: lists or distributions by parameter name.

        Parameters
        ----------
        n_shots : float
            Median number of shots per class.
        head : TextHead or None
            The texts.

        Returns
        -------
        dict
        """
        return {}

    def search_prior(self, n_shots, head):
        """Declare the setting that suits a number of shots, without a search.

        Parameters
        ----------
        n_shots : float
            Median number of shots per class.
        head : TextHead or None
            The texts.

        Returns
        -------
        dict
        """
        return {}

    # Prediction

    @property
    def _floats_per_row(self):
        """Number of floats that scoring one row needs; it determines the block size."""
        return 3 * (self.n_features_in_ + len(self.classes_))

    def _scorer(self, n_rows, dtype):
        """Make a function ``score(X, out)`` from a block of queries to its scores.

        Parameters
        ----------
        n_rows : int
            Largest number of rows of a block.
        dtype : numpy dtype
            Type of the rows.

        Returns
        -------
        callable
            Its second argument is None, or an array to which the scores may be written.
            The next call may overwrite the returned scores.
        """
        return lambda X, out: self.blend_.scores(self._components(X, ()))

    def _blockwise(self, X, finish, *, in_place=False):
        """Apply `finish` to the scores of one block of rows after another.

        `finish` may overwrite the scores. With `in_place` its result has their shape.
        """
        check_is_fitted(self)
        X = within_range(check_embeddings(self, X, reset=False))
        check_zero_rows(X, "predict")
        n_rows = min(len(X), max(1, _BLOCK_FLOATS // self._floats_per_row))
        out, score = None, self._scorer(n_rows, X.dtype)
        for rows in batches(len(X), n_rows):
            target = out[rows] if in_place and out is not None else None
            scores = score(X[rows], target)
            if not np.isfinite(scores.max()):
                raise ValueError(
                    f"Scores must be finite, got {scores.max()}: the blend overflows "
                    f"{scores.dtype}. Lower smoothness or the weights of the blend or "
                    "of the shots, or pass float64 to fit and to predict."
                )
            block = finish(scores)
            if out is None:
                out = np.empty((len(X), *block.shape[1:]), dtype=block.dtype)
            if block is not target:
                out[rows] = block
        return out

    @consistent
    def decision_function(self, X):
        """Blended logits s.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Image embeddings, not normalised.

        Returns
        -------
        ndarray of shape (n_samples, n_classes), or (n_samples,) for two classes
            For two classes the score of ``classes_[1]`` minus that of
            ``classes_[0]``.
        """
        check_is_fitted(self)
        if len(self.classes_) == 2:
            return self._blockwise(X, lambda scores: scores[:, 1] - scores[:, 0])
        return self._blockwise(X, lambda scores: scores, in_place=True)

    @consistent
    def predict(self, X):
        """Most probable label of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Image embeddings, not normalised.

        Returns
        -------
        ndarray of shape (n_samples,)
            Labels among `classes_`.
        """
        codes = self._blockwise(X, lambda scores: scores.argmax(axis=1))
        return self.classes_[codes]

    @consistent
    def predict_proba(self, X):
        """Class probabilities, ``softmax(temperature_ * s)``.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Image embeddings, not normalised.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Columns in the order of `classes_`.
        """
        return self._blockwise(
            X, lambda scores: softmax(scores, self.temperature_), in_place=True
        )

    @consistent
    def predict_log_proba(self, X):
        """Logarithm of `predict_proba`; minus infinity where that is zero.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Image embeddings, not normalised.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
        """
        with np.errstate(divide="ignore"):
            proba = self.predict_proba(X)
            return np.log(proba, out=proba)
