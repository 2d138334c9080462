"""ProKeR: kernel ridge regression that starts from the texts."""

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from sklearn.base import _fit_context

from skbridge._rows import unit
from skbridge._validation import all_or_nothing
from skbridge.baselines._common import (
    NON_NEGATIVE,
    POSITIVE,
    AddedLogits,
    RivalClassifier,
    has_texts,
)


class ProKeRClassifier(RivalClassifier):
    """ProKeR: kernel ridge regression of what the texts get wrong on the shots.

    Parameters
    ----------
    {texts}
    beta : float, default=3.0
        Sharpness of the kernel ``exp(-beta (1 - cos))``.
    lmbda : float, default=0.1
        The paper's lambda: how close to the texts' scores to stay, in the norm
        of the kernel's space.
    alpha : float, default=0.1
        Weight of the correction to the texts' scores. 1 gives the minimiser of
        the objective, the value of `lmbda` what the public code computes.
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
    TipAdapterClassifier : Counts the votes of the shots instead of solving.

    Notes
    -----
    Among the functions f of the space H of the kernel ``k(x, x') = exp(-beta (1 -
    cos(x, x')))``, ProKeR minimises ``sum_i w_i ||f(x_i) - y_i||^2 + lmbda ||f -
    z1||^2_H`` with y one-hot labels and z1 the cosines with the class texts
    [1]_. The minimiser is ``f(q) = z1(q) + k(q, S) (K + lmbda diag(1/w))^-1 (Y -
    z1(S))``, S being the shots and K their kernel matrix; the scores weigh its
    second term with alpha. The public code solves with ``K / lmbda + I`` instead
    and so has lmbda times that term; it searches beta from 0.5 to 3 and lmbda
    from 0.001 to 1.

    Without texts z1 is zero, and this is kernel ridge regression on one-hot
    labels; alpha then only scales the scores. At ``alpha=0``, as for a large
    `lmbda`, the probabilities are CLIP's zero-shot. Fitting solves a linear
    system in the number n of shots, whose matrix takes 8 n^2 bytes.

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
        "beta": POSITIVE,
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

    @_fit_context(prefer_skip_nested_validation=True)
    @all_or_nothing
    def fit(self, X, y, sample_weight=None):
        """Solve for the correction to the texts' scores.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Image embeddings; their lengths do not matter.
        y : array-like of shape (n_samples,)
            Labels; classes may have any numbers of shots, from one.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each shot; weight 2 is the shot given twice.

        Returns
        -------
        ProKeRClassifier
            The fitted classifier.

        Raises
        ------
        ValueError
            If y has one class only, a label has no text, X and the texts have
            different widths, `lmbda` is too small to solve with, or alpha is zero
            without texts.
        """
        X, codes, weight = self._start_unit(X, y, sample_weight)
        shots = X.astype(np.float64)
        residuals = np.eye(len(self.classes_))[codes]
        if self._text_features is not None:
            residuals -= self._text_cosines(shots)
        # Symmetric in the weights: positive definite however they differ.
        root = np.sqrt(weight)[:, None]
        system = root * self._kernel(shots, shots) * root.T
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
        self._finish_fit()
        return self

    def _kernel(self, q, shots):
        kernel = q @ shots.T
        kernel -= 1
        kernel *= float(self.beta)
        return np.exp(kernel, out=kernel)

    @property
    def _floats_per_row(self):
        return super()._floats_per_row + len(self.X_fit_)

    def _components(self, X, skip):
        q = unit(X)
        return self._text_cosines(q), self._kernel(q, self.X_fit_) @ self.dual_coef_

    def _make_blend(self):
        self._check_alpha()
        return AddedLogits(1.0, float(self.alpha), self._logit_scale)

    def search_space(self, n_shots, head):
        from scipy.stats import loguniform

        # Lists, since each pair of these is a fit of its own.
        space = {"beta": [0.5, 1.5, 3.0], "lmbda": [0.01, 0.03, 0.1, 0.3, 1.0]}
        if has_texts(head):
            space["alpha"] = loguniform(0.003, 1)
        return space
