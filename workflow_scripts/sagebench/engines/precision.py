"""The arithmetic of a trial: fp32, tf32 (matrix products alone) or bf16 (parameters stay fp32)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sagebench.errors import UserError
from sagebench.grid.trial import Trial

AMPERE = (8, 0)
"""the first compute capability with tf32 and bf16"""


def set_precision(trial: Trial, device: torch.device) -> None:
    """Allow tf32 in this process, or forbid it.

    Raises UserError where the device has not what the trial asks for: it never falls back.
    """
    if trial.precision == "tf32" and device.type != "cuda":
        raise UserError(
            "precision 'tf32' is a GPU's and the trial's device is cpu: write precision: fp32 or "
            "bf16"
        )
    if trial.precision != "fp32" and device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        if capability < AMPERE:
            raise UserError(
                f"precision '{trial.precision}' needs a GPU of compute capability 8.0, and this "
                f"one has {capability[0]}.{capability[1]}: write precision: fp32"
            )
    _allow_tf32(trial.precision == "tf32")


def compute_dtype(trial: Trial) -> torch.dtype:
    """What the layers compute in."""
    return torch.bfloat16 if trial.precision == "bf16" else torch.float32


@contextmanager
def true_float32() -> Iterator[None]:
    """No tf32 within: evaluation is as exact in every trial."""
    allowed = torch.backends.cuda.matmul.allow_tf32
    _allow_tf32(False)
    try:
        yield
    finally:
        _allow_tf32(allowed)


def _allow_tf32(allowed: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed
