"""Assignment of images to train, validation and test parts."""

import json
from collections import defaultdict
from hashlib import sha256
from pathlib import Path

from skbridge.datasets._files import in_order
from skbridge.datasets._imagenet import COOP


def find_split_file(name, dataset, folder, root, split_file):
    """Path of the split file to read, or None."""
    if split_file is None:
        return None
    if split_file != "auto":
        return Path(split_file).expanduser()
    if dataset.split_file is None:
        return None
    above = [folder.parent] if folder != root else []
    paths = (near / dataset.split_file for near in (folder, *above, root))
    return next((path for path in paths if path.exists()), None)


def read_split_file(path):
    """Read CoOp's JSON: train, val and test as lists of [path, label, name]."""
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
        parts = {
            part: [(image, int(label)) for image, label, _ in listed[part]]
            for part in ("train", "val", "test")
        }
        names = {
            int(label): name for rows in listed.values() for _, label, name in rows
        }
        return in_order(names), parts
    except FileNotFoundError:
        raise FileNotFoundError(
            "The 'split_file' parameter of load_few_shot_dataset must be 'auto', None "
            f"or the path of a split file. Got {str(path)!r}, which does not exist. "
            f"CoOp's split files: {COOP}"
        ) from None
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is not a split file as CoOp writes them: expected JSON with "
            "'train', 'val' and 'test', each a list of [path, label, class name]; "
            f"reading it gave {type(error).__name__}: {error}"
        ) from error


def _divide(items, *shares):
    """Divide the images of each class in SHA-256 order of their paths.

    Returns
    -------
    list of list
        One part per share, and one with the other images.
    """
    parts = [[] for _ in range(len(shares) + 1)]
    by_class = defaultdict(list)
    for item in items:
        by_class[item[1]].append(item)
    for images in by_class.values():
        images.sort(key=lambda item: sha256(item[0].encode()).digest())
        start = 0
        for part, share in zip(parts, shares, strict=False):
            stop = start + round(len(images) * share)
            part += images[start:stop]
            start = stop
        parts[-1] += images[start:]
    return parts


def complete_parts(parts):
    """Divide images that no list assigns, by the rule of `load_few_shot_dataset`.

    Parameters
    ----------
    parts : dict of str to list
        As a reader gives them.

    Returns
    -------
    parts : dict of str to list
    rule : str or None
        How images were assigned; None if the lists assign all.
    """
    if "all" in parts:
        train, val, test = _divide(parts["all"], 0.5, 0.2)
        rule = "of each class the first 50 % are train, 20 % val and the rest test"
        return {"train": train, "val": val, "test": test}, rule
    if "trainval" in parts:
        val, train = _divide(parts["trainval"], 0.2)
        rule = "of each class of the training images the first 20 % are val"
        return {"train": train, "val": val} | parts, rule
    return parts, None
