"""Index pairs of training and held-out shots, for every kind of `cv`."""

import numpy as np
from sklearn.model_selection import check_cv
from sklearn.utils import check_consistent_length, column_or_1d

from skbridge._held_out.folds import images_per_class, shot_folds
from skbridge._messages import brief, shown
from skbridge._validation import missing_rows


def number_images(groups, X, rows):
    """Give each image a number, and return that of each shot's image.

    Parameters
    ----------
    groups : array-like of shape (n_rows,) or None
        Image that each row of X is a view of; None means one image per row.
    X : array-like of shape (n_rows, n_features)
    rows : ndarray of shape (n_samples,)
        Rows of X that have a positive weight.

    Returns
    -------
    ndarray of shape (n_samples,)

    Raises
    ------
    ValueError
        If groups are missing, or fewer or more than rows of X.
    """
    if groups is None:
        return np.arange(len(rows))
    check_consistent_length(X, groups)
    missing = missing_rows(groups)
    if len(missing):
        raise ValueError(
            f"{len(missing)} of {len(groups)} groups are missing (None, NaN or "
            f"pd.NA), in the rows {shown(missing.tolist())}. Rows of one group "
            "are views of one image: give each image a group of its own."
        )
    _, images = np.unique(column_or_1d(groups)[rows], return_inverse=True)
    return images


def numbered_folds(n_splits, codes, images, classes, unit):
    """Make as many folds as asked for.

    Parameters
    ----------
    n_splits : int
    codes, images : ndarray of shape (n_samples,)
        Class and image of each shot.
    classes : ndarray of shape (n_classes,)
    unit : {"shots", "images (groups)"}
        Word for what is divided, in the message.

    Returns
    -------
    list of (train, test)

    Raises
    ------
    ValueError
        If some class has fewer images than there are folds.
    """
    n_images = images_per_class(codes, images)
    fewest = int(n_images.argmin())
    if n_splits > n_images[fewest]:
        raise ValueError(
            f"cv={n_splits} needs at least {n_splits} {unit} of every class, "
            f"but {brief(classes.tolist()[fewest])} has {n_images[fewest]}. Use "
            "cv=None: it makes as many folds as the shots allow, and leaves classes "
            "with a single shot in training. If every class has a single shot, it "
            "takes the setting that suits one shot per class, without a search."
        )
    return shot_folds(codes, images, n_splits=int(n_splits))


def splitter_folds(cv, X, y, groups, rows):
    """Folds of a splitter or an iterable, numbered among shots of positive weight.

    Parameters
    ----------
    cv : splitter or iterable
    X, y, groups
        Arguments of `fit`.
    rows : ndarray of shape (n_samples,)
        Rows of X that have a positive weight.

    Returns
    -------
    list of (train, test)

    Raises
    ------
    ValueError
        If there is no fold, or a fold without held-out shots.
    """
    position = np.full(len(y), -1)
    position[rows] = np.arange(len(rows))
    folds = []
    splits = check_cv(cv, y, classifier=True).split(X, y, groups)
    for number, (train, test) in enumerate(splits):
        train, test = position[train], position[test]
        train, test = train[train >= 0], test[test >= 0]
        if not len(test):
            raise ValueError(
                f"Split {number} of cv leaves out no shot of positive weight, so "
                "it cannot score any setting. Leave it out of cv."
            )
        folds.append((train, test))
    if not folds:
        raise ValueError("cv has no splits. Use cv=None, or give at least one.")
    return folds
