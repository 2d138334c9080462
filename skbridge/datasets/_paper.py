"""The data sets of the SeMoBridge paper, read from folders on the user's disk.

A data set is a row of `_DATASETS`: where it lies, and the function that reads its
lists. torchvision's classes are not used for that: they keep file paths private,
insist on folder names other than CoOp's, and some unpack archives on the way.
"""

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from hashlib import sha256
from os.path import basename, dirname, isdir
from pathlib import Path

import numpy as np
from sklearn.utils import Bunch

_SPLITS = ("train", "val", "trainval", "test")
_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
_COOP = "https://github.com/KaiyangZhou/CoOp/blob/main/DATASETS.md"

_DESCR = """\
{title}
{rule}

{n_images} images of {n_classes} classes, the part {split!r}, in {folder}.
Split: {split_source} ({split_text}).
Templates: {templates!r}, as CoOp (KaiyangZhou/CoOp, MIT licence) has set them.
Source: {source}
"""


def _readable(name):
    return name.replace("_", " ")


def _lines(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip()]


def _read_mat(path, key):
    from scipy.io import loadmat

    # Of a path that is not a str SciPy does not say that it does not exist.
    return np.atleast_1d(loadmat(str(path), squeeze_me=True)[key]).tolist()


def _in_order(names):
    """Make a list of names by label, from 0 without a gap."""
    return [names[k] for k in range(len(names))]


def _is_image(path):
    return path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")


def _class_folders(folder, without=()):
    return sorted(
        path.name
        for path in folder.iterdir()
        if path.is_dir() and path.name not in without and path.name[0] != "."
    )


def _images_in(images, names, labels=None):
    """List the images of class folders, with the folders' places or `labels`."""
    labels = range(len(names)) if labels is None else labels
    return [
        (f"{name}/{path.name}", label)
        for name, label in zip(names, labels, strict=True)
        for path in (images / name).iterdir()
        if _is_image(path)
    ]


# Readers: folder of the data set -> class names, parts, where the parts come from.
# A part is a list of (path below the images, label). "all" is yet to be divided;
# "trainval" without "val" too.


def _read_pets(folder):
    names, parts = {}, {}
    for part in ("trainval", "test"):
        parts[part] = []
        for line in _lines(folder / "annotations" / f"{part}.txt"):
            image, label = line.split()[:2]
            names[int(label) - 1] = _readable(image.rpartition("_")[0]).lower()
            parts[part].append((f"{image}.jpg", int(label) - 1))
    return _in_order(names), parts, "annotations/trainval.txt and test.txt"


def _read_flowers(folder):
    labels = _read_mat(folder / "imagelabels.mat", "labels")
    items = [(f"image_{i:05d}.jpg", k - 1) for i, k in enumerate(labels, 1)]
    listed = folder / "cat_to_name.json"
    if listed.exists():
        by_label = json.loads(listed.read_text(encoding="utf-8"))
        names = [by_label[str(k)] for k in range(1, len(by_label) + 1)]
    else:
        from torchvision.datasets import Flowers102

        names = Flowers102.classes
    if not (folder / "setid.mat").exists():
        return names, {"all": items}, None
    parts = {
        part: [items[i - 1] for i in _read_mat(folder / "setid.mat", key)]
        for part, key in (("train", "trnid"), ("val", "valid"), ("test", "tstid"))
    }
    return names, parts, "setid.mat"


def _read_aircraft(folder):
    names = _lines(folder / "variants.txt")
    codes = {name: k for k, name in enumerate(names)}
    parts = {}
    for part in ("train", "val", "test"):
        lines = _lines(folder / f"images_variant_{part}.txt")
        rows = (line.split(" ", 1) for line in lines)
        parts[part] = [(f"{image}.jpg", codes[name]) for image, name in rows]
    return names, parts, "images_variant_train.txt, _val.txt and _test.txt"


def _read_dtd(folder):
    names = _class_folders(folder / "images")
    if not (folder / "labels").exists():
        return names, {"all": _images_in(folder / "images", names)}, None
    codes = {name: k for k, name in enumerate(names)}
    parts = {
        part: [
            (line, codes[line.partition("/")[0]])
            for line in _lines(folder / "labels" / f"{part}1.txt")
        ]
        for part in ("train", "val", "test")
    }
    return names, parts, "labels/train1.txt, val1.txt and test1.txt"


