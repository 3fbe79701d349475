"""The choice between the kernels and the plain path, which is their oracle and stands in for them
where they do not run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import torch

from sagebench.operations import PLAIN, device_types

OLDEST_TORCH, OLDEST_TRITON = (2, 6), (3, 2)


def choose_kernels(wanted: str, device_type: str) -> str:
    """Have this process use the kernels on devices of a type (`meta`: where a step of a GPU is
    recorded), or not. wanted: AUTO, or PLAIN for none.

    Returns what is used: "triton 3.6.0", or PLAIN and why.
    """
    device_types.clear()
    if wanted == PLAIN:
        return PLAIN
    why = "no GPU" if device_type == "cpu" else missing()
    if device_type == "cuda" and why is None:
        why = _cannot_start()
    if why is not None:
        return f"{PLAIN}: {why}"
    device_types.add(device_type)
    return f"triton {import_module('triton').__version__}"


@contextmanager
def kernels_chosen(wanted: str, device_type: str) -> Iterator[None]:
    """`choose_kernels` for a while."""
    before = set(device_types)
    choose_kernels(wanted, device_type)
    try:
        yield
    finally:
        device_types.clear()
        device_types.update(before)


def missing() -> str | None:
    """What keeps the kernels from running with this torch; None where nothing does."""
    if _version(torch) < OLDEST_TORCH:
        return f"torch {torch.__version__} is older than {'.'.join(map(str, OLDEST_TORCH))}"
    try:
        triton = import_module("triton")
    except Exception as error:  # not there, or broken
        return f"no triton ({error!r})"
    if _version(triton) < OLDEST_TRITON:
        return f"triton {triton.__version__} is older than {'.'.join(map(str, OLDEST_TRITON))}"
    return None


def _cannot_start() -> str | None:
    """What keeps Triton from this GPU: its first kernel needs a C compiler, Python's headers and an
    assembler for the card."""
    from sagebench.kernels.gpu import norm

    try:
        x = torch.zeros(1, 8, device="cuda")
        norm.forward(x, x[0], x[0], 0.0, 0, torch.zeros(1, dtype=torch.int64, device="cuda"), 1e-5)
        torch.cuda.synchronize()
    except Exception as error:  # of whatever is missing
        return f"triton does not start: {error!r}"
    return None


def _version(module: Any) -> tuple[int, int]:
    major, minor = module.__version__.split(".")[:2]
    return int(major), int(minor)
