"""APE: Tip-Adapter on the channels that separate the classes best."""

from numbers import Integral, Real

import numpy as np
from sklearn.utils._param_validation import Interval, RealNotInt

from skbridge._class_sums import class_sums
from skbridge._classifiers.blend import divergence_bits
from skbridge._rows import log_softmax, unit
from skbridge.baselines._common import (
    NON_NEGATIVE,
    SHARPNESS,
    CacheBlend,
    CacheClassifier,
    has_texts,
)


def channel_criterion(X, codes, weight, text_features, lmbda):
    """Criterion J of each channel: the smaller, the better it separates the classes.

    ``J = lmbda S - (1 - lmbda) V``. S is the mean product of two members of different
    classes, where the members of a class are its text and its shots. V is the variance
    over classes of the texts or, without texts, of the unit class means.

    Parameters
    ----------
    X : ndarray of shape (n_shots, n_features)
        Unit shots.
    codes : ndarray of shape (n_shots,)
        Class of each shot.
    weight : ndarray of shape (n_shots,)
        Number of times that each shot counts.
    text_features : ndarray of shape (n_classes, n_features) or None
        Unit class texts.
    lmbda : float
        Weight of the similarity against the variance, from 0 to 1.

    Returns
    -------
    ndarray of shape (n_features,), float64
    """
    X = X.astype(np.float64)
    members = np.bincount(codes, weights=weight)
    sums = class_sums(X, codes, weight, len(members))
    representatives = unit(sums)
    if text_features is not None:
        representatives = text_features.astype(np.float64)
        sums = sums + representatives
        members = members + 1
    pairs = members.sum() ** 2 - (members**2).sum()
    similarity = (sums.sum(axis=0) ** 2 - (sums**2).sum(axis=0)) / pairs
    variance = representatives.var(axis=0, ddof=1)
    return lmbda * similarity - (1 - lmbda) * variance


