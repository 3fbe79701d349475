"""What of a study's configurations is to be measured: those without a pilot, or an evaluation."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sagebench.files import read_object
from sagebench.grid.expansion import Study
from sagebench.grid.freeze import manifest_path
from sagebench.grid.trial import Trial
from sagebench.pilot.costs import EVALUATION, PILOT, evaluation_key, neutral, pilot_key
from sagebench.pilot.records import EVALUATION_PART, WINDOW_PART, Pilot, read_pilots
from sagebench.records import Status


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
    """What is to be measured yet. failed: keys that are not to be tried.

    The first pilot of a set that evaluates alike takes the evaluation along. Where all of a set
    have run out of memory, no trial will come to one.
    """
    done = {*pilots, *failed}
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
    return missing(configurations(study), read_pilots(study.results, study.site.machine))
