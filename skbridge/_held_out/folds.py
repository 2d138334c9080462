"""Folds of shots: stratified by class, with all views of an image on one side."""

import warnings

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

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
    _, first, images = np.unique(groups, return_index=True, return_inverse=True)
    class_of = codes[first]
    n_images = images_per_class(codes, images)
    testable = n_images >= 2
    if not testable.any():
        return []
    if n_splits is None:
        n_splits = int(np.clip(np.median(n_images[testable]), 2, _MAX_FOLDS))
    shuffle = {"shuffle": random_state is not None, "random_state": random_state}
    if (class_of[images] == codes).all():
        # Split images, then add all views of each.
        candidates = np.flatnonzero(testable[class_of])
        splitter = StratifiedKFold(n_splits, **shuffle)
        splits = splitter.split(candidates, class_of[candidates])
        tests = [np.isin(images, candidates[test]) for _, test in _quietly(splits)]
    else:
        splitter = StratifiedGroupKFold(min(n_splits, len(first)), **shuffle)
        splits = _quietly(splitter.split(codes, codes, images))
        tests = [np.isin(np.arange(len(codes)), test) for _, test in splits]
    folds = []
    for test in tests:
        scored = test & np.isin(codes, codes[~test])
        if scored.any():
            folds.append((np.flatnonzero(~test), np.flatnonzero(scored)))
    return folds


def _quietly(splits):
    """List splits without scikit-learn's warning of classes smaller than k."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return list(splits)


def images_per_class(codes, groups):
    """Count the different groups of each class."""
    pairs = np.unique(np.column_stack([codes, groups]), axis=0)
    return np.bincount(pairs[:, 0])


def distinct_shots(X, codes, weight):
    """Merge equal shots of one class into one of their summed weight.

    Otherwise a repeated shot would be tested on while its copy is trained on.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
    codes, weight : ndarray of shape (n_samples,)

    Returns
    -------
    X, codes, weight : ndarray
        Sorted if any shots are equal, else as given.
    """
    # Shots that differ in their first column, as nearly all do, need no more.
    first = np.unique(np.column_stack([codes, X[:, 0]]), axis=0)
    if len(first) == len(X):
        return X, codes, weight
    _, first, shot = np.unique(
        np.column_stack([codes, X]), axis=0, return_index=True, return_inverse=True
    )
    return X[first], codes[first], np.bincount(shot.ravel(), weights=weight)
