"""Conversion of arrays to tensors, for every module of this package."""

import numpy as np
import torch
from numpy.typing import ArrayLike, DTypeLike


def to_tensor(values: ArrayLike, dtype: DTypeLike, device: str) -> torch.Tensor:
    """Copy an array into a contiguous tensor on `device`."""
    return torch.from_numpy(np.array(values, dtype=dtype, order="C")).to(device)
