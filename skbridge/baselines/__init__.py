"""Other few-shot classifiers of CLIP embeddings, behind the same interface.

Each is written from its paper's equations, takes `texts` as
:class:`skbridge.SeMoBridgeClassifier` does, and can be searched and cross-validated
like it.

========================  =======================================================
`_common`                 base classes: `fit`, texts, blends and shared documentation
`_zero_shot`              zero-shot CLIP
`_tip_adapter`            Tip-Adapter and Tip-Adapter-F
`_tip_adapter_training`   the training of Tip-Adapter-F, in PyTorch
`_ape`                    APE
`_gda`                    Gaussian discriminant analysis
`_lp_plus_plus`           LP++
`_proker`                 ProKeR
`_transclip`              TransCLIP
========================  =======================================================

A further rival is one more file and a line here. It may import `_classifiers`,
`_held_out`, `_class_sums`, `_rows`, `_validation` and `_clip.device`; only users,
examples and benchmarks import this package.
"""

from skbridge.baselines._ape import APEClassifier
from skbridge.baselines._gda import GDAClassifier
from skbridge.baselines._lp_plus_plus import LPPlusPlusClassifier
from skbridge.baselines._proker import ProKeRClassifier
from skbridge.baselines._tip_adapter import TipAdapterClassifier
from skbridge.baselines._transclip import TransCLIPClassifier
from skbridge.baselines._zero_shot import ZeroShotClassifier

__all__ = [
    "APEClassifier",
    "GDAClassifier",
    "LPPlusPlusClassifier",
    "ProKeRClassifier",
    "TipAdapterClassifier",
    "TransCLIPClassifier",
    "ZeroShotClassifier",
]
