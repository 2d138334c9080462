"""TextHead, its constructors and its files, and the prompts."""

import copy
import hashlib
import io
import json
import pickle
import struct
import subprocess
import sys
import tracemalloc

import joblib
import numpy as np
import open_clip
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.model_selection import GridSearchCV

from skbridge import TextHead
from skbridge._clip.load import load_clip
from skbridge._clip.open_clip import OpenCLIP
from skbridge._rows import unit
from skbridge._texts import encode as _text_encode
from skbridge._texts import head_file
from skbridge._texts.head_checks import ARRAYS
from skbridge._texts.prompts import as_prompts
from skbridge._texts.templates import TEMPLATES

NAMES = ["cat", "dog", "sea_lion"]


def arrays(dtype=np.float64, n_classes=3, d_t=4, d=6, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "eos": rng.normal(size=(n_classes, d_t)).astype(dtype),
        "projection": rng.normal(size=(d_t, d)).astype(dtype),
    }


@pytest.fixture
def head():
    return TextHead.from_arrays(NAMES, **arrays())


def every_kind_of_head():
    given = arrays()
    return {
        "arrays": TextHead.from_arrays(NAMES, **given, logit_scale=1 / 3),
        "bias": TextHead.from_arrays(NAMES, **given, projection_bias=np.ones(6)),
        "projection only": TextHead.from_arrays(projection=given["projection"]),
        "features": TextHead.from_features(NAMES, np.eye(3, 5, dtype=np.float32)),
        "bank": TextHead.from_features(NAMES, np.eye(3), text_bank=np.ones((9, 3))),
        "bank only": TextHead.from_features(text_bank=np.ones((9, 3))),
        "prompts": TextHead._make(
            classes=NAMES,
            prompts=[["a cat."], ["a dog.", "ein Hund."], ["海狮"]],
            text_features=np.eye(3),
            model="ViT-B-16 (openai)",
        ),
    }


# Prompts


def test_template_lists_are_the_published_ones():
    for name, listed in (
        ("openai_imagenet", open_clip.OPENAI_IMAGENET_TEMPLATES),
        ("openai_imagenet_7", open_clip.SIMPLE_IMAGENET_TEMPLATES),
    ):
        assert [write("{}") for write in listed] == list(TEMPLATES[name])


def test_every_template_has_one_place_for_the_name():
    assert all(text.count("{}") == 1 for texts in TEMPLATES.values() for text in texts)
    assert len(TEMPLATES) == 14


@pytest.mark.parametrize("name", TEMPLATES)
def test_template_by_name(name):
    (prompts,) = as_prompts(["sea_lion"], name)
    assert prompts == tuple(text.replace("{}", "sea lion") for text in TEMPLATES[name])
    assert f"``{name!r}``".replace("'", '"') in as_prompts.__doc__


def test_format_string_keeps_other_braces():
    assert as_prompts(["cat"], "a {} in {braces}") == (("a cat in {braces}",),)


def test_dict_of_prompts_is_taken_as_it_is():
    templates = {
        "CAT": ["felis {}", "felis {}"],
        "Sea Lion": "a lion_of the sea",
        "unasked": "nothing",
        "dog": np.array(["a dog"]),
    }
    assert as_prompts(NAMES, templates) == (
        ("felis {}", "felis {}"),
        ("a dog",),
        ("a lion_of the sea",),
    )


def test_mixture_concatenates_in_order():
    templates = ["{} one", {"cat": ["two", "three"], "dog": []}, "dtd"]
    assert as_prompts(["cat", "dog"], templates) == (
        ("cat one", "two", "three", "cat texture."),
        ("dog one", "dog texture."),
    )


@pytest.mark.parametrize("templates", [{"cat": "a"}, {"cat": "a", "dog": []}, [], [{}]])
def test_class_with_no_prompt_is_named(templates):
    with pytest.raises(ValueError, match=r"no prompt for .* of 2 classes: .*'dog'"):
        as_prompts(["cat", "dog"], templates)


def test_many_classes_with_no_prompt_are_counted():
    names = [f"class {i}" for i in range(8)]
    with pytest.raises(ValueError, match=r"for 7 of 8 .*'class 5' and 2 more"):
        as_prompts(names, {"class 0": "a"})


