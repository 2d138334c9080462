"""Embedder and classifier of one CLIP model in one pipeline."""

from sklearn.pipeline import Pipeline

from skbridge._classifiers.semobridge import SeMoBridgeClassifier
from skbridge._embedder import CLIPEmbedder


def make_few_shot_pipeline(model="ViT-B-16", pretrained="auto", **classifier_params):
    """Pipeline from images to labels with one CLIP model for both steps.

    Parameters
    ----------
    model : str, default="ViT-B-16"
        CLIP model of the embedder and of the classifier's texts.
    pretrained : str, default="auto"
        Weights of `model`.
    **classifier_params
        Further parameters of :class:`SeMoBridgeClassifier`. A `device` and a
        `cache_dir` go to both steps.

    Returns
    -------
    sklearn.pipeline.Pipeline
        Steps ``"clip"``, a :class:`CLIPEmbedder`, and ``"clf"``, a
        :class:`SeMoBridgeClassifier`.

    Examples
    --------
    >>> from skbridge import make_few_shot_pipeline
    >>> pipeline = make_few_shot_pipeline("skbridge-tiny", lambda_3=1.0)
    >>> pipeline["clip"].model, pipeline["clf"].model
    ('skbridge-tiny', 'skbridge-tiny')
    """
    shared = {
        name: classifier_params[name]
        for name in ("device", "cache_dir")
        if name in classifier_params
    }
    embedder = CLIPEmbedder(model=model, pretrained=pretrained, **shared)
    classifier = SeMoBridgeClassifier(
        model=model, pretrained=pretrained, **classifier_params
    )
    return Pipeline([("clip", embedder), ("clf", classifier)])
