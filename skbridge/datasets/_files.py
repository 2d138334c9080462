"""Folders and lists of a data set, as every reader needs them."""

_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}


def readable(name):
    """Write a name in words: ``_`` separates them in files."""
    return name.replace("_", " ")


def read_lines(path):
    """Read the lines of a list that are not blank."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip()]


def in_order(names):
    """List names by label; labels run from 0 without a gap."""
    return [names[k] for k in range(len(names))]


def _is_image(path):
    return path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")


def class_folders(folder, without=()):
    """Sort the names of the folders of classes."""
    return sorted(
        path.name
        for path in folder.iterdir()
        if path.is_dir() and path.name not in without and path.name[0] != "."
    )


def images_in(images, names, labels=None):
    """List the images of class folders, whose labels are their positions by default."""
    labels = range(len(names)) if labels is None else labels
    return [
        (f"{name}/{path.name}", label)
        for name, label in zip(names, labels, strict=True)
        for path in (images / name).iterdir()
        if _is_image(path)
    ]
