"""CLIPTexts, the recipe for class texts, and the values of a `texts` parameter."""

import os

import numpy as np
from sklearn.base import BaseEstimator

from skbridge._texts.head import TextHead
from skbridge._texts.names import label_names, labels_in_head, warn_of_equal_texts


class CLIPTexts(BaseEstimator):
    """Recipe for class texts: a CLIP model, its prompts and the names of labels.

    A classifier with a recipe as its `texts` makes texts for the labels that it sees in
    `fit`. The parameters of the recipe can be searched:
    ``GridSearchCV(classifier, {"texts__templates": [...]})``.

    Parameters
    ----------
    model : str or path-like, default="ViT-B-16"
        CLIP model of the texts, the one that embedded the images: an open_clip name, a
        folder, ``"ORGANISATION/REPOSITORY"`` of the Hugging Face hub, or
        ``"skbridge-tiny"``, the bundled model.
    pretrained : str, path-like or None, default="auto"
        Weights of `model`. ``"auto"`` means those of OpenAI for ViT-B-16, and the first
        ones that open_clip lists for other names.
    templates : str, dict, or list of these, default="simple"
        Prompts, as in :meth:`TextHead.from_clip`.
    class_names : dict or list of str, default=None
        Name of each label: a dict from label to name or, for integer labels from
        0 to n - 1, a list indexed by label. None means that the labels are strings and
        are the names. A sorted list of string labels also names these labels, and the
        integers by which scikit-learn's meta-estimators encode them.
    device : str, default="auto"
        Device of the text tower.
    cache_dir : str, path-like or None, default=None
        Folder in which class texts are stored, as for :class:`CLIPEmbedder`.

    See Also
    --------
    TextHead : The texts that a recipe makes.

    Examples
    --------
    >>> from skbridge import CLIPTexts
    >>> texts = CLIPTexts("skbridge-tiny", class_names={0: "cat", 1: "dog"})
    >>> head = texts.head([0, 1])
    >>> head.classes, head.prompts[0]
    ((0, 1), ('a photo of a cat.',))
    """

    def __init__(
        self,
        model="ViT-B-16",
        *,
        pretrained="auto",
        templates="simple",
        class_names=None,
        device="auto",
        cache_dir=None,
    ):
        self.model = model
        self.pretrained = pretrained
        self.templates = templates
        self.class_names = class_names
        self.device = device
        self.cache_dir = cache_dir

    def head(self, labels) -> TextHead:
        """Make the texts of some labels.

        Parameters
        ----------
        labels : array-like of shape (n_classes,)
            Distinct labels.

        Returns
        -------
        TextHead
            Its classes are the labels, in their order.

        Raises
        ------
        ValueError
            If a label has no name, or the model is unknown.
        """
        labels = _whole(np.asarray(labels))
        names = label_names(labels, self.class_names)
        head = TextHead.from_clip(
            list(dict.fromkeys(names)),
            self.model,
            pretrained=self.pretrained,
            templates=self.templates,
            device=self.device,
            cache_dir=self.cache_dir,
        )
        head = head[names].relabelled(labels.tolist())
        warn_of_equal_texts(labels.tolist(), names, head.text_features)
        return head


def _whole(labels):
    """Convert whole numbers to integers: nullable integers may arrive as floats."""
    is_whole = labels.dtype.kind == "f" and np.all(labels == np.floor(labels))
    return labels.astype(np.int64) if is_whole else labels


def resolve_texts(texts, labels, *, device="auto") -> TextHead | None:
    """Find or make the class texts of labels.

    Parameters
    ----------
    texts : str, path-like, CLIPTexts, TextHead or None
        A model's name or folder, with labels as names; a recipe; texts made
        beforehand; or no texts.
    labels : ndarray of shape (n_classes,)
        Distinct labels, sorted.
    device : str, default="auto"
        Where to run the text tower of a model that is given by name.

    Returns
    -------
    TextHead or None
        Its classes are `labels`, in their order; a head without classes is returned
        unchanged.

    Raises
    ------
    TypeError
        If `texts` is of another type.
    ValueError
        If a label has no text.
    """
    if texts is None:
        return None
    if isinstance(texts, (str, os.PathLike)):
        texts = CLIPTexts(texts, device=device)
    if isinstance(texts, CLIPTexts):
        return texts.head(labels)
    if not isinstance(texts, TextHead):
        raise TypeError(
            "texts must be a model's name or folder, a CLIPTexts, a TextHead or None, "
            f"got {type(texts).__name__}. Make a head with TextHead.from_clip, "
            "TextHead.from_arrays or TextHead.from_features."
        )
    if texts.classes is None:
        return texts
    labels = _whole(labels).tolist()
    return texts[labels_in_head(labels, texts.classes)].relabelled(labels)
