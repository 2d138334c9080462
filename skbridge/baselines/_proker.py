"""ProKeR: kernel ridge regression that starts from the texts."""

from numbers import Real

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from sklearn.utils._param_validation import Interval

from skbridge._rows import unit
from skbridge.baselines._common import (
    MAX_SHARPNESS,
    NON_NEGATIVE,
    POSITIVE,
    AddedLogits,
    RivalClassifier,
    has_texts,
    kernel,
)


class ProKeRClassifier(RivalClassifier):
    """ProKeR: kernel ridge regression of the texts' errors on the shots.

    Parameters
    ----------
    {texts}
    beta : float, default=3.0
        Sharpness of the kernel ``exp(-beta (1 - cos))``, from 0 to 100.
    lmbda : float, default=0.1
        The paper's lambda: penalty on the distance from the texts' scores, in the
        norm of the kernel's space.
    alpha : float, default=0.1
        Weight of the correction to the texts' scores. 1 gives the minimiser of
        the objective; the value of `lmbda` gives the scores of the public code.
    {temperature}

    Attributes
    ----------
    {attributes}
    X_fit_ : ndarray of shape (n_shots, n_features)
        Unit shots, ordered by class.
    dual_coef_ : ndarray of shape (n_shots, n_classes)
        Coefficients of the correction in the kernel's space.

    See Also
    --------
    sklearn.kernel_ridge.KernelRidge : The same without texts, as a regressor.
    TipAdapterClassifier : Votes of the shots, without a linear system to solve.

    Notes
    -----
    Among the functions f of the space H of the kernel ``k(x, x') = exp(-beta (1 -
    cos(x, x')))``, ProKeR minimises ``sum_i w_i ||f(x_i) - y_i||^2 + lmbda ||f -
    z1||^2_H`` with y one-hot labels and z1 the cosines with the class texts
    [1]_. With the shots S and their kernel matrix K, the minimiser is ``f(q) = z1(q) +
    k(q, S) (K + lmbda diag(1/w))^-1 (Y - z1(S))``; the scores weigh its second term
    with alpha. The public code solves with ``K / lmbda + I`` instead, which multiplies
    the second term by lmbda; it searches beta from 0.5 to 3 and lmbda from 0.001 to 1.

    Without texts z1 is zero, and this is kernel ridge regression on one-hot
    labels; alpha then only scales the scores. At ``alpha=0``, as for a large
    `lmbda`, the probabilities are CLIP's zero-shot. Fitting n shots solves a linear
    system whose matrix takes 8 n^2 bytes.

    References
    ----------
    .. [1] Y. Bendou, A. Ouasfi, V. Gripon, A. Boukhayma, "ProKeR: A Kernel
       Perspective on Few-Shot Adaptation of Large Vision-Language Models", CVPR
       2025, arXiv:2501.11175.

    Examples
    --------
    >>> import numpy as np
    >>> from skbridge.baselines import ProKeRClassifier
    >>> X = np.array([[1.0, 0.1], [1.0, 0.2], [0.1, 1.0], [0.2, 1.0]])
    >>> y = ["cat", "cat", "dog", "dog"]
    >>> ProKeRClassifier(None).fit(X, y).predict([[2.0, 1.0]])
    array(['cat'], dtype='<U3')
    """

    blend_parameters = ("alpha",)
    _default_temperature_doc = "CLIP's logit scale"

    _parameter_constraints = {
        **RivalClassifier._parameter_constraints,
        "beta": [Interval(Real, 0, MAX_SHARPNESS, closed="right")],
        "lmbda": POSITIVE,
        "alpha": NON_NEGATIVE,
    }

    def __init__(
        self,
        texts="ViT-B-16",
        *,
        beta=3.0,
        lmbda=0.1,
        alpha=0.1,
        temperature=None,
    ):
        self.texts = texts
        self.temperature = temperature
        self.beta = beta
        self.lmbda = lmbda
        self.alpha = alpha

    def _learn(self, X, codes, weight):
        """Solve for the correction to the texts' scores."""
        shots = X.astype(np.float64)
        residuals = np.eye(len(self.classes_))[codes]
        if self._text_features is not None:
            residuals -= self._text_cosines(shots)
        # Symmetric, so that it is positive definite for any weights.
        root = np.sqrt(weight)[:, None]
        system = root * kernel(shots @ shots.T, self.beta) * root.T
        system[np.diag_indices(len(shots))] += self.lmbda
        try:
            factor = cho_factor(system, overwrite_a=True)
        except LinAlgError:
            raise ValueError(
                f"lmbda={self.lmbda:g} is too small for the kernel of these shots, "
                "some of which are nearly equal. Use a larger lmbda, such as 1e-3."
            ) from None
        self.X_fit_ = X
        self.dual_coef_ = (root * cho_solve(factor, root * residuals)).astype(X.dtype)

    @property
    def _floats_per_row(self):
        return super()._floats_per_row + len(self.X_fit_)

    def _components(self, X, skip):
        q = unit(X)
        near = kernel(q @ self.X_fit_.T, self.beta)
        return self._text_cosines(q), near @ self.dual_coef_

    def _make_blend(self):
        self._check_alpha()
        return AddedLogits(1.0, float(self.alpha), self._logit_scale)

    def search_space(self, n_shots, head):
        from scipy.stats import loguniform

        # Lists, since each pair of values needs a fit.
        space = {"beta": [0.5, 1.5, 3.0], "lmbda": [0.01, 0.03, 0.1, 0.3, 1.0]}
        if has_texts(head):
            space["alpha"] = loguniform(0.003, 1)
        return space
