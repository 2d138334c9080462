"""
=============================
Are probabilities calibrated?
=============================

Of the predictions with probability 0.8, 80 % should be right.
:class:`~skbridge.inspection.ReliabilityDisplay` compares the probabilities of several
classifiers with the share of right predictions.
"""

# %%
# Three classifiers
# -----------------
# Zero-shot CLIP, the default few-shot classifier, and one whose weights and temperature
# :class:`~skbridge.FewShotSearchCV` chose from the shots alone.

import numpy as np

from skbridge import CLIPEmbedder, FewShotSearchCV, SeMoBridgeClassifier
from skbridge.baselines import ZeroShotClassifier
from skbridge.datasets import load_emoji
from skbridge.inspection import ReliabilityDisplay

MODEL = "skbridge-tiny"
shots = load_emoji(styles=["noto", "twemoji", "fluent-emoji", "emojione"])
queries = load_emoji(styles=["fxemoji", "noto-v1", "fluent-emoji-flat"])
names = np.array(shots.target_names)

embedder = CLIPEmbedder(model=MODEL)
X_shots = embedder.fit_transform(list(shots.images))
X_queries = embedder.transform(list(queries.images))
y_shots, y_queries = names[shots.target], names[queries.target]

classifiers = {
    "zero-shot": ZeroShotClassifier(MODEL),
    "defaults": SeMoBridgeClassifier(MODEL),
    "searched": FewShotSearchCV(SeMoBridgeClassifier(MODEL), random_state=0),
}
for classifier in classifiers.values():
    classifier.fit(X_shots, y_shots)

# %%
# The diagram
# -----------
# Below the diagonal the probabilities are too high, above it too low. The expected
# calibration error (ECE) is the mean distance from the diagonal over all queries. The
# histogram shows the number of queries per point; a point of few queries is uncertain.
#
# The search chose the temperature on held-out shots. The queries are by other artists
# than the shots, so that temperature need not be the best for them.

display = ReliabilityDisplay.from_estimators(classifiers, X_queries, y_queries)

# %%
# Calibration is not accuracy: a classifier that always gives every class the same
# probability is well calibrated.

for name, classifier in classifiers.items():
    print(
        f"{name}: accuracy {100 * classifier.score(X_queries, y_queries):.1f} %, "
        f"ECE {100 * display.calibration_error[name]:.1f} %"
    )
