"""
Image retrieval through the bridge
==================================

Few-shot classification compares images with images, and so does retrieval: rank a
collection by its similarity to a query image. :class:`~skbridge.SemanticBridge` is a
transformer of embeddings, and can be used with any nearest-neighbour search. This
example ranks the emoji of eight styles for queries in the ninth, before and after
bridging, and measures what the bridge removes.

On a data set on disk: ``python plot_retrieval.py --data oxford_pets --root FOLDER``.
"""

# %%
# Queries and a collection
# ------------------------
# Each style of emoji is the set of queries once, and the collection to search is all
# the other styles: eight right answers among 1,120 images.

import matplotlib.pyplot as plt
import numpy as np
from experiment import load_experiment
from sklearn.metrics import label_ranking_average_precision_score
from sklearn.metrics.pairwise import cosine_similarity

from skbridge import CLIPEmbedder, SemanticBridge, TextHead

data = load_experiment()
embeddings = CLIPEmbedder(data.model).fit_transform(data.images)
head = TextHead.from_clip(
    data.class_names, data.model, classes=range(len(data.class_names))
)

# %%
# The variants
# ------------
# The bridge needs the text projection and no class names. Bridging the query only is
# the paper's comparison of a bridged query with images. With ``output="text"`` rows are
# tokens of the text tower, in which the weak directions of the projection have more
# weight.

joint = SemanticBridge(head).fit_transform(embeddings)
tokens = SemanticBridge(head, output="text").fit_transform(embeddings)
methods = {
    "plain": (embeddings, embeddings),
    "query bridged": (joint, embeddings),
    "both bridged": (joint, joint),
    "both as tokens": (tokens, tokens),
}


def search(queries, collection, is_query):
    """Similarities of the queries to the rest, and which of the rest are right."""
    similarity = cosine_similarity(queries[is_query], collection[~is_query])
    return data.target[is_query][:, None] == data.target[~is_query], similarity


def recall(right, similarity, k):
    """Share of the queries with a right answer among the first k."""
    first = np.argsort(-similarity, axis=1)[:, :k]
    return np.take_along_axis(right, first, axis=1).any(axis=1).mean()


table = {}
for method, sides in methods.items():
    results = [search(*sides, is_query) for is_query in data.queries]
    table[method] = 100 * np.array(
        [
            [
                label_ranking_average_precision_score(*result),
                recall(*result, 1),
                recall(*result, 5),
            ]
            for result in results
        ]
    )

print(f"Mean over {len(data.queries)} sets of queries, %")
print(f"{'':16}{'mean average precision':>24}{'recall@1':>10}{'recall@5':>10}")
for method, scores in table.items():
    precision, at_1, at_5 = scores.mean(axis=0)
    print(f"{method:16}{precision:24.1f}{at_1:10.1f}{at_5:10.1f}")

change = (table["both bridged"] - table["plain"])[:, 0]
print(
    f"Bridging both sides changes the mean average precision by {change.mean():+.2f} "
    f"points ({change.min():+.2f} to {change.max():+.2f} by set of queries)."
)

# %%
# Bridging hardly changes the rankings, and never improves them: for the bundled model
# there is no reason to bridge before a search. The next figure shows why.
#
# What the bridge removes
# -----------------------
# If the projection has no bias, bridging is an orthogonal projection onto the strongest
# directions of the text tower; the cut chooses how many. It helps if the other
# directions have much of the images' energy but do not separate classes. For each share
# of the projection's energy, the figure shows the energy of the images that is removed,
# and the mean average precision.

kept = np.array([30, 40, 50, 60, 70, 80, 90, 95, 100])
unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
lost, precision = [], []
for share in kept:
    bridge = SemanticBridge(head, bridge_rank=share / 100).fit(embeddings)
    inside = unit @ bridge.inverse_projection_ @ head.projection
    lost.append(100 * (1 - (inside**2).sum(axis=1).mean()))
    ranked = [search(inside, inside, is_query) for is_query in data.queries]
    precision.append(
        100 * np.mean([label_ranking_average_precision_score(*r) for r in ranked])
    )

figure, (left, right) = plt.subplots(
    1, 2, figsize=(9, 3.6), layout="constrained", sharex=True
)
left.plot(kept, lost, "o-", color="#0072b2")
left.set(ylabel="energy of the images lost (%)", ylim=(0, None))
right.plot(kept, precision, "o-", color="#0072b2", label="bridged")
right.axhline(
    table["plain"][:, 0].mean(), color="#d55e00", linestyle="--", label="plain"
)
right.set(ylabel="mean average precision (%)")
right.legend()
figure.supxlabel("energy of the text projection in the bridge (%)", fontsize=10)
figure.suptitle("Energy removed by the bridge, and precision of retrieval")

print(f"With the whole projection the bridge removes {lost[-1]:.1f} % of the energy.")

# %%
# The images of the bundled model lie almost entirely in the span of its texts. The
# bridge removes very little, and every stronger cut removes directions that separate
# classes. Large CLIP models can differ: the directions beyond the cut may be common to
# all images.
#
# The queries that change most
# ----------------------------
# The two queries that gain most by bridging both sides, and the two that lose most, in
# one style. A blue frame marks a right answer.

is_query = data.queries[-1]
queries, collection = np.flatnonzero(is_query), np.flatnonzero(~is_query)
precisions, orders = {}, {}
for method in ("plain", "both bridged"):
    right, similarity = search(*methods[method], is_query)
    precisions[method] = 100 * np.array(
        [
            label_ranking_average_precision_score(right[[i]], similarity[[i]])
            for i in range(len(queries))
        ]
    )
    orders[method] = np.argsort(-similarity, axis=1)
gain = np.argsort(precisions["both bridged"] - precisions["plain"])
shown = [*gain[:-3:-1], *gain[:2]]


def show(axis, row, frame):
    """Draw the image in that row of the data, in a frame of that colour."""
    image = data.images[row]
    axis.imshow(plt.imread(image) if isinstance(image, str) else image)
    for spine in axis.spines.values():
        spine.set(color=frame, linewidth=1 if frame == "#cccccc" else 3)


figure, axes = plt.subplots(
    2 * len(shown),
    9,
    figsize=(8.5, 8.4),
    layout="constrained",
    subplot_kw={"xticks": [], "yticks": []},
)
lines = iter(axes)
for i in shown:
    for method, order in orders.items():
        line = next(lines)
        line[0].set_ylabel(
            f"{method}\nAP {precisions[method][i]:.0f} %",
            rotation=0,
            ha="right",
            va="center",
            fontsize=8,
        )
        show(line[0], queries[i], "#cccccc")
        for axis, row in zip(line[1:], collection[order[i]], strict=False):
            right = data.target[row] == data.target[queries[i]]
            show(axis, row, "#0072b2" if right else "#cccccc")
axes[0, 0].set_title("query", fontsize=9)
for rank, axis in enumerate(axes[0, 1:], start=1):
    axis.set_title(str(rank), fontsize=9)
figure.suptitle("The first eight answers")
for i in shown:
    print(
        f"{data.class_names[data.target[queries[i]]]}: average precision "
        f"{precisions['plain'][i]:.0f} % before, "
        f"{precisions['both bridged'][i]:.0f} % after"
    )
plt.show()
