"""What the rivals share: texts, unit shots, blends, and their documentation."""

from collections import defaultdict
from dataclasses import dataclass
from numbers import Real

import numpy as np
from sklearn.utils._param_validation import Interval

from skbridge._classifiers.base import FewShotClassifier
from skbridge._rows import unit

NON_NEGATIVE = [Interval(Real, 0, None, closed="left")]
POSITIVE = [Interval(Real, 0, None, closed="neither")]

# Written once for all rivals; {name} in a docstring stands for its entry.
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
        Makes scores of component logits.
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
    """Scores that are the only component as it is.

    Attributes
    ----------
    default_temperature : float
    """

    default_temperature: float
    skip = ()

    def scores(self, components):
        """Return the component."""
        return components[0]


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
    near = np.exp(float(sharpness) * (affinity - 1))
    near *= values
    return np.add.reduceat(near, starts, axis=1)


@dataclass(frozen=True, eq=False)
class CacheBlend:
    """Texts, and the votes of the shots: the nearer to the query, the more.

    Attributes
    ----------
    sum : AddedLogits
        Adds texts and votes.
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

    The votes cost most; blends that differ in alpha alone share them.

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
    """Rival of the bridge: texts weighed against some few-shot logits.

    A subclass writes ``{texts}``, ``{temperature:...}`` and ``{attributes}`` in its
    docstring where the shared documentation goes, implements ``_components`` and
    ``_make_blend``, and calls ``_start_unit`` and ``_finish_fit`` in `fit`.
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

    def _start_unit(self, X, y, sample_weight):
        """Start fitting; give unit shots ordered by class, their codes and weights."""
        X, codes, weight = self._start_fit(X, y, sample_weight)
        order = np.argsort(codes, kind="stable")
        return unit(X[order]), codes[order], weight[order]

    def _check_alpha(self):
        if self.alpha == 0 and self._text_features is None:
            raise ValueError(
                "alpha=0 gives the shots no weight, and without texts nothing else "
                "has any. Use a positive alpha, or give texts."
            )

    def _added_logits(self):
        """Blend of CLIP's logits and few-shot logits of weight alpha."""
        self._check_alpha()
        return AddedLogits(self._logit_scale, float(self.alpha), 1.0)

    def _text_cosines(self, q):
        return None if self._text_features is None else q @ self._text_features.T


class CacheClassifier(RivalClassifier):
    """Rival whose shots vote, the nearer to the query the more.

    A subclass sets `cache_keys_`, `cache_labels_` and `cache_weight_` with
    ``_set_cache``.
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
