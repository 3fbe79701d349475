"""Early ends of a rank: out of memory, time limit, divergence; anything else is a failure."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass, replace

import torch

from sagebench.measure.allocator import exhausted_limit
from sagebench.measure.memory import allocators_error
from sagebench.records import Limit, Status
from sagebench.units import GIB

HANDLE_WORDS = ("cublas_status_not_initialized", "cusparse_status_not_initialized")
HANDLE_BYTES = 512 << 20
"""what a library's handle and workspace take at most"""


class EarlyEnd(Exception):
    """A measured end: the trial cannot go on, and that is its result."""

    def __init__(self, status: Status, message: str, limit: Limit | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.limit = limit


@dataclass
class Deadline:
    """Deadline of a rank, from the trial's walltime.

    at_unix_s: None is never. walltime_s: what was asked for; the deadline lies a little before.
    """

    at_unix_s: float | None
    walltime_s: float | None

    @classmethod
    def read(cls) -> Deadline:
        """Deadline from the launcher's environment variable."""
        given = map(os.environ.get, ("SAGEBENCH_DEADLINE", "SAGEBENCH_WALLTIME_S"))
        return cls(*(float(seconds) if seconds else None for seconds in given))

    def check(self) -> None:
        """Raises EarlyEnd once the time is up."""
        if self.at_unix_s is not None and time.time() > self.at_unix_s:
            raise EarlyEnd(
                Status.TIME_LIMIT,
                f"the walltime of {self.walltime_s:.0f} s was used up",
                Limit("walltime", self.walltime_s, "s"),
            )


def check_finite(loss: float, epoch: int) -> None:
    """Raises EarlyEnd for a loss that is NaN or infinite."""
    if not math.isfinite(loss):
        raise EarlyEnd(Status.DIVERGED, f"the training loss was {loss} in epoch {epoch}")


def explain(error: BaseException, device: torch.device, limit_gib: float | None) -> EarlyEnd | None:
    """`error` as a measured end, or None where it is a failure."""
    if isinstance(error, EarlyEnd):
        return error
    allocators = allocators_error(error)
    if allocators is None and device.type == "cuda" and _lacks_room_for_a_handle(error, device):
        allocators = error
    if allocators is None:
        return None
    limit = exhausted_limit(str(allocators), device.type, limit_gib)
    if limit.kind == "device_memory":
        total = torch.cuda.get_device_properties(device).total_memory
        limit = replace(limit, value=round(total / GIB, 2))
    message = str(error).strip().splitlines()
    return EarlyEnd(
        Status.OUT_OF_MEMORY, message[0][:500] if message else type(error).__name__, limit
    )


def _lacks_room_for_a_handle(error: BaseException, device: torch.device) -> bool:
    """Whether cuBLAS or cuSPARSE could not be started on a full GPU. They say the same of a driver
    that does not fit them, so it counts only where next to nothing is free."""
    if not any(words in str(error).lower() for words in HANDLE_WORDS):
        return False
    try:
        return torch.cuda.mem_get_info(device)[0] < HANDLE_BYTES
    except RuntimeError:  # the GPU itself has failed
        return False
