"""A linear map learned after the metric of the GDA, as long as held-out shots gain.

Arguments and results are arrays; the computation is in PyTorch.
"""

from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch.nn.functional import cross_entropy, normalize

from skbridge._class_sums import class_sums
from skbridge._gaussian import whiten
from skbridge._rows import unit
from skbridge._training.early_stopping import StoppingRule, choose_steps
from skbridge._training.tensors import to_tensor

# Each step of Adam moves every entry of the map by about this, whatever the loss. A few
# steps are as many as few shots support; more of them overfit.
_LEARNING_RATE = 2e-3
MAX_STEPS = 16
_STEPS_APART = 2
# Scale of the scores in the loss; 10 to 40 made no difference on real features.
_LOSS_SCALE = 20.0
_MAX_FOLDS = 4
# With two shots per class each fold would train on one, where there is no scatter: the
# number of steps that is best there is too large for two shots.
_FEWEST_SHOTS = 3


@dataclass(frozen=True)
class LearnedMetric:
    """Result of training.

    Attributes
    ----------
    metric : ndarray of shape (n_features, n_features)
        G A, the metric followed by the learned map.
    whitened : ndarray of shape (n_classes, n_features)
        Unit class means after it.
    loss_curve : ndarray of shape (n_steps,)
        Loss before each step.
    """

    metric: np.ndarray
    whitened: np.ndarray
    loss_curve: np.ndarray


@dataclass(frozen=True)
class ComparedShots:
    """Shots as z1 and z3 compare them, and the class texts.

    Attributes
    ----------
    joint : ndarray of shape (n_samples, n_features), float64
        Unit bridged shots x.
    codes : ndarray of shape (n_samples,)
        Class of each shot.
    weight : ndarray of shape (n_samples,)
        Positive weights.
    z1 : ndarray of shape (n_samples, n_classes) or None
        Shots against class texts.
    texts : ndarray of shape (n_classes, n_features) or None
        Unit bridged class texts.
    """

    joint: np.ndarray
    codes: np.ndarray
    weight: np.ndarray
    z1: np.ndarray | None
    texts: np.ndarray | None

    def take(self, rows):
        """Select some of the shots."""
        z1 = None if self.z1 is None else self.z1[rows]
        return ComparedShots(
            self.joint[rows], self.codes[rows], self.weight[rows], z1, self.texts
        )


class _Start:
    """The closed form of some shots, from which training starts."""

    def __init__(self, shots, n_classes, shrinkage, lambda_3):
        self.shots = shots
        self.count = np.bincount(shots.codes, shots.weight, minlength=n_classes)
        sums = class_sums(shots.joint, shots.codes, shots.weight, n_classes)
        second_moment = (shots.joint * shots.weight[:, None]).T @ shots.joint
        self.means, root = whiten(
            self.count, sums, second_moment, shrinkage, shots.texts
        )
        # The symmetric root. Adam's steps depend on the basis, and unlike the
        # eigenvectors the symmetric root varies smoothly with the shots.
        self.metric = root @ (root / np.linalg.norm(root, axis=0)).T
        self.lambda_3 = lambda_3(self.count)

    def scores_along(self, held_out, maps):
        """Yield blended scores of held-out shots, for one map after the other.

        Computed in torch: where NumPy and torch alternate, the threads of one wait for
        those of the other.
        """
        x, means, z1 = held_out.joint @ self.metric, self.means @ self.metric, 0.0
        if held_out.z1 is not None:
            z1 = torch.from_numpy(np.array(held_out.z1))
        x, means = torch.from_numpy(x), torch.from_numpy(means)
        for A in maps:
            A = A.to("cpu", x.dtype)
            z3 = normalize(x @ A, dim=1) @ normalize(means @ A, dim=1).T
            yield (z1 + self.lambda_3 * z3).numpy()


