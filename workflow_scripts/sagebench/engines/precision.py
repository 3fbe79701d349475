"""Precision of a model's arithmetic: fp32, tf32 (matrix products alone) or bf16 (parameters stay
fp32); with `compile: true` the dense parts by torch.compile."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import torch
from torch import nn

from sagebench.errors import UserError
from sagebench.grid.trial import Trial

AMPERE = (8, 0)
"""the first compute capability with tf32 and bf16"""
OLDEST = (2, 6)
"""torch 2.1 compiles the trimmed engine to wrong logits; checked right with 2.13"""
LANGUAGES = {"cpu": "C++", "cuda": "C"}
"""by device; on a GPU Triton makes the kernels, and what launches them is C"""
COMPILERS = {"C++": ("CXX", ("g++", "clang++", "c++")), "C": ("CC", ("gcc", "clang"))}
"""the variable that names one, and what is looked for without it"""


def set_precision(trial: Trial, device: torch.device) -> None:
    """Allow tf32 in this process, or forbid it.

    Raises UserError where the device has not what the trial asks for: it never falls back.
    """
    if trial.precision == "tf32" and device.type != "cuda":
        raise UserError(
            "precision 'tf32' is a GPU's and the trial's device is cpu: write precision: fp32 or "
            "bf16"
        )
    if trial.precision != "fp32" and device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        if capability < AMPERE:
            raise UserError(
                f"precision '{trial.precision}' needs a GPU of compute capability 8.0, and this "
                f"one has {capability[0]}.{capability[1]}: write precision: fp32"
            )
    _allow_tf32(trial.precision == "tf32")


def compute_dtype(trial: Trial) -> torch.dtype:
    """dtype of the layers' arithmetic."""
    return torch.bfloat16 if trial.precision == "bf16" else torch.float32


@contextmanager
def true_float32() -> Iterator[None]:
    """No tf32 within: evaluation is as exact in every trial."""
    allowed = torch.backends.cuda.matmul.allow_tf32
    _allow_tf32(False)
    try:
        yield
    finally:
        _allow_tf32(allowed)


def _allow_tf32(allowed: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


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
        f"compile: true asks for {missing}, which is missing: install it or write compile: false"
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
