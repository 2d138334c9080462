"""BridgedGDAClassifier: Gaussian discriminant analysis of bridged embeddings."""

from numbers import Integral, Real

import numpy as np
from sklearn.base import _fit_context
from sklearn.utils._param_validation import Interval, StrOptions

from skbridge._bridge import BRIDGE_RANK_CONSTRAINT, BRIDGES
from skbridge._class_sums import ScatterSums, class_sums
from skbridge._classifiers.blend import Blend, LinearView, Term
from skbridge._classifiers.bridged import (
    SHOTS_TO_MATCH_TEXTS,
    USUAL_LOGIT_SCALE,
    BridgedClassifier,
)
from skbridge._classifiers.tokens import BRIDGED_ROWS
from skbridge._gaussian import whiten
from skbridge._rows import batches, unit
from skbridge._validation import all_or_nothing

_ENERGY_SHARE = 0.9

_NON_NEGATIVE = [Interval(Real, 0, None, closed="left")]


class BridgedGDAClassifier(BridgedClassifier):
    """Gaussian discriminant analysis of bridged CLIP embeddings; recommended.

    A query is compared with the class texts (z1) and, bridged, with the class means
    of the bridged shots (z3), in the metric of the shots' scatter within classes. The
    class text counts as one more shot. Nothing needs tuning.

    Parameters
    ----------
    texts : str, path-like, CLIPTexts, TextHead or None, default="ViT-B-16"
        The class texts. A model's name or folder: the model that embedded the
        images, with the labels as names. A :class:`CLIPTexts` sets weights, prompts
        and names as well. A :class:`TextHead` holds texts made beforehand. None
        makes a classifier without texts.
    mode : {"closed_form", "trained"}, default="closed_form"
        ``"trained"`` learns a linear map that follows the metric, for as long as
        held-out shots gain from it.
    lambda_1 : float, default=1.0
        Weight of z1, query against class texts.
    lambda_3 : float or "auto", default="auto"
        Weight of z3. ``"auto"`` grows with the mean number n of shots per class:
        (n + 1) / 8, times 100 / logit scale; and 1 without texts.

    bridge : {"auto", "pseudo_inverse", "text_subspace", "identity"}, default="auto"
        How images are mapped to texts; see :class:`SemanticBridge`. ``"auto"`` is
        the pseudo-inverse where the text projection is known, the text subspace
        where a bank of texts or at least 64 class texts span it, and the identity
        otherwise.
    bridge_rank : int or float, default=0.9
        Number of singular (or principal) directions that the bridge spans or, for a
        float in (0, 1], the share of the sum of squared singular values that they
        hold.
    shrinkage : float, default=0.5
        Scatter that every direction has before any shots. The scatter is a sum over
        shots, so that it takes over as shots are added.
    temperature : float, default=None
        Factor of the scores in the softmax of `predict_proba`. None preserves
        CLIP's logit scale, whatever the blending weights.
    early_stopping : bool, default=True
        Training: whether held-out shots choose the number of steps.
    max_iter : int, default=16
        Training: number of steps, with early stopping the most to take; at most 16.
    device : str, default="auto"
        Where to train, and to encode the texts of a model: ``"auto"``, ``"cpu"``,
        ``"cuda"``, ``"mps"``, ... Predictions always run on the CPU, in NumPy.

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
    means_ : ndarray of shape (n_classes, n_features)
        Class means M of the bridged shots and the class text, not of unit length.
    metric_ : ndarray of shape (n_features, n_columns)
        The bridge followed by G, and by the learned map A: queries and means are
        compared after it.
    class_count_ : ndarray of shape (n_classes,)
        Sum of the sample weights of each class.
    blend_ : object
        The blend of z1 and z3; its ``scores`` blend component logits.
    temperature_ : float
        Factor of the scores in the softmax.
    n_iter_ : int
        Number of training steps; 1 in closed form, and where early stopping takes
        none.
    loss_curve_ : ndarray of shape (`n_iter_`,)
        Training loss before each step; empty in closed form, and where early
        stopping takes no step.

    See Also
    --------
    SeMoBridgeClassifier : The paper's classifier.
    skbridge.baselines.GDAClassifier : The same model without a bridge.

    Notes
    -----
    Let x be the unit bridged embedding before the projection's bias, m_k the class
    means of the shots' x, and ``S = sum w (x - m_y)' (x - m_y)`` their scatter. z3 is
    the cosine of x_q G and M_k G, where ``G G' = shrinkage (S + shrinkage I)^-1``,
    ``M_k = (n_k m_k + t_k) / (n_k + 1)``, and ``t_k = mean_j m_j + E_k - mean_j E_j``
    is the bridged class text E_k moved across the modality gap; without texts
    ``M_k = m_k``. The scores are ``lambda_1 z1 + lambda_3 z3``. This is not of the
    paper: its class mean takes no notice of how the shots scatter, which costs it
    more the more shots there are.

    ``mode="trained"`` replaces G by G A. A starts as the identity and follows
    full-batch Adam, of rate 2e-3, on the cross entropy of ``20 (z1 + lambda_3 z3)``,
    where each shot is compared with M_k that leave it out. The number of steps is
    one of 0, 2, ..., 16: the log loss of shots held out of k folds, k being the
    median number of shots per class but at most 4, picks the fewest steps that it
    cannot tell from the best by one standard error of the paired difference. A median
    of one or two shots is too few to choose by, and no step is taken. Early stopping
    judges with ``lambda_3="auto"`` whatever the blend.

    A parameter that another one makes idle is refused when it is set: those of
    training in closed form, a rank of the identity.

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
    _text_shots = 1

    _parameter_constraints = {
        "texts": "no_validation",
        "mode": [StrOptions({"closed_form", "trained"})],
        "bridge": [StrOptions(set(BRIDGES))],
        "bridge_rank": BRIDGE_RANK_CONSTRAINT[:2],
        "shrinkage": [Interval(Real, 0, None, closed="neither")],
        "lambda_1": _NON_NEGATIVE,
        "lambda_3": [*_NON_NEGATIVE, StrOptions({"auto"})],
        "temperature": [Interval(Real, 0, None, closed="neither"), None],
        "early_stopping": ["boolean"],
        "max_iter": [Interval(Integral, 1, 16, closed="both")],
        "device": [str, None],
    }

    def __init__(
        self,
        texts="ViT-B-16",
        *,
        mode="closed_form",
        bridge="auto",
        bridge_rank=_ENERGY_SHARE,
        shrinkage=0.5,
        lambda_1=1.0,
        lambda_3="auto",
        temperature=None,
        early_stopping=True,
        max_iter=16,
        device="auto",
    ):
        self.texts = texts
        self.mode = mode
        self.bridge = bridge
        self.bridge_rank = bridge_rank
        self.shrinkage = shrinkage
        self.lambda_1 = lambda_1
        self.lambda_3 = lambda_3
        self.temperature = temperature
        self.early_stopping = early_stopping
        self.max_iter = max_iter
        self.device = device

    @_fit_context(prefer_skip_nested_validation=True)
    @all_or_nothing
    def fit(self, X, y, sample_weight=None):
        """Estimate means and scatter from labelled shots, and train if asked to.

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
        if self.mode == "trained":
            self._train(X, codes, weight)
        self._finish_fit()
        return self

    _energy_shares = (_ENERGY_SHARE, 0.95, 1.0)

    def _idle_parameters(self):
        if self.mode == "closed_form":
            yield ("early_stopping", "max_iter"), "mode='closed_form'"
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
            (self._lambda_1(), 0.0, self._lambda_3()), logit_scale=self._logit_scale
        )

    def _joint_view(self):
        """Bridge rows to unit joint embeddings x, before the projection's bias."""
        return LinearView(self._bridge.joint, self._bridge.bias)

    def _compact_view(self):
        """Map rows to x in the coordinates of the bridge's basis."""
        return LinearView(self._bridge.compact, self._bridge.bias)

    def _sum_shots(self, X, codes, weight):
        n_classes = len(self.classes_)
        bridged = self._compact_view()(X)
        second_moment = np.zeros((bridged.shape[1],) * 2)
        for rows in batches(len(X), BRIDGED_ROWS):
            scaled = np.sqrt(weight[rows])[:, None] * bridged[rows]
            second_moment += scaled.T @ scaled
        return ScatterSums(
            count=np.bincount(codes, weights=weight, minlength=n_classes),
            features=class_sums(X, codes, weight, n_classes),
            bridged=class_sums(bridged, codes, weight, n_classes),
            second_moment=second_moment,
        )

    def _set_sums(self, sums):
        super()._set_sums(sums)
        texts = self._text_features
        if texts is not None:
            texts = self._compact_view()(texts.astype(np.float64))
        means, metric = whiten(
            sums.count, sums.bridged, sums.second_moment, self.shrinkage, texts
        )
        basis, dtype = self._bridge.basis, self._bridge.inverse.dtype
        self.means_ = (means if basis is None else means @ basis.T).astype(dtype)
        self._set_metric(metric.astype(dtype), unit(means @ metric).astype(dtype))

    def _set_metric(self, metric, whitened):
        """Set the map of queries, and the class vectors that they meet after it.

        Parameters
        ----------
        metric : ndarray of shape (rank, n_columns)
            G, and the learned map; from the coordinates of the bridge's basis.
        whitened : ndarray of shape (n_classes, n_columns)
            Unit class means after it.
        """
        # Queries need no unit length between the bridge and G: one map does both.
        self._metric = metric
        self.metric_ = self._bridge.compact @ metric
        self._whitened = whitened

    def _own_term(self):
        return Term(LinearView(self.metric_, self._bridge.bias), self._whitened)

    def _components(self, X, skip):
        # No plain prototypes are compared here.
        return super()._components(X, {*skip, 1})

    def _own_shot_parts(self, query, X, weight, k):
        # In the coordinates of the basis, where M_k is a mean over n_k shots and, with
        # texts, one text.
        shots = self._compact_view()(X) @ self._metric
        n_rows = self.class_count_[k] + (self._text_features is not None)
        length = n_rows * np.linalg.norm(
            self._bridge.coordinates(self.means_[k]) @ self._metric
        )
        return weight * (shots @ self._own_term().view(query)[0]) / length

    def _train(self, X, codes, weight):
        from skbridge._clip.device import resolve_device
        from skbridge._training.early_stopping import distinct_shots
        from skbridge._training.metric import ComparedShots, train_metric

        X, codes, weight = distinct_shots(X, codes, weight)
        view = self._joint_view()
        z1, texts = None, self._text_features
        if texts is not None:
            z1, texts = unit(X) @ texts.T, view(texts.astype(np.float64))
        learned = train_metric(
            ComparedShots(view(X.astype(np.float64)), codes, weight, z1, texts),
            len(self.classes_),
            shrinkage=self.shrinkage,
            lambda_3=self._auto_lambda_3,
            temperature=self._auto_temperature(self.class_count_),
            max_iter=self.max_iter,
            early_stopping=self.early_stopping,
            dtype=X.dtype,
            device=resolve_device(self.device),
        )
        if learned is not None:
            metric = self._bridge.coordinates(learned.metric.T).T
            self._set_metric(metric, learned.whitened)
            self.loss_curve_ = learned.loss_curve
            self.n_iter_ = len(learned.loss_curve)

    def component_logits(self, X, *, skip=()):
        """Cosines of the queries before they are blended.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Image embeddings; their lengths do not matter.
        skip : collection of int, default=()
            Positions of components that need not be computed (0 for z1); they come
            as None.

        Returns
        -------
        z1 : ndarray of shape (n_samples, n_classes) or None
            Query against class texts; None without texts.
        z2 : None
            The paper's comparison with plain prototypes, which is not used here.
        z3 : ndarray of shape (n_samples, n_classes)
            Bridged query against class means, in the metric of the scatter.
        """
        return super().component_logits(X, skip=skip)

    def search_space(self, n_shots, head):
        """Give settings worth a search: the weight of z3, and the metric.

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
        space = super().search_space(n_shots, head)
        if "shrinkage" in space:
            space["shrinkage"] = [0.2, self.shrinkage, 1.0]
        return space

    def search_prior(self, n_shots, head):
        """Give the setting for so few shots that none can be held out.

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
        prior = self._prior_rank(head, _ENERGY_SHARE)
        if self.mode == "closed_form":
            prior["shrinkage"] = self.shrinkage
        if head is not None and head.text_features is not None:
            lambda_3 = (n_shots + 1) / SHOTS_TO_MATCH_TEXTS
            lambda_3 *= USUAL_LOGIT_SCALE / head.logit_scale
            prior |= {"lambda_1": 1.0, "lambda_3": lambda_3}
        return prior
