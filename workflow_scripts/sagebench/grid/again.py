"""Which outcomes to measure again, on purpose, and how they are set aside and not lost."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from sagebench.errors import UserError
from sagebench.grid import messages
from sagebench.grid.expansion import Study
from sagebench.grid.freeze import outcome_path
from sagebench.records import MEASURED_ENDS, Damaged, Status, read_outcome

KEYS = ("status", "experiment", "trial")
EXAMPLE = "status=out_of_memory,experiment=batch"
STATUSES = (*MEASURED_ENDS, Status.DAMAGED)
"""what an outcome may be; a failed trial has none and runs again by itself"""


@dataclass(frozen=True)
class Match:
    """An outcome that the conditions hold for."""

    trial: str
    path: Path
    status: Status


def parse_where(text: str) -> dict[str, str]:
    """ "status=diverged,experiment=batch" as a mapping; raises UserError for anything else."""
    conditions: dict[str, str] = {}
    for part in text.split(","):
        key, _, value = (piece.strip() for piece in part.partition("="))
        if not value or key in conditions:
            raise UserError(f"WHERE is {text!r}: write key=value, once a key, e.g. {EXAMPLE}.")
        if key not in KEYS:
            raise UserError(messages.unknown_key(f"WHERE.{key}", key, value, KEYS))
        conditions[key] = value
    return conditions


def matches(study: Study, conditions: Mapping[str, str]) -> Iterator[Match]:
    """The study's outcomes that all `conditions` hold for.

    status is one of STATUSES; trial may hold the wildcards * and ?. Raises UserError for an
    experiment that the study does not have.
    """
    trials = {experiment.name: experiment.trials for experiment in study.experiments}
    for key, known in (("status", STATUSES), ("experiment", trials)):
        if key in conditions and conditions[key] not in known:
            known_words = " or ".join(known)
            raise UserError(messages.sentence(f"WHERE.{key}", conditions[key], known_words))
    wanted = conditions.get("status")
    for trial_id in trials.get(conditions.get("experiment", ""), study.requests):
        path = Path(outcome_path(study.results, trial_id))
        if not fnmatchcase(trial_id, conditions.get("trial", "*")) or not path.exists():
            continue
        try:
            status = read_outcome(path, trial_id).status
        except Damaged:
            if wanted != Status.DAMAGED:
                raise
            status = Status.DAMAGED
        if wanted in (None, status):
            yield Match(trial_id, path, status)


def set_aside(match: Match) -> Path:
    """Move an outcome to superseded/1.json, 2.json, .. beside it; the next run measures again."""
    folder = match.path.parent / "superseded"
    folder.mkdir(exist_ok=True)
    for number in itertools.count(1):
        target = folder / f"{number}.json"
        with suppress(FileExistsError):
            os.link(match.path, target)  # unlike a rename, it never takes another one's name
            match.path.unlink()
            break
    return target