@pytest.mark.parametrize(
    ("templates", "message"),
    [
        ("openai_imagnet", r"Did you mean 'openai_imagenet'"),
        ("no place", r"neither a known name nor a format string with exactly one '{}'"),
        ("{} and {}", "exactly one"),
        ("{0}", "exactly one"),
        ("a {name}", "exactly one"),
    ],
)
def test_unknown_template_is_refused(templates, message):
    with pytest.raises(ValueError, match=message):
        as_prompts(["cat"], templates)


@pytest.mark.parametrize(
    ("templates", "message"),
    [
        (3, "templates must be a name, a format string, a dict"),
        (None, "got None of type NoneType"),
        ([["simple"]], r"got \['simple'\] of type list"),
        ({3: "a"}, "keys of a templates dict are class names, got 3"),
        ({"cat": 3}, "prompts of class 'cat' must be"),
        ({"cat": [3]}, "'cat' must be non-empty strings, got 3"),
        ({"cat": "  "}, "'cat' must be non-empty strings, got '  '"),
    ],
)
def test_templates_of_another_type_are_refused(templates, message):
    with pytest.raises(TypeError, match=message):
        as_prompts(["cat"], templates)


def test_dict_keys_that_name_one_class_are_refused():
    with pytest.raises(ValueError, match="'Sea lion' and 'sea_lion', which name the"):
        as_prompts(["cat"], {"Sea lion": "a", "sea_lion": "b"})


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        ("cat", TypeError, "got 'cat' of type str. Wrap it in a list"),
        (3, TypeError, "must be a list of names"),
        ({"cat": "dog"}, TypeError, "must be a list of names"),
        ({"cat"}, TypeError, "in the order of the classes"),
        ([1, 2], TypeError, "must be strings, got 1 of type int"),
        ([], ValueError, "is empty"),
        (["cat", " "], ValueError, "empty name at position 1"),
        (["cat", "dog", "cat"], ValueError, "distinct names.*'cat'"),
    ],
)
def test_class_names_are_checked(names, error, message):
    with pytest.raises(error, match=f"class_names.*{message}"):
        as_prompts(names, "simple")
    with pytest.raises(error, match=f"class_names.*{message}"):
        TextHead.from_clip(names, model="not even looked up")
    if names != [1, 2]:  # Labels, unlike names, may be integers.
        with pytest.raises(error, match=f"classes.*{message}"):
            TextHead.from_features(names, np.eye(3))


# From arrays


def test_from_arrays_derives_what_is_not_given(head):
    given = arrays()
    np.testing.assert_array_equal(head.eos, given["eos"])
    np.testing.assert_array_equal(head.projection, given["projection"])
    np.testing.assert_array_equal(head.eos_unit, unit(given["eos"]))
    np.testing.assert_array_equal(
        head.text_features, unit(given["eos"] @ given["projection"])
    )
    assert head.classes == tuple(NAMES)
    assert (head.n_features, head.logit_scale, len(head)) == (6, 100.0, 3)
    assert head.eos_length == np.linalg.norm(given["eos"], axis=1).mean()
    for name in ("projection_bias", "text_bank", "prompts", "model"):
        assert getattr(head, name) is None


def test_from_arrays_with_a_bias():
    given = arrays()
    bias = np.arange(6.0)
    head = TextHead.from_arrays(NAMES, **given, projection_bias=bias)
    expected = unit(given["eos"] @ given["projection"] + bias)
    np.testing.assert_array_equal(head.text_features, expected)
    np.testing.assert_array_equal(head.projection_bias, bias)


def test_from_arrays_takes_means_over_prompts_and_scales_them():
    rng = np.random.default_rng(0)
    mean_unit, features = rng.normal(size=(3, 4)), rng.normal(size=(3, 6))
    head = TextHead.from_arrays(
        NAMES, **arrays(), eos_unit=mean_unit, text_features=features
    )
    np.testing.assert_array_equal(head.eos_unit, unit(mean_unit))
    np.testing.assert_array_equal(head.text_features, unit(features))


def test_head_of_the_projection_only():
    head = TextHead.from_arrays(projection=np.ones((2, 3)), projection_bias=np.ones(3))
    assert (len(head), head.n_features, head.eos_length) == (0, 3, 1.0)
    assert head.classes is head.eos is head.eos_unit is head.text_features is None
    assert head
    assert list(head) == []


