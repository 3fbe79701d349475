"""Kernels as operations of torch: what runs, the shape of what comes out, and what it costs.

As operations they run on device `meta` as well, where a step is recorded without a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

LIBRARY = torch.library.Library("sagebench", "DEF")


class Cost(NamedTuple):
    """launches: kernels that a call starts. moved_bytes: what they read and write, as if no cache
    held any of it."""

    launches: int
    moved_bytes: int


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


def size_bytes(*tensors: torch.Tensor) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
