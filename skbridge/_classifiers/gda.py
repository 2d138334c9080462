"""BridgedGDAClassifier: Gaussian discriminant analysis of CLIP embeddings."""

from dataclasses import dataclass
from numbers import Real

import numpy as np
from sklearn.base import _fit_context
from sklearn.utils._param_validation import Interval, StrOptions

from skbridge._bridge import BRIDGE_RANK_CONSTRAINT, BRIDGES
from skbridge._class_sums import ScatterSums, class_sums
from skbridge._classifiers.blend import Blend, Term
from skbridge._classifiers.bridged import USUAL_LOGIT_SCALE, BridgedClassifier
from skbridge._gaussian import TEXT_SHOTS, fit_gaussians
from skbridge._rows import batches, row_lengths, unit
from skbridge._validation import all_or_nothing

_ENERGY_SHARE = 0.97
# Settings that a search tries.
_SHRINKAGES = [0.1, 0.3, 1.0]
# z3 differs between classes by this many times what z1 does.
_SPREAD = 4.0
# Rows whose second moment is summed at once.
_SUMMED_ROWS = 4096

_NON_NEGATIVE = [Interval(Real, 0, None, closed="left")]


@dataclass(frozen=True, eq=False)
class CentredView:
    """Queries as unit rows in the metric of the scatter: ``unit((unit(f) - c) G)``.

    Attributes
    ----------
    metric : ndarray of shape (n_features, n_features)
        G.
    centre : ndarray of shape (n_features,)
        c, times G.
    """

    metric: np.ndarray
    centre: np.ndarray

    def __call__(self, X, out=None):
        """Map rows, into `out` where it is given."""
        rows = np.matmul(X, self.metric, out=out)
        rows -= row_lengths(X)[:, None] * self.centre
        return unit(rows, rows)


