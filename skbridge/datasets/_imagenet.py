"""Readers of ImageNet and its variants: one folder per class, and no lists."""

from skbridge.datasets._files import class_folders, images_in, read_lines

COOP = "https://github.com/KaiyangZhou/CoOp/blob/main/DATASETS.md"


def _imagenet_classes(folder):
    """WordNet ids and class names in the order of ImageNet's labels.

    Names come from CoOp's ``classnames.txt`` or else torchvision's ``meta.bin``, in
    the folder, one of its two parents or a folder ``imagenet`` in these. Where there
    is neither, they are open_clip's, and the ids are None.
    """
    parents = list(folder.absolute().parents)[:2]
    for near in (folder, *parents, *(parent / "imagenet" for parent in parents)):
        if (near / "classnames.txt").exists():
            rows = (line.partition(" ") for line in read_lines(near / "classnames.txt"))
            named = {wnid: name.strip() for wnid, _, name in rows}
            break
        if (near / "meta.bin").exists():
            import torch

            meta, _ = torch.load(near / "meta.bin", weights_only=True)
            named = {wnid: names[0] for wnid, names in meta.items()}
            break
    else:
        from skbridge._clip.open_clip import imagenet_class_names

        return None, imagenet_class_names()
    wnids = sorted(named)
    return wnids, [named[wnid] for wnid in wnids]


def _imagenet_part(folder, images):
    """Read folders of classes, named by WordNet id or by label."""
    wnids, names = _imagenet_classes(folder)
    found = class_folders(images)
    if all(name.isdecimal() for name in found):
        codes = {str(k): k for k in range(len(names))}
    else:
        codes = {wnid: k for k, wnid in enumerate(found if wnids is None else wnids)}
    if not found:
        raise ValueError(
            f"{images} has no class folders. Images must lie in one folder per class, "
            "named like n01440764; sort those of ImageNet's 'val', which come without."
        )
    if len(codes) != len(names) or not codes.keys() >= set(found):
        raise ValueError(
            f"{images} has {len(found)} class folders, and they are not those of the "
            f"{len(names)} class names found. Put a classnames.txt (lines 'n01440764 "
            f"tench', see {COOP}) beside the images."
        )
    return names, images_in(images, found, [codes[name] for name in found])


def read_imagenet(folder):
    """ImageNet: the validation images are "test", as in CoOp."""
    parts = {}
    for part, name in (("trainval", "train"), ("test", "val")):
        # One part is enough: the training images take 138 GB.
        if (folder / name).exists():
            names, items = _imagenet_part(folder, folder / name)
            parts[part] = [(f"{name}/{image}", label) for image, label in items]
    return names, parts, "train/ and val/, the latter being 'test'"


def read_imagenet_test(folder):
    """ImageNetV2 and ImageNet-Sketch: all images are "test"."""
    names, items = _imagenet_part(folder, folder)
    return names, {"test": items}, "all images are 'test'"
