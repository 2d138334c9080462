"""Unlabelled images in class sums: expectation maximisation, and whether it helps.

NumPy only. The classifier is seen through one function, from class sums to a function
from rows to scores, so that nothing here depends on its mathematics.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from skbridge._class_sums import ScatterSums, second_moment
from skbridge._held_out.shots import Shots
from skbridge._held_out.temperature import fit_temperature, score_shots
from skbridge._rows import batches, softmax, unit, within_range

# Scores of at most BLOCK_ROWS rows, (n_samples, n_features) to (n_samples, n_classes).
# The next call may overwrite them.
Scores = Callable[[np.ndarray], np.ndarray]

# Weight of an unlabelled image, in shots.
WEIGHT = 0.5
# Classes are assigned at this many times the softmax temperature. At the
# calibrated temperature itself, the class means approach each other in every round.
_SHARPNESS = 4.0
_ROUNDS = 8
# Rows that are scored at once.
BLOCK_ROWS = 4096
# Unlabelled images that decide whether all are used.
_JUDGED_ROWS = 4096


@dataclass(frozen=True, eq=False)
class Pool:
    """Unlabelled embeddings, read block by block: they may be on the disk.

    Attributes
    ----------
    X : ndarray of shape (n_samples, n_features)
    rows : ndarray of shape (n_unlabelled,)
        Rows of X that are unlabelled images.
    weight : ndarray of shape (n_unlabelled,)
        Weight of each of them, in shots.
    """

    X: np.ndarray
    rows: np.ndarray
    weight: np.ndarray

    def __len__(self):
        return len(self.rows)

    def sample(self, n_rows):
        """Draw `n_rows` of the images, with the weight of all; all if there are fewer.

        At random, since images at even distances may be of few classes.
        """
        if len(self) <= n_rows:
            return self
        drawn = np.random.default_rng(0).choice(len(self), n_rows, replace=False)
        drawn.sort()
        share = n_rows / len(self)
        return replace(self, rows=self.rows[drawn], weight=self.weight[drawn] / share)

    def blocks(self):
        """Yield embeddings and weights, some rows at a time."""
        for block in batches(len(self), BLOCK_ROWS):
            yield within_range(self.X[self.rows[block]]), self.weight[block]

    def second_moment(self):
        """Sum ``w x' x`` over the unit embeddings x."""
        return sum(second_moment(unit(X), weight) for X, weight in self.blocks())


def add_unlabelled(
    sums: ScatterSums,
    pool: Pool,
    scores_of: Callable[[ScatterSums], Scores],
    temperature: float,
) -> ScatterSums:
    """Add unlabelled images to class sums, by expectation maximisation.

    Eight rounds: each image is divided among the classes by the probabilities under
    the last sums, at four times the temperature, and its parts are added to the sums
    of the shots.

    Parameters
    ----------
    sums : ScatterSums
        Of the shots.
    pool : Pool
    scores_of : callable
        Fits a classifier to sums, and returns the function that scores rows.
    temperature : float
        Softmax temperature of the scores.

    Returns
    -------
    ScatterSums
    """
    moment = pool.second_moment()
    found = sums
    for _ in range(_ROUNDS):
        found = sums + _expected_sums(
            scores_of(found), pool, moment, len(sums.count), temperature
        )
    return found


def _expected_sums(scores, pool, moment, n_classes, temperature):
    count, features = np.zeros(n_classes), np.zeros((n_classes, pool.X.shape[1]))
    for X, weight in pool.blocks():
        p = softmax(np.array(scores(X)), _SHARPNESS * temperature)
        p *= weight[:, None].astype(p.dtype)
        count += p.sum(axis=0, dtype=np.float64)
        features += p.T @ unit(X)
    # Prototypes are of shots alone.
    return ScatterSums(
        count=count,
        shots=np.zeros(n_classes),
        features=np.zeros_like(features),
        unit_features=features,
        second_moment=moment,
    )


def unlabelled_help(
    shots: Shots,
    pool: Pool,
    scores_of: Callable[[ScatterSums], Scores],
    temperature: float,
    n_classes: int,
    *,
    has_texts: bool,
) -> bool:
    """Tell whether held-out shots have less log loss with the unlabelled images.

    The shots are halved within classes; classes of one shot are halved as classes,
    which texts stand for. Each half is scored by fits to the other half, with and
    without some of the unlabelled images, each at its own temperature.

    Parameters
    ----------
    shots : Shots
    pool : Pool
    scores_of, temperature
        As for :func:`add_unlabelled`.
    n_classes : int
    has_texts : bool

    Returns
    -------
    bool
        True if no shots can be held out: without texts, if a class has fewer than two
        shots; with texts, if there are fewer than two shots in all.
    """
    fewest = np.bincount(shots.codes, minlength=n_classes).min()
    if len(shots.X) < 2 or (fewest < 2 and not has_texts):
        return True
    pool = pool.sample(_JUDGED_ROWS)
    half = _halves(shots.codes)
    without, using = [], []
    for side in (0, 1):
        train, test = shots.take(half != side), shots.take(half == side)
        sums = ScatterSums.of_shots(train.X, train.codes, train.weight, n_classes)
        more = add_unlabelled(sums, pool, scores_of, temperature)
        for found, folds in ((sums, without), (more, using)):
            scores = _score_blocks(scores_of(found), test.X)
            folds.append((scores, test.codes, test.weight))
    return bool(_log_loss(using, temperature) < _log_loss(without, temperature))


def _score_blocks(scores, X):
    """Scores of any number of rows."""
    return np.concatenate(
        [np.array(scores(X[rows])) for rows in batches(len(X), BLOCK_ROWS)]
    )


def _halves(codes):
    """Halve the shots of each class, and the classes of one shot: 0 or 1 per shot."""
    order = np.argsort(codes, kind="stable")
    half = np.empty(len(codes), dtype=int)
    # In sorted order, 0 and 1 alternate across the borders of classes.
    half[order] = np.arange(len(codes)) % 2
    return half


def _log_loss(folds, default):
    """Log loss of held-out shots at the temperature that is best for them."""
    copies = [(scores.copy(), codes, weight) for scores, codes, weight in folds]
    temperature = fit_temperature(copies, default)
    total = sum(
        score_shots(temperature * scores[None], codes)[1][0] @ weight
        for scores, codes, weight in folds
    )
    return total / sum(weight.sum() for _, _, weight in folds)
