"""Memory allocators: how torch's is set by environment variables, and what they all say when memory
has run out. Standard library only.

What the variables say of `expandable_segments` has the last word over what a site asks for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from sagebench.records import Limit

NAMES = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")
"""in the order in which torch looks. Before 2.9 it knows the first alone; 2.9 obeys the first
alone, and up to 2.11 warns of it, unless the second is there too"""
KEY = "expandable_segments"
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


def expandable_segments(environment: Mapping[str, str], asked: bool) -> bool:
    """Whether ranks of this environment, at a site that `asked` for it or not, have such."""
    own = re.search(rf"{KEY}\s*:\s*(\w+)", settings(environment))
    return own[1].lower() == "true" if own else asked


def allocator_environment(environment: Mapping[str, str], asked: bool) -> dict[str, str]:
    """The variables to put over `environment` so that torch does as the site asks."""
    own = settings(environment)
    if not asked or KEY in own:
        return {}
    return dict.fromkeys(NAMES, ",".join(filter(None, [own, f"{KEY}:True"])))


def settings(environment: Mapping[str, str]) -> str:
    """Value of the variables, "" if unset."""
    return next((environment[name] for name in NAMES if environment.get(name)), "")


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
