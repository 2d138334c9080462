"""Augmented views of shots, with the groups that keep views of one image together."""

from numbers import Integral, Real

import numpy as np
from PIL import Image
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils._param_validation import Interval, validate_params

from skbridge._images.accept import check_images
from skbridge._images.batches import Unreadable, read_in_batches

_BATCH_SIZE = 64
_ATTEMPTS = 10
_LOG_RATIO = np.log(4 / 3)


@validate_params(
    {
        "images": "no_validation",
        "y": "no_validation",
        "n_views": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
        "min_scale": [Interval(Real, 0, 1, closed="right")],
    },
    prefer_skip_nested_validation=True,
)
def augment_shots(images, y, n_views=8, random_state=None, *, min_scale=0.5):
    """Make several views of every shot by random crops and flips.

    Parameters
    ----------
    images : sequence of images
        Images of any form that :class:`~skbridge.CLIPEmbedder` accepts.
    y : array-like of shape (n_images,)
        Labels.
    n_views : int, default=8
        Views of each image. The first is the image itself.
    random_state : int, RandomState instance or None, default=None
        Draws crops and flips; an int makes them repeatable.
    min_scale : float, default=0.5
        The smallest share of the image's area that a crop may keep.

    Returns
    -------
    images : list of PIL.Image.Image
        The views in RGB, those of one image after another; all in memory. Crops
        are squares as wide as the image's shorter side.
    labels : ndarray of shape (n_images * n_views,)
        Label of each view.
    groups : ndarray of shape (n_images * n_views,)
        Position of the image that each is a view of.

    Raises
    ------
    ValueError
        If there are not as many labels as images, or an image cannot be read.

    See Also
    --------
    FewShotSearchCV : Takes `groups` in `fit`, and never holds out one view of an
        image while it learns from another.

    Notes
    -----
    The views are those of the official code: a crop of 50 to 100 % of the area,
    with an aspect ratio from 3:4 to 4:3, resized bicubically to a square, and
    mirrored in one case out of two.

    Examples
    --------
    >>> import numpy as np
    >>> from skbridge import augment_shots
    >>> images = [np.zeros((40, 60, 3)), np.ones((50, 50))]
    >>> views, labels, groups = augment_shots(images, ["cat", "dog"], 3, 0)
    >>> [view.size for view in views]
    [(60, 40), (40, 40), (40, 40), (50, 50), (50, 50), (50, 50)]
    >>> groups
    array([0, 0, 0, 1, 1, 1])
    """
    images = check_images(images)
    labels = column_or_1d(y)
    if len(labels) != len(images):
        raise ValueError(
            f"images and y must be of the same length, got {len(images)} images and "
            f"{len(labels)} labels."
        )
    rng = check_random_state(random_state)
    views = []
    # Decoding runs in threads; the random draws stay in the order of the images.
    batches = read_in_batches(images, lambda image: image, batch_size=_BATCH_SIZE)
    for start, batch in batches:
        for position, image in enumerate(batch, start):
            if isinstance(image, Unreadable):
                raise ValueError(
                    f"Cannot read images[{position}] {image}. Leave out it and its "
                    "label; CLIPEmbedder().valid_images(images) finds all such images."
                ) from image.error
            views.append(image)
            views.extend(_view(image, min_scale, rng) for _ in range(n_views - 1))
    groups = np.repeat(np.arange(len(images)), n_views)
    return views, labels[groups], groups


def _view(image, min_scale, rng):
    """Crop, resize and perhaps mirror an RGB image."""
    side = min(image.size)
    view = image.resize(
        (side, side), Image.Resampling.BICUBIC, box=_crop(*image.size, min_scale, rng)
    )
    mirrored = rng.uniform() < 0.5
    return view.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else view


def _crop(width, height, min_scale, rng):
    """Draw a box (left, upper, right, lower) inside of an image."""
    for _ in range(_ATTEMPTS):
        area = width * height * rng.uniform(min_scale, 1)
        ratio = np.exp(rng.uniform(-_LOG_RATIO, _LOG_RATIO))
        w, h = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, upper = rng.randint(width - w + 1), rng.randint(height - h + 1)
            return left, upper, left + w, upper + h
    # An image too long and thin for the ratios: the widest that is not, central.
    w = min(width, max(1, round(height * 4 / 3)))
    h = min(height, max(1, round(width * 4 / 3)))
    left, upper = (width - w) // 2, (height - h) // 2
    return left, upper, left + w, upper + h
