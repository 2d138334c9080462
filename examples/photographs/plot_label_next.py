"""
==========================
Which images to label next
==========================

Labels take a person's time. :func:`~skbridge.review.label_next` chooses the images of a
pool that are most worth a label: images of which the classifier is uncertain, and which
are unlike one another.
"""

# %%
# One labelled image per class, and a pool
# ----------------------------------------

import matplotlib.pyplot as plt
import numpy as np

from skbridge import BridgedGDAClassifier, CLIPEmbedder, TextHead
from skbridge.datasets import load_emoji
from skbridge.review import label_next

emoji = load_emoji()
y = np.array(emoji.target_names)[emoji.target]
X = CLIPEmbedder("skbridge-tiny").fit_transform(list(emoji.images))
head = TextHead.from_clip(emoji.target_names, "skbridge-tiny")

is_test = np.isin(emoji.styles, ["fxemoji", "noto-v1"])
start = np.flatnonzero(emoji.styles == "noto")
pool = np.flatnonzero(~is_test & (emoji.styles != "noto"))


def fit(rows):
    return BridgedGDAClassifier(head).fit(X[rows], y[rows])


# %%
# The first choices
# -----------------

chosen = label_next(fit(start), X[pool], 8, labelled=X[start]).indices
fig, axes = plt.subplots(2, 4, figsize=(6.4, 4), layout="constrained")
for ax, i in zip(axes.flat, pool[chosen], strict=True):
    ax.imshow(emoji.images[i])
    ax.set_title(y[i])
    ax.axis("off")

# %%
# Chosen images and random ones
# -----------------------------
# In each round 40 more images are labelled, by ``label_next`` or at random.


def run(choose):
    rows, accuracy = start, []
    for _ in range(6):
        classifier = fit(rows)
        accuracy.append(100 * classifier.score(X[is_test], y[is_test]))
        left = np.setdiff1d(pool, rows)
        rows = np.concatenate([rows, left[choose(classifier, left, rows)]])
    return accuracy


def by_label_next(classifier, left, rows):
    return label_next(classifier, X[left], 40, labelled=X[rows]).indices


rng = np.random.default_rng(0)


def at_random(classifier, left, rows):
    return rng.choice(len(left), 40, replace=False)


n_labels = len(start) + 40 * np.arange(6)
fig, ax = plt.subplots(figsize=(5, 3.5), layout="constrained")
ax.plot(n_labels, run(by_label_next), "o-", label="label_next")
ax.plot(n_labels, np.mean([run(at_random) for _ in range(5)], axis=0), "s--")
ax.lines[1].set_label("at random, mean of five runs")
ax.set(xlabel="labelled images", ylabel="accuracy, %")
ax.legend()