class BridgedGDAClassifier(BridgedClassifier):
    """Gaussian discriminant analysis of CLIP embeddings, bridged; recommended.

    A query is compared with the class texts (z1), and with the class means of the
    shots (z3) in the metric of their scatter within classes. The class texts are the
    prior of the means, and the bridge that of the scatter. Nothing needs tuning.

    Parameters
    ----------
    texts : str, path-like, CLIPTexts, TextHead or None, default="ViT-B-16"
        The class texts. A model's name or folder: the model that embedded the
        images, with the labels as names. A :class:`CLIPTexts` sets weights, prompts
        and names as well. A :class:`TextHead` holds texts made beforehand. None
        makes a classifier without texts.
    lambda_1 : float, default=1.0
        Weight of z1, query against class texts.
    lambda_3 : float or "auto", default="auto"
        Weight of z3. ``"auto"`` grows with the mean number n of shots per class:
        (n + 1) / 12, times 100 / logit scale; and 1 without texts.
    shrinkage : float, default=0.3
        Scatter that every direction of the bridge has before any shots: that of this
        many shots, each as far from the centre as shots are on average. The scatter
        of the shots is a sum over them, so that it dominates as shots are added.

    bridge : {"auto", "pseudo_inverse", "text_subspace", "identity"}, default="auto"
        How images are mapped to texts; see :class:`SemanticBridge`. ``"auto"`` is
        the pseudo-inverse where the text projection is known, the text subspace
        where a bank of texts or at least 64 class texts span it, and the identity
        otherwise.
    bridge_rank : int or float, default=0.97
        Number of singular (or principal) directions that the bridge spans or, for a
        float in (0, 1], the share of the sum of squared singular values that they
        hold. Other directions have ten times the prior scatter.
    temperature : float, default=None
        Factor of the scores in the softmax of `predict_proba`. None means the logit
        scale over ``lambda_1 + 4 lambda_3``, for z3 differs between classes about
        four times as much as z1.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels seen in `fit`, sorted.
    n_features_in_ : int
        Width d of the embeddings.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the embedding's columns, where `fit` saw string names.
    text_head_ : TextHead or None
        Text side, its classes in the order of `classes_`.
    bridge_ : {"pseudo_inverse", "text_subspace", "identity"}
        The kind of bridge in use.
    inverse_projection_ : ndarray of shape (n_features, n_text_features)
        W+.
    prototypes_ : ndarray of shape (n_classes, n_features)
        Unit class means F' of the shots, unbridged.
    centre_ : ndarray of shape (n_features,)
        Mean c of the class means of the unit shots.
    means_ : ndarray of shape (n_classes, n_features)
        Class means M of the unit shots and the class text, relative to `centre_`.
    metric_ : ndarray of shape (n_features, n_features)
        G: queries and means are compared after it.
    text_gain_ : float
        Gain g of the class texts in the means; 0 without texts.
    class_count_ : ndarray of shape (n_classes,)
        Sum of the sample weights of each class.
    blend_ : object
        The blend of z1 and z3; its ``scores`` blend component logits.
    temperature_ : float
        Factor of the scores in the softmax.

    See Also
    --------
    SeMoBridgeClassifier : The paper's classifier.
    skbridge.baselines.GDAClassifier : The same model without texts as prior.

    Notes
    -----
    This is not of the paper, whose class mean takes no notice of how the shots
    scatter; that costs accuracy, the more the more shots there are.

    Let ``x = unit(f)``, m_k the class means of the shots' x, c the mean of the m_k,
    and ``S = sum w (x - m_y)' (x - m_y)`` their scatter. The scores are ``lambda_1 z1
    + lambda_3 z3``, where z3 is the cosine of ``(x_q - c) G`` and ``M_k G``:

    - ``G G' = (S + a [P + 10 (I - P)])^-1`` with ``a = shrinkage mean ||x - c||^2``.
      P projects onto the span of the bridge, W+ W; with the identity as bridge
      ``P = I``.
    - ``M_k = (n_k (m_k - c) + 2 g E_k) / (n_k + 2)``. E_k is the unit class text minus
      the mean over classes, and g the gain of the regression of ``(m_k - c) G`` on
      ``E_k G`` over classes, not negative. Without texts ``M_k = m_k - c``.

    A parameter that another one makes idle is refused when it is set: a rank of the
    identity, a weight of texts that are not there.

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
    # With texts, lambda_3="auto" is (n + 1) / 12.
    _text_shots = 1
    _shots_to_match_texts = 12

    _parameter_constraints = {
        "texts": "no_validation",
        "bridge": [StrOptions(set(BRIDGES))],
        "bridge_rank": BRIDGE_RANK_CONSTRAINT[:2],
        "shrinkage": [Interval(Real, 0, None, closed="neither")],
        "lambda_1": _NON_NEGATIVE,
        "lambda_3": [*_NON_NEGATIVE, StrOptions({"auto"})],
        "temperature": [Interval(Real, 0, None, closed="neither"), None],
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
        temperature=None,
    ):
        self.texts = texts
        self.bridge = bridge
        self.bridge_rank = bridge_rank
        self.shrinkage = shrinkage
        self.lambda_1 = lambda_1
        self.lambda_3 = lambda_3
        self.temperature = temperature

    @_fit_context(prefer_skip_nested_validation=True)
    @all_or_nothing
    def fit(self, X, y, sample_weight=None):
        """Estimate class means and scatter from labelled shots.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Image embeddings, not normalised.
        y : array-like of shape (n_samples,)
            Labels; classes may have any numbers of shots, from one.
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
            If y has one class only, a label has no text, X and the texts have
            different widths, an embedding or the sum of a class's embeddings is
            zero, both blending weights are zero, or one parameter makes another
            idle.
        """
        X, codes, weight = self._start_fit(X, y, sample_weight)
        self._start_sums(X)
        self._check_weights()
        self._add_shots(X, codes, weight)
        self._finish_fit()
        return self

    def _idle_parameters(self):
        if self.bridge == "identity":
            yield ("bridge_rank",), "bridge='identity'"
        if self._text_features is None and self.lambda_1:
            yield ("lambda_1",), "no class texts"

    def _check_weights(self):
        if not self._lambda_1() and not self._lambda_3():
            without = " (lambda_1 does not count without texts)"
            raise ValueError(
                "At least one of lambda_1 and lambda_3 must be positive"
                f"{without if self._text_features is None else ''}; got "
                f"{self.lambda_1} and {self.lambda_3}, which score every class alike."
            )

    def _make_blend(self):
        self._check_weights()
        return Blend(
            (self._lambda_1(), 0.0, self._lambda_3()),
            logit_scale=self._logit_scale,
            spreads=(1.0, 1.0, _SPREAD),
        )

    def _sum_shots(self, X, codes, weight):
        n_classes = len(self.classes_)
        x = unit(X.astype(np.float64))
        second_moment = np.zeros((X.shape[1],) * 2)
        for rows in batches(len(X), _SUMMED_ROWS):
            scaled = np.sqrt(weight[rows])[:, None] * x[rows]
            second_moment += scaled.T @ scaled
        return ScatterSums(
            count=np.bincount(codes, weights=weight, minlength=n_classes),
            features=class_sums(X, codes, weight, n_classes),
            unit_features=class_sums(x, codes, weight, n_classes),
            second_moment=second_moment,
        )

    def _set_sums(self, sums):
        super()._set_sums(sums)
        texts = self._text_features
        fitted = fit_gaussians(
            sums.count,
            sums.unit_features,
            sums.second_moment,
            self.shrinkage,
            span=self._bridge.basis,
            texts=None if texts is None else texts.astype(np.float64),
        )
        dtype = self._bridge.inverse.dtype
        self.centre_ = fitted.centre.astype(dtype)
        self.means_ = fitted.means.astype(dtype)
        self.metric_ = fitted.metric.astype(dtype)
        self.text_gain_ = fitted.gain
        view = CentredView(self.metric_, (fitted.centre @ fitted.metric).astype(dtype))
        vectors = unit(fitted.means @ fitted.metric).astype(dtype)
        self._z3 = Term(view, vectors)

    def _own_term(self):
        return self._z3

    def _components(self, X, skip):
        # No plain prototypes are compared here.
        return super()._components(X, {*skip, 1})

    def _own_shot_parts(self, query, X, weight, k):
        # M_k is a mean over n_k shots and, with texts, over TEXT_SHOTS times the text.
        n_rows = self.class_count_[k]
        if self._text_features is not None:
            n_rows = n_rows + TEXT_SHOTS
        length = n_rows * np.linalg.norm(self.means_[k] @ self.metric_)
        shots = (unit(X) - self.centre_) @ self.metric_
        return weight * (shots @ self._z3.view(query)[0]) / length

    def component_logits(self, X, *, skip=()):
        """Cosines of the queries before they are blended.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Image embeddings; their lengths do not matter.
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
        """Declare the settings to search: the weight of z3, and the shrinkage.

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
        prior = {"shrinkage": self.shrinkage}
        if head is not None and head.text_features is not None:
            lambda_3 = (n_shots + 1) / self._shots_to_match_texts
            lambda_3 *= USUAL_LOGIT_SCALE / head.logit_scale
            prior |= {"lambda_1": 1.0, "lambda_3": lambda_3}
        return prior