@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        ((np.float32, np.float32), np.float32),
        ((np.float16, np.float32), np.float32),
        ((np.float16, np.float16), np.float32),
        ((np.float32, np.float64), np.float64),
        ((np.int64, np.float32), np.float64),
    ],
)
def test_precision_is_kept(dtypes, expected):
    eos = np.ones((3, 2), dtypes[0])
    projection = np.ones((2, 5), dtypes[1])
    head = TextHead.from_arrays(NAMES, eos, projection)
    for name in ("eos", "eos_unit", "text_features", "projection"):
        assert getattr(head, name).dtype == expected


def test_arrays_are_copied():
    given = arrays()
    head = TextHead.from_arrays(NAMES, **given)
    before = head.projection.copy()
    given["projection"][:] = 0
    np.testing.assert_array_equal(head.projection, before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"projection": None}, r"projection is missing.*np\.eye.*from_features"),
        ({"classes": None}, "eos was given without classes"),
        ({"eos": None}, "classes was given without eos.*from_features"),
        (
            {"classes": None, "eos": None, "eos_unit": np.ones((3, 4))},
            "eos_unit was given without classes and eos",
        ),
        ({"classes": ["cat", "dog"]}, "eos has 3 rows for 2 classes"),
        ({"eos_unit": np.ones((2, 4))}, "eos_unit has 2 rows for 3 classes"),
        ({"text_features": np.ones((1, 6))}, "text_features has 1 row for 3 classes"),
        ({"eos": np.ones((3, 5))}, r"width 5, but .*\(4, 6\), takes rows of width 4"),
        ({"eos": np.ones((3, 6))}, "width 6, but .*Is projection transposed"),
        ({"eos_unit": np.ones((3, 5))}, "eos_unit has rows of width 5"),
        (
            {"text_features": np.ones((3, 5))},
            "text_features has width 5, but projection leads to width 6",
        ),
        ({"text_features": np.ones((3, 4))}, "width 4, .* Is projection transposed"),
        ({"projection_bias": np.ones(5)}, "projection_bias has width 5"),
        ({"projection_bias": np.ones((1, 6))}, r"non-empty 1-D array, got .*\(1, 6\)"),
        ({"eos": np.ones(4)}, r"eos must be a non-empty 2-D array, got shape \(4,\)"),
        ({"projection": np.ones((4, 0))}, "projection must be a non-empty 2-D"),
        ({"eos": [[1.0, np.nan, 0, 0]] * 3}, "eos contains NaN or infinite values"),
        (
            {"projection": np.full((4, 6), np.inf)},
            "projection contains NaN",
        ),
        ({"eos": np.zeros((3, 4))}, "eos_unit is all zero for 'cat', 'dog', 'sea_lio"),
        ({"text_features": np.eye(3, 6) * [[1], [0], [1]]}, "all zero for 'dog'"),
        ({"eos": [["a"] * 4] * 3}, "eos must be an array of real numbers, got one of"),
        ({"eos": [[1], [1, 2], [3]]}, "eos must be an array of numbers, with rows"),
        ({"logit_scale": 0}, "logit_scale must be a positive finite number, got 0"),
        ({"logit_scale": np.nan}, "logit_scale must be a positive finite"),
        ({"logit_scale": True}, "logit_scale must be a positive finite"),
        ({"logit_scale": "100"}, "got '100'. CLIP stores its logarithm"),
    ],
)
def test_from_arrays_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        TextHead.from_arrays(**{"classes": NAMES, **arrays(), **change})


# From features


def test_from_features():
    features = np.random.default_rng(0).normal(size=(3, 5))
    head = TextHead.from_features(NAMES, features, logit_scale=50)
    np.testing.assert_array_equal(head.text_features, unit(features))
    assert head.projection is head.eos is head.eos_unit is head.text_bank is None
    assert (head.n_features, head.logit_scale, head.eos_length) == (5, 50.0, 1.0)


