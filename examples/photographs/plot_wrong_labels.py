"""
========================
Labels that look wrong
========================

One wrong label among four shots does harm.
:func:`~skbridge.review.suspicious_labels` compares each label with the prediction of a
classifier that was fitted without that image.
"""

# %%
# Some labels are made wrong
# --------------------------

import matplotlib.pyplot as plt
import numpy as np

from skbridge import BridgedGDAClassifier, CLIPEmbedder
from skbridge.datasets import load_emoji
from skbridge.review import suspicious_labels

emoji = load_emoji(styles=["noto", "twemoji", "fluent-emoji", "emojione", "noto-v1"])
names = np.array(emoji.target_names)
X = CLIPEmbedder("skbridge-tiny").fit_transform(list(emoji.images))
y = names[emoji.target]

rng = np.random.default_rng(0)
flipped = rng.choice(len(y), size=35, replace=False)  # 5 %
y[flipped] = names[(emoji.target[flipped] + rng.integers(1, 140, 35)) % 140]

# %%
# Find them
# ---------
# ``indices`` lists the suspicious images, the most suspicious first.

found = suspicious_labels(BridgedGDAClassifier("skbridge-tiny"), X, y)
first = found.indices[:35]
print(f"{np.isin(first, flipped).mean():.0%} of the first 35 labels are wrong")
print(f"{len(flipped) / len(y):.0%} of all labels are wrong")

# %%
# Look at them
# ------------
# Above each image is its label, and below it what the other images suggest.

fig, axes = plt.subplots(2, 4, figsize=(6.4, 4.2), layout="constrained")
for ax, i in zip(axes.flat, found.indices, strict=False):
    ax.imshow(emoji.images[i])
    ax.set_title(f"{y[i]}?")
    ax.set_xlabel(found.suggested[i])
    ax.set(xticks=[], yticks=[])
