"""Classification of folders of photographs, with reviewed predictions.

The functions of the command line: ``skbridge fit`` is `fit_photos`, ``skbridge
predict`` is `PhotoModel.predict`, ``skbridge report`` is `write_report`.

==============  ===================================================================
`_corrections`  labels that a person corrected
`_model`        `PhotoModel`: embedder, classifier and the shots it was fitted on
`_file`         its file: JSON and arrays, with a digest, and no pickle
`_held_out`     what the shots themselves tell of accuracy and of unknown images
`_report`       `write_report`: one HTML page to look at; its parts are in ``report/``
`_sort`         copies of photographs in one folder per label
==============  ===================================================================

Only users and the command line import this package; it imports `review` and the layers
below.
"""

from skbridge.photos._corrections import apply_corrections, read_corrections
from skbridge.photos._model import PhotoModel, fit_photos
from skbridge.photos._report import write_report
from skbridge.photos._sort import sort_photos

__all__ = [
    "PhotoModel",
    "apply_corrections",
    "fit_photos",
    "read_corrections",
    "sort_photos",
    "write_report",
]
