"""
Another backbone: projections that are not square
=================================================

The bridge inverts the text projection W, which takes tokens of the text tower, of
width :math:`d_t`, to the joint space of images and texts, of width :math:`d`. In CLIP
ViT-B/16 both are 512. In RN50 tokens have 512 features and the joint space has 1,024.
The pseudo-inverse exists for every shape. If the joint space is wider, texts span only
part of it, and bridging removes the rest. Otherwise only the cut removes directions.

This example compares a *trained* ResNet with a wide projection, the bundled model, with
three ResNets of *random* weights, which open_clip creates here. The random models show
the effect of the shape; they say nothing about trained CLIP models.

On a trained one: ``python plot_backbones.py --model RN50 --data oxford_pets --root
FOLDER``, which needs its weights.
"""

# %%
# Four backbones
# --------------
# The three random models have the same image tower, from the same seed, and differ in
# the width of the text tower only. A folder with an open_clip configuration and weights
# can be given as a model.

import json
import tempfile
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import open_clip
import torch
from experiment import draw, load_experiment
from safetensors.torch import save_file

from skbridge import CLIPEmbedder, SemanticBridge, SeMoBridgeClassifier, TextHead


def save_random_resnet(folder, text_width, joint_width=96):
    """Write a ResNet CLIP with random weights; return its name."""
    config = {
        "embed_dim": joint_width,
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8},
        "text_cfg": {
            "context_length": 16,
            "vocab_size": 49408,
            "width": text_width,
            "heads": 4,
            "layers": 1,
        },
    }
    preprocess = {
        "mean": open_clip.OPENAI_DATASET_MEAN,
        "std": open_clip.OPENAI_DATASET_STD,
    }
    folder.mkdir()
    torch.manual_seed(0)
    weights = open_clip.model.CLIP(**config).state_dict()
    save_file(weights, folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": preprocess})
    )
    return f"local-dir:{folder}"


data = load_experiment()
folder = tempfile.TemporaryDirectory()
models = {data.model: data.model} | {
    f"random, {shape}": save_random_resnet(Path(folder.name) / shape, text_width)
    for shape, text_width in [("wide", 64), ("square", 96), ("tall", 128)]
}
embeddings = {
    name: CLIPEmbedder(model).fit_transform(data.images)
    for name, model in models.items()
}
heads = {
    name: TextHead.from_clip(
        data.class_names,
        model,
        templates=data.templates,
        classes=range(len(data.class_names)),
    )
    for name, model in models.items()
}

# %%
# The directions of each bridge
# -----------------------------
# The official cut removes singular values up to 0.3. Bridging removes the energy of the
# images outside the remaining directions.

print(f"{'':18}{'W':>12}{'directions':>16}{'energy removed':>18}")
for name, head in heads.items():
    X = embeddings[name]
    bridge = SemanticBridge(head).fit(X)
    removed = X - X @ bridge.inverse_projection_ @ head.projection
    energy = 100 * ((removed**2).sum(axis=1) / (X**2).sum(axis=1)).mean()
    n_tokens, n_joint = head.projection.shape
    directions = f"{np.linalg.matrix_rank(bridge.inverse_projection_)} of {n_joint}"
    shape = f"{n_tokens} x {n_joint}"
    print(f"{name:18}{shape:>12}{directions:>16}{energy:16.1f} %")

# %%
# Plain and bridged prototypes
# ----------------------------
# Four shots per class. A classifier without texts compares with plain prototypes;
# ``component_logits`` gives the three comparisons of a classifier with texts. With
# random weights the texts do not match the images: ``fit`` detects this on the shots,
# and warns.

comparisons = [
    "texts, z1",
    "plain prototypes",
    "bridged query, z2",
    "bridged shots, z3",
]
scores = {name: np.empty((len(comparisons), len(data.seeds))) for name in heads}
for name, head in heads.items():
    X = embeddings[name]
    plain = SeMoBridgeClassifier(texts=None)
    bridged = SeMoBridgeClassifier(texts=head)
    for i, seed in enumerate(data.seeds):
        shots, queries = draw(data, 4, seed)
        plain.fit(X[shots], data.target[shots])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            bridged.fit(X[shots], data.target[shots])
        z1, z2, z3 = bridged.component_logits(X[queries])
        logits = z1, plain.decision_function(X[queries]), z2, z3
        right = [z.argmax(axis=1) == data.target[queries] for z in logits]
        scores[name][:, i] = 100 * np.mean(right, axis=1)
    for warning in caught:
        print(f"{name} warns: {warning.message}\n")

chance = 100 / len(data.class_names)
print(f"Accuracy in %, mean ± standard deviation; {chance:.1f} % is chance")
print(f"{'':18}" + "".join(f"{comparison:>20}" for comparison in comparisons))
for name, values in scores.items():
    cells = [f"{v.mean():.1f} ± {v.std():.1f}" for v in values]
    print(f"{name:18}" + "".join(f"{cell:>20}" for cell in cells))

colours = ["#0072b2", "#e69f00", "#009e73", "#cc79a7"]
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
for (name, head), line, colour in zip(
    heads.items(), ["-", "--", "-.", ":"], colours, strict=True
):
    sizes = np.linalg.svd(head.projection, compute_uv=False)
    shape = "{} x {}".format(*head.projection.shape)
    ranks = np.arange(1, len(sizes) + 1)
    left.plot(ranks, sizes, line, color=colour, label=f"{name} ({shape})")
left.axhline(0.3, color="#555555", linewidth=0.8)
left.text(1, 0.33, "official cut", color="#555555", fontsize=8)
left.set(
    xlabel="rank of the singular value",
    ylabel="singular value",
    ylim=(0, None),
    title="Text projections",
)
left.legend(fontsize=8)

centres = np.arange(len(scores))
for i, (comparison, colour) in enumerate(zip(comparisons, colours, strict=True)):
    values = np.array([score[i] for score in scores.values()])
    right.errorbar(
        centres + 0.15 * (i - 1.5),
        values.mean(axis=1),
        values.std(axis=1),
        fmt="os^D"[i],
        color=colour,
        capsize=3,
        label=comparison,
    )
right.axhline(chance, color="#555555", linewidth=0.8)
right.text(-0.3, 1.1 * chance, "chance", color="#555555", fontsize=8)
right.set_yscale("log")
right.set_yticks([1, 2, 5, 10, 20, 50, 100], ["1", "2", "5", "10", "20", "50", "100"])
right.set_xticks(centres, [name.replace(", ", ",\n") for name in scores])
right.set(ylabel="accuracy (%), logarithmic", title="Four shots per class")
right.legend(fontsize=8)
plt.show()
folder.cleanup()

# %%
# The same code handles all shapes. The wider the joint space is relative to the text
# tower, the more bridging removes from the images of random models. The images of the
# trained model lie near the span of its texts and lose hardly any energy; its plain and
# bridged prototypes are equally accurate. With random weights, bridged shots (z3) are
# as accurate as plain ones, a little above chance, and the bridged *query* (z2) is at
# chance.
