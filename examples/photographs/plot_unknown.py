"""
============================
Images of no known class
============================

A classifier gives every image one of the classes that it knows. With ``reject``,
:class:`~skbridge.BridgedGDAClassifier` labels an image as unknown if it is unlike the
shots of every class.
"""

# %%
# A hundred classes are known, forty are not
# ------------------------------------------

import matplotlib.pyplot as plt
import numpy as np

from skbridge import BridgedGDAClassifier, CLIPEmbedder
from skbridge.datasets import load_emoji

shots = load_emoji(styles=["noto", "twemoji", "fluent-emoji", "emojione"])
new = load_emoji(styles=["noto-v1", "fluent-emoji-flat"])
names = np.array(shots.target_names)
embedder = CLIPEmbedder("skbridge-tiny")
X_shots = embedder.fit_transform(list(shots.images))
X_new = embedder.transform(list(new.images))

known = shots.target < 100
classifier = BridgedGDAClassifier("skbridge-tiny", reject=0.05)
classifier.fit(X_shots[known], names[shots.target[known]])

# %%
# Two densities
# -------------
# ``score_samples`` is the log density of an image under its nearest class.
# ``reject=0.05`` chooses the threshold below which 5 % of the shots lie, each scored as
# if it had been left out. The images here are by other artists than the shots, so the
# share of rejected images of known classes differs from 5 %.

density = classifier.score_samples(X_new)
is_known = new.target < 100
rejected = classifier.predict(X_new) == "unknown"
print(f"rejected: {rejected[is_known].mean():.0%} of the images of known classes")
print(f"rejected: {rejected[~is_known].mean():.0%} of the images of other classes")

fig, ax = plt.subplots(figsize=(5, 3.5), layout="constrained")
bins = np.linspace(*np.quantile(density, [0.01, 1]), 30)
ax.hist(density[is_known], bins, density=True, alpha=0.6, label="known classes")
ax.hist(density[~is_known], bins, density=True, alpha=0.6, label="other classes")
ax.axvline(density[rejected].max(), color="black", label="threshold")
ax.set(xlabel="log density", yticks=[])
ax.legend()

# %%
# The images that are least like any class
# ----------------------------------------

fig, axes = plt.subplots(2, 4, figsize=(6.4, 4), layout="constrained")
for ax, i in zip(axes.flat, np.argsort(density), strict=False):
    ax.imshow(new.images[i])
    ax.set_title(names[new.target[i]] + (" (known)" if is_known[i] else ""))
    ax.axis("off")
