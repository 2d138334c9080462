"""SeMoBridge-T: W+ and the class-specific bias learned from the shots."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from skbridge._held_out.shots import Shots
from skbridge._rows import unit
from skbridge._training.basis import Basis
from skbridge._training.early_stopping import (
    StoppingRule,
    choose_steps,
)
from skbridge._training.objective import Objective, Task
from skbridge._training.solvers import AdamW, minimise

# Lower bound on a singular value of the shots, as a share of the largest, where
# directions are scaled by it.
_LEAST_SPREAD = 1e-3

# Early stopping compares numbers of steps so far apart, in these folds.
# benchmarks/constants.py measures the alternatives: four folds gain 0.1 points in twice
# the time.
_STEPS_APART = 4
_N_FOLDS = 2
# With texts the log loss of test shots has one minimum. Without texts it often rises
# first and falls later.
_PATIENCE_WITH_TEXTS = 5
# For classes of one shot, where there are no test shots. Texts regularise the steps;
# without texts no number of steps helped.
_STEPS_OF_SINGLE_SHOTS = 56


@dataclass(frozen=True)
class HeldOutScores:
    """Scores ``z1 + lambda_3 z3`` of test shots, by which early stopping judges.

    Attributes
    ----------
    lambda_3 : callable
        From the summed weight of each class's shots to the weight of z3.
    temperature : float
        Default softmax temperature of the scores.
    """

    lambda_3: Callable[[np.ndarray], float]
    temperature: float


@dataclass(frozen=True)
class TrainedBridge:
    """Learned parameters and the loss that led to them.

    Attributes
    ----------
    inverse : ndarray of shape (n_features, n_text_features)
        Learned W+.
    class_bias : ndarray of shape (n_classes, n_text_features)
        Learned b; zeros without class-specific bias.
    loss_curve : ndarray of shape (n_steps,)
        Loss before each step.
    loss_terms : dict of str to ndarray of shape (n_steps,)
        Its terms, before their weights.
    """

    inverse: np.ndarray
    class_bias: np.ndarray
    loss_curve: np.ndarray
    loss_terms: dict[str, np.ndarray]


class _Problem:
    """The objective of some shots, and the parameters of the closed form."""

    def __init__(self, shots: Shots, task: Task, basis: Basis):
        self.shots, self.task, self.basis = shots, task, basis
        self.objective = Objective.of(shots, task, basis)
        W_plus = basis.tokens(task.bridge.inverse)
        self.start = [W_plus]
        if task.csb:
            n_classes = self.objective.n_classes
            self.start.append(W_plus.new_zeros(n_classes, W_plus.shape[1]))

    def adamw(self) -> AdamW:
        """Start AdamW at the closed form."""
        return AdamW(
            self.objective.terms,
            self.objective.weights,
            self.start,
            self.task.schedule.rate,
            self.task.weight_decay,
        )

    def result(
        self, parameters: list[Tensor], terms: list[list[float]], losses: list[float]
    ) -> TrainedBridge:
        """Convert parameters to arrays in the basis of W itself."""
        dtype = self.basis.dtype
        W_plus, *b = map(self.basis.original, parameters)
        if not b:
            b = [np.zeros((self.objective.n_classes, W_plus.shape[1]), dtype)]
        columns = np.array(terms, dtype).T
        terms = dict(zip(self.task.loss_weights, columns, strict=True))
        return TrainedBridge(W_plus, b[0], np.array(losses, dtype), terms)


def _descend(problem: _Problem, n_steps: int) -> TrainedBridge:
    """Take steps of AdamW, `n_steps` of them or fewer if the loss settles."""
    adamw = problem.adamw()
    adamw.descend(n_steps, problem.task.schedule)
    return problem.result(adamw.parameters, adamw.terms, adamw.losses)


def _minimise(problem: _Problem) -> TrainedBridge:
    """Follow L-BFGS until the loss settles.

    Its variables are Z and z in ``W+ = W+_0 + V D^-1 Z`` and ``b = sqrt(n_classes) z``,
    with the singular values D (bounded from below) and the right singular vectors V of
    the rows ``sqrt(w) (f - c)`` of the shots. In Z all directions of the shots have the
    same scale, which takes several times fewer steps than in W+. The factor of z
    balances that each b affects the share 1 / n_classes of the shots.
    """
    shots, bridge, objective = problem.shots, problem.task.bridge, problem.objective
    weight = np.sqrt(shots.weight / shots.weight.sum())[:, None]
    centred = shots.X if bridge.bias is None else shots.X - bridge.bias
    _, D, Vt = np.linalg.svd(weight * centred.astype(np.float64), full_matrices=False)
    scale = problem.basis.tensor(Vt.T / np.maximum(D, _LEAST_SPREAD * D[0]))
    b_scale = objective.n_classes**0.5
    W_plus_0, *b_0 = problem.start

    def parameters(Z: Tensor, *z: Tensor) -> list[Tensor]:
        return [W_plus_0 + scale @ Z, *(b_scale * z_b for z_b in z)]

    variables, terms, losses = minimise(
        lambda *variables: objective.terms(*parameters(*variables)),
        objective.weights,
        [W_plus_0.new_zeros(scale.shape[1], W_plus_0.shape[1]), *b_0],
        problem.task.schedule,
    )
    return problem.result(parameters(*variables), terms, losses)


def _scores_along(
    problem: _Problem, test: Shots, lambda_3: float
) -> Iterator[np.ndarray]:
    """Yield blended scores of test shots, after every few steps of training.

    Computed in torch: where NumPy and torch alternate, the threads of one wait for
    those of the other.
    """
    objective, basis, adamw = problem.objective, problem.basis, problem.adamw()
    query, texts = unit(test.X), problem.task.text_features
    z1 = 0.0 if texts is None else basis.tensor(query) @ basis.tensor(texts).T
    query = basis.joint(query)
    while True:
        with torch.no_grad():
            _, e_mean = objective.bridge(*adamw.parameters)
            z3 = query @ objective.bridged_prototypes(e_mean).T
        yield (z1 + lambda_3 * z3).cpu().numpy()
        for _ in range(_STEPS_APART):
            adamw.step()


def _choose_steps(shots: Shots, task: Task, basis: Basis, scores: HeldOutScores) -> int:
    """Choose the number of steps, of 0, 4, 8, ..., with the least test log loss."""
    has_texts = task.text_features is not None
    max_steps = task.schedule.max_iter
    patience = _PATIENCE_WITH_TEXTS if has_texts else np.inf
    rule = StoppingRule(_N_FOLDS, _STEPS_APART, max_steps, patience)

    def scores_along(train: Shots, test: Shots) -> Iterator[np.ndarray]:
        class_weight = np.bincount(train.codes, weights=train.weight)
        problem = _Problem(train, task, basis)
        return _scores_along(problem, test, scores.lambda_3(class_weight))

    # In sorted order, so that results do not depend on the given one.
    order = np.lexsort((*shots.X.T[::-1], shots.codes))
    shots = shots.take(order).distinct()
    n_steps = choose_steps(shots, scores_along, rule, scores.temperature)
    if n_steps is None:
        return min(_STEPS_OF_SINGLE_SHOTS, max_steps) if has_texts else 0
    return n_steps


def train_bridge(
    shots: Shots, task: Task, *, early_stopping: HeldOutScores | None = None
) -> TrainedBridge | None:
    """Learn W+ and the class-specific bias from the shots, full batch.

    Minimises ``lambda_it L_img + (1 - lambda_it) (L_txte + L_txtp) / 2 +
    lambda_c L_cons + lambda_b L_bias`` (the paper's multi-modal losses), from
    the closed form's W+ and ``b = 0``.

    Parameters
    ----------
    shots : Shots
    task : Task
    early_stopping : HeldOutScores, default=None
        None trains to the end. Otherwise cross-validation on the shots chooses the
        number of steps by these scores.

    Returns
    -------
    TrainedBridge or None
        None for no steps.

    Raises
    ------
    ValueError
        If the loss becomes infinite or NaN.
    """
    # AdamW's steps depend on the basis; the official recipe takes them in that of W+.
    make_basis = Basis.plain if task.solver == "adamw" else Basis.singular
    basis = make_basis(task.bridge, shots.X.dtype, task.device)
    n_steps = task.schedule.max_iter
    if early_stopping is not None:
        n_steps = _choose_steps(shots, task, basis, early_stopping)
    if n_steps == 0:
        return None
    problem = _Problem(shots, task, basis)
    if task.solver == "fast" and early_stopping is None:
        result = _minimise(problem)
        remedy = "Lower lambda_it, lambda_c and lambda_b, or train with early_stopping"
    else:
        result = _descend(problem, n_steps)
        remedy = f"Lower learning_rate (now {task.schedule.learning_rate!r})"
    is_finite = np.isfinite(result.loss_curve)
    if not is_finite.all():
        step = int(np.argmin(is_finite))
        raise ValueError(
            f"Training diverged: the loss is {result.loss_curve[step]} at step {step}. "
            f"{remedy}."
        )
    return result
