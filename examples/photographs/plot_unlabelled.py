"""
======================
Images without a label
======================

:class:`~skbridge.BridgedGDAClassifier` also learns from images whose label is missing:
rows of ``y`` that are None, NaN or ``pd.NA``.
"""

# %%
# One labelled image per class, and others without a label
# --------------------------------------------------------

import matplotlib.pyplot as plt
import numpy as np

from skbridge import BridgedGDAClassifier, CLIPEmbedder, TextHead
from skbridge.datasets import load_emoji

emoji = load_emoji()
y = np.array(emoji.target_names)[emoji.target]
X = CLIPEmbedder("skbridge-tiny").fit_transform(list(emoji.images))
head = TextHead.from_clip(emoji.target_names, "skbridge-tiny")

labelled = emoji.styles == "fxemoji"
rng = np.random.default_rng(0)
is_test = ~labelled & (rng.random(len(y)) < 0.3)
pool = rng.permutation(np.flatnonzero(~labelled & ~is_test))

# %%
# Accuracy by the number of unlabelled images
# -------------------------------------------
# The classifier checks on the shots whether the unlabelled images help, and ignores
# them otherwise; ``uses_unlabelled_`` says which.

sizes = [0, 100, 200, 400, len(pool)]
accuracy = []
for size in sizes:
    rows = np.concatenate([np.flatnonzero(labelled), pool[:size]])
    partly = np.where(labelled[rows], y[rows], None)
    classifier = BridgedGDAClassifier(head).fit(X[rows], partly)
    accuracy.append(100 * classifier.score(X[is_test], y[is_test]))
    used = "used" if classifier.uses_unlabelled_ else "not used"
    print(f"{size:3} unlabelled images, {used}: {accuracy[-1]:.1f} %")

fig, ax = plt.subplots(figsize=(5, 3.5), layout="constrained")
ax.plot(sizes, accuracy, "o-")
ax.set(xlabel="unlabelled images", ylabel="accuracy, %")
