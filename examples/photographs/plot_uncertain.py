"""
===================================
Which predictions to look at
===================================

Most wrong predictions are uncertain ones.
:class:`~skbridge.inspection.ContactSheetDisplay` shows the most uncertain images first,
so that a person can check them.
"""

# %%
# A classifier of a few emoji styles, and images in other styles
# --------------------------------------------------------------

import numpy as np

from skbridge import make_few_shot_pipeline
from skbridge.datasets import load_emoji
from skbridge.inspection import ContactSheetDisplay

shots = load_emoji(styles=["noto", "twemoji", "fluent-emoji", "emojione"])
new = load_emoji(styles=["fxemoji", "fluent-emoji-flat"])
names = np.array(shots.target_names)

pipeline = make_few_shot_pipeline("skbridge-tiny")
pipeline.fit(list(shots.images), names[shots.target])

# %%
# The least certain predictions
# -----------------------------
# Above each image is the most probable class, below it the second. The bar shows their
# probabilities in blue and orange.

display = ContactSheetDisplay.from_estimator(pipeline, list(new.images), n_images=18)

# %%
# Most errors have a small margin
# -------------------------------
# The sheet is sorted by the margin, the difference of the two probabilities.

wrong = display.prediction != names[new.target]
first, last = np.array_split(display.order, 2)
print(f"wrong in the first half: {100 * wrong[first].mean():.0f} %")
print(f"wrong in the second half: {100 * wrong[last].mean():.0f} %")
