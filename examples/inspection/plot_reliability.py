"""
============================================
Whether probabilities hold what they promise
============================================

When a classifier gives the probability 0.8 to its predictions, 80 % of them should be
right. :class:`~skbridge.inspection.ReliabilityDisplay` shows how near it comes, for
several classifiers on one diagram.
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
# Below the diagonal a classifier is too sure of itself, above it not sure enough. The
# expected calibration error (ECE) is the mean distance from it, over all queries. The
# histogram below says how many queries each point stands for: few of them make a point
# that means little.
#
# The temperature was chosen on held-out shots. Where the queries are of another kind,
# as here, where other artists drew them, it need not be the best for these.

display = ReliabilityDisplay.from_estimators(classifiers, X_queries, y_queries)

# %%
# A diagram says nothing of how often a classifier is right: one that always gives every
# class the same probability is well calibrated.

for name, classifier in classifiers.items():
    print(
        f"{name}: accuracy {100 * classifier.score(X_queries, y_queries):.1f} %, "
        f"ECE {100 * display.calibration_error[name]:.1f} %"
    )
