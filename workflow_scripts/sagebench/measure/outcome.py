"""How a trial ends, in one vocabulary, and the one reader of what it leaves. Standard library only:
the launcher needs nothing else."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from sagebench.errors import UserError

SCHEMA = 1
PROFILE = ("profile.txt", "trace.json.gz")
"""the files of a trial with `profile_steps`"""
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
    "cusparse_status_alloc_failed",
    "cusparse_status_insufficient_resources",
)
"""what torch's CPU allocator, libc, C++, Python, CUDA, libgomp, oneDNN, cuBLAS and cuSPARSE say, in
lower case, when there is no memory left"""
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


class Damaged(UserError):
    """An outcome that cannot be read: cut short by a full disk or a copy, or another's."""

    def __init__(self, path: Path, why: str) -> None:
        copy = whole_copy(path)
        self.remedy = (
            "delete the outcome, and call the run again, which measures its trial once more"
            if copy is None
            else f"copy {copy.relative_to(path.parent)} over it, which is whole"
        )
        super().__init__(f"{path} is damaged ({why}): {self.remedy}")


def read_outcome(path: Path, trial_id: str | None = None) -> dict[str, Any]:
    """The outcome in `path`, of the trial `trial_id` where that is given. Raises Damaged."""
    try:
        outcome = json.loads(path.read_text())
    except OSError as error:
        raise Damaged(path, error.strerror) from None
    except ValueError as error:
        raise Damaged(path, f"not readable JSON: {error}") from None
    if not isinstance(outcome, dict) or outcome.get("schema") != SCHEMA:
        raise Damaged(path, f"not an outcome of schema {SCHEMA}")
    if trial_id is not None and outcome.get("trial_id") != trial_id:
        raise Damaged(path, f"it belongs to trial {outcome.get('trial_id')}, not to {trial_id}")
    if outcome.get("status") not in [status.value for status in Status]:
        raise Damaged(path, f"unknown status {outcome.get('status')!r}")
    return outcome


def whole_copy(path: Path) -> Path | None:
    """The newest copy of an outcome that the launcher left in an attempt's folder beside it; None
    where none is whole."""
    copies = path.parent.glob("attempts/*/outcome.json")
    for copy in sorted(copies, key=lambda copy: copy.stat().st_mtime, reverse=True):
        if ends_whole(copy):
            return copy
    return None


def ends_whole(path: Path) -> bool:
    """Whether a file ends as `files.write_json` ends it: only the outermost brace stands at the
    start of a line. Tells what was cut short, without reading all of it."""
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 3))
        return file.read() == b"\n}\n"
