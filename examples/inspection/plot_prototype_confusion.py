"""
=============================
Plain and bridged prototypes
=============================

A prototype is the mean of a class's shots. A query can be compared with the mean of
their embeddings (plain), or with the mean of their bridged embeddings.
:class:`~skbridge.inspection.PrototypeConfusionDisplay` shows the confusions of each.
The class texts are not used.
"""

# %%
# Readable names
# --------------
# With the first 37 emoji concepts and one shot each, every class has its name on the
# axes. Queries are drawn by three other artists. Each row of a matrix is divided by
# its number of images.

import numpy as np

from skbridge import CLIPEmbedder, SeMoBridgeClassifier
from skbridge.datasets import load_emoji
from skbridge.inspection import PrototypeConfusionDisplay

MODEL = "skbridge-tiny"
shots = load_emoji(styles="noto")
queries = load_emoji(styles=["fxemoji", "emojione", "fluent-emoji-flat"])
names = np.array(shots.target_names)

embedder = CLIPEmbedder(model=MODEL)
X_shots = embedder.fit_transform(list(shots.images))
X_queries = embedder.transform(list(queries.images))
y_shots, y_queries = names[shots.target], names[queries.target]

few_shots, few_queries = shots.target < 37, queries.target < 37
classifier = SeMoBridgeClassifier(MODEL, bridge_rank=0.95)
classifier.fit(X_shots[few_shots], y_shots[few_shots])
display = PrototypeConfusionDisplay.from_estimator(
    classifier, X_queries[few_queries], y_queries[few_queries]
)

# %%
# Many classes
# ------------
# With all 140 concepts the names would overlap, so the axes number the classes. Above
# 200 classes a cell stands for several, and the axes say how many.

classifier.fit(X_shots, y_shots)
display = PrototypeConfusionDisplay.from_estimator(classifier, X_queries, y_queries)
for name, accuracy in display.accuracy.items():
    print(f"{name}: {100 * accuracy:.1f} % of {len(y_queries)} queries right")

# %%
# The most frequent confusions are easy to find in the matrix itself.

matrix = display.confusion_matrices["bridged prototypes"].copy()
np.fill_diagonal(matrix, 0)
for cell in np.argsort(-matrix, axis=None, kind="stable")[:5]:
    true, predicted = np.unravel_index(cell, matrix.shape)
    print(
        f"{matrix[true, predicted]} of 3 images of {display.classes[true]} were taken "
        f"for {display.classes[predicted]}"
    )
