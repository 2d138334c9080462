"""The paper's data sets, on tiny folders of the same layouts."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import paper_layouts
import pytest
from paper_layouts import LAYOUTS, NAMES, WNIDS, write_layout
from PIL import Image
from sklearn.base import clone
from torchvision.datasets import Flowers102

from skbridge import CLIPEmbedder, CLIPTexts, SeMoBridgeClassifier
from skbridge._texts.templates import TEMPLATES
from skbridge.datasets import (
    FEW_SHOT_DATASETS,
    load_few_shot_dataset,
    sample_few_shot,
)

CLASS_NAMES = {
    "caltech101": ["face", "wild cat"],
    "dtd": ["banded", "polka-dotted"],
    "eurosat": ["Annual Crop", "River"],
    "fgvc_aircraft": ["707-320", "F/A-18"],
    "food101": ["apple pie", "waffles"],
    "oxford_flowers": ["pink primrose", "hard-leaved orchid"],
    "oxford_pets": ["abyssinian", "american bulldog"],
    "stanford_cars": ["2000 AM General Hummer SUV", "2012 Acura RL Sedan"],
    "sun397": ["indoor apse", "bar"],
    "ucf101": ["Apply Eye Makeup", "Yo Yo"],
    "imagenet": NAMES,
    "imagenet_v2": NAMES,
    "imagenet_sketch": NAMES,
}
# Images in train, val and test: the lists that the writers make, and the rule.
SIZES = {
    "caltech101": (10, 4, 6),
    "dtd": (8, 4, 8),
    "eurosat": (10, 4, 6),
    "fgvc_aircraft": (4, 4, 4),
    "food101": (8, 2, 10),
    "oxford_flowers": (10, 4, 6),
    "oxford_pets": (8, 2, 10),
    "stanford_cars": (8, 2, 10),
    "sun397": (8, 2, 10),
    "ucf101": (8, 2, 10),
    "imagenet": (16, 4, 8),
}
HASHED = {"caltech101", "eurosat", "oxford_flowers"}


def test_every_data_set_of_the_paper_has_a_loader_and_a_test():
    assert set(FEW_SHOT_DATASETS) == set(LAYOUTS) == set(CLASS_NAMES)
    data_sets = set(TEMPLATES) - {"simple", "openai_imagenet", "openai_imagenet_7"}
    assert data_sets <= set(FEW_SHOT_DATASETS)


@pytest.mark.parametrize("layout", ["coop", "other", "own root"])
@pytest.mark.parametrize("name", FEW_SHOT_DATASETS)
def test_every_layout_gives_paths_labels_and_names(name, layout, tmp_path):
    folder = write_layout(name, tmp_path, layout)
    root = tmp_path
    # The root of SUN397 in the other layout is no folder of its own.
    if layout == "own root" and name != "sun397":
        root = folder
    data = load_few_shot_dataset(name, root)
    assert data.class_names == CLASS_NAMES[name]
    assert data.target_names == data.class_names
    assert data.templates in TEMPLATES
    assert data.split_source == ("hash" if name in HASHED else "official")
    assert all(Path(path).is_file() for path in data.filenames)
    assert len(set(data.filenames)) == len(data.filenames) == len(data.target)
    np.testing.assert_array_equal(np.unique(data.target), [0, 1])
    assert f"{len(data.filenames)} images of 2 classes" in data.DESCR
    assert data.templates in data.DESCR
    filenames, target = load_few_shot_dataset(name, str(root), return_X_y=True)
    assert filenames == data.filenames
    np.testing.assert_array_equal(target, data.target)


@pytest.mark.parametrize("name", SIZES)
def test_train_val_and_test_have_no_image_in_common(name, tmp_path):
    write_layout(name, tmp_path)
    parts = {
        split: load_few_shot_dataset(name, tmp_path, split=split)
        for split in ("train", "val", "test", "trainval")
    }
    sizes = tuple(len(parts[split].target) for split in ("train", "val", "test"))
    assert sizes == SIZES[name]
    train, val, test, both = (set(part.filenames) for part in parts.values())
    assert not train & val
    assert not (train | val) & test
    assert train | val == both


@pytest.mark.parametrize(
    ("name", "folder_of_label"),
    [
        ("caltech101", {"Faces": 0, "wild_cat": 1}),
        ("dtd", {"banded": 0, "polka-dotted": 1}),
        ("eurosat", {"AnnualCrop": 0, "River": 1}),
        ("food101", {"apple_pie": 0, "waffles": 1}),
        ("sun397", {"indoor": 0, "bar": 1}),
        ("ucf101", {"Apply_Eye_Makeup": 0, "Yo_Yo": 1}),
        ("imagenet", dict(zip(WNIDS, (0, 1), strict=True))),
        ("imagenet_v2", {"0": 0, "1": 1}),
        ("imagenet_sketch", dict(zip(WNIDS, (0, 1), strict=True))),
    ],
)
def test_labels_are_those_of_the_folders(name, folder_of_label, tmp_path):
    write_layout(name, tmp_path)
    data = load_few_shot_dataset(name, tmp_path)
    folders = [Path(path).parent.name for path in data.filenames]
    np.testing.assert_array_equal([folder_of_label[f] for f in folders], data.target)


@pytest.mark.parametrize(
    ("name", "label_of"),
    [
        ("fgvc_aircraft", lambda stem: int(stem[-1]) % 2),
        ("oxford_flowers", lambda stem: (int(stem[-5:]) - 1) % 2),
        ("oxford_pets", lambda stem: stem.startswith("american")),
        ("stanford_cars", lambda stem: int(stem) % 2),
    ],
)
def test_labels_are_those_of_the_lists(name, label_of, tmp_path):
    write_layout(name, tmp_path)
    data = load_few_shot_dataset(name, tmp_path)
    expected = [int(label_of(Path(path).stem)) for path in data.filenames]
    np.testing.assert_array_equal(expected, data.target)


@pytest.mark.parametrize(
    ("name", "reader", "split", "options"),
    [
        ("caltech101", "Caltech101", None, {}),
        ("dtd", "DTD", "test", {"split": "test"}),
        ("eurosat", "EuroSAT", None, {}),
        ("fgvc_aircraft", "FGVCAircraft", "trainval", {"split": "trainval"}),
        ("food101", "Food101", "trainval", {"split": "train"}),
        ("oxford_pets", "OxfordIIITPet", "test", {"split": "test"}),
        ("stanford_cars", "StanfordCars", "test", {"split": "test"}),
        ("sun397", "SUN397", None, {}),
    ],
)
def test_torchvisions_class_reads_the_same_images(
    name, reader, split, options, tmp_path
):
    datasets = pytest.importorskip("torchvision.datasets")
    folder = write_layout(name, tmp_path, "other")
    if name == "sun397":
        (tmp_path / "ClassName.txt").rename(tmp_path / "SUN397" / "ClassName.txt")
    if name == "caltech101":
        # The one class that torchvision keeps.
        faces = folder / "101_ObjectCategories" / "Faces_easy"
        faces.rename(tmp_path / "set-aside")
    if name == "fgvc_aircraft":
        both = [f"images_variant_{part}.txt" for part in ("train", "val")]
        text = "".join((folder / part).read_text() for part in both)
        (folder / "images_variant_trainval.txt").write_text(text)
    theirs = sorted(
        (np.asarray(image).tobytes(), label)
        for image, label in getattr(datasets, reader)(tmp_path, **options)
    )
    splits = ("trainval", "test") if split is None else (split,)
    ours = sorted(
        (np.asarray(Image.open(path).convert("RGB")).tobytes(), label)
        for part in splits
        for path, label in zip(
            *load_few_shot_dataset(name, tmp_path, split=part, return_X_y=True),
            strict=True,
        )
    )
    assert ours == theirs


def test_split_by_hash_is_the_documented_one(tmp_path):
    folder = write_layout("eurosat", tmp_path)
    image = "River/image_{:04d}.jpg"
    paths = [image.format(i) for i in range(1, 11)]
    paths.sort(key=lambda path: hashlib.sha256(path.encode()).hexdigest())
    for split, part in (("train", paths[:5]), ("val", paths[5:7]), ("test", paths[7:])):
        data = load_few_shot_dataset("eurosat", tmp_path, split=split)
        found = [f for f, k in zip(data.filenames, data.target, strict=True) if k == 1]
        assert found == sorted(str(folder / "2750" / path) for path in part)
    # A selection that must never change: others' figures rest on it.
    assert [Path(f).name for f in found] == [
        "image_0002.jpg",
        "image_0004.jpg",
        "image_0005.jpg",
    ]


def test_validation_part_is_a_fifth_of_the_training_images_by_hash(tmp_path):
    write_layout("oxford_pets", tmp_path)
    paths = [f"Abyssinian_{i}.jpg" for i in range(1, 6)]
    first = min(paths, key=lambda path: hashlib.sha256(path.encode()).hexdigest())
    data = load_few_shot_dataset("oxford_pets", tmp_path, split="val")
    assert Path(data.filenames[0]).name == first
    assert "20 % are val" in data.DESCR


def test_authors_lists_are_taken_where_they_are_optional(tmp_path):
    folder = write_layout("oxford_flowers", tmp_path)
    paper_layouts.oxford_flowers(folder, official=True)
    data = load_few_shot_dataset("oxford_flowers", tmp_path, split="val")
    assert [Path(path).name for path in data.filenames] == ["image_00003.jpg"]
    assert data.split_source == "official"


@pytest.mark.parametrize("name", ["dtd", "sun397"])
def test_split_is_by_hash_without_the_authors_lists(name, tmp_path):
    getattr(paper_layouts, name)(tmp_path / name, official=False)
    data = load_few_shot_dataset(name, tmp_path)
    assert data.split_source == "hash"
    assert len(data.filenames) == 6


def test_sun397_class_names_may_lie_beside_the_images(tmp_path):
    paper_layouts.sun397(tmp_path, official=False, lists_inside=True)
    assert load_few_shot_dataset("sun397", tmp_path).class_names[0] == "indoor apse"


@pytest.mark.skipif(not hasattr(Flowers102, "classes"), reason="needs torchvision 0.22")
def test_flower_names_are_torchvisions_without_a_file(tmp_path):
    paper_layouts.oxford_flowers(tmp_path / "flowers-102", names=False)
    data = load_few_shot_dataset("oxford_flowers", tmp_path)
    assert len(data.class_names) == 102
    assert data.class_names[0] == "pink primrose"


def test_older_torchvision_needs_a_file_of_flower_names(tmp_path, monkeypatch):
    monkeypatch.delattr(Flowers102, "classes", raising=False)
    paper_layouts.oxford_flowers(tmp_path / "flowers-102", names=False)
    with pytest.raises(ValueError, match=r"cat_to_name\.json.*torchvision"):
        load_few_shot_dataset("oxford_flowers", tmp_path)


# CoOp's split files


def coop_split(folder, images):
    rows = [[path, k % 2, ["Main_Coon", "pug"][k % 2]] for k, path in enumerate(images)]
    listed = {"train": rows[:2], "val": rows[2:3], "test": rows[3:]}
    path = folder / "split_zhou_OxfordPets.json"
    path.write_text(json.dumps(listed))
    return path


@pytest.mark.parametrize("place", ["folder", "root", "argument"])
def test_coop_split_file_takes_precedence(place, tmp_path):
    folder = write_layout("oxford_pets", tmp_path)
    images = [f"Abyssinian_{i}.jpg" for i in (7, 1, 2, 3)]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    where = {"folder": folder, "root": tmp_path, "argument": elsewhere}[place]
    path = coop_split(where, images)
    split_file = path if place == "argument" else "auto"
    data = load_few_shot_dataset(
        "oxford_pets", tmp_path, split="train", split_file=split_file
    )
    assert [Path(p).name for p in data.filenames] == images[:2]
    assert data.target.tolist() == [0, 1]
    assert data.class_names == ["Main Coon", "pug"]
    assert data.split_source == "coop"
    assert str(path) in data.DESCR


def test_split_file_is_ignored_on_demand(tmp_path):
    coop_split(write_layout("oxford_pets", tmp_path), ["Abyssinian_1.jpg"] * 4)
    data = load_few_shot_dataset("oxford_pets", tmp_path, split_file=None)
    assert data.split_source == "official"


def test_split_file_makes_the_data_sets_own_lists_unnecessary(tmp_path):
    folder = write_layout("oxford_pets", tmp_path)
    coop_split(folder, [f"Abyssinian_{i}.jpg" for i in (1, 2, 3, 4)])
    (folder / "annotations" / "test.txt").unlink()
    assert len(load_few_shot_dataset("oxford_pets", tmp_path).filenames) == 1


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"train": [], "val": []}', '{"train": [["a.jpg", 1]], "val": []}'],
)
def test_file_that_is_no_split_is_an_error(content, tmp_path):
    write_layout("oxford_pets", tmp_path)
    path = tmp_path / "split_zhou_OxfordPets.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"is not a split file as CoOp"):
        load_few_shot_dataset("oxford_pets", tmp_path)


def test_labels_of_a_split_file_must_have_no_gap(tmp_path):
    write_layout("oxford_pets", tmp_path)
    listed = {"train": [], "val": [], "test": [["Abyssinian_1.jpg", 1, "cat"]]}
    path = tmp_path / "split_zhou_OxfordPets.json"
    path.write_text(json.dumps(listed))
    with pytest.raises(ValueError, match=r"KeyError: 0"):
        load_few_shot_dataset("oxford_pets", tmp_path)


def test_split_file_that_does_not_exist_is_an_error(tmp_path):
    write_layout("oxford_pets", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"'split_file' parameter.*no\.json"):
        load_few_shot_dataset("oxford_pets", tmp_path, split_file=tmp_path / "no.json")


# ImageNet's names


def test_imagenet_labels_are_those_of_the_ids_with_fewer_folders(tmp_path):
    folder = write_layout("imagenet_sketch", tmp_path)
    for path in (folder / WNIDS[0]).iterdir():
        path.unlink()
    (folder / WNIDS[0]).rmdir()
    data = load_few_shot_dataset("imagenet_sketch", tmp_path)
    assert set(data.target) == {1}
    assert data.class_names == NAMES


def test_imagenet_names_from_torchvisions_file(tmp_path):
    import torch

    folder = write_layout("imagenet", tmp_path, "other")
    (folder / "classnames.txt").unlink()
    meta = {WNIDS[1]: ("goldfish", "Carassius auratus"), WNIDS[0]: ("tench",)}
    torch.save((meta, []), folder / "meta.bin")
    data = load_few_shot_dataset("imagenet", tmp_path, split="train")
    assert data.class_names == NAMES
    assert Path(data.filenames[0]).parent.name == WNIDS[0]


def test_imagenet_names_from_open_clip_for_all_classes(tmp_path):
    paper_layouts.class_folders(tmp_path, map(str, range(1000)), "{}.jpeg", n=1)
    data = load_few_shot_dataset("imagenet_v2", tmp_path)
    assert len(data.class_names) == 1000
    assert data.class_names[0] == "tench"
    # As numbers, not as words: 10 is not between 1 and 2.
    assert [Path(f).parent.name for f in data.filenames] == [
        str(k) for k in range(1000)
    ]


def test_imagenet_folders_that_fit_no_names_are_an_error(tmp_path):
    folder = write_layout("imagenet_sketch", tmp_path)
    (folder / "n99999999").mkdir()
    with pytest.raises(ValueError, match=r"3 class folders.*2 class names"):
        load_few_shot_dataset("imagenet_sketch", tmp_path)
    (tmp_path / "imagenet" / "classnames.txt").unlink()
    with pytest.raises(ValueError, match=r"3 class folders.*1000 class names"):
        load_few_shot_dataset("imagenet_sketch", tmp_path)


def test_imagenet_validation_images_must_lie_in_class_folders(tmp_path):
    folder = tmp_path / "imagenet"
    paper_layouts.image(folder / "val" / "ILSVRC2012_val_00000001.JPEG")
    with pytest.raises(ValueError, match=r"val has no class folders"):
        load_few_shot_dataset("imagenet", tmp_path)


def test_imagenet_training_images_are_optional(tmp_path):
    folder = write_layout("imagenet", tmp_path)
    (folder / "train").rename(folder / "set-aside")
    assert len(load_few_shot_dataset("imagenet", tmp_path).filenames) == 8
    with pytest.raises(ValueError, match=r"'split' parameter.*'train'.*test only"):
        load_few_shot_dataset("imagenet", tmp_path, split="train")


# Errors


def test_unknown_name_is_an_error_with_a_guess(tmp_path):
    with pytest.raises(ValueError, match=r"'name' parameter.*Did you mean 'food101'"):
        load_few_shot_dataset("food", tmp_path)
    with pytest.raises(ValueError, match=r"Got 7 instead\.$"):
        load_few_shot_dataset(7, tmp_path)


def test_unknown_split_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"'split' parameter.*Got 'all' instead"):
        load_few_shot_dataset("dtd", tmp_path, split="all")


def test_root_that_is_no_path_is_an_error_that_says_what_to_download():
    with pytest.raises(TypeError, match=r"must be a path\. Got None .*Download"):
        load_few_shot_dataset("dtd", None)


@pytest.mark.parametrize("name", FEW_SHOT_DATASETS)
def test_missing_data_set_says_what_to_download_and_where_to_put_it(name, tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        load_few_shot_dataset(name, tmp_path)
    message = str(caught.value)
    assert "'root' parameter" in message
    assert repr(str(tmp_path)) in message
    assert "https://" in message
    assert f"ROOT/{LAYOUTS[name][1]}" in message
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        load_few_shot_dataset(name, tmp_path / "nowhere")


def test_missing_list_is_named(tmp_path):
    folder = write_layout("stanford_cars", tmp_path)
    (folder / "devkit" / "cars_meta.mat").unlink()
    with pytest.raises(FileNotFoundError, match=r"without .*cars_meta\.mat.*Download"):
        load_few_shot_dataset("stanford_cars", tmp_path)


def test_missing_images_are_counted_and_named(tmp_path):
    folder = write_layout("oxford_pets", tmp_path)
    (folder / "images" / "Abyssinian_7.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of the 10 .*Abyssinian_7\.jpg"):
        load_few_shot_dataset("oxford_pets", tmp_path)


def test_images_of_a_missing_folder_are_named(tmp_path):
    folder = write_layout("ucf101", tmp_path)
    frames = folder / "UCF-101-midframes"
    (frames / "Yo_Yo").rename(frames / "YoYo")
    with pytest.raises(FileNotFoundError, match=r"5 of the 10 images of ucf101"):
        load_few_shot_dataset("ucf101", tmp_path)


def test_folder_without_images_is_an_error(tmp_path):
    (tmp_path / "eurosat" / "2750" / "River").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"0 of the 0 images of eurosat"):
        load_few_shot_dataset("eurosat", tmp_path)


def test_lists_that_contradict_each_other_are_an_error(tmp_path):
    folder = write_layout("fgvc_aircraft", tmp_path)
    paper_layouts.lists(folder / "variants.txt", ["707-320"])
    with pytest.raises(ValueError, match=r"do not fit together.*F/A-18"):
        load_few_shot_dataset("fgvc_aircraft", tmp_path)


# Shots


def test_sample_has_n_shots_of_every_class():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 3)), np.repeat([3, 1, 2], 20)
    X_shots, y_shots = sample_few_shot(X, y, 4, random_state=0)
    np.testing.assert_array_equal(y_shots, np.repeat([1, 2, 3], 4))
    rows = [np.flatnonzero((x == X).all(axis=1)).item() for x in X_shots]
    assert len(set(rows)) == 12
    np.testing.assert_array_equal(y[rows], y_shots)


@pytest.mark.parametrize("seed", range(3))
def test_samples_are_nested_and_repeatable(seed):
    X, y = list(range(50)), [f"class {i % 5}" for i in range(50)]
    four, names = sample_few_shot(X, y, 4, random_state=seed)
    assert (four, names) == sample_few_shot(X, y, 4, random_state=seed)
    for n in (1, 2, 3):
        fewer, _ = sample_few_shot(X, y, n, random_state=seed)
        nested = np.reshape(four, (5, 4))[:, :n].ravel().tolist()
        assert fewer == nested
    assert sample_few_shot(X, y, 4, random_state=seed + 100)[0] != four


def test_sample_keeps_the_type_of_what_it_draws_from():
    y = np.array([0, 0, 1, 1])
    frame = pd.DataFrame({"a": range(4)}, index=list("wxyz"))
    X_shots, y_shots = sample_few_shot(frame, pd.Series(y, list("wxyz")), 1, 0)
    assert isinstance(X_shots, pd.DataFrame)
    assert isinstance(y_shots, pd.Series)
    assert list(X_shots.index) == list(y_shots.index)
    X_shots, y_shots = sample_few_shot(["a", "b", "c", "d"], y.tolist(), 2, 0)
    assert isinstance(X_shots, list)
    assert y_shots == [0, 0, 1, 1]
    assert sample_few_shot(np.eye(4), y, 1, 0)[0].shape == (2, 4)


def test_class_with_too_few_samples_raises_warns_or_passes():
    X, y = list("abcde"), ["cat"] * 4 + ["dog"]
    with pytest.raises(ValueError, match=r"1 of 2 classes.*n_shots=2.*dog \(1\)"):
        sample_few_shot(X, y, 2)
    with pytest.warns(UserWarning, match=r"dog \(1\)\. All their samples are taken"):
        _, y_shots = sample_few_shot(X, y, 2, too_few="warn")
    assert y_shots == ["cat", "cat", "dog"]
    assert sample_few_shot(X, y, 2, 0, too_few="ignore")[1] == y_shots


def test_many_classes_with_too_few_samples_are_abbreviated():
    y = list(range(7))
    with pytest.raises(ValueError, match=r"7 of 7 .*4 \(1\), \.\.\."):
        sample_few_shot(y, y, 2)


def test_bad_arguments_of_sample_few_shot_are_errors():
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        sample_few_shot([1, 2], [0], 1)
    with pytest.raises(ValueError, match="no samples"):
        sample_few_shot([], [], 1)
    with pytest.raises(ValueError, match="'n_shots' parameter"):
        sample_few_shot([1], [0], 0)
    with pytest.raises(ValueError, match="'too_few' parameter"):
        sample_few_shot([1], [0], 1, too_few="pad")


def test_shots_of_a_data_set_on_disk_train_a_classifier(tmp_path):
    write_layout("food101", tmp_path)
    shots = load_few_shot_dataset("food101", tmp_path, split="train")
    test = load_few_shot_dataset("food101", tmp_path)
    paths, labels = sample_few_shot(shots.filenames, shots.target, 2, random_state=0)
    embedder = CLIPEmbedder(model="skbridge-tiny")
    texts = CLIPTexts(
        "skbridge-tiny",
        class_names=dict(enumerate(shots.class_names)),
        templates=shots.templates,
    )
    classifier = SeMoBridgeClassifier(texts, lambda_1=0)
    classifier = clone(classifier).fit(embedder.fit_transform(paths), labels)
    assert classifier.score(embedder.transform(test.filenames), test.target) == 1
