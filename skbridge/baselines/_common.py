"""Base classes of the rivals: texts, unit shots, blends, shared documentation."""

from collections import defaultdict
from dataclasses import dataclass
from numbers import Real

import numpy as np
from sklearn.base import _fit_context
from sklearn.utils._param_validation import Interval

from skbridge._classifiers.base import FewShotClassifier
from skbridge._classifiers.blend import exponential_type
from skbridge._rows import unit
from skbridge._validation import all_or_nothing

NON_NEGATIVE = [Interval(Real, 0, None, closed="left")]
POSITIVE = [Interval(Real, 0, None, closed="neither")]
# Beyond 100 the exponentials of usual cosines are too small to compare.
MAX_SHARPNESS = 100
SHARPNESS = [Interval(Real, 0, MAX_SHARPNESS, closed="both")]
# Without texts, logits of a smaller weight vanish in float32.
_LEAST_ALPHA = 1e-20

# Written once for all rivals: {name} in a docstring is replaced by its entry.
_SHARED_DOCS = {
    "texts": """\
texts : str, path-like, CLIPTexts, TextHead or None, default="ViT-B-16"
        The class texts, as for :class:`skbridge.SeMoBridgeClassifier`. None makes a
        classifier without texts.""",
    "temperature": """\
temperature : float, default=None
        Factor of the scores in the softmax of `predict_proba`; None means
        {default}.""",
    "attributes": """\
classes_ : ndarray of shape (n_classes,)
        Labels seen in `fit`, sorted.
    n_features_in_ : int
        Width d of the embeddings.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the embedding's columns, where `fit` saw string names.
    text_head_ : TextHead or None
        Text side, its classes in the order of `classes_`.
    class_count_ : ndarray of shape (n_classes,)
        Sum of the sample weights of each class.
    blend_ : object
        Blends component logits to scores.
    temperature_ : float
        Factor of the scores in the softmax.""",
}


@dataclass(frozen=True)
class AddedLogits:
    """``s = text_scale z1 + alpha f``; without texts the first term drops out.

    Attributes
    ----------
    text_scale, alpha : float
    default_temperature : float
    """

    text_scale: float
    alpha: float
    default_temperature: float
    skip = ()

    def scores(self, components):
        """Blend z1 and the few-shot logits f."""
        z1, few_shot = components
        few_shot = self.alpha * few_shot
        return few_shot if z1 is None else self.text_scale * z1 + few_shot


@dataclass(frozen=True)
class PlainScores:
    """The only component as the scores.

    Attributes
    ----------
    default_temperature : float
    """

    default_temperature: float
    skip = ()

    def scores(self, components):
        """Return the component."""
        return components[0]


def kernel(cosines, sharpness):
    """``exp(-sharpness (1 - A))``, in float64 where float32 could underflow.

    Parameters
    ----------
    cosines : ndarray
        A.
    sharpness : float

    Returns
    -------
    ndarray
    """
    dtype = exponential_type(2 * sharpness, cosines.dtype)
    near = np.subtract(cosines, 1, dtype=dtype)
    near *= float(sharpness)
    return np.exp(near, out=near)


def cache_logits(affinity, sharpness, values, starts):
    """Weighted sum over the shots of each class of ``exp(-sharpness (1 - A))``.

    Parameters
    ----------
    affinity : ndarray of shape (n_samples, n_shots)
        Cosines A of queries and shots; the shots ordered by class.
    sharpness : float
        Beta of Tip-Adapter and APE.
    values : ndarray of shape (n_shots,)
        Weight of each shot.
    starts : ndarray of shape (n_classes,)
        Index of the first shot of each class.

    Returns
    -------
    ndarray of shape (n_samples, n_classes)
    """
    near = kernel(affinity, sharpness)
    near *= values
    return np.add.reduceat(near, starts, axis=1)


@dataclass(frozen=True, eq=False)
class CacheBlend:
    """Blend of the texts and of the votes of the shots, which fade with distance.

    Attributes
    ----------
    sum : AddedLogits
        Weighted sum of texts and votes.
    sharpness : float
        Beta.
    values : ndarray of shape (n_shots,)
        Weight of each shot's vote.
    values_key : float
        Equal for blends of one fit that share `values`.
    starts : ndarray of shape (n_classes,)
        Index of the first shot of each class.
    """

    sum: AddedLogits
    sharpness: float
    values: np.ndarray
    values_key: float
    starts: np.ndarray
    skip = ()

    @property
    def default_temperature(self):
        """Softmax temperature of the scores."""
        return self.sum.default_temperature

    def scores(self, components):
        """Blend z1 and the affinities to the shots."""
        z1, affinity = components
        return self.sum.scores((z1, self.votes(affinity)))

    def votes(self, affinity):
        """Votes of the shots by class."""
        return cache_logits(affinity, self.sharpness, self.values, self.starts)


