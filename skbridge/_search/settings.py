"""Settings to try: lists or draws from a space, checked before anything is fitted."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from sklearn.model_selection import ParameterGrid, ParameterSampler
from sklearn.utils._param_validation import validate_parameter_constraints

from skbridge._held_out.selection import value_key
from skbridge._messages import brief

_N_DRAWS = 200


def list_settings(space, n_settings, random_state):
    """List the settings of a grid, or draw from a space with distributions.

    Parameters
    ----------
    space : dict or list of dicts
        Lists of values or distributions, by parameter name.
    n_settings : int or None
        Most settings of a grid, or number of draws. None lists all of a grid, and
        draws 200 from a space with distributions.
    random_state : int, RandomState instance or None

    Returns
    -------
    list of dict
    """
    spaces = [space] if isinstance(space, Mapping) else list(space)
    has_distributions = any(
        hasattr(values, "rvs") for one in spaces for values in one.values()
    )
    if not has_distributions:
        grid = ParameterGrid(spaces)
        if n_settings is None or n_settings >= len(grid):
            return list(grid)
    n_draws = _N_DRAWS if n_settings is None else n_settings
    return list(ParameterSampler(spaces, n_draws, random_state=random_state))


def check_space(space, estimator):
    """Refuse other types than spaces, and names that the estimator does not have.

    Raises
    ------
    TypeError
        If `space` is not a dict or a list of dicts.
    ValueError
        If the estimator has no parameter of some name.
    """
    spaces = [space] if isinstance(space, Mapping) else space
    is_list = isinstance(spaces, Iterable) and not isinstance(spaces, str)
    spaces = list(spaces) if is_list else []
    if not spaces or not all(isinstance(one, Mapping) for one in spaces):
        raise TypeError(
            "param_space must be a dict from parameter names to lists or "
            f"distributions, a list of such dicts, or None; got {brief(space)}."
        )
    known = estimator.get_params()
    for name in {name: None for one in spaces for name in one}:
        if name not in known:
            near = get_close_matches(str(name), known, n=3, cutoff=0.4)
            hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
            raise ValueError(
                f"param_space has {brief(name)}, which is not a parameter of "
                f"{type(estimator).__name__}.{hint} Its parameters are "
                f"{', '.join(sorted(known))}."
            )


def check_values(settings, estimator):
    """Validate each value once, by the constraints of the estimator.

    Raises
    ------
    InvalidParameterError
        If a value is not valid.
    """
    constraints = estimator._parameter_constraints
    checked = set()
    for setting in settings:
        for name, value in setting.items():
            # Parameters of the texts, with "__", are checked where texts are made.
            if "__" in name or (name, value_key(value)) in checked:
                continue
            checked.add((name, value_key(value)))
            validate_parameter_constraints(
                {name: constraints[name]},
                {name: value},
                caller_name=type(estimator).__name__,
            )
