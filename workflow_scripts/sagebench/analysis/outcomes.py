"""Reading a frozen study and what became of its trials."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sagebench.attempts import read_ended_attempts
from sagebench.errors import UserError
from sagebench.grid.configuration import validate
from sagebench.grid.expansion import expand
from sagebench.grid.site import validate_site
from sagebench.records import MEASURED_ENDS, Damaged, Outcome, Status, read_outcome


@dataclass(frozen=True)
class Record:
    """One trial of a study: what was asked for and, if there is one, its outcome.

    `status` is the outcome's. Without one it tells why there is none, `because` says so in a
    sentence, and `log` names the log of the last attempt, if any. `prediction` is what was
    predicted before it ran.
    """

    trial_id: str
    trial: dict[str, Any]
    experiments: tuple[str, ...]
    axes: tuple[str, ...]
    status: Status
    outcome: Outcome | None = None
    because: str | None = None
    log: str | None = None
    prediction: dict[str, Any] | None = None


def read_study(path: str | Path) -> dict[str, Any]:
    """The frozen study of `path`; UserError where that is not one."""
    study = _read_json(Path(path))
    if not isinstance(study, dict) or not {"study", "experiments"} <= study.keys():
        raise UserError(f"{path} is not a frozen study: give a file of results/<study>/frozen.")
    return study


def read_records(study: dict[str, Any], results: str | Path, partial: bool) -> list[Record]:
    """One record a trial, in the study's order; a trial of two experiments is one record.

    Without `partial`, a missing outcome is a UserError that says how many and which, and a damaged
    one names its file. A trial that the study left out, because it is predicted to go out of
    memory, is no record.
    """
    folder = Path(results) / "trials"
    values, left_out = _Values(study), _left_out(study, folder)
    records = [
        _record(folder / trial_id, trial_id, values, experiments)
        for trial_id, experiments in _memberships(study).items()
        if trial_id not in left_out
    ]
    if partial:
        return records
    damaged = [str(record.because) for record in records if record.status is Status.DAMAGED]
    if damaged:
        raise UserError("\n".join(damaged))
    missing = [record for record in records if record.outcome is None]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(records)} trials of {study['study']} have no outcome yet, "
            f"{missing[0].trial_id} first ({missing[0].because}): run the study again to get "
            "them, or give --partial to go on without."
        )
    return records


def not_run_records(study: dict[str, Any], results: str | Path) -> list[Record]:
    """The trials that the study left out, with the prediction that they do not fit."""
    folder, values = Path(results) / "trials", _Values(study)
    left_out = _left_out(study, folder)
    return [
        Record(
            trial_id,
            _trial(folder / trial_id / "trial.json", trial_id, values),
            tuple(name for name, _ in memberships),
            tuple(axis for _, axis in memberships),
            Status.SKIPPED,
            prediction={"model": left_out[trial_id]["model"], "memory": left_out[trial_id]},
        )
        for trial_id, memberships in _memberships(study).items()
        if trial_id in left_out
    ]


def _left_out(study: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What has an outcome all the same was run by another study, and counts."""
    return {
        trial_id: prediction
        for trial_id, prediction in study.get("skipped", {}).items()
        if not (folder / trial_id / "outcome.json").exists()
    }


def _memberships(study: dict[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """Trial -> (name, axis) of the experiments that ask for it."""
    memberships: dict[str, list[tuple[str, str]]] = {}
    for experiment in study["experiments"]:
        for trial_id in experiment["trials"]:
            entry = (experiment["name"], experiment["axis"])
            memberships.setdefault(trial_id, []).append(entry)
    return memberships


class _Values:
    """The values of trials that have not started: the study is expanded again, if at all, once."""

    def __init__(self, study: dict[str, Any]) -> None:
        self.study = study

    @cached_property
    def _requests(self) -> dict[str, Any]:
        return expand(
            validate(self.study["configuration"]), validate_site(self.study["site"])
        ).requests

    def of(self, trial_id: str) -> dict[str, Any]:
        try:
            return self._requests[trial_id].trial.to_json()
        except KeyError:
            raise UserError(
                f"the study {self.study['study']} was frozen by another version of sagebench: "
                f"its trial {trial_id} has no trial.json, run the study again."
            ) from None


def _record(
    folder: Path,
    trial_id: str,
    values: _Values,
    memberships: list[tuple[str, str]],
) -> Record:
    experiments = tuple(name for name, _ in memberships)
    axes = tuple(axis for _, axis in memberships)
    frozen, path = folder / "trial.json", folder / "outcome.json"
    if path.exists():
        try:
            outcome = read_outcome(path, trial_id)
        except Damaged as error:
            trial = _trial(frozen, trial_id, values)
            return Record(trial_id, trial, experiments, axes, Status.DAMAGED, because=str(error))
        return Record(
            trial_id,
            outcome.trial,
            experiments,
            axes,
            outcome.status,
            outcome,
            prediction=_prediction(folder / "prediction.json", outcome),
        )
    trial = _trial(frozen, trial_id, values)
    status, because, log = _why_missing(folder)
    return Record(trial_id, trial, experiments, axes, status, None, because, log)


def _trial(frozen: Path, trial_id: str, values: _Values) -> dict[str, Any]:
    return _read_json(frozen) if frozen.exists() else values.of(trial_id)


def _prediction(path: Path, outcome: Outcome) -> dict[str, Any] | None:
    """What was predicted of a trial before it ran, if it was of the store that it ran on."""
    if not path.exists():
        return None
    prediction = _read_json(path)
    checksum = outcome.store.checksum if outcome.store else None
    return prediction if prediction.get("store_checksum") == checksum else None


def _why_missing(folder: Path) -> tuple[Status, str, str | None]:
    """Status, sentence and log of a trial without an outcome, from its attempts so far."""
    attempts = read_ended_attempts(folder)
    if not attempts:
        return Status.NOT_FINISHED, "no attempt has ended: not started, or running", None
    last = attempts[-1]
    named = f"attempt {last.attempt}"
    if last.status in MEASURED_ENDS:
        return Status.OUTCOME_REMOVED, f"{named} ended ({last.status}), its outcome is gone", None
    if last.status is Status.CONTINUES:
        return Status.TO_BE_CONTINUED, f"{named} left a checkpoint to go on from", None
    status = Status.INTERRUPTED if last.status is Status.INTERRUPTED else Status.FAILED
    sentence = f"{named} {status}"
    return status, f"{sentence}, {last.why}" if last.why else sentence, last.log


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path} does not exist.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not readable JSON ({error}).") from None
