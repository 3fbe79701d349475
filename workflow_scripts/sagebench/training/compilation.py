"""`compile: true`: the dense parts of the model by torch.compile."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec

import torch
from torch import nn

from sagebench.errors import UserError

OLDEST = (2, 6)
"""torch 2.1 compiles the trimmed engine to wrong logits; checked right with 2.13"""
COMPILERS = ("g++", "clang++", "c++")


def compile_model(model: nn.Module, device: torch.device) -> None:
    """Have `model` compiled at its first use, for any number of rows; its parameters keep their
    names. Raises UserError for a torch too old for it, or where it finds no compiler."""
    if torch_version() < OLDEST:
        raise UserError(
            f"compile: true asks for torch {OLDEST[0]}.{OLDEST[1]} or later, here is "
            f"{torch.__version__}: write compile: false"
        )
    compiler = os.environ.get("CXX")
    if not any(shutil.which(name) for name in ([compiler] if compiler else COMPILERS)):
        missing = compiler or "a C++ compiler such as g++"
    elif device.type == "cuda" and find_spec("triton") is None:
        missing = "the package triton"
    else:
        model.compile(dynamic=True)
        return
    raise UserError(
        f"compile: true asks for {missing}, which is not here: install it or write compile: false"
    )


def torch_version() -> tuple[int, int]:
    major, minor = torch.__version__.split(".")[:2]
    return int(major), int(minor)
