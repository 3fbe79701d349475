"""What libraries say when memory has run out, and which memory they mean. Standard library only."""

from __future__ import annotations

from sagebench.records import Limit

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
