"""Checks of embeddings, labels and weights."""

import os
from contextlib import suppress
from copy import copy
from functools import wraps

import numpy as np
from PIL import Image
from sklearn.utils import _safe_indexing
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_sample_weight,
    check_consistent_length,
    validate_data,
)

from skbridge._messages import shown, warn

# Sums of the weights of a class: beyond these, rounding would hide other terms.
_LEAST_WEIGHT, _MOST_WEIGHT = 1e-12, 1e12

# Types of an image, other than an array.
_IMAGES = str | bytes | os.PathLike | Image.Image


def all_or_nothing(fit):
    """Decorate a method so that its estimator changes at once, or not at all.

    The method runs on a copy, whose attributes replace those of the estimator when it
    returns. It may replace attributes, but must not modify their values in place.
    """

    @wraps(fit)
    def on_a_copy(self, *args, **kwargs):
        changed = copy(self)
        fit(changed, *args, **kwargs)
        self.__dict__ = changed.__dict__
        return self

    return on_a_copy


def consistent(method):
    """Decorate a method so that it sees one fit, whatever other threads do meanwhile.

    It runs on an object that shares the attributes of the estimator;
    :func:`all_or_nothing` gives the estimator other ones instead of changing these.
    """

    @wraps(method)
    def on_one_state(self, *args, **kwargs):
        state = object.__new__(type(self))
        state.__dict__ = self.__dict__
        return method(state, *args, **kwargs)

    return on_one_state


def check_embeddings(estimator, X, *y, reset):
    """Validate X, and y if given; if X looks like images, say how to embed them.

    Parameters
    ----------
    estimator : estimator
        Its `n_features_in_` and `feature_names_in_` are set or checked.
    X : array-like of shape (n_samples, n_features)
    *y : array-like of shape (n_samples,)
    reset : bool
        Whether to set, rather than check, the estimator's input features.

    Returns
    -------
    X : ndarray of shape (n_samples, n_features), float32 or float64
    y : ndarray of shape (n_samples,)
        Only if y is given.

    Raises
    ------
    ValueError
        If X does not hold embeddings, or holds NaN or infinite values.
    """
    if _needs_no_conversion(X) and all(map(_is_label_array, y)):
        check_consistent_length(X, *y)
        return validate_data(estimator, X, *y, reset=reset, skip_check_array=True)
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
                f"{shown(rows.tolist())}. {name} needs finite numbers. "
                'CLIPEmbedder(on_error="nan") gives NaN for images that it cannot '
                "read: find the others with its valid_images, or leave out these rows."
            ) from error
        raise


def _needs_no_conversion(X):
    """Whether X is what scikit-learn's `check_array` returns unchanged.

    `check_array` changes the filters of warnings while it runs, which is not safe in
    several threads.
    """
    if type(X) is not np.ndarray or X.dtype not in (np.float32, np.float64):
        return False
    with np.errstate(all="ignore"):
        return X.ndim == 2 and X.size > 0 and bool(np.isfinite(X.sum()))


def _is_label_array(y):
    """Whether y has the form and a type of labels, as scikit-learn's checks want it."""
    return type(y) is np.ndarray and y.ndim == 1 and y.dtype.kind in "biuU"


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
    """Find rows with NaN or infinite values; none if X is not a float array."""
    # NumPy makes no array of rows with different lengths.
    with suppress(ValueError):
        X = np.asarray(X)
        if X.ndim == 2 and X.dtype.kind == "f":
            return np.flatnonzero(~np.isfinite(X).all(axis=1))
    return np.empty(0, dtype=int)


def missing_rows(values) -> np.ndarray:
    """Find the rows of labels or groups that are None, NaN or pd.NA.

    Parameters
    ----------
    values : array-like of shape (n_samples,)

    Returns
    -------
    ndarray of int
    """
    if hasattr(values, "isna"):
        return np.flatnonzero(np.asarray(values.isna()))
    if not hasattr(values, "dtype"):
        values = _as_objects(values)
    values = np.asarray(values)
    if values.dtype.kind == "f":
        return np.flatnonzero(np.isnan(values))
    if values.dtype.kind != "O":
        return np.empty(0, dtype=int)
    return np.flatnonzero([_is_missing(value) for value in values.ravel()])


def _is_missing(value):
    # Recognises pd.NA without pandas; only NaN differs from itself.
    is_nan = isinstance(value, (float, np.floating)) and value != value
    return value is None or is_nan or type(value).__name__ in ("NAType", "NaTType")


def _as_objects(values):
    """Convert to an array of objects; NumPy would convert mixed kinds to strings."""
    values = list(values)
    objects = np.empty(len(values), dtype=object)
    for row, value in enumerate(values):
        objects[row] = value
    return objects


