"""CLIPEmbedder: the same embeddings from every form, within bounded memory."""

import io
import pickle
import shutil
import subprocess
import sys
import threading
import weakref
from dataclasses import replace

import joblib
import numpy as np
import open_clip
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_sample_images
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline, make_union
from sklearn.utils import estimator_checks
from sklearn.utils._param_validation import InvalidParameterError

from skbridge import CLIPEmbedder
from skbridge._clip.backend import Backend
from skbridge.datasets import load_emoji

N_FEATURES = 24
# Sums over another batch are taken in another order; eps of float32 is 1.2e-7.
RTOL = 1e-4


@pytest.fixture(scope="module")
def arrays():
    """Twelve RGB images of two kinds, reddish and bluish, of several sizes."""
    rng = np.random.RandomState(0)
    images = []
    for i in range(12):
        small = rng.randint(0, 120, size=(4, 4, 3))
        small[..., 0 if i % 2 else 2] += 130
        size = (40 + i, 64 - i)
        image = Image.fromarray(small.astype(np.uint8)).resize(size)
        images.append(np.asarray(image))
    return images


@pytest.fixture
def paths(arrays, tmp_path):
    """The same images as PNG files."""
    names = [str(tmp_path / f"{i:02}.png") for i in range(len(arrays))]
    for name, array in zip(names, arrays, strict=True):
        Image.fromarray(array).save(name)
    return names


@pytest.fixture
def embedder(tiny_clip_dir):
    return CLIPEmbedder(model=str(tiny_clip_dir), device="cpu", batch_size=5)


@pytest.fixture(scope="module")
def expected(tiny_clip_dir, arrays):
    """What open_clip itself gives, image by image."""
    model, preprocess = open_clip.create_model_from_pretrained(
        f"local-dir:{tiny_clip_dir}"
    )
    model.eval()
    with torch.no_grad():
        rows = [
            model.encode_image(preprocess(Image.fromarray(array))[None])
            for array in arrays
        ]
    return torch.cat(rows).numpy()


