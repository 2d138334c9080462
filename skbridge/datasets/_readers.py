"""Readers of the paper's data sets, one for each layout of lists or folders.

A reader takes the folder of a data set and returns the class names, the parts, and
what assigns images to parts. A part is a list of (path below the images' folder,
label). The part "all" has yet to be divided, and so has "trainval" without "val".
"""

import json
import re
from pathlib import Path

import numpy as np

from skbridge.datasets._files import (
    class_folders,
    images_in,
    in_order,
    read_lines,
    readable,
)


def _read_mat(path, key):
    from scipy.io import loadmat

    # SciPy reports a missing file by name only if its path is a str.
    return np.atleast_1d(loadmat(str(path), squeeze_me=True)[key]).tolist()


def read_pets(folder):
    """Oxford-IIIT Pets: lists of names and labels."""
    names, parts = {}, {}
    for part in ("trainval", "test"):
        parts[part] = []
        for line in read_lines(folder / "annotations" / f"{part}.txt"):
            image, label = line.split()[:2]
            names[int(label) - 1] = readable(image.rpartition("_")[0]).lower()
            parts[part].append((f"{image}.jpg", int(label) - 1))
    return in_order(names), parts, "annotations/trainval.txt and test.txt"


def read_flowers(folder):
    """Oxford Flowers: labels and parts in MATLAB files."""
    labels = _read_mat(folder / "imagelabels.mat", "labels")
    items = [(f"image_{i:05d}.jpg", k - 1) for i, k in enumerate(labels, 1)]
    listed = folder / "cat_to_name.json"
    if listed.exists():
        by_label = json.loads(listed.read_text(encoding="utf-8"))
        names = [by_label[str(k)] for k in range(1, len(by_label) + 1)]
    else:
        from torchvision.datasets import Flowers102

        if not hasattr(Flowers102, "classes"):
            raise ValueError(
                f"The class names of Oxford Flowers are neither in {listed}, which "
                "does not exist, nor in torchvision, which lists them from release "
                "0.22 on. Copy CoOp's cat_to_name.json there, or update torch and "
                "torchvision."
            )
        names = Flowers102.classes
    if not (folder / "setid.mat").exists():
        return names, {"all": items}, None
    parts = {
        part: [items[i - 1] for i in _read_mat(folder / "setid.mat", key)]
        for part, key in (("train", "trnid"), ("val", "valid"), ("test", "tstid"))
    }
    return names, parts, "setid.mat"


def read_aircraft(folder):
    """FGVC-Aircraft: one list per part."""
    names = read_lines(folder / "variants.txt")
    codes = {name: k for k, name in enumerate(names)}
    parts = {}
    for part in ("train", "val", "test"):
        lines = read_lines(folder / f"images_variant_{part}.txt")
        rows = (line.split(" ", 1) for line in lines)
        parts[part] = [(f"{image}.jpg", codes[name]) for image, name in rows]
    return names, parts, "images_variant_train.txt, _val.txt and _test.txt"


def read_dtd(folder):
    """DTD: one folder per class, and the first of the authors' ten splits."""
    names = class_folders(folder / "images")
    if not (folder / "labels").exists():
        return names, {"all": images_in(folder / "images", names)}, None
    codes = {name: k for k, name in enumerate(names)}
    parts = {
        part: [
            (line, codes[line.partition("/")[0]])
            for line in read_lines(folder / "labels" / f"{part}1.txt")
        ]
        for part in ("train", "val", "test")
    }
    return names, parts, "labels/train1.txt, val1.txt and test1.txt"


def _in_words(name):
    """Divide a name in camel case: ``AnnualCrop`` is *Annual Crop*."""
    return " ".join(re.findall("[A-Z][^A-Z]*", name))


def read_eurosat(folder):
    """EuroSAT: one folder per class, and no lists."""
    kinds = class_folders(folder / "2750")
    items = images_in(folder / "2750", kinds)
    return [_in_words(kind) for kind in kinds], {"all": items}, None


def read_cars(folder):
    """Stanford Cars: annotations in MATLAB files."""
    # CoOp writes first the year that ends the original names.
    names = [
        " ".join(name.split()[-1:] + name.split()[:-1])
        for name in _read_mat(folder / "devkit" / "cars_meta.mat", "class_names")
    ]
    parts = {}
    for part, images, path in (
        ("trainval", "cars_train", "devkit/cars_train_annos.mat"),
        ("test", "cars_test", "cars_test_annos_withlabels.mat"),
    ):
        # Rows end in the class, counted from 1, and the file.
        rows = _read_mat(folder / path, "annotations")
        parts[part] = [(f"{images}/{row[-1]}", int(row[-2]) - 1) for row in rows]
    return names, parts, "cars_train_annos.mat and cars_test_annos_withlabels.mat"


def read_food(folder):
    """Food-101: JSON from class to images."""
    listed = {
        part: json.loads((folder / "meta" / f"{name}.json").read_text())
        for part, name in (("trainval", "train"), ("test", "test"))
    }
    names = sorted(set().union(*listed.values()))
    parts = {
        part: [
            (f"{image}.jpg", label)
            for label, name in enumerate(names)
            for image in images_by_name.get(name, ())
        ]
        for part, images_by_name in listed.items()
    }
    return names, parts, "meta/train.json and test.json"


def read_sun(folder):
    """SUN397: nested folders, and the first of the authors' ten splits."""
    lists = folder if (folder / "ClassName.txt").exists() else folder / "SUN397"
    scenes = [line.strip("/") for line in read_lines(lists / "ClassName.txt")]
    # a/apse/indoor is "indoor apse".
    names = [" ".join(reversed(scene.split("/")[1:])) for scene in scenes]
    if not (folder / "Training_01.txt").exists():
        return names, {"all": images_in(folder / "SUN397", scenes)}, None
    codes = {scene: k for k, scene in enumerate(scenes)}
    parts = {}
    for part, path in (("trainval", "Training_01.txt"), ("test", "Testing_01.txt")):
        images = [line.strip("/") for line in read_lines(folder / path)]
        parts[part] = [(image, codes[image.rpartition("/")[0]]) for image in images]
    return names, parts, "Training_01.txt and Testing_01.txt"


# The four folders whose names do not name a single object.
_CALTECH_NAMES = {
    "Faces": "face",
    "Leopards": "leopard",
    "Motorbikes": "motorbike",
    "airplanes": "airplane",
}


def read_caltech(folder):
    """Caltech101: one folder per class, and no lists."""
    images = folder / "101_ObjectCategories"
    # CoOp leaves out Faces_easy too, which shows the people of Faces, cropped.
    kinds = class_folders(images, without=("BACKGROUND_Google", "Faces_easy"))
    names = [_CALTECH_NAMES.get(kind, kind) for kind in kinds]
    return names, {"all": images_in(images, kinds)}, None


def read_ucf(folder):
    """UCF101: frames as images, and lists of videos."""
    lists = folder / "ucfTrainTestlist"
    rows = [line.split() for line in read_lines(lists / "classInd.txt")]
    codes = {action: int(k) - 1 for k, action in rows}
    names = {k: _in_words(action) for action, k in codes.items()}
    parts = {}
    for part, path in (("trainval", "trainlist01.txt"), ("test", "testlist01.txt")):
        parts[part] = []
        for line in read_lines(lists / path):
            action, _, video = line.split()[0].partition("/")
            image = f"{names[codes[action]].replace(' ', '_')}/{Path(video).stem}.jpg"
            parts[part].append((image, codes[action]))
    return in_order(names), parts, "trainlist01.txt and testlist01.txt"