def _in_words(name):
    """Divide a name in camel case: ``AnnualCrop`` is *Annual Crop*."""
    return " ".join(re.findall("[A-Z][^A-Z]*", name))


def _read_eurosat(folder):
    kinds = _class_folders(folder / "2750")
    items = _images_in(folder / "2750", kinds)
    return [_in_words(kind) for kind in kinds], {"all": items}, None


def _read_cars(folder):
    # The year last in the original names goes first, as CoOp writes them.
    names = [
        " ".join(name.split()[-1:] + name.split()[:-1])
        for name in _read_mat(folder / "devkit" / "cars_meta.mat", "class_names")
    ]
    parts = {}
    for part, place, path in (
        ("trainval", "cars_train", "devkit/cars_train_annos.mat"),
        ("test", "cars_test", "cars_test_annos_withlabels.mat"),
    ):
        # Rows end in the class, counted from 1, and the file.
        rows = _read_mat(folder / path, "annotations")
        parts[part] = [(f"{place}/{row[-1]}", int(row[-2]) - 1) for row in rows]
    return names, parts, "cars_train_annos.mat and cars_test_annos_withlabels.mat"


def _read_food(folder):
    listed = {
        part: json.loads((folder / "meta" / f"{name}.json").read_text())
        for part, name in (("trainval", "train"), ("test", "test"))
    }
    names = sorted(set().union(*listed.values()))
    parts = {
        part: [
            (f"{image}.jpg", label)
            for label, name in enumerate(names)
            for image in of_class.get(name, ())
        ]
        for part, of_class in listed.items()
    }
    return names, parts, "meta/train.json and test.json"


def _read_sun(folder):
    lists = folder if (folder / "ClassName.txt").exists() else folder / "SUN397"
    places = [line.strip("/") for line in _lines(lists / "ClassName.txt")]
    # a/apse/indoor is "indoor apse".
    names = [" ".join(reversed(place.split("/")[1:])) for place in places]
    if not (folder / "Training_01.txt").exists():
        return names, {"all": _images_in(folder / "SUN397", places)}, None
    codes = {place: k for k, place in enumerate(places)}
    parts = {}
    for part, path in (("trainval", "Training_01.txt"), ("test", "Testing_01.txt")):
        images = [line.strip("/") for line in _lines(folder / path)]
        parts[part] = [(i, codes[i.rpartition("/")[0]]) for i in images]
    return names, parts, "Training_01.txt and Testing_01.txt"


# The four folders whose names are not what one calls a single object.
_CALTECH_NAMES = {
    "Faces": "face",
    "Leopards": "leopard",
    "Motorbikes": "motorbike",
    "airplanes": "airplane",
}


def _read_caltech(folder):
    images = folder / "101_ObjectCategories"
    # Faces_easy shows the people of Faces, cropped: CoOp leaves it out as well.
    kinds = _class_folders(images, without=("BACKGROUND_Google", "Faces_easy"))
    names = [_CALTECH_NAMES.get(kind, kind) for kind in kinds]
    return names, {"all": _images_in(images, kinds)}, None


def _read_ucf(folder):
    lists = folder / "ucfTrainTestlist"
    rows = [line.split() for line in _lines(lists / "classInd.txt")]
    codes = {action: int(k) - 1 for k, action in rows}
    names = {k: _in_words(action) for action, k in codes.items()}
    parts = {}
    for part, path in (("trainval", "trainlist01.txt"), ("test", "testlist01.txt")):
        parts[part] = []
        for line in _lines(lists / path):
            action, _, video = line.split()[0].partition("/")
            image = f"{names[codes[action]].replace(' ', '_')}/{Path(video).stem}.jpg"
            parts[part].append((image, codes[action]))
    return _in_order(names), parts, "trainlist01.txt and testlist01.txt"


