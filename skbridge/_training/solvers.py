"""AdamW and L-BFGS, full batch, and their schedules.

A loss is a function from the parameters to its terms, a tensor of shape (n_terms,). The
solvers minimise the weighted sum of the terms.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Terms = Callable[..., Tensor]


@dataclass(frozen=True)
class Schedule:
    """Learning rates and number of steps.

    Attributes
    ----------
    learning_rate : float
        Rate after the warm-up.
    warmup : int
        Number of steps over which the rate grows linearly to `learning_rate`.
    first_rate : float
        Rate of the first step, if lower than `learning_rate`.
    max_iter : int
        Number of steps.
    tol : float
        Stop after the warm-up once a window of steps lowers the loss by no more
        than this share of it; 0 takes all the steps.
    tol_window : int
        Number of steps in a window; losses of single steps are noisy.
    """

    learning_rate: float
    warmup: int
    first_rate: float
    max_iter: int
    tol: float
    tol_window: int

    def rate(self, step: int) -> float:
        """Learning rate of one step."""
        if step == 0:
            return min(self.first_rate, self.learning_rate)
        return self.learning_rate * min(step / self.warmup, 1.0)

    def has_settled(self, losses: Sequence[float]) -> bool:
        """Whether the last window of steps lowered the loss by no more than `tol`."""
        if self.tol == 0 or len(losses) <= self.tol_window:
            return False
        before, after = losses[-1 - self.tol_window], losses[-1]
        return before - after <= self.tol * abs(before)


# The official recipe, and one with ten times its rate and a tenth of its warm-up.
# max_iter, tol and tol_window of "fast" apply to L-BFGS too.
SCHEDULES = {
    "adamw": Schedule(
        learning_rate=1.5e-4,
        warmup=500,
        first_rate=1e-5,
        max_iter=5000,
        tol=0.0,
        tol_window=50,
    ),
    "fast": Schedule(
        learning_rate=1.5e-3,
        warmup=50,
        first_rate=1e-4,
        max_iter=250,
        tol=1e-5,
        tol_window=10,
    ),
}
# Steps that early stopping compares, unless max_iter says otherwise.
STEPS_WITH_EARLY_STOPPING = 60


class AdamW:
    """AdamW with betas (0.9, 0.999) and eps 1e-8, one step at a time.

    Parameters
    ----------
    loss : callable
        Gives the terms of the loss from the parameters.
    weights : tensor of shape (n_terms,)
    start : sequence of tensor
        Initial parameters.
    rate : callable
        From the number of a step, counted from 0, to its learning rate.
    weight_decay : float, default=0.0
        Decoupled weight decay.

    Attributes
    ----------
    parameters : list of tensor
        Current parameters.
    terms : list of list of float
        Terms of the loss before each step, as numbers: small tensors allocated among
        large ones would prevent the reuse of memory after these are freed.
    losses : list of float
        Their weighted sums.
    """

    def __init__(
        self,
        loss: Terms,
        weights: Tensor,
        start: Sequence[Tensor],
        rate: Callable[[int], float],
        weight_decay: float = 0.0,
    ):
        self._loss, self._weights, self._rate = loss, weights, rate
        self._variables = [p.clone().requires_grad_(True) for p in start]
        self._optimizer = torch.optim.AdamW(
            self._variables, weight_decay=weight_decay, fused=True
        )
        self.parameters = [p.detach() for p in self._variables]
        self.terms, self.losses = [], []

    def step(self) -> None:
        """Take one step."""
        self._optimizer.param_groups[0]["lr"] = self._rate(len(self.losses))
        self._optimizer.zero_grad()
        terms = self._loss(*self._variables)
        loss = terms @ self._weights
        loss.backward()
        self._optimizer.step()
        self.terms.append(terms.tolist())
        self.losses.append(loss.item())

    def descend(self, n_steps: int, schedule: Schedule) -> None:
        """Take `n_steps` steps, or fewer if the loss settles."""
        for step in range(n_steps):
            self.step()
            # During the warm-up a small change says nothing about convergence.
            is_due = step >= schedule.warmup and step % schedule.tol_window == 0
            if is_due and schedule.has_settled(self.losses):
                break


def minimise(
    loss: Terms, weights: Tensor, start: Sequence[Tensor], schedule: Schedule
) -> tuple[list[Tensor], list[list[float]], list[float]]:
    """Follow L-BFGS until the loss settles.

    Parameters
    ----------
    loss : callable
        Gives the terms of the loss from the parameters.
    weights : tensor of shape (n_terms,)
    start : sequence of tensor
        Initial parameters.
    schedule : Schedule
        Its limits apply; its rates do not.

    Returns
    -------
    parameters : list of tensor
    terms : list of list of float
        Terms of the loss at each evaluation.
    losses : list of float
        Their weighted sums.
    """
    variables = [p.clone().requires_grad_(True) for p in start]
    all_terms, losses = [], []
    optimizer = torch.optim.LBFGS(
        variables,
        max_iter=schedule.tol_window,
        history_size=10,
        tolerance_grad=0,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def evaluate() -> float:
        optimizer.zero_grad()
        terms = loss(*variables)
        total = terms @ weights
        total.backward()
        all_terms.append(terms.tolist())
        losses.append(total.item())
        return losses[-1]

    (limits,) = optimizer.param_groups
    while (left := schedule.max_iter - len(losses)) > 0:
        # Without a line search that is still under way.
        limits.update(max_iter=min(left, schedule.tol_window), max_eval=left)
        optimizer.step(evaluate)
        if schedule.has_settled(losses):
            break
    return [p.detach() for p in variables], all_terms, losses
