"""Photographs in folders, with a label for each."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
from sklearn.utils import Bunch
from sklearn.utils._param_validation import StrOptions, validate_params

from skbridge._messages import brief
from skbridge.datasets._label_file import find_label_file, read_labels
from skbridge.datasets._walk import LeftOut, scan, warn_of_lost_images, without_images

_UNLABELLED = ("unlabelled", "unlabeled")
_SPLITS = {"train", "training", "val", "valid", "validation", "dev", "test", "testing"}


@validate_params(
    {
        "path": [str, os.PathLike],
        "as_frame": ["boolean"],
        "return_X_y": ["boolean"],
        "check": [StrOptions({"header", "pixels"})],
    },
    prefer_skip_nested_validation=True,
)
def load_image_folder(path, *, as_frame=False, return_X_y=False, check="header"):
    """Load the paths and labels of images in a folder.

    The label of an image is the name of its class folder, or what a table in the
    folder says. Hidden files, files of other kinds and files that cannot be read are
    left out, each with a reason.

    Parameters
    ----------
    path : str or path-like
        The folder, in one of these layouts. ``~`` is the home folder.

        - One folder per class: ``path/cat/1.jpg``. Folders inside of a class folder
          belong to its class. Images in a folder ``unlabelled`` (or ``unlabeled``),
          and images beside the class folders, have no label.
        - A table ``labels.csv``, ``metadata.csv``, ``labels.jsonl`` or
          ``metadata.jsonl``, as for Hugging Face's ImageFolder: columns ``file_name``,
          a path relative to the folder, and ``label``. Images that it does not name,
          and those with an empty or null label, have no label. Names of folders then
          mean nothing.
    as_frame : bool, default=False
        Add a DataFrame of paths and labels, for which pandas is needed.
    return_X_y : bool, default=False
        Return ``(paths, target)`` instead of a Bunch.
    check : {"header", "pixels"}, default="header"
        Part of each file that is read. "header" finds files that are not images, and is
        quick; "pixels" decodes each image, and finds those that are cut off too.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        With these attributes:

        paths : list of str
            Each begins with `path`. They are sorted by folder, then by name.
        target : ndarray of shape (n_images,), object
            Label of each image, a string (or an integer, where the table is JSON and
            has integers); None where there is no label, as
            :class:`~skbridge.BridgedGDAClassifier` takes it.
        target_names : list
            The labels, sorted, each once.
        target_counts : dict
            Images of each label; under None those without one, if there are any.
        left_out : list of LeftOut
            `path`, `reason`, `is_image` and `is_unlisted` of each file or folder that
            is left out.
        frame : DataFrame with columns "path" and "label"
            Only with ``as_frame=True``.

    (paths, target) : tuple of list and ndarray
        With ``return_X_y=True``.

    Raises
    ------
    NotADirectoryError
        If `path` is not a folder.
    ValueError
        If there is no image that can be read, if the class folders are parts of a data
        set such as ``train`` and ``test``, or if a table of labels cannot be read.

    Warns
    -----
    UserWarning
        If files with the suffix of an image cannot be read, or a table names files
        that are not there.

    See Also
    --------
    list_images : The images of a folder without labels, to predict their classes.
    sample_few_shot : Draw shots from what this returns.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from PIL import Image
    >>> from skbridge.datasets import load_image_folder
    >>> with TemporaryDirectory() as folder:
    ...     for name in ("cat/1.jpg", "cat/2.PNG", "dog/1.jpeg", "unlabelled/7.webp"):
    ...         Path(folder, name).parent.mkdir(exist_ok=True)
    ...         Image.new("RGB", (8, 8)).save(Path(folder, name))
    ...     data = load_image_folder(folder)
    >>> data.target
    array(['cat', 'cat', 'dog', None], dtype=object)
    >>> data.target_counts
    {'cat': 2, 'dog': 1, None: 1}
    >>> [Path(path).name for path in data.paths]
    ['1.jpg', '2.PNG', '1.jpeg', '7.webp']
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise NotADirectoryError(
            "The 'path' parameter of load_image_folder must be a folder. Got "
            f"{brief(str(folder))}, which {what}."
        )
    table = find_label_file(folder)
    names, left_out = scan(folder, check, besides=(table,))
    if not names:
        raise ValueError(without_images(folder, left_out))
    if table is None:
        labels = _labels_of_folders(folder, names)
    else:
        labels, absent = _labels_of_table(folder, table, names, left_out)
        left_out = sorted([*left_out, *absent])
    warn_of_lost_images(folder, left_out)
    paths = [str(folder / name) for name in names]
    target = np.empty(len(labels), dtype=object)
    target[:] = labels
    if return_X_y:
        return paths, target
    counts = Counter(labels)
    target_names = sorted(label for label in counts if label is not None)
    order = [*target_names, *([None] if None in counts else [])]
    data = Bunch(
        paths=paths,
        target=target,
        target_names=target_names,
        target_counts={label: counts[label] for label in order},
        left_out=left_out,
    )
    if as_frame:
        data.frame = _frame(paths, target)
    return data


def _labels_of_folders(folder, names):
    """Take the topmost folder of each image as its label."""
    labels = []
    for name in names:
        label, _, below = name.partition("/")
        is_labelled = below and label.lower() not in _UNLABELLED
        labels.append(label if is_labelled else None)
    classes = {label for label in labels if label is not None}
    if len(classes) > 1 and {label.lower() for label in classes} <= _SPLITS:
        one = min(classes)
        raise ValueError(
            f"The folders in {brief(str(folder))} are parts of a data set, not "
            f"classes: {', '.join(sorted(classes))}. Load one of them: "
            f"load_image_folder({brief(str(folder / one))})."
        )
    return labels


def _labels_of_table(folder, table, names, left_out):
    """Look up the label of each image; list what the table names and is not there."""
    by_name = read_labels(folder / table)
    known = {
        *names,
        *(Path(one.path).relative_to(folder).as_posix() for one in left_out),
    }
    absent = [
        LeftOut(
            str(folder / name), f"{table} names it, and there is no such file", True
        )
        for name in by_name
        if name not in known
    ]
    if by_name.keys().isdisjoint(names):
        raise ValueError(
            f"{brief(str(folder / table))} names none of the {len(names)} images in "
            f"the folder, but for example {brief(next(iter(by_name), None))}. Write "
            f"paths relative to the folder, such as {brief(names[0])}."
        )
    return [by_name.get(name) for name in names], absent


def _frame(paths, target):
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError(
            "as_frame=True needs pandas: pip install pandas. Without it, use paths and "
            "target."
        ) from error
    return pd.DataFrame({"path": paths, "label": target})