def _imagenet_classes(folder):
    """WordNet ids and class names in the order of ImageNet's labels.

    Names come from CoOp's ``classnames.txt``, else from torchvision's ``meta.bin``,
    in the folder, one of the two above it or the ``imagenet`` folders beside those;
    where there is neither they are open_clip's, and the ids are not known.
    """
    places = [folder, *list(folder.absolute().parents)[:2]]
    places += [place / "imagenet" for place in places[1:]]
    for place in places:
        if (place / "classnames.txt").exists():
            rows = (line.partition(" ") for line in _lines(place / "classnames.txt"))
            named = {wnid: name.strip() for wnid, _, name in rows}
            break
        if (place / "meta.bin").exists():
            import torch

            meta, _ = torch.load(place / "meta.bin", weights_only=True)
            named = {wnid: names[0] for wnid, names in meta.items()}
            break
    else:
        from skbridge._clip.open_clip import imagenet_class_names

        return None, imagenet_class_names()
    wnids = sorted(named)
    return wnids, [named[wnid] for wnid in wnids]


def _imagenet_part(folder, images):
    """Read a folder of one folder a class, named by WordNet id or by label."""
    wnids, names = _imagenet_classes(folder)
    found = _class_folders(images)
    if all(name.isdecimal() for name in found):
        codes = {str(k): k for k in range(len(names))}
    else:
        codes = {wnid: k for k, wnid in enumerate(found if wnids is None else wnids)}
    if not found:
        raise ValueError(
            f"{images} has no class folders. Images must lie in one folder a class, "
            "named like n01440764; those of ImageNet's 'val' come without."
        )
    if len(codes) != len(names) or not codes.keys() >= set(found):
        raise ValueError(
            f"{images} has {len(found)} class folders, and they are not those of the "
            f"{len(names)} class names found. Put a classnames.txt (lines 'n01440764 "
            f"tench', see {_COOP}) beside the images."
        )
    return names, _images_in(images, found, [codes[name] for name in found])


def _read_imagenet(folder):
    parts = {}
    for part, name in (("trainval", "train"), ("test", "val")):
        # One part is enough to be of use: training images are 138 GB.
        if (folder / name).exists():
            names, items = _imagenet_part(folder, folder / name)
            parts[part] = [(f"{name}/{image}", label) for image, label in items]
    return names, parts, "train/ and val/, the latter being 'test'"


def _read_imagenet_test(folder):
    names, items = _imagenet_part(folder, folder)
    return names, {"test": items}, "all images are 'test'"


@dataclass(frozen=True)
class _Dataset:
    """Where a data set lies, and how to read it.

    `folders` are tried below the root, then the root itself; `marker` is a pattern
    that only the right one has. The paths of CoOp's split file begin at `images`.
    """

    title: str
    folders: tuple[str, ...]
    marker: str
    images: str
    read: Callable
    source: str
    tree: tuple[str, ...]
    split_file: str | None = None
    templates: str | None = None


_OXFORD = "https://www.robots.ox.ac.uk/~vgg/data"

