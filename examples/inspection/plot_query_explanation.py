"""
==========================
Why an image got its label
==========================

A class score of :class:`~skbridge.SeMoBridgeClassifier` is a sum over the class text
and the shots. :class:`~skbridge.inspection.QueryExplanationDisplay` shows the summands
for one query, without approximation.
"""

# %%
# A classifier, and images by another artist
# ------------------------------------------

import numpy as np

from skbridge import CLIPEmbedder, SeMoBridgeClassifier
from skbridge.datasets import load_emoji
from skbridge.inspection import QueryExplanationDisplay

MODEL = "skbridge-tiny"
shots = load_emoji(styles=["noto", "twemoji", "fluent-emoji", "emojione"])
queries = load_emoji(styles="fluent-emoji-flat")
names = np.array(shots.target_names)

embedder = CLIPEmbedder(model=MODEL)
X_shots = embedder.fit_transform(list(shots.images))
X_queries = embedder.transform(list(queries.images))
y_shots, y_queries = names[shots.target], names[queries.target]

classifier = SeMoBridgeClassifier(MODEL, lambda_2=0.5).fit(X_shots, y_shots)
right = classifier.predict(X_queries) == y_queries
print(f"{100 * right.mean():.1f} % of {len(right)} queries right")

# %%
# A query that it gets right
# --------------------------
# The bars on the left are the scores of the five best classes, split into z1, z2 and
# z3. The bars on the right split the margin to the runner-up; a negative part favours
# the runner-up. Below are the texts and shots of both classes, with the contribution of
# each to the score of its class.


def explain(i):
    return QueryExplanationDisplay.from_estimator(
        classifier,
        X_queries[i],
        X_shots,
        y_shots,
        image=queries.images[i],
        shot_images=shots.images,
    )


display = explain(np.flatnonzero(right)[0])

# %%
# One that it gets wrong
# ----------------------
# Of the errors, this is the one with the largest margin.

scores = np.sort(classifier.decision_function(X_queries), axis=1)
margin = np.where(right, 0, scores[:, -1] - scores[:, -2])
worst = margin.argmax()
display = explain(worst)

print(f"It is {y_queries[worst]}, taken for {display.prediction}.")
for name, in_score, in_margin in zip(
    ["z1", "z2", "z3"], display.score_share, display.margin_share, strict=True
):
    print(f"{name}: {in_score:.0%} of the score, {in_margin:.0%} of the margin")
