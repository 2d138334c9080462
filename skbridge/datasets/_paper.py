"""The data sets of the SeMoBridge paper, read from folders on the user's disk.

torchvision's classes are not used: their file paths are private, they insist on folder
names other than CoOp's, and some unpack archives while loading.
"""

import os
from difflib import get_close_matches
from functools import cache
from os.path import basename, dirname, isdir
from pathlib import Path

import numpy as np
from sklearn.utils import Bunch

from skbridge._messages import brief
from skbridge.datasets._files import readable
from skbridge.datasets._splits import (
    complete_parts,
    find_split_file,
    read_split_file,
)
from skbridge.datasets._table import DATASETS, advice

_SPLITS = ("train", "val", "trainval", "test")

_DESCR = """\
{title}
{rule}

{n_images} images of {n_classes} classes, the part {split!r}, in {folder}.
Split: {split_source} ({split_text}).
Templates: {templates!r}, as CoOp (KaiyangZhou/CoOp, MIT licence) has set them.
Source: {source}
"""


def load_few_shot_dataset(
    name, root, *, split="test", split_file="auto", return_X_y=False
):
    """Load one of the paper's data sets from a folder on disk.

    Returns the paths of images, which :class:`~skbridge.CLIPEmbedder` takes. Nothing
    is downloaded.

    Parameters
    ----------
    name : str
        ``"caltech101"``, ``"dtd"``, ``"eurosat"``, ``"fgvc_aircraft"``,
        ``"food101"``, ``"imagenet"``, ``"imagenet_sketch"``, ``"imagenet_v2"``,
        ``"oxford_flowers"``, ``"oxford_pets"``, ``"stanford_cars"``,
        ``"sun397"`` or ``"ucf101"`` (the middle frame of each video).
    root : str or path-like
        The folder of the data sets' folders, in the layout of CoOp or of
        torchvision, or the folder of this data set itself.
    split : {"train", "val", "trainval", "test"}, default="test"
        Part to load. Shots are drawn from ``"train"``; ``"trainval"`` is both
        ``"train"`` and ``"val"``. ImageNetV2 and ImageNet-Sketch have ``"test"``
        only; of ImageNet the official validation images are ``"test"``.
    split_file : "auto", path-like or None, default="auto"
        CoOp's ``split_zhou_*.json``. ``"auto"`` takes the one in the data set's
        folder or the root, where there is one; None ignores it.
    return_X_y : bool, default=False
        Return ``(filenames, target)`` instead of a Bunch.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        With these attributes:

        filenames : list of str
            Path of each image, sorted by class and then by path.
        target : ndarray of shape (n_images,), int
            Class of each image, an index into `class_names`.
        class_names : list of str
            A name in words for each class, for ``class_names`` of
            :class:`~skbridge.CLIPTexts`. `target_names` is the same.
        templates : str
            Name of the data set's prompt template, for ``templates``.
        split_source : {"coop", "official", "hash"}
            ``"coop"``: CoOp's split file. ``"official"``: the lists of the data set's
            authors; where these name no validation images, a fifth of the training
            images, see Notes. ``"hash"``: the rule in Notes.
        DESCR : str
            Description of the data and their source.
        name, split : str
            As given.

    (filenames, target) : tuple of list and ndarray
        With ``return_X_y=True``.

    Raises
    ------
    TypeError
        If `root` is not a path.
    ValueError
        If `name` or `split` is unknown, the data set has no such split, or a file
        has unexpected content.
    FileNotFoundError
        If `root` does not contain the data set, or a file is missing. The message says
        which files to download and where to put them.

    See Also
    --------
    sample_few_shot : Draw shots from what this returns.
    load_emoji : A few-shot data set that comes with the package.

    Notes
    -----
    Without a split file, images that no list of the data set's authors assigns are
    assigned per class, in ascending order of the SHA-256 digests of their paths
    below the images' folder (UTF-8, with forward slashes). Where there is no list
    at all, the first 50 % of a class are ``"train"``, the next 20 % ``"val"`` and the
    rest ``"test"``. Where only ``"val"`` is missing, it is the first 20 % of the
    training images of each class. Numbers are rounded to the nearest integer, halves
    to even. These are CoOp's proportions but not its images: comparison with
    published results needs CoOp's files. For FGVC-Aircraft, CoOp uses the authors'
    lists.

    Class names are those of the split file where one is read. Otherwise they come
    from the folder: ImageNet's from CoOp's ``classnames.txt``,
    else torchvision's ``meta.bin``, else the list that open_clip comes with;
    those of Flowers from ``cat_to_name.json``, else the list in torchvision 0.22 or
    newer.

    Examples
    --------
    A folder in EuroSAT's layout, as small as can be:

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from PIL import Image
    >>> from skbridge.datasets import load_few_shot_dataset
    >>> with TemporaryDirectory() as root:
    ...     for kind in ("AnnualCrop", "River"):
    ...         folder = Path(root, "eurosat", "2750", kind)
    ...         folder.mkdir(parents=True)
    ...         for i in range(1, 11):
    ...             Image.new("RGB", (8, 8)).save(folder / f"{kind}_{i}.jpg")
    ...     data = load_few_shot_dataset("eurosat", root, split="test")
    >>> data.class_names
    ['Annual Crop', 'River']
    >>> data.target
    array([0, 0, 0, 1, 1, 1])
    >>> Path(data.filenames[0]).name, data.templates, data.split_source
    ('AnnualCrop_1.jpg', 'eurosat', 'hash')
    """
    root = _check_arguments(name, root, split)
    dataset = DATASETS[name]
    folder = _find_folder(name, dataset, root)
    path = find_split_file(name, dataset, folder, root, split_file)
    if path is not None:
        names, parts = read_split_file(path)
        source, text = "coop", str(path)
    else:
        names, parts, source, text = _read_parts(name, dataset, folder)
    filenames, target = _list_images(name, dataset, folder, parts, split)
    if return_X_y:
        return filenames, target
    class_names = [readable(one) for one in names]
    templates = dataset.templates or name
    descr = _DESCR.format(
        title=dataset.title,
        rule="=" * len(dataset.title),
        n_images=len(filenames),
        n_classes=len(class_names),
        split=split,
        folder=folder,
        split_source=source,
        split_text=text,
        templates=templates,
        source=dataset.source,
    )
    return Bunch(
        filenames=filenames,
        target=target,
        class_names=class_names,
        target_names=class_names,
        templates=templates,
        split_source=source,
        name=name,
        split=split,
        DESCR=descr,
    )


