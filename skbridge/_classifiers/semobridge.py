"""SeMoBridgeClassifier: the paper's method, in closed form and trained."""

from dataclasses import replace
from numbers import Integral, Real

import numpy as np
from sklearn.base import _fit_context
from sklearn.utils._param_validation import Interval, StrOptions

from skbridge._bridge import BRIDGE_RANK_CONSTRAINT, BRIDGES, choose_bridge
from skbridge._classifiers.blend import BLENDINGS, Blend, Term, text_divergence
from skbridge._classifiers.bridged import (
    USUAL_LOGIT_SCALE,
    BridgedClassifier,
)
from skbridge._classifiers.tokens import bridged_prototypes, token_sums
from skbridge._held_out.shots import Shots
from skbridge._rows import unit
from skbridge._validation import all_or_nothing

# Share of the sum of squared singular values that the bridge spans by default: the best
# on held-out shots of real features. benchmarks/constants.py prints the comparison.
_ENERGY_SHARE = 0.9
# Values of `bridge_rank` that a search tries.
_ENERGY_SHARES = [0.8, _ENERGY_SHARE, 0.95, 0.98, 1.0]
# Values of alpha and gamma that a search tries.
_SHARPNESSES = [2.0, 5.0, 10.0]

# With this many shots per class, lambda_3="auto" gives shots and texts equal weight.
_SHOTS_TO_MATCH_TEXTS = 8

_NON_NEGATIVE = [Interval(Real, 0, None, closed="left")]

_TRAINING_PARAMETERS = (
    "csb",
    "lambda_it",
    "lambda_c",
    "lambda_b",
    "solver",
    "early_stopping",
    "learning_rate",
    "weight_decay",
    "max_iter",
    "tol",
)


