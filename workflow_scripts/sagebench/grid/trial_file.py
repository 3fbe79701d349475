"""What a trial.json may hold: the words of its values, and its reader.

Standard library only: the launcher on a compute node reads trials too.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sagebench.errors import UserError
from sagebench.files import read_json
from sagebench.grid.trial import Trial

CHOICES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "engine": ("blocks", "trimmed", "reference"),
        "sampler": ("sagebench", "pyg_lib"),
        "aggregator": ("mean", "sum", "max"),
        "optimizer": ("adam",),
        "learning_rate_scaling": ("linear", "sqrt", "none"),
        "validation": ("full", "sampled"),
        "precision": ("fp32", "tf32", "bf16"),
        "placement": ("auto", "device", "host"),
        "device": ("cpu", "cuda"),
    }
)
"""the words that a trial's values may be, where they are words"""


def one_of(value: Any, options: Sequence[str]) -> str:
    """What to write instead of `value`: "trimmed or blocks or reference", the nearest first."""
    near = difflib.get_close_matches(str(value), options, n=1)
    return " or ".join(sorted(options, key=lambda option: option not in near))


def read_trial(path: Path) -> Trial:
    """The trial in `path`; raises UserError where no trial can be made of it, or none be run."""
    remedy = "delete the file, and call the run again, which writes it anew"
    try:
        values = read_json(path)
        trial = Trial.from_json(values)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): name a trial.json") from None
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}): {remedy}") from None
    wrong = [
        f"{path}: {name} is {value!r}: write {one_of(value, options)}"
        for name, options in CHOICES.items()
        if (value := getattr(trial, name)) not in options
    ]
    if wrong:
        raise UserError("\n".join(wrong))
    return trial