def test_from_features_keeps_the_bank_as_it_is():
    bank = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    for head in (
        TextHead.from_features(text_bank=bank),
        TextHead.from_features(NAMES, np.eye(3, 5, dtype="f4"), text_bank=bank),
    ):
        np.testing.assert_array_equal(head.text_bank, bank)
        assert head.text_bank.dtype == np.float32
        assert head.n_features == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": None}, "text_features was given without classes"),
        ({"text_features": None}, "classes was given without text_features"),
        (
            {"classes": None, "text_features": None},
            "classes with text_features, a text",
        ),
        ({"classes": ["cat"]}, "text_features has 3 rows for 1 class;"),
        ({"text_bank": np.ones((9, 4))}, "text_bank has width 4, but text_features"),
        ({"text_bank": [[np.nan] * 5]}, "text_bank contains NaN"),
        ({"text_bank": np.ones(5)}, "text_bank must be a non-empty 2-D"),
        ({"text_features": np.zeros((3, 5))}, "text_features is all zero"),
        ({"logit_scale": -1.0}, "logit_scale"),
    ],
)
def test_from_features_refuses(change, message):
    given = {"classes": NAMES, "text_features": np.eye(3, 5), **change}
    with pytest.raises(ValueError, match=message):
        TextHead.from_features(**given)


# From a model


TEMPLATES_OF_THREE = ["simple", "{}", {"cat": "a cat", "dog": ["hound", "hound"]}]


def make_by_hand(loaded, prompts):
    """Pool one class after another, from open_clip's own text embeddings."""
    rows = []
    for written in prompts:
        eos = loaded.embed_texts(written).astype(np.float64)
        text = loaded.text_features(written).astype(np.float64)
        rows.append([unit(text).mean(0), eos.mean(0), unit(eos).mean(0)])
    features, eos, eos_unit = (np.array(part) for part in zip(*rows, strict=True))
    return unit(features), eos, unit(eos_unit)


def test_from_clip_pools_the_prompts_of_each_class(tiny_clip_dir):
    head = TextHead.from_clip(NAMES, tiny_clip_dir, templates=TEMPLATES_OF_THREE)
    loaded = load_clip(tiny_clip_dir)
    assert head.prompts == as_prompts(NAMES, TEMPLATES_OF_THREE)
    assert head.prompts[1] == ("a photo of a dog.", "dog", "hound", "hound")
    features, eos, eos_unit = make_by_hand(loaded, head.prompts)
    # float32 towers: the batch size moves the last bits.
    np.testing.assert_allclose(head.text_features, features, atol=1e-6)
    np.testing.assert_allclose(head.eos, eos, atol=1e-5)
    np.testing.assert_allclose(head.eos_unit, eos_unit, atol=1e-6)
    assert head.projection.shape == (16, 24)
    assert (head.n_features, head.projection_bias) == (24, None)
    assert head.logit_scale == loaded.logit_scale
    assert head.model == loaded.label
    for name in ("text_features", "eos", "eos_unit", "projection"):
        assert getattr(head, name).dtype == np.float32


def test_from_clip_encodes_each_distinct_prompt_once(tiny_clip_dir, monkeypatch):
    seen = []

    def encode(loaded, prompts, batch_size, encode=OpenCLIP.embed_texts):
        seen.extend(prompts)
        return encode(loaded, prompts, batch_size)

    whole = TextHead.from_clip(NAMES, tiny_clip_dir, templates=TEMPLATES_OF_THREE)
    monkeypatch.setattr(OpenCLIP, "embed_texts", encode)
    monkeypatch.setattr(_text_encode, "_PROMPTS_AT_ONCE", 2)
    head = TextHead.from_clip(
        NAMES, tiny_clip_dir, templates=TEMPLATES_OF_THREE, batch_size=1
    )
    assert len(seen) == len(set(seen)) == 8
    for name in ("text_features", "eos", "eos_unit"):
        np.testing.assert_allclose(getattr(head, name), getattr(whole, name), atol=1e-6)


def test_from_clip_with_one_prompt_agrees_with_from_arrays(tiny_clip_dir):
    made = TextHead.from_clip(NAMES, tiny_clip_dir)
    built = TextHead.from_arrays(NAMES, made.eos, made.projection)
    np.testing.assert_allclose(made.text_features, built.text_features, atol=1e-6)
    np.testing.assert_allclose(made.eos_unit, built.eos_unit, atol=1e-6)


def test_from_clip_refuses_an_unknown_model():
    with pytest.raises(ValueError, match=r"Unknown model 'ViT-B16'\. Did you mean"):
        TextHead.from_clip(NAMES, "ViT-B16")


# Value semantics


