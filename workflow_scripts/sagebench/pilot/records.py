"""Pilots: what a process measured of a configuration on a machine, in a file each, and which of a
study's are to be measured yet.

results/pilots/MACHINE/KEY.json is a `Pilot`: a few micro-steps, or, where KEY begins with
`evaluation-`, validation and test of the configurations that evaluate alike.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sagebench.files import read_object, write_json
from sagebench.grid.expansion import Study
from sagebench.grid.freeze import manifest_path
from sagebench.grid.trial import Trial
from sagebench.pilot.costs import (
    EVALUATION,
    EVALUATION_PART,
    PILOT,
    WINDOW_PART,
    evaluation_key,
    neutral,
    pilot_key,
)
from sagebench.records import FromJson, PeakBytes, Reason, Status

FORMAT = 1
STATUSES = (Status.COMPLETED, Status.OUT_OF_MEMORY)
"""the ends that are results; anything else is a failure, which leaves no record"""


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
        """By the counter of its device."""
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


@dataclass(frozen=True)
class Configuration:
    """Trials that cost the same. trial: the one to run for them. store: its folder's name. pilot,
    evaluation: keys of its records."""

    trial: Trial
    store: str
    store_checksum: str
    pilot: str
    evaluation: str


@dataclass(frozen=True)
class Work:
    """Measurements for one process on one configuration. part: the file that it leaves."""

    configuration: Configuration
    part: str

    @property
    def key(self) -> str:
        """Of its record, and the name of the folder of its attempts."""
        measured = self.configuration
        return measured.pilot if self.part == WINDOW_PART else measured.evaluation


def configurations(study: Study) -> list[Configuration]:
    """The distinct ones of the study, in its order; a store that is not built has no checksum."""
    checksums = {
        store: (read_object(Path(manifest_path(study.results, store))) or {}).get("checksum", "")
        for store in study.stores
    }
    found: dict[tuple[str, str], Configuration] = {}
    for request in study.requests.values():
        trial, checksum = request.trial, checksums[request.store]
        if not trial.in_minibatches:
            continue
        keys = pilot_key(trial, checksum), evaluation_key(trial, checksum)
        if keys not in found:
            run = neutral(trial, PILOT | EVALUATION)
            found[keys] = Configuration(run, request.store, checksum, *keys)
    return list(found.values())


def missing(
    wanted: Sequence[Configuration], pilots: Mapping[str, Pilot], failed: Collection[str] = ()
) -> list[Work]:
    """What is to be measured yet: first micro-steps, then once for all that evaluate alike
    validation and test, unless every one of them has run out of memory. failed: keys that are not
    to be tried."""
    works = [Work(one, WINDOW_PART) for one in wanted]
    for one in wanted:
        ended = one.pilot in pilots and pilots[one.pilot].status is Status.OUT_OF_MEMORY
        if one.pilot not in failed and not ended:
            works.append(Work(one, EVALUATION_PART))
    found: dict[str, Work] = {}
    for work in works:
        if work.key not in pilots and work.key not in failed:
            found.setdefault(work.key, work)
    return list(found.values())


def missing_of(study: Study) -> list[Work]:
    """Pending measurements of a study, given its results."""
    return missing(configurations(study), read_pilots(study.results, study.site.machine))
