"""BridgedGDAClassifier: Gaussian discriminant analysis of CLIP embeddings."""

from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np
from sklearn.base import _fit_context
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from skbridge._bridge import BRIDGE_RANK_CONSTRAINT, BRIDGES
from skbridge._class_sums import ScatterSums
from skbridge._classifiers.blend import Blend, Term
from skbridge._classifiers.bridged import USUAL_LOGIT_SCALE, BridgedClassifier
from skbridge._classifiers.conformal import class_p_values, fewest_shots
from skbridge._classifiers.unlabelled import (
    BLOCK_ROWS,
    WEIGHT,
    Pool,
    add_unlabelled,
    unlabelled_help,
)
from skbridge._gaussian import fit_gaussians
from skbridge._held_out.shots import Shots
from skbridge._held_out.temperature import PRIOR_SHOTS, fit_temperature
from skbridge._messages import brief, shown
from skbridge._rows import row_lengths, unit, within_range
from skbridge._validation import (
    all_or_nothing,
    check_embeddings,
    check_partly_labelled,
    check_shots,
    consistent,
)

_ENERGY_SHARE = 0.97
# Settings that a search tries.
_SHRINKAGES = [0.1, 0.3, 1.0]
# Assumed ratio of the spread of z3 over classes to that of z1, by which the default
# temperature divides. Larger without texts, so that probabilities are more cautious.
_SPREAD, _SPREAD_WITHOUT_TEXTS = 4.0, 8.0
# Shots that are left out, one by one, to find the temperature.
_CALIBRATION_SHOTS = 512
# The temperature of n shots is that of n - 1 times (n / (n - 1)) to this power, and to
# half of it with texts.
_GROWTH = 0.4

_NON_NEGATIVE = [Interval(Real, 0, None, closed="left")]


@dataclass(frozen=True, eq=False)
class CentredView:
    """Queries as unit rows in the metric of the scatter: ``unit((unit(f) - mu) G)``.

    Attributes
    ----------
    metric : ndarray of shape (n_features, n_features)
        G.
    centre : ndarray of shape (n_features,)
        mu G.
    """

    metric: np.ndarray
    centre: np.ndarray

    def __call__(self, X, out=None):
        """Map rows, into `out` where it is given."""
        rows = np.matmul(X, self.metric, out=out)
        rows -= row_lengths(X)[:, None] * self.centre
        return unit(rows, rows)


def suitable_lambda_3(n_shots, n_classes, logit_scale):
    """Weight of z3 beside texts, ``lambda_3="auto"``."""
    weight = (n_shots + 1) / 12 * (50 / n_classes) ** 0.3
    # The z1 of a model with a smaller logit scale vary more, but not its z3.
    return float(weight * USUAL_LOGIT_SCALE / logit_scale)


def _weighted_quantile(values, weight, share):
    """Largest of the values such that those below it have at most this share of weight.

    The largest value of all is never exceeded.
    """
    order = np.argsort(values)
    cumulated = np.cumsum(weight[order]) / weight.sum()
    position = np.searchsorted(cumulated, share, side="right")
    return float(values[order[min(position, len(values) - 1)]])


