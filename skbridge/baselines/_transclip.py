"""TransCLIP: a Gaussian mixture of shots and unlabelled images, tied to the texts."""

from dataclasses import dataclass, replace
from numbers import Integral

import numpy as np
from scipy.sparse import csr_array
from sklearn.base import _fit_context
from sklearn.neighbors import NearestNeighbors
from sklearn.utils._param_validation import Interval, StrOptions

from skbridge._class_sums import class_sums
from skbridge._held_out.folds import shot_folds
from skbridge._held_out.shots import Shots
from skbridge._rows import batches, log_softmax, softmax, unit, within_range
from skbridge._validation import (
    all_or_nothing,
    check_partly_labelled,
    check_zero_rows,
)
from skbridge.baselines._common import (
    NON_NEGATIVE,
    POSITIVE,
    AddedLogits,
    RivalClassifier,
    has_texts,
)

# The official code's weight of the log density beside texts and neighbours, number of
# updates of the mixture, and of z before each of them.
_DENSITY_WEIGHT = 1 / 50
_ROUNDS = 10
_Z_ROUNDS = 5
_GAMMAS = (0.002, 0.01, 0.02, 0.2)
# Gamma with and without texts where there are no shots to choose it by: the best of the
# four on training images of five data sets, one labelled per class.
_UNJUDGED_GAMMA, _UNJUDGED_GAMMA_WITHOUT_TEXTS = 0.002, 0.01
# Variance below this is rounding error: equal unit rows in float64 have some 1e-32.
_NO_VARIANCE = 1e-24
# Least variance of a column, as a share of their mean: otherwise one that happens to be
# nearly constant would decide alone.
_LEAST_SHARE = 1e-6
# Rows that are summed in float64 at once.
_SUMMED_ROWS = 4096


@dataclass(frozen=True, eq=False)
class Mixture:
    """Gaussians of the classes that share a diagonal covariance.

    Attributes
    ----------
    means : ndarray of shape (n_classes, n_features), float64
    variance : ndarray of shape (n_features,), float64
        Diagonal of the covariance.
    """

    means: np.ndarray
    variance: np.ndarray

    def coefficients(self):
        """Coefficients of the weighted log densities, up to a term that classes share.

        Returns
        -------
        coef : ndarray of shape (n_classes, n_features)
        intercept : ndarray of shape (n_classes,)
        """
        # Centred means give the same posterior, without large terms that cancel.
        centre = self.means.mean(axis=0)
        centred = self.means - centre
        coef = _DENSITY_WEIGHT * centred / self.variance
        return coef, -((centre + centred / 2) * coef).sum(axis=1)

    def log_densities(self, X):
        """Weighted log densities of rows, up to a term that classes share."""
        coef, intercept = (array.astype(X.dtype) for array in self.coefficients())
        return X @ coef.T + intercept


@dataclass(frozen=True, eq=False)
class UnlabelledImages:
    """Unlabelled images and their neighbours.

    Attributes
    ----------
    X : ndarray of shape (n_unlabelled, n_features)
        Unit rows.
    weight : ndarray of shape (n_unlabelled,)
        Weights, of sum 1.
    text_logits : ndarray of shape (n_unlabelled, n_classes)
        Zeros without texts.
    affinity : sparse array of shape (n_unlabelled, n_unlabelled)
        Affinities among the unlabelled images, symmetric.
    shot_affinity : sparse array of shape (n_shots, n_unlabelled)
        Affinities of the shots.
    """

    X: np.ndarray
    weight: np.ndarray
    text_logits: np.ndarray
    affinity: csr_array
    shot_affinity: csr_array

    @classmethod
    def of(cls, X, weight, text_logits, shots, n_neighbors):
        """Find the neighbours of unlabelled images and of shots."""
        nearest = NearestNeighbors(algorithm="brute").fit(X)
        own = affinities(nearest, None, n_neighbors).astype(X.dtype)
        of_shots = affinities(nearest, shots.X, n_neighbors).astype(X.dtype)
        weight = weight / weight.sum()
        return cls(X, weight, text_logits, (own + own.T).tocsr(), of_shots)

    def beside(self, shots):
        """Leave some of the shots alone beside the unlabelled images."""
        return replace(self, shot_affinity=self.shot_affinity[shots])


