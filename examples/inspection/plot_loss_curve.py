"""
=====================
Loss curves by term
=====================

SeMoBridge-T lowers a weighted sum of an image loss, two text losses, a consistency loss
and a loss of the biases' norms. :class:`~skbridge.inspection.LossCurveDisplay` plots
each of them by training step.
"""

# %%
# Train
# -----
# 140 emoji concepts, two shots each. The steps are fewer and larger than those of the
# official recipe, which takes 5,000.

import numpy as np

from skbridge import CLIPEmbedder, SeMoBridgeClassifier
from skbridge.datasets import load_emoji
from skbridge.inspection import LossCurveDisplay

MODEL = "skbridge-tiny"
shots = load_emoji(styles=["noto", "twemoji"])
X = CLIPEmbedder(model=MODEL).fit_transform(list(shots.images))
y = np.array(shots.target_names)[shots.target]

classifier = SeMoBridgeClassifier(
    texts=MODEL, mode="trained", solver="adamw", max_iter=300, learning_rate=1e-3
)
classifier.fit(X, y)

# %%
# Curves
# ------
# The image loss multiplies cosines by CLIP's logit scale; the other cross entropies do
# not, as in the paper. A softmax of 140 cosines between -1 and 1 is nearly uniform, so
# that these losses stay high and change little. The total is the weighted sum that
# training minimises. Each panel has its own scale.

display = LossCurveDisplay.from_estimator(classifier)

# %%
# The curves are attributes, to be read as numbers.

for name, curve in display.loss_terms.items():
    print(f"{name}: {curve[0]:.4f} at the start, {curve[-1]:.4f} at the end")
