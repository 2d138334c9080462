"""Few-shot image classification with CLIP, as scikit-learn estimators."""

from importlib import import_module

from skbridge._bridge import SemanticBridge
from skbridge._classifiers.gda import BridgedGDAClassifier
from skbridge._classifiers.semobridge import SeMoBridgeClassifier
from skbridge._embedder import CLIPEmbedder
from skbridge._images.augment import augment_shots
from skbridge._onnx import to_onnx
from skbridge._pipeline import make_few_shot_pipeline
from skbridge._search.search_cv import FewShotSearchCV
from skbridge._texts.head import TextHead
from skbridge._texts.recipe import CLIPTexts
from skbridge._version import __version__

__all__ = [
    "BridgedGDAClassifier",
    "CLIPEmbedder",
    "CLIPTexts",
    "FewShotSearchCV",
    "SeMoBridgeClassifier",
    "SemanticBridge",
    "TextHead",
    "__version__",
    "augment_shots",
    "make_few_shot_pipeline",
    "to_onnx",
]


def __getattr__(name):
    """Import a subpackage at its first use, so that ``import skbridge`` is fast."""
    if name in ("baselines", "datasets", "inspection", "photos", "review", "scale"):
        return import_module(f"skbridge.{name}")
    raise AttributeError(f"module 'skbridge' has no attribute {name!r}")