class SeMoBridgeClassifier(BridgedClassifier):
    """Few-shot classification of CLIP image embeddings through the semantic bridge.

    A query is compared with the class texts (z1), after bridging with the few-shot
    prototypes (z2), and without bridging with the bridged prototypes (z3). The scores
    are a blend of the three. This is the method of the paper [1]_;
    :class:`BridgedGDAClassifier` is more accurate on average over ten data sets.

    Parameters
    ----------
    texts : str, path-like, CLIPTexts, TextHead or None, default="ViT-B-16"
        Class texts. With the name or folder of a CLIP model, the one that embedded
        the images, the labels are the class names. A :class:`CLIPTexts` also sets
        weights, prompts and names. A :class:`TextHead` contains texts that were
        encoded beforehand. None makes a classifier without texts.
    mode : {"closed_form", "trained"}, default="closed_form"
        ``"trained"`` learns the bridge and, with `csb`, a class-specific bias from
        the shots (SeMoBridge-T).
    lambda_1 : float, default=1.0
        Weight of z1, query against class texts.
    lambda_3 : float or "auto", default="auto"
        Weight of z3, query against bridged prototypes. ``"auto"`` grows with the
        mean number n of shots per class: n / 8, times 100 / logit scale. Without
        texts it is 1.

    lambda_2 : float, default=0.0
        Weight of z2, bridged query against prototypes.
    blending : {"linear", "exponential"}, default="linear"
        ``"linear"`` is the paper's equation, ``"exponential"`` that of the official
        code.
    alpha, beta, gamma : float, default=5.0
        Sharpness of z1, z2 and z3 in the exponential blend, from 0 to 100. Above 20,
        scores and probabilities are float64.
    smoothness : float, default=0.0
        Growth of the weight of z2 and z3 in the exponential blend for classes whose
        text fits their prototype badly, from 0 to 4; see Notes.
    temperature : float, default=None
        Factor of the scores in the softmax of `predict_proba`. None divides CLIP's
        logit scale by lambda_1 + lambda_2 + lambda_3 (linear), or by
        lambda_1 alpha + lambda_2 beta + lambda_3 gamma (exponential).

    bridge : {"auto", "pseudo_inverse", "text_subspace", "identity"}, default="auto"
        How images are mapped to texts; see :class:`SemanticBridge`. ``"auto"`` is
        the pseudo-inverse if the text projection is known, the text subspace if
        there is a text bank or at least 64 class texts, and the identity otherwise.
    bridge_rank : int, float or "auto", default="auto"
        Number of singular (or principal) directions that the bridge spans or, for a
        float in (0, 1], their share of the sum of squared singular values. ``"auto"``
        is the share 0.9.
    pinv_atol : float, default=None
        Alternative to `bridge_rank`: singular values of the text projection at or
        below this count as zero.

    csb : bool, default=True
        Training: whether to learn a class-specific bias b.
    lambda_it : float, default=0.5
        Training: weight of the image loss against the two text losses.
    lambda_c : float, default=0.1
        Training: weight of the consistency loss.
    lambda_b : float, default=0.1
        Training: weight of the bias loss, the variance over classes of the norm of b.
    solver : {"fast", "adamw"}, default="fast"
        Training: ``"adamw"`` is the official recipe. ``"fast"`` minimises the same
        loss in fewer steps; see Notes.
    early_stopping : bool or "auto", default="auto"
        Training: whether the number of steps is chosen on held-out shots. ``"auto"``
        is True for ``"fast"``; the recipe, ``"adamw"``, takes all steps.
    learning_rate : float, default=None
        Training: AdamW's step size after the warm-up. None means 1.5e-4 after 500
        steps for ``"adamw"``, as in the recipe, and 1.5e-3 after 50 steps for
        ``"fast"``.
    weight_decay : float, default=0.01
        Training: AdamW's decoupled decay, of W+ and b alike.
    max_iter : int, default=None
        Training: number of steps, or with early stopping the largest number. Without
        it ``"fast"`` is L-BFGS, which finishes the line search it has begun. None
        means 5,000 for ``"adamw"``, as in the recipe, and for ``"fast"`` 60 with
        early stopping and 250 without.
    tol : float, default=None
        Training: stop if 50 consecutive steps after the warm-up (``"fast"``: 10) lower
        the loss by no more than this share of it. None means 0 for ``"adamw"``, which
        takes all steps as in the recipe, and 1e-5 for ``"fast"``.
    device : str, default="auto"
        Device for training and for encoding texts: ``"auto"``, ``"cpu"``, ``"cuda"``,
        ``"mps"``, ... Predictions always run on the CPU, in NumPy.

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
        W+, computed or learned.
    class_bias_ : ndarray of shape (n_classes, n_text_features)
        b; zeros in closed form.
    prototypes_ : ndarray of shape (n_classes, n_features)
        Unit class means F' of the shots.
    bridged_prototypes_ : ndarray of shape (n_classes, n_features)
        Unit class means F^ of the bridged shots.
    class_count_ : ndarray of shape (n_classes,)
        Sum of the sample weights of each class.
    blend_ : object
        The blend of z1, z2 and z3; its ``scores`` blend component logits.
    temperature_ : float
        Factor of the scores in the softmax.
    n_iter_ : int
        Number of training steps, or of evaluations of the loss by L-BFGS; 1 in closed
        form, and if early stopping chooses no step.
    loss_curve_ : ndarray of shape (n_steps,)
        Training loss before each step; empty in closed form, and if early stopping
        chooses no step.
    loss_terms_ : dict of str to ndarray
        Terms of the loss before each step, without their weights: ``"image"``,
        ``"text_eos"``, ``"text_joint"``, ``"consistency"`` and ``"bias"``, as far as
        they apply. Empty in closed form.

    See Also
    --------
    BridgedGDAClassifier : The recommended classifier.
    SemanticBridge : The bridge alone, as a transformer.
    CLIPEmbedder : From images to embeddings.

    Notes
    -----
    With W the text projection, c its bias (zero in most models) and L the mean norm of
    the class texts' EOS tokens, an embedding f is bridged to
    ``f^ = L u / ||u|| W + c`` with ``u = (f - c) W+``. Class k has the text T_k,
    the prototype F'_k (unit mean of its f) and the bridged prototype F^_k (unit
    mean of its f^). The logits of a query q are the cosines ``z1 = unit(q) . T_k``,
    ``z2 = unit(q^) . F'_k`` and ``z3 = unit(q) . F^_k``. The scores are ``lambda_1 z1 +
    lambda_2 z2 + lambda_3 z3`` (linear), or ``lambda_1 exp(-alpha (1 - z1)) +
    w_k [lambda_2 exp(-beta (1 - z2)) + lambda_3 exp(-gamma (1 - z3))]``
    (exponential). There ``w_k = exp(smoothness KL_k)`` with ``KL_k = -log2 p_k``, where
    p_k, to which 1e-6 is added, is the probability of class k in the softmax of the
    cosines of F'_k and all class texts: the worse the text fits the prototype, the
    larger is KL_k. The official code swaps the indices of the last two terms: its
    (lambda2, lambda3, beta, gamma) are (lambda_3, lambda_2, gamma, beta) here. Without
    texts, z1 is left out.

    If W has a bias, bridging depends on the lengths of the embeddings, which therefore
    must not be normalised. Otherwise the scores do not depend on them.

    The defaults were the most accurate settings without tuning on held-out shots of
    real features. Other settings:

    - the paper's: ``pinv_atol=0.3``, with the lambdas searched on validation images;
    - the official code's: ``pinv_atol=0.3, blending="exponential"``, with lambdas
      searched from 0 to 1, `alpha`, `beta` and `gamma` from 0 to 10, and `smoothness`
      from 0 to 1.5;
    - the official training: ``pinv_atol=0.3, mode="trained", solver="adamw"``.

    ``mode="trained"`` minimises ``lambda_it L_img + (1 - lambda_it) (L_txte +
    L_txtp) / 2 + lambda_c L_cons + lambda_b L_bias``, the paper's losses, over W+ and
    b. The official recipe takes 5,000 steps of AdamW, most of which overfit few
    shots. ``solver="fast"`` has two forms. With early stopping it takes steps of AdamW
    at ten times the rate, in the basis in which W W' is diagonal. Without early
    stopping it runs L-BFGS until the loss settles; `weight_decay` and `learning_rate`
    then have no effect.

    Early stopping halves the shots of each class, trains on one half and tests on the
    other, and vice versa. Of 0, 4, ..., 60 steps it chooses the number with the least
    log loss of test shots under ``z1 + lambda_3 z3``, each number at its own
    temperature; with texts it tries at most 20 steps more than the best number so far.
    If every class has one shot, there are no test shots, and training takes 56 steps,
    or none without texts. Early stopping uses ``lambda_3="auto"`` whatever the blend,
    so that a search over the blend does not train again. Equal shots of a class count
    as one shot with the sum of their weights, so that no copy of a training shot is a
    test shot.

    A parameter that has no effect under another one is refused if it is set: those of
    training in closed form, sharpness in a linear blend, a cut of the identity.

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
    >>> SeMoBridgeClassifier(head).fit(X, y).predict(X)
    array(['cat', 'cat', 'dog', 'dog'], dtype='<U3')
    """

    blend_parameters = (
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
        "texts": "no_validation",
        "mode": [StrOptions({"closed_form", "trained"})],
        "bridge": [StrOptions(set(BRIDGES))],
        "pinv_atol": [*_NON_NEGATIVE, None],
        "bridge_rank": [*BRIDGE_RANK_CONSTRAINT[:2], StrOptions({"auto"})],
        "csb": ["boolean"],
        "lambda_1": _NON_NEGATIVE,
        "lambda_2": _NON_NEGATIVE,
        "lambda_3": [*_NON_NEGATIVE, StrOptions({"auto"})],
        "blending": [StrOptions(set(BLENDINGS))],
        # Beyond these, no weight or temperature makes up for the size of the scores.
        "alpha": [Interval(Real, 0, 100, closed="both")],
        "beta": [Interval(Real, 0, 100, closed="both")],
        "gamma": [Interval(Real, 0, 100, closed="both")],
        "smoothness": [Interval(Real, 0, 4, closed="both")],
        "temperature": [Interval(Real, 0, None, closed="neither"), None],
        "lambda_it": [Interval(Real, 0, 1, closed="both")],
        "lambda_c": _NON_NEGATIVE,
        "lambda_b": _NON_NEGATIVE,
        "solver": [StrOptions({"adamw", "fast"})],
        "early_stopping": ["boolean", StrOptions({"auto"})],
        "learning_rate": [Interval(Real, 0, None, closed="neither"), None],
        "weight_decay": _NON_NEGATIVE,
        "max_iter": [Interval(Integral, 1, None, closed="left"), None],
        "tol": [*_NON_NEGATIVE, None],
        "device": [str, None],
    }

    def __init__(
        self,
        texts="ViT-B-16",
        *,
        mode="closed_form",
        bridge="auto",
        pinv_atol=None,
        bridge_rank="auto",
        csb=True,
        lambda_1=1.0,
        lambda_2=0.0,
        lambda_3="auto",
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
        early_stopping="auto",
        learning_rate=None,
        weight_decay=0.01,
        max_iter=None,
        tol=None,
        device="auto",
    ):
        self.texts = texts
        self.mode = mode
        self.bridge = bridge
        self.pinv_atol = pinv_atol
        self.bridge_rank = bridge_rank
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
            zero, all blending weights are zero, or a parameter that is set has no
            effect under another one.
        """
        X, codes, weight = self._start_fit(X, y, sample_weight)
        self._start_bridge(X)
        self._check_weights()
        if self.mode == "trained":
            self._train(X, codes, weight)
        self._add_shots(X, codes, weight)
        self._finish_fit()
        return self

    def _bridge_options(self):
        options = {"bridge": self.bridge}
        if self.pinv_atol is not None:
            return options | {"pinv_atol": self.pinv_atol}
        rank = _ENERGY_SHARE if self.bridge_rank == "auto" else self.bridge_rank
        return options | {"bridge_rank": rank}

    def _start_bridge(self, X):
        super()._start_bridge(X)
        self.n_iter_ = 1
        self.loss_curve_, self.loss_terms_ = np.empty(0), {}
        n_tokens = self._bridge.inverse.shape[1]
        self.class_bias_ = np.zeros((len(self.classes_), n_tokens), dtype=X.dtype)

    def _idle_parameters(self):
        yield from super()._idle_parameters()
        if self.mode == "closed_form":
            yield _TRAINING_PARAMETERS, "mode='closed_form'"
        else:
            yield from self._idle_in_training()
        if self.blending == "linear":
            sharpness = ("alpha", "beta", "gamma", "smoothness")
            yield sharpness, "blending='linear'"
        if self.pinv_atol is not None:
            yield ("bridge_rank",), "pinv_atol, which replaces it"
        if self._text_features is None:
            # lambda_1=0 agrees with having no texts.
            weight = ("lambda_1",) if self.lambda_1 else ()
            yield (*weight, "alpha", "smoothness"), "no class texts"

    def _idle_in_training(self):
        if self.solver == "adamw" and self.early_stopping is True:
            # Its warm-up is longer than what early stopping compares.
            yield ("early_stopping",), "solver='adamw'"
        if not self.csb:
            yield ("lambda_b",), "csb=False"
        if self.solver == "fast" and self._stops_early():
            yield ("tol",), "solver='fast' and early stopping"
        elif self.solver == "fast":
            without = "solver='fast' and early_stopping=False (L-BFGS)"
            yield ("learning_rate", "weight_decay"), without

    def _stops_early(self):
        if self.early_stopping == "auto":
            return self.solver == "fast"
        return self.early_stopping

    def _check_weights(self):
        if not any(self._lambdas()):
            without = " (lambda_1 does not count without texts)"
            raise ValueError(
                "At least one of lambda_1, lambda_2 and lambda_3 must be positive"
                f"{without if self._text_features is None else ''}; got "
                f"{self.lambda_1}, {self.lambda_2} and {self.lambda_3}, which give "
                "every class the same score."
            )

    def _lambdas(self):
        """Blending weights; lambda_1 is zero without texts."""
        return self._lambda_1(), float(self.lambda_2), self._lambda_3()

    def _make_blend(self):
        self._check_weights()
        if self.blending == "linear":
            return Blend(self._lambdas(), logit_scale=self._logit_scale)
        divergence = self._divergence
        if divergence is None:
            divergence = text_divergence(self.prototypes_, self._text_features)
        return Blend(
            self._lambdas(),
            sharpness=(float(self.alpha), float(self.beta), float(self.gamma)),
            smoothness=float(self.smoothness),
            divergence=divergence,
            logit_scale=self._logit_scale,
        )

    def _sum_shots(self, X, codes, weight):
        return token_sums(X, codes, weight, self._bridge, self.class_bias_)

    def _set_sums(self, sums):
        super()._set_sums(sums)
        self.bridged_prototypes_ = bridged_prototypes(
            sums, self._bridge, self.class_bias_
        )
        # Computed once, and not for every blend of a search.
        self._divergence = None
        if self.blending == "exponential":
            self._divergence = text_divergence(self.prototypes_, self._text_features)

    def _z3_term(self):
        return Term(unit, self.bridged_prototypes_)

    def _z3_shot_parts(self, query, X, weight, k):
        bridge = self._bridge
        tokens = unit(bridge.centred(X) @ bridge.inverse + self.class_bias_[k])
        shots = bridge.to_joint(bridge.length * tokens)
        return weight * (shots @ unit(query)[0]) / np.linalg.norm(weight @ shots)

    def _add_classes(self, new):
        super()._add_classes(new)
        if len(new):
            n_tokens = self._bridge.inverse.shape[1]
            dtype = self.class_bias_.dtype
            self.class_bias_ = np.zeros((len(self.classes_), n_tokens), dtype)

    def _auto_lambda_3(self, class_count):
        if self._text_features is None:
            return 1.0
        # The z1 of a model with a smaller logit scale vary more, but not its z3.
        spread = USUAL_LOGIT_SCALE / self._logit_scale
        return float(spread * class_count.mean() / _SHOTS_TO_MATCH_TEXTS)

    def _auto_temperature(self, class_count):
        """Default temperature of a linear blend with ``lambda_3="auto"``."""
        has_texts = float(self._text_features is not None)
        lambdas = (has_texts, 0.0, self._auto_lambda_3(class_count))
        return Blend(lambdas, logit_scale=self._logit_scale).default_temperature

    def _train(self, X, codes, weight):
        from skbridge._training.bridge import HeldOutScores, train_bridge

        early_stopping = None
        if self._stops_early():
            counts = np.bincount(codes, weights=weight)
            early_stopping = HeldOutScores(
                self._auto_lambda_3, self._auto_temperature(counts)
            )
        result = train_bridge(
            Shots(X, codes, weight),
            self._training_task(),
            early_stopping=early_stopping,
        )
        if result is not None:
            self._bridge = replace(
                self._bridge, inverse=result.inverse, root=None, basis=None
            )
            self.class_bias_ = result.class_bias
            self.loss_curve_ = result.loss_curve
            self.loss_terms_ = result.loss_terms
            self.n_iter_ = len(result.loss_curve)

    def _training_task(self):
        from skbridge._clip.device import resolve_device
        from skbridge._training.bridge import Task
        from skbridge._training.solvers import SCHEDULES, STEPS_WITH_EARLY_STOPPING

        given = {
            name: getattr(self, name)
            for name in ("learning_rate", "max_iter", "tol")
            if getattr(self, name) is not None
        }
        if self._stops_early():
            given.setdefault("max_iter", STEPS_WITH_EARLY_STOPPING)
        return Task(
            bridge=self._bridge,
            text_features=self._text_features,
            csb=self.csb,
            logit_scale=self._logit_scale,
            lambda_it=self.lambda_it,
            lambda_c=self.lambda_c,
            lambda_b=self.lambda_b,
            solver=self.solver,
            schedule=replace(SCHEDULES[self.solver], **given),
            weight_decay=self.weight_decay,
            device=resolve_device(self.device),
        )

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
        z2 : ndarray of shape (n_samples, n_classes)
            Bridged query against prototypes.
        z3 : ndarray of shape (n_samples, n_classes)
            Query against bridged prototypes.
        """
        return super().component_logits(X, skip=skip)

    def search_space(self, n_shots, head):
        space = super().search_space(n_shots, head)
        if "bridge_rank" in space:
            space["bridge_rank"] = _ENERGY_SHARES
        if "lambda_3" in space and self.blending == "exponential":
            space |= {"alpha": _SHARPNESSES, "gamma": _SHARPNESSES}
        return space

    def search_prior(self, n_shots, head):
        prior = self._prior_rank(head)
        if head is not None and head.text_features is not None:
            # Fitted to the best weights for each number of shots on real features.
            lambda_3 = 2 * n_shots / (n_shots + 8)
            lambda_3 *= USUAL_LOGIT_SCALE / head.logit_scale
            prior |= {"lambda_1": 1.0, "lambda_2": 0.0, "lambda_3": lambda_3}
        return prior

    def _prior_rank(self, head):
        """Rank of the bridge at which a search starts; empty if it is not searched."""
        is_given = self.pinv_atol is not None or self.bridge_rank != "auto"
        kind = choose_bridge(head) if self.bridge == "auto" else self.bridge
        # In trained mode each rank would be trained on its own, which takes long.
        is_closed_form = self.mode == "closed_form"
        if is_closed_form and kind != "identity" and not is_given:
            return {"bridge_rank": _ENERGY_SHARE}
        return {}
