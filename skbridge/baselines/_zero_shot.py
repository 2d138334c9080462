"""Zero-shot CLIP: the class texts alone."""

from skbridge._rows import unit
from skbridge.baselines._common import PlainScores, RivalClassifier


class ZeroShotClassifier(RivalClassifier):
    """Zero-shot CLIP: each image is assigned to the nearest class text.

    `fit` takes labelled shots like every other classifier, but learns only which
    labels there are. Classifiers that use the shots are measured against it.

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

    def _learn(self, X, codes, weight):
        """Check that there are texts."""
        if self._text_features is None:
            reason = "texts is None" if self.texts is None else "texts has no classes"
            raise ValueError(
                f"ZeroShotClassifier needs class texts, but {reason}. Name the CLIP "
                "model that embedded the images, or pass a TextHead with classes."
            )

    def _components(self, X, skip):
        return (self._text_cosines(unit(X)),)

    def _make_blend(self):
        return PlainScores(self._logit_scale)
