"""Zero-shot CLIP: nothing but the class texts."""

from sklearn.base import _fit_context

from skbridge._rows import unit
from skbridge._validation import all_or_nothing
from skbridge.baselines._common import PlainScores, RivalClassifier


class ZeroShotClassifier(RivalClassifier):
    """CLIP without shots: each image goes to the nearest class text.

    `fit` takes labelled shots like every other classifier, but learns only which
    labels there are. What shots must beat.

    Parameters
    ----------
    {texts}
    {temperature}

    Attributes
    ----------
    {attributes}

    See Also
    --------
    skbridge.SeMoBridgeClassifier : Uses the shots as well.

    Notes
    -----
    The score of class k for a query q is ``z1 = unit(q) . T_k``, T_k the unit
    mean of the class's unit text features [1]_.

    References
    ----------
    .. [1] A. Radford et al., "Learning Transferable Visual Models From Natural
       Language Supervision", ICML 2021, arXiv:2103.00020.

    Examples
    --------
    >>> import numpy as np
    >>> from skbridge import TextHead
    >>> from skbridge.baselines import ZeroShotClassifier
    >>> head = TextHead.from_features(["cat", "dog"], np.eye(2, 5))
    >>> X = np.eye(2, 5) + 0.1
    >>> ZeroShotClassifier(head).fit(X, ["cat", "dog"]).predict(X)
    array(['cat', 'dog'], dtype='<U3')
    """

    _default_temperature_doc = "CLIP's logit scale"

    def __init__(self, texts="ViT-B-16", *, temperature=None):
        self.texts = texts
        self.temperature = temperature

    @_fit_context(prefer_skip_nested_validation=True)
    @all_or_nothing
    def fit(self, X, y, sample_weight=None):
        """Find the texts of the labels in y.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Image embeddings; only their width matters.
        y : array-like of shape (n_samples,)
            Labels.
        sample_weight : array-like of shape (n_samples,), default=None
            A label whose shots all weigh zero is left out.

        Returns
        -------
        ZeroShotClassifier
            The fitted classifier.

        Raises
        ------
        ValueError
            If there are no class texts, y has one class only, or a label has no
            text.
        """
        self._start_unit(X, y, sample_weight)
        if self._text_features is None:
            reason = "texts is None" if self.texts is None else "texts has no classes"
            raise ValueError(
                f"ZeroShotClassifier needs class texts, but {reason}. Name the CLIP "
                "model that embedded the images, or pass a TextHead with classes."
            )
        self._finish_fit()
        return self

    def _components(self, X, skip):
        return (self._text_cosines(unit(X)),)

    def _make_blend(self):
        return PlainScores(self._logit_scale)