def png_bytes(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def write_broken_files(folder):
    """Write one file of each kind that cannot be read."""
    noise = np.random.RandomState(0).randint(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "cut.jpg", quality=95)
    whole = (folder / "cut.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.jpg").write_text("not an image")
    return [
        str(folder / name) for name in ("cut.jpg", "empty.png", "text.jpg", "none.jpg")
    ] + [str(folder)]


# Embeddings


def test_embeddings_are_those_of_open_clip(embedder, arrays, expected):
    embeddings = embedder.fit_transform(arrays)
    assert embeddings.shape == (12, N_FEATURES)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(embeddings, expected, rtol=RTOL, atol=1e-5)
    assert np.ptp(np.linalg.norm(embeddings, axis=1)) > 1e-3, "not normalised"


def test_transform_works_without_fit(embedder, arrays, expected):
    np.testing.assert_allclose(
        embedder.transform(arrays), expected, rtol=RTOL, atol=1e-5
    )


@pytest.mark.parametrize(
    "container",
    [
        tuple,
        lambda paths: np.array(paths),
        lambda paths: np.array(paths, dtype=object).reshape(-1, 1),
        lambda paths: pd.Series(paths, index=range(50, 62)),
        lambda paths: pd.DataFrame({"path": paths}),
    ],
    ids=["tuple", "array", "column", "series", "frame"],
)
def test_every_container_gives_the_same_embeddings(embedder, paths, container):
    np.testing.assert_array_equal(
        embedder.transform(container(paths)), embedder.transform(paths)
    )


def test_forms_can_be_mixed_and_give_the_same_embeddings(embedder, paths, arrays):
    array = arrays[0]
    forms = [
        paths[0],
        Image.open(paths[0]),
        Image.fromarray(array),
        array,
        array / 255,
        array.astype(np.uint16) * 257,
        png_bytes(array),
        torch.tensor(array).permute(2, 0, 1),
        np.dstack([array, np.full(array.shape[:2], 255, np.uint8)]),
    ]
    embeddings = embedder.set_params(batch_size=64).transform(forms)
    np.testing.assert_allclose(
        embeddings, embeddings[:1].repeat(len(forms), axis=0), rtol=RTOL, atol=1e-5
    )


def test_one_array_of_images_is_a_list_of_them(embedder, arrays):
    stack = np.stack([array[:40, :40] for array in arrays])
    from_list = embedder.transform(list(stack))
    np.testing.assert_array_equal(embedder.transform(stack), from_list)
    tensor = torch.from_numpy(stack).permute(0, 3, 1, 2)
    np.testing.assert_array_equal(embedder.transform(tensor), from_list)


@pytest.mark.parametrize("batch_size", [1, 5, 7, 12, 64])
def test_embedding_does_not_depend_on_the_batch(embedder, arrays, expected, batch_size):
    embeddings = embedder.set_params(batch_size=batch_size).transform(arrays)
    np.testing.assert_allclose(embeddings, expected, rtol=RTOL, atol=1e-5)


@pytest.mark.parametrize("num_workers", [1, 2, 8, None])
def test_number_of_threads_changes_nothing(embedder, paths, num_workers):
    in_this_thread = embedder.set_params(num_workers=0).transform(paths)
    embedder.set_params(num_workers=num_workers)
    np.testing.assert_array_equal(embedder.transform(paths), in_this_thread)


def test_embedding_does_not_depend_on_subset_or_order(embedder, arrays):
    every = embedder.transform(arrays)
    order = np.random.RandomState(0).permutation(12)[:7]
    some = embedder.transform([arrays[i] for i in order])
    np.testing.assert_allclose(some, every[order], rtol=RTOL, atol=1e-5)


def test_one_opened_image_may_stand_in_x_many_times(embedder, paths):
    with Image.open(paths[0]) as image:
        embeddings = embedder.set_params(num_workers=8).transform([image] * 40)
    np.testing.assert_allclose(
        embeddings, embeddings[:1].repeat(40, axis=0), rtol=RTOL, atol=1e-5
    )


def test_transform_leaves_the_state_of_torch_alone(embedder, arrays):
    before = torch.random.get_rng_state(), torch.get_num_threads()
    embedder.fit_transform(arrays)
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert torch.get_num_threads() == before[1]
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


def test_pixels_are_scaled_to_the_last_bit_as_open_clip_does(embedder, arrays):
    loaded = embedder._load()
    images = [Image.fromarray(array) for array in arrays]
    expected = torch.stack([loaded.preprocess(image) for image in images])
    pixels = np.stack([np.asarray(loaded.resize(image)) for image in images])
    assert torch.equal(loaded.scale(torch.from_numpy(pixels)), expected)


@pytest.mark.parametrize("cut", [(9, 0), (0, 9), (0, 0), None])
def test_resize_gives_the_pixels_of_open_clips_steps(embedder, cut):
    loaded = embedder._load()
    side = int(np.max(loaded.model.visual.image_size))
    shape = (side, side) if cut is None else (side // 2 + cut[0], side // 2 + cut[1])
    pixels = np.random.RandomState(0).randint(0, 256, (*shape, 3), np.uint8)
    expected = Image.fromarray(pixels)
    for step in loaded.preprocess.transforms[:-2]:
        expected = step(expected)
    np.testing.assert_array_equal(loaded.resize(Image.fromarray(pixels)), expected)


def test_image_that_no_crop_changes_is_not_copied_by_one(embedder, monkeypatch):
    loaded = embedder._load()
    cropped = []
    crop = Image.Image.crop

    def spy(image, box):
        cropped.append(image.size)
        return crop(image, box)

    monkeypatch.setattr(Image.Image, "crop", spy)
    assert loaded.resize(Image.new("RGB", (10, 10))).size == (32, 32)
    assert cropped == []
    assert loaded.resize(Image.new("RGB", (10, 20))).size == (32, 32)
    assert cropped == [(32, 64)]


@pytest.mark.parametrize(
    "model",
    [
        {"layers": 1, "width": 64, "patch_size": 16},
        {"layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
        {"timm_model_name": "vit_tiny_patch16_224", "timm_pool": "avg"},
        {"timm_model_name": "convnext_atto", "timm_proj": "linear"},
    ],
    ids=["vit", "resnet", "timm vit", "timm convnext"],
)
def test_towers_take_pixels_with_channels_last(embedder, monkeypatch, model):
    tower = open_clip.model._build_vision_tower(24, {"image_size": 224} | model).eval()
    tower.requires_grad_(False)
    monkeypatch.setattr(tower, "encode_image", lambda x, normalize: tower(x), False)
    loaded = replace(embedder._load(), model=tower)
    rng = np.random.RandomState(0)
    pixels = torch.from_numpy(rng.randint(0, 256, (2, 224, 224, 3), np.uint8))
    batch = loaded.scale(pixels)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        expected = tower(batch.contiguous())
    np.testing.assert_allclose(
        loaded.embed_scaled(batch), expected, rtol=RTOL, atol=1e-5
    )


def test_cpu_is_given_few_images_at_a_time_and_a_gpu_all(embedder, monkeypatch):
    loaded = embedder._load()
    given = []

    def encode_pieces(loaded, batch, precision):
        given.append(len(batch))
        return batch.flatten(1)[:, :2]

    monkeypatch.setattr(Backend, "embed_scaled", encode_pieces)
    pixels = torch.zeros(40, 32, 32, 3, dtype=torch.uint8)
    # Each image has 2 x 2 patches.
    monkeypatch.setattr("skbridge._clip.backend._CPU_PATCHES", 64)
    assert loaded.embed(pixels).shape == (40, 2)
    assert given == [16, 16, 8]
    given.clear()
    replace(loaded, device="cuda").embed(pixels)
    assert given == [40]


def test_bf16_is_close_to_float32():
    embedder = CLIPEmbedder("skbridge-tiny", device="cpu")
    loaded = embedder._load()
    pixels = torch.from_numpy(load_emoji().images[::20])
    full = loaded.embed(pixels)
    half = loaded.embed(pixels, "bf16")
    assert half.dtype == torch.float32
    assert not torch.equal(half, full)
    assert torch.cosine_similarity(full, half).min() > 0.999


def test_next_batch_is_given_to_the_device_before_the_last_one_is_awaited(
    embedder, arrays, monkeypatch
):
    events = []

    class OnDevice(torch.Tensor):
        def cpu(self):
            events.append("wait")
            return self.as_subclass(torch.Tensor)

    embed = Backend.embed

    def launch(loaded, pixels, precision):
        events.append("launch")
        return embed(loaded, pixels).as_subclass(OnDevice)

    monkeypatch.setattr(Backend, "embed", launch)
    embedder.transform(arrays)
    assert events == ["launch", "launch", "wait", "launch", "wait", "wait"]
    events.clear()
    with pytest.raises(ValueError, match=r"Cannot read X\[5\]"):
        embedder.transform([*arrays[:5], None])
    assert events == ["launch", "wait"], "what was embedded is kept"


@pytest.mark.parametrize("cores_free", [True, False])
def test_overlap_changes_nothing(embedder, paths, monkeypatch, cores_free):
    before = embedder.transform(paths)
    monkeypatch.setattr(
        "skbridge._embedder.leaves_cores_free", lambda device: cores_free
    )
    np.testing.assert_array_equal(embedder.transform(paths), before)


# JPEG at reduced size


@pytest.fixture(scope="module")
def photos():
    """JPEG files of photographs, crops of several sizes."""
    rng = np.random.RandomState(0)
    files = []
    for number in range(40):
        pixels = load_sample_images().images[number % 2]
        top, left = rng.randint(0, 100, size=2)
        size = rng.randint(280, 328)
        crop = pixels[top : top + size, left : left + size + 100]
        buffer = io.BytesIO()
        Image.fromarray(crop).save(buffer, "JPEG", quality=90)
        files.append(buffer.getvalue())
    return files


def test_fast_jpeg_is_close_to_the_full_decode(photos):
    embedder = CLIPEmbedder("skbridge-tiny", device="cpu")
    full = embedder.transform(photos)
    fast = embedder.set_params(fast_jpeg=True).transform(photos)
    cosines = np.sum(full * fast, axis=1) / (
        np.linalg.norm(full, axis=1) * np.linalg.norm(fast, axis=1)
    )
    assert (fast != full).any(axis=1).all(), "every photo is large enough"
    assert cosines.min() > 0.98
    assert np.median(cosines) > 0.9995


def test_fast_jpeg_leaves_small_files_and_other_formats_alone(photos, arrays):
    embedder = CLIPEmbedder("skbridge-tiny", device="cpu")
    small = io.BytesIO()
    Image.open(io.BytesIO(photos[0])).resize((255, 255)).save(small, "JPEG")
    images = [small.getvalue(), png_bytes(load_sample_images().images[0]), *arrays]
    full = embedder.transform(images)
    fast = embedder.set_params(fast_jpeg=True).transform(images)
    np.testing.assert_array_equal(fast, full)


def test_cache_tells_fast_jpeg_from_full(photos, tmp_path):
    embedder = CLIPEmbedder("skbridge-tiny", device="cpu", cache_dir=tmp_path)
    full = embedder.transform(photos[:2])
    fast = embedder.set_params(fast_jpeg=True).transform(photos[:2])
    assert (fast != full).any()
    embedder.set_params(fast_jpeg=False)
    np.testing.assert_array_equal(embedder.transform(photos[:2]), full)


# Memory, threads and progress


@pytest.mark.parametrize("cores_free", [True, False])
@pytest.mark.parametrize("num_workers", [0, 4])
def test_at_most_one_batch_of_images_is_alive(
    embedder, monkeypatch, num_workers, cores_free
):
    monkeypatch.setattr(
        "skbridge._embedder.leaves_cores_free", lambda device: cores_free
    )

    class Lazy:
        """Images made when asked for; counts those that somebody holds."""

        alive = weakref.WeakValueDictionary()
        most_alive = 0
        threads = set()

        def __len__(self):
            return 50

        def __getitem__(self, index):
            image = Image.new("RGB", (8, 8), (index, 0, 0))
            self.alive[index] = image
            self.most_alive = max(self.most_alive, len(self.alive))
            self.threads.add(threading.get_ident())
            return image

    images = Lazy()
    embedder.set_params(batch_size=4, num_workers=num_workers)
    assert len(embedder.transform(images)) == 50
    assert images.most_alive <= 4
    assert images.threads == {threading.get_ident()}, "the user's code sees one thread"
    assert embedder.valid_images(images).all()
    assert images.most_alive <= 4


def test_progress_is_written_to_stderr_when_asked_for(embedder, arrays, capsys):
    embedder.transform(arrays)
    assert capsys.readouterr() == ("", "")
    embedder.set_params(verbose=1).transform(arrays)
    out, err = capsys.readouterr()
    assert out == ""
    assert "12/12" in err
    embedder.valid_images(arrays)
    assert "12/12" in capsys.readouterr().err


# Unreadable images


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (0, "OSError: image file is truncated"),
        (1, "UnidentifiedImageError: the file is empty"),
        (2, "UnidentifiedImageError: it is damaged, or of none of the formats"),
        (3, "FileNotFoundError:"),
        (4, "(IsADirectory|Permission)Error:"),
    ],
)
def test_unreadable_file_is_an_error_that_names_it(
    embedder, paths, tmp_path, broken, reason
):
    path = write_broken_files(tmp_path)[broken]
    with pytest.raises(
        ValueError, match=rf"Cannot read X\[7\] \('.*'\): {reason}"
    ) as e:
        embedder.transform([*paths[:7], path, *paths[7:], path])
    assert repr(path) in str(e.value)
    assert "valid_images(X) first, or set on_error='nan'" in str(e.value)
    assert isinstance(e.value.__cause__, Exception)


def test_object_that_is_no_image_is_named_by_its_position(embedder, paths):
    with pytest.raises(
        ValueError, match=r"X\[1\] \(None\): ValueError: the image is missing"
    ):
        embedder.transform([paths[0], None])


def test_on_error_nan_keeps_the_rows_and_warns_once(embedder, paths, tmp_path):
    broken = write_broken_files(tmp_path)
    X = [*paths[:2], *broken, None, *paths[2:]]
    good = np.r_[0, 1, 8:18]
    embedder.set_params(on_error="nan")
    with pytest.warns(UserWarning, match="Cannot read 6 of 18 images") as record:
        embeddings = embedder.transform(X)
    assert len(record) == 1
    assert record[0].filename == __file__
    message = str(record[0].message)
    for row, path in enumerate(broken, start=2):
        assert f"X[{row}] ({path!r}): " in message
    assert "X[7] (None): ValueError" in message
    assert embeddings.shape == (18, N_FEATURES)
    assert np.isnan(embeddings[2:8]).all()
    np.testing.assert_allclose(
        embeddings[good], embedder.transform(paths), rtol=RTOL, atol=1e-5
    )


def test_on_error_nan_with_nothing_readable_gives_nan_only(embedder):
    embedder.set_params(on_error="nan")
    with pytest.warns(UserWarning, match="Cannot read 23 of 23 images.* and 3 more"):
        assert np.isnan(embedder.transform([None] * 23)).all()


def test_valid_images_is_the_mask_of_what_can_be_embedded(embedder, paths, tmp_path):
    broken = write_broken_files(tmp_path)
    X = pd.Series([*broken, *paths])
    mask = embedder.valid_images(X)
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, np.arange(17) >= 5)
    np.testing.assert_array_equal(
        embedder.fit_transform(X[mask]), embedder.fit_transform(paths)
    )


