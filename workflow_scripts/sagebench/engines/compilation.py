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
LANGUAGES = {"cpu": "C++", "cuda": "C"}
"""by device; on a GPU Triton makes the kernels, and what launches them is C"""
COMPILERS = {"C++": ("CXX", ("g++", "clang++", "c++")), "C": ("CC", ("gcc", "clang"))}
"""the variable that names one, and what is looked for without it"""


def compile_model(model: nn.Module, device: torch.device) -> None:
    """Have `model` compiled at its first use, for any number of rows; its parameters keep their
    names. Raises UserError for a torch too old for it, or where it finds no compiler."""
    if torch_version() < OLDEST:
        raise UserError(
            f"compile: true asks for torch {OLDEST[0]}.{OLDEST[1]} or later, here is "
            f"{torch.__version__}: write compile: false"
        )
    language = LANGUAGES[device.type]
    variable, names = COMPILERS[language]
    if find_compiler(language) is None:
        missing = os.environ.get(variable) or f"a {language} compiler such as {names[0]}"
    elif device.type == "cuda" and find_spec("triton") is None:
        missing = "the package triton"
    else:
        model.compile(dynamic=True)
        return
    raise UserError(
        f"compile: true asks for {missing}, which is not here: install it or write compile: false"
    )


def find_compiler(language: str) -> str | None:
    """The compiler's path, where there is one."""
    variable, names = COMPILERS[language]
    own = os.environ.get(variable)
    found = (shutil.which(name) for name in ([own] if own else names))
    return next((path for path in found if path), None)


def torch_version() -> tuple[int, int]:
    major, minor = torch.__version__.split(".")[:2]
    return int(major), int(minor)