_DATASETS = {
    "caltech101": _Dataset(
        "Caltech101",
        folders=("caltech-101", "caltech101"),
        marker="101_ObjectCategories",
        images="101_ObjectCategories",
        read=_read_caltech,
        source="https://data.caltech.edu/records/mzrjq-6wc02",
        tree=("101_ObjectCategories/accordion/image_0001.jpg ...",),
        split_file="split_zhou_Caltech101.json",
    ),
    "dtd": _Dataset(
        "Describable Textures (DTD)",
        folders=("dtd/dtd", "dtd"),
        marker="images",
        images="images",
        read=_read_dtd,
        source=f"{_OXFORD}/dtd/",
        tree=("images/banded/banded_0002.jpg ...", "labels/train1.txt ..."),
        split_file="split_zhou_DescribableTextures.json",
    ),
    "eurosat": _Dataset(
        "EuroSAT (RGB)",
        folders=("eurosat",),
        marker="2750",
        images="2750",
        read=_read_eurosat,
        source="https://github.com/phelber/EuroSAT",
        tree=("2750/AnnualCrop/AnnualCrop_1.jpg ...",),
        split_file="split_zhou_EuroSAT.json",
    ),
    "fgvc_aircraft": _Dataset(
        "FGVC-Aircraft",
        folders=("fgvc_aircraft", "fgvc-aircraft-2013b/data"),
        marker="images",
        images="images",
        read=_read_aircraft,
        source=f"{_OXFORD}/fgvc-aircraft/",
        tree=(
            "images/0034309.jpg ...",
            "variants.txt",
            "images_variant_train.txt, images_variant_val.txt, images_variant_test.txt",
        ),
    ),
    "food101": _Dataset(
        "Food-101",
        folders=("food-101",),
        marker="images",
        images="images",
        read=_read_food,
        source="https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
        tree=("images/apple_pie/134.jpg ...", "meta/train.json, meta/test.json"),
        split_file="split_zhou_Food101.json",
    ),
    "imagenet": _Dataset(
        "ImageNet (ILSVRC 2012)",
        folders=("imagenet/images", "imagenet"),
        marker="val",
        images="",
        read=_read_imagenet,
        source="https://image-net.org",
        tree=(
            "images/train/n01440764/n01440764_18.JPEG ...",
            "images/val/n01440764/ILSVRC2012_val_00000293.JPEG ...",
            "classnames.txt (CoOp's), or torchvision's meta.bin",
        ),
    ),
    "imagenet_sketch": _Dataset(
        "ImageNet-Sketch",
        folders=("imagenet-sketch/images", "imagenet-sketch/sketch", "sketch"),
        marker="n[0-9]*",
        images="",
        read=_read_imagenet_test,
        source="https://github.com/HaohanWang/ImageNet-Sketch",
        tree=("images/n01440764/sketch_0.JPEG ...", "classnames.txt (CoOp's)"),
        templates="imagenet",
    ),
    "imagenet_v2": _Dataset(
        "ImageNetV2 (matched frequency)",
        folders=(
            "imagenetv2/imagenetv2-matched-frequency-format-val",
            "imagenetv2-matched-frequency-format-val",
        ),
        marker="0",
        images="",
        read=_read_imagenet_test,
        source="https://github.com/modestyachts/ImageNetV2",
        tree=("0/*.jpeg ... 999/*.jpeg", "classnames.txt (CoOp's)"),
        templates="imagenet",
    ),
    "oxford_flowers": _Dataset(
        "Oxford Flowers 102",
        folders=("oxford_flowers", "flowers-102"),
        marker="jpg",
        images="jpg",
        read=_read_flowers,
        source=f"{_OXFORD}/flowers/102/",
        tree=(
            "jpg/image_00001.jpg ...",
            "imagelabels.mat",
            "setid.mat (optional: the authors' split)",
            "cat_to_name.json (CoOp's; optional where torchvision is installed)",
        ),
        split_file="split_zhou_OxfordFlowers.json",
    ),
    "oxford_pets": _Dataset(
        "Oxford-IIIT Pets",
        folders=("oxford_pets", "oxford-iiit-pet"),
        marker="images",
        images="images",
        read=_read_pets,
        source=f"{_OXFORD}/pets/",
        tree=("images/Abyssinian_1.jpg ...", "annotations/trainval.txt, test.txt"),
        split_file="split_zhou_OxfordPets.json",
    ),
    "stanford_cars": _Dataset(
        "Stanford Cars",
        folders=("stanford_cars",),
        marker="cars_test",
        images="",
        read=_read_cars,
        source="https://ai.stanford.edu/~jkrause/cars/car_dataset.html",
        tree=(
            "cars_train/00001.jpg ...",
            "cars_test/00001.jpg ...",
            "devkit/cars_meta.mat, devkit/cars_train_annos.mat",
            "cars_test_annos_withlabels.mat",
        ),
        split_file="split_zhou_StanfordCars.json",
    ),
    "sun397": _Dataset(
        "SUN397",
        folders=("sun397",),
        marker="SUN397",
        images="SUN397",
        read=_read_sun,
        source="https://vision.princeton.edu/projects/2010/SUN/",
        tree=(
            "SUN397/a/abbey/sun_aaalbzqrimafwbiv.jpg ...",
            "ClassName.txt (here or in SUN397/)",
            "Training_01.txt, Testing_01.txt (optional: the authors' split)",
        ),
        split_file="split_zhou_SUN397.json",
    ),
    "ucf101": _Dataset(
        "UCF101, the middle frame of each video",
        folders=("ucf101",),
        marker="UCF-101-midframes",
        images="UCF-101-midframes",
        read=_read_ucf,
        source=f"{_COOP} (frames), https://www.crcv.ucf.edu/data/UCF101.php (lists)",
        tree=(
            "UCF-101-midframes/Apply_Eye_Makeup/v_ApplyEyeMakeup_g01_c01.jpg ...",
            "ucfTrainTestlist/classInd.txt, trainlist01.txt, testlist01.txt",
        ),
        split_file="split_zhou_UCF101.json",
    ),
}