def test_valid_images_needs_no_model(paths):
    mask = CLIPEmbedder(model="no such model").valid_images([*paths, "none.jpg"])
    np.testing.assert_array_equal(mask, [True] * 12 + [False])


# Bad input


@pytest.mark.parametrize(
    "method", ["fit", "transform", "fit_transform", "valid_images"]
)
@pytest.mark.parametrize(
    ("X", "message"),
    [
        ("cat.jpg", r"got 'cat.jpg', which is one image. Wrap it in a list"),
        ([], "X is empty"),
        (np.zeros((8, 8, 3)), r"shape \(8, 8, 3\). If it is one image, wrap it"),
        ((name for name in "ab"), "Make a list of its images first"),
        (pd.DataFrame({"a": ["a"], "b": ["b"]}), r"2 columns: \['a', 'b'\]"),
    ],
    ids=["string", "empty", "3-D", "generator", "frame"],
)
def test_bad_x_is_an_error_in_every_method(embedder, method, X, message):
    with pytest.raises(ValueError, match=message):
        getattr(embedder, method)(X)


@pytest.mark.parametrize("method", ["fit", "transform", "valid_images"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_size", 0),
        ("batch_size", 2.5),
        ("num_workers", -1),
        ("precision", "half"),
        ("on_error", "drop"),
        ("fast_jpeg", "yes"),
        ("model", None),
        ("device", 0),
    ],
)
def test_parameter_out_of_range_is_an_error(embedder, paths, method, name, value):
    embedder.set_params(**{name: value})
    message = f"The '{name}' parameter of CLIPEmbedder must be"
    with pytest.raises(InvalidParameterError, match=message):
        getattr(embedder, method)(paths)


