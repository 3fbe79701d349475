"""Reader of a frozen study and the outcomes of its trials."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sagebench.attempts import read_ended_attempts
from sagebench.errors import UserError
from sagebench.files import read_object
from sagebench.grid.configuration import validate
from sagebench.grid.expansion import expand
from sagebench.grid.site import validate_site
from sagebench.grid.trial import INTRODUCTION_DEFAULTS
from sagebench.records import MEASURED_ENDS, Damaged, Outcome, Status, read_outcome


@dataclass(frozen=True)
class Record:
    """One trial of a study: what was asked for and, if there is one, its outcome.

    experiments, axes: joined by ;. status: the outcome's; without one it tells why there is none,
    `because` says so in a sentence, and `log` names the log of the last attempt, if any.
    prediction: made before it ran.
    """

    trial_id: str
    trial: dict[str, Any]
    experiments: str
    axes: str
    status: Status
    outcome: Outcome | None = None
    because: str | None = None
    log: str | None = None
    prediction: dict[str, Any] | None = None


def read_study(path: str | Path) -> dict[str, Any]:
    """The frozen study of `path`; UserError where that is not one."""
    study = read_object(Path(path))
    if study is None or not {"study", "experiments"} <= study.keys():
        raise UserError(f"{path} is not a frozen study: give a file of results/<study>/frozen.")
    return study


def read_records(study: dict[str, Any], results: str | Path, partial: bool) -> list[Record]:
    """One record a trial, in the study's order; a trial of two experiments is one record.

    Without `partial`, a missing outcome is a UserError that says how many and which, and a damaged
    one names its file; a trial that the study left out misses nothing.
    """
    memberships: dict[str, list[tuple[str, str]]] = {}
    for experiment in study["experiments"]:
        for trial_id in experiment["trials"]:
            entry = (experiment["name"], experiment["axis"])
            memberships.setdefault(trial_id, []).append(entry)
    requests = cache(
        lambda: expand(validate(study["configuration"]), validate_site(study["site"])).requests
    )
    records = []
    for trial_id, of in memberships.items():
        names, axes = (";".join(each) for each in zip(*of, strict=True))
        folder = Path(results, "trials", trial_id)
        found = _found(folder, study.get("skipped", {}).get(trial_id))
        if "trial" not in found:
            found["trial"] = _trial(folder / "trial.json", trial_id, study["study"], requests)
        # An older result lacks the keys that came later: it is what they stand for.
        found["trial"] = {**INTRODUCTION_DEFAULTS, **found["trial"]}
        records.append(Record(trial_id, experiments=names, axes=axes, **found))
    if not partial:
        _check_complete(study["study"], [one for one in records if one.status != Status.SKIPPED])
    return records


def _check_complete(study: str, records: list[Record]) -> None:
    damaged = [str(record.because) for record in records if record.status is Status.DAMAGED]
    if damaged:
        raise UserError("\n".join(damaged))
    missing = [record for record in records if record.outcome is None]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(records)} trials of {study} have no outcome yet, "
            f"{missing[0].trial_id} first ({missing[0].because}): run the study again to get "
            "them, or give --partial to continue without them."
        )


def _trial(
    frozen: Path, trial_id: str, study: str, requests: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """The values of a trial; those of one that has not started are in `requests`."""
    try:
        return read_object(frozen) or requests()[trial_id].trial.to_json()
    except KeyError:
        raise UserError(
            f"the study {study} was frozen by another version of sagebench: "
            f"its trial {trial_id} has no trial.json, run the study again."
        ) from None


def _found(folder: Path, skipped: dict[str, Any] | None) -> dict[str, Any]:
    """Fields of a record on how its trial ended. What has an outcome though it was left out was run
    by another study, and counts."""
    path = folder / "outcome.json"
    if path.exists():
        try:
            outcome = read_outcome(path, folder.name)
        except Damaged as error:
            return {"status": Status.DAMAGED, "because": str(error)}
        prediction = _prediction(folder / "prediction.json", outcome)
        trial, status = outcome.trial, outcome.status
        return {"trial": trial, "status": status, "outcome": outcome, "prediction": prediction}
    if skipped is not None:
        prediction = {"model": skipped["model"], "memory": skipped}
        return {"status": Status.SKIPPED, "prediction": prediction}
    status, because, log = _why_missing(folder)
    return {"status": status, "because": because, "log": log}


def _prediction(path: Path, outcome: Outcome) -> dict[str, Any] | None:
    """The prediction of a trial made before it ran, if it is for the store that it ran on."""
    prediction = read_object(path) or {}
    checksum = outcome.store.checksum if outcome.store else None
    return prediction if prediction.get("store_checksum") == checksum else None


def _why_missing(folder: Path) -> tuple[Status, str, str | None]:
    """Status, sentence and log of a trial without an outcome, from its attempts so far."""
    attempts = read_ended_attempts(folder)
    if not attempts:
        return Status.NOT_FINISHED, "no attempt has finished: not started, or still running", None
    last = attempts[-1]
    named = f"attempt {last.attempt}"
    if last.status in MEASURED_ENDS:
        return Status.OUTCOME_REMOVED, f"{named} ended ({last.status}), its outcome is gone", None
    if last.status is Status.CONTINUES:
        return Status.TO_BE_CONTINUED, f"{named} left a checkpoint to go on from", None
    status = Status.INTERRUPTED if last.status is Status.INTERRUPTED else Status.FAILED
    return status, ", ".join(filter(None, [f"{named} {status}", last.why])), last.log
