"""
===================================
Accuracy over the blending weights
===================================

The score of a class is ``lambda_1 z1 + lambda_2 z2 + lambda_3 z3``: texts, bridged
query against prototypes, and query against bridged prototypes. Only the proportions
decide what is predicted, so that :class:`~skbridge.inspection.BlendSimplexDisplay` can
show all blends in one triangle.
"""

# %%
# Shots, held-out images and test images
# --------------------------------------
# Choosing weights by their accuracy needs images that are neither shots, nor those that
# measure the final accuracy. Here each of the three comes from other artists.

import numpy as np

from skbridge import CLIPEmbedder, SeMoBridgeClassifier
from skbridge.datasets import load_emoji
from skbridge.inspection import BlendSimplexDisplay

MODEL = "skbridge-tiny"
embedder = CLIPEmbedder(model=MODEL)


def embed(styles):
    emoji = load_emoji(styles=styles)
    labels = np.array(emoji.target_names)[emoji.target]
    return embedder.fit_transform(list(emoji.images)), labels


X_shots, y_shots = embed(["noto", "twemoji"])
X_held_out, y_held_out = embed(["emojione", "noto-v1"])
X_test, y_test = embed(["fxemoji", "fluent-emoji-flat"])

# %%
# The triangle
# ------------
# At each corner one of the three has all the weight. The star marks the best weights on
# the held-out images, the circle those of the classifier.

classifier = SeMoBridgeClassifier(MODEL).fit(X_shots, y_shots)
display = BlendSimplexDisplay.from_estimator(classifier, X_held_out, y_held_out)

# %%
# Does the choice carry over?
# ---------------------------
# The accuracy at the star is the best of many, and therefore too optimistic. It is
# measured on other images.

lambdas = dict(
    zip(["lambda_1", "lambda_2", "lambda_3"], display.best_lambdas, strict=True)
)
tuned = SeMoBridgeClassifier(MODEL, **lambdas).fit(X_shots, y_shots)
print(f"default weights: {100 * classifier.score(X_test, y_test):.1f} % on test images")
print(f"weights at the star: {100 * tuned.score(X_test, y_test):.1f} %")