@pytest.mark.parametrize("method", ["fit", "transform"])
def test_unknown_model_is_an_error_that_lists_near_names(paths, method):
    with pytest.raises(ValueError, match=r"'ViT-B-17'.*ViT-B-16"):
        getattr(CLIPEmbedder(model="ViT-B-17"), method)(paths)


def test_unknown_device_is_an_error(embedder, paths):
    with pytest.raises(ValueError, match="device must be 'auto'"):
        embedder.set_params(device="gpu").transform(paths)


# Model, device and weights


def test_fit_and_init_load_no_weights(embedder, paths, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("weights are loaded")

    monkeypatch.setattr("skbridge._embedder.load_clip", refuse)
    assert embedder.fit(paths, y=[0] * 12) is embedder
    assert vars(embedder) == vars(clone(embedder))


def test_weights_are_shared_and_never_kept_on_the_instance(embedder, paths):
    before = dict(vars(embedder))
    embedder.fit_transform(paths)
    embedder.get_feature_names_out()
    embedder.encode_text(["a cat"])
    assert vars(embedder) == before
    assert embedder._load() is clone(embedder)._load()


def test_set_params_changes_the_model(embedder, tiny_clip_dir, paths, tmp_path):
    from safetensors.torch import load_file, save_file

    other = tmp_path / "other-clip"
    shutil.copytree(tiny_clip_dir, other)
    weights = load_file(other / "open_clip_model.safetensors")
    weights["visual.attnpool.c_proj.weight"] *= 2
    weights["visual.attnpool.c_proj.bias"] *= 2
    save_file(weights, other / "open_clip_model.safetensors")

    first = embedder.fit_transform(paths)
    second = embedder.set_params(model=str(other)).transform(paths)
    np.testing.assert_allclose(second, 2 * first, rtol=RTOL, atol=1e-5)
    assert embedder.get_feature_names_out()[0] == "other_clip_00"


@pytest.mark.parametrize("prefix", ["", "local-dir:"])
def test_model_may_be_a_folder(tiny_clip_dir, arrays, expected, prefix):
    embedder = CLIPEmbedder(model=f"{prefix}{tiny_clip_dir}", device="cpu")
    np.testing.assert_allclose(
        embedder.transform(arrays), expected, rtol=RTOL, atol=1e-5
    )


def test_model_may_be_a_path(tiny_clip_dir, arrays, expected):
    embedder = CLIPEmbedder(model=tiny_clip_dir, device="cpu")
    np.testing.assert_allclose(
        embedder.fit_transform(arrays), expected, rtol=RTOL, atol=1e-5
    )


def test_embeddings_that_are_not_finite_are_an_error(
    tiny_clip_dir, arrays, tmp_path, monkeypatch
):
    folder = shutil.copytree(tiny_clip_dir, tmp_path / "broken-clip")
    embedder = CLIPEmbedder(str(folder), device="cpu", cache_dir=tmp_path / "cache")
    embed = Backend.embed

    def overflow(loaded, pixels, precision):
        embeddings = embed(loaded, pixels, precision)
        embeddings[1, 3], embeddings[2, 0] = float("inf"), float("nan")
        return embeddings

    monkeypatch.setattr(Backend, "embed", overflow)
    with pytest.raises(ValueError, match=r"-clip gives for X\[1\], X\[2\] are not"):
        embedder.transform(arrays[:4])
    assert embedder.cache_info()["entries"] == 0


@pytest.mark.parametrize("cached", [False, True])
def test_missing_device_is_told_of_once_a_call(
    embedder, arrays, tmp_path, monkeypatch, cached
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    embedder = clone(embedder).set_params(
        device="cuda", cache_dir=str(tmp_path) if cached else None
    )
    with pytest.warns(UserWarning, match="Requested device 'cuda'") as caught:
        embedder.transform(arrays)
    assert len(caught) == 1


def test_missing_device_and_half_precision_fall_back_with_warnings(
    embedder, arrays, expected, monkeypatch
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    embedder.set_params(device="cuda", precision="fp16")
    with (
        pytest.warns(UserWarning, match="Requested device 'cuda' but torch finds no"),
        pytest.warns(UserWarning, match="precision='fp16' is not used on this CPU"),
    ):
        embeddings = embedder.transform(arrays)
    np.testing.assert_allclose(embeddings, expected, rtol=RTOL, atol=1e-5)


# Text


def test_encode_text_is_that_of_open_clip(embedder, tiny_clip_dir):
    model, _ = open_clip.create_model_from_pretrained(f"local-dir:{tiny_clip_dir}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{tiny_clip_dir}")
    prompts = ["a photo of a cat.", "a dog"]
    with torch.no_grad():
        expected = model.eval().encode_text(tokenizer(prompts)).numpy()
    for form in (prompts, tuple(prompts), np.array(prompts), pd.Series(prompts)):
        embeddings = embedder.encode_text(form)
        assert embeddings.dtype == np.float32
        np.testing.assert_allclose(embeddings, expected, rtol=RTOL, atol=1e-5)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ("a cat", r"got the string 'a cat'. Wrap it in a list"),
        ([], "prompts is empty"),
        (["a cat", 3], "got 3 at position 1"),
    ],
)
def test_bad_prompts_are_an_error(embedder, prompts, message):
    with pytest.raises(ValueError, match=message):
        embedder.encode_text(prompts)


# Feature names and data frames


def test_feature_names_carry_the_model_and_sort_as_text(embedder, tiny_clip_dir):
    names = embedder.get_feature_names_out()
    assert names.dtype == object
    assert len(names) == N_FEATURES
    assert names[0].endswith("_00")
    assert names[23].endswith("_23")
    assert list(names) == sorted(names)
    assert all(name.isidentifier() for name in names)
    stem = tiny_clip_dir.name.replace("-", "_")
    assert names[0] == f"{stem}_00"


def test_pandas_output_keeps_the_index(embedder, paths):
    embedder.set_output(transform="pandas")
    names = list(embedder.get_feature_names_out())
    X = pd.Series(paths, index=range(50, 62))
    for form, index in [(X, X.index), (X.to_frame(), X.index), (paths, range(12))]:
        frame = embedder.fit_transform(form)
        assert list(frame.columns) == names
        assert list(frame.index) == list(index)
        assert (frame.dtypes == np.float32).all()


def test_column_of_a_data_frame_is_embedded_beside_others(embedder, paths):
    frame = pd.DataFrame({"path": paths, "weight": np.arange(12.0)})
    for column in ("path", ["path"]):
        beside = ColumnTransformer(
            [("clip", embedder, column), ("rest", "passthrough", ["weight"])]
        )
        values = beside.fit_transform(frame)
        np.testing.assert_array_equal(values[:, :-1], embedder.transform(paths))
        assert beside.get_feature_names_out()[0].startswith("clip__")
        assert len(beside.get_feature_names_out()) == N_FEATURES + 1


def test_two_embedders_can_be_joined(embedder, paths):
    union = make_union(embedder, clone(embedder))
    assert union.fit_transform(paths).shape == (12, 2 * N_FEATURES)
    assert len(set(union.get_feature_names_out())) == 2 * N_FEATURES


# The scikit-learn contract


@pytest.mark.parametrize(
    "check",
    [
        "check_do_not_raise_errors_in_init_or_set_params",
        "check_estimator_cloneable",
        "check_estimator_repr",
        "check_estimator_tags_renamed",
        "check_get_params_invariance",
        "check_mixin_order",
        "check_no_attributes_set_in_init",
        "check_param_validation",
        "check_parameters_default_constructible",
        "check_set_params",
        "check_valid_tag_types",
    ],
)
def test_data_free_check_passes(check):
    getattr(estimator_checks, check)("CLIPEmbedder", CLIPEmbedder())


def test_clone_has_the_same_parameters_and_nothing_else(embedder, paths):
    copy = clone(embedder.fit(paths))
    assert copy.get_params() == embedder.get_params()
    np.testing.assert_array_equal(copy.transform(paths), embedder.transform(paths))


def test_pickle_is_small_and_gives_the_same_embeddings(embedder, paths, tmp_path):
    embeddings = embedder.fit_transform(paths)
    joblib.dump(embedder, tmp_path / "embedder.joblib")
    assert (tmp_path / "embedder.joblib").stat().st_size < 2000
    loaded = joblib.load(tmp_path / "embedder.joblib")
    np.testing.assert_array_equal(loaded.transform(paths), embeddings)


def test_unpickling_imports_no_torch(embedder, arrays):
    embedder.fit_transform(arrays)
    code = (
        f"import pickle, sys; pickle.loads({pickle.dumps(embedder)!r}); "
        "assert not {'torch', 'open_clip'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_pipeline_on_paths_is_searched_in_two_processes(embedder, paths):
    y = np.array(["blue", "red"] * 6)
    pipeline = make_pipeline(embedder, LogisticRegression())
    search = GridSearchCV(
        pipeline, {"logisticregression__C": [1.0, 100.0]}, cv=2, n_jobs=2
    )
    search.fit(paths, y)
    assert search.best_score_ > 0.9
    assert search.predict(paths[:3]).tolist() == ["blue", "red", "blue"]


def test_pipeline_on_images_is_cross_validated(embedder, arrays):
    pipeline = make_pipeline(embedder, LogisticRegression(C=100.0))
    images = [Image.fromarray(array) for array in arrays]
    assert cross_val_score(pipeline, images, [0, 1] * 6, cv=3).mean() > 0.9


# Output


def test_embeddings_are_written_to_out(embedder, paths, tmp_path):
    expected = embedder.transform(paths)
    out = np.lib.format.open_memmap(
        tmp_path / "out.npy", "w+", np.float32, expected.shape
    )
    assert embedder.transform(paths, out=out) is out
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), expected)


@pytest.mark.parametrize(
    ("out", "got"),
    [
        (np.empty((2, 3), np.float32), r"shape \(2, 3\), float32"),
        (np.empty((1, 512)), r"shape \(1, 512\), float64"),
        (np.broadcast_to(np.float32(0), (1, 512)), "read-only"),
        ([], "list"),
    ],
)
def test_out_of_another_form_is_refused(embedder, paths, out, got):
    with pytest.raises(ValueError, match=f"out must be a writeable float32 .*{got}"):
        embedder.transform(paths[:1], out=out)
