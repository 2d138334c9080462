"""LP++: a linear probe whose weights are learnable functions of the texts."""

from numbers import Integral

import numpy as np
from scipy.linalg import eigvalsh
from sklearn.utils._param_validation import Interval

from skbridge._class_sums import class_sums
from skbridge._rows import unit
from skbridge.baselines._common import PlainScores, RivalClassifier

# The official code's momentum of the prototypes, number of their steps for one step of
# the multipliers, and factor in the multipliers' start.
_MOMENTUM = 0.9
_CYCLE = 10
_FIRST_TEXT_WEIGHT = 250.0


def _step(numerator, curvature):
    """Divide; 0 where the loss is flat, as for shots of zeros."""
    return float(numerator / curvature) if curvature > 0 else 0.0


def fit_linear_probe(X, codes, weight, text_features, max_iter):
    """Minimise the cross entropy of LP++ by block coordinate descent.

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
    max_iter : int
        Number of steps of the prototypes.

    Returns
    -------
    prototypes : ndarray of shape (n_classes, n_features)
        w_k.
    text_weight : ndarray of shape (n_classes,)
        alpha_k; zeros without texts.
    loss_curve : ndarray of shape (max_iter,)
        Loss before each step.
    """
    n_classes, total, rows = int(codes.max()) + 1, weight.sum(), np.arange(len(X))
    share = (weight / total).astype(X.dtype)
    rooted = np.sqrt(weight)[:, None] * X.astype(np.float64)
    gram = rooted.T @ rooted if len(X) > X.shape[1] else rooted @ rooted.T
    last = len(gram) - 1
    largest = eigvalsh(gram, subset_by_index=[last, last])[0]
    step = _step(4 * total, largest)
    prototypes = class_sums(X, codes, weight, n_classes).astype(X.dtype)
    velocity = np.zeros_like(prototypes)
    text_weight = np.zeros(n_classes, dtype=X.dtype)
    if text_features is not None:
        cosines = X @ text_features.T
        class_cosines = np.bincount(codes, weights=weight * cosines[rows, codes])
        class_cosines /= np.bincount(codes, weights=weight)
        text_weight += _FIRST_TEXT_WEIGHT * class_cosines.mean()
        squares = (weight[:, None] * cosines.astype(np.float64) ** 2).sum(axis=0)
        text_step = _step(total, 4 * squares.max())
    losses = np.empty(max_iter)
    for t in range(max_iter):
        logits = X @ prototypes.T
        if text_features is not None:
            logits += cosines * text_weight
        logits -= logits.max(axis=1, keepdims=True)
        own = logits[rows, codes]
        # In place, as below: these passes cost as much as the matrix products.
        exponentials = np.exp(logits, out=logits)
        sums = exponentials.sum(axis=1)
        losses[t] = share @ (np.log(sums) - own)
        # Gradient with respect to the logits: share (softmax - one-hot label).
        d_logits = np.multiply(exponentials, (share / sums)[:, None], out=exponentials)
        d_logits[rows, codes] -= share
        velocity *= _MOMENTUM
        velocity += d_logits.T @ X
        prototypes -= step * velocity
        if text_features is not None and (t + 1) % _CYCLE == 0:
            text_weight -= text_step * (d_logits * cosines).sum(axis=0)
    return prototypes, text_weight, losses


class LPPlusPlusClassifier(RivalClassifier):
    """LP++: a linear probe with a learned text multiplier for each class.

    Parameters
    ----------
    {texts}
    max_iter : int, default=300
        Number of steps of the class prototypes; after every ten of them the text
        multipliers take one. Fewer steps regularise more.
    {temperature}

    Attributes
    ----------
    {attributes}
    prototypes_ : ndarray of shape (n_classes, n_features)
        Visual prototypes w.
    text_weight_ : ndarray of shape (n_classes,)
        Text multipliers alpha; zeros without texts.
    n_iter_ : int
        Number of steps.
    loss_curve_ : ndarray of shape (`n_iter_`,)
        Cross entropy before each step.

    See Also
    --------
    sklearn.linear_model.LogisticRegression : A linear probe without texts.

    Notes
    -----
    The scores are ``s_k = x . (w_k + alpha_k T_k)`` with T_k the unit text of
    class k; w and alpha minimise their cross entropy on the unit shots, without
    an intercept or a penalty [1]_. With n shots F, the prototypes start from the
    sum of the shots of each class and take steps of ``4 n / lambda_max(F'F)``;
    each alpha_k starts from 250 times the mean cosine of a shot with its own
    text, and takes steps of ``n / (4 max_k sum_i (f_i . T_k)^2)``. Step sizes,
    starting points, momentum (0.9) and the ten steps of w for one of alpha are
    those of the official code. Only the number of steps is left to tune.

    The official code also has an intercept, accumulates the gradients with respect to
    alpha over all earlier steps, and uses the step that is best on validation images;
    here there are no validation images, and the last step is used. Weights are
    repetitions, and n is their sum. Without texts alpha is zero, and this is a linear
    probe.

    References
    ----------
    .. [1] Y. Huang, F. Shakeri, J. Dolz, M. Boudiaf, H. Bahig, I. Ben Ayed,
       "LP++: A Surprisingly Strong Linear Probe for Few-Shot CLIP", CVPR 2024,
       arXiv:2404.02285.

    Examples
    --------
    >>> import numpy as np
    >>> from skbridge.baselines import LPPlusPlusClassifier
    >>> X = np.array([[1.0, 0.1], [1.0, 0.2], [0.1, 1.0], [0.2, 1.0]])
    >>> y = ["cat", "cat", "dog", "dog"]
    >>> LPPlusPlusClassifier(None).fit(X, y).predict([[2.0, 1.0]])
    array(['cat'], dtype='<U3')
    """

    _parameter_constraints = {
        **RivalClassifier._parameter_constraints,
        "max_iter": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        texts="ViT-B-16",
        *,
        max_iter=300,
        temperature=None,
    ):
        self.texts = texts
        self.temperature = temperature
        self.max_iter = max_iter

    def _learn(self, X, codes, weight):
        """Learn prototypes and text multipliers."""
        self.prototypes_, self.text_weight_, self.loss_curve_ = fit_linear_probe(
            X, codes, weight, self._text_features, self.max_iter
        )
        self.n_iter_ = self.max_iter
        self._coef = self.prototypes_
        if self._text_features is not None:
            texts = self.text_weight_[:, None] * self._text_features
            self._coef = self._coef + texts

    def _components(self, X, skip):
        return (unit(X) @ self._coef.T,)

    def _make_blend(self):
        return PlainScores(1.0)

    def search_space(self, n_shots, head):
        return {"max_iter": [30, 100, 300]}