class BridgedGDAClassifier(BridgedClassifier):
    """Gaussian discriminant analysis with texts and bridge as priors; recommended.

    A query is compared with the class texts (z1) and, in the metric of the scatter
    within classes, with the class means of the shots (z3). The class texts serve as
    prior of the means, and the bridge as prior of the scatter. The defaults need no
    tuning.

    Parameters
    ----------
    texts : str, path-like, CLIPTexts, TextHead or None, default="ViT-B-16"
        Class texts. With the name or folder of a CLIP model, the one that embedded
        the images, the labels are the class names. A :class:`CLIPTexts` also sets
        weights, prompts and names. A :class:`TextHead` contains texts that were
        encoded beforehand. None makes a classifier without texts.
    lambda_1 : float, default=1.0
        Weight of z1, query against class texts.
    lambda_3 : float or "auto", default="auto"
        Weight of z3, query against class means. ``"auto"`` grows with the mean number
        n of shots per class and decreases with the number C of classes:
        (n + 1) / 12 (50 / C)^0.3, times 100 / logit scale. Without texts it is 1.
    shrinkage : float, default=0.3
        Prior scatter in every direction of the bridge, positive and at most 1e9, in
        units of the mean squared distance of the shots from their centre. The scatter
        of the shots is a sum over shots, so that it outweighs the prior as shots are
        added.

    bridge : {"auto", "pseudo_inverse", "text_subspace", "identity"}, default="auto"
        How images are mapped to texts; see :class:`SemanticBridge`. ``"auto"`` is
        the pseudo-inverse if the text projection is known, the text subspace if
        there is a text bank or at least 64 class texts, and the identity otherwise.
    bridge_rank : int or float, default=0.97
        Number of singular (or principal) directions that the bridge spans or, for a
        float in (0, 1], their share of the sum of squared singular values. Other
        directions have 1 + 20 / n times the prior scatter, for n shots per class.
    temperature : float or "auto", default="auto"
        Factor of the scores in the softmax of `predict_proba`. ``"auto"`` estimates it
        on the shots, each scored by a fit without it; see Notes.
    missing_label : int or str, default=None
        Value of y that marks an image without a label, in addition to None, NaN and
        ``pd.NA``.
    reject : float, default=None
        Share of the images of known classes, between 0 and 1, that `predict` may label
        as unknown: those with the lowest `score_samples`, as `contamination` in
        :class:`~sklearn.ensemble.IsolationForest`. The threshold is estimated
        on the shots, each scored by a fit without it. None labels no image as unknown.
    reject_label : str or int, default=None
        Label of unknown images. None means "unknown" if the labels are strings, and -1
        if they are numbers. It may be set only with `reject`.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels seen in `fit`, sorted.
    n_features_in_ : int
        Width d of the embeddings.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the embedding's columns, where `fit` saw string names.
    text_head_ : TextHead or None
        Class texts, in the order of `classes_`.
    bridge_ : {"pseudo_inverse", "text_subspace", "identity"}
        The kind of bridge in use.
    inverse_projection_ : ndarray of shape (n_features, n_text_features)
        W+.
    prototypes_ : ndarray of shape (n_classes, n_features)
        Unit class means F' of the shots, unbridged.
    centre_ : ndarray of shape (n_features,)
        Mean mu of the class means of the unit shots.
    means_ : ndarray of shape (n_classes, n_features)
        Class means M, of the unit shots and the class texts, relative to `centre_`.
    metric_ : ndarray of shape (n_features, n_features)
        G, by which queries and means are multiplied before they are compared.
    text_gain_ : float
        Gain g of the class texts in the means; 0 without texts.
    class_count_ : ndarray of shape (n_classes,)
        Sum of the sample weights of the shots of each class.
    unlabelled_count_ : ndarray of shape (n_classes,)
        Sum of the weights of the unlabelled images in each class, in shots; zero if
        they are not used.
    threshold_ : float or None
        `predict` labels images whose `score_samples` is below it as unknown; None
        without `reject`.
    uses_unlabelled_ : bool or None
        Whether unlabelled images are used: if held-out shots gain from them, or if no
        shots can be held out. None without unlabelled images.
    blend_ : object
        The blend of z1 and z3; its ``scores`` blend component logits.
    temperature_ : float
        Factor of the scores in the softmax.

    See Also
    --------
    SeMoBridgeClassifier : The paper's classifier.
    skbridge.baselines.GDAClassifier : Gaussian discriminant analysis without priors
        from texts and bridge.

    Notes
    -----
    This classifier is not in the paper, which compares queries with class means and
    ignores the scatter of the shots. This costs more accuracy the more shots there are.
    Queries are not bridged, so that scores do not depend on the lengths of embeddings.

    Let ``x = unit(f)``, m_k the class means of the shots' x, mu the mean of the m_k,
    and ``S = sum w (x - m_y)' (x - m_y)`` their scatter. The scores of a query q are
    ``lambda_1 z1 + lambda_3 z3``, where z3 is the cosine of ``(unit(q) - mu) G`` and
    ``M_k G``:

    - ``G G' = (S + a [I + 20/n (I - P)])^-1`` with ``a = shrinkage mean ||x - mu||^2``
      and n the mean number of shots per class, at least 1. ``P = W+ W`` projects onto
      the directions of the bridge; with the identity as bridge ``P = I``.
    - ``M_k = (n_k (m_k - mu) + 2 g D_k) / (n_k + 2)``. D_k is the unit class text minus
      the mean over classes, and g the gain of the regression of ``(m_k - mu) G`` on
      ``D_k G`` over classes, not negative. Without texts ``M_k = m_k - mu``.

    The temperature minimises the log loss of the shots, each scored without itself:
    without its summand in M_k and in S, in closed form. A prior at ``logit_scale /
    (lambda_1 + 4 lambda_3)``, without texts ``logit_scale / (8 lambda_3)``, counts as
    five shots, and is used alone if every class has one shot. Since these are scores
    of one shot less, the temperature is then multiplied by the mean of ``(n_k / (n_k -
    w))^0.2``, without texts with the exponent 0.4.

    Images without a label are divided among the classes by their probabilities, at four
    times the automatic temperature, and added to the sums of the shots with half the
    weight of a shot, in eight rounds of expectation maximisation. They are used only if
    they lower the log loss of one half of the shots in fits to the other half, or if
    the shots cannot be halved: without texts, each class needs two. The images
    themselves are not stored.

    A parameter that has no effect under another one is refused if it is set:
    `bridge_rank` with the identity, `lambda_1` without texts, `reject_label` without
    `reject`.

    Examples
    --------
    >>> import numpy as np
    >>> from skbridge import BridgedGDAClassifier, TextHead
    >>> rng = np.random.default_rng(0)
    >>> head = TextHead.from_arrays(
    ...     ["cat", "dog"], eos=rng.normal(size=(2, 8)), projection=np.eye(8, 16)
    ... )
    >>> X = np.repeat(head.text_features, 2, axis=0) + 0.1
    >>> y = ["cat", "cat", "dog", "dog"]
    >>> BridgedGDAClassifier(head).fit(X, y).predict(X)
    array(['cat', 'cat', 'dog', 'dog'], dtype='<U3')
    """

    blend_parameters = ("lambda_1", "lambda_3")
    _parameter_constraints = {
        "texts": "no_validation",
        "bridge": [StrOptions(set(BRIDGES))],
        "bridge_rank": BRIDGE_RANK_CONSTRAINT[:2],
        "shrinkage": [Interval(Real, 0, 1e9, closed="right")],
        "lambda_1": _NON_NEGATIVE,
        "lambda_3": [*_NON_NEGATIVE, StrOptions({"auto"})],
        "temperature": [
            Interval(Real, 0, None, closed="neither"),
            StrOptions({"auto"}),
        ],
        "missing_label": [Integral, str, None],
        "reject": [Interval(Real, 0, 1, closed="neither"), None],
        "reject_label": [Integral, str, None],
    }

    def __init__(
        self,
        texts="ViT-B-16",
        *,
        bridge="auto",
        bridge_rank=_ENERGY_SHARE,
        shrinkage=0.3,
        lambda_1=1.0,
        lambda_3="auto",
        temperature="auto",
        missing_label=None,
        reject=None,
        reject_label=None,
    ):
        self.texts = texts
        self.bridge = bridge
        self.bridge_rank = bridge_rank
        self.shrinkage = shrinkage
        self.lambda_1 = lambda_1
        self.lambda_3 = lambda_3
        self.temperature = temperature
        self.missing_label = missing_label
        self.reject = reject
        self.reject_label = reject_label

    @_fit_context(prefer_skip_nested_validation=True)
    @all_or_nothing
    def fit(self, X, y, sample_weight=None):
        """Estimate class means and scatter from shots and unlabelled images.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Image embeddings, not normalised.
        y : array-like of shape (n_samples,)
            Labels; classes may have any numbers of shots, from one. Images whose label
            is missing (None, NaN, ``pd.NA`` or `missing_label`) are learned from if
            held-out shots gain from them, or if no shots can be held out.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each shot; weight 2 is the shot given twice, weight 0 the
            shot left out.

        Returns
        -------
        BridgedGDAClassifier
            The fitted classifier.

        Raises
        ------
        ValueError
            If y has one class only or no label at all, a label has no text, X and the
            texts have different widths, an embedding or the sum of a class's
            embeddings is zero, both blending weights are zero, one parameter makes
            another idle, `reject` is set but no class has two shots, or `reject_label`
            is a class or of another kind than the labels.
        """
        labelled, pool = check_partly_labelled(self, X, y, sample_weight)
        X, codes, weight = self._start_checked_fit(*labelled)
        self._start_bridge(X)
        self._check_weights()
        self._add_shots(X, codes, weight)
        shots = Shots(X, codes, weight)
        self._calibrate(shots)
        self._learn_unlabelled(shots, Pool(*pool))
        self._finish_fit()
        return self

    @_fit_context(prefer_skip_nested_validation=True)
    @all_or_nothing
    def partial_fit(self, X, y, classes=None, sample_weight=None):
        """Add shots, of known classes or new ones, and unlabelled images.

        Equal to `fit` on all shots, except for the temperature: it is estimated from
        the new shots, with the previous temperature as a prior whose weight is the
        number of earlier shots. Unlabelled images are divided among the current
        classes. The kind of bridge that ``bridge="auto"`` chose in the first call
        stays.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Image embeddings.
        y : array-like of shape (n_samples,)
            Labels, as in `fit`; after the first call all may be missing. New ones
            join `classes_`.
        classes : array-like of shape (n_classes,), default=None
            Labels to expect; a label of y outside them is an error. Unlike in
            scikit-learn, they are only a check: a class joins `classes_` with its first
            shot.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each image.

        Returns
        -------
        self : object
            The fitted classifier.

        Raises
        ------
        ValueError
            As for `fit`; and if a new class has no text, or if the bridge is the
            subspace of the class texts, which a new class would change.
        """
        first = not hasattr(self, "classes_")
        (X, y, weight), pool = check_partly_labelled(
            self, X, y, sample_weight, reset=first
        )
        seen = 0.0 if first else self.class_count_.sum()
        if len(X):
            self._grow(X, y, weight, classes)
        shots = Shots(X, np.searchsorted(self.classes_, y), weight)
        self._calibrate(shots, seen)
        self._learn_unlabelled(shots, Pool(*pool))
        self._finish_fit()
        return self

    def _start_bridge(self, X):
        super()._start_bridge(X)
        # Automatic temperature over the default one of the blend.
        self._temperature_ratio = 1.0
        # Least score of a known image; None without `reject`.
        self._least_score = None
        self.uses_unlabelled_ = None

    def _idle_parameters(self):
        yield from super()._idle_parameters()
        if self._text_features is None and self.lambda_1:
            yield ("lambda_1",), "no class texts"
        if self.reject is None:
            yield ("reject_label",), "reject=None"

    def _check_weights(self):
        if not self._lambda_1() and not self._lambda_3():
            without = " (lambda_1 does not count without texts)"
            raise ValueError(
                "At least one of lambda_1 and lambda_3 must be positive"
                f"{without if self._text_features is None else ''}; got "
                f"{self.lambda_1} and {self.lambda_3}, which score every class alike."
            )

    def _auto_lambda_3(self, class_count):
        if self._text_features is None:
            return 1.0
        return suitable_lambda_3(
            class_count.mean(), len(self.classes_), self._logit_scale
        )

    def _make_blend(self, class_count=None):
        self._check_weights()
        has_texts = self._text_features is not None
        return Blend(
            (self._lambda_1(), 0.0, self._lambda_3(class_count)),
            logit_scale=self._logit_scale,
            spreads=(1.0, 1.0, _SPREAD if has_texts else _SPREAD_WITHOUT_TEXTS),
        )

    def _finish_fit(self):
        super()._finish_fit()
        self.threshold_ = None
        if self._least_score is not None:
            self.threshold_ = self.temperature_ * self._least_score
            self._unknown = self._unknown_label()

    def _unknown_label(self):
        is_text = isinstance(self.classes_[0], str)
        label = self.reject_label
        if label is None:
            label = "unknown" if is_text else -1
        if isinstance(label, str) != is_text or label in self.classes_:
            kind = "a string" if is_text else "a number"
            raise ValueError(
                f"reject_label must be {kind}, as the labels are, that is not among "
                f"the classes; got {brief(label)}."
            )
        return label

    def reblend(self, **params):
        """Copy the fitted classifier with other blend parameters, without a new fit.

        The copy rejects nothing: a threshold belongs to the blend that it was found
        for.

        Parameters
        ----------
        **params
            Values of parameters named in `blend_parameters`, or of `temperature`.

        Returns
        -------
        BridgedGDAClassifier
            A fitted classifier that shares all arrays with this one.

        Raises
        ------
        ValueError
            If a name is not a blend parameter, or the values contradict each other.
        """
        other = super().reblend(**params)
        other.reject = other.reject_label = None
        other._least_score = other.threshold_ = None
        return other

    @consistent
    def predict(self, X):
        """Most probable label of each row, or the label of unknown images.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Image embeddings, not normalised.

        Returns
        -------
        ndarray of shape (n_samples,)
            Labels among `classes_` and, with `reject`, the label of unknown images
            where `score_samples` is below `threshold_`.
        """
        check_is_fitted(self)
        if self.threshold_ is None:
            return super().predict(X)
        least = self._least_score

        def known(scores):
            codes = scores.argmax(axis=1)
            return np.where(scores.max(axis=1) < least, -1, codes)

        codes = self._blockwise(X, known)
        unknown = np.array([self._unknown])
        # The last one is unknown; concatenation makes strings wide enough for both.
        return np.concatenate([self.classes_, unknown])[codes]

    @consistent
    def score_samples(self, X):
        """Largest score of each row, times `temperature_`.

        Low for images of no known class. It is not a log density: the cosine with the
        class text is part of the score.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Image embeddings, not normalised.

        Returns
        -------
        ndarray of shape (n_samples,)
            ``temperature_`` times the largest score.
        """
        return self._blockwise(X, lambda scores: self.temperature_ * scores.max(axis=1))

    @consistent
    def predict_set(self, X, alpha, shots, labels):
        """Find the labels that an image may have, with a bound on the error rate.

        The set of an image of class k contains k with a probability of at least
        ``1 - alpha``, for every class k and any number of features, if the image and
        the shots of k are drawn alike (full conformal prediction within classes; no
        image is set aside for calibration). Sets of several labels say that the shots
        do not decide; an empty set says that the image is like no class.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Image embeddings; their lengths do not matter.
        alpha : float
            Share of the images of each class whose sets may lack the right label, in
            (0, 1).
        shots : array-like of shape (n_shots, n_features)
            Embeddings of the shots, since the classifier stores only sums of them.
            All count alike.
        labels : array-like of shape (n_shots,)
            Their labels, those of `classes_`.

        Returns
        -------
        ndarray of shape (n_samples, n_classes), bool
            Whether the set of each image has each label of `classes_`.

        Raises
        ------
        ValueError
            If `alpha` is not in (0, 1), a label is missing or unknown, or a class has
            fewer than ``1 / alpha - 1`` shots: then no label could be ruled out.

        Notes
        -----
        A label k is in the set if its p-value is above `alpha`. The query joins the
        shots of k, and the p-value is the share of these images whose margin is at
        most that of the query. The margin is the score of k minus the best score of
        another class, by the shots without the image itself; the metric, the centre
        and the gain come from the shots of the other classes. Unlabelled images,
        weights of shots and the temperature have no part in it.

        Examples
        --------
        >>> import numpy as np
        >>> from skbridge import BridgedGDAClassifier
        >>> rng = np.random.default_rng(0)
        >>> y = np.repeat(["cat", "dog", "fox"], 9)
        >>> X = np.repeat(np.eye(3, 8), 9, axis=0) + 0.3 * rng.normal(size=(27, 8))
        >>> clf = BridgedGDAClassifier(texts=None).fit(X, y)
        >>> clf.predict_set(X[:1], alpha=0.1, shots=X, labels=y)
        array([[ True, False, False]])
        """
        check_is_fitted(self)
        if not (isinstance(alpha, Real) and 0 < alpha < 1):
            raise ValueError(f"alpha must be a number in (0, 1), got {brief(alpha)}.")
        X = within_range(check_embeddings(self, X, reset=False))
        shots, labels, _ = check_shots(self, shots, labels, None, reset=False)
        codes = np.searchsorted(self.classes_, labels)
        codes = np.minimum(codes, len(self.classes_) - 1)
        unknown = labels != self.classes_[codes]
        if unknown.any():
            raise ValueError(
                f"labels has labels that are not in classes_: "
                f"{shown(np.unique(labels[unknown]).tolist())}. Pass the shots of fit."
            )
        count = np.bincount(codes, minlength=len(self.classes_))
        few = count < fewest_shots(alpha)
        if few.any():
            raise ValueError(
                f"alpha={alpha:g} needs at least {fewest_shots(alpha)} shots of every "
                f"class, and {few.sum()} of {len(count)} classes have fewer: "
                f"{shown(self.classes_[few].tolist())}. With these shots alpha must be "
                f"at least {1 / (count.min() + 1):.3g}."
            )
        texts = self._text_features
        p = class_p_values(
            X,
            unit(shots.astype(np.float64)),
            codes,
            len(self.classes_),
            self._fit_gaussians,
            None if texts is None else texts.astype(np.float64),
            self._lambda_1(),
            self._lambda_3(count),
        )
        return p > alpha

    def _automatic_temperature(self):
        return self._temperature_ratio * self.blend_.default_temperature

    def _sum_shots(self, X, codes, weight):
        return ScatterSums.of_shots(X, codes, weight, len(self.classes_))

    def _set_sums(self, sums):
        super()._set_sums(sums)
        self._gaussians = fitted = self._fit_gaussians(sums)
        self._z3 = self._term_of(fitted)
        dtype = self._bridge.inverse.dtype
        self.class_count_ = sums.shots
        self.unlabelled_count_ = sums.count - sums.shots
        self.centre_ = fitted.centre.astype(dtype)
        self.means_ = fitted.means.astype(dtype)
        self.metric_ = self._z3.view.metric
        self.text_gain_ = fitted.gain

    def _fit_gaussians(self, sums):
        texts = self._text_features
        return fit_gaussians(
            sums.count,
            sums.unit_features,
            sums.second_moment,
            self.shrinkage,
            span=self._bridge.basis,
            texts=None if texts is None else texts.astype(np.float64),
        )

    def _term_of(self, fitted):
        """Term of z3."""
        dtype = self._bridge.inverse.dtype
        centre = (fitted.centre @ fitted.metric).astype(dtype)
        vectors = unit(fitted.means @ fitted.metric).astype(dtype)
        return Term(CentredView(fitted.metric.astype(dtype), centre), vectors)

    def _scores_of(self, sums):
        """Fit to class sums, and return the function that scores rows."""
        texts = self._text_features
        z1 = None if texts is None else Term(unit, texts)
        z3 = self._term_of(self._fit_gaussians(sums))
        blend = self._make_blend(sums.shots[sums.shots > 0])
        return blend.fold((z1, None, z3), BLOCK_ROWS, self._bridge.inverse.dtype)

    def _calibrate(self, shots, seen=0.0):
        """Find temperature and threshold from the shots, each left out.

        `seen` is the weight of earlier shots, with which the previous temperature
        counts. The temperature is found even if the parameter gives another one:
        unlabelled images are divided among the classes by it.
        """
        left_out = self._left_out(shots.distinct())
        if left_out is None:
            self._check_reject()
            return
        scores, codes, weight = left_out
        if self.reject is not None:
            self._least_score = _weighted_quantile(
                scores.max(axis=1), weight, self.reject
            )
        default = self._temperature_ratio * self._make_blend().default_temperature
        found = fit_temperature(
            [(scores, codes, weight)], default, prior_shots=PRIOR_SHOTS + seen
        )
        n = self.class_count_[codes]
        power = _GROWTH if self._text_features is None else _GROWTH / 2
        growth = np.average((n / (n - weight)) ** power, weights=weight)
        self._temperature_ratio *= growth * found / default

    def _left_out(self, shots):
        """Score each shot by a fit without it; None if no class has two shots."""
        others = self.class_count_[shots.codes] - shots.weight
        rows = np.flatnonzero(others > 1e-9 * shots.weight)
        if not len(rows):
            return None
        shots = shots.take(rows[:: max(1, len(rows) // _CALIBRATION_SHOTS)])
        x, codes, weight = unit(shots.X.astype(np.float64)), shots.codes, shots.weight
        z3 = self._gaussians.leave_one_out(
            x, codes, weight, self._sums.count, self._sums.unit_features
        )
        z1 = None if self._text_features is None else x @ self._text_features.T
        return self._make_blend().scores((z1, None, z3)), codes, weight

    def _check_reject(self):
        if self.reject is not None and self._least_score is None:
            raise ValueError(
                f"reject={self.reject:g} finds its threshold on shots that are left "
                "out, one by one, but no class has two shots. Give some classes two "
                "shots, or set reject=None and choose a threshold on score_samples."
            )

    def _learn_unlabelled(self, shots, pool):
        """Add unlabelled images to the sums, if held-out shots gain from them."""
        if not len(pool):
            return
        pool = Pool(pool.X, pool.rows, WEIGHT * pool.weight)
        n_classes = len(self.classes_)
        temperature = self._temperature_ratio * self._make_blend().default_temperature
        if self.uses_unlabelled_ is None:
            self.uses_unlabelled_ = unlabelled_help(
                shots,
                pool,
                self._scores_of,
                temperature,
                n_classes,
                has_texts=self._text_features is not None,
            )
        if self.uses_unlabelled_:
            self._set_sums(
                add_unlabelled(self._sums, pool, self._scores_of, temperature)
            )

    def _z3_term(self):
        return self._z3

    def _components(self, X, skip):
        # No plain prototypes are compared here.
        return super()._components(X, {*skip, 1})

    def _z3_shot_parts(self, query, X, weight, k):
        # M_k is a mean over shots, unlabelled images and, as some shots, the text.
        n_rows = self._sums.count[k] + self._gaussians.text_shots
        length = n_rows * np.linalg.norm(self.means_[k] @ self.metric_)
        shots = (unit(X) - self.centre_) @ self.metric_
        return weight * (shots @ self._z3.view(query)[0]) / length

    def component_logits(self, X, *, skip=()):
        """Cosines of the queries before they are blended.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Image embeddings, not normalised.
        skip : collection of int, default=()
            Positions of components that need not be computed (0 for z1); None is
            returned for them.

        Returns
        -------
        z1 : ndarray of shape (n_samples, n_classes) or None
            Query against class texts; None without texts.
        z2 : None
            The paper's comparison with plain prototypes, which is not used here.
        z3 : ndarray of shape (n_samples, n_classes)
            Query against class means, in the metric of the scatter.
        """
        return super().component_logits(X, skip=skip)

    def search_space(self, n_shots, head):
        """List the settings to search: the weight of z3, and the shrinkage.

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
        return super().search_space(n_shots, head) | {"shrinkage": _SHRINKAGES}

    def search_prior(self, n_shots, head):
        """Give the setting that suits a number of shots, without a search.

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
        prior = {"shrinkage": self.shrinkage}
        if head is not None and head.text_features is not None:
            lambda_3 = suitable_lambda_3(n_shots, len(head), head.logit_scale)
            prior |= {"lambda_1": 1.0, "lambda_3": lambda_3}
        return prior
