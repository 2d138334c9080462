"""
==============================================
Class-specific bias, with and without its loss
==============================================

SeMoBridge-T learns a bias for each class, which it adds to the bridged shots of that
class. One term of its loss, weighted by ``lambda_b``, makes the norms of these biases
similar. :class:`~skbridge.inspection.BiasNormDisplay` shows the norms.
"""

# %%
# Two classifiers
# ---------------
# The first 37 emoji concepts, four shots each. Two classifiers are trained on them that
# differ in ``lambda_b`` alone. The steps are fewer and larger than those of the
# official recipe, which takes 5,000.

import numpy as np

from skbridge import CLIPEmbedder, SeMoBridgeClassifier
from skbridge.datasets import load_emoji
from skbridge.inspection import BiasNormDisplay

MODEL = "skbridge-tiny"
shots = load_emoji(styles=["noto", "twemoji", "fluent-emoji", "emojione"])
few = shots.target < 37
X = CLIPEmbedder(model=MODEL).fit_transform(list(shots.images[few]))
y = np.array(shots.target_names)[shots.target[few]]

classifiers = {}
for lambda_b in (0.0, 0.1):
    classifiers[f"lambda_b = {lambda_b:g}"] = SeMoBridgeClassifier(
        texts=MODEL,
        mode="trained",
        solver="adamw",
        max_iter=200,
        learning_rate=3e-3,
        lambda_b=lambda_b,
    ).fit(X, y)

# %%
# Their norms
# -----------
# Each point is a class, the line is the mean, and the grey band is one standard
# deviation on either side. Without the term the norms differ much more between classes.

display = BiasNormDisplay.from_estimators(classifiers)
