"""Which outcomes to measure again, on purpose, and how they are set aside and not lost."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from sagebench.errors import UserError
from sagebench.grid import messages
from sagebench.grid.expansion import Study
from sagebench.grid.freeze import outcome_path
from sagebench.records import MEASURED_ENDS, Damaged, Outcome, Status, read_outcome

KEYS = ("status", "experiment", "commit", "digest", "trial")
EXAMPLE = "status=out_of_memory or experiment=batch,commit=1a2b3c"
STATUSES = (*MEASURED_ENDS, Status.DAMAGED)
"""what an outcome may be; a failed trial has none and runs again by itself"""
SHORTEST_PREFIX = 4


@dataclass(frozen=True)
class Match:
    """An outcome that the conditions hold for."""

    trial: str
    path: Path
    status: Status


def parse_where(text: str) -> dict[str, str]:
    """ "status=diverged,experiment=batch" as a mapping; raises UserError for anything else."""
    conditions: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not value:
            raise UserError(f"WHERE holds {part!r}: write key=value, e.g. {EXAMPLE}.")
        if key not in KEYS:
            raise UserError(messages.unknown_key("WHERE", key, value, KEYS))
        if key in conditions:
            raise UserError(
                f"WHERE holds {key} twice: write it once; conditions are joined by and."
            )
        conditions[key] = value
    if not conditions:
        raise UserError(f"WHERE is empty: write which outcomes to measure again, e.g. {EXAMPLE}.")
    return conditions


def matches(study: Study, conditions: Mapping[str, str]) -> Iterator[Match]:
    """The study's outcomes that all `conditions` hold for.

    status is one of STATUSES; commit and digest by their beginning, of four characters at
    least; trial may hold the wildcards * and ?. Raises UserError for an experiment that the study
    does not have.
    """
    status = conditions.get("status")
    if status is not None and status not in STATUSES:
        raise UserError(messages.sentence("WHERE.status", status, " or ".join(STATUSES)))
    wanted = conditions.get("experiment")
    trials = {e.name: e.trials for e in study.experiments}
    if wanted is not None and wanted not in trials:
        raise UserError(messages.sentence("WHERE.experiment", wanted, " or ".join(trials)))
    for key in ("commit", "digest"):
        if 0 < len(conditions.get(key, "").removeprefix("sha256:")) < SHORTEST_PREFIX:
            longer = f"at least its first {SHORTEST_PREFIX} characters"
            raise UserError(messages.sentence(f"WHERE.{key}", conditions[key], longer))
    for trial_id in study.requests if wanted is None else trials[wanted]:
        path = Path(outcome_path(study.results, trial_id))
        if not fnmatchcase(trial_id, conditions.get("trial", "*")) or not path.exists():
            continue
        try:
            outcome = read_outcome(path, trial_id)
        except Damaged:
            if status != Status.DAMAGED:
                raise
            if not {"commit", "digest"} & conditions.keys():  # nobody can tell them
                yield Match(trial_id, path, Status.DAMAGED)
            continue
        if _holds(outcome, conditions):
            yield Match(trial_id, path, outcome.status)


def set_aside(match: Match) -> Path:
    """Move an outcome to superseded/1.json, 2.json, .. beside it; the next run measures again."""
    folder = match.path.parent / "superseded"
    folder.mkdir(exist_ok=True)
    number = 1
    while True:
        target = folder / f"{number}.json"
        try:
            os.link(match.path, target)  # unlike a rename, it never takes another one's name
        except FileExistsError:
            number += 1
            continue
        match.path.unlink()
        return target


def _holds(outcome: Outcome, conditions: Mapping[str, str]) -> bool:
    provenance = outcome.provenance
    if conditions.get("status", outcome.status) != outcome.status:
        return False
    return all(
        _begins(provenance.get(recorded), conditions[key])
        for key, recorded in (("commit", "git_commit"), ("digest", "image_digest"))
        if key in conditions
    )


def _begins(recorded: Any, wanted: str) -> bool:
    """Whether a recorded hash begins so, with or without "sha256:"; "none": none was recorded."""
    if wanted == "none":
        return recorded is None
    return str(recorded or "").removeprefix("sha256:").startswith(wanted.removeprefix("sha256:"))
