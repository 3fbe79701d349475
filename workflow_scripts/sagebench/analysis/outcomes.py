"""Reading a frozen study and what became of its trials."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sagebench.errors import UserError
from sagebench.grid.configuration import validate
from sagebench.grid.expansion import expand
from sagebench.grid.site import validate_site

SCHEMA = 1
STATUSES = ("completed", "out_of_memory", "time_limit", "diverged")
"""The measured results; everything else is missing."""

MISSING_STATUSES = ("failed", "interrupted", "outcome_removed", "not_finished")


@dataclass(frozen=True)
class Record:
    """One trial of a study: what was asked for and, if there is one, its outcome.

    `status` is one of STATUSES or, without an outcome, of MISSING_STATUSES; then `because` says
    why in a sentence, and `log` names the log of the last attempt, if any.
    """

    trial_id: str
    trial: dict[str, Any]
    experiments: tuple[str, ...]
    axes: tuple[str, ...]
    status: str
    outcome: dict[str, Any] | None = None
    because: str | None = None
    log: str | None = None


def read_study(path: str | Path) -> dict[str, Any]:
    """The frozen study of `path`; UserError where that is not one."""
    study = _read_json(Path(path))
    if not isinstance(study, dict) or not {"study", "experiments"} <= study.keys():
        raise UserError(f"{path} is not a frozen study: give a file of results/<study>/frozen.")
    return study


def read_records(study: dict[str, Any], results: str | Path, partial: bool) -> list[Record]:
    """One record a trial, in the study's order; a trial of two experiments is one record.

    Without `partial`, a missing outcome is a UserError that says how many and which.
    """
    folder = Path(results) / "trials"
    memberships: dict[str, list[tuple[str, str]]] = {}
    for experiment in study["experiments"]:
        for trial_id in experiment["trials"]:
            entry = (experiment["name"], experiment["axis"])
            memberships.setdefault(trial_id, []).append(entry)
    values = _Values(study)
    records = [
        _record(folder / trial_id, trial_id, values, experiments, partial)
        for trial_id, experiments in memberships.items()
    ]
    missing = [record for record in records if record.outcome is None]
    if missing and not partial:
        raise UserError(
            f"{len(missing)} of {len(records)} trials of {study['study']} have no outcome yet, "
            f"{missing[0].trial_id} first ({missing[0].because}): run the study again to get "
            "them, or give --partial to go on without."
        )
    return records


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
    partial: bool,
) -> Record:
    experiments = tuple(name for name, _ in memberships)
    axes = tuple(axis for _, axis in memberships)
    frozen, path = folder / "trial.json", folder / "outcome.json"
    if path.exists():
        try:
            outcome = _check(path, trial_id, _read_json(path))
        except UserError as error:
            if not partial:
                raise
            trial = _read_json(frozen) if frozen.exists() else values.of(trial_id)
            return Record(trial_id, trial, experiments, axes, "failed", because=str(error))
        return Record(trial_id, outcome["trial"], experiments, axes, outcome["status"], outcome)
    trial = _read_json(frozen) if frozen.exists() else values.of(trial_id)
    status, because, log = _why_missing(folder / "attempts.jsonl")
    return Record(trial_id, trial, experiments, axes, status, None, because, log)


def _check(path: Path, trial_id: str, outcome: Any) -> dict[str, Any]:
    if not isinstance(outcome, dict) or outcome.get("schema") != SCHEMA:
        raise UserError(f"{path} is not an outcome of schema {SCHEMA}: delete it and run again.")
    if outcome.get("trial_id") != trial_id:
        raise UserError(
            f"{path} belongs to trial {outcome.get('trial_id')}, not to {trial_id}: put it back "
            "into its own folder, or delete it and run again."
        )
    if outcome.get("status") not in STATUSES:
        raise UserError(f"{path} has the unknown status {outcome.get('status')!r}.")
    return outcome


def _why_missing(path: Path) -> tuple[str, str, str | None]:
    """Status, sentence and log of a trial without an outcome, from its attempts so far."""
    attempts = read_attempts(path)
    if not attempts:
        return "not_finished", "no attempt has ended: not started, or running", None
    last = attempts[-1]
    number, status = last.get("attempt", len(attempts)), last.get("status")
    if status in STATUSES:
        return "outcome_removed", f"attempt {number} ended ({status}), its outcome is gone", None
    reason = last.get("reason") or {}
    parts = [f"attempt {number} {status}"]
    if last.get("exit_code") is not None:
        parts.append(f"exit code {last['exit_code']}")
    if reason.get("rank") is not None:
        parts.append(f"rank {reason['rank']}")
    if reason.get("phase"):
        parts.append(str(reason["phase"]))
    sentence = ", ".join(parts) + (f": {reason['message']}" if reason.get("message") else "")
    return ("interrupted" if status == "interrupted" else "failed"), sentence, last.get("log")


def read_attempts(path: Path) -> list[dict[str, Any]]:
    """The attempts of a trial, oldest first; a last line cut short by a crash is left out."""
    if not path.exists():
        return []
    attempts = []
    for line in path.read_text(errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(entry, dict):
            attempts.append(entry)
    return attempts


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path} does not exist.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not readable JSON ({error}).") from None