def affinities(nearest, rows, n_neighbors):
    """Affinities of rows with their nearest unlabelled images.

    Parameters
    ----------
    nearest : NearestNeighbors
        Fitted to the unlabelled images, unit rows.
    rows : ndarray of shape (n_rows, n_features) or None
        None means the unlabelled images, which are not neighbours of themselves.
    n_neighbors : int
        The number k of neighbours.

    Returns
    -------
    sparse array of shape (n_rows, n_unlabelled)
        Cosines over 2 k, at least 0.
    """
    n_unlabelled = nearest.n_samples_fit_
    n_rows = n_unlabelled if rows is None else len(rows)
    k = min(n_neighbors, n_unlabelled - 1 if rows is None else n_unlabelled)
    if k == 0:
        return csr_array((n_rows, n_unlabelled))
    distance, column = nearest.kneighbors(rows, k)
    cosine = np.maximum(1 - distance.ravel() ** 2 / 2, 0)
    starts = np.arange(0, n_rows * k + 1, k)
    return csr_array(
        (cosine / (2 * n_neighbors), column.ravel(), starts),
        shape=(n_rows, n_unlabelled),
    )


def fit_shots(shots, n_classes):
    """Mixture of the shots alone.

    Parameters
    ----------
    shots : Shots
        Unit rows.
    n_classes : int

    Returns
    -------
    Mixture
    """
    share = shots.weight / shots.weight.sum()
    count = np.bincount(shots.codes, weights=share, minlength=n_classes)
    means = class_sums(shots.X, shots.codes, share, n_classes) / count[:, None]
    return Mixture(means, _usable(share @ (shots.X - means[shots.codes]) ** 2))


def _usable(variance):
    if variance.mean() <= _NO_VARIANCE:
        return np.full(len(variance), 1 / len(variance))
    return np.maximum(variance, _LEAST_SHARE * variance.mean())


def fit_transductively(shots, pool, lmbda, gamma, n_classes):
    """Minimise TransCLIP's objective by its block updates.

    Parameters
    ----------
    shots : Shots
        Unit rows; every class has one.
    pool : UnlabelledImages
        Its `shot_affinity` has a row for each shot.
    lmbda, gamma : float
        Weights of the texts and of the shots.
    n_classes : int

    Returns
    -------
    mixture : Mixture
    z : ndarray of shape (n_unlabelled, n_classes)
        Class probabilities of the unlabelled images.
    """
    X, dtype = pool.X, pool.X.dtype
    weight = gamma / _DENSITY_WEIGHT * shots.weight / shots.weight.sum()
    shot_count = np.bincount(shots.codes, weights=weight, minlength=n_classes)
    shot_sums = class_sums(shots.X, shots.codes, weight, n_classes)
    squares = _weighted_sums(pool.weight[:, None], X, square=True)[0]
    labels = np.zeros((len(shots.X), n_classes), dtype=dtype)
    labels[np.arange(len(labels)), shots.codes] = shots.weight
    constant = lmbda * pool.text_logits
    constant += pool.shot_affinity.T @ labels
    z = softmax(pool.text_logits.copy(), 1)
    width = X.shape[1]
    mixture = Mixture(shot_sums / shot_count[:, None], np.full(width, 1 / width))
    for updates_left in reversed(range(_ROUNDS + 1)):
        unary = mixture.log_densities(X)
        unary += constant
        for _ in range(_Z_ROUNDS):
            z = softmax(unary + pool.affinity @ z, 1)
        if not updates_left:
            return mixture, z
        members = pool.weight[:, None] * z
        count, sums = members.sum(axis=0), _weighted_sums(members, X)
        means = (shot_sums + sums) / (shot_count + count)[:, None]
        variance = weight @ (shots.X - means[shots.codes]) ** 2
        # The members' squared distances from their means, multiplied out.
        variance += squares + (means * (count[:, None] * means - 2 * sums)).sum(axis=0)
        mixture = Mixture(means, _usable(variance / (weight.sum() + 1)))


def _weighted_sums(weights, X, *, square=False):
    """``weights' X`` in float64, with X squared first if asked."""
    total = np.zeros((weights.shape[1], X.shape[1]))
    for rows in batches(len(X), _SUMMED_ROWS):
        block = X[rows].astype(np.float64)
        total += weights[rows].T @ (block**2 if square else block)
    return total