@pytest.mark.parametrize("kind", every_kind_of_head())
def test_heads_of_equal_content_are_equal(kind):
    first, second = every_kind_of_head()[kind], every_kind_of_head()[kind]
    assert first is not second
    assert first == second
    assert hash(first) == hash(second)
    assert len({first, second}) == 1
    assert joblib.hash(first) == joblib.hash(second)


def test_heads_of_different_content_differ():
    heads = list(every_kind_of_head().values())
    given = arrays()
    heads += [
        TextHead.from_arrays(NAMES, **given),
        TextHead.from_arrays(["cat", "dog", "sea lion"], **given),
        TextHead.from_arrays(NAMES, **arrays(np.float32)),
        TextHead.from_arrays(NAMES, **arrays(seed=1)),
    ]
    assert len(set(heads)) == len(heads)
    assert heads[0] != "a head"
    assert heads[0] is not None


def test_head_is_immutable(head):
    for name in ("eos", "eos_unit", "text_features", "projection"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(head, name)[:] = 0
    with pytest.raises(AttributeError, match="TextHead is immutable: 'classes' cannot"):
        head.classes = ("a", "b", "c")
    with pytest.raises(AttributeError, match="cannot be set"):
        head.something = 1
    with pytest.raises(AttributeError, match="cannot be deleted"):
        del head.projection
    with pytest.raises(TypeError, match=r"TextHead\.from_clip, TextHead\.from_arrays"):
        TextHead()


def test_copies_and_clones_are_the_head_itself(head):
    assert copy.copy(head) is head
    assert copy.deepcopy(head) is head
    assert clone(head) is head


@pytest.mark.parametrize("kind", every_kind_of_head())
def test_pickled_head_comes_back_read_only(kind, tmp_path):
    head = every_kind_of_head()[kind]
    hash(head)
    joblib.dump(head, tmp_path / "head.joblib")
    for back in (
        pickle.loads(pickle.dumps(head)),
        joblib.load(tmp_path / "head.joblib"),
        joblib.load(tmp_path / "head.joblib", mmap_mode="r"),
    ):
        assert back == head
        assert back.prompts == head.prompts
        held = [getattr(back, name) for name in ARRAYS]
        assert not any(array.flags.writeable for array in held if array is not None)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("kind", every_kind_of_head())
def test_every_pickle_protocol_brings_the_head_back(kind, protocol):
    head = every_kind_of_head()[kind]
    back = pickle.loads(pickle.dumps(head, protocol))
    assert back == head
    assert hash(back) == hash(head)


@pytest.mark.parametrize("kind", every_kind_of_head())
def test_head_survives_skops(kind):
    skops = pytest.importorskip("skops.io")
    head = every_kind_of_head()[kind]
    data = skops.dumps(head)
    back = skops.loads(data, trusted=skops.get_untrusted_types(data=data))
    assert back == head
    assert back.prompts == head.prompts
    held = [getattr(back, name) for name in ARRAYS]
    assert not any(array.flags.writeable for array in held if array is not None)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("arrays", "TextHead(3 classes, 6 features, projection 4 x 6)"),
        ("projection only", "TextHead(no classes, 6 features, projection 4 x 6)"),
        ("bank", "TextHead(3 classes, 3 features, bank of 9 texts)"),
        ("prompts", "TextHead(3 classes, 3 features, ViT-B-16 (openai))"),
    ],
)
def test_repr_is_short(kind, expected):
    assert repr(every_kind_of_head()[kind]) == expected


class Picky(ClassifierMixin, BaseEstimator):
    def __init__(self, texts=None):
        self.texts = texts

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        return np.full(len(X), self.classes_[int("4 x 6" in repr(self.texts))])


def test_grid_search_over_heads():
    heads = every_kind_of_head()
    X, y = np.zeros((12, 2)), np.array([0, 1, 1] * 4)
    for kinds in (["bank only", "arrays"], ["bias", "bank"], ["projection only"]):
        candidates = [heads[kind] for kind in kinds]
        search = GridSearchCV(Picky(), {"texts": candidates}, cv=2).fit(X, y)
        assert search.best_params_["texts"] in candidates
        assert search.best_score_ > 0.6
        assert list(search.cv_results_["param_texts"]) == candidates
        assert "TextHead(" in repr(search.best_estimator_)


# Classes


