"""Zero-shot CLIP: nothing but the class texts."""

from sklearn.base import _fit_context

from skbridge._rows import unit
from skbridge._validation import all_or_nothing
from skbridge.baselines._common import BaseRivalClassifier


class ZeroShotClassifier(BaseRivalClassifier):
    """CLIP without shots: each image goes to the nearest class text.

    `fit` takes labelled shots like every other classifier, but learns only which
    labels there are. What shots must beat.

    Parameters
    ----------
    model : str, default="ViT-B-16"
        CLIP model whose text side to use: the one that embedded the images. An
        open_clip name, a folder, or ``"skbridge-tiny"``, the bundled model.
    pretrained : str, default="auto"
        Weights of `model`.
    text_head : TextHead, default=None
        Text side made beforehand; `model` and `pretrained` are then not used.
    class_names : dict or list of str, default=None
        Name of each label; None takes string labels as names.
    templates : str, list or dict, default=None
        Prompts, as in :meth:`skbridge.TextHead.from_clip`.
    temperature : float, default=None
        Factor of the scores in the softmax of `predict_proba`; None means
        CLIP's logit scale.
    device : str, default="auto"
        Where to encode texts.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels seen in `fit`, sorted.
    n_features_in_ : int
        Width of the embeddings.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the embedding's columns, where `fit` saw string names.
    text_head_ : TextHead
        Text side, its classes in the order of `classes_`.
    class_count_ : ndarray of shape (n_classes,)
        Sum of the sample weights of each class.
    temperature_ : float
        Factor of the scores in the softmax.

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
    >>> ZeroShotClassifier(text_head=head).fit(X, ["cat", "dog"]).predict(X)
    array(['cat', 'dog'], dtype='<U3')
    """

    def __init__(
        self,
        *,
        model="ViT-B-16",
        pretrained="auto",
        text_head=None,
        class_names=None,
        templates=None,
        temperature=None,
        device="auto",
    ):
        super().__init__(
            model=model,
            pretrained=pretrained,
            text_head=text_head,
            class_names=class_names,
            templates=templates,
            temperature=temperature,
            device=device,
        )

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
        if not self._expects_texts:
            reason = "model is None" if self.text_head is None else "text_head has none"
            raise ValueError(
                f"ZeroShotClassifier needs class texts, but {reason}. Name the CLIP "
                "model that embedded the images, or pass a text_head with classes."
            )
        self._start_unit(X, y, sample_weight)
        return self

    @property
    def _default_temperature(self):
        return self._logit_scale

    def _components(self, X):
        return (self._text_cosines(unit(X)),)

    def _blend(self, components):
        return components[0]

    def _search_space(self, n_shots):
        return {}
