"""How a trial ends, in one vocabulary. Standard library only: the launcher needs nothing else."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

SCHEMA = 1
EARLY_END_CODE = 86
"""exit code of a rank that ended early and says why in its record"""
CONTINUES_CODE = 85
"""exit code of a rank that stopped with a checkpoint, from which the next job continues"""


ALLOCATOR_MESSAGES = (
    "can't allocate memory",
    "cannot allocate memory",
    "std::bad_alloc",
    "memoryerror",
    "out of memory",
    "thread creation failed",
    "can't start new thread",
    "could not create a primitive",
    "cublas_status_alloc_failed",
    "cublas_status_not_initialized",
    "cusparse_status_alloc_failed",
    "cusparse_status_not_initialized",
    "cusparse_status_insufficient_resources",
)
"""what torch's CPU allocator, libc, C++, Python, CUDA, libgomp, oneDNN, cuBLAS and cuSPARSE say, in
lower case, when there is no memory left (a handle that cannot be made for want of memory is "not
initialized")"""
GPU_WORDS = ("cuda", "cublas", "cusparse", "cudnn", "nccl")
"""one of them stands in what is said of a GPU's memory, in lower case"""


class Status(str, Enum):
    """The measured ends of a trial; anything else is a failure and leaves no outcome."""

    COMPLETED = "completed"
    OUT_OF_MEMORY = "out_of_memory"
    TIME_LIMIT = "time_limit"
    DIVERGED = "diverged"


@dataclass(frozen=True)
class Limit:
    """What was run into: `memory_limit` (the trial's own cap), `device_memory`, `host_memory` or
    `walltime`; its value in `unit` (GiB or s), None where it is not known."""

    kind: str
    value: float | None
    unit: str


def exhausted_limit(message: str, device: str, limit_gib: float | None) -> Limit:
    """The memory that ran out, from an allocator's words on a trial's device (cpu or cuda).

    A trial's own cap is of the memory it trains in: a GPU's with `cuda`, else the host's.
    """
    in_training = device == "cpu" or any(word in message.lower() for word in GPU_WORDS)
    if limit_gib is not None and in_training:
        return Limit("memory_limit", limit_gib, "GiB")
    return Limit(
        "device_memory" if device == "cuda" and in_training else "host_memory", None, "GiB"
    )


@dataclass(frozen=True)
class Reason:
    """Why a trial ended early, on which rank, in which phase of its work."""

    rank: int
    phase: str
    message: str
    limit: Limit | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