class TransCLIPClassifier(RivalClassifier):
    """TransCLIP: a Gaussian mixture of shots and unlabelled images, tied to the texts.

    `fit` takes images without a label beside the shots, and labels them jointly:
    `transduction_`. Other images are scored by the fitted mixture and the texts.

    Parameters
    ----------
    {texts}
    lmbda : float, default=0.5
        The paper's lambda: weight of the texts' logits. Refused without texts.
    gamma : float or "auto", default="auto"
        Weight of the shots in the mixture; at 0.02 all shots together weigh as much as
        all unlabelled images. ``"auto"`` takes the best of 0.002, 0.01, 0.02 and 0.2 on
        held-out shots.
    n_neighbors : int, default=3
        Number of unlabelled images that each image is compared with.
    {temperature}
    missing_label : int or str, default=None
        Value of y that marks an image without a label. None, NaN and ``pd.NA`` mark
        one whatever this is.

    Attributes
    ----------
    {attributes}
    gamma_ : float or None
        Weight of the shots; None without unlabelled images, where it has no effect.
    means_ : ndarray of shape (n_classes, n_features)
        Class means of the unit embeddings.
    variance_ : ndarray of shape (n_features,)
        Diagonal of the covariance.
    transduction_ : ndarray of shape (n_unlabelled,)
        The paper's predictions: labels of the unlabelled images of positive weight, in
        their order.

    See Also
    --------
    skbridge.BridgedGDAClassifier : Uses unlabelled images where held-out shots gain.
    sklearn.semi_supervised.LabelSpreading : Neighbours alone, without texts.

    Notes
    -----
    Let z_i be the class probabilities of the unlabelled image x_i, of which there are
    n, p_i its densities under Gaussians of means mu_k and one diagonal covariance, t_i
    its probabilities under the texts, and y_s the labels of m shots x_s. TransCLIP
    [1]_ minimises::

        sum_i [KL(z_i || t_i^lmbda) - z_i . log p_i / 50]
            - [sum_ij w_ij z_i . z_j + sum_si w_si y_s . z_i] / (2 k)
            - gamma n / m sum_s log p_s,y_s

    with ``KL(z || t^lmbda) = z . (log z - lmbda log t)``, and w the cosine, if
    positive, of an image with its k nearest unlabelled images, otherwise 0. Its block
    updates are

    - ``z_i = softmax(lmbda log t_i + log p_i / 50 + (sum_j (w_ij + w_ji) z_j + sum_s
      w_si y_s) / (2 k))``, five times for all i at once;
    - mu_k and the variances: means and mean squared distances, weighted by z_i / n of
      the unlabelled images and by 50 gamma / m of the shots,

    ten times in turn, from t_i, the means of the shots and the variance 1 / d; then z
    again. The weights 1 / 50 and 1 / (2 k), the numbers of updates and the four values
    of gamma are those of the official code.

    Here images of which `fit` knows nothing are scored as well: ``s = lmbda scale z1 +
    log p / 50``, which is the update of z without neighbours. `predict` scores all
    images so, those of `fit` too, for which `transduction_` has the paper's answer.

    The paper chooses gamma by the accuracy on a validation set, for which its code has
    up to four further labelled images per class. Here the shots are halved within their
    classes, and each half is scored by a fit to the other half and the unlabelled
    images; the gamma of the best accuracy is taken and, of several, that of the least
    log loss. Where no class has two different shots, gamma is 0.002, without texts
    0.01. The official code also normalises the means, leaves out the nearest neighbour
    of each shot, and starts each gamma from the end of the one before.

    The paper has texts always. Without them t is uniform, so that the texts drop out,
    and a setting of `lmbda` is refused. Without unlabelled images this is Gaussian
    discriminant analysis with a diagonal covariance, 1 / d if the shots do not vary
    within classes; `gamma` and `n_neighbors` then have no effect.
    :class:`skbridge.FewShotSearchCV` takes labelled shots alone.

    Weights are repetitions of shots. Those of unlabelled images count in the mixture,
    not among the neighbours. The memory that `fit` needs grows linearly with their
    number, as for a few arrays of shape (n_unlabelled, n_classes).

    References
    ----------
    .. [1] M. Zanella, B. Gérin, I. Ben Ayed, "Boosting Vision-Language Models with
       Transduction", NeurIPS 2024, arXiv:2406.01837.

    Examples
    --------
    >>> import numpy as np
    >>> from skbridge.baselines import TransCLIPClassifier
    >>> X = np.array([[1.0, 0.1], [1.0, 0.2], [0.1, 1.0], [0.2, 1.0]])
    >>> classifier = TransCLIPClassifier(None).fit(X, ["cat", None, "dog", None])
    >>> classifier.transduction_
    array(['cat', 'dog'], dtype='<U3')
    >>> classifier.predict([[2.0, 1.0]])
    array(['cat'], dtype='<U3')
    """

    _parameter_constraints = {
        **RivalClassifier._parameter_constraints,
        "lmbda": NON_NEGATIVE,
        "gamma": [*POSITIVE, StrOptions({"auto"})],
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "missing_label": [Integral, str, None],
    }

    def __init__(
        self,
        texts="ViT-B-16",
        *,
        lmbda=0.5,
        gamma="auto",
        n_neighbors=3,
        temperature=None,
        missing_label=None,
    ):
        self.texts = texts
        self.lmbda = lmbda
        self.gamma = gamma
        self.n_neighbors = n_neighbors
        self.temperature = temperature
        self.missing_label = missing_label

    @_fit_context(prefer_skip_nested_validation=True)
    @all_or_nothing
    def fit(self, X, y, sample_weight=None):
        """Learn from shots and unlabelled images, and label the latter.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Image embeddings; their lengths do not matter.
        y : array-like of shape (n_samples,)
            Labels; classes may have any numbers of shots, from one. Images whose label
            is missing (None, NaN, ``pd.NA`` or `missing_label`) are unlabelled.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each image; weight 0 is the image left out.

        Returns
        -------
        TransCLIPClassifier
            The fitted classifier.

        Raises
        ------
        ValueError
            If y has one class only or no label at all, a label has no text, X and the
            texts have different widths, or `lmbda` is set without texts.
        """
        shots, (embeddings, rows, pool_weight) = check_partly_labelled(
            self, X, y, sample_weight
        )
        X, codes, weight = self._start_checked_fit(*shots)
        shots = Shots(unit(X), codes, weight).distinct()
        n_classes = len(self.classes_)
        mixture, z = fit_shots(shots, n_classes), np.empty((0, n_classes))
        self.gamma_ = None
        if len(rows):
            pool = self._make_pool(embeddings[rows], pool_weight, shots)
            self.gamma_ = self._choose_gamma(shots, pool)
            mixture, z = fit_transductively(
                shots, pool, float(self.lmbda), self.gamma_, n_classes
            )
        self.transduction_ = self.classes_[z.argmax(axis=1)]
        self.means_ = mixture.means.astype(X.dtype)
        self.variance_ = mixture.variance.astype(X.dtype)
        self._mixture = mixture
        self._finish_fit()
        return self

    def _idle_parameters(self):
        if self._text_features is None:
            yield ("lmbda",), "no class texts"

    def _text_logits(self, X):
        if self._text_features is None:
            return np.zeros((len(X), len(self.classes_)), dtype=X.dtype)
        return self._logit_scale * self._text_cosines(X)

    def _make_pool(self, X, weight, shots):
        is_refused = self._text_features is not None
        check_zero_rows(X, "the unlabelled rows of fit", error=is_refused)
        X = unit(within_range(X))
        return UnlabelledImages.of(
            X, weight, self._text_logits(X), shots, self.n_neighbors
        )

    def _choose_gamma(self, shots, pool):
        """Choose the gamma of the best held-out accuracy, then least log loss."""
        if self.gamma != "auto":
            return float(self.gamma)
        folds = shot_folds(shots.codes, n_splits=2)
        if not folds and self._text_features is None:
            return _UNJUDGED_GAMMA_WITHOUT_TEXTS
        if not folds:
            return _UNJUDGED_GAMMA
        lmbda, n_classes = float(self.lmbda), len(self.classes_)

        def losses(gamma):
            wrong = log_loss = 0.0
            for train, test in folds:
                mixture, _ = fit_transductively(
                    shots.take(train), pool.beside(train), lmbda, gamma, n_classes
                )
                held_out = shots.take(test)
                logits = lmbda * self._text_logits(held_out.X)
                logits += mixture.log_densities(held_out.X)
                own = np.arange(len(test)), held_out.codes
                wrong += held_out.weight @ (logits.argmax(axis=1) != held_out.codes)
                log_loss -= held_out.weight @ log_softmax(logits)[own]
            return wrong, log_loss

        return min(_GAMMAS, key=losses)

    def _components(self, X, skip):
        q = unit(X)
        return self._text_cosines(q), self._mixture.log_densities(q)

    def _make_blend(self):
        return AddedLogits(float(self.lmbda) * self._logit_scale, 1.0, 1.0)

    def search_space(self, n_shots, head):
        return {"lmbda": [0.25, 0.5, 1.0, 2.0]} if has_texts(head) else {}
