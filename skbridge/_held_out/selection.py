"""Choice among settings that few shots cannot tell apart."""

from numbers import Real

import numpy as np


def within_one_standard_error(losses, weight, distance):
    """Choose the setting nearest to a target among those of nearly the least loss.

    Parameters
    ----------
    losses : ndarray of shape (n_settings, n_samples)
        Loss of each shot under each setting; a row of NaN is left out.
    weight : ndarray of shape (n_samples,)
    distance : ndarray of shape (n_settings,)
        Distance of each setting from the prior setting, which is chosen unless another
        is clearly better.

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
    """Distance of settings from a target, each value by its rank in the space.

    Parameters
    ----------
    settings : list of dict
    target : dict
        A value for every name in the settings.

    Returns
    -------
    ndarray of shape (n_settings,)
    """
    distance = np.zeros(len(settings))
    for name in {name for setting in settings for name in setting}:
        wanted = target[name]
        values = [setting.get(name, wanted) for setting in settings]
        if all(_is_number(value) for value in [wanted, *values]):
            distinct = np.unique(np.array(values, dtype=float))
            shares = np.arange(len(distinct)) / max(1, len(distinct) - 1)
            found = np.interp(
                np.array([*values, wanted], dtype=float), distinct, shares
            )
            distance += np.abs(found[:-1] - found[-1])
        else:
            distance += [value is not wanted and value != wanted for value in values]
    return distance


def _is_number(value):
    return isinstance(value, Real) and not isinstance(value, bool)


def value_key(value):
    """Hashable key, equal for equal values of one type; id for others."""
    try:
        hash(value)
    except TypeError:
        return id(value)
    return type(value), value
