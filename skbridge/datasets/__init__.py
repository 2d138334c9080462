"""Few-shot data: your own photographs, the bundled emoji, and the paper's data sets.

===============  ================================================================
`_image_folder`  `load_image_folder`: photographs in folders, with labels
`_label_file`    tables of labels beside the images
`_walk`          `list_images`: image files of a folder, and what is left out
`_emoji`         `load_emoji`: drawings that come with the package
`_sampling`      `sample_few_shot`: shots drawn from a larger set
`_paper`         `load_few_shot_dataset`: one of the paper's data sets
`_table`         where each of these lies, and its reader
`_readers`       one function per layout of lists and folders
`_imagenet`      the same for ImageNet and its variants
`_splits`        train, validation and test parts: CoOp's files, or a rule
`_files`         lists and folders, as the readers need them
===============  ================================================================

Loaders give images or their paths, with labels and class names, and know nothing of
classifiers. The layers from `_held_out` upwards may import this package, but only
users, examples and benchmarks do. It imports `_images`,
`_clip` and `_messages`.
"""

from skbridge.datasets._emoji import load_emoji
from skbridge.datasets._image_folder import load_image_folder
from skbridge.datasets._paper import load_few_shot_dataset
from skbridge.datasets._sampling import sample_few_shot
from skbridge.datasets._table import FEW_SHOT_DATASETS
from skbridge.datasets._walk import list_images

__all__ = [
    "FEW_SHOT_DATASETS",
    "list_images",
    "load_emoji",
    "load_few_shot_dataset",
    "load_image_folder",
    "sample_few_shot",
]