class CacheBlends:
    """Cache blends of one fit, evaluated together.

    Blends that differ in alpha alone share the votes, whose exponentials cost most.

    Parameters
    ----------
    blends : list of CacheBlend
    """

    def __init__(self, blends):
        self._blends = blends

    def scores(self, components, factors):
        """Scores times one factor per blend, (n_blends, n_samples, n_classes)."""
        z1, affinity = components
        sharing = defaultdict(list)
        for row, blend in enumerate(self._blends):
            sharing[blend.sharpness, blend.values_key].append(row)
        scores = [None] * len(self._blends)
        for rows in sharing.values():
            votes = self._blends[rows[0]].votes(affinity)
            for row in rows:
                scores[row] = self._blends[row].sum.scores((z1, votes))
        stack = np.stack(scores)
        stack *= factors.astype(stack.dtype)[:, None, None]
        return stack


class RivalClassifier(FewShotClassifier):
    """Base class of the rivals: CLIP's logits beside logits of the shots.

    A subclass implements ``_learn(X, codes, weight)``, which sets its fitted attributes
    from unit shots ordered by class, ``_components`` and ``_make_blend``. In its
    docstring ``{texts}``, ``{temperature}`` and ``{attributes}`` stand for the shared
    documentation.
    """

    _parameter_constraints = {
        "texts": "no_validation",
        "temperature": [*POSITIVE, None],
    }
    _default_temperature_doc = "1, the scores being logits"

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if cls.__doc__:
            for name, text in _SHARED_DOCS.items():
                text = text.replace("{default}", cls._default_temperature_doc)
                cls.__doc__ = cls.__doc__.replace(f"{{{name}}}", text)

    @_fit_context(prefer_skip_nested_validation=True)
    @all_or_nothing
    def fit(self, X, y, sample_weight=None):
        """Learn from labelled shots.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Image embeddings; their lengths do not matter.
        y : array-like of shape (n_samples,)
            Labels; classes may have any numbers of shots, from one.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each shot; weight 2 is the shot given twice, weight 0 the
            shot left out.

        Returns
        -------
        self : object
            The fitted classifier.

        Raises
        ------
        ValueError
            If y has one class only, a label has no text, X and the texts have
            different widths, no term of the scores is left (no texts, and no weight
            for the shots), or a parameter does not suit the shots.
        """
        X, codes, weight = self._start_fit(X, y, sample_weight)
        order = np.argsort(codes, kind="stable")
        self._learn(unit(X[order]), codes[order], weight[order])
        self._finish_fit()
        return self

    def _learn(self, X, codes, weight):
        raise NotImplementedError

    def _check_alpha(self):
        if self.alpha < _LEAST_ALPHA and self._text_features is None:
            raise ValueError(
                f"alpha={self.alpha:g} gives the shots no weight, and without texts "
                f"there is nothing else to score by. Use at least {_LEAST_ALPHA:g}, or "
                "give texts."
            )

    def _added_logits(self):
        """Blend of CLIP's logits and few-shot logits of weight alpha."""
        self._check_alpha()
        return AddedLogits(self._logit_scale, float(self.alpha), 1.0)

    def _text_cosines(self, q):
        return None if self._text_features is None else q @ self._text_features.T


class CacheClassifier(RivalClassifier):
    """Rival whose shots vote for their classes, with weights that fade with distance.

    A subclass calls ``_set_cache`` in ``_learn``, which sets `cache_keys_`,
    `cache_labels_` and `cache_weight_`.
    """

    def _set_cache(self, keys, codes, weight):
        self.cache_keys_ = keys
        self.cache_labels_ = codes
        self.cache_weight_ = weight.astype(keys.dtype)
        self._starts = np.searchsorted(codes, np.arange(len(self.classes_)))

    @property
    def _floats_per_row(self):
        return super()._floats_per_row + 2 * len(self.cache_keys_)

    @staticmethod
    def stack_blends(blends):
        """Evaluate many blends of one fitted classifier together."""
        return CacheBlends(blends)


def has_texts(head):
    """Whether a text head has class texts."""
    return head is not None and head.text_features is not None
