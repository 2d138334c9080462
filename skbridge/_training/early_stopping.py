"""The number of training steps, chosen by cross-validation on the shots."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from skbridge._held_out.folds import shot_folds
from skbridge._held_out.shots import Shots
from skbridge._held_out.temperature import stacked_log_losses


@dataclass(frozen=True)
class StoppingRule:
    """Numbers of steps to compare, and how to choose among them.

    Attributes
    ----------
    n_splits : int
        Number of folds.
    steps_apart, max_steps : int
        The numbers of steps are the multiples of `steps_apart`, from 0 to `max_steps`.
    patience : float
        Number of consecutive numbers of steps, all worse than the best, that end the
        comparison.
    """

    n_splits: int
    steps_apart: int
    max_steps: int
    patience: float

    @property
    def n_points(self) -> int:
        """How many numbers of steps are compared, at most."""
        return self.max_steps // self.steps_apart + 1


def choose_steps(
    shots: Shots,
    scores_along: Callable[[Shots, Shots], Iterator[np.ndarray]],
    rule: StoppingRule,
    temperature: float,
) -> int | None:
    """Choose a number of steps by the log loss of held-out shots.

    Parameters
    ----------
    shots : Shots
        Distinct, see `Shots.distinct`.
    scores_along : callable
        From training and test shots, yields the scores of the test shots after 0,
        `rule.steps_apart`, twice that, ... steps of training.
    rule : StoppingRule
    temperature : float
        Default temperature of such scores.

    Returns
    -------
    int or None
        None where every class has one shot, which leaves no test shots.
    """
    folds = shot_folds(shots.codes, n_splits=rule.n_splits, random_state=0)
    if not folds:
        return None
    tests = [shots.take(test) for _, test in folds]
    paths = [
        islice(scores_along(shots.take(train), test), rule.n_points)
        for (train, _), test in zip(folds, tests, strict=True)
    ]
    losses, weight = held_out_losses(
        paths,
        [test.codes for test in tests],
        [test.weight for test in tests],
        temperature,
        patience=rule.patience,
    )
    return rule.steps_apart * int(np.argmin(losses @ weight))


def held_out_losses(
    paths: list[Iterable[np.ndarray]],
    codes: list[np.ndarray],
    weights: list[np.ndarray],
    temperature: float,
    *,
    patience: float = np.inf,
) -> tuple[np.ndarray, np.ndarray]:
    """Log loss of test shots along training.

    Parameters
    ----------
    paths : list of iterable
        One per fold: yields scores of its test shots, ndarray of shape
        (n_samples, n_classes), at successive points of training. All folds train in
        parallel.
    codes, weights : list of ndarray of shape (n_samples,)
        Class and weight of the test shots of each fold.
    temperature : float
        Default temperature of such scores.
    patience : float, default=inf
        Number of consecutive points, all worse than the best, after which to stop.

    Returns
    -------
    losses : ndarray of shape (n_points, n_samples of all folds)
        Each point at its own temperature.
    weight : ndarray of shape (n_samples of all folds,)
    """
    losses, start, weight = [], 1.0, np.concatenate(weights)
    best, best_point = np.inf, 0
    for point, scores in enumerate(zip(*paths, strict=True)):
        stacks = [np.array(score)[None] for score in scores]
        # Each point starts from the temperature of the one before.
        (loss,), start = stacked_log_losses(
            stacks, codes, weights, np.array([temperature]), start
        )
        losses.append(loss)
        mean = loss @ weight
        if mean < best:
            best, best_point = mean, point
        if point - best_point >= patience:
            break
    return np.array(losses), weight
