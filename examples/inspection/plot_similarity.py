"""
=========================================
Similarities before and after the bridge
=========================================

CLIP was trained to compare images with texts, and never to compare images with one
another. :class:`~skbridge.inspection.SimilarityDisplay` shows what that does to the
cosines of images of the same class and of different ones, and what the bridge changes.
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
# Each panel shows the cosines of all pairs. The number above it is the chance that a
# pair of one class is more alike than a pair of different classes: 0.5 would tell
# nothing apart, 1 everything. Few pairs are of one class, so that its curve is rougher.
#
# On this small model images compare about as well with one another as with texts. That
# leaves little to repair, and its bridge changes next to nothing.

classifier = SeMoBridgeClassifier(MODEL)
classifier.fit(X_shots, names[shots.target])
display = SimilarityDisplay.from_estimator(classifier, X_queries, names[queries.target])

# %%
# A cut that leaves too little
# ----------------------------
# With ``bridge_rank=0.2`` the bridge keeps only those directions of the text projection
# that hold a fifth of its energy. They are too few to tell these classes apart: the
# cosines of images of one class fall among those of different classes. Look before you
# trust a cut, or let :class:`~skbridge.FewShotSearchCV` choose it.

classifier.set_params(bridge_rank=0.2).fit(X_shots, names[shots.target])
narrow = SimilarityDisplay.from_estimator(classifier, X_queries, names[queries.target])
for comparison, before in display.separation.items():
    after = narrow.separation[comparison]
    print(f"{comparison}: {before:.3f} with the default cut, {after:.3f} with 0.2")
