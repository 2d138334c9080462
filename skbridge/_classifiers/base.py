"""What every few-shot classifier of the library shares: shots, texts, prediction."""

import warnings
from collections.abc import Mapping
from copy import copy

import numpy as np
from scipy.special import bdtrc
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import gen_batches
from sklearn.utils.validation import (
    check_is_fitted,
)

from skbridge._messages import shown
from skbridge._rows import softmax
from skbridge._texts.head import TextHead, check_text_head
from skbridge._validation import (
    check_classes,
    check_embeddings,
    check_shots,
    check_zero_rows,
)

# Floats that one block of rows may need at once: 16 MB in float32. Larger ones leave
# the caches, smaller ones make the matrix products less efficient.
_BLOCK_FLOATS = 2**22
# So many shots mostly show at once that the texts fit, and all are asked otherwise.
_SHOTS_AT_A_GLANCE = 256
_CLEARLY = 1e-6
# Fewer shots cannot tell a classifier from chance often enough to warn about it.
_MIN_SHOTS_TO_JUDGE = 20


def label_names(labels, class_names):
    """Name of each label, for the prompts.

    Parameters
    ----------
    labels : ndarray of shape (n_classes,)
    class_names : None, mapping label -> name, or sequence indexed by label
        None takes string labels as they are.

    Returns
    -------
    list of str

    Raises
    ------
    TypeError, ValueError
        If a label has no name, or what was given cannot name labels.
    """
    if class_names is None:
        if all(isinstance(label, str) for label in labels):
            return [str(label) for label in labels]
        raise ValueError(
            f"y has labels that are no texts ({shown(labels.tolist())}), "
            "and class_names is None, so there is nothing to prompt CLIP with. "
            "Pass class_names={label: name, ...} (or a list, for labels 0 to "
            "n - 1), use string labels, or pass model=None for a classifier "
            "without texts."
        )
    if isinstance(class_names, Mapping):
        missing = [label for label in labels.tolist() if label not in class_names]
        names = [class_names.get(label) for label in labels.tolist()]
    elif isinstance(class_names, str) or not hasattr(class_names, "__len__"):
        raise TypeError(
            "class_names must be a dict from label to name, or a list of names "
            f"indexed by integer labels; got {type(class_names).__name__}."
        )
    elif labels.dtype.kind not in "iu":
        raise ValueError(
            "A list of class_names is indexed by integer labels, but y has the "
            f"labels {shown(labels.tolist())}. Pass a dict from label to name instead."
        )
    else:
        missing = [i for i in labels.tolist() if not 0 <= i < len(class_names)]
        names = [None if i in missing else class_names[i] for i in labels.tolist()]
    if missing:
        raise ValueError(
            f"class_names has no name for the labels {missing[:10]} "
            f"({len(missing)} of {len(labels)}); it has {len(class_names)} names. "
            "Name every label in y."
        )
    unnamed = [
        label
        for label, name in zip(labels.tolist(), names, strict=True)
        if not (isinstance(name, str) and name.strip())
    ]
    if unnamed:
        raise ValueError(
            "class_names must be non-empty strings, but the names of the labels "
            f"{unnamed[:10]} are not."
        )
    return [str(name) for name in names]


def _warn_shared_names(labels, names):
    seen = {}
    for label, name in zip(labels.tolist(), names, strict=True):
        seen.setdefault(name, []).append(label)
    shared = {name: group for name, group in seen.items() if len(group) > 1}
    if shared:
        name, group = next(iter(shared.items()))
        warnings.warn(
            f"{len(shared)} class name(s) are shared, e.g. the labels {group} are "
            f"all called {name!r}: their texts cannot tell them apart, only their "
            "shots can.",
            UserWarning,
            stacklevel=4,
        )


def _names_in_head(labels, head):
    if labels.dtype.kind in "iu":
        missing = [i for i in labels.tolist() if not 0 <= i < len(head.classes)]
        wanted = f"integer labels index its {len(head.classes)} classes"
        names = [] if missing else [head.classes[i] for i in labels]
    else:
        known = set(head.classes)
        missing = [label for label in labels.tolist() if label not in known]
        wanted = f"it has {len(known)} classes, {shown(head.classes)}"
        names = labels.tolist()
    if missing:
        raise ValueError(
            f"text_head has no text for the labels {missing[:10]} "
            f"({len(missing)} of {len(labels)}); {wanted}. Make a head with a text "
            "for every label in y."
        )
    return names


