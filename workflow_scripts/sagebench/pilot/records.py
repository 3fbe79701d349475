"""Pilots: what a process measured of a configuration on a machine, in a file each; which values of
a trial affect which cost, and so which trials share a pilot; and what is to be measured yet.

results/pilots/MACHINE/KEY.json is a `Pilot`: a few micro-steps, or, where KEY begins with
`evaluation-`, validation and test of the configurations that evaluate alike. No torch is imported:
Snakemake reads it where it parses.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, final

from sagebench.files import read_object, write_json
from sagebench.grid.expansion import Study
from sagebench.grid.freeze import manifest_path
from sagebench.grid.last_hop import table_aggregator
from sagebench.grid.trial import FIELD_NAMES, Trial, digest
from sagebench.records import FromJson, Outcome, PeakBytes, Reason, Status

FORMAT = 1
STATUSES = (Status.COMPLETED, Status.OUT_OF_MEMORY)
"""the ends that are results; anything else is a failure, which leaves no record"""


@final
@dataclass(frozen=True, kw_only=True)
class Pilot(FromJson):
    """A result, of what and when it was measured; None is what it is not about, or what running out
    of memory kept from being measured. trial: the values of the one that was run.

    Over `micro_steps` micro-steps, all of them of whole optimizer steps: step_s, step_low_s,
    step_high_s: median and quartiles of a micro-step; step_mean_s: the mean, the optimizer's steps
    included. epoch_s: median of the epochs, where one is shorter than the window, which then is of
    whole ones. first_batch_s: from an epoch's start to its first batch. nodes, edges: of a
    micro-batch, mean over the window. memory: peaks of all micro-steps, the first ones included.
    energy_j: of the GPU over the window.
    evaluation_s: of one validation, by the trial's method. test_s: of the test, full and sampled.
    """

    key: str
    trial: dict[str, Any]
    status: Status
    reason: Reason | None = None
    store_checksum: str
    device_name: str | None = None
    cpu_model: str | None = None
    versions: dict[str, str | None] | None = None
    measured_at: str | None = None
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
    evaluation_s: float | None = None
    test_s: float | None = None

    @property
    def peak_memory_bytes(self) -> int | None:
        """Peak by the memory counter of its device, bytes."""
        return None if self.memory is None else self.memory.of_device(self.trial.get("device"))


def pilots_folder(results: str | os.PathLike[str], machine: str) -> Path:
    return Path(results, "pilots", machine)


def write_pilot(folder: Path, pilot: Pilot) -> None:
    """Whole or not at all."""
    write_json(folder / f"{pilot.key}.json", {"format": FORMAT, **asdict(pilot)})


def read_pilots(
    results: str | os.PathLike[str], machine: str, warn: Callable[[str], None] = lambda _: None
) -> dict[str, Pilot]:
    """The machine's pilots by key. A damaged file is left out, and `warn` is given a sentence."""
    paths = sorted(pilots_folder(results, machine).glob("*.json"))
    return {path.stem: pilot for path in paths if (pilot := read_pilot(path, warn))}


def read_pilot(path: Path, warn: Callable[[str], None] = lambda _: None) -> Pilot | None:
    """None where there is none, or a damaged one."""
    try:
        values = json.loads(path.read_text())
        if values["format"] != FORMAT or values["key"] != path.stem:
            raise ValueError(f"not a record of {path.stem} in format {FORMAT}")
        pilot = Pilot.from_json(values)
        if pilot.status not in STATUSES:
            raise ValueError(f"its status is {pilot.status}")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        warn(f"{path} is no pilot ({type(error).__name__}: {error}): `make pilot` repeats it")
        return None
    return pilot


STEP, PILOT, EVALUATION, EPOCH = 1, 2, 4, 8
"""costs: a recorded step, on one graph store and one placement; a measured micro-step; a measured
validation and test; an epoch of a whole trial"""
TRAINING = PILOT | EPOCH
MEASURED = PILOT | EVALUATION | EPOCH

CHANGES: Mapping[str, tuple[int, Any]] = {
    "dataset": (MEASURED, None),  # its store stands for it
    "sampler": (MEASURED, None),  # of a recorded step its law stands for it
    "dropout": (STEP | TRAINING, 0.0),
    "batch_size": (STEP | TRAINING, 1),
    "accumulation": (TRAINING, 1),
    "ranks": (EPOCH, 1),
    "threads_per_rank": (MEASURED, None),
    "sampling_workers": (MEASURED, None),
    "epochs": (0, 1),
    "optimizer": (TRAINING, "adam"),
    "learning_rate": (0, 0.001),
    "learning_rate_scaling": (0, "none"),
    "weight_decay": (0, 0.0),
    "evaluate_every_epochs": (0, 1),
    "patience_evaluations": (0, None),
    "validation": (EVALUATION | EPOCH, "full"),
    "phase_window_steps": (0, 0),
    "seed": (0, 0),
    "precision": (MEASURED, None),  # evaluation is float32, but of features that may be bf16
    "device": (MEASURED, None),
    "machine": (MEASURED, None),
    "memory_limit_gib": (MEASURED, None),
    "placement": (MEASURED, None),  # where it was chosen to be stands for it
    "compile": (TRAINING, False),
    "sampled_test_nodes": (EVALUATION | EPOCH, None),
    "profile_steps": (0, 0),
}
"""what a value changes, and what stands for it in the key of a measurement that it does not change;
NEVER EDIT the latter, keys are made with it. A value that is not listed changes every cost."""

