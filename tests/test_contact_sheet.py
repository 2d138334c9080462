import matplotlib as mpl
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression, Perceptron

from skbridge import CLIPEmbedder, make_few_shot_pipeline
from skbridge.inspection import ContactSheetDisplay

mpl.use("Agg")
from matplotlib import pyplot as plt

CLASSES = np.array(["cat", "cost in $ or $", "dog"])
PROBA = np.array([[0.9, 0.06, 0.04], [0.4, 0.35, 0.25], [0.2, 0.1, 0.7]])


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def make_image(size, colour):
    return Image.new("RGB", size, colour)


IMAGES = [make_image((40, 20), "red"), make_image((20, 40), "lime"), "no such file"]


def test_uncertain_images_come_first_and_only_drawn_ones_are_read():
    display = ContactSheetDisplay(CLASSES, PROBA, IMAGES)
    assert_array_equal(display.order, [1, 2, 0])
    assert_array_equal(display.prediction, ["cat", "cat", "dog"])
    assert_array_equal(display.runner_up, ["cost in $ or $", "cost in $ or $", "cat"])
    np.testing.assert_allclose(display.margins, [0.84, 0.05, 0.5])
    display.plot(n_images=1)
    with pytest.raises(FileNotFoundError):
        display.plot(n_images=2)


def test_tiles_show_image_label_bar_and_runner_up():
    images = [*IMAGES[:2], make_image((30, 30), "blue")]
    display = ContactSheetDisplay(CLASSES, PROBA, images).plot(n_images=2)
    display.figure_.draw_without_rendering()
    assert len(display.axes_) == len(display.figure_.axes) == 2
    first, second = display.axes_
    assert_array_equal(first.images[0].get_array()[0, 0], [0, 255, 0])
    assert_array_equal(second.images[0].get_array()[0, 0], [0, 0, 255])
    assert first.get_title(loc="left") == "cat 40 %"
    (bar,) = first.child_axes
    assert bar.get_xlabel() == "cost in $ or $ 35 %"
    widths = [patch.get_width() for patch in bar.patches]
    np.testing.assert_allclose(widths, [0.4, 0.35])
    assert first.get_window_extent().width == pytest.approx(
        first.get_window_extent().height
    )


def test_given_axes_are_used():
    _, axes = plt.subplots(1, 2)
    display = ContactSheetDisplay(CLASSES, PROBA[:2], IMAGES[:2]).plot(axes)
    assert_array_equal(display.axes_, axes)


def test_pipeline_and_classifier_of_embeddings_give_the_same_sheet(tmp_path):
    rng = np.random.default_rng(0)
    paths = []
    for i in range(6):
        pixels = rng.integers(0, 255, size=(32, 32, 3)) // (1 + 4 * (i % 2))
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(pixels.astype(np.uint8)).save(paths[-1])
    y = ["cat", "dog"] * 3
    pipeline = make_few_shot_pipeline("skbridge-tiny").fit(paths, y)
    whole = ContactSheetDisplay.from_estimator(pipeline, paths, plot=False)
    X = CLIPEmbedder(model="skbridge-tiny").fit_transform(paths)
    classifier = LogisticRegression().fit(X, y)
    apart = ContactSheetDisplay.from_estimator(classifier, X, images=paths, n_images=4)
    assert whole.images is paths
    assert len(apart.axes_) == 4
    assert_array_equal(apart.prediction, classifier.predict(X))


def test_wrong_arguments_are_named():
    X = np.eye(3)
    with pytest.raises(TypeError, match="has predict_proba; got Perceptron"):
        ContactSheetDisplay.from_estimator(Perceptron().fit(X, [0, 1, 1]), X)
    with pytest.raises(NotFittedError):
        ContactSheetDisplay.from_estimator(LogisticRegression(), X)
    fitted = LogisticRegression().fit(X, [0, 1, 1])
    with pytest.raises(ValueError, match="images has 2 images, but X has 3 rows"):
        ContactSheetDisplay.from_estimator(fitted, X, images=IMAGES[:2])
