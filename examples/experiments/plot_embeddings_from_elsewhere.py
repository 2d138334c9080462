"""
Embeddings from elsewhere
=========================

Image embeddings may come from another framework, a vector database or a paid service.
Which classifier can be fitted depends on the information about the *texts*. This
example fits the same images in four situations, from the whole output of the text tower
to no texts.

================================  ==========================================
Known about the texts             Text head
================================  ==========================================
EOS tokens and text projection    ``TextHead.from_arrays``
text features and a text bank     ``TextHead.from_features``, ``text_subspace``
text features only                ``TextHead.from_features``, ``identity``
no texts                          ``texts=None``
================================  ==========================================

On a data set on disk: ``python plot_embeddings_from_elsewhere.py --data oxford_pets
--root FOLDER``.
"""

# %%
# Arrays on disk
# --------------
# The bundled model writes its arrays to a file here; the blocks below use the file
# only. For a model of ``transformers``, the EOS tokens are ``CLIPTextModel``'s
# ``pooler_output``, and the projection is the transpose of ``text_projection.weight``.
# The bank is any list of varied prompts, without labels; here, the class names in seven
# templates.

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from experiment import draw, load_experiment

from skbridge import CLIPEmbedder, SeMoBridgeClassifier, TextHead

data = load_experiment()
embedder = CLIPEmbedder(data.model)
head = TextHead.from_clip(
    data.class_names, data.model, classes=range(len(data.class_names))
)
templates = ["a {}.", "the {}.", "a photo of a {}.", "a drawing of a {}."]
templates += ["an icon of a {}.", "a small {}.", "many {}."]

folder = tempfile.TemporaryDirectory()
file = Path(folder.name) / "elsewhere.npz"
np.savez(
    file,
    images=embedder.fit_transform(data.images),
    classes=data.class_names,
    tokens=head.eos,
    projection=head.projection,
    logit_scale=head.logit_scale,
    bank=embedder.encode_text(
        [template.format(name) for name in data.class_names for template in templates]
    ),
)

# %%
# Four text heads
# ---------------
# ``from_arrays`` with all arrays equals :meth:`~skbridge.TextHead.from_clip` up to
# rounding. A service gives text features only: their subspace replaces the row space of
# the projection.

known = np.load(file)
X, classes = known["images"], range(len(known["tokens"]))
logit_scale = float(known["logit_scale"])
texts = known["tokens"] @ known["projection"]

from_arrays = TextHead.from_arrays(
    classes, known["tokens"], known["projection"], logit_scale
)
with_bank = TextHead.from_features(
    classes, texts, text_bank=known["bank"], logit_scale=logit_scale
)
texts_only = TextHead.from_features(classes, texts, logit_scale=logit_scale)
for made in (from_arrays, with_bank, texts_only):
    print(made)

difference = np.abs(from_arrays.text_features - head.text_features).max()
print(f"from_arrays and from_clip differ by at most {difference:.0e}.")

# %%
# With ``bridge_rank=0.95`` the bridge spans 95 % of the energy of the bank; the weakest
# directions of the bank are rounding errors. ``lambda_3="auto"`` sets the weight of the
# shots from their number, without queries.

classifiers = {
    "tokens and projection": SeMoBridgeClassifier(texts=from_arrays, lambda_3="auto"),
    "texts and a bank": SeMoBridgeClassifier(
        texts=with_bank,
        bridge="text_subspace",
        bridge_rank=0.95,
        lambda_3="auto",
    ),
    "texts only": SeMoBridgeClassifier(
        texts=texts_only, bridge="identity", lambda_3="auto"
    ),
    "no texts": SeMoBridgeClassifier(texts=None),
}

# %%
# Accuracy of each
# ----------------
# Each style of emoji is the queries once, and the shots come from the others; all
# classifiers have the same shots.

scores = {name: np.empty((len(data.numbers), len(data.seeds))) for name in classifiers}
for i, n_shots in enumerate(data.numbers):
    for j, seed in enumerate(data.seeds):
        shots, queries = draw(data, n_shots, seed)
        for name, classifier in classifiers.items():
            classifier.fit(X[shots], data.target[shots])
            score = classifier.score(X[queries], data.target[queries])
            scores[name][i, j] = 100 * score

print(f"Accuracy in %, mean ± standard deviation over {len(data.seeds)} draws")
print(f"{'shots per class':24}" + "".join(f"{n:>14}" for n in data.numbers))
for name, values in scores.items():
    cells = [f"{v.mean():.1f} ± {v.std():.1f}" for v in values]
    print(f"{name:24}" + "".join(f"{cell:>14}" for cell in cells))

figure, axis = plt.subplots(figsize=(6.5, 4), layout="constrained")
looks = zip(
    ["o-", "s--", "^:", "D-."],
    ["#0072b2", "#009e73", "#e69f00", "#d55e00"],
    strict=True,
)
for i, (values, (line, colour)) in enumerate(zip(scores.values(), looks, strict=True)):
    axis.errorbar(
        np.arange(len(data.numbers)) + 0.06 * (i - 1.5),
        values.mean(axis=1),
        values.std(axis=1),
        fmt=line,
        color=colour,
        capsize=3,
    )
axis.set_xticks(range(len(data.numbers)), data.numbers)
axis.set(
    xlabel="shots per class",
    ylabel="accuracy (%)",
    title="The same images, with less known about the texts",
)
axis.legend(scores, title="known about the texts")
plt.show()
folder.cleanup()

# %%
# With the bundled model the four differ less than draws of the shots do. Its images lie
# almost entirely in the span of its texts (see
# :ref:`sphx_glr_auto_examples_experiments_plot_retrieval.py`), so that the projection,
# the subspace and no bridge give similar results. With a large CLIP model the first
# three differ more; :class:`~skbridge.FewShotSearchCV` compares them on held-out shots.
#
# Without a bank, ``bridge="text_subspace"`` takes the class texts themselves as the
# bank, and warns when they are few.
