"""torch.autocast, and on device `meta`, which it refuses, the casts that it makes on CUDA."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

NARROW = frozenset(
    {"addbmm", "addmm", "baddbmm", "bmm", "linear", "matmul", "__matmul__", "mm", "mv", "prelu"}
)
WIDE = frozenset(
    {"cross_entropy", "cumsum", "exp", "group_norm", "layer_norm", "log", "log_softmax", "nll_loss"}
    | {"norm", "pow", "__pow__", "prod", "reciprocal", "rsqrt", "softmax", "sum"}
)
"""what computes in bfloat16 and what in float32, of the functions that a graph network calls
(https://docs.pytorch.org/docs/stable/amp.html, "CUDA Op-Specific Behavior")"""


def autocast(device_type: str, dtype: torch.dtype) -> AbstractContextManager[Any]:
    """The context in which a float32 model computes its products in `dtype`."""
    if device_type != "meta":
        return torch.autocast(device_type, torch.bfloat16, enabled=dtype == torch.bfloat16)
    return _CastsOfCuda(dtype) if dtype == torch.bfloat16 else nullcontext()


class _CastsOfCuda(TorchFunctionMode):
    def __init__(self, narrow: torch.dtype) -> None:
        super().__init__()
        self.narrow = narrow

    def __torch_function__(self, function, types, args=(), kwargs=None) -> Any:
        name = function.__name__
        if name in NARROW or name in WIDE:
            dtype = self.narrow if name in NARROW else torch.float32

            def cast(value: Any) -> Any:
                lower = isinstance(value, Tensor) and value.is_floating_point()
                return value.to(dtype) if lower and value.dtype != torch.float64 else value

            args, kwargs = tree_map(cast, (args, kwargs or {}))
        return function(*args, **(kwargs or {}))
