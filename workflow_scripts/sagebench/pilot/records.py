"""Pilots: what a few micro-steps of a configuration took on a machine, and by what it is known.

results/pilots/MACHINE/KEY.json is one configuration's `Pilot`, evaluation-DIGEST.json the
`Evaluation` of the configurations that evaluate alike. Standard library only: the plan reads them.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from sagebench.files import write_json
from sagebench.grid.trial import Trial, digest
from sagebench.records import FromJson, PeakBytes, Reason, Status

FORMAT = 1
STATUSES = (Status.COMPLETED, Status.OUT_OF_MEMORY)
"""the ends that are results; anything else is a failure, which leaves no record"""
WINDOW_PART = "window.json"
EVALUATION_PART = "evaluation.json"
"""what a pilot's rank leaves in its attempt's folder: a `Window`, and `EvaluationTimes`"""

# What a micro-step's cost does not depend on. Of the optimizer's own values only the learning rate:
# another optimizer, and how often it steps (accumulation), does more or less.
NEUTRAL = {
    "ranks": 1,
    "epochs": 1,
    "learning_rate": 0.001,
    "learning_rate_scaling": "none",
    "evaluate_every_epochs": 1,
    "patience_evaluations": None,
    "validation": "full",
    "phase_window_steps": 0,
    "seed": 0,
    "sampled_test_nodes": None,
    "profile_steps": 0,
}
EVALUATED = ("validation", "sampled_test_nodes")
"""those of them that an evaluation's cost depends on"""
# What an evaluation's cost does not depend on, besides: it is float32, uncompiled, and samples by
# the uniform sampler whatever the trial does.
NEUTRAL_IN_EVALUATION = {
    "sampler": "sagebench",
    "dropout": 0.0,
    "batch_size": 1,
    "accumulation": 1,
    "optimizer": "adam",
    "precision": "fp32",
    "compile": False,
}

Record = TypeVar("Record", bound="Measured")


def pilot_trial(trial: Trial) -> Trial:
    """The trial on one rank, without what changes no cost of a micro-step."""
    return replace(trial, **NEUTRAL)


def pilot_key(trial: Trial, store_checksum: str) -> str:
    """The name of the trial's pilot: readable values and a digest, [A-Za-z0-9._-]+."""
    pilot = pilot_trial(trial)
    readable = (
        f"{trial.dataset['name']}-{trial.engine}-b{trial.batch_size}x{trial.accumulation}"
        f"-f{trial.fanout.readable}"
    )[:80]
    return f"{readable}-{_digest(pilot, store_checksum)}"


def evaluation_key(trial: Trial, store_checksum: str) -> str:
    """The name of the record of the trial's validation and test."""
    kept = {name: getattr(trial, name) for name in EVALUATED}
    evaluated = replace(pilot_trial(trial), **kept, **NEUTRAL_IN_EVALUATION)
    if trial.engine == "trimmed":  # as `reference`, it leaves sampling to PyG
        evaluated = replace(evaluated, engine="reference")
    return f"evaluation-{_digest(evaluated, store_checksum)}"


def _digest(trial: Trial, store_checksum: str) -> str:
    return digest({"trial": trial.identity(), "store": store_checksum}, 10)


@dataclass(frozen=True, kw_only=True)
class Measured(FromJson):
    """A result, on what and when it was measured. trial: the values of the one that was run."""

    key: str
    trial: dict[str, Any]
    status: Status
    reason: Reason | None = None
    store_checksum: str
    device_name: str | None = None
    cpu_model: str | None = None
    versions: dict[str, str | None] | None = None
    measured_at: str | None = None


@dataclass(frozen=True, kw_only=True)
class Window(FromJson):
    """What a rank measured over `micro_steps` micro-steps, all of them of whole optimizer steps.

    step_s, step_low_s, step_high_s: median and quartiles of a micro-step; step_mean_s: the mean
    over the window, the optimizer's steps included. epoch_s: median of the epochs, where one is
    shorter than the window, which then is of whole ones. first_batch_s: from an epoch's start to
    its first batch. nodes, edges: of a micro-batch, mean over the window. energy_j: of the GPU over
    the window. memory: peaks of all micro-steps, the first ones included.
    """

    micro_steps: int | None = None
    step_s: float | None = None
    step_low_s: float | None = None
    step_high_s: float | None = None
    step_mean_s: float | None = None
    epoch_s: float | None = None
    first_batch_s: float | None = None
    start_to_first_step_s: float | None = None
    nodes: float | None = None
    edges: float | None = None
    memory: PeakBytes | None = None
    energy_j: float | None = None


@dataclass(frozen=True, kw_only=True)
class EvaluationTimes(FromJson):
    """evaluation_s: of one validation, by the trial's method. test_s: of the test, full and
    sampled."""

    evaluation_s: float | None = None
    test_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Pilot(Window, Measured):
    """The micro-steps of a configuration; out of memory leaves None what it kept from being
    measured."""

    @property
    def peak_memory_bytes(self) -> int | None:
        """By the counter of its device."""
        return self.memory and self.memory.of_device(self.trial.get("device"))


@dataclass(frozen=True, kw_only=True)
class Evaluation(EvaluationTimes, Measured):
    """Validation and test of the configurations that evaluate alike."""


def pilots_folder(results: str | os.PathLike[str], machine: str) -> Path:
    return Path(results, "pilots", machine)


def write_record(folder: Path, record: Measured) -> None:
    """Whole or not at all."""
    write_json(folder / f"{record.key}.json", {"format": FORMAT, **asdict(record)})


def read_pilots(
    results: str | os.PathLike[str], machine: str, warn: Callable[[str], None] = lambda _: None
) -> dict[str, Pilot]:
    """The machine's pilots by key. A damaged file is left out, and `warn` is given a sentence."""
    return _read(Pilot, results, machine, warn)


def read_evaluations(
    results: str | os.PathLike[str], machine: str, warn: Callable[[str], None] = lambda _: None
) -> dict[str, Evaluation]:
    """The machine's evaluations by key, likewise."""
    return _read(Evaluation, results, machine, warn)


def _read(
    kind: type[Record],
    results: str | os.PathLike[str],
    machine: str,
    warn: Callable[[str], None],
) -> dict[str, Record]:
    found = {}
    for path in sorted(pilots_folder(results, machine).glob("*.json")):
        of_evaluation = re.fullmatch("evaluation-[0-9a-f]{10}", path.stem) is not None
        if of_evaluation != (kind is Evaluation):
            continue
        try:
            values = json.loads(path.read_text())
            if values["format"] != FORMAT or values["key"] != path.stem:
                raise ValueError(f"not a record of {path.stem} in format {FORMAT}")
            record = kind.from_json(values)
            if record.status not in STATUSES:
                raise ValueError(f"its status is {record.status}")
            found[record.key] = record
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            warn(
                f"{path} is no pilot ({type(error).__name__}: {error}): `make pilot` measures it "
                "again"
            )
    return found