FEW_SHOT_DATASETS = tuple(_DATASETS)


def _advice(dataset):
    """Say what to download and where it goes."""
    tree = list(dataset.tree)
    if dataset.split_file is not None:
        tree.append(f"{dataset.split_file} (CoOp's split; optional, takes precedence)")
    indented = "".join(f"\n    {line}" for line in tree)
    return (
        f"Download {dataset.title} from {dataset.source} and lay it out as "
        f"ROOT/{' or ROOT/'.join(dataset.folders)} with{indented}\n"
        f"CoOp's files and layouts: {_COOP}"
    )


def _find_folder(name, dataset, root):
    if not root.is_dir():
        raise FileNotFoundError(
            f"The 'root' parameter of load_few_shot_dataset must be a folder that "
            f"holds {name}. Got {str(root)!r}, which is no folder. {_advice(dataset)}"
        )
    for folder in (*(root / place for place in dataset.folders), root):
        if any(folder.glob(dataset.marker)):
            return folder
    raise FileNotFoundError(
        f"The 'root' parameter of load_few_shot_dataset must be a folder that holds "
        f"{name}. Got {str(root)!r}, which has none of its folders. {_advice(dataset)}"
    )


def _find_split_file(name, dataset, folder, root, split_file):
    """Path of the split file to read, None where there is none to read."""
    if split_file is None:
        return None
    if split_file != "auto":
        return Path(split_file).expanduser()
    if dataset.split_file is None:
        return None
    above = [folder.parent] if folder != root else []
    places = (place / dataset.split_file for place in (folder, *above, root))
    return next((path for path in places if path.exists()), None)


def _read_split_file(path):
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
        return _in_order(names), parts
    except FileNotFoundError:
        raise FileNotFoundError(
            "The 'split_file' parameter of load_few_shot_dataset must be 'auto', None "
            f"or the path of a split file. Got {str(path)!r}, which does not exist. "
            f"CoOp's split files: {_COOP}"
        ) from None
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is not a split file as CoOp writes them: expected JSON with "
            "'train', 'val' and 'test', each a list of [path, label, class name]; "
            f"reading it gave {type(error).__name__}: {error}"
        ) from error


def _divide(items, *shares):
    """Divide the images of every class in SHA-256 order of their paths."""
    parts = [[] for _ in range(len(shares) + 1)]
    by_class = {}
    for item in items:
        by_class.setdefault(item[1], []).append(item)
    for of_class in by_class.values():
        of_class.sort(key=lambda item: sha256(item[0].encode()).digest())
        start = 0
        for part, share in zip(parts, shares, strict=False):
            stop = start + round(len(of_class) * share)
            part += of_class[start:stop]
            start = stop
        parts[-1] += of_class[start:]
    return parts


def _complete(parts):
    """Make the parts that a data set does not come with, and say how."""
    if "all" in parts:
        train, val, test = _divide(parts["all"], 0.5, 0.2)
        text = "of each class the first 50 % are train, 20 % val and the rest test"
        return {"train": train, "val": val, "test": test}, text
    if "trainval" in parts:
        val, train = _divide(parts["trainval"], 0.2)
        text = "of each class of the training images the first 20 % are val"
        return {"train": train, "val": val} | parts, text
    return parts, None


def _missing(filenames):
    """List the files that do not exist, looking into each folder once."""
    listing = cache(lambda folder: set(os.listdir(folder)) if isdir(folder) else ())
    return [path for path in filenames if basename(path) not in listing(dirname(path))]


