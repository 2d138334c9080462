"""Photographs from folders, the model file, and copies by label."""

import os
import shutil

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from photo_folders import NEW, SHOTS, write_bad_photos, write_photos
from PIL import Image
from sklearn.utils import Bunch

import skbridge.photos._file as model_file
from skbridge import SeMoBridgeClassifier, make_few_shot_pipeline
from skbridge.datasets import list_images, load_emoji, load_image_folder
from skbridge.photos import (
    PhotoModel,
    apply_corrections,
    fit_photos,
    read_corrections,
    sort_photos,
)
from skbridge.photos._held_out import all_scores, held_out_scores


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("photos"), SHOTS)


@pytest.fixture(scope="module")
def new(tmp_path_factory):
    folder = write_photos(tmp_path_factory.mktemp("new"), NEW)
    return list_images(folder).paths


@pytest.fixture(scope="module")
def model(folder):
    found = load_image_folder(folder)
    return fit_photos(
        make_few_shot_pipeline("skbridge-tiny"), found.paths, list(found.target)
    )


@pytest.fixture
def saved(model, tmp_path):
    model.save(tmp_path / "model.skb")
    return tmp_path / "model.skb"


# Corrections


def test_corrections_change_add_and_remove(tmp_path, folder):
    found = load_image_folder(folder)
    extra = tmp_path / "extra.png"
    shutil.copy(found.paths[0], extra)
    (tmp_path / "c.csv").write_text(
        "path,label,was\n"
        f"{found.paths[0]},ghost,airplane\n{found.paths[1]},,airplane\n"
        "extra.png,ant,\nlost.png,ant,\n",
        encoding="utf-8-sig",
    )
    corrections = read_corrections(tmp_path / "c.csv")
    paths, labels, gone = apply_corrections(found.paths, found.target, corrections)
    assert labels[paths.index(found.paths[0])] == "ghost"
    assert found.paths[1] not in paths
    assert labels[paths.index(str(extra))] == "ant"
    assert gone == [str(tmp_path / "lost.png")]
    assert found.target[0] == "airplane"


@pytest.mark.parametrize("content", ["", "file,label\na,b\n", "path,label\na\n"])
def test_other_tables_are_no_corrections(tmp_path, content):
    (tmp_path / "c.csv").write_text(content)
    with pytest.raises(ValueError, match="Cannot read the corrections"):
        read_corrections(tmp_path / "c.csv")


# Fit and predict


def test_photographs_are_classified(model, new):
    predicted = model.predict(new)
    truth = [os.path.basename(os.path.dirname(path)) for path in new]
    assert np.mean(predicted.labels == truth) > 0.6
    answers = np.where(predicted.unknown, "unknown", predicted.labels)
    assert_array_equal(answers, model.pipeline.predict(new))
    assert_allclose(predicted.probabilities, predicted.proba.max(axis=1))
    assert predicted.unreadable == {}


def test_held_out_scores_are_those_of_a_fit_without_the_shot(model):
    X, y = model.embeddings, np.array(model.labels)
    codes = np.searchsorted(model.classifier.classes_, y)
    scores = held_out_scores(model.classifier, X, codes)
    assert np.isfinite(scores).all()
    # The first fold leaves out the first shot of each class.
    first = np.unique(codes, return_index=True)[1]
    others = np.setdiff1d(np.arange(len(X)), first)
    refitted = model.classifier.leave_out(X[first], y[first])
    assert refitted.class_count_.sum() == len(others)
    assert_allclose(scores[first], all_scores(refitted, X[first]), rtol=1e-4)
    held_out = model.held_out
    assert sum(held_out.scored) == len(X)
    assert held_out.accuracy == np.mean(scores.argmax(axis=1) == codes)
    assert held_out.interval[0] < held_out.accuracy <= held_out.interval[1]


def test_images_of_other_classes_are_unknown_more_often(model, new, tmp_path):
    emoji = load_emoji(styles=NEW[:1])
    others = [str(tmp_path / f"{i}.png") for i in range(100)]
    for path, image in zip(others, emoji.images[40:], strict=False):
        Image.fromarray(image).save(path)
    of_others = model.predict(others).unknown.mean()
    assert of_others > 2 * model.predict(new).unknown.mean()
    assert of_others > 0.4


def test_unknown_photographs_are_those_that_the_classifier_rejects(folder, new):
    found = load_image_folder(folder)
    labels = np.where(found.target == "ant", "unknown", found.target)
    paths = found.paths
    model = fit_photos(make_few_shot_pipeline("skbridge-tiny"), paths, list(labels))
    assert model.classifier.reject == 0.05
    assert model.classifier.reject_label == "no known class (unknown)"
    more = make_few_shot_pipeline("skbridge-tiny", reject=0.5, reject_label="?")
    model = fit_photos(more, paths, list(labels))
    predicted = model.predict(new)
    assert_array_equal(predicted.unknown, model.pipeline.predict(new) == "?")
    assert 0 < predicted.unknown.sum() < len(new)
    least = model.classifier.score_samples(predicted.embeddings)[predicted.unknown]
    assert least.max() < model.classifier.threshold_


def test_without_two_photographs_of_a_class_none_is_unknown(folder, new):
    paths = [path for path in load_image_folder(folder).paths if "noto" in path]
    # A copy is no second photograph.
    labels = [os.path.basename(os.path.dirname(path)) for path in paths]
    pipeline = make_few_shot_pipeline("skbridge-tiny")
    model = fit_photos(pipeline, [*paths, paths[0]], [*labels, labels[0]])
    assert model.classifier.reject is None
    assert not model.predict(new).unknown.any()


def test_bad_photographs_are_listed_with_reasons(model, new, tmp_path):
    bad = sorted(map(str, write_bad_photos(tmp_path / "bad").iterdir()))
    assert len(bad) == 10
    predicted = model.predict([*bad, new[0]])
    assert sorted(predicted.unreadable) == bad
    assert all(predicted.unreadable.values())
    assert predicted.paths == new[:1]
    with pytest.raises(ValueError, match="None of 10 photographs can be read"):
        model.predict(bad)


def test_a_class_of_one_shot_and_unlabelled_photographs_are_learned_from(folder, new):
    found = load_image_folder(folder)
    labels = [*list(found.target)[:7], *[None] * (len(list(found.target)) - 7)]
    model = fit_photos(make_few_shot_pipeline("skbridge-tiny"), found.paths, labels)
    assert model.held_out.shots == [3, 3, 1]
    assert model.held_out.scored == [3, 3, 0]
    assert len(model.shots) == 7
    assert set(model.predict(new).labels) <= set(list(found.target)[:7])


def test_one_class_is_refused(folder):
    found = load_image_folder(folder)
    with pytest.raises(ValueError, match="at least two classes, got 1"):
        fit_photos(
            make_few_shot_pipeline("skbridge-tiny"),
            found.paths[:3],
            list(found.target)[:3],
        )


# The model file


def test_a_saved_model_predicts_the_same(model, saved, new):
    loaded = PhotoModel.load(saved)
    assert_allclose(loaded.predict(new).proba, model.predict(new).proba, rtol=1e-5)
    assert loaded.held_out.as_dict() == {
        **model.held_out.as_dict(),
        "interval": list(model.held_out.interval),
    }
    assert loaded.labels == model.labels
    assert loaded.embedder.model == "skbridge-tiny"


def test_other_classifiers_and_unlabelled_photographs_are_saved(folder, tmp_path, new):
    found = load_image_folder(folder)
    pipeline = make_few_shot_pipeline("skbridge-tiny")
    texts = pipeline["clf"].texts
    pipeline.set_params(clf=SeMoBridgeClassifier(texts, lambda_3=0.7))
    model = fit_photos(pipeline, found.paths, list(found.target))
    model.save(tmp_path / "m.skb")
    loaded = PhotoModel.load(tmp_path / "m.skb")
    assert loaded.classifier.lambda_3 == 0.7
    assert_allclose(loaded.predict(new).proba, model.predict(new).proba, rtol=1e-5)
    pipeline = make_few_shot_pipeline("skbridge-tiny")
    labels = [*list(found.target)[:8], *[None] * (len(list(found.target)) - 8)]
    model = fit_photos(pipeline, found.paths, labels)
    model.save(tmp_path / "m.skb")
    loaded = PhotoModel.load(tmp_path / "m.skb")
    assert loaded.classifier.uses_unlabelled_ is model.classifier.uses_unlabelled_
    assert loaded.labels == labels


