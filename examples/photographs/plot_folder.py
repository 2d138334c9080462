"""
====================================
Learn from a folder, predict another
====================================

One folder per class, a few images in each: that is all a classifier needs. The names of
the folders are the names of the classes.
"""

# %%
# Two folders
# -----------
# Some emoji are written to disk here, to stand for photographs: ``photos/`` has one
# folder per class with three images each, ``new/`` has images that nobody sorted.

import tempfile
from pathlib import Path

import joblib
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from skbridge import make_few_shot_pipeline
from skbridge.datasets import list_images, load_emoji, load_image_folder

work = Path(tempfile.mkdtemp())
emoji = load_emoji(styles=["noto", "twemoji", "emojione", "fxemoji"])
(work / "new").mkdir()
for i in np.flatnonzero(emoji.target < 40):
    name, style = emoji.target_names[emoji.target[i]], emoji.styles[i]
    folder = work / "photos" / name
    folder.mkdir(parents=True, exist_ok=True)
    path = work / "new" / f"{i}.png" if style == "fxemoji" else folder / f"{style}.png"
    Image.fromarray(emoji.images[i]).save(path)

# %%
# Learn
# -----
# :func:`~skbridge.datasets.load_image_folder` lists the images and their labels. The
# embedder of the pipeline reads the images; the classifier learns the classes from the
# embeddings and from the class names.

photos = load_image_folder(work / "photos")
pipeline = make_few_shot_pipeline("skbridge-tiny")
pipeline.fit(photos.paths, photos.target)
print(f"{len(photos.paths)} images, {len(photos.target_names)} classes")

# %%
# Predict
# -------
# Each new image has a label and a probability.

new = list_images(work / "new").paths
probabilities = pipeline.predict_proba(new)
predicted = pipeline.classes_[probabilities.argmax(axis=1)]

fig, axes = plt.subplots(2, 4, figsize=(6.4, 4), layout="constrained")
for ax, path, label, row in zip(axes.flat, new, predicted, probabilities, strict=False):
    ax.imshow(Image.open(path))
    ax.set_title(f"{label}\n{row.max():.0%}")
    ax.axis("off")

# %%
# Save
# ----
# The file has the arrays of the classifier and the name of the model, not its weights.

joblib.dump(pipeline, work / "photos.joblib", compress=3)
loaded = joblib.load(work / "photos.joblib")
print((loaded.predict(new) == predicted).all())
