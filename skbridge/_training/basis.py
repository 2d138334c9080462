"""Coordinates in which training computes: those of W, or its singular bases."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import ArrayLike, DTypeLike
from torch import Tensor
from torch.linalg import vector_norm
from torch.nn.functional import pad

from skbridge._bridge import Bridge
from skbridge._training.tensors import to_tensor

# Rounding error in float64: a singular value below this share of the largest counts as
# zero, and so does the part of c outside the row space of W, below this share of c.
_LEAST_SHARE = 1e-7


@dataclass(frozen=True)
class Basis:
    """Bases of tokens and of joint embeddings, and arrays as tensors in them.

    The singular bases make the text projection W = U diag(s) V' diagonal. Tokens
    become e U, joint embeddings f V, and the parameters W+ U and b U. Inner products do
    not change, nor does any equation of the loss, while the projection ``e W`` becomes
    ``(e U) * s``, with n d operations instead of n d^2.

    A projection bias c may lie partly outside the row space of W. Then V has one more
    axis for it, and U a column of zeros.

    Attributes
    ----------
    dtype : numpy dtype
    device : str
        A torch device.
    W : tensor of shape (n_text_features, n_features) or (n_axes,)
        Text projection; s in its singular bases.
    U : tensor of shape (n_text_features, n_axes) or None
        None for the bases of W itself.
    V : tensor of shape (n_features, n_axes) or None
    """

    dtype: DTypeLike
    device: str
    W: Tensor
    U: Tensor | None = None
    V: Tensor | None = None

    @classmethod
    def plain(cls, bridge: Bridge, dtype: DTypeLike, device: str) -> Self:
        """Basis of W itself."""
        return cls(dtype, device, to_tensor(bridge.projection, dtype, device))

    @classmethod
    def singular(cls, bridge: Bridge, dtype: DTypeLike, device: str) -> Self:
        """Make the singular bases of W."""
        # In torch, as in all of training: where NumPy and torch alternate, the threads
        # of one wait for those of the other.
        W = torch.from_numpy(bridge.projection.astype(np.float64))
        # Faster than a singular value decomposition, and accurate enough: rounding
        # changes small singular values by little, relative to W.
        _, U = torch.linalg.eigh(W @ W.T)
        axes = (U.T @ W).T
        s = vector_norm(axes, dim=0)
        s[s <= _LEAST_SHARE * s.max()] = 0
        V = torch.where(s > 0, axes / s, 0)
        if bridge.bias is not None:
            c = torch.from_numpy(bridge.bias.astype(np.float64))
            outside = c - V @ (V.T @ c)
            length = vector_norm(outside)
            is_inside = length <= _LEAST_SHARE * vector_norm(c)
            axis = torch.zeros_like(c) if is_inside else outside / length
            V = torch.column_stack([V, axis])
            U, s = pad(U, (0, 1)), pad(s, (0, 1))
        W, U, V = (to_tensor(x.numpy(), dtype, device) for x in (s, U, V))
        return cls(dtype, device, W, U, V)

    def tensor(self, values: ArrayLike) -> Tensor:
        """Convert an array that does not depend on the basis."""
        return to_tensor(values, self.dtype, self.device)

    def tokens(self, rows: ArrayLike) -> Tensor:
        """Convert rows of tokens, of W+ or of b."""
        rows = self.tensor(rows)
        return rows if self.U is None else rows @ self.U

    def joint(self, rows: ArrayLike) -> Tensor:
        """Convert rows of joint embeddings."""
        rows = self.tensor(rows)
        return rows if self.V is None else rows @ self.V

    def project(self, tokens: Tensor) -> Tensor:
        """Apply W, without its bias."""
        return tokens @ self.W if self.U is None else tokens * self.W

    def original(self, rows: Tensor) -> np.ndarray:
        """Convert rows of W+ or of b back to an array in the basis of W itself."""
        rows = rows if self.U is None else rows @ self.U.T
        return rows.cpu().numpy()