def resolve_text_head(
    labels,
    *,
    text_head,
    model,
    pretrained,
    class_names,
    templates,
    device,
    cache_dir=None,
):
    """Text head whose classes are `labels`, in their order.

    Parameters
    ----------
    labels : ndarray of shape (n_classes,)
        Sorted labels, `classes_`.
    text_head, model, pretrained, class_names, templates, device, cache_dir
        Parameters of the classifier.

    Returns
    -------
    TextHead or None
        None where nothing is known of the text side.

    Raises
    ------
    ValueError
        If parameters contradict each other, or a label has no text.
    """
    if text_head is not None:
        for name, value in (("class_names", class_names), ("templates", templates)):
            if value is not None:
                raise ValueError(
                    f"{name} cannot be combined with text_head, which holds its "
                    f"own texts. Pass {name} to TextHead.from_clip, or leave out "
                    "text_head."
                )
        if text_head.classes is None:
            return text_head
        return text_head[_names_in_head(labels, text_head)]
    if model is None:
        for name, value in (("class_names", class_names), ("templates", templates)):
            if value is not None:
                raise ValueError(
                    f"{name} needs a CLIP model to encode texts, but model is None. "
                    f"Name the model that embedded the images, or leave out {name}."
                )
        return None
    names = label_names(labels, class_names)
    _warn_shared_names(labels, names)
    head = TextHead.from_clip(
        list(dict.fromkeys(names)),
        model=model,
        pretrained=pretrained,
        templates="simple" if templates is None else templates,
        device=device,
        cache_dir=cache_dir,
    )
    return head[names]


def _chance_of_hits(X, codes, texts):
    """Count the shots nearest to their text, and give the chance of so many."""
    hits = int(np.count_nonzero((X @ texts.T).argmax(axis=1) == codes))
    # The binomial distribution's upper tail.
    chance = 1.0 if hits == 0 else bdtrc(hits - 1, len(X), 1 / len(texts))
    return hits, chance


