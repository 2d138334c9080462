"""Class names of labels: the labels themselves, or names given explicitly."""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from skbridge._messages import shown, warn

_ENCODED = (
    "scikit-learn's meta-estimators and cross_val_predict(method='predict_proba') "
    "number labels in sorted order before they fit"
)
# WordNet ids, numbers as strings and the like, which mean nothing to a text tower.
_CODE = re.compile(r"[A-Za-z]{0,2}[-_]?\d+")


def label_names(labels: np.ndarray, class_names: Mapping | Sequence | None) -> list:
    """Name of each label, for the prompts.

    Parameters
    ----------
    labels : ndarray of shape (n_classes,)
        Distinct, sorted.
    class_names : dict label -> name, list of str, or None
        None takes string labels as names. A list is indexed by integer labels. A
        sorted list of string labels also names these, so that scikit-learn's encoding
        of the labels has the same names.

    Returns
    -------
    list of str

    Raises
    ------
    TypeError, ValueError
        If a label has no name, or `class_names` is of another type.
    """
    labels = np.asarray(labels).tolist()
    if class_names is None:
        return _names_of_string_labels(labels)
    if isinstance(class_names, Mapping):
        names = [class_names.get(label) for label in labels]
        missing = [label for label in labels if label not in class_names]
    elif isinstance(class_names, str) or not hasattr(class_names, "__len__"):
        raise TypeError(
            "class_names must be a dict from label to name, or a list of names "
            f"indexed by integer labels; got {type(class_names).__name__}."
        )
    elif all(isinstance(label, str) for label in labels):
        return _names_in_list(labels, list(class_names))
    else:
        listed = list(class_names)
        missing = [i for i in labels if not _is_index(i, len(listed))]
        names = [None if i in missing else listed[i] for i in labels]
    if missing:
        raise ValueError(
            f"class_names has no name for the labels {shown(missing)} "
            f"({len(missing)} of {len(labels)}); it has {len(class_names)} names. "
            f"{_likely_cause(labels, class_names)}Name every label in y."
        )
    refuse_one_of_many(labels, len(class_names), "class_names")
    unnamed = [
        label
        for label, name in zip(labels, names, strict=True)
        if not (isinstance(name, str) and name.strip())
    ]
    if unnamed:
        raise ValueError(
            "class_names must be non-empty strings, but the names of the labels "
            f"{shown(unnamed)} are not."
        )
    return [str(name) for name in names]


def _names_of_string_labels(labels):
    if not all(isinstance(label, str) for label in labels):
        raise ValueError(
            f"y has labels that are not strings ({shown(labels)}), so that there are "
            "no names for the prompts. Give texts=CLIPTexts(model, class_names={label: "
            "name, ...}) (or a list of names, for labels 0 to n - 1), use string "
            "labels, or texts=None for a classifier without texts. If your labels are "
            f"strings, they were encoded: {_ENCODED}. Then pass the sorted list of "
            "labels as class_names."
        )
    if all(_CODE.fullmatch(label) for label in labels):
        warn(
            f"The labels {shown(labels, 3)} look like codes, but the prompts of CLIP "
            "use them as names. Name them: texts=CLIPTexts(model, class_names={label: "
            "name, ...}).",
            stacklevel=4,
        )
    return [str(label) for label in labels]


def _names_in_list(labels, listed):
    missing = [label for label in labels if label not in listed]
    if missing or listed != sorted(listed):
        reason = (
            f"{shown(missing)} are not among its names"
            if missing
            else "it is not sorted, and the position of a label's name is then not "
            f"that of the label's encoding ({_ENCODED})"
        )
        raise ValueError(
            "A list of class_names is indexed by integer labels, and names string "
            "labels only if it is their sorted list. y has the labels "
            f"{shown(labels)}, and {reason}. Pass a dict from label to name, or "
            "sorted(class_names)."
        )
    return list(labels)


def _is_index(label, n):
    return isinstance(label, int) and not isinstance(label, bool) and 0 <= label < n


