"""Arrays of the graph store as tensors."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor


def torch_view(array: np.ndarray) -> Tensor:
    """The (memory-mapped, read-only) array as a CPU tensor, without a copy. Never write to it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable.*")
        return torch.from_numpy(array)
