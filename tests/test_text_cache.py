"""Class texts are encoded once a model, in memory and on disk."""

import gc
import pickle
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from skbridge import (
    FewShotSearchCV,
    SeMoBridgeClassifier,
    TextHead,
    _files,
    make_few_shot_pipeline,
)
from skbridge._clip import load as _load
from skbridge._clip.open_clip import OpenCLIP
from skbridge._texts import encode as _text_cache

NAMES = ["cat", "dog", "sea_lion"]
ARRAYS = ("eos", "eos_unit", "text_features", "projection", "projection_bias")


@pytest.fixture
def model(tiny_clip_dir, tmp_path):
    """A private copy of the tiny model, which no other test has loaded."""
    return str(shutil.copytree(tiny_clip_dir, tmp_path / "model"))


@pytest.fixture
def encoded(monkeypatch):
    """Prompts that the text tower sees."""
    prompts = []
    encode = OpenCLIP.embed_texts

    def embed_texts(loaded, chunk, batch_size):
        prompts.extend(chunk)
        return encode(loaded, chunk, batch_size)

    monkeypatch.setattr(OpenCLIP, "embed_texts", embed_texts)
    return prompts


@pytest.fixture
def shots():
    # So few that nothing is said of how badly the texts of random weights fit them.
    rng = np.random.default_rng(0)
    return rng.normal(size=(15, 24)).astype(np.float32), np.repeat(NAMES, 5)


def assert_same(first, second, atol=0.0):
    assert first.classes == second.classes
    assert first.prompts == second.prompts
    assert (first.model, first.logit_scale) == (second.model, second.logit_scale)
    for name in ARRAYS:
        a, b = getattr(first, name), getattr(second, name)
        assert (a is None) == (b is None)
        if a is not None:
            assert a.dtype == b.dtype == np.float32
            np.testing.assert_allclose(a, b, rtol=0, atol=atol)


# In memory


def test_refits_and_clones_encode_no_text(model, encoded, shots):
    classifier = SeMoBridgeClassifier(model, device="cpu").fit(*shots)
    assert sorted(encoded) == [f"a photo of a {n}." for n in ("cat", "dog", "sea lion")]
    head = classifier.text_head_
    assert classifier.fit(*shots).text_head_ == head
    assert clone(classifier).set_params(lambda_3=2.0).fit(*shots).text_head_ == head
    assert len(encoded) == 3


def test_searches_encode_each_text_once(model, encoded, shots):
    classifier = SeMoBridgeClassifier(model, device="cpu")
    GridSearchCV(classifier, {"lambda_3": [0.5, 1.0]}, cv=3).fit(*shots)
    FewShotSearchCV(classifier, {"lambda_3": [0.5, 1.0]}).fit(*shots)
    assert len(encoded) == len(set(encoded)) == 3


def test_only_new_classes_and_prompts_are_encoded(model, encoded):
    TextHead.from_clip(NAMES[:2], model, device="cpu")
    head = TextHead.from_clip(NAMES[::-1], model, device="cpu")
    assert encoded[2:] == ["a photo of a sea lion."]
    assert head.classes == ("sea_lion", "dog", "cat")
    TextHead.from_clip(NAMES, model, templates=["simple", "a {}"], device="cpu")
    assert len(encoded) == 3 + 6


def test_classes_of_the_same_prompts_are_encoded_once(model, encoded):
    head = TextHead.from_clip(["sea lion", "sea_lion"], model, device="cpu")
    assert len(encoded) == 1
    np.testing.assert_array_equal(*head.text_features)


def test_classes_used_longest_ago_are_forgotten(model, encoded, monkeypatch):
    monkeypatch.setattr(_text_cache, "_MAX_CLASSES", 2)
    for names, n_encoded in (
        (["cat", "dog"], 2),
        (["cat"], 2),
        (["sea_lion"], 3),
        (["cat"], 3),
        (["dog"], 4),
    ):
        TextHead.from_clip(names, model, device="cpu")
        assert len(encoded) == n_encoded


def test_texts_are_forgotten_with_their_model(model, monkeypatch):
    monkeypatch.setattr(_load, "_LOADED", type(_load._LOADED)())
    gc.collect()
    before = len(_text_cache._REMEMBERED)
    TextHead.from_clip(NAMES, model, device="cpu")
    assert len(_text_cache._REMEMBERED) == before + 1
    _load._LOADED.clear()
    gc.collect()
    assert len(_text_cache._REMEMBERED) == before


# On disk


def forget(monkeypatch):
    """Be like a new process."""
    monkeypatch.setattr(_load, "_LOADED", type(_load._LOADED)())


def test_texts_on_disk_are_the_same_and_encoded_once(
    model, encoded, tmp_path, monkeypatch
):
    made = TextHead.from_clip(NAMES, model, device="cpu", cache_dir=tmp_path / "cache")
    assert_same(made, TextHead.from_clip(NAMES, model, device="cpu"))
    encoded.clear()
    forget(monkeypatch)
    found = TextHead.from_clip(
        NAMES[::-1], model, device="cpu", cache_dir=tmp_path / "cache"
    )
    assert encoded == []
    assert_same(found, made[NAMES[::-1]])


def test_bias_of_the_projection_is_kept(model, tmp_path, monkeypatch):
    projection = OpenCLIP.projection

    def biased(loaded):
        return projection.fget(loaded)[0], np.arange(24, dtype=np.float32)

    monkeypatch.setattr(OpenCLIP, "projection", property(biased))
    made, found = (
        TextHead.from_clip(NAMES, model, device="cpu", cache_dir=tmp_path / "cache")
        for _ in range(2)
    )
    assert made.projection_bias[-1] == 23
    assert_same(found, made)


def test_new_classes_are_added_on_disk(model, encoded, tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    TextHead.from_clip(NAMES[:2], model, device="cpu", cache_dir=folder)
    forget(monkeypatch)
    TextHead.from_clip(NAMES, model, device="cpu", cache_dir=folder)
    assert encoded[2:] == ["a photo of a sea lion."]
    forget(monkeypatch)
    TextHead.from_clip(NAMES, model, device="cpu", cache_dir=folder)
    assert len(encoded) == 3


def test_changed_weights_get_no_old_texts(model, encoded, tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setattr(_files, "_COARSEST_CLOCK", -(10**20))
    before = TextHead.from_clip(NAMES, model, device="cpu", cache_dir=folder)
    file = Path(model, "open_clip_model.safetensors")
    state = load_file(file)
    state["ln_final.bias"] += 1
    save_file(state, file)
    after = TextHead.from_clip(NAMES, model, device="cpu", cache_dir=folder)
    np.testing.assert_allclose(after.eos, before.eos + 1, atol=1e-5)
    assert len(encoded) == 6


def test_damaged_text_is_encoded_again(model, encoded, tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    made = TextHead.from_clip(NAMES, model, device="cpu", cache_dir=folder)
    connection = sqlite3.connect(folder / "embeddings-2.sqlite3")
    connection.execute("UPDATE vectors SET checksum = checksum + 1")
    connection.commit()
    connection.close()
    forget(monkeypatch)
    with pytest.warns(UserWarning, match="6 entries of the cache"):
        found = TextHead.from_clip(NAMES, model, device="cpu", cache_dir=folder)
    assert_same(found, made, atol=1e-6)
    assert len(encoded) == 6


def test_eighty_templates_take_the_room_of_one(model, tmp_path, monkeypatch):
    monkeypatch.setattr(
        OpenCLIP,
        "embed_texts",
        lambda loaded, chunk, batch_size: np.random.default_rng(0).random(
            (len(chunk), 16), np.float32
        ),
    )
    names = [f"class {i}" for i in range(300)]
    options = {"templates": "openai_imagenet", "device": "cpu"}
    made = TextHead.from_clip(names, model, **options, cache_dir=tmp_path / "cache")
    forget(monkeypatch)
    monkeypatch.setattr(OpenCLIP, "embed_texts", pytest.fail)
    found = TextHead.from_clip(names, model, **options, cache_dir=tmp_path / "cache")
    assert_same(found, made)
    sizes = [path.stat().st_size for path in (tmp_path / "cache").iterdir()]
    assert sum(sizes) < 600_000


def test_cached_pipeline_needs_no_model_and_no_torch(model, tmp_path):
    folder = str(tmp_path / "cache")
    pipeline = make_few_shot_pipeline(model, cache_dir=folder, device="cpu")
    assert pipeline["clip"].cache_dir == pipeline["clf"].texts.cache_dir == folder
    rng = np.random.default_rng(0)
    images = list(rng.integers(0, 256, (9, 16, 16, 3), dtype=np.uint8))
    labels = np.repeat(NAMES, 3)
    # The model's files were copied just now: their times tell nothing yet.
    newest = max(path.stat().st_ctime_ns for path in Path(model).iterdir())
    while time.time_ns() < newest + 2.1e9:
        time.sleep(0.05)
    before = pipeline.fit(images, labels).predict_proba(images)
    code = (
        "import pickle, sys; data = pickle.load(sys.stdin.buffer);"
        "proba = data[0].fit(data[1], data[2]).predict_proba(data[1]);"
        "assert 'torch' not in sys.modules and 'open_clip' not in sys.modules;"
        "sys.stdout.buffer.write(pickle.dumps(proba))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps((clone(pipeline), images, labels)),
        capture_output=True,
        check=True,
    )
    np.testing.assert_array_equal(pickle.loads(done.stdout), before)