def _likely_cause(labels, class_names):
    if not isinstance(class_names, Mapping):
        return ""
    values = [value for value in class_names.values() if isinstance(value, (int, str))]
    if set(labels) <= set(values):
        return "It maps names to labels: reverse it, {label: name}. "
    if {str(label) for label in labels} <= set(class_names):
        return "Its keys are strings and the labels are not: use {0: 'cat', ...}. "
    if any(isinstance(key, str) for key in class_names) and isinstance(labels[0], int):
        return f"If your labels are strings: {_ENCODED}, and a dict of names fails. "
    return ""


def refuse_one_of_many(labels: list, n_names: int, argument: str):
    """Refuse the labels 0 and 1 where there are more names, as in one-vs-rest.

    Raises
    ------
    ValueError
        If the labels are 0 and 1 and there are more than two names.
    """
    if labels == [0, 1] and n_names > 2:
        raise ValueError(
            f"y has the labels 0 and 1 only, but {argument} names {n_names} classes. "
            f"For a problem of two classes, give {argument} of these two only. In "
            "place of OneVsRestClassifier or OneVsOneClassifier, which replace the "
            "labels by 0 and 1, use the classifier itself, which is multiclass, or "
            "texts=None."
        )


def labels_in_head(labels: list, classes: Sequence) -> list:
    """Classes of a text head that belong to some labels.

    Parameters
    ----------
    labels : list
        Distinct, sorted.
    classes : sequence of str or int
        Classes of the head.

    Returns
    -------
    list
        Members of `classes`.

    Raises
    ------
    ValueError
        If a label has no text, or if the labels are integers, the classes are
        strings, and it is not certain that the labels are their positions.
    """
    known = set(classes)
    missing = [label for label in labels if label not in known]
    if not missing:
        refuse_one_of_many(labels, len(known) if labels == [0, 1] else 0, "the head")
        return labels
    are_encoded = all(isinstance(label, int) for label in labels) and all(
        isinstance(name, str) for name in classes
    )
    if are_encoded:
        refuse_one_of_many(labels, len(classes), "the text head")
        if labels == list(range(len(classes))) and list(classes) == sorted(classes):
            return list(classes)
        raise ValueError(
            f"y has integer labels ({shown(labels)}) and the text head has "
            f"{len(classes)} string classes ({shown(list(classes))}). Integers are "
            "accepted for strings only as their positions among all classes of a head "
            f"in sorted order, as {_ENCODED}. Either use string labels and a head of "
            "just these classes in sorted order, head[sorted(labels)], or make a head "
            "whose classes are integers: TextHead.from_clip(names, model, "
            "classes=range(n))."
        )
    raise ValueError(
        f"texts has no text for the labels {shown(missing)} ({len(missing)} of "
        f"{len(labels)}); it has {len(known)} classes, {shown(list(classes))}. Make a "
        "head with a text for every label in y."
    )


def warn_of_equal_texts(labels: list, names: list, text_features: np.ndarray):
    """Warn of classes whose texts are equal to the text tower.

    Parameters
    ----------
    labels, names : list
    text_features : ndarray of shape (n_classes, n_features)
        Unit rows.
    """
    groups = {}
    for label, name in zip(labels, names, strict=True):
        groups.setdefault(name, []).append(label)
    shared = {name: group for name, group in groups.items() if len(group) > 1}
    if shared:
        name, group = next(iter(shared.items()))
        pairs = f"the labels {shown(group)} are all called {name!r}"
    else:
        # Features that differ by rounding only are of equal tokens.
        close = np.triu(text_features @ text_features.T > 1 - 1e-6, k=1)
        if not close.any():
            return
        i, j = np.argwhere(close)[0]
        pairs = f"{names[i]!r} and {names[j]!r} are the same tokens to the text tower"
    warn(
        f"Some classes share their text: {pairs}. The texts cannot tell them apart, "
        "only the shots can.",
        stacklevel=4,
    )
