"""The Triton kernels as operations of torch, and on which devices this process uses them.

As operations they run on device `meta` as well, where a step is recorded without a GPU; each
declares what it costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

LIBRARY = torch.library.Library("sagebench", "DEF")
AUTO, PLAIN = "auto", "plain"
DTYPES = (torch.float32, torch.bfloat16)
WIDEST = 1024
"""columns that a kernel holds in registers"""
device_types: set[str] = set()
"""on which they are used; kernels.choice decides"""


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


def runs_kernels(device: torch.device) -> bool:
    return device.type in device_types


def has_kernels(x: Tensor) -> bool:
    """Whether a matrix goes through the kernels."""
    return runs_kernels(x.device) and x.dtype in DTYPES and x.shape[1] <= WIDEST
