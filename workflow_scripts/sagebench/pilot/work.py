"""What of a study's configurations is to be measured: those without a pilot, or an evaluation."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from sagebench.files import read_object
from sagebench.grid.expansion import Study
from sagebench.grid.freeze import manifest_path
from sagebench.grid.trial import Trial
from sagebench.pilot.records import (
    EVALUATED,
    EVALUATION_PART,
    WINDOW_PART,
    Pilot,
    evaluation_key,
    pilot_key,
    pilot_trial,
    read_evaluations,
    read_pilots,
)
from sagebench.records import Status


@dataclass(frozen=True)
class Configuration:
    """Trials that cost the same. trial: the one to run for them. store: its folder's name."""

    trial: Trial
    store: str
    store_checksum: str
    pilot: str
    evaluation: str


@dataclass(frozen=True)
class Work:
    """What one process is to measure of a configuration. parts: the files that it leaves."""

    configuration: Configuration
    parts: tuple[str, ...]

    @property
    def name(self) -> str:
        """The folder of its attempts."""
        measured = self.configuration
        return measured.pilot if WINDOW_PART in self.parts else measured.evaluation


def configurations(study: Study) -> list[Configuration]:
    """The distinct ones of the study, in its order; a store that is not built has no checksum."""
    checksums = {
        store: (read_object(Path(manifest_path(study.results, store))) or {}).get("checksum", "")
        for store in study.stores
    }
    found: dict[tuple[str, str], Configuration] = {}
    for request in study.requests.values():
        trial, checksum = request.trial, checksums[request.store]
        keys = pilot_key(trial, checksum), evaluation_key(trial, checksum)
        if keys not in found:
            evaluated = {name: getattr(trial, name) for name in EVALUATED}
            run = replace(pilot_trial(trial), **evaluated)
            found[keys] = Configuration(run, request.store, checksum, *keys)
    return list(found.values())


def missing(
    wanted: Iterable[Configuration],
    pilots: Mapping[str, Pilot],
    evaluations: Collection[str],
    failed: Collection[str] = (),
) -> list[Work]:
    """What is to be measured yet. evaluations, failed: keys that are there, or not to be tried.

    The first pilot of a set that evaluates alike takes the evaluation along. Where all of a set
    have run out of memory, no trial will come to one.
    """
    wanted = list(wanted)
    done = {*pilots, *evaluations, *failed}
    works = []
    for one in wanted:
        if one.pilot not in done:
            parts = (WINDOW_PART,) if one.evaluation in done else (WINDOW_PART, EVALUATION_PART)
            works.append(Work(one, parts))
            done |= {one.pilot, one.evaluation}
    for one in wanted:
        measured = one.pilot in pilots and pilots[one.pilot].status is Status.COMPLETED
        if measured and one.evaluation not in done:
            works.append(Work(one, (EVALUATION_PART,)))
            done.add(one.evaluation)
    return works


def missing_of(study: Study) -> list[Work]:
    """What is to be measured yet of a study, by what its results hold."""
    pilots = read_pilots(study.results, study.site.machine)
    evaluations = read_evaluations(study.results, study.site.machine)
    return missing(configurations(study), pilots, evaluations)
