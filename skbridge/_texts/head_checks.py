"""Checks of the parts of a text head: labels, arrays and how they fit together."""

from collections import Counter
from collections.abc import Iterable, Mapping, Set
from numbers import Integral, Real

import numpy as np

from skbridge._messages import brief, shown
from skbridge._rows import row_lengths, unit
from skbridge._texts.prompts import check_names

ARRAYS = (
    "eos",
    "eos_unit",
    "text_features",
    "projection",
    "projection_bias",
    "text_bank",
)


def check_class_labels(labels, argument, *, distinct=True):
    """Check labels, strings or integers, and return them as a tuple.

    Parameters
    ----------
    labels : sequence of str or int
    argument : str
        Its name, for messages.
    distinct : bool, default=True
        Whether a label may come only once.

    Returns
    -------
    tuple of str or int

    Raises
    ------
    TypeError, ValueError
        If they are something else, or repeated.
    """
    is_sequence = isinstance(labels, Iterable) and not isinstance(
        labels, (str, bytes, Mapping, Set)
    )
    values = list(labels) if is_sequence else []
    if values and all(isinstance(value, Integral) for value in values):
        numbers = tuple(int(value) for value in values)
        twice = [label for label, times in Counter(numbers).items() if times > 1]
        if distinct and twice:
            raise ValueError(
                f"{argument} must be distinct labels, but these are repeated: "
                f"{shown(twice)}."
            )
        return numbers
    return check_names(values if is_sequence else labels, argument, distinct=distinct)


def check_pair(classes, rows, name, remedy=""):
    """Refuse labels without the rows of an array, and rows without labels."""
    if (classes is None) != (rows is None):
        given, missing = (name, "classes") if classes is None else ("classes", name)
        raise ValueError(
            f"{given} was given without {missing}: they belong together, one label "
            f"per row. {remedy}".rstrip()
        )


def check_content(classes, prompts, model, arrays):
    """Check fields of a head that no constructor has seen, as those of a file.

    Shapes, values and the logit scale are left to `TextHead._make`.

    Parameters
    ----------
    classes, prompts, model : object
        Content of a file, parsed as JSON.
    arrays : dict of str to ndarray

    Returns
    -------
    tuple of str or int, or None
        The classes.

    Raises
    ------
    TypeError, ValueError
        If the constructors cannot have made them.
    """
    for written in prompts or ():
        check_names(written, "prompts", distinct=False)
    if not isinstance(model, str | None):
        raise TypeError(f"model must be a string, got {brief(model)}.")
    if len({array.dtype for array in arrays.values()}) != 1:
        raise ValueError("the arrays must be of one type.")
    for name in ("eos_unit", "text_features"):
        rows = arrays.get(name)
        if rows is not None and not np.allclose(row_lengths(rows), 1, atol=1e-3):
            raise ValueError(f"the rows of {name} must have length 1.")
    return None if classes is None else check_class_labels(classes, "classes")


def check_logit_scale(value):
    """Return the logit scale as a float, if it is positive and finite."""
    if (
        not isinstance(value, Real)
        or isinstance(value, bool)
        or not np.isfinite(value)
        or value <= 0
    ):
        raise ValueError(
            f"logit_scale must be a positive finite number, got {brief(value)}. CLIP "
            "stores its logarithm: pass the exponential."
        )
    return float(value)


def as_float(**arrays):
    """Convert the arrays that are given to their common type: float32 or float64."""
    arrays = {
        name: _numbers(value, name)
        for name, value in arrays.items()
        if value is not None
    }
    narrow = all(array.dtype in (np.float16, np.float32) for array in arrays.values())
    dtype = np.float32 if narrow else np.float64
    return {name: array.astype(dtype) for name, array in arrays.items()}


def _numbers(value, name):
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(
            f"{name} must be an array of numbers, with rows of one length: {error}"
        ) from error
    if array.dtype.kind not in "fiub":
        raise ValueError(
            f"{name} must be an array of real numbers, got one of {array.dtype}."
        )
    return array


def read_only(array, name):
    """Copy a finite array, unless it is read-only already, and make it read-only."""
    if array is None:
        return None
    is_frozen = type(array) is np.ndarray and array.flags.owndata
    if array.flags.writeable or not (is_frozen and array.flags.c_contiguous):
        array = np.array(array, order="C")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} contains NaN or infinite values.")
    array.setflags(write=False)
    return array


def check_shapes(fields):
    """Check that all parts agree; return the width of the embeddings."""
    for name in ARRAYS:
        array, ndim = fields[name], 1 if name == "projection_bias" else 2
        if array is not None and (array.ndim != ndim or 0 in array.shape):
            raise ValueError(
                f"{name} must be a non-empty {ndim}-D array, got shape {array.shape}."
            )
    classes, projection = fields["classes"], fields["projection"]
    for name in ("eos", "eos_unit", "text_features", "prompts"):
        rows = fields[name]
        if rows is not None and (classes is None or len(rows) != len(classes)):
            raise ValueError(
                f"{name} has {count(len(rows), 'row')} for "
                f"{count(len(classes or ()), 'class')}; expected one row per class."
            )
    for name in ("eos", "eos_unit"):
        array = fields[name]
        if array is not None and array.shape[1] != len(projection):
            raise ValueError(
                f"{name} has rows of width {array.shape[1]}, but projection, of "
                f"shape {projection.shape}, takes rows of width {len(projection)}."
                + _transposed_hint(array.shape[1] == projection.shape[1])
            )
    widths = {
        name: fields[name].shape[-1]
        for name in ("projection", "projection_bias", "text_features", "text_bank")
        if fields[name] is not None
    }
    (first, width), *others = widths.items()
    for name, other in others:
        if other != width:
            raise ValueError(
                f"{name} has width {other}, but {first} leads to width {width}: "
                "all must share the width of the embeddings."
                + _transposed_hint(first == "projection" and other == len(projection))
            )
    return width


def _transposed_hint(is_likely):
    if not is_likely:
        return ""
    return " Is projection transposed? Expected text = eos @ projection."


def unit_rows(array, name, classes):
    """Scale rows to length 1; none may be zero."""
    array = unit(array)
    zero = np.flatnonzero(~array.any(axis=1))
    if zero.size:
        raise ValueError(
            f"{name} is all zero for {shown([classes[row] for row in zero])}; a text "
            "embedding never is."
        )
    return array


def count(n, noun):
    """Write a number and its noun, such as "2 classes"."""
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{n} {noun if n == 1 else plural}"
