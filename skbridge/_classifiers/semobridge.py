"""SeMoBridgeClassifier: validates, fits in closed form or by training, predicts."""

import os
from copy import copy
from dataclasses import replace
from functools import cached_property
from numbers import Integral, Real

import numpy as np
from sklearn.base import _fit_context
from sklearn.utils import gen_batches
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from skbridge._bridge import BRIDGE_RANK_CONSTRAINT, BRIDGES, make_bridge
from skbridge._class_sums import class_sums
from skbridge._classifiers.base import BaseFewShotClassifier
from skbridge._classifiers.blend import (
    BLENDINGS,
    default_temperature,
    sharpened,
    text_divergence,
    weighted_sums,
)
from skbridge._classifiers.gaussian import whiten
from skbridge._rows import row_lengths, unit
from skbridge._validation import (
    all_or_nothing,
    check_embeddings,
    check_shots,
    check_zero_rows,
)

# Share of the text directions' energy that the bridge keeps, where a search asks,
# and the shares that it tries.
_ENERGY_SHARE = 0.9
_ENERGY_SHARES = {
    "mean": [0.8, _ENERGY_SHARE, 0.95, 0.98, 1.0],
    "gda": [_ENERGY_SHARE, 0.95, 1.0],
}
# It tries these multiples of the weight that suits the number of shots.
_LAMBDA_FACTORS = 2.0 ** np.arange(-4, 4.5, 0.5)
_SHARPNESSES = [2.0, 5.0, 10.0]

# With this many shots a class, lambda_3="auto" weighs shots and texts alike.
_SHOTS_TO_MATCH_TEXTS = 8
# CLIP's own, and that of nearly all its kin: training clips it at 100.
_USUAL_LOGIT_SCALE = 100.0

# Shots that are bridged at once, for the caches.
_BRIDGED_ROWS = 1024

_NON_NEGATIVE = [Interval(Real, 0, None, closed="left")]


def _is_complement(train, test, n_rows):
    """Whether `train` has, once each, exactly the rows that `test` lacks."""
    seen = np.bincount(np.concatenate([train, test]), minlength=n_rows)
    return len(test) < len(train) and bool((seen == 1).all())


def _grows(estimator):
    if estimator.mode == "closed_form":
        return True
    # available_if makes this the cause of its own, general AttributeError.
    raise AttributeError(
        f"partial_fit needs mode='closed_form', but mode is {estimator.mode!r}, which "
        "learns from all shots at once. Call fit with the old and the new shots."
    )


