"""What the rivals share: parameters of the text side, unit shots, the blend."""

import os
from numbers import Real

import numpy as np
from sklearn.utils._param_validation import Interval

from skbridge._classifiers.base import BaseFewShotClassifier
from skbridge._rows import unit

NON_NEGATIVE = [Interval(Real, 0, None, closed="left")]
POSITIVE = [Interval(Real, 0, None, closed="neither")]


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


class BaseRivalClassifier(BaseFewShotClassifier):
    """Rival of the bridge: texts weighed against some few-shot logits."""

    _parameter_constraints = {
        "model": [str, os.PathLike, None],
        "pretrained": [str, os.PathLike, None],
        "text_head": "no_validation",
        "class_names": "no_validation",
        "templates": "no_validation",
        "temperature": [*POSITIVE, None],
        "device": [str, None],
    }

    def __init__(
        self,
        *,
        model,
        pretrained,
        text_head,
        class_names,
        templates,
        temperature,
        device,
    ):
        self.model = model
        self.pretrained = pretrained
        self.text_head = text_head
        self.class_names = class_names
        self.templates = templates
        self.temperature = temperature
        self.device = device

    def _start_unit(self, X, y, sample_weight):
        """Start fitting; give unit shots ordered by class, their codes and weights."""
        X, codes, weight = self._start_fit(X, y, sample_weight)
        self._check_blend()
        self.temperature_ = self._softmax_temperature()
        order = np.argsort(codes, kind="stable")
        return unit(X[order]), codes[order], weight[order]

    @property
    def _default_temperature(self):
        # The scores are logits already, CLIP's scale included.
        return 1.0

    def _check_blend(self):
        weighs_shots = "alpha" in self._blend_parameters
        if weighs_shots and self.alpha == 0 and self._text_features is None:
            raise ValueError(
                "alpha=0 gives the shots no weight, and without texts nothing else "
                "has any. Use a positive alpha, or give texts."
            )

    @property
    def _expects_texts(self):
        """Whether fitting would find class texts, as far as parameters tell."""
        if self.text_head is None:
            return self.model is not None
        return self.text_head.classes is not None

    def _text_cosines(self, q):
        return None if self._text_features is None else q @ self._text_features.T

    def _add_texts(self, text_logits, few_shot, alpha):
        """``text_logits + alpha few_shot``; the first drops out without texts."""
        few_shot = float(alpha) * few_shot
        return few_shot if text_logits is None else text_logits + few_shot

    def _clip_logits(self, z1):
        return None if z1 is None else self._logit_scale * z1


class BaseCacheClassifier(BaseRivalClassifier):
    """Rival whose shots vote, the nearer to the query the more.

    A subclass sets `cache_keys_`, `cache_labels_` and `cache_weight_` with
    `_set_cache`, and has ``_votes(affinity)`` and ``_vote_parameters``, the names
    of the blend parameters that these depend on.
    """

    def _set_cache(self, keys, codes, weight):
        self.cache_keys_ = keys
        self.cache_labels_ = codes
        self.cache_weight_ = weight.astype(keys.dtype)
        self._starts = np.searchsorted(codes, np.arange(len(self.classes_)))

    @property
    def _floats_a_row(self):
        return super()._floats_a_row + 2 * len(self.cache_keys_)

    def _blend(self, components):
        return self._blend_stack(components, [self])[0]

    def _blend_stack(self, components, variants):
        z1, affinity = components
        text_logits = self._clip_logits(z1)
        # The votes are what costs; settings that differ in alpha share them.
        votes, scores = {}, []
        for variant in variants:
            key = tuple(getattr(variant, name) for name in self._vote_parameters)
            if key not in votes:
                votes[key] = variant._votes(affinity)
            scores.append(self._add_texts(text_logits, votes[key], variant.alpha))
        return np.stack(scores)