def check_labels(estimator, y):
    """Refuse missing labels and mixed kinds of labels; preserve the kind of others.

    Parameters
    ----------
    estimator : estimator
        Its name is used in errors.
    y : array-like of shape (n_samples,)
        Labels. Anything but a sequence is returned unchanged, for other checks.

    Returns
    -------
    array-like of shape (n_samples,)
        Without types of pandas, which NumPy would convert to floats or objects.

    Raises
    ------
    ValueError
        If labels are missing, or strings and numbers are mixed.
    """
    is_column = isinstance(y, (list, tuple)) or getattr(y, "ndim", 0) == 1
    if not is_column or not hasattr(y, "__len__"):
        return y
    missing = missing_rows(y)
    if len(missing):
        raise ValueError(
            f"{len(missing)} of {len(y)} labels in y are missing (None, NaN or pd.NA), "
            f"in the rows {shown(missing.tolist())}. {type(estimator).__name__} needs "
            "a label for every shot: leave out these rows of X and y. "
            "BridgedGDAClassifier learns from images without a label."
        )
    if hasattr(y, "isna"):
        y = _without_pandas(y)
    if isinstance(y, (list, tuple)) or y.dtype.kind == "O":
        objects = y if hasattr(y, "dtype") else _as_objects(y)
        texts = np.array([isinstance(value, str) for value in objects], dtype=bool)
        if texts.any() and not texts.all():
            pair = [objects[texts.argmin()], objects[texts.argmax()]]
            raise ValueError(
                f"y has labels of mixed kinds, such as {shown(pair)}: {texts.sum()} of "
                f"{len(y)} labels are strings. Labels must be all strings or all "
                "numbers: convert y to one kind, for example with [str(label) for "
                "label in y]."
            )
    return y


def _without_pandas(y):
    dtype = y.dtype
    if hasattr(dtype, "categories"):
        return _without_pandas(y.astype(dtype.categories.dtype))
    return y.to_numpy(dtype=getattr(dtype, "numpy_dtype", None))


def check_kind_of_labels(y, known, name):
    """Refuse strings where labels were numbers, and numbers where they were strings.

    Parameters
    ----------
    y, known : array-like of shape (n_samples,)
        Neither is of mixed kinds.
    name : str
        Name of `known` in the error.

    Raises
    ------
    ValueError
        If the kinds differ.
    """
    if (
        not len(y)
        or not len(known)
        or isinstance(y[0], str) == isinstance(known[0], str)
    ):
        return
    raise ValueError(
        f"y has labels of another kind than {name}: {shown([y[0]])} is of type "
        f"{type(y[0]).__name__}, {shown([known[0]])} of type "
        f"{type(known[0]).__name__}. Labels must be all strings or all numbers: "
        "convert y, or fit on all shots with labels of one kind."
    )


def check_shots(estimator, X, y, sample_weight, *, reset=True):
    """Validate shots and drop those of weight zero.

    Parameters
    ----------
    estimator : estimator
        Its `n_features_in_` and `feature_names_in_` are set or checked.
    X, y, sample_weight
        Arguments of `fit`.
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
        are negative, all zero, or too large or small to be summed.
    """
    y = check_labels(estimator, y)
    X, y = check_embeddings(estimator, X, y, reset=reset)
    if not reset:
        check_kind_of_labels(y, estimator.classes_, "classes_")
    if not _is_label_array(y):
        # scikit-learn checks only the first of an array of objects, and warns if most
        # float labels occur once, as with single shots; so each is passed twice.
        is_float = y.dtype.kind == "f"
        check_classification_targets(np.repeat(np.unique(y), 2) if is_float else y[:1])
    if sample_weight is not None and not np.asarray(sample_weight).any():
        raise ValueError(
            "sample_weight is zero everywhere, which leaves no shots to learn "
            "from. Give at least one shot of each class a positive weight."
        )
    weight = _check_weights(sample_weight, X)
    X = at_common_scale(X, reset=reset)
    counts = weight > 0
    # A mask of ones would copy X.
    if not counts.all():
        X, y, weight = X[counts], y[counts], weight[counts]
    if sample_weight is not None:
        _check_class_weights(y, weight)
    return X, y, weight


def _check_class_weights(y, weight):
    labels, codes = np.unique(y, return_inverse=True)
    totals = np.bincount(codes, weights=weight)
    beyond = np.flatnonzero((totals < _LEAST_WEIGHT) | (totals > _MOST_WEIGHT))
    if len(beyond):
        raise ValueError(
            f"The sample_weight of class {labels.tolist()[beyond[0]]!r} sums to "
            f"{totals[beyond[0]]:g}, but a weight is the number of times that a shot "
            f"counts: the sum of each class must lie between {_LEAST_WEIGHT:g} and "
            f"{_MOST_WEIGHT:g}. Multiply all weights by one factor."
        )


