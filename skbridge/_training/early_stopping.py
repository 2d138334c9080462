"""What training needs to be judged by shots that were held out."""

import numpy as np

from skbridge._held_out.temperature import stacked_log_losses


def distinct_shots(X, codes, weight):
    """Merge equal shots of one class into one of their summed weight.

    A repeated shot would otherwise be held out while its copy is trained on.
    They come out sorted, so that nothing depends on the order they were given in.

    Returns
    -------
    X, codes, weight : ndarray
    """
    _, first, shot = np.unique(
        np.column_stack([codes, X]), axis=0, return_index=True, return_inverse=True
    )
    return X[first], codes[first], np.bincount(shot.ravel(), weights=weight)


def held_out_losses(paths, codes, weights, temperature, *, patience=np.inf):
    """Log loss of held-out shots along training.

    Parameters
    ----------
    paths : list of iterable
        One a fold: yields scores of its held-out shots, ndarray of shape
        (n_samples, n_classes), at one point of training after the other. All folds
        train side by side.
    codes, weights : list of ndarray of shape (n_samples,)
        Class and weight of the held-out shots of each fold.
    temperature : float
        Default temperature of such scores.
    patience : int, default=inf
        End after so many points in a row that are worse than the best.

    Returns
    -------
    losses : ndarray of shape (n_points, n_samples of all folds)
        Each point at its own temperature.
    weight : ndarray of shape (n_samples of all folds,)
    """
    losses, start, weight = [], {}, np.concatenate(weights)
    best, best_point = np.inf, 0
    for point, scores in enumerate(zip(*paths, strict=True)):
        stacks = [np.array(score)[None] for score in scores]
        (loss,), found = stacked_log_losses(
            stacks, codes, weights, np.array([temperature]), **start
        )
        start = {"start": found}
        losses.append(loss)
        mean = loss @ weight
        if mean < best:
            best, best_point = mean, point
        if point - best_point >= patience:
            break
    return np.array(losses), weight
