import io
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from skbridge import augment_shots
from skbridge._images.augment import _crop


def make_image(size=(40, 30), seed=0):
    rng = np.random.default_rng(seed)
    return Image.fromarray(
        rng.integers(256, size=(*size[::-1], 3), dtype=np.uint8), "RGB"
    )


@pytest.fixture
def images():
    return [make_image((40, 30), 0), make_image((25, 50), 1), make_image((32, 32), 2)]


def pixels(views):
    return [np.asarray(view).tobytes() for view in views]


def test_views_come_image_by_image_the_first_being_the_image(images):
    views, labels, groups = augment_shots(images, ["b", "a", "b"], 4, 0)
    assert len(views) == 12
    assert_array_equal(labels, np.repeat(["b", "a", "b"], 4))
    assert_array_equal(groups, np.repeat([0, 1, 2], 4))
    assert pixels(views[::4]) == pixels(images)
    for view, group in zip(views, groups, strict=True):
        assert view.mode == "RGB"
        assert view.size in (images[group].size, 2 * (min(images[group].size),))


def test_one_view_is_the_images_alone(images):
    views, labels, groups = augment_shots(images, [1, 2, 3], n_views=1)
    assert pixels(views) == pixels(images)
    assert_array_equal(labels, [1, 2, 3])
    assert_array_equal(groups, [0, 1, 2])


def test_random_state_makes_views_repeatable(images):
    def views(seed):
        return pixels(augment_shots(images, [0, 1, 2], 5, random_state=seed)[0])

    assert views(3) == views(3)
    assert views(3) != views(4)
    assert len(set(views(3))) > 10


def test_views_of_early_images_do_not_depend_on_later_ones(images):
    few = augment_shots(images[:2], [0, 1], 3, random_state=0)[0]
    many = augment_shots(images * 30, np.arange(90), 3, random_state=0)[0]
    assert pixels(few) == pixels(many[:6])


@pytest.mark.parametrize("size", [(100, 80), (60, 60), (50, 90)])
def test_crops_keep_area_and_ratio_within_bounds(size):
    rng = np.random.RandomState(0)
    shares, ratios, places = [], [], []
    for _ in range(500):
        left, upper, right, lower = _crop(*size, 0.5, rng)
        assert 0 <= left < right <= size[0]
        assert 0 <= upper < lower <= size[1]
        shares.append((right - left) * (lower - upper) / (size[0] * size[1]))
        ratios.append((right - left) / (lower - upper))
        places.append((left, upper))
    assert min(shares) > 0.47
    assert max(shares) > 0.7
    assert 0.72 < min(ratios) < 1 < max(ratios) < 1.38
    assert len(set(places)) > 50


@pytest.mark.parametrize(
    ("size", "box"),
    [((300, 30), (130, 0, 170, 30)), ((30, 300), (0, 130, 30, 170)), ((9, 1), None)],
)
def test_long_thin_images_are_cropped_in_their_middle(size, box):
    drawn = _crop(*size, 0.9, np.random.RandomState(0))
    assert drawn == (box or (4, 0, 5, 1))


def test_half_of_the_views_are_mirrored():
    ramp = np.tile(np.arange(0, 240, 4, dtype=np.uint8), (60, 1))
    views, _, _ = augment_shots([ramp], [0], 201, random_state=0)
    mirrored = [np.asarray(view)[:, 0].mean() > 120 for view in views[1:]]
    assert 70 < sum(mirrored) < 130


def test_a_scale_of_one_keeps_nearly_everything():
    view = augment_shots([make_image((48, 48))], [0], 2, 0, min_scale=1.0)[0][1]
    assert view.size == (48, 48)


def test_every_form_of_image_is_taken(images, tmp_path):
    path = tmp_path / "shot.png"
    images[0].save(path)
    buffer = io.BytesIO()
    images[0].save(buffer, format="PNG")
    forms = [path, str(path), buffer.getvalue(), np.asarray(images[0]), images[0]]
    views, _, _ = augment_shots(forms, range(5), 2, 0)
    assert len(set(pixels(views[::2]))) == 1
    stack = np.stack([np.asarray(images[2])] * 3)
    assert len(augment_shots(stack, [0, 1, 2], 2)[0]) == 6
    series = pd.Series([str(path)] * 2, index=[7, 8])
    _, labels, _ = augment_shots(series, pd.Series(["a", "b"], index=[7, 8]), 2)
    assert_array_equal(labels, ["a", "a", "b", "b"])


@pytest.mark.parametrize(
    ("images", "y", "options", "message"),
    [
        (["a.jpg"], [0, 1], {}, "1 images and 2 labels"),
        ("a.jpg", [0], {}, "Wrap it in a list"),
        ([], [], {}, "empty"),
        (["/no/such/file.jpg"], [0], {}, r"Cannot read images\[0\].*valid_images"),
        ([np.ones((4, 4)), None], [0, 1], {}, r"Cannot read images\[1\]"),
        ([np.ones((4, 4))], [0], {"n_views": 0}, "'n_views' parameter"),
        ([np.ones((4, 4))], [0], {"n_views": 2.5}, "'n_views' parameter"),
        ([np.ones((4, 4))], [0], {"min_scale": 0}, "'min_scale' parameter"),
        ([np.ones((4, 4))], [0], {"random_state": "x"}, "'random_state' parameter"),
        ([np.ones((4, 4))], [[0, 1]], {}, "y should be a 1d array"),
    ],
)
def test_bad_input_is_refused(images, y, options, message):
    with pytest.raises(ValueError, match=message):
        augment_shots(images, y, **options)


def test_importing_the_package_imports_no_torch():
    code = "import sys, skbridge; assert not {'torch', 'open_clip'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
