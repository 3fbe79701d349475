"""Select trials of a study to rerun: move their outcomes aside.

Nothing is lost: an outcome moves to superseded/1.json, 2.json, .. beside it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from sagebench.errors import UserError, run_script
from sagebench.grid.expansion import Study
from sagebench.grid.freeze import outcome_path, study_of, study_parser
from sagebench.grid.values import sentence, unknown_key
from sagebench.records import MEASURED_ENDS, Damaged, Status, read_outcome

KEYS = ("status", "experiment", "trial")
EXAMPLE = "status=out_of_memory,experiment=batch"
STATUSES = (*MEASURED_ENDS, Status.DAMAGED)
"""what an outcome may be; a failed trial has none and runs again by itself"""


class Match(NamedTuple):
    """An outcome that the conditions hold for."""

    trial: str
    path: Path
    status: Status


def main() -> None:
    parser = study_parser(__doc__)
    parser.add_argument(
        "--where",
        required=True,
        help=f"conditions that must all hold, of {', '.join(KEYS)}; e.g. {EXAMPLE}; trial may hold "
        "the wildcards * and ?",
    )
    arguments = parser.parse_args()
    found = list(matches(study_of(arguments), parse_where(arguments.where)))
    if not found:
        raise UserError(f"no outcome of the study matches {arguments.where}: nothing to rerun.")
    for match in found:
        print(f"{match.trial} ({match.status}) -> {set_aside(match)}")
    print(f"{len(found)} trial{'s' * (len(found) > 1)} will be rerun by the next run.")


def parse_where(text: str) -> dict[str, str]:
    """ "status=diverged,experiment=batch" as a mapping; raises UserError for anything else."""
    conditions: dict[str, str] = {}
    for part in text.split(","):
        key, _, value = (piece.strip() for piece in part.partition("="))
        if not value or key in conditions:
            raise UserError(f"WHERE is {text!r}: write key=value, once a key, e.g. {EXAMPLE}.")
        if key not in KEYS:
            raise UserError(unknown_key(f"WHERE.{key}", key, value, KEYS))
        conditions[key] = value
    return conditions


def matches(study: Study, conditions: Mapping[str, str]) -> Iterator[Match]:
    """The study's outcomes that all `conditions` hold for. Raises UserError for a status or an
    experiment that there is not."""
    trials = {experiment.name: experiment.trials for experiment in study.experiments}
    for key, known in (("status", STATUSES), ("experiment", trials)):
        if key in conditions and conditions[key] not in known:
            raise UserError(sentence(f"WHERE.{key}", conditions[key], " or ".join(known)))
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
    """Move an outcome to the first free name in superseded/ beside it."""
    folder = match.path.parent / "superseded"
    folder.mkdir(exist_ok=True)
    names = (folder / f"{number}.json" for number in itertools.count(1))
    return match.path.rename(next(name for name in names if not name.exists()))


if __name__ == "__main__":
    run_script(main)
