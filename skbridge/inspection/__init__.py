"""Displays of few-shot classifiers, in scikit-learn's manner.

A display is made by ``from_estimator``, or from numbers that were computed beforehand,
stores these as attributes and draws them with ``plot``. Only ``plot`` needs matplotlib:
``pip install "skbridge[plots]"``.

==================  =============================================================
`_query`            `QueryExplanationDisplay`: the shots and texts behind a label
`_contact_sheet`    `ContactSheetDisplay`: predicted images, uncertain ones first
`_blend_simplex`    `BlendSimplexDisplay`: accuracy over all blending weights
`_reliability`      `ReliabilityDisplay`: accuracy against confidence
`_similarity`       `SimilarityDisplay`: cosines within and between classes
`_confusion`        `PrototypeConfusionDisplay`: errors of prototypes
`_bias_norm`        `BiasNormDisplay`: norms of the class-specific bias
`_loss_curve`       `LossCurveDisplay`: terms of the loss while training
`_common`           checks of estimators and labels, axes, colours
==================  =============================================================

A further display is one more file and a line here. Only users, examples and benchmarks
import this package; it imports `_search`, `_classifiers` and the layers below.
"""

from skbridge.inspection._bias_norm import BiasNormDisplay
from skbridge.inspection._blend_simplex import BlendSimplexDisplay
from skbridge.inspection._confusion import PrototypeConfusionDisplay
from skbridge.inspection._contact_sheet import ContactSheetDisplay
from skbridge.inspection._loss_curve import LossCurveDisplay
from skbridge.inspection._query import QueryExplanationDisplay
from skbridge.inspection._reliability import ReliabilityDisplay
from skbridge.inspection._similarity import SimilarityDisplay

__all__ = [
    "BiasNormDisplay",
    "BlendSimplexDisplay",
    "ContactSheetDisplay",
    "LossCurveDisplay",
    "PrototypeConfusionDisplay",
    "QueryExplanationDisplay",
    "ReliabilityDisplay",
    "SimilarityDisplay",
]