WINDOW_PART = "window.json"
EVALUATION_PART = "evaluation.json"
"""what a pilot's rank leaves in its attempt's folder: the values of a `Pilot` that it measured"""
STEPS_OF_OLD: tuple[Any, ...] = ("sage", {}, "minibatch", "uniform")
"""values that all steps had before there were others"""


def neutral(trial: Trial, costs: int) -> Trial:
    """The trial without what changes none of `costs`."""
    without = {name: value for name, (changed, value) in CHANGES.items() if not changed & costs}
    return replace(trial, **without)


def pilot_key(trial: Trial, store_checksum: str) -> str:
    """The name of the trial's pilot: readable values and a digest, [A-Za-z0-9._-]+."""
    readable = (
        f"{trial.dataset['name']}-{trial.engine}-b{trial.batch_size}x{trial.accumulation}"
        f"-f{trial.fanout.readable}"
    )[:80]
    return f"{readable}-{_digest(neutral(trial, PILOT), store_checksum)}"


def evaluation_key(trial: Trial, store_checksum: str) -> str:
    """The name of the record of the trial's validation and test."""
    evaluated = neutral(trial, EVALUATION)
    if not trial.samples_where_placed:  # all alike: they leave sampling to PyG
        evaluated = replace(evaluated, engine="reference")
    return f"evaluation-{_digest(evaluated, store_checksum)}"


def young_values(trial: Trial) -> dict[str, Any]:
    """What costs depend on since it came, as if it were not there where a trial has none of it: so
    keys are those of what is older than it."""
    kernels = "triton" if trial.asks_for_kernels else None
    values = {"kernels": kernels, "last_hop": table_aggregator(trial)}
    return {name: value for name, value in values.items() if value is not None}


def is_older(trial: Trial, outcome: Outcome) -> bool:
    """Whether an outcome of the trial is older than what the trial runs with today."""
    young = young_values(trial)
    return ("kernels" in young and outcome.kernels_used is None) or (
        "last_hop" in young and outcome.last_hop is None
    )


def _digest(trial: Trial, store_checksum: str) -> str:
    identity = {"trial": trial.identity(), "store": store_checksum, **young_values(trial)}
    return digest(identity, 10)


def epoch_key(trial: Trial, store_checksum: str) -> str:
    """Digits that only trials share which differ in nothing that an epoch's time depends on; what
    a data set draws by its split_seed is nothing of that."""
    dataset = {key: value for key, value in trial.dataset.items() if key != "split_seed"}
    values = [replace(neutral(trial, EPOCH), dataset=dataset).identity(), store_checksum]
    if young := young_values(trial):
        values.append(young)
    return digest(values, 16)


def deciding_values(trial: Trial) -> dict[str, Any]:
    """Values of a trial that a recorded step depends on, as JSON has them."""
    values = trial.to_json()
    kept = {name: values[name] for name in FIELD_NAMES if CHANGES.get(name, (STEP,))[0] & STEP}
    del kept["kernels"]
    young = {name: kept.pop(name) for name in ("model", "options", "method")}
    young["law"] = trial.law
    # As if they were not there: so are the steps in probes that are older than they.
    young = {name: value for name, value in young.items() if value not in STEPS_OF_OLD}
    return {**kept, **young, **young_values(trial), "dropout": trial.dropout > 0}


def step_name(values: Mapping[str, Any], placement: str) -> str:
    """The key of a recorded step in a probe."""
    return digest({**values, "placement": placement}, 12)


@dataclass(frozen=True)
class Work:
    """A measurement, for one process. key: of its record, and the folder of its attempts. part: the
    file that the process leaves. trial: the one to run for all that cost the same. store: its
    folder's name. pilot: key of the micro-steps of that trial."""

    key: str
    part: str
    trial: Trial
    store: str
    store_checksum: str
    pilot: str


def works_of(study: Study) -> list[Work]:
    """All measurements of the study: first micro-steps, then validations and tests; a store
    that is not built has no checksum."""
    checksums = {
        store: (read_object(Path(manifest_path(study.results, store))) or {}).get("checksum", "")
        for store in study.stores
    }
    windows: dict[str, Work] = {}
    evaluations: dict[tuple[str, str], Work] = {}
    for request in study.requests.values():
        trial, store, checksum = request.trial, request.store, checksums[request.store]
        if not trial.in_minibatches:
            continue
        pilot, evaluation = pilot_key(trial, checksum), evaluation_key(trial, checksum)
        if (pilot, evaluation) not in evaluations:
            stepping, both = neutral(trial, PILOT), neutral(trial, PILOT | EVALUATION)
            window = Work(pilot, WINDOW_PART, stepping, store, checksum, pilot)
            windows.setdefault(pilot, window)
            work = Work(evaluation, EVALUATION_PART, both, store, checksum, pilot)
            evaluations[pilot, evaluation] = work
    return [*windows.values(), *evaluations.values()]


def missing(
    works: Iterable[Work], pilots: Mapping[str, Pilot], failed: Collection[str] = ()
) -> list[Work]:
    """Pilots still to be measured, validation and test once for all that evaluate alike, unless
    every one of them has run out of memory. failed: keys that are not to be tried."""
    found: dict[str, Work] = {}
    for work in works:
        pilot = pilots.get(work.pilot)
        ended = pilot is not None and pilot.status is Status.OUT_OF_MEMORY
        if not (work.key in pilots or ended or {work.key, work.pilot} & set(failed)):
            found.setdefault(work.key, work)
    return list(found.values())


def missing_of(study: Study) -> list[Work]:
    """Pending measurements of a study, given its results."""
    return missing(works_of(study), read_pilots(study.results, study.site.machine))