def test_index_restricts_in_the_order_asked_for(head):
    part = head[["sea_lion", "cat"]]
    assert part.classes == ("sea_lion", "cat")
    for name in ("eos", "eos_unit", "text_features"):
        np.testing.assert_array_equal(getattr(part, name), getattr(head, name)[[2, 0]])
    np.testing.assert_array_equal(part.projection, head.projection)
    assert part.eos_length == np.linalg.norm(head.eos[[2, 0]], axis=1).mean()
    assert head[np.array(["dog"])] == head[("dog",)]
    assert head[NAMES] == head
    assert list(part) == ["sea_lion", "cat"]


def test_index_keeps_prompts_bank_and_model():
    part = every_kind_of_head()["prompts"][["dog"]]
    assert part.prompts == (("a dog.", "ein Hund."),)
    assert part.model == "ViT-B-16 (openai)"
    banked = every_kind_of_head()["bank"][["dog"]]
    assert banked.text_bank.shape == (9, 3)


def test_index_may_repeat_a_name(head):
    twice = head[["dog", "cat", "dog"]]
    assert twice.classes == ("dog", "cat", "dog")
    np.testing.assert_array_equal(twice.eos[0], twice.eos[2])
    assert pickle.loads(pickle.dumps(twice)) == twice


def test_unknown_class_names_near_ones(head):
    with pytest.raises(KeyError) as caught:
        head[["dog", "sealion", "cow"]]
    assert str(caught.value) == (
        "The text head has no class 'sealion', 'cow'. Near 'sealion': 'sea_lion'. It "
        "has 3 classes: 'cat', 'dog', 'sea_lion'."
    )
    with pytest.raises(KeyError, match=r"no class 'xyz'\. It has 3"):
        head[["xyz"]]


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        ("cat", TypeError, "Wrap it in a list"),
        (0, TypeError, "the index of a TextHead must be a list of names"),
        (slice(2), TypeError, "must be a list of names"),
        ([0, 1], KeyError, "no class 0, 1"),
        ([0, "cat"], TypeError, "must be strings, got 0"),
        ([], ValueError, "is empty"),
    ],
)
def test_index_of_another_type_is_refused(head, names, error, message):
    with pytest.raises(error, match=message):
        head[names]


def test_head_without_classes_has_none_to_pick():
    head = every_kind_of_head()["projection only"]
    with pytest.raises(ValueError, match="knows no classes, so none can be picked"):
        head[["cat"]]


# Files


@pytest.mark.parametrize("kind", every_kind_of_head())
def test_saved_head_comes_back_equal(kind, tmp_path):
    head = every_kind_of_head()[kind]
    path = head.save(tmp_path / "head.npz")
    assert path == tmp_path / "head.npz"
    back = TextHead.load(path)
    assert back == head
    assert back.prompts == head.prompts
    assert back.logit_scale == head.logit_scale
    assert not any(
        array.flags.writeable
        for array in (getattr(back, name) for name in ARRAYS)
        if array is not None
    )


def test_saved_head_from_a_model_comes_back_equal(tiny_clip_dir, tmp_path):
    head = TextHead.from_clip(NAMES, tiny_clip_dir, templates="openai_imagenet_7")
    assert TextHead.load(head.save(tmp_path / "head")) == head


@pytest.mark.parametrize("name", ["head", "head.v1", "head.npz"])
@pytest.mark.parametrize("as_text", [False, True])
def test_suffix_is_added_as_numpy_does_and_said(head, tmp_path, name, as_text):
    given = tmp_path / name
    given = str(given) if as_text else given
    written = head.save(given)
    assert written.name == name.removesuffix(".npz") + ".npz"
    assert [path.name for path in tmp_path.iterdir()] == [written.name]
    assert TextHead.load(given) == TextHead.load(written) == head


def test_file_holds_no_pickles_and_readable_prompts(tmp_path):
    path = every_kind_of_head()["prompts"].save(tmp_path / "head")
    with np.load(path, allow_pickle=False) as file:
        header = json.loads(file["header"].tobytes())
    assert header["prompts"] == [["a cat."], ["a dog.", "ein Hund."], ["海狮"]]


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no text head at .*nowhere"):
        TextHead.load(tmp_path / "nowhere")


