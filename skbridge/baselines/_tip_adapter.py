"""Tip-Adapter and Tip-Adapter-F: votes of the shots, added to CLIP's logits."""

from numbers import Integral

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions

from skbridge._rows import unit
from skbridge.baselines._common import (
    NON_NEGATIVE,
    POSITIVE,
    SHARPNESS,
    CacheBlend,
    CacheClassifier,
    has_texts,
)


class TipAdapterClassifier(CacheClassifier):
    """Tip-Adapter: each shot votes for its class, weighted by its similarity.

    Parameters
    ----------
    {texts}
    mode : {"training_free", "trained"}, default="training_free"
        ``"trained"`` is Tip-Adapter-F: the cache's keys are fine-tuned.
    alpha : float, default=1.0
        Weight of the cache against the texts, the paper's residual ratio.
    beta : float, default=5.5
        Sharpness: how fast a shot's vote fades with its distance, from 0 to 100.
    train_alpha, train_beta : float, default=1.0 and 5.5
        Training: values of `alpha` and `beta` while the keys are learned. They are
        parameters of their own because the official code trains with fixed values
        and searches `alpha` and `beta` afterwards.
    learning_rate : float, default=1e-3
        Training: first step size of AdamW, which falls to zero along a cosine.
    max_iter : int, default=20
        Training: number of passes over the shots.
    batch_size : int, default=256
        Training: number of shots per step.
    random_state : int, RandomState instance or None, default=0
        Training: order of the shots, where they fill more than one batch.
    {temperature}
    device : str, default="auto"
        Where to train and to encode texts. Predictions run in NumPy.

    Attributes
    ----------
    {attributes}
    cache_keys_ : ndarray of shape (n_shots, n_features)
        Unit shots, ordered by class; in trained mode fine-tuned.
    cache_labels_ : ndarray of shape (n_shots,)
        Index in `classes_` of each key's label.
    cache_weight_ : ndarray of shape (n_shots,)
        Sample weight of each key.
    n_iter_ : int
        Number of training steps; 1 without training.
    loss_curve_ : ndarray of shape (n_steps,)
        Loss of each training step; empty without training.

    See Also
    --------
    APEClassifier : Leaves out channels that do not tell the classes apart.
    ProKeRClassifier : Kernel ridge regression instead of votes.

    Notes
    -----
    The scores of a query q are ``s = scale z1 + alpha exp(-beta (1 - q F')) L``
    with F the unit shots, L their one-hot labels and ``z1`` the cosines with
    the class texts (equations 3 to 6 of [1]_). Without texts the first term
    drops out, and alpha only scales the scores. At ``alpha=0`` the probabilities
    are CLIP's zero-shot.

    Tip-Adapter-F minimises the cross entropy of the shots with respect to F by
    AdamW (eps 1e-4, weight decay 0.01), in batches, as the official code does. The
    official code embeds another random crop of each shot in every pass, and uses the
    pass that is best on test or validation images. Here the shots are embeddings, the
    same in every pass, and the last step is used. A sample weight repeats the shot,
    exactly if one batch has all shots.

    References
    ----------
    .. [1] R. Zhang et al., "Tip-Adapter: Training-free Adaption of CLIP for
       Few-shot Classification", ECCV 2022, arXiv:2207.09519.

    Examples
    --------
    >>> import numpy as np
    >>> from skbridge.baselines import TipAdapterClassifier
    >>> X = np.array([[1.0, 0.1], [1.0, 0.2], [0.1, 1.0], [0.2, 1.0]])
    >>> y = ["cat", "cat", "dog", "dog"]
    >>> TipAdapterClassifier(None).fit(X, y).predict([[2.0, 1.0]])
    array(['cat'], dtype='<U3')
    """

    blend_parameters = ("alpha", "beta")

    _parameter_constraints = {
        **CacheClassifier._parameter_constraints,
        "mode": [StrOptions({"training_free", "trained"})],
        "alpha": NON_NEGATIVE,
        "beta": SHARPNESS,
        "train_alpha": POSITIVE,
        "train_beta": SHARPNESS,
        "learning_rate": POSITIVE,
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        texts="ViT-B-16",
        *,
        mode="training_free",
        alpha=1.0,
        beta=5.5,
        train_alpha=1.0,
        train_beta=5.5,
        learning_rate=1e-3,
        max_iter=20,
        batch_size=256,
        random_state=0,
        temperature=None,
        device="auto",
    ):
        self.texts = texts
        self.temperature = temperature
        self.device = device
        self.mode = mode
        self.alpha = alpha
        self.beta = beta
        self.train_alpha = train_alpha
        self.train_beta = train_beta
        self.learning_rate = learning_rate
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.random_state = random_state

    def _learn(self, X, codes, weight):
        """Fill the cache with the shots and, in trained mode, tune its keys."""
        self._set_cache(X, codes, weight)
        self.n_iter_, self.loss_curve_ = 1, np.empty(0)
        if self.mode == "trained":
            self._train(X, codes, weight)

    def _train(self, X, codes, weight):
        from skbridge._clip.device import resolve_device
        from skbridge.baselines._tip_adapter_training import train_keys

        self.cache_keys_, self.loss_curve_ = train_keys(
            X,
            codes,
            weight,
            self._text_logits(X),
            alpha=self.train_alpha,
            beta=self.train_beta,
            learning_rate=self.learning_rate,
            n_epochs=self.max_iter,
            batch_size=self.batch_size,
            random_state=self.random_state,
            device=resolve_device(self.device),
        )
        self.n_iter_ = len(self.loss_curve_)

    def _text_logits(self, X):
        z1 = self._text_cosines(X)
        return None if z1 is None else self._logit_scale * z1

    def _components(self, X, skip):
        q = unit(X)
        return self._text_cosines(q), q @ self.cache_keys_.T

    def _make_blend(self):
        return CacheBlend(
            self._added_logits(),
            float(self.beta),
            self.cache_weight_,
            1.0,
            self._starts,
        )

    def search_space(self, n_shots, head):
        from scipy.stats import loguniform

        # A list, so that settings of the same beta share its exponentials.
        space = {"beta": [0.5, 1.0, 2.0, 3.5, 5.5, 8.0, 12.0, 20.0, 35.0]}
        if has_texts(head):
            space["alpha"] = loguniform(0.03, 30)
        return space
