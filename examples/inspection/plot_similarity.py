"""
=========================================
Similarities before and after the bridge
=========================================

CLIP was trained to compare images with texts, and never to compare images with one
another. :class:`~skbridge.inspection.SimilarityDisplay` shows the cosines of images of
the same class and of different classes, before and after the bridge.
"""

# %%
# Shots and other images
# ----------------------
# Four artists draw the shots, and three others the images to compare. All are embedded
# by the bundled model.

import numpy as np

from skbridge import CLIPEmbedder, SeMoBridgeClassifier
from skbridge.datasets import load_emoji
from skbridge.inspection import SimilarityDisplay

MODEL = "skbridge-tiny"
shots = load_emoji(styles=["noto", "twemoji", "fluent-emoji", "emojione"])
queries = load_emoji(styles=["fxemoji", "noto-v1", "fluent-emoji-flat"])
names = np.array(shots.target_names)

embedder = CLIPEmbedder(model=MODEL)
X_shots = embedder.fit_transform(list(shots.images))
X_queries = embedder.transform(list(queries.images))

# %%
# The default cut of the bridge
# -----------------------------
# Each panel shows the cosines of all pairs. The number above it is the probability that
# a pair of the same class has a larger cosine than a pair of different classes: 0.5 is
# chance, 1 is perfect separation. There are fewer pairs of the same class, so that
# their curve is rougher.
#
# With this small model, images compare with images about as well as with texts, and the
# bridge changes very little.

classifier = SeMoBridgeClassifier(MODEL)
classifier.fit(X_shots, names[shots.target])
display = SimilarityDisplay.from_estimator(classifier, X_queries, names[queries.target])

# %%
# A cut that leaves too little
# ----------------------------
# With ``bridge_rank=0.2`` the bridge spans only the directions that have a fifth of the
# energy of the text projection. They are too few to separate these classes: the cosines
# of the same class overlap those of different classes.
# :class:`~skbridge.FewShotSearchCV` can choose the cut.

classifier.set_params(bridge_rank=0.2).fit(X_shots, names[shots.target])
narrow = SimilarityDisplay.from_estimator(classifier, X_queries, names[queries.target])
for comparison, before in display.separation.items():
    after = narrow.separation[comparison]
    print(f"{comparison}: {before:.3f} with the default cut, {after:.3f} with 0.2")