def _check_arguments(name, root, split):
    """Refuse unknown names; return the root as a path."""
    if name not in DATASETS:
        near = get_close_matches(str(name), DATASETS, n=1, cutoff=0.4)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            "The 'name' parameter of load_few_shot_dataset must be one of "
            f"{', '.join(DATASETS)}. Got {brief(name)} instead.{hint}"
        )
    if split not in _SPLITS:
        raise ValueError(
            "The 'split' parameter of load_few_shot_dataset must be one of "
            f"{', '.join(_SPLITS)}. Got {brief(split)} instead."
        )
    if not isinstance(root, str | os.PathLike):
        raise TypeError(
            "The 'root' parameter of load_few_shot_dataset must be a path. Got "
            f"{brief(root)} instead. {advice(DATASETS[name])}"
        )
    return Path(root).expanduser()


def _find_folder(name, dataset, root):
    if not root.is_dir():
        raise FileNotFoundError(
            f"The 'root' parameter of load_few_shot_dataset must be a folder "
            f"that contains {name}. Got {str(root)!r}, which is not a folder. "
            f"{advice(dataset)}"
        )
    for folder in (*(root / below for below in dataset.folders), root):
        if any(folder.glob(dataset.marker)):
            return folder
    raise FileNotFoundError(
        f"The 'root' parameter of load_few_shot_dataset must be a folder that contains "
        f"{name}. Got {str(root)!r}, which has none of its folders. {advice(dataset)}"
    )


def _read_parts(name, dataset, folder):
    """Read the lists or folders of a data set, and divide what they do not assign."""
    try:
        names, parts, lists = dataset.read(folder)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"load_few_shot_dataset found {name} in {folder}, without "
            f"{error.filename}. {advice(dataset)}"
        ) from error
    except (IndexError, KeyError) as error:
        raise ValueError(
            f"The files of {name} in {folder} do not fit together: a list names a "
            f"class or an image, {error}, that another one does not have. Download "
            "them again."
        ) from error
    parts, rule = complete_parts(parts)
    if rule is not None:
        rule = f"{rule}, in SHA-256 order of their paths"
    source = "hash" if lists is None else "official"
    return names, parts, source, "; ".join(filter(None, (lists, rule)))


def _list_images(name, dataset, folder, parts, split):
    """List paths and labels of a split, sorted by class and then by path."""
    wanted = ("train", "val") if split == "trainval" else (split,)
    if not set(wanted) <= parts.keys():
        raise ValueError(
            f"The 'split' parameter of load_few_shot_dataset is {split!r}, and "
            f"{name} in {folder} has {', '.join(sorted(parts))} only."
        )
    items = [item for part in wanted for item in parts[part]]
    items.sort(key=lambda item: (item[1], item[0]))
    images = folder / dataset.images
    filenames = [str(images / image) for image, _ in items]
    missing = _missing(filenames)
    if missing or not filenames:
        raise FileNotFoundError(
            f"{len(missing)} of the {len(filenames)} images of {name}, {split!r}, are "
            f"missing in {images}{': ' * bool(missing)}{', '.join(missing[:3])}. "
            f"{advice(dataset)}"
        )
    return filenames, np.array([label for _, label in items], dtype=int)


def _missing(filenames):
    """List the files that do not exist, looking into each folder once."""
    listing = cache(lambda folder: set(os.listdir(folder)) if isdir(folder) else ())
    return [path for path in filenames if basename(path) not in listing(dirname(path))]