def _objective(start, dtype, device):
    """Mean loss of the shots as a function of the map.

    Each shot is compared with a mean of its class that leaves it out, with all its
    weight. Without texts, a shot that is alone in its class has no such mean, and does
    not enter the loss.
    """
    shots = start.shots
    # The class text counts as one more shot.
    n_texts = 0.0 if shots.texts is None else 1.0
    has_others = (np.bincount(shots.codes)[shots.codes] > 1) | (n_texts > 0)

    def tensor(array):
        return to_tensor(array, dtype, device)

    scored = shots.take(has_others)
    codes = torch.from_numpy(scored.codes).to(device)
    x, means = tensor(scored.joint @ start.metric), tensor(start.means @ start.metric)
    total = start.count[scored.codes] + n_texts
    weight = tensor(scored.weight)[:, None]
    total, left = tensor(total)[:, None], tensor(total - scored.weight)[:, None]
    z1 = None if scored.z1 is None else tensor(scored.z1)
    share = tensor(scored.weight / scored.weight.sum())
    own = torch.zeros(len(x), len(means), dtype=torch.bool, device=device)
    own[torch.arange(len(x)), codes] = True

    def loss(A):
        moved_x, moved_means = x @ A, means @ A
        held_out = (total * moved_means[codes] - weight * moved_x) / left
        query = normalize(moved_x, dim=1)
        z3_own = (query * normalize(held_out, dim=1)).sum(dim=1, keepdim=True)
        z3 = query @ normalize(moved_means, dim=1).T
        scores = start.lambda_3 * torch.where(own, z3_own, z3)
        if z1 is not None:
            scores = z1 + scores
        return share @ cross_entropy(_LOSS_SCALE * scores, codes, reduction="none")

    return loss


def _maps(start, dtype, device, losses):
    """Yield the map after each step of Adam, from the identity; append the losses."""
    objective = _objective(start, dtype, device)
    A = to_tensor(np.eye(len(start.metric)), dtype, device)
    optimizer = torch.optim.Adam([A.requires_grad_(True)], lr=_LEARNING_RATE)
    while True:
        yield A.detach()
        optimizer.zero_grad(set_to_none=True)
        loss = objective(A)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach().item())


def train_metric(
    shots,
    n_classes,
    *,
    shrinkage,
    lambda_3,
    temperature,
    max_iter,
    early_stopping,
    dtype,
    device,
):
    """Learn a linear map A after the metric G of the GDA, from the identity.

    Minimises the cross entropy of ``20 (z1 + lambda_3 z3)``, where z3 compares
    each shot with class means that leave it out, by full-batch Adam from
    ``A = I``. With early stopping, held-out shots choose among 0, 2, ..., `max_iter`
    steps: the fewest steps whose log loss, each at its own temperature, exceeds the
    least by no more than one standard error of the paired difference. A median of
    fewer than three shots per class is too few to choose by, and no step is taken.

    Parameters
    ----------
    shots : ComparedShots
        Distinct.
    n_classes : int
    shrinkage : float
        See :func:`skbridge._gaussian.whiten`.
    lambda_3 : callable
        From the summed weight of each class's shots to the weight of z3.
    temperature : float
        Default temperature of such scores.
    max_iter : int
        Number of steps, or with early stopping the largest number.
    early_stopping : bool
        Whether held-out shots choose the number.
    dtype : numpy dtype
        Type in which to compute.
    device : str
        A torch device.

    Returns
    -------
    LearnedMetric or None
        None for no steps.
    """

    def scores_along(train, test):
        start = _Start(train, n_classes, shrinkage, lambda_3)
        maps = islice(_maps(start, dtype, device, []), 0, None, _STEPS_APART)
        return start.scores_along(test, maps)

    n_steps = max_iter
    if early_stopping:
        n_shots = np.median(np.bincount(shots.codes))
        if n_shots < _FEWEST_SHOTS or max_iter < _STEPS_APART:
            return None
        n_splits = int(min(_MAX_FOLDS, n_shots))
        rule = StoppingRule(n_splits, _STEPS_APART, max_iter, np.inf, fewest=True)
        n_steps = choose_steps(shots, scores_along, rule, temperature)
    if n_steps == 0:
        return None
    start, losses = _Start(shots, n_classes, shrinkage, lambda_3), []
    A = next(islice(_maps(start, dtype, device, losses), n_steps, None)).cpu().numpy()
    metric = start.metric @ A
    return LearnedMetric(
        metric.astype(dtype), unit(start.means @ metric).astype(dtype), np.array(losses)
    )