def test_any_flipped_bit_is_an_error(saved):
    content = saved.read_bytes()
    rng = np.random.default_rng(0)
    for position in {0, 20, 80, len(content) - 1, *rng.integers(0, len(content), 40)}:
        damaged = bytearray(content)
        damaged[position] ^= 1 << rng.integers(8)
        saved.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"damaged|not a model file"):
            PhotoModel.load(saved)
    saved.write_bytes(content[:-1])
    with pytest.raises(ValueError, match="damaged"):
        PhotoModel.load(saved)


def rewrite(path, monkeypatch, **changes):
    """Write a model again, with a digest that is right, and another manifest."""
    manifest, arrays, head = model_file.read_model(path)
    manifest.pop("arrays")
    version = changes.pop("version", 1)
    manifest.pop("version")
    monkeypatch.setattr(model_file, "_FORMAT_VERSION", version)
    model_file.write_model(path, manifest | changes, arrays, head)
    monkeypatch.undo()


def test_a_newer_format_is_named(saved, monkeypatch):
    rewrite(saved, monkeypatch, version=7)
    with pytest.raises(ValueError, match="written by a newer skbridge"):
        PhotoModel.load(saved)


@pytest.mark.parametrize(
    "changes",
    [
        {"classifier": "system"},
        {"parameters": {"no_such_parameter": 1}},
        {"embedder": {"model": "skbridge-tiny", "on_error": "raise"}},
        {"labels": ["cat"]},
        {"held_out": {}},
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(saved, monkeypatch, changes):
    rewrite(saved, monkeypatch, **changes)
    with pytest.raises(ValueError, match="does not suit this version"):
        PhotoModel.load(saved)


def test_pickles_are_not_read(saved, monkeypatch):
    head, arrays = None, {"embeddings": np.array([[print]], dtype=object)}
    arrays["probabilities"] = arrays["embeddings"]
    model_file.write_model(saved, {}, arrays, head)
    with pytest.raises(ValueError, match="not a model that skbridge fit wrote"):
        PhotoModel.load(saved)


def test_probabilities_of_another_version_are_noticed(saved, monkeypatch):
    manifest, _, _ = model_file.read_model(saved)
    rewrite(
        saved, monkeypatch, parameters=manifest["parameters"] | {"temperature": 1.0}
    )
    with pytest.warns(UserWarning, match="probabilities differ"):
        PhotoModel.load(saved)


def test_another_clip_model_is_refused(saved, tiny_clip_dir, new, monkeypatch):
    embedder = {"model": f"local-dir:{tiny_clip_dir}", "pretrained": "auto"}
    embedder |= {"precision": "auto", "fast_jpeg": False}
    rewrite(saved, monkeypatch, embedder=embedder)
    with pytest.raises(ValueError, match=r"other weights|features"):
        PhotoModel.load(saved).predict(new)


def test_a_model_of_other_weights_is_refused_by_its_fingerprint(
    saved, monkeypatch, new
):
    rewrite(saved, monkeypatch, fingerprint="0" * 40)
    with pytest.raises(ValueError, match="has other weights"):
        PhotoModel.load(saved).predict(new[:1])


# Sorting


def sort_one(path, label, folder, **options):
    predicted = Bunch(paths=[str(path)], labels=[label], unknown=[label is None])
    return sort_photos(predicted, folder, **options)[0]


def test_nothing_is_overwritten(tmp_path):
    source = tmp_path / "a.png"
    for content in ("one", "two"):
        source.write_text(content)
        sort_one(source, "cat", tmp_path / "sorted")
    assert (tmp_path / "sorted/cat/a.png").read_text() == "one"
    assert (tmp_path / "sorted/cat/a-2.png").read_text() == "two"
    assert sort_one(source, None, tmp_path / "sorted", move=True).endswith(
        os.path.join("unknown", "a.png")
    )
    assert not source.exists()


@pytest.mark.parametrize(
    "label", ["../../evil", "/etc", "..", ".", "", "a\x00b", "c:\\d", "x" * 400, "<b>"]
)
def test_labels_never_leave_the_folder(tmp_path, label):
    source = tmp_path / "a.png"
    source.write_text("image")
    target = sort_one(source, label, tmp_path / "sorted")
    assert os.path.dirname(os.path.dirname(target)) == str(tmp_path / "sorted")
    assert os.path.isfile(target)