class APEClassifier(CacheClassifier):
    """APE, training-free: a cache of shots on refined channels.

    Parameters
    ----------
    {texts}
    lmbda : float, default=0.7
        Weight of inter-class similarity against variance in the choice of
        channels, the paper's lambda.
    n_channels : float or int, default=0.75
        The paper's Q: number of channels to use if an int, their share if a float.
    alpha : float, default=2.0
        Weight of the cache against the texts.
    beta : float, default=1.0
        Sharpness: how fast a shot's vote fades with its distance, from 0 to 100.
    gamma : float, default=0.1
        How much more a shot counts if the text of its class fits it badly.
    {temperature}

    Attributes
    ----------
    {attributes}
    channels_ : ndarray of shape (n_chosen,)
        Chosen channels, in ascending order.
    cache_keys_ : ndarray of shape (n_shots, n_chosen)
        Shots in the chosen channels, scaled to unit length, ordered by class.
    cache_labels_ : ndarray of shape (n_shots,)
        Index in `classes_` of each key's label.
    cache_weight_ : ndarray of shape (n_shots,)
        Sample weight of each key.
    cache_divergence_ : ndarray of shape (n_shots,)
        KL of each key, in bits: how badly the text of its class fits it. Zero
        without texts.

    See Also
    --------
    TipAdapterClassifier : The same on all channels, with equal votes.

    Notes
    -----
    The channels with the smallest ``J = lmbda S - (1 - lmbda) V`` are chosen: S is
    the mean product of a channel over pairs of members (texts and shots) of
    different classes, V its variance over the class texts. Let q, F' and T' be the
    query, the shots and the texts in the chosen channels, each of unit length. The
    scores are ``s = scale z1 + alpha exp(-beta (1 - q F'^T)) diag(exp(gamma KL)) L``,
    where L are the one-hot labels, ``KL = log2((1 + 1e-6) / (p + 1e-6))``, and p is
    the softmax of ``F' T'^T`` at the shot's own class; z1 uses all channels (section 3
    of [1]_, details as in the official code). The official code sets the number of
    channels per data set, from about half to nine tenths of them, and searches alpha
    (from 1 to 3 at first, by data set), beta (from 1) and gamma (from 0.1).

    Without texts the first term drops out, alpha only scales the scores, gamma
    has no effect, and V is taken over the unit class means. At ``alpha=0`` the
    probabilities are CLIP's zero-shot.

    References
    ----------
    .. [1] X. Zhu et al., "Not All Features Matter: Enhancing Few-shot CLIP with
       Adaptive Prior Refinement", ICCV 2023, arXiv:2304.01195.

    Examples
    --------
    >>> import numpy as np
    >>> from skbridge.baselines import APEClassifier
    >>> X = np.array([[1.0, 0.1, 0.9], [1.0, 0.2, 0.9], [0.1, 1.0, 0.9]])
    >>> y = ["cat", "cat", "dog"]
    >>> classifier = APEClassifier(None, n_channels=2).fit(X, y)
    >>> classifier.channels_
    array([0, 1])
    >>> classifier.predict([[2.0, 0.0, 1.0]])
    array(['cat'], dtype='<U3')
    """

    blend_parameters = ("alpha", "beta", "gamma")

    _parameter_constraints = {
        **CacheClassifier._parameter_constraints,
        "lmbda": [Interval(Real, 0, 1, closed="both")],
        "n_channels": [
            Interval(Integral, 1, None, closed="left"),
            Interval(RealNotInt, 0, 1, closed="right"),
        ],
        "alpha": NON_NEGATIVE,
        "beta": SHARPNESS,
        "gamma": NON_NEGATIVE,
    }

    def __init__(
        self,
        texts="ViT-B-16",
        *,
        lmbda=0.7,
        n_channels=0.75,
        alpha=2.0,
        beta=1.0,
        gamma=0.1,
        temperature=None,
    ):
        self.texts = texts
        self.temperature = temperature
        self.lmbda = lmbda
        self.n_channels = n_channels
        self.alpha = alpha
        self.beta = beta
        self.gamma = gamma

    def _learn(self, X, codes, weight):
        """Choose the channels and fill the cache with the shots."""
        n_chosen = self._n_chosen(X.shape[1])
        criterion = channel_criterion(X, codes, weight, self._text_features, self.lmbda)
        self.channels_ = np.sort(np.argsort(criterion, kind="stable")[:n_chosen])
        self._set_cache(unit(X[:, self.channels_]), codes, weight)
        self.cache_divergence_ = self._divergence(codes)

    def _n_chosen(self, n_features):
        if not isinstance(self.n_channels, Integral):
            return max(1, round(self.n_channels * n_features))
        if self.n_channels > n_features:
            raise ValueError(
                f"n_channels={self.n_channels} is more than the {n_features} features "
                "of X. Use fewer, or a share of them such as 0.75."
            )
        return self.n_channels

    def _divergence(self, codes):
        if self._text_features is None:
            return np.zeros(len(codes), dtype=self.cache_keys_.dtype)
        texts = unit(self._text_features[:, self.channels_])
        log_p = log_softmax(self.cache_keys_ @ texts.T)
        p = np.exp(log_p[np.arange(len(codes)), codes])
        return divergence_bits(p)

    def _components(self, X, skip):
        refined = unit(X[:, self.channels_])
        return self._text_cosines(unit(X)), refined @ self.cache_keys_.T

    def _make_blend(self):
        gamma = float(self.gamma)
        values = self.cache_weight_ * np.exp(gamma * self.cache_divergence_)
        return CacheBlend(
            self._added_logits(), float(self.beta), values, gamma, self._starts
        )

    def search_space(self, n_shots, head):
        from scipy.stats import loguniform

        # Lists, so that settings which differ in alpha alone share all other work.
        space = {
            "n_channels": [0.5, 0.75, 1.0],
            "beta": [0.5, 1.0, 2.0, 3.5, 5.5, 8.0, 12.0, 20.0, 35.0],
        }
        if has_texts(head):
            space["alpha"] = loguniform(0.003, 30)
            space["gamma"] = [0.0, 0.1, 0.3, 1.0]
        return space
