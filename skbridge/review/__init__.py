"""Review of labels: wrong labels, images to label next, near-duplicates.

Functions from embeddings, and a classifier, to row numbers and scores. They need no
images, work in blocks of rows, and never allocate a matrix of all pairs.

==============  ===================================================================
`_held_out`     scores of each shot from a classifier that was fitted without it
`_labels`       `suspicious_labels`: labels that the other shots contradict
`_curve`        `shot_curve`: whether more shots would help
`_pool`         `label_next`: images of a pool that are most worth a label
`_duplicates`   `near_duplicates`: rows that are nearly equal
`_nearest`      most similar rows, in blocks
==============  ===================================================================
"""

from skbridge.review._curve import shot_curve
from skbridge.review._duplicates import near_duplicates
from skbridge.review._labels import suspicious_labels
from skbridge.review._pool import label_next

__all__ = [
    "label_next",
    "near_duplicates",
    "shot_curve",
    "suspicious_labels",
]
