"""Checks of embeddings, labels and weights, whose errors say what to do."""

import os
import warnings
from contextlib import suppress
from functools import wraps

import numpy as np
from PIL import Image
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, validate_data

from skbridge._messages import shown

# What one image may be, beside an array.
_IMAGES = str | bytes | os.PathLike | Image.Image


def all_or_nothing(fit):
    """Make a method leave its estimator as it was wherever it raises.

    It may replace attributes, but not change their contents.
    """

    @wraps(fit)
    def undone_on_error(self, *args, **kwargs):
        before = vars(self).copy()
        try:
            return fit(self, *args, **kwargs)
        except BaseException:
            vars(self).clear()
            vars(self).update(before)
            raise

    return undone_on_error


def check_embeddings(estimator, X, *y, reset):
    """Validate X, and y where it is given; refuse images with a way out.

    Parameters
    ----------
    estimator : estimator
        Whose `n_features_in_` and `feature_names_in_` are set or checked.
    X : array-like of shape (n_samples, n_features)
    *y : array-like of shape (n_samples,)
    reset : bool
        Whether to set, rather than check, the estimator's input features.

    Returns
    -------
    X : ndarray of shape (n_samples, n_features), float32 or float64
    y : ndarray of shape (n_samples,)
        Where it is given.

    Raises
    ------
    ValueError
        If X holds something else, or NaN or infinite values.
    """
    try:
        return validate_data(
            estimator, X, *y, reset=reset, dtype=[np.float32, np.float64]
        )
    except (TypeError, ValueError) as error:
        name = type(estimator).__name__
        if _looks_like_images(X):
            raise ValueError(
                f"{name} takes embeddings, an array of shape (n_samples, n_features), "
                "but X looks like images. Embed them first, with CLIPEmbedder; "
                "make_few_shot_pipeline does both steps."
            ) from error
        rows = _rows_without_numbers(X)
        if len(rows):
            raise ValueError(
                f"{len(rows)} of {len(X)} rows of X hold NaN or infinite values: "
                f"{shown(rows.tolist())}. {name} needs numbers in all of them. "
                'CLIPEmbedder(on_error="nan") gives NaN for images that it cannot '
                "read: leave them out beforehand, with its valid_images, or leave out "
                "these rows."
            ) from error
        raise


def _looks_like_images(X):
    if hasattr(X, "to_numpy"):
        # A column of a table, or a table of one column.
        X = X.to_numpy()
        X = X.ravel() if X.size == len(X) else X
    is_indexed = isinstance(X, list | tuple | np.ndarray) and getattr(X, "ndim", 1)
    first = X[0] if is_indexed and len(X) else None
    is_image = isinstance(X, _IMAGES) or isinstance(first, _IMAGES)
    return is_image or getattr(first, "ndim", 1) > 1


def _rows_without_numbers(X):
    """Find rows with NaN or infinite values; none where X is no float array."""
    # Rows of different lengths make no array.
    with suppress(ValueError):
        X = np.asarray(X)
        if X.ndim == 2 and X.dtype.kind == "f":
            return np.flatnonzero(~np.isfinite(X).all(axis=1))
    return np.empty(0, dtype=int)


def check_shots(estimator, X, y, sample_weight, *, reset=True):
    """Validate shots and drop those of weight zero.

    Parameters
    ----------
    estimator : estimator
        Whose `n_features_in_` and `feature_names_in_` are set or checked.
    X, y, sample_weight
        What `fit` was given.
    reset : bool
        Whether to set, rather than check, the estimator's input features.

    Returns
    -------
    X : ndarray of shape (n_samples, n_features), float32 or float64
    y : ndarray of shape (n_samples,)
    sample_weight : ndarray of shape (n_samples,), float64, positive

    Raises
    ------
    ValueError
        If there are NaN or infinite values, unsuitable labels, or weights that
        are negative or all zero.
    """
    X, y = check_embeddings(estimator, X, y, reset=reset)
    with warnings.catch_warnings():
        # One shot a class is no sign of a regression target here.
        warnings.filterwarnings("ignore", message="The number of unique classes")
        check_classification_targets(y)
    if sample_weight is not None and not np.asarray(sample_weight).any():
        raise ValueError(
            "sample_weight is zero everywhere, which leaves no shots to learn "
            "from. Give at least one shot of each class a positive weight."
        )
    weight = _check_sample_weight(sample_weight, X, dtype=np.float64)
    if weight.min() < 0:
        row = int(np.argmin(weight))
        raise ValueError(
            f"sample_weight must not be negative, but is {weight[row]:g} at index "
            f"{row}. Give a shot that should not count the weight 0."
        )
    counts = weight > 0
    # A mask of ones would copy X.
    return (X, y, weight) if counts.all() else (X[counts], y[counts], weight[counts])


def check_classes(estimator, classes):
    """Refuse shots of a single class, which leave nothing to tell apart."""
    if len(classes) < 2:
        raise ValueError(
            f"{type(estimator).__name__} needs shots of at least two classes, but y "
            f"has one class only: {classes.tolist()[0]!r}."
        )


def check_zero_rows(X, where, *, error=False):
    """Warn of, or refuse, embeddings that are all zero: no CLIP gives those."""
    # Few rows start with a zero, and no others need to be read.
    zero = np.flatnonzero(X[:, 0] == 0)
    zero = zero[~X[zero].any(axis=1)]
    if not len(zero):
        return
    message = (
        f"{len(zero)} of {len(X)} rows of X in {where} are all zero, the first "
        f"at index {int(zero[0])}. A zero row has no direction and is as "
        "near to one class as to any other"
    )
    if error:
        raise ValueError(
            f"{message}; no CLIP embedding is zero. Check how these rows were "
            "embedded, and leave them out."
        )
    warnings.warn(f"{message}.", UserWarning, stacklevel=3)