def warn_at_chance(X, codes, texts, model):
    """Warn when class texts tell the shots apart no better than chance.

    The usual cause is embeddings of one CLIP model and texts of another: many
    models share a width, so nothing else would show it.
    """
    n_shots, n_classes = len(X), len(texts)
    if n_shots < _MIN_SHOTS_TO_JUDGE:
        return
    glance = slice(None, None, -(-n_shots // _SHOTS_AT_A_GLANCE))
    if _chance_of_hits(X[glance], codes[glance], texts)[1] < _CLEARLY:
        return
    hits, chance = _chance_of_hits(X, codes, texts)
    if chance > 0.05:
        source = "the text head" if model is None else f"the text head of {model}"
        warnings.warn(
            f"Zero-shot, {source} classifies {hits} of the {n_shots} shots of "
            f"{n_classes} classes correctly, no better than chance. If the images "
            "were embedded by another CLIP model, the two cannot be compared, "
            "even where their widths agree: use the same model for both.",
            UserWarning,
            stacklevel=3,
        )


class BaseFewShotClassifier(ClassifierMixin, BaseEstimator):
    """Text side and prediction of a few-shot classifier.

    A subclass has the parameters `model`, `pretrained`, `text_head`,
    `class_names`, `templates`, `temperature` and `device`, and sets
    `temperature_` in `fit`. It computes scores in two parts, so that a search
    over blending weights repeats only the second:

    - ``_components(X)`` gives a tuple of arrays that follow from the fitted
      attributes alone,
    - ``_blend(components)`` makes of them the scores s of shape
      (n_samples, n_classes), with the parameters in `_blend_parameters`.

    Where a prediction can do with less than all components, it overrides
    ``_scorer``. For the search it may also override ``_check_blend`` and
    ``_default_temperature``, where these depend on blend parameters;
    ``_blend_stack`` or ``_blender``, and ``_fold_fitter``, where several settings
    or folds have work in common; and the default space, ``_search_space``.
    """

    _blend_parameters = ()
    # A parameter of some; the baselines' texts are cached where the environment says.
    cache_dir = None
    # Set by a search that has resolved the texts once for all its fits.
    _shared_head = None

    def _start_fit(self, X, y, sample_weight):
        """Validate shots, set everything that depends on the labels alone.

        Sets `classes_`, `text_head_`, `class_count_` and ``_text_features`` (unit
        class texts in the dtype of X, or None).

        Returns
        -------
        X : ndarray of shape (n_samples, n_features), float32 or float64
        codes : ndarray of shape (n_samples,)
            Index of each shot's label in `classes_`.
        sample_weight : ndarray of shape (n_samples,)
            Positive weights; shots of weight zero have left.
        """
        X, y, weight = check_shots(self, X, y, sample_weight)
        classes, codes = np.unique(y, return_inverse=True)
        check_classes(self, classes)
        self._set_classes(X, classes)
        self.class_count_ = np.bincount(codes, weights=weight)
        if self._text_features is not None:
            warn_at_chance(X, codes, self._text_features, self.text_head_.model)
        return X, codes, weight

    def _set_classes(self, X, classes):
        check_text_head(self.text_head, X.shape[1])
        self.classes_ = classes
        self.text_head_ = head = self._resolve_head(classes)
        check_text_head(head, X.shape[1])
        has_texts = head is not None and head.text_features is not None
        self._text_features = head.text_features.astype(X.dtype) if has_texts else None
        check_zero_rows(X, "fit", error=has_texts)

    def _resolve_head(self, classes):
        if self._shared_head is not None:
            return self._shared_head(classes)
        return resolve_text_head(
            classes,
            text_head=self.text_head,
            model=self.model,
            pretrained=self.pretrained,
            class_names=self.class_names,
            templates=self.templates,
            device=self.device,
            cache_dir=self.cache_dir,
        )

    @property
    def _logit_scale(self):
        return 100.0 if self.text_head_ is None else self.text_head_.logit_scale

    def _check_blend(self):
        """Raise ValueError for blend parameters that contradict each other."""

    @property
    def _default_temperature(self):
        """`temperature_` for ``temperature=None``."""
        return self._logit_scale

    def _softmax_temperature(self):
        if self.temperature is None:
            return float(self._default_temperature)
        return float(self.temperature)

    def _reblend(self, params):
        """Copy of a fitted estimator with other blend parameters or temperature."""
        other = copy(self)
        vars(other).update(params)
        other._check_blend()
        other.temperature_ = other._softmax_temperature()
        return other

    def _blend_stack(self, components, variants):
        """Scores of re-blended copies, (n_variants, n_samples, n_classes)."""
        return np.stack([variant._blend(components) for variant in variants])

    def _blender(self, variants):
        """Make a function that blends rows under the settings of re-blended copies.

        Returns
        -------
        callable
            Of components and one factor a setting, ndarray of shape (n_variants,);
            gives the scores times the factors, (n_variants, n_samples, n_classes).
        """

        def blend(components, factors):
            stack = self._blend_stack(components, variants)
            stack *= factors.astype(stack.dtype)[:, None, None]
            return stack

        return blend

    def _fold_fitter(self, X, y, sample_weight, blends, kept):
        """Make a function that fits on some shots and compares others with them.

        Parameters
        ----------
        X, y, sample_weight : ndarray
            Valid shots of positive weight.
        blends : list of dict
            Blend parameters that the components have to serve.
        kept : dict
            Room for what other fitters of the same shots can use again.

        Returns
        -------
        callable
            Of ``(train, test)``, the indices of both; gives an estimator fitted
            on the former and the components of the latter. It may raise what
            `fit` raises.
        """

        def fit(train, test):
            fitted = copy(self).fit(X[train], y[train], sample_weight[train])
            return fitted, fitted._components(X[test])

        return fit

    def _search_space(self, n_shots):
        """Give the settings worth a search, as lists or distributions by name.

        `text_head_` is set when a search asks.

        Parameters
        ----------
        n_shots : float
            Median number of shots a class; the more, the more the shots may count.
        """
        return {}

    def _search_prior(self, n_shots):
        """Give the setting to take where too few shots are there to search with."""
        return {}

    @property
    def _floats_a_row(self):
        """Floats that scoring one row needs at once, for the size of blocks."""
        return 3 * (self.n_features_in_ + len(self.classes_))

    def _scorer(self, n_rows, dtype):
        """Give a function from rows to their scores, with all that serves every row.

        It is called with at most `n_rows` of `dtype` at once; its second argument is
        None or an array that the scores may be written to. The next call may
        overwrite what it gave.
        """
        return lambda X, out: self._blend(self._components(X))

    def _blockwise(self, X, finish, *, in_place=False):
        """Apply `finish` to the scores of one block of rows after another.

        The scores are its own to overwrite. With `in_place` what it returns has
        their shape.
        """
        check_is_fitted(self)
        X = check_embeddings(self, X, reset=False)
        check_zero_rows(X, "predict")
        n_rows = min(len(X), max(1, _BLOCK_FLOATS // self._floats_a_row))
        out, score = None, self._scorer(n_rows, X.dtype)
        for rows in gen_batches(len(X), n_rows):
            room = out[rows] if in_place and out is not None else None
            block = finish(score(X[rows], room))
            if out is None:
                out = np.empty((len(X), *block.shape[1:]), dtype=block.dtype)
            if block is not room:
                out[rows] = block
        return out

    def decision_function(self, X):
        """Blended logits s.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Image embeddings; their lengths do not matter.

        Returns
        -------
        ndarray of shape (n_samples, n_classes), or (n_samples,) for two classes
            For two classes the score of ``classes_[1]`` less that of
            ``classes_[0]``.
        """
        check_is_fitted(self)
        if len(self.classes_) == 2:
            return self._blockwise(X, lambda scores: scores[:, 1] - scores[:, 0])
        return self._blockwise(X, lambda scores: scores, in_place=True)

    def predict(self, X):
        """Most probable label of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Image embeddings; their lengths do not matter.

        Returns
        -------
        ndarray of shape (n_samples,)
            Labels out of `classes_`.
        """
        codes = self._blockwise(X, lambda scores: scores.argmax(axis=1))
        return self.classes_[codes]

    def predict_proba(self, X):
        """Class probabilities, ``softmax(temperature_ * s)``.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Image embeddings; their lengths do not matter.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Columns in the order of `classes_`.
        """
        return self._blockwise(
            X, lambda scores: softmax(scores, self.temperature_), in_place=True
        )

    def predict_log_proba(self, X):
        """Logarithm of `predict_proba`; minus infinity where that is zero.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Image embeddings; their lengths do not matter.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
        """
        with np.errstate(divide="ignore"):
            proba = self.predict_proba(X)
            return np.log(proba, out=proba)
