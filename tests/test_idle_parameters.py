"""A parameter that another setting leaves without effect is refused by name."""

import numpy as np
import pytest

from skbridge import BridgedGDAClassifier, SeMoBridgeClassifier, TextHead
from skbridge.baselines import TransCLIPClassifier

TRAINED = {"mode": "trained", "max_iter": 2}
LBFGS = TRAINED | {"early_stopping": False}
SHARP = {"blending": "exponential"}
NO_TEXTS = {"texts": None}
# A head whose bridge is the text subspace.
BANK = TextHead.from_features(
    range(3), np.eye(3, 8), text_bank=np.random.default_rng(1).normal(size=(70, 8))
)

# (classifier, the setting, a parameter that it makes idle).
IDLE = [
    *[
        (SeMoBridgeClassifier, {}, idle)
        for idle in (
            {"csb": False},
            {"lambda_it": 0.3},
            {"lambda_c": 0.3},
            {"lambda_b": 0.3},
            {"solver": "adamw"},
            {"early_stopping": True},
            {"learning_rate": 0.1},
            {"weight_decay": 0.1},
            {"max_iter": 7},
            {"tol": 0.1},
            {"alpha": 2.0},
            {"beta": 2.0},
            {"gamma": 2.0},
            {"smoothness": 0.5},
        )
    ],
    (SeMoBridgeClassifier, {"pinv_atol": 0.1}, {"bridge_rank": 3}),
    (SeMoBridgeClassifier, {"bridge": "identity"}, {"pinv_atol": 0.1}),
    (SeMoBridgeClassifier, {"bridge": "identity"}, {"bridge_rank": 3}),
    (SeMoBridgeClassifier, {"bridge": "text_subspace"}, {"pinv_atol": 0.1}),
    (SeMoBridgeClassifier, NO_TEXTS, {"lambda_1": 0.5}),
    (SeMoBridgeClassifier, NO_TEXTS | SHARP, {"alpha": 2.0}),
    (SeMoBridgeClassifier, NO_TEXTS | SHARP, {"smoothness": 0.5}),
    (SeMoBridgeClassifier, NO_TEXTS, {"bridge": "text_subspace"}),
    (SeMoBridgeClassifier, NO_TEXTS, {"bridge_rank": 3}),
    (SeMoBridgeClassifier, NO_TEXTS, {"pinv_atol": 0.1}),
    (SeMoBridgeClassifier, TRAINED | {"csb": False}, {"lambda_b": 0.3}),
    (SeMoBridgeClassifier, TRAINED, {"tol": 0.1}),
    (SeMoBridgeClassifier, LBFGS, {"learning_rate": 0.1}),
    (SeMoBridgeClassifier, LBFGS, {"weight_decay": 0.1}),
    (SeMoBridgeClassifier, TRAINED | {"solver": "adamw"}, {"early_stopping": True}),
    (SeMoBridgeClassifier, NO_TEXTS, {"pinv_atol": 0.1}),
    (SeMoBridgeClassifier, NO_TEXTS, {"bridge_rank": 3}),
    (SeMoBridgeClassifier, {"texts": BANK}, {"pinv_atol": 0.1}),
    (BridgedGDAClassifier, {"bridge": "identity"}, {"bridge_rank": 3}),
    (BridgedGDAClassifier, NO_TEXTS, {"bridge_rank": 3}),
    (BridgedGDAClassifier, NO_TEXTS, {"lambda_1": 0.5}),
    (BridgedGDAClassifier, NO_TEXTS, {"bridge": "pseudo_inverse"}),
    (BridgedGDAClassifier, NO_TEXTS, {"bridge_rank": 3}),
    (BridgedGDAClassifier, {}, {"reject_label": "other"}),
    (TransCLIPClassifier, NO_TEXTS, {"lmbda": 0.3}),
]


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    head = TextHead.from_arrays(
        range(3), eos=rng.normal(size=(3, 8)), projection=rng.normal(size=(8, 8))
    )
    y = np.repeat(range(3), 4)
    X = head.text_features[y] + 0.1 * rng.normal(size=(12, 8))
    return head, X, y


@pytest.mark.parametrize(("kind", "setting", "idle"), IDLE)
def test_an_idle_parameter_is_refused(problem, kind, setting, idle):
    head, X, y = problem
    (name,) = idle
    classifier = kind(**{"texts": head} | setting | idle)
    with pytest.raises(ValueError, match=rf"^{name}=.* has no effect with"):
        classifier.fit(X, y)
