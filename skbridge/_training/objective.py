"""The losses of SeMoBridge-T, one function for each loss of the paper.

Symbols are those of the paper, with row vectors: image embeddings f of classes y,
bridged tokens e^ and bridged embeddings f^, bridged prototypes F^, class texts T and
unit class tokens E. Gradients are left to automatic differentiation.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.linalg import vector_norm
from torch.nn.functional import cross_entropy

from skbridge._bridge import Bridge
from skbridge._held_out.shots import Shots
from skbridge._rows import unit
from skbridge._training.basis import Basis
from skbridge._training.solvers import Schedule

# Lower bound on a length that divides, the same as in torch's normalize.
_SHORTEST = 1e-12


def row_lengths(rows: Tensor) -> Tensor:
    """Euclidean length of each row, as a column."""
    return vector_norm(rows, dim=1, keepdim=True).clamp_min(_SHORTEST)


def image_loss(
    f_unit: Tensor, F_hat: Tensor, y: Tensor, share: Tensor, logit_scale: float
) -> Tensor:
    """L_img = CE(logit_scale unit(f) F^', y), a weighted mean over shots."""
    logits = logit_scale * f_unit @ F_hat.T
    return share @ cross_entropy(logits, y, reduction="none")


def text_token_loss(e_mean: Tensor, E: Tensor) -> Tensor:
    """L_txte = CE(unit(mean e^_k) E', k), a mean over classes."""
    cosines = (e_mean / row_lengths(e_mean)) @ E.T
    return cross_entropy(cosines, torch.arange(len(E), device=E.device))


def text_prototype_loss(F_hat: Tensor, T: Tensor) -> Tensor:
    """L_txtp = CE(F^_k T', k), a mean over classes."""
    return cross_entropy(F_hat @ T.T, torch.arange(len(T), device=T.device))


def consistency_loss(f_hat: Tensor, F_hat: Tensor, y: Tensor, share: Tensor) -> Tensor:
    """L_cons = CE(unit(f^) F^', y), a weighted mean over shots."""
    cosines = f_hat @ F_hat.T / row_lengths(f_hat)
    return share @ cross_entropy(cosines, y, reduction="none")


def bias_loss(b: Tensor) -> Tensor:
    """L_bias = mean_k (||b_k|| - mean ||b||)^2; the gradient of ||b|| at 0 is 0."""
    norms = vector_norm(b, dim=1)
    return (norms - norms.mean()).square().mean()


@dataclass(frozen=True)
class Task:
    """Start, objective and solver of training.

    Attributes
    ----------
    bridge : Bridge
        The closed form, from which training starts.
    text_features : ndarray of shape (n_classes, n_features) or None
        Class texts T; None drops the text losses.
    csb : bool
        Whether to learn b.
    logit_scale, lambda_it, lambda_c, lambda_b : float
        Constants of the loss.
    solver : {"adamw", "fast"}
    schedule : Schedule
    weight_decay : float
        Decoupled decay of W+ and b alike.
    device : str
        A torch device.
    """

    bridge: Bridge
    text_features: np.ndarray | None
    csb: bool
    logit_scale: float
    lambda_it: float
    lambda_c: float
    lambda_b: float
    solver: str
    schedule: Schedule
    weight_decay: float
    device: str

    @property
    def loss_weights(self) -> dict[str, float]:
        """Weight of each term of the loss."""
        weights = {"image": self.lambda_it}
        if self.text_features is not None:
            text = (1 - self.lambda_it) / 2
            weights |= {"text_eos": text, "text_joint": text}
        weights["consistency"] = self.lambda_c
        if self.csb:
            weights["bias"] = self.lambda_b
        return weights


@dataclass(frozen=True)
class Objective:
    """The loss of SeMoBridge-T for some shots, as a function of W+ and b.

    Attributes
    ----------
    basis : Basis
        Projection W, and the coordinates of all other attributes.
    y : tensor of shape (n_samples,)
        Class of each shot.
    share : tensor of shape (n_samples,)
        Weight of each shot, as a share of the weight of all.
    class_share : tensor of shape (n_samples, 1)
        Weight of each shot, as a share of the weight of its class.
    f_centred, f_unit : tensor of shape (n_samples, n_features)
        f - c and unit(f).
    c : tensor of shape (n_features,) or None
        Bias of the projection; None means zero.
    L : float
        Length of the bridged tokens.
    n_classes : int
    E, T : tensor of shape (n_classes, n_text_features) and (n_classes, n_features)
        Unit class tokens and class texts; None without texts.
    logit_scale : float
    weights : tensor of shape (n_terms,)
        Weights of the terms of the loss.
    """

    basis: Basis
    y: Tensor
    share: Tensor
    class_share: Tensor
    f_centred: Tensor
    f_unit: Tensor
    c: Tensor | None
    L: float
    n_classes: int
    E: Tensor | None
    T: Tensor | None
    logit_scale: float
    weights: Tensor

    @classmethod
    def of(cls, shots: Shots, task: Task, basis: Basis) -> Self:
        """Convert the constants to tensors in the given basis."""
        tensor, bridge = basis.tensor, task.bridge
        has_texts, has_bias = task.text_features is not None, bridge.bias is not None
        class_weight = np.bincount(shots.codes, weights=shots.weight)
        return cls(
            basis=basis,
            y=torch.from_numpy(shots.codes).to(basis.device),
            share=tensor(shots.weight / shots.weight.sum()),
            class_share=tensor(shots.weight / class_weight[shots.codes])[:, None],
            f_centred=tensor(shots.X - bridge.bias if has_bias else shots.X),
            f_unit=basis.joint(unit(shots.X)),
            c=basis.joint(bridge.bias) if has_bias else None,
            L=bridge.length,
            n_classes=len(class_weight),
            E=basis.tokens(bridge.eos_unit) if has_texts else None,
            T=basis.joint(task.text_features) if has_texts else None,
            logit_scale=task.logit_scale,
            weights=tensor(list(task.loss_weights.values())),
        )

    def project(self, e: Tensor) -> Tensor:
        """Project tokens to the joint space: e W + c."""
        joint = self.basis.project(e)
        return joint if self.c is None else joint + self.c

    def bridge(self, W_plus: Tensor, b: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Bridged tokens e^ of the shots, and their weighted means by class."""
        u = self.f_centred @ W_plus
        if b is not None:
            u = u + b.index_select(0, self.y)
        e_hat = u * (self.L / row_lengths(u))
        sums = e_hat.new_zeros(self.n_classes, e_hat.shape[1])
        return e_hat, sums.index_add(0, self.y, e_hat * self.class_share)

    def bridged_prototypes(self, e_mean: Tensor) -> Tensor:
        """F^ = unit(mean f^): the projection is affine, so mean f^ = mean(e^) W + c."""
        f_mean = self.project(e_mean)
        return f_mean / row_lengths(f_mean)

    def terms(self, W_plus: Tensor, b: Tensor | None = None) -> Tensor:
        """Terms of the loss before their weights, in the order of the weights."""
        e_hat, e_mean = self.bridge(W_plus, b)
        F_hat = self.bridged_prototypes(e_mean)
        terms = [image_loss(self.f_unit, F_hat, self.y, self.share, self.logit_scale)]
        if self.T is not None:
            terms += [
                text_token_loss(e_mean, self.E),
                text_prototype_loss(F_hat, self.T),
            ]
        f_hat = self.project(e_hat)
        terms.append(consistency_loss(f_hat, F_hat, self.y, self.share))
        if b is not None:
            terms.append(bias_loss(b))
        return torch.stack(terms)