def at_common_scale(X, *, reset=True):
    """Scale shots to where squares neither overflow nor underflow, by one factor."""
    limits = np.finfo(X.dtype)
    peak = max(X.max(), -X.min())
    if peak == 0 or limits.tiny**0.4 < peak < limits.max**0.4:
        return X
    if not reset:
        raise ValueError(
            f"The values of X are as large as {peak:.2g}, too far from those of CLIP's "
            "embeddings to be added to earlier shots. Divide X, and the shots of fit, "
            "by a common factor."
        )
    # A common factor changes no direction, and no share of a shot in a mean.
    return X / peak


def _are_checked_weights(weight, X):
    """Whether weights need no conversion; see `_needs_no_conversion`."""
    return (
        type(weight) is np.ndarray
        and weight.dtype == np.float64
        and weight.shape == (len(X),)
        and bool(np.isfinite(weight).all())
    )


def _check_weights(sample_weight, X):
    weight = sample_weight
    if not _are_checked_weights(weight, X):
        weight = _check_sample_weight(sample_weight, X, dtype=np.float64)
    if weight.min() < 0:
        row = int(np.argmin(weight))
        raise ValueError(
            f"sample_weight must not be negative, but is {weight[row]:g} at index "
            f"{row}. Give a shot that should not count the weight 0."
        )
    if weight.max() > _MOST_WEIGHT:
        raise ValueError(
            f"sample_weight must be at most {_MOST_WEIGHT:g}, but is {weight.max():g} "
            f"at index {int(np.argmax(weight))}: a weight is the number of times that "
            "a shot counts. Multiply all weights by one factor."
        )
    return weight


def check_partly_labelled(estimator, X, y, sample_weight, *, reset=True):
    """Validate shots and unlabelled images, and tell them apart.

    Parameters
    ----------
    estimator : estimator
        Its parameter `missing_label` is a value of y that marks a missing label; None,
        NaN and pd.NA always do. Its input features are set or checked.
    X, y, sample_weight
        Arguments of `fit`.
    reset : bool
        Whether to set, rather than check, the estimator's input features.

    Returns
    -------
    shots : tuple of (X, y, sample_weight)
        As from :func:`check_shots`.
    unlabelled : tuple of (X, rows, sample_weight)
        All embeddings, the rows of those without a label and positive weight, possibly
        none, and their weights. A copy of so many rows might not fit into memory.

    Raises
    ------
    ValueError
        As from :func:`check_shots`; and if every label is missing, with `reset`.
    """
    has_length = hasattr(y, "__len__") and getattr(y, "ndim", 1) == 1
    missing = missing_rows(y) if has_length else np.empty(0, dtype=int)
    if has_length and estimator.missing_label is not None:
        marked = [
            row
            for row, label in enumerate(y)
            if not _is_missing(label) and label == estimator.missing_label
        ]
        missing = np.union1d(missing, marked).astype(int)
    if not len(missing):
        shots = check_shots(estimator, X, y, sample_weight, reset=reset)
        return shots, (shots[0], missing, shots[2][:0])
    if len(missing) == len(y) and reset:
        raise ValueError(
            f"All {len(y)} labels in y are missing. {type(estimator).__name__} learns "
            "from unlabelled images beside shots: label at least one image per class."
        )
    embeddings = check_embeddings(estimator, X, reset=reset)
    check_consistent_length(embeddings, y, sample_weight)
    weight = _check_weights(sample_weight, embeddings)
    labelled = np.setdiff1d(np.arange(len(y)), missing)
    shots = embeddings[:0], estimator.classes_[:0] if not reset else None, weight[:0]
    if len(labelled):
        shots = check_shots(
            estimator,
            _safe_indexing(X, labelled),
            _of_one_type(_safe_indexing(y, labelled)),
            weight[labelled],
            reset=reset,
        )
    rows = missing[weight[missing] > 0]
    return shots, (embeddings, rows, weight[rows])


def _of_one_type(y):
    """Convert numbers that stood beside None, in an array of objects, to numbers."""
    has_objects = isinstance(y, np.ndarray) and y.dtype.kind == "O"
    return y.tolist() if has_objects and not isinstance(y[0], str) else y


def check_classes(estimator, classes):
    """Refuse shots of a single class."""
    if len(classes) < 2:
        raise ValueError(
            f"{type(estimator).__name__} needs shots of at least two classes, but y "
            f"has one class only: {classes.tolist()[0]!r}."
        )


def check_zero_rows(X, where, *, error=False):
    """Warn of, or refuse, rows of zeros, which no CLIP model returns."""
    # Reading the first column is enough for nearly all rows.
    zero = np.flatnonzero(X[:, 0] == 0)
    zero = zero[~X[zero].any(axis=1)]
    if not len(zero):
        return
    message = (
        f"{len(zero)} of {len(X)} rows of X in {where} are all zero, the first "
        f"at index {int(zero[0])}. A row of zeros has no direction, so that it is "
        "equally near to all classes"
    )
    if error:
        raise ValueError(
            f"{message}; no CLIP embedding is zero. Check how these rows were "
            "embedded, and leave them out."
        )
    warn(f"{message}.", stacklevel=3)
