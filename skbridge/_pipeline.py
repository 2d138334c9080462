"""A pipeline of embedder and classifier for one CLIP model."""

from sklearn.pipeline import Pipeline

from skbridge._classifiers.gda import BridgedGDAClassifier
from skbridge._embedder import CLIPEmbedder
from skbridge._texts.recipe import CLIPTexts


def make_few_shot_pipeline(
    model="ViT-B-16",
    *,
    pretrained="auto",
    templates="simple",
    class_names=None,
    device="auto",
    cache_dir=None,
    **classifier_params,
) -> Pipeline:
    """Make a pipeline from images to labels, with one CLIP model for both steps.

    Parameters
    ----------
    model : str or path-like, default="ViT-B-16"
        CLIP model of the embedder and of the class texts.
    pretrained : str, path-like or None, default="auto"
        Weights of `model`.
    templates : str, list or dict, default="simple"
        Prompts of the class texts, as in :class:`CLIPTexts`.
    class_names : dict or list of str, default=None
        Name of each label, as in :class:`CLIPTexts`.
    device : str, default="auto"
        Device for images and texts.
    cache_dir : str, path-like or None, default=None
        Folder in which embeddings are stored, as in :class:`CLIPEmbedder`.
    **classifier_params
        Further parameters of :class:`BridgedGDAClassifier`.

    Returns
    -------
    sklearn.pipeline.Pipeline
        Steps ``"clip"``, a :class:`CLIPEmbedder`, and ``"clf"``, a
        :class:`BridgedGDAClassifier`.

    Examples
    --------
    >>> from skbridge import make_few_shot_pipeline
    >>> pipeline = make_few_shot_pipeline("skbridge-tiny", lambda_3=1.0)
    >>> pipeline["clip"].model, pipeline["clf"].texts.model
    ('skbridge-tiny', 'skbridge-tiny')
    """
    shared = {"pretrained": pretrained, "device": device, "cache_dir": cache_dir}
    texts = CLIPTexts(model, templates=templates, class_names=class_names, **shared)
    classifier = BridgedGDAClassifier(texts, **classifier_params)
    return Pipeline([("clip", CLIPEmbedder(model, **shared)), ("clf", classifier)])
