"""
Which terms of the loss matter
==============================

SeMoBridge-T learns the bridge, and a bias for each class, from the shots. Its loss has
an image term, two text terms, a consistency term and a regulariser of the bias. The
paper's table 3 compares subsets of them; this example does so with few shots and with
many.

On the paper's data: ``python plot_loss_terms.py --data oxford_pets --root FOLDER``.
"""

# %%
# The terms
# ---------
# ``lambda_it`` divides the weight between the image term (1) and the text terms (0),
# ``lambda_c`` weighs consistency, ``csb`` adds the class-specific bias and
# ``lambda_b`` weighs the regulariser of its norms. Each variant but the first two adds
# to the one before it.

import matplotlib.pyplot as plt
import numpy as np
from experiment import draw, load_experiment

from skbridge import CLIPEmbedder, SeMoBridgeClassifier, TextHead
from skbridge.inspection import LossCurveDisplay

data = load_experiment()
X, y = CLIPEmbedder(data.model).fit_transform(data.images), data.target
head = TextHead.from_clip(
    data.class_names,
    data.model,
    templates=data.templates,
    classes=range(len(data.class_names)),
)

variants = {
    "image only": {"lambda_it": 1, "lambda_c": 0, "csb": False},
    "text only": {"lambda_it": 0, "lambda_c": 0, "csb": False},
    "image + text": {"lambda_c": 0, "csb": False},
    "+ consistency": {"csb": False},
    "+ bias": {"lambda_b": 0},
    "+ its regulariser": {},
}

# %%
# Few shots and many
# ------------------
# Training takes 100 steps of the paper's AdamW at 20 times its rate, in place of 5,000.
# The blend is the same for all: texts, and bridged shots weighted by their number.
# Nothing was chosen on queries. All variants have the same shots and queries, so the
# figure shows the difference of each from the closed form.

training = {
    "mode": "trained",
    "solver": "adamw",
    "max_iter": 10 if data.quick else 100,
    "learning_rate": 3e-3,
}
few, many = data.numbers[0], data.numbers[-1]
seeds = data.seeds[::3]
gains = {n_shots: np.empty((len(variants), len(seeds))) for n_shots in (few, many)}
closed_form = SeMoBridgeClassifier(texts=head, lambda_3="auto")
for n_shots, gain in gains.items():
    before = np.empty(len(seeds))
    for j, seed in enumerate(seeds):
        shots, queries = draw(data, n_shots, seed)
        closed_form.fit(X[shots], y[shots])
        before[j] = 100 * closed_form.score(X[queries], y[queries])
        for i, variant in enumerate(variants.values()):
            trained = SeMoBridgeClassifier(
                texts=head, lambda_3="auto", **training | variant
            ).fit(X[shots], y[shots])
            gain[i, j] = 100 * trained.score(X[queries], y[queries]) - before[j]
    print(f"{n_shots} shot(s): closed form {before.mean():.1f} % right; training adds")
    for name, values in zip(variants, gain, strict=True):
        print(f"    {name:20}{values.mean():+6.1f} ± {values.std():.1f} points")

figure, axes = plt.subplots(
    1, 2, figsize=(9, 3.6), layout="constrained", sharex=True, sharey=True
)
for axis, (n_shots, gain) in zip(axes, gains.items(), strict=True):
    rows = np.arange(len(variants))
    axis.axvline(0, color="#555555", linewidth=0.8)
    axis.plot(gain, rows, ".", color="#999999")
    axis.plot(gain.mean(axis=1), rows, "D", color="#0072b2")
    axis.set_title(f"{n_shots} shot{'s' * (n_shots > 1)} per class")
axes[0].set_yticks(rows, variants)
axes[0].invert_yaxis()
figure.supxlabel(
    "points of accuracy that training adds to the closed form", fontsize=10
)
plt.show()

# %%
# A dot is a repetition, a diamond their mean. On the bundled emoji, training with one
# shot loses accuracy with all terms, and least with the image term alone. With many
# shots the image term gains. The text terms alone lose much; together with the image
# term they lose little. Consistency and the bias change hardly anything at this number
# of steps.
#
# The losses by step
# ------------------
# The last classifier fitted: many shots, all terms.

LossCurveDisplay.from_estimator(trained)
plt.show()
