"""The Triton kernels as operations of torch, and the choice between them and the plain path, which
is their oracle and stands in for them where they do not run.

As operations they run on device `meta` as well, where a step is recorded without a GPU; each
declares what it costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor

LIBRARY = torch.library.Library("sagebench", "DEF")
AUTO, PLAIN = "auto", "plain"
OLDEST_TORCH, OLDEST_TRITON = (2, 6), (3, 2)
DTYPES = (torch.float32, torch.bfloat16)
WIDEST = 1024
"""columns that a kernel holds in registers"""
_device_types: set[str] = set()


class Cost(NamedTuple):
    """launches: kernels that a call starts. moved_bytes: what they read and write, as if no cache
    held any of it."""

    launches: int
    moved_bytes: int

    @classmethod
    def sum(cls, costs: Iterable[Cost]) -> Cost:
        return cls(*map(sum, zip(*costs, strict=True))) if (costs := list(costs)) else cls(0, 0)


COSTS: dict[str, Callable[..., Cost]] = {}
"""by an operation's name, with its arguments"""


def operation(
    schema: str, run: Callable[..., Any], shapes: Callable[..., Any], cost: Callable[..., Cost]
) -> Callable[..., Any]:
    """The operation torch.ops.sagebench.NAME.

    schema: "NAME(Tensor x, ...) -> Tensor". run: launches its kernels. shapes: makes what comes out
    without contents. cost: of a call; each takes the operation's arguments.
    """
    name = schema.partition("(")[0]
    LIBRARY.define(schema)
    LIBRARY.impl(name, run, "CUDA")
    LIBRARY.impl(name, run, "CPU")  # Triton's interpreter
    LIBRARY.impl(name, shapes, "Meta")
    COSTS[name] = cost
    return getattr(torch.ops.sagebench, name)


def size_bytes(*tensors: Tensor) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def choose_kernels(wanted: str, device_type: str) -> str:
    """Have this process use the kernels on devices of a type (`meta`: where a step of a GPU is
    recorded), or not. wanted: AUTO, or PLAIN for none.

    Returns what is used: "triton 3.6.0", or PLAIN and why.
    """
    _device_types.clear()
    if wanted == PLAIN:
        return PLAIN
    why = "no GPU" if device_type == "cpu" else missing()
    if device_type == "cuda" and why is None:
        why = _cannot_start()
    if why is not None:
        return f"{PLAIN}: {why}"
    import triton

    _device_types.add(device_type)
    return f"triton {triton.__version__}"


@contextmanager
def kernels_chosen(wanted: str, device_type: str) -> Iterator[None]:
    """`choose_kernels` for a while."""
    before = set(_device_types)
    choose_kernels(wanted, device_type)
    try:
        yield
    finally:
        _device_types.clear()
        _device_types.update(before)


def missing() -> str | None:
    """What keeps the kernels from running with this torch; None where nothing does."""
    if _version(torch.__version__) < OLDEST_TORCH:
        return f"torch {torch.__version__} is older than {'.'.join(map(str, OLDEST_TORCH))}"
    if find_spec("triton") is None:
        return "no triton"
    import triton

    if _version(triton.__version__) < OLDEST_TRITON:
        return f"triton {triton.__version__} is older than {'.'.join(map(str, OLDEST_TRITON))}"
    return None


def _cannot_start() -> str | None:
    """What keeps Triton from this GPU: it compiles its launcher first, with a C compiler and
    Python's headers."""
    from triton.runtime import driver

    try:
        driver.active.get_current_device()
    except Exception as error:  # of whatever is missing
        return f"triton does not start: {str(error).strip().splitlines()[0]}"
    return None


def runs_kernels(device: torch.device) -> bool:
    return device.type in _device_types


def has_kernels(x: Tensor) -> bool:
    """Whether a matrix goes through the kernels."""
    return runs_kernels(x.device) and x.dtype in DTYPES and x.shape[1] <= WIDEST


def _version(text: str) -> tuple[int, int]:
    major, minor = text.split(".")[:2]
    return int(major), int(minor)