class SeMoBridgeClassifier(BaseFewShotClassifier):
    """Few-shot classification of CLIP image embeddings through the semantic bridge.

    A query is compared with the class texts (z1), bridged with the few-shot
    prototypes (z2), and as it is with the bridged prototypes (z3); the three
    are blended.

    Parameters
    ----------
    model : str, default="ViT-B-16"
        CLIP model whose text side to use: the one that embedded the images. An
        open_clip name, ``"local-dir:PATH"``, or ``"skbridge-tiny"``, the bundled
        model. None, with no `text_head`, makes a classifier without texts.
    pretrained : str, default="auto"
        Weights of `model`; ``"auto"`` means OpenAI's for ViT-B-16 and the first
        listed ones elsewhere.
    text_head : TextHead, default=None
        Text side made beforehand; `model` and `pretrained` are then not used.
        String labels name its classes, integer labels index them.
    class_names : dict or list of str, default=None
        Name of each label: a dict from label to name or, for integer labels from
        0 to n - 1, a list indexed by label. None takes string labels as names.
    templates : str, list or dict, default=None
        Prompts, as in :meth:`TextHead.from_clip`; None means ``"simple"``,
        ``"a photo of a {}."``.
    mode : {"closed_form", "trained"}, default="closed_form"
        ``"trained"`` learns from the shots what `solver` and `head` say.
    bridge : {"pseudo_inverse", "text_subspace", "identity"}, \
default="pseudo_inverse"
        What maps images to texts; see :class:`SemanticBridge`.
    pinv_atol : float, default=0.3
        Singular values of the text projection at or below this count as zero.
        0.3 is the official code's value.
    bridge_rank : int or float, default=None
        In place of `pinv_atol`: the number of singular (or principal) directions
        to keep, or, for a float in (0, 1], the share of the sum of squared
        singular values that they hold. 0.9 did best on held-out real shots.
    head : {"mean", "gda"}, default="mean"
        What z3 compares. ``"mean"`` is the paper's: the query with the mean of a
        class's bridged shots. ``"gda"`` compares the bridged query with that mean
        in the metric of the shots' scatter within classes, as Gaussian
        discriminant analysis does, and counts the class text as one more shot.
    shrinkage : float, default=0.5
        ``head="gda"``: scatter that every direction has before any shots. The
        scatter is a sum over shots, so that it takes over as shots are added.
    csb : bool, default=True
        Whether training learns a class-specific bias b.
    lambda_1 : float, default=1.0
        Weight of z1, query against class texts.
    lambda_2 : float, default=0.0
        Weight of z2, bridged query against prototypes.
    lambda_3 : float or "auto", default=0.5
        Weight of z3, query against bridged prototypes. ``"auto"`` grows with the
        mean number n of shots a class: n / 8, with ``head="gda"`` (n + 1) / 8,
        times 100 / logit scale; and 1 without texts.
    blending : {"linear", "exponential"}, default="linear"
        ``"linear"`` is the paper's equation, ``"exponential"`` what the official
        code computes.
    alpha, beta, gamma : float, default=5.0
        Sharpness of z1, z2 and z3 in the exponential blend.
    smoothness : float, default=0.0
        How much more the exponential blend trusts the shots of classes whose
        prototype their text fits badly.
    temperature : float, default=None
        Factor of the scores in the softmax of `predict_proba`. None keeps CLIP's
        logit scale, whatever the blending weights.
    lambda_it : float, default=0.5
        Training: weight of the image loss against the two text losses.
    lambda_c : float, default=0.1
        Training: weight of the consistency loss.
    lambda_b : float, default=0.1
        Training: weight of the loss that keeps the norms of b alike.
    solver : {"fast", "adamw"}, default="fast"
        Training: ``"adamw"`` learns the bridge and the class-specific bias b by the
        official recipe (SeMoBridge-T). ``"fast"`` minimises the same loss in fewer
        steps; with ``head="gda"`` it learns a linear map after the metric of z3
        instead. See Notes.
    early_stopping : bool, default=True
        Training with ``"fast"``: held-out shots choose the number of steps. False
        goes all the way down the loss.
    learning_rate : float, default=None
        Training of the bridge: AdamW's step size after the warm-up. None means
        1.5e-4 after 500 steps for ``"adamw"``, the recipe's, and 1.5e-3 after 50
        steps for ``"fast"``.
    weight_decay : float, default=0.01
        Training of the bridge: AdamW's decoupled decay, of W+ and b alike.
    max_iter : int, default=None
        Training: number of steps, with early stopping the most to take. None means
        5,000 for ``"adamw"``, as in the recipe. ``"fast"`` takes at most 60 with
        early stopping, 250 without, and 16 for a map after the metric of z3.
    tol : float, default=None
        Training of the bridge: stop once 50 steps after the warm-up (``"fast"``: 10)
        lower the loss by no more than this share of it. None means 0 for
        ``"adamw"``, all the steps, as the recipe does, and 1e-5 for ``"fast"``.
    device : str, default="auto"
        Where to train and to encode texts: ``"auto"``, ``"cpu"``, ``"cuda"``,
        ``"mps"``, ... Predictions always run on the CPU, in NumPy.
    cache_dir : str, path-like or None, default=None
        Folder in which encoded class texts are kept, so that a new process encodes
        none of them again and loads no model: as for :class:`CLIPEmbedder`, "auto"
        is ``SKBRIDGE_CACHE_DIR``, else the user's cache folder; None is
        ``SKBRIDGE_CACHE_DIR``, if it is set. In memory they are kept in any case.

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
    bridge_ : ndarray of shape (n_features, n_text_features)
        W+, as computed or as learned.
    class_bias_ : ndarray of shape (n_classes, n_text_features)
        b; zeros in closed form.
    prototypes_ : ndarray of shape (n_classes, n_features)
        Unit class means F' of the shots.
    bridged_prototypes_ : ndarray of shape (n_classes, n_features)
        Unit class means F^ of the bridged shots.
    class_count_ : ndarray of shape (n_classes,)
        Sum of the sample weights of each class.
    temperature_ : float
        Factor of the scores in the softmax.
    n_iter_ : int
        Number of training steps, for L-BFGS of evaluations of the loss; 1 in closed
        form, and where early stopping takes none.
    loss_curve_ : ndarray of shape (`n_iter_`,)
        Training loss before each step; empty in closed form, and where early
        stopping takes no step.
    loss_terms_ : dict of str to ndarray
        Like `loss_curve_`, the terms of the loss that apply, before their weights:
        ``"image"``, ``"text_eos"``, ``"text_joint"``, ``"consistency"`` and
        ``"bias"``. Empty where the bridge is not trained.

    See Also
    --------
    SemanticBridge : The bridge alone, as a transformer.
    CLIPEmbedder : From images to the embeddings that this takes.

    Notes
    -----
    With W the text projection, c its bias (mostly zero) and L the mean norm of
    the class texts' EOS tokens, an embedding f is bridged to
    ``f^ = L u / ||u|| W + c`` with ``u = (f - c) W+``. Class k has the text T_k,
    the prototype F'_k (unit mean of its f) and the bridged prototype F^_k (unit
    mean of its f^). The logits of a query q are the cosines ``z1 = q . T_k``,
    ``z2 = q^ . F'_k`` and ``z3 = q . F^_k``. The scores are ``lambda_1 z1 +
    lambda_2 z2 + lambda_3 z3`` (linear), or ``lambda_1 exp(-alpha (1 - z1)) +
    w_k [lambda_2 exp(-beta (1 - z2)) + lambda_3 exp(-gamma (1 - z3))]``
    (exponential), where w_k grows with `smoothness` and with how badly the text
    of class k fits its prototype. The official code swaps the indices of the
    last two terms: its (lambda2, lambda3, beta, gamma) are (lambda_3, lambda_2,
    gamma, beta) here.

    A term without texts drops out: then lambda_2 and lambda_3 alone count.

    With ``head="gda"`` z3 is the cosine of x_q G and M_k G instead, where x is the
    unit bridged embedding before the bias, ``G G' = shrinkage (S + shrinkage
    I)^-1`` with the scatter ``S = sum w (x - m_y)' (x - m_y)`` about the class
    means m_k, ``M_k = (n_k m_k + t_k) / (n_k + 1)``, and ``t_k = mean_j m_j + E_k -
    mean_j E_j`` is the bridged class text E_k moved across the modality gap;
    without texts ``M_k = m_k``. It is not of the paper: its class mean takes no
    notice of how the shots scatter, which costs it more the more shots there are.
    The setting recommended for real CLIP features, whatever the number of shots,
    is ``head="gda", bridge_rank=0.9, lambda_3="auto"``.

    ``mode="trained"`` minimises ``lambda_it L_img + (1 - lambda_it) (L_txte +
    L_txtp) / 2 + lambda_c L_cons + lambda_b L_bias``, the paper's losses, over W+ and
    b. The official recipe takes 5,000 steps of AdamW, most of which overfit few
    shots. ``solver="fast"`` takes AdamW's steps in the basis in which W W' is
    diagonal, at ten times the rate, as far as held-out shots want it; or, without
    early stopping, follows L-BFGS until the loss settles, `weight_decay` and
    `learning_rate` left aside. Early stopping halves the shots of each
    class twice over, trains on one half, and of 0, 4, ..., 60 steps takes the number
    that gives the other half the least log loss of z1 + lambda_3 z3, ``lambda_3 =
    "auto"``, at its own temperature; with texts it asks no further than 20 steps past
    the best so far. Where every class has one shot there is nothing
    to hold out: it takes 56 steps, and none without texts.

    With ``head="gda"`` the fast solver replaces G by G A. A starts as the identity and
    follows full-batch Adam, of rate 2e-3, on the cross entropy of ``20 (z1 +
    lambda_3 z3)``, where each shot is compared with M_k that leave it out. The
    number of steps is one of 0, 2, ..., 16: the log loss of shots held out of k
    folds, k being the median number of shots a class but at most 4, picks the
    fewest steps that it cannot tell from the best by one standard error of the
    paired difference. So nothing moves unless held-out shots say so, and nothing
    moves where that median is one or two shots, too few to ask.

    Early stopping always judges with ``lambda_3="auto"``: what is learned does not
    depend on the blend, and a search over the blend does not train anew. Equal shots
    of a class count as one of their summed weight, on one side of a fold. Its
    constants were chosen on shots alone: ``benchmarks/constants.py`` prints the
    comparison.

    The default blending weights are the fixed linear setting that did best on
    held-out shots of both Stanford Cars and DTD, averaged over 2, 4, 8 and 16 shots,
    with CLIP ViT-B/32; ``benchmarks/constants.py`` prints the comparison. lambda_2 is
    zero because any weight of z2 lowered it there. The best lambda_3 grows with the
    number of shots, which ``lambda_3="auto"`` follows and a search finds.

    References
    ----------
    .. [1] "SeMoBridge: Semantic Modality Bridge for Efficient Few-Shot
       Adaptation of CLIP", arXiv:2509.26036.

    Examples
    --------
    >>> import numpy as np
    >>> from skbridge import SeMoBridgeClassifier, TextHead
    >>> rng = np.random.default_rng(0)
    >>> head = TextHead.from_arrays(
    ...     ["cat", "dog"], eos=rng.normal(size=(2, 8)), projection=np.eye(8, 16)
    ... )
    >>> X = np.repeat(head.text_features, 2, axis=0) + 0.1
    >>> y = ["cat", "cat", "dog", "dog"]
    >>> classifier = SeMoBridgeClassifier(text_head=head).fit(X, y)
    >>> classifier.predict(X)
    array(['cat', 'cat', 'dog', 'dog'], dtype='<U3')
    """

    _blend_parameters = (
        "lambda_1",
        "lambda_2",
        "lambda_3",
        "blending",
        "alpha",
        "beta",
        "gamma",
        "smoothness",
    )

    _parameter_constraints = {
        "model": [str, os.PathLike, None],
        "pretrained": [str, os.PathLike, None],
        "text_head": "no_validation",
        "class_names": "no_validation",
        "templates": "no_validation",
        "mode": [StrOptions({"closed_form", "trained"})],
        "bridge": [StrOptions(set(BRIDGES))],
        "pinv_atol": _NON_NEGATIVE,
        "bridge_rank": BRIDGE_RANK_CONSTRAINT,
        "head": [StrOptions({"mean", "gda"})],
        "shrinkage": [Interval(Real, 0, None, closed="neither")],
        "csb": ["boolean"],
        "lambda_1": _NON_NEGATIVE,
        "lambda_2": _NON_NEGATIVE,
        "lambda_3": [*_NON_NEGATIVE, StrOptions({"auto"})],
        "blending": [StrOptions(set(BLENDINGS))],
        "alpha": _NON_NEGATIVE,
        "beta": _NON_NEGATIVE,
        "gamma": _NON_NEGATIVE,
        "smoothness": _NON_NEGATIVE,
        "temperature": [Interval(Real, 0, None, closed="neither"), None],
        "lambda_it": [Interval(Real, 0, 1, closed="both")],
        "lambda_c": _NON_NEGATIVE,
        "lambda_b": _NON_NEGATIVE,
        "solver": [StrOptions({"adamw", "fast"})],
        "early_stopping": ["boolean"],
        "learning_rate": [Interval(Real, 0, None, closed="neither"), None],
        "weight_decay": _NON_NEGATIVE,
        "max_iter": [Interval(Integral, 1, None, closed="left"), None],
        "tol": [*_NON_NEGATIVE, None],
        "device": [str, None],
        "cache_dir": [str, os.PathLike, None],
    }

    def __init__(
        self,
        *,
        model="ViT-B-16",
        pretrained="auto",
        text_head=None,
        class_names=None,
        templates=None,
        mode="closed_form",
        bridge="pseudo_inverse",
        pinv_atol=0.3,
        bridge_rank=None,
        head="mean",
        shrinkage=0.5,
        csb=True,
        lambda_1=1.0,
        lambda_2=0.0,
        lambda_3=0.5,
        blending="linear",
        alpha=5.0,
        beta=5.0,
        gamma=5.0,
        smoothness=0.0,
        temperature=None,
        lambda_it=0.5,
        lambda_c=0.1,
        lambda_b=0.1,
        solver="fast",
        early_stopping=True,
        learning_rate=None,
        weight_decay=0.01,
        max_iter=None,
        tol=None,
        device="auto",
        cache_dir=None,
    ):
        self.model = model
        self.pretrained = pretrained
        self.text_head = text_head
        self.class_names = class_names
        self.templates = templates
        self.mode = mode
        self.bridge = bridge
        self.pinv_atol = pinv_atol
        self.bridge_rank = bridge_rank
        self.head = head
        self.shrinkage = shrinkage
        self.csb = csb
        self.lambda_1 = lambda_1
        self.lambda_2 = lambda_2
        self.lambda_3 = lambda_3
        self.blending = blending
        self.alpha = alpha
        self.beta = beta
        self.gamma = gamma
        self.smoothness = smoothness
        self.temperature = temperature
        self.lambda_it = lambda_it
        self.lambda_c = lambda_c
        self.lambda_b = lambda_b
        self.solver = solver
        self.early_stopping = early_stopping
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.max_iter = max_iter
        self.tol = tol
        self.device = device
        self.cache_dir = cache_dir

    @_fit_context(prefer_skip_nested_validation=True)
    @all_or_nothing
    def fit(self, X, y, sample_weight=None):
        """Learn prototypes, and in trained mode the bridge, from labelled shots.

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
        SeMoBridgeClassifier
            The fitted classifier.

        Raises
        ------
        ValueError
            If y has one class only, a label has no text, X and the texts have
            different widths, an embedding or the sum of a class's embeddings is
            zero, all blending weights are zero, or parameters contradict each
            other.
        """
        X, codes, weight = self._start_fit(X, y, sample_weight)
        self._start_sums(X)
        trained = self.mode == "trained"
        of_head = trained and self.head == "gda" and self.solver == "fast"
        if trained and not of_head:
            self._train(X, codes, weight)
        self._add_shots(X, codes, weight)
        if of_head:
            self._train_metric(X, codes, weight)
        return self

    def _start_sums(self, X):
        """Set the bridge, and class sums that hold no shots yet."""
        self._check_blend()
        self._bridge = make_bridge(
            self.text_head_,
            X.shape[1],
            bridge=self.bridge,
            pinv_atol=self.pinv_atol,
            bridge_rank=self.bridge_rank,
        ).astype(X.dtype)
        n_classes, n_text_features = len(self.classes_), self._bridge.inverse.shape[1]
        self.n_iter_ = 1
        self.loss_curve_, self.loss_terms_ = np.empty(0), {}
        self.class_count_ = np.zeros(n_classes)
        self.class_bias_ = np.zeros((n_classes, n_text_features), dtype=X.dtype)
        self._sums = None

    def _bridge_shots(self, X, codes):
        """Bridge shots, as far as their class sums need it.

        Returns
        -------
        ndarray
            For ``head="mean"`` the inverse lengths ``1 / ||u||`` of the tokens, of
            shape (n_samples,); for ``head="gda"`` the unit bridged shots x, of shape
            (n_samples, rank), in the coordinates of the bridge's basis.
        """
        bridge = self._bridge
        if self.head == "gda":
            if not self.class_bias_.any():
                return self._compact(X)
            tokens = self._centred(X) @ bridge.inverse + self.class_bias_[codes]
            return unit(bridge.coordinates(tokens @ bridge.projection))
        lengths = np.empty(len(X))
        biased = self.class_bias_.any()
        # Without class biases lengths are all that is asked of the tokens.
        narrow = bridge.inverse if biased or bridge.root is None else bridge.root
        for rows in gen_batches(len(X), _BRIDGED_ROWS):
            tokens = self._centred(X[rows]) @ narrow
            if biased:
                tokens += self.class_bias_[codes[rows]]
            lengths[rows] = row_lengths(tokens)
        return np.divide(1, lengths, where=lengths > 0, out=np.zeros(len(X)))

    def _sum_shots(self, X, bridged, codes, weight):
        """Sum all that is needed of shots, in float64, whatever order they come in.

        These are, by class, the weights and the embeddings; then for
        ``head="mean"`` the weights and the embeddings over the lengths of the
        bridged tokens, and for ``head="gda"`` the bridged shots x and, over all
        classes, ``x' x``.
        """
        n_classes = len(self.classes_)
        count = np.bincount(codes, weights=weight, minlength=n_classes)
        if self.head == "mean":
            scaled = weight * bridged
            sums = class_sums(X, codes, np.stack([weight, scaled]), n_classes)
            share = np.bincount(codes, weights=scaled, minlength=n_classes)
            return count, sums[0], share, sums[1]
        second_moment = np.zeros((bridged.shape[1],) * 2)
        for rows in gen_batches(len(X), _BRIDGED_ROWS):
            scaled = np.sqrt(weight[rows])[:, None] * bridged[rows]
            second_moment += scaled.T @ scaled
        return (
            count,
            class_sums(X, codes, weight, n_classes),
            class_sums(bridged, codes, weight, n_classes),
            second_moment,
        )

    def _lambdas(self):
        """Blending weights, zero where there are no texts to compare with."""
        has_texts = self._text_features is not None
        lambda_1, lambda_3 = self.lambda_1 if has_texts else 0.0, self.lambda_3
        if lambda_3 == "auto":
            lambda_3 = self._auto_lambda_3(self.class_count_)
        # As Python floats they leave float32 scores in float32.
        return float(lambda_1), float(self.lambda_2), float(lambda_3)

    def _auto_lambda_3(self, class_count):
        """``lambda_3="auto"`` for so many shots."""
        if self._text_features is None:
            return 1.0
        n_shots = class_count.mean() + (self.head == "gda")
        # A model of smaller logit scale spreads its z1 wider, but not its z3.
        spread = _USUAL_LOGIT_SCALE / self._logit_scale
        return float(spread * n_shots / _SHOTS_TO_MATCH_TEXTS)

    def _sharpness(self):
        return float(self.alpha), float(self.beta), float(self.gamma)

    def _check_blend(self):
        if self.lambda_3 != "auto" and not any(self._lambdas()):
            without = " (lambda_1 does not count without texts)"
            raise ValueError(
                "At least one of lambda_1, lambda_2 and lambda_3 must be positive"
                f"{without if self._text_features is None else ''}; got "
                f"{self.lambda_1}, {self.lambda_2} and {self.lambda_3}, which score "
                "every class alike."
            )

    def _train(self, X, codes, weight):
        from skbridge._clip.device import resolve_device
        from skbridge._training.objective import SCHEDULES, Shots, Task, train_bridge

        schedule = SCHEDULES[self.solver]
        chosen = {
            name: getattr(self, name) for name in ("learning_rate", "max_iter", "tol")
        }
        chosen = {name: value for name, value in chosen.items() if value is not None}
        task = Task(
            bridge=self._bridge,
            text_features=self._text_features,
            csb=self.csb,
            logit_scale=self._logit_scale,
            lambda_it=self.lambda_it,
            lambda_c=self.lambda_c,
            lambda_b=self.lambda_b,
            solver=self.solver,
            schedule=replace(schedule, **chosen),
            weight_decay=self.weight_decay,
            device=resolve_device(self.device),
        )
        early_stopping = None
        if self.solver == "fast" and self.early_stopping:
            counts = np.bincount(codes, weights=weight)
            early_stopping = self._auto_lambda_3, self._auto_temperature(counts)
        result = train_bridge(
            Shots(X, codes, weight), task, early_stopping=early_stopping
        )
        if result is not None:
            self._bridge = replace(
                self._bridge, inverse=result.inverse, root=None, basis=None
            )
            self.class_bias_ = result.class_bias
            self.loss_curve_ = result.loss_curve
            self.loss_terms_ = result.loss_terms
            self.n_iter_ = len(result.loss_curve)

    def _auto_temperature(self, class_count):
        """Get the default temperature under ``lambda_3="auto"``, linear."""
        lambdas = (self._text_features is not None, 0, self._auto_lambda_3(class_count))
        return default_temperature(self._logit_scale, lambdas)

    def _train_metric(self, X, codes, weight):
        from skbridge._clip.device import resolve_device
        from skbridge._training.early_stopping import distinct_shots
        from skbridge._training.metric import MAX_STEPS, ComparedShots, train_metric

        X, codes, weight = distinct_shots(X, codes, weight)
        z1, texts = None, self._text_features
        if texts is not None:
            z1, texts = unit(X) @ texts.T, self._joint(texts.astype(np.float64))
        learned = train_metric(
            ComparedShots(self._joint(X.astype(np.float64)), codes, weight, z1, texts),
            len(self.classes_),
            shrinkage=self.shrinkage,
            lambda_3=self._auto_lambda_3,
            temperature=self._auto_temperature(self.class_count_),
            max_iter=min(self.max_iter or MAX_STEPS, MAX_STEPS),
            early_stopping=self.early_stopping,
            dtype=X.dtype,
            device=resolve_device(self.device),
        )
        if learned is not None:
            metric = self._bridge.coordinates(learned.metric.T).T
            self._set_metric(metric, learned.whitened)
            self.loss_curve_ = learned.loss_curve
            self.n_iter_ = len(learned.loss_curve)

    def _add_shots(self, X, codes, weight):
        """Add shots to the class sums, and derive all that follows from these."""
        bridged = self._bridge_shots(X, codes)
        self._set_sums(self._sum_shots(X, bridged, codes, weight), self._sums)

    def _set_sums(self, sums, earlier=None):
        """Derive the prototypes, and all that depends on them, from sums of shots."""
        if earlier is not None:
            sums = tuple(old + new for old, new in zip(earlier, sums, strict=True))
        self._sums = sums
        self.class_count_, feature_sums = sums[:2]
        cancelled = ~feature_sums.any(axis=1)
        if cancelled.any():
            raise ValueError(
                f"The shots of the classes {self.classes_[cancelled].tolist()} sum to "
                "zero, so they have no prototype. Check their embeddings."
            )
        self.bridge_ = self._bridge.inverse
        dtype = self.class_bias_.dtype
        self.prototypes_ = unit(feature_sums).astype(dtype)
        self._compact_prototypes = self._bridge.coordinates(self.prototypes_)
        if self.head == "mean":
            # Bridging is linear but for the lengths, and these are in the sums.
            share, scaled_sums = sums[2:]
            if self._bridge.bias is not None:
                scaled_sums = scaled_sums - share[:, None] * self._bridge.bias
            tokens = scaled_sums.astype(dtype) @ self._bridge.inverse
            tokens += share[:, None].astype(dtype) * self.class_bias_
            # Bridged shots all have the token length L, so the mean of f^ is the
            # projected mean of e^ whatever shots come later.
            tokens *= (self._bridge.length / self.class_count_[:, None]).astype(dtype)
            self.bridged_prototypes_ = unit(self._bridge.to_joint(tokens))
        else:
            texts = None
            if self._text_features is not None:
                texts = self._compact(self._text_features.astype(np.float64))
            means, metric = whiten(self.class_count_, *sums[2:], self.shrinkage, texts)
            prototypes = unit(means)
            if self._bridge.basis is not None:
                prototypes = prototypes @ self._bridge.basis.T
            self.bridged_prototypes_ = prototypes.astype(dtype)
            self._set_metric(metric.astype(dtype), unit(means @ metric).astype(dtype))
        # What earlier prototypes had.
        vars(self).pop("_kl", None)
        self.temperature_ = self._softmax_temperature()

    def _set_metric(self, metric, whitened):
        """Set the metric G of ``head="gda"``, and the class vectors in it.

        It starts from the coordinates of the bridge's basis.
        """
        self._metric, self._whitened = metric, whitened
        # Its queries need no length between the bridge and G, so one map does both.
        self._to_metric = self._bridge.compact @ metric

    @cached_property
    def _kl(self):
        return text_divergence(self.prototypes_, self._text_features)

    @available_if(_grows)
    @_fit_context(prefer_skip_nested_validation=True)
    @all_or_nothing
    def partial_fit(self, X, y, classes=None, sample_weight=None):
        """Add shots, of old classes or new ones; equal to `fit` on all of them.

        Available in closed form only: there the class sums of the shots are all
        that the classifier needs, and they are what it keeps.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Image embeddings.
        y : array-like of shape (n_samples,)
            Labels. New ones join `classes_`.
        classes : array-like of shape (n_classes,), default=None
            Labels to expect; a label of y outside them is an error. A class
            joins `classes_` with its first shot.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each shot.

        Returns
        -------
        SeMoBridgeClassifier
            The fitted classifier.

        Raises
        ------
        ValueError
            As `fit`; and if a new class has no text, or would change the bridge
            (``bridge="text_subspace"`` without a text bank).
        """
        first = not hasattr(self, "classes_")
        X, y, weight = check_shots(self, X, y, sample_weight, reset=first)
        if classes is not None:
            unexpected = np.setdiff1d(y, classes)
            if len(unexpected):
                raise ValueError(
                    f"y has the labels {unexpected.tolist()}, which are not in "
                    "classes. Add them to classes, or leave classes out."
                )
        if first:
            self._set_classes(X, np.unique(y))
            self._start_sums(X)
        else:
            check_zero_rows(X, "partial_fit", error=self._text_features is not None)
            self._add_classes(np.setdiff1d(y, self.classes_))
        self._add_shots(
            X.astype(self.class_bias_.dtype, copy=False),
            np.searchsorted(self.classes_, y),
            weight,
        )
        return self

    def _add_classes(self, new):
        if not len(new):
            return
        head = self.text_head_
        if (
            self.bridge == "text_subspace"
            and head is not None
            and head.text_bank is None
        ):
            raise ValueError(
                f"The new classes {new.tolist()} would change the bridge, whose text "
                "subspace is that of the class texts. Give the text head a text_bank, "
                "or fit on all shots."
            )
        merged = np.concatenate([self.classes_, new])
        order = np.argsort(merged)
        head = self._resolve_head(merged[order])

        def extend(rows):
            blank = np.zeros((len(new), *rows.shape[1:]), dtype=rows.dtype)
            return np.concatenate([rows, blank])[order]

        self.classes_ = merged[order]
        self.text_head_ = head
        # All sums but the second moment of the GDA head have a row a class.
        n_by_class = 4 if self.head == "mean" else 3
        self._sums = (
            *map(extend, self._sums[:n_by_class]),
            *self._sums[n_by_class:],
        )
        self.class_bias_ = extend(self.class_bias_)
        if self._text_features is not None:
            dtype = self._text_features.dtype
            self._text_features = head.text_features.astype(dtype)
            if self.bridge == "pseudo_inverse":
                self._bridge = replace(self._bridge, length=head.eos_length)

    def _centred(self, X):
        return X if self._bridge.bias is None else X - self._bridge.bias

    def _joint(self, X):
        """Bridge rows to unit joint embeddings, before the projection's bias."""
        return self._mapped(X, self._bridge.joint)

    def _compact(self, X, out=None):
        """Do as `_joint`, in the coordinates of the bridge's basis."""
        return self._mapped(X, self._bridge.compact, out)

    def _bridged(self, X, out=None):
        """Bridge rows to unit joint embeddings."""
        if self._bridge.bias is None:
            return self._mapped(X, self._bridge.joint, out)
        return unit(self._bridge.to_joint(self._bridge.to_text(X)), out)

    def _in_metric(self, X, out=None):
        """Bridge rows to the metric of ``head="gda"``, to unit length there."""
        return self._mapped(X, self._to_metric, out)

    def _mapped(self, X, matrix, out=None):
        rows = np.matmul(self._centred(X), matrix, out=out)
        return unit(rows, rows)

    def _terms(self):
        """How z1, z2 and z3 see a query, and the class vectors that each compares."""
        bridged = (self._bridged, self.prototypes_)
        own = (unit, self.bridged_prototypes_)
        if self._bridge.bias is None:
            bridged = (self._compact, self._compact_prototypes)
        if self.head == "gda":
            own = (self._in_metric, self._whitened)
        return (unit, self._text_features), bridged, own

    def _components(self, X):
        return tuple(
            None if vectors is None else view(X) @ vectors.T
            for view, vectors in self._terms()
        )

    def _scorer(self, n_rows, dtype):
        """Give scores of rows, with the blend folded into the class vectors.

        A linear blend is one product of all views with the weighted vectors; a term
        of an exponential one is ``exp(view . sharpness v_k + offset_k)``. Both are
        worked out in arrays that every block of rows uses again.
        """
        self._check_blend()
        dtype = np.result_type(dtype, self.prototypes_)
        terms = [
            (weight, sharpness, weighted, view, vectors)
            for weight, sharpness, weighted, (view, vectors) in zip(
                self._lambdas(),
                self._sharpness(),
                (False, True, True),
                self._terms(),
                strict=True,
            )
            if weight
        ]
        room = np.empty((n_rows, len(self.classes_)), dtype)
        if self.blending == "linear":
            stacked = {}
            for weight, _, _, view, vectors in terms:
                stacked[view] = stacked.get(view, 0) + weight * vectors
            edges = np.cumsum([0, *(part.shape[1] for part in stacked.values())])
            vectors = np.concatenate(list(stacked.values()), axis=1).T
            views = np.empty((n_rows, edges[-1]), dtype)

            def score(X, out):
                out = room[: len(X)] if out is None else out
                for view, start, stop in zip(stacked, edges, edges[1:], strict=False):
                    view(X, views[: len(X), start:stop])
                return np.matmul(views[: len(X)], vectors, out=out)

            return score

        views, folded = {}, []
        for weight, sharpness, weighted, view, vectors in terms:
            offset = np.full(len(vectors), np.log(weight) - sharpness, vectors.dtype)
            if weighted and self.smoothness:
                offset += float(self.smoothness) * self._kl
            # Beside a last column of ones the product adds the offsets.
            folded.append((view, np.vstack([(sharpness * vectors).T, offset])))
            views[view] = np.ones((n_rows, vectors.shape[1] + 1), dtype)
        spare = np.empty_like(room)

        def score(X, out):
            out = room[: len(X)] if out is None else out
            for view, rows in views.items():
                view(X, rows[: len(X), :-1])
            for i, (view, vectors) in enumerate(folded):
                term = spare[: len(X)] if i else out
                np.matmul(views[view][: len(X)], vectors, out=term)
                np.exp(term, out=term)
                if i:
                    out += term
            return out

        return score

    def _blend(self, components):
        return self._blender([self])(components, np.ones(1))[0]

    @property
    def _default_temperature(self):
        sharpness = self._sharpness() if self.blending == "exponential" else None
        return default_temperature(self._logit_scale, self._lambdas(), sharpness)

    def _blender(self, variants):
        # Settings share the terms that they weigh: a component in a linear blend, in an
        # exponential one its exponential under some sharpness and smoothness.
        places, entries = {}, []
        for row, variant in enumerate(variants):
            linear = variant.blending == "linear"
            weighed = zip(variant._lambdas(), variant._sharpness(), strict=True)
            for i, (weight, sharpness) in enumerate(weighed):
                smoothness = float(variant.smoothness) if i else 0.0
                term = (i, None, None) if linear else (i, sharpness, smoothness)
                if weight:
                    place = places.setdefault(term, len(places))
                    entries.append((row, place, weight))
        weights = np.zeros((len(variants), len(places)))
        for row, place, weight in entries:
            weights[row, place] = weight

        def blend(components, factors):
            terms = []
            for i, sharpness, smoothness in places:
                z = components[i]
                if sharpness is not None:
                    z = sharpened(
                        z, sharpness, smoothness * self._kl if smoothness else 0
                    )
                terms.append(z)
            return weighted_sums(factors[:, None] * weights, terms)

        return blend

    def _fold_fitter(self, X, y, sample_weight, blends, kept):
        """Share what no fold changes: the bridge, the bridged shots and z1.

        A fold's class sums are those of all shots less those of its held-out
        shots. Results differ from those of separate fits by rounding only. A
        component that no blend weighs is None.
        """
        separate = super()._fold_fitter(X, y, sample_weight, blends, kept)
        if self.mode == "trained":
            return separate
        everything = copy(self).fit(X, y, sample_weight)
        n_classes = len(everything.classes_)
        codes = np.searchsorted(everything.classes_, y)
        shots = everything._bridge_shots(X, codes)
        (_, texts), (bridge, _), _ = everything._terms()
        head = everything.text_head_
        if texts is not None and head not in kept:
            # No cut changes how shots compare with texts.
            kept[head] = unit(X) @ texts.T
        bridged = None
        if any(blend.get("lambda_2", self.lambda_2) for blend in blends):
            bridged = bridge(X)

        def sums(rows):
            return everything._sum_shots(
                X[rows], shots[rows], codes[rows], sample_weight[rows]
            )

        def fit(train, test):
            if len(np.unique(codes[train])) < n_classes:
                return separate(train, test)
            fitted = copy(everything)
            if _is_complement(train, test, len(X)):
                held_out = tuple(-array for array in sums(test))
                fitted._set_sums(held_out, everything._sums)
            else:
                fitted._set_sums(sums(train))
            _, (_, prototypes), (view, vectors) = fitted._terms()
            z1 = None if texts is None else kept[head][test]
            z2 = None if bridged is None else bridged[test] @ prototypes.T
            return fitted, (z1, z2, view(X[test]) @ vectors.T)

        return fit

    def _search_space(self, n_shots):
        prior = self._search_prior(n_shots)
        space = {name: [value] for name, value in prior.items()}
        if "bridge_rank" in prior:
            space["bridge_rank"] = _ENERGY_SHARES[self.head]
        if "shrinkage" in prior:
            space["shrinkage"] = [0.2, self.shrinkage, 1.0]
        if "lambda_3" in prior:
            weights = prior["lambda_3"] * _LAMBDA_FACTORS
            space["lambda_3"] = weights.tolist()
            if self.blending == "exponential":
                space |= {"alpha": _SHARPNESSES, "gamma": _SHARPNESSES}
        return space

    def _search_prior(self, n_shots):
        text_head, prior = self.text_head_, {}
        if self.mode == "closed_form":
            # Training starts from the cut, so that each would be trained on its own.
            directions = {
                "identity": False,
                "pseudo_inverse": text_head is not None
                and text_head.projection is not None,
                "text_subspace": text_head is not None,
            }
            if self.bridge_rank is None and directions[self.bridge]:
                prior["bridge_rank"] = _ENERGY_SHARE
            if self.head == "gda":
                prior["shrinkage"] = self.shrinkage
        if text_head is not None and text_head.text_features is not None:
            # The weights of the shots that did best, by their number, on real
            # features.
            lambda_3 = 2 * n_shots / (n_shots + 8)
            if self.head == "gda":
                lambda_3 = (n_shots + 1) / _SHOTS_TO_MATCH_TEXTS
            lambda_3 *= _USUAL_LOGIT_SCALE / self._logit_scale
            prior |= {"lambda_1": 1.0, "lambda_2": 0.0, "lambda_3": lambda_3}
        return prior

    def component_logits(self, X):
        """Cosines of the queries before they are blended.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Image embeddings; their lengths do not matter.

        Returns
        -------
        z1 : ndarray of shape (n_samples, n_classes) or None
            Query against class texts; None without texts.
        z2 : ndarray of shape (n_samples, n_classes)
            Bridged query against prototypes.
        z3 : ndarray of shape (n_samples, n_classes)
            Query against bridged prototypes.
        """
        check_is_fitted(self)
        X = check_embeddings(self, X, reset=False)
        check_zero_rows(X, "component_logits")
        return self._components(X)