def forge(path, header, manifest=None, compress=False, **arrays):
    """Write a file of any content whose digest is right."""
    good = {
        "format": "skbridge.TextHead",
        "version": 3,
        "arrays": {name: [a.dtype.str, *a.shape] for name, a in arrays.items()},
    }
    manifest = good | manifest if isinstance(manifest, dict) else manifest
    parts = {"manifest": json.dumps(manifest or good), "header": header}
    parts = {k: np.frombuffer(v.encode(), np.uint8) for k, v in parts.items()}
    stream = io.BytesIO()
    (np.savez_compressed if compress else np.savez)(stream, **parts, **arrays)
    content = stream.getvalue()[:-2] + struct.pack("<H", 64)
    path.write_bytes(content + hashlib.sha256(content).hexdigest().encode())


def header(**change):
    content = {"classes": ["a", "b"], "prompts": None, "logit_scale": 1.0}
    return json.dumps(content | {"model": None} | change)


def foreign_files(path):
    """Write what is not a head, and say what it is."""
    good = every_kind_of_head()["prompts"].save(path).read_bytes()
    yield "empty", path.write_bytes(b"")
    yield "text", path.write_text("not a head")
    yield "cut short", path.write_bytes(good[: len(good) // 2])
    yield "longer", path.write_bytes(good + b"0")
    with path.open("wb") as file:
        np.save(file, np.ones(3))
    yield "array", None
    yield "pickle", path.write_bytes(pickle.dumps({"classes": NAMES}))
    yield "foreign", np.savez(path, features=np.ones(3))
    yield "list", forge(path, "[]", T=np.eye(2))
    yield "deep JSON", forge(path, "[" * 200_000)
    yield "list of a manifest", forge(path, header(), [1], text_features=np.eye(2))
    T = {"text_features": np.eye(2)}
    yield "other format", forge(path, header(), {"format": "other"}, **T)
    yield "version", forge(path, header(), {"version": "new"}, **T)
    yield "unknown array", forge(path, header(), **T, weights=np.eye(2))
    yield (
        "array not in the file",
        forge(
            path,
            header(),
            {"arrays": {"text_features": ["<f8", 2, 2], "eos": ["<f8", 1]}},
        ),
    )
    for shape in ([2], [4, 1], [10**15, 2], [2, -2], [2.0, 2.0], ["2", 2]):
        declared = {"arrays": {"text_features": ["<f8", *shape]}}
        yield f"declared {shape}", forge(path, header(), declared, **T)
    yield (
        "declared float32",
        forge(path, header(), {"arrays": {"text_features": ["<f4", 2, 2]}}, **T),
    )
    yield "compressed", forge(path, header(), compress=True, **T)
    for dtype in ("c16", "M8[s]", "i8", "f2", "U3", ">f8"):
        array = np.eye(2).astype(dtype)
        yield dtype, forge(path, header(), text_features=array)
    yield (
        "Fortran",
        forge(path, header(), text_features=np.asfortranarray(np.eye(2)[[1, 1]])),
    )


def forged_heads(path):
    """Write what the constructors refuse, and say why."""
    T = {"text_features": np.eye(2)}
    yield "no arrays", forge(path, header(classes=None))
    yield "no field", forge(path, json.dumps({"classes": ["a", "b"]}), **T)
    yield "a field too many", forge(path, header(trusted=True), **T)
    yield "rows", forge(path, header(classes=["a"]), **T)
    yield "label twice", forge(path, header(classes=["a", "a"]), **T)
    yield "labels", forge(path, header(classes=[["a"], ["b"]]), **T)
    yield "one string", forge(path, header(classes="ab"), **T)
    yield "prompts", forge(path, header(prompts=[[1], [2]]), **T)
    yield "prompts of one", forge(path, header(prompts=[["a"]]), **T)
    yield "model", forge(path, header(model=["ViT"]), **T)
    for scale in ("100", 0, -1, True, None, float("nan"), float("inf"), 10**400):
        yield f"scale {scale}", forge(path, header(logit_scale=scale), **T)
    yield "not unit", forge(path, header(), text_features=np.eye(2) * 9)
    yield "zero", forge(path, header(), text_features=np.zeros((2, 2)))
    yield "NaN", forge(path, header(), text_features=np.eye(2) * np.nan)
    yield "two types", forge(path, header(), **T, text_bank=np.ones((2, 2), "f4"))
    yield "dimensions", forge(path, header(), text_features=np.eye(2)[..., None])
    yield "widths", forge(path, header(), **T, text_bank=np.ones((2, 3)))
    yield "eos alone", forge(path, header(), **T, eos=np.eye(2), eos_unit=np.eye(2))


@pytest.mark.parametrize("files", [foreign_files, forged_heads])
def test_damaged_foreign_and_forged_files_are_refused(tmp_path, files):
    path = tmp_path / "head.npz"
    for kind, _ in files(path):
        with pytest.raises(ValueError, match=r"head\.npz is not a text head that"):
            print(kind, TextHead.load(path))


def test_forged_file_of_right_content_is_read(tmp_path):
    forge(tmp_path / "head.npz", header(), text_features=np.eye(2))
    expected = TextHead.from_features(["a", "b"], np.eye(2), logit_scale=1.0)
    assert TextHead.load(tmp_path / "head") == expected


def test_every_flipped_bit_is_an_error(tmp_path):
    path = every_kind_of_head()["features"].save(tmp_path / "head")
    good = path.read_bytes()
    for position in range(len(good)):
        flipped = bytearray(good)
        flipped[position] ^= 1 << position % 8
        path.write_bytes(flipped)
        with pytest.raises(ValueError, match="is not a text head that"):
            TextHead.load(path)


def test_loading_needs_little_more_memory_than_the_arrays(tmp_path):
    head = TextHead.from_features(text_bank=np.ones((4096, 512), np.float32))
    path = head.save(tmp_path / "head")
    tracemalloc.start()
    try:
        TextHead.load(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Whether values are finite takes one byte per value.
    assert peak < 1.3 * head.text_bank.nbytes + 4e6


def test_label_that_comes_twice_is_not_saved(tmp_path, head):
    with pytest.raises(ValueError, match="classes must be distinct names"):
        head[["dog", "dog"]].save(tmp_path / "head")
    assert not any(tmp_path.iterdir())


def test_a_save_that_fails_leaves_the_old_file(tmp_path, head, monkeypatch):
    path = head.save(tmp_path / "head")
    before = path.read_bytes()

    def broken(stream, **arrays):
        stream.write(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(np, "savez", broken)
    with pytest.raises(OSError, match="no space"):
        head.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_file_of_a_newer_version_is_refused(tmp_path, head, monkeypatch):
    with monkeypatch.context() as future:
        future.setattr(head_file, "_FORMAT_VERSION", 4)
        path = head.save(tmp_path / "head")
    with pytest.raises(ValueError, match=r"newer skbridge \(format 4, this one reads"):
        TextHead.load(path)


# Properties


@st.composite
def heads(draw):
    n_classes = draw(st.integers(1, 4))
    d_t, d = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    # Rows of zeros are refused, and are none of these.
    values = st.floats(0.125, 64, width=32)
    names = draw(
        st.lists(
            st.text(min_size=1).filter(str.strip),
            min_size=n_classes,
            max_size=n_classes,
            unique=True,
        )
    )
    return TextHead.from_arrays(
        names,
        draw(hnp.arrays(dtype, (n_classes, d_t), elements=values)),
        draw(hnp.arrays(dtype, (d_t, d), elements=values)),
        draw(st.floats(1e-3, 1e3)),
    )


@settings(max_examples=30, deadline=None)
@given(heads(), st.randoms(use_true_random=False))
def test_head_survives_every_round_trip(tmp_path_factory, head, random):
    path = tmp_path_factory.getbasetemp() / "head.npz"
    assert TextHead.load(head.save(path)) == head
    assert pickle.loads(pickle.dumps(head)) == head
    order = list(head)
    random.shuffle(order)
    shuffled = head[order]
    assert shuffled[list(head)] == head
    assert (shuffled == head) == (order == list(head))
    lengths = np.linalg.norm(head.text_features, axis=1)
    np.testing.assert_allclose(lengths, 1, rtol=1e-6)


def test_head_needs_no_torch(tmp_path, head):
    path = head.save(tmp_path / "head")
    script = (
        "import sys\n"
        "class Blocked:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name.partition('.')[0] in ('torch', 'open_clip'):\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Blocked())\n"
        "from skbridge import TextHead\n"
        f"print(TextHead.load({str(path)!r})[['dog']])\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert run.stdout == "TextHead(1 class, 6 features, projection 4 x 6)\n"
