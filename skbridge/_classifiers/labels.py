"""Checks that labels and class texts belong together, by asking the shots."""

from collections.abc import Mapping

import numpy as np
from scipy.special import bdtrc
from sklearn.base import clone

from skbridge._messages import quiet, shown, warn
from skbridge._texts.recipe import CLIPTexts

# Shots that are tried first: mostly they show that the texts fit, with a chance of so
# many hits below `_CLEARLY`, and the others need not be tried.
_SHOTS_TRIED_FIRST = 256
_CLEARLY = 1e-6
# Fewer shots cannot tell a classifier from chance often enough to warn about it.
_FEWEST_SHOTS = 20
_SIGNIFICANCE = 0.05


def check_naming(X, codes, head, texts, labels):
    """Check the naming of labels against what the shots look like to CLIP.

    Parameters
    ----------
    X : ndarray of shape (n_shots, n_features)
    codes : ndarray of shape (n_shots,)
        Index of each shot's label in `labels`.
    head : TextHead
        The texts of `labels`.
    texts : str, path-like, CLIPTexts or TextHead
        Source of the texts.
    labels : ndarray of shape (n_classes,)

    Raises
    ------
    ValueError
        If the shots agree clearly better with the names in sorted order than in the
        order of a list of class names.

    Warns
    -----
    UserWarning
        If the shots agree with their texts no better than chance, or if the labels
        may be an encoding of others among the integers that have texts.
    """
    text_features = head.text_features.astype(X.dtype)
    _check_listed_order(X, codes, text_features, texts, labels)
    _warn_of_possible_encoding(X, codes, texts, labels)
    warn_at_chance(X, codes, text_features, head.model)


def _hits(X, codes, text_features):
    return (X @ text_features.T).argmax(axis=1) == codes


def _check_listed_order(X, codes, text_features, texts, labels):
    names = texts.class_names if isinstance(texts, CLIPTexts) else None
    is_index = (
        isinstance(names, (list, tuple, np.ndarray)) and labels.dtype.kind in "iu"
    )
    if not is_index or list(names) == sorted(names):
        return
    as_listed = _hits(X, codes, text_features)
    sorted_head = clone(texts).set_params(class_names=sorted(names)).head(labels)
    as_sorted = _hits(X, codes, sorted_head.text_features.astype(X.dtype))
    better = int(np.count_nonzero(as_sorted & ~as_listed))
    worse = int(np.count_nonzero(as_listed & ~as_sorted))
    # The sign test: of the shots that tell the orders apart, as many by chance.
    if better and bdtrc(better - 1, better + worse, 0.5) < 0.01:
        raise ValueError(
            "class_names is a list in another order than the sorted one, and the "
            f"labels are integers: {as_sorted.sum()} of {len(X)} shots are nearest to "
            f"their name in sorted order, {as_listed.sum()} in the order of the list. "
            "Labels that scikit-learn encoded (LabelEncoder, meta-estimators, "
            "cross_val_predict) number the names in sorted order: pass "
            "sorted(class_names), or a dict from label to name."
        )


def _warn_of_possible_encoding(X, codes, texts, labels):
    """Warn where labels 0 to m - 1 may stand for other labels that have texts too.

    The encoding of m integer labels is 0 to m - 1. Where more integers have texts, it
    finds texts, possibly those of other labels. The labels are taken as they are
    without a warning only if most shots of every label are nearest to its own text,
    among all texts.
    """
    known = _integers_with_texts(texts)
    m = len(labels)
    if len(known) <= m or labels.tolist() != list(range(m)):
        return
    if isinstance(texts, CLIPTexts):
        with quiet():  # fit has warned of the labels' own texts
            texts = texts.head(np.array(known))
    text_features = texts[known].text_features.astype(X.dtype)
    hits = np.bincount(codes, weights=_hits(X, codes, text_features), minlength=m)
    unlike = np.flatnonzero(2 * hits <= np.bincount(codes, minlength=m))
    if len(unlike):
        warn(
            f"The labels are 0 to {m - 1}, {len(known)} integers have texts, and most "
            f"shots of the labels {shown(unlike.tolist())} are nearest to the text of "
            "another label. If scikit-learn encoded the labels (meta-estimators and "
            "cross_val_predict number them in sorted order), the texts are those of "
            f"other labels. Give texts for exactly these {m} labels, named 0 to "
            f"{m - 1} in sorted order; this also silences the warning if nothing is "
            "wrong.",
            stacklevel=5,
        )


def _integers_with_texts(texts):
    """Integer labels that a `texts` parameter has texts for, sorted."""
    if isinstance(texts, CLIPTexts):
        names = texts.class_names
        known = names if isinstance(names, Mapping) else range(len(names or ()))
    else:
        known = getattr(texts, "classes", None) or ()
    return sorted(label for label in known if isinstance(label, (int, np.integer)))


def warn_at_chance(X, codes, text_features, model):
    """Warn when class texts tell the shots apart no better than chance.

    Parameters
    ----------
    X : ndarray of shape (n_shots, n_features)
    codes : ndarray of shape (n_shots,)
    text_features : ndarray of shape (n_classes, n_features)
    model : str or None
        Name of the model that made the texts.
    """
    n_shots, n_classes = len(X), len(text_features)
    if n_shots < _FEWEST_SHOTS:
        return
    first = slice(None, None, -(-n_shots // _SHOTS_TRIED_FIRST))
    _, chance = _chance_of_hits(X[first], codes[first], text_features)
    if chance < _CLEARLY:
        return
    hits, chance = _chance_of_hits(X, codes, text_features)
    if chance > _SIGNIFICANCE:
        source = "the text head" if model is None else f"the text head of {model}"
        warn(
            f"Zero-shot, {source} classifies {hits} of the {n_shots} shots of "
            f"{n_classes} classes correctly, no better than chance. Possible causes: "
            "(1) The images were embedded by another CLIP model; use the same model "
            "for images and texts. (2) The texts are not those of the labels, which "
            "are codes or in another order; name them with "
            "CLIPTexts(class_names={label: name, ...}).",
            stacklevel=4,
        )


def _chance_of_hits(X, codes, text_features):
    """Count the shots nearest to their text, and give the chance of so many."""
    hits = int(np.count_nonzero(_hits(X, codes, text_features)))
    # The binomial distribution's upper tail.
    chance = 1.0 if hits == 0 else bdtrc(hits - 1, len(X), 1 / len(text_features))
    return hits, chance
