"""Folds of shots: stratified by class, with all views of an image on one side."""

import numpy as np
from sklearn.utils import check_random_state

_MAX_FOLDS = 8


def shot_folds(codes, groups=None, *, n_splits=None, random_state=None):
    """Split shots so that no shot is scored whose class has no shot in training.

    Parameters
    ----------
    codes : ndarray of shape (n_samples,)
        Class of each shot.
    groups : ndarray of shape (n_samples,), default=None
        Image that each shot is a view of; None means one image per shot.
    n_splits : int, default=None
        Number of folds. None takes the median number of images per class, among
        classes with more than one, but at least 2 and at most 8.
    random_state : int, RandomState instance or None, default=None
        Shuffles each class; None keeps the order of the shots.

    Returns
    -------
    list of (train, test)
        Indices, stratified by class. All views of an image are on one side, and
        classes with one image are always in training. Empty if no class has two.
    """
    groups = np.arange(len(codes)) if groups is None else groups
    _, images = np.unique(groups, return_inverse=True)
    n_images = images_per_class(codes, images)
    testable = n_images >= 2
    if not testable.any():
        return []
    if n_splits is None:
        n_splits = int(np.clip(np.median(n_images[testable]), 2, _MAX_FOLDS))
    # Split images, then add all views of each. An image with views of several classes
    # counts as one of the most common of them.
    order = np.argsort(-n_images[codes], kind="stable")
    _, first = np.unique(images[order], return_index=True)
    class_of = codes[order][first]
    candidates = np.flatnonzero(testable[class_of])
    fold_of = np.full(len(class_of), -1)
    fold_of[candidates] = _stratified(class_of[candidates], n_splits, random_state)
    folds = []
    for fold in range(n_splits):
        test = fold_of[images] == fold
        scored = test & np.isin(codes, codes[~test])
        if scored.any():
            folds.append((np.flatnonzero(~test), np.flatnonzero(scored)))
    return folds


def _stratified(codes, n_splits, random_state):
    """Fold of each row, as in scikit-learn's StratifiedKFold.

    StratifiedKFold warns of classes smaller than the number of folds; here they are
    usual.
    """
    _, first, codes = np.unique(codes, return_index=True, return_inverse=True)
    # Classes in order of appearance.
    codes = np.argsort(np.argsort(first))[codes]
    ordered = np.sort(codes)
    sizes = [
        np.bincount(ordered[fold::n_splits], minlength=len(first))
        for fold in range(n_splits)
    ]
    folds = np.empty(len(codes), dtype=int)
    rng = None if random_state is None else check_random_state(random_state)
    for k, own in enumerate(np.transpose(sizes)):
        own_folds = np.repeat(np.arange(n_splits), own)
        if rng is not None:
            rng.shuffle(own_folds)
        folds[codes == k] = own_folds
    return folds


def images_per_class(codes, groups):
    """Count the different groups of each class."""
    pairs = np.unique(np.column_stack([codes, groups]), axis=0)
    return np.bincount(pairs[:, 0])
