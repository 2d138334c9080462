"""Table of the paper's data sets: where each lies, and which function reads it."""

from collections.abc import Callable
from dataclasses import dataclass

from skbridge.datasets import _readers as readers
from skbridge.datasets._imagenet import COOP, read_imagenet, read_imagenet_test


@dataclass(frozen=True)
class Dataset:
    """Location and reader of a data set.

    Attributes
    ----------
    title : str
    folders : tuple of str
        Where to look below the root; the root itself is tried last.
    marker : str
        Pattern of a file or folder that tells the right one of these.
    images : str
        Folder from which the paths of images start, those of CoOp's split file too.
    read : callable
        From the folder to class names, parts, and what assigns images to parts.
    source : str
        Where to download it.
    tree : tuple of str
        Files that it needs, for error messages.
    split_file : str or None
        Name of CoOp's split file.
    templates : str or None
        Name of its prompt template; None means that of the data set.
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

DATASETS = {
    "caltech101": Dataset(
        "Caltech101",
        folders=("caltech-101", "caltech101"),
        marker="101_ObjectCategories",
        images="101_ObjectCategories",
        read=readers.read_caltech,
        source="https://data.caltech.edu/records/mzrjq-6wc02",
        tree=("101_ObjectCategories/accordion/image_0001.jpg ...",),
        split_file="split_zhou_Caltech101.json",
    ),
    "dtd": Dataset(
        "Describable Textures (DTD)",
        folders=("dtd/dtd", "dtd"),
        marker="images",
        images="images",
        read=readers.read_dtd,
        source=f"{_OXFORD}/dtd/",
        tree=("images/banded/banded_0002.jpg ...", "labels/train1.txt ..."),
        split_file="split_zhou_DescribableTextures.json",
    ),
    "eurosat": Dataset(
        "EuroSAT (RGB)",
        folders=("eurosat",),
        marker="2750",
        images="2750",
        read=readers.read_eurosat,
        source="https://github.com/phelber/EuroSAT",
        tree=("2750/AnnualCrop/AnnualCrop_1.jpg ...",),
        split_file="split_zhou_EuroSAT.json",
    ),
    "fgvc_aircraft": Dataset(
        "FGVC-Aircraft",
        folders=("fgvc_aircraft", "fgvc-aircraft-2013b/data"),
        marker="images",
        images="images",
        read=readers.read_aircraft,
        source=f"{_OXFORD}/fgvc-aircraft/",
        tree=(
            "images/0034309.jpg ...",
            "variants.txt",
            "images_variant_train.txt, images_variant_val.txt, images_variant_test.txt",
        ),
    ),
    "food101": Dataset(
        "Food-101",
        folders=("food-101",),
        marker="images",
        images="images",
        read=readers.read_food,
        source="https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
        tree=("images/apple_pie/134.jpg ...", "meta/train.json, meta/test.json"),
        split_file="split_zhou_Food101.json",
    ),
    "imagenet": Dataset(
        "ImageNet (ILSVRC 2012)",
        folders=("imagenet/images", "imagenet"),
        marker="val",
        images="",
        read=read_imagenet,
        source="https://image-net.org",
        tree=(
            "images/train/n01440764/n01440764_18.JPEG ...",
            "images/val/n01440764/ILSVRC2012_val_00000293.JPEG ...",
            "classnames.txt (CoOp's), or torchvision's meta.bin",
        ),
    ),
    "imagenet_sketch": Dataset(
        "ImageNet-Sketch",
        folders=("imagenet-sketch/images", "imagenet-sketch/sketch", "sketch"),
        marker="n[0-9]*",
        images="",
        read=read_imagenet_test,
        source="https://github.com/HaohanWang/ImageNet-Sketch",
        tree=("images/n01440764/sketch_0.JPEG ...", "classnames.txt (CoOp's)"),
        templates="imagenet",
    ),
    "imagenet_v2": Dataset(
        "ImageNetV2 (matched frequency)",
        folders=(
            "imagenetv2/imagenetv2-matched-frequency-format-val",
            "imagenetv2-matched-frequency-format-val",
        ),
        marker="0",
        images="",
        read=read_imagenet_test,
        source="https://github.com/modestyachts/ImageNetV2",
        tree=("0/*.jpeg ... 999/*.jpeg", "classnames.txt (CoOp's)"),
        templates="imagenet",
    ),
    "oxford_flowers": Dataset(
        "Oxford Flowers 102",
        folders=("oxford_flowers", "flowers-102"),
        marker="jpg",
        images="jpg",
        read=readers.read_flowers,
        source=f"{_OXFORD}/flowers/102/",
        tree=(
            "jpg/image_00001.jpg ...",
            "imagelabels.mat",
            "setid.mat (optional: the authors' split)",
            "cat_to_name.json (CoOp's; optional with torchvision 0.22 or newer)",
        ),
        split_file="split_zhou_OxfordFlowers.json",
    ),
    "oxford_pets": Dataset(
        "Oxford-IIIT Pets",
        folders=("oxford_pets", "oxford-iiit-pet"),
        marker="images",
        images="images",
        read=readers.read_pets,
        source=f"{_OXFORD}/pets/",
        tree=("images/Abyssinian_1.jpg ...", "annotations/trainval.txt, test.txt"),
        split_file="split_zhou_OxfordPets.json",
    ),
    "stanford_cars": Dataset(
        "Stanford Cars",
        folders=("stanford_cars",),
        marker="cars_test",
        images="",
        read=readers.read_cars,
        source="https://ai.stanford.edu/~jkrause/cars/car_dataset.html",
        tree=(
            "cars_train/00001.jpg ...",
            "cars_test/00001.jpg ...",
            "devkit/cars_meta.mat, devkit/cars_train_annos.mat",
            "cars_test_annos_withlabels.mat",
        ),
        split_file="split_zhou_StanfordCars.json",
    ),
    "sun397": Dataset(
        "SUN397",
        folders=("sun397",),
        marker="SUN397",
        images="SUN397",
        read=readers.read_sun,
        source="https://vision.princeton.edu/projects/2010/SUN/",
        tree=(
            "SUN397/a/abbey/sun_aaalbzqrimafwbiv.jpg ...",
            "ClassName.txt (here or in SUN397/)",
            "Training_01.txt, Testing_01.txt (optional: the authors' split)",
        ),
        split_file="split_zhou_SUN397.json",
    ),
    "ucf101": Dataset(
        "UCF101, the middle frame of each video",
        folders=("ucf101",),
        marker="UCF-101-midframes",
        images="UCF-101-midframes",
        read=readers.read_ucf,
        source=f"{COOP} (frames), https://www.crcv.ucf.edu/data/UCF101.php (lists)",
        tree=(
            "UCF-101-midframes/Apply_Eye_Makeup/v_ApplyEyeMakeup_g01_c01.jpg ...",
            "ucfTrainTestlist/classInd.txt, trainlist01.txt, testlist01.txt",
        ),
        split_file="split_zhou_UCF101.json",
    ),
}

FEW_SHOT_DATASETS = tuple(DATASETS)


def advice(dataset):
    """Say what to download and where it goes."""
    tree = list(dataset.tree)
    if dataset.split_file is not None:
        tree.append(f"{dataset.split_file} (CoOp's split; optional, takes precedence)")
    indented = "".join(f"\n    {line}" for line in tree)
    return (
        f"Download {dataset.title} from {dataset.source} and lay it out as "
        f"ROOT/{' or ROOT/'.join(dataset.folders)} with{indented}\n"
        f"CoOp's files and layouts: {COOP}"
    )