def load_few_shot_dataset(
    name, root, *, split="test", split_file="auto", return_X_y=False
):
    """Load one of the paper's data sets from a folder on disk.

    Images stay on disk: what is returned are their paths, which
    :class:`~skbridge.CLIPEmbedder` takes. Nothing is downloaded.

    Parameters
    ----------
    name : str
        ``"caltech101"``, ``"dtd"``, ``"eurosat"``, ``"fgvc_aircraft"``,
        ``"food101"``, ``"imagenet"``, ``"imagenet_sketch"``, ``"imagenet_v2"``,
        ``"oxford_flowers"``, ``"oxford_pets"``, ``"stanford_cars"``,
        ``"sun397"`` or ``"ucf101"`` (the middle frame of each video).
    root : str or path-like
        The folder that holds the data sets' folders, in the layout of CoOp or of
        torchvision, or the folder of this data set itself.
    split : {"train", "val", "trainval", "test"}, default="test"
        Which images. Shots are drawn from ``"train"``; ``"trainval"`` is both
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
            :class:`~skbridge.SeMoBridgeClassifier`. `target_names` is the same.
        templates : str
            Name of the data set's prompt template, for ``templates``.
        split_source : {"coop", "official", "hash"}
            ``"coop"``: CoOp's split file. ``"official"``: the lists that come with
            the data set; where those know no validation images, a fifth of the
            training images, see Notes. ``"hash"``: all by the rule in Notes.
        DESCR : str
            What was read, and from where.
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
        does not hold what it should.
    FileNotFoundError
        If `root` does not hold the data set, or a file of it is missing. The
        message says what to download and how to lay it out.

    See Also
    --------
    sample_few_shot : Draw shots from what this returns.
    load_emoji : A few-shot data set that comes with the package.

    Notes
    -----
    Without a split file, images that no list of the data set's authors assigns are
    assigned by class, in ascending order of the SHA-256 digests of their paths
    below the images' folder (UTF-8, with forward slashes). Where there is no list
    at all the first 50 % of a class are ``"train"``, the next 20 % ``"val"``, the
    rest ``"test"``; where only ``"val"`` is missing the first 20 % of the class's
    training images are. Numbers are rounded to the nearest, halves to even. These
    are CoOp's proportions but not its images: figures of the literature need its
    files. FGVC-Aircraft's own lists are the ones that CoOp takes.

    Class names are those of the split file where one is read. Otherwise they are
    made from what lies in the folder: ImageNet's from CoOp's ``classnames.txt``,
    else torchvision's ``meta.bin``, else the list that open_clip comes with;
    Flowers' from ``cat_to_name.json``, else torchvision's list.

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
    if name not in _DATASETS:
        near = get_close_matches(str(name), _DATASETS, n=1, cutoff=0.4)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"The 'name' parameter of load_few_shot_dataset must be one of "
            f"{', '.join(_DATASETS)}. Got {name!r} instead.{hint}"
        )
    if split not in _SPLITS:
        raise ValueError(
            f"The 'split' parameter of load_few_shot_dataset must be one of "
            f"{', '.join(_SPLITS)}. Got {split!r} instead."
        )
    dataset = _DATASETS[name]
    if not isinstance(root, str | os.PathLike):
        raise TypeError(
            f"The 'root' parameter of load_few_shot_dataset must be a path. Got "
            f"{root!r} instead. {_advice(dataset)}"
        )
    root = Path(root).expanduser()
    folder = _find_folder(name, dataset, root)
    path = _find_split_file(name, dataset, folder, root, split_file)
    if path is not None:
        names, parts = _read_split_file(path)
        source, text = "coop", str(path)
    else:
        try:
            names, parts, lists = dataset.read(folder)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"load_few_shot_dataset found {name} in {folder}, without "
                f"{error.filename}. {_advice(dataset)}"
            ) from error
        except (IndexError, KeyError) as error:
            raise ValueError(
                f"The files of {name} in {folder} do not fit together: a list names a "
                f"class or an image, {error}, that another one does not have."
            ) from error
        parts, rule = _complete(parts)
        source = "hash" if lists is None else "official"
        rule = rule and f"{rule}, in SHA-256 order of their paths"
        text = "; ".join(filter(None, (lists, rule)))

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
            f"{_advice(dataset)}"
        )
    target = np.array([label for _, label in items], dtype=int)
    if return_X_y:
        return filenames, target
    class_names = [_readable(one) for one in names]
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
