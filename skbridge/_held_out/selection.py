"""Choice among settings that few shots cannot tell apart."""

from numbers import Real

import numpy as np


def within_one_standard_error(losses, weight, distance):
    """Choose the most ordinary of the settings that few shots cannot tell apart.

    Parameters
    ----------
    losses : ndarray of shape (n_settings, n_samples)
        Loss of each shot under each setting; NaN rows do not count.
    weight : ndarray of shape (n_samples,)
    distance : ndarray of shape (n_settings,)
        How far each setting is from the one that needs no evidence.

    Returns
    -------
    int
        Of the settings whose mean loss exceeds the least by no more than one
        standard error of the difference, the least distant.
    """
    total = weight.sum()
    means = losses @ weight / total
    best = np.nanargmin(means)
    gap = means - means[best]
    spread = (losses - losses[best] - gap[:, None]) ** 2 @ weight
    near = np.flatnonzero(gap <= np.sqrt(spread) / total)
    return int(near[np.lexsort((means[near], distance[near]))[0]])


def distance_from(settings, target):
    """How far settings are from a target, each value by its rank in the space.

    Parameters
    ----------
    settings : list of dict
    target : dict
        Has every name of the settings.

    Returns
    -------
    ndarray of shape (n_settings,)
    """
    distance = np.zeros(len(settings))
    for name in {name for setting in settings for name in setting}:
        wanted = target[name]
        values = [setting.get(name, wanted) for setting in settings]
        if all(_is_number(value) for value in [wanted, *values]):
            ranks = np.unique(np.array(values, dtype=float))
            places = np.arange(len(ranks)) / max(1, len(ranks) - 1)
            place = np.interp(np.array([*values, wanted], dtype=float), ranks, places)
            distance += np.abs(place[:-1] - place[-1])
        else:
            distance += [value is not wanted and value != wanted for value in values]
    return distance


def _is_number(value):
    return isinstance(value, Real) and not isinstance(value, bool)


def value_key(value):
    """Something hashable that equal values share, where they can be hashed."""
    try:
        hash(value)
    except TypeError:
        return id(value)
    return type(value), value
