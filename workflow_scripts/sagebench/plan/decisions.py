"""Decisions of a plan (skips, walltimes, budget), in results/STUDY/plan.json, which Snakemake
reads where it parses. Standard library only; no model is run.

plan.json: {"format", "inputs", "skipped": {trial id: figures}, "runtime_min": {trial id: minutes},
"node_hours", "refusal": text or null}. It is fresh as long as the study, its probes and its pilots
are what it was made from; outcomes do not count.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sagebench.attempts import read_ended_attempts
from sagebench.errors import UserError
from sagebench.files import read_object, write_json
from sagebench.grid.expansion import Study
from sagebench.grid.freeze import outcome_path
from sagebench.grid.trial import digest
from sagebench.records import FromJson

FORMAT = 1


@dataclass(frozen=True)
class Decisions(FromJson):
    """skipped: trials that will not fit, with what was estimated of them. runtime_min: what a
    trial's first job asks for, where that is less than its walltime. refusal: why a run must not
    begin, for its budget."""

    inputs: str
    skipped: dict[str, dict[str, Any]]
    runtime_min: dict[str, int]
    node_hours: float
    refusal: str | None = None
    format: int = FORMAT


def plan_path(study: Study) -> Path:
    return Path(study.results, study.name, "plan.json")


def has_guards(study: Study) -> bool:
    """Whether its configuration leaves anything to a plan."""
    configuration = study.configuration
    return (
        configuration.skip_predicted_out_of_memory
        or configuration.walltime_from_prediction is not None
        or configuration.budget_node_hours is not None
    )


def write_decisions(study: Study, decisions: Decisions) -> None:
    write_json(plan_path(study), asdict(decisions))


def fresh_decisions(study: Study) -> Decisions | None:
    """Those of the study's plan; None where there is none, or it was made from something else."""
    found = read_object(plan_path(study))
    if found is None or found.get("format") != FORMAT or found.get("inputs") != inputs(study):
        return None
    try:
        return Decisions.from_json(found)
    except TypeError:  # keys are missing
        return None


def inputs(study: Study) -> str:
    """Hexadecimal digits that change with whatever a plan is made from, outcomes apart."""
    site, configuration = study.site.model_dump(mode="json"), study.configuration.complete()
    asked = [configuration, site, sorted(study.requests), model_version()]
    content = hashlib.sha256(digest(asked, 16).encode())
    probes = [Path(study.results, "probes", f"{store}.json") for store in sorted(study.stores)]
    pilots = sorted(Path(study.results, "pilots", study.site.machine).glob("*.json"))
    for path in (*filter(Path.exists, probes), *pilots):
        content.update(path.name.encode())
        content.update(path.read_bytes())
    return content.hexdigest()[:16]


def model_version() -> str:
    """Ten hexadecimal digits that change with the code of the estimates."""
    code, library = hashlib.sha256(), Path(__file__).parents[1]
    for pattern in ("estimate/*.py", "pilot/costs.py", "pilot/records.py", "plan/forecast.py"):
        for path in sorted(library.glob(pattern)):
            code.update(path.read_bytes())
    return code.hexdigest()[:10]


def guarded(study: Study) -> Study:
    """The study with what its fresh plan decides; as it is where there is none."""
    decisions = fresh_decisions(study) if has_guards(study) else None
    return study if decisions is None else applied(decisions, study)


def applied(decisions: Decisions, study: Study) -> Study:
    """The study with the trials that are not run, and the runtimes that jobs ask for. What has an
    outcome is left as it is."""

    def is_open(trial_id: str) -> bool:
        return not Path(outcome_path(study.results, trial_id)).exists()

    skipped = {name: figures for name, figures in decisions.skipped.items() if is_open(name)}
    requests = dict(study.requests)
    for name, minutes in decisions.runtime_min.items():
        attempts = read_ended_attempts(Path(outcome_path(study.results, name)).parent)
        too_short = any(attempt.predicted_walltime_too_short for attempt in attempts)
        if is_open(name) and not too_short:
            requests[name] = replace(requests[name], runtime_min=minutes)
    return replace(study, requests=requests, skipped=skipped)


def check_decisions(study: Study) -> None:
    """Before a run's first job: raises UserError where the study's guards have no fresh plan, or
    the plan refuses the run for its budget."""
    if not has_guards(study):
        return
    decisions, path = fresh_decisions(study), plan_path(study)
    if decisions is None:
        lacks = "is of another study, probe or pilot" if path.exists() else "is not there"
        raise UserError(
            f"{study.name} leaves trials, walltimes or a budget to its plan, and {path} {lacks}: "
            "call `make plan` (or Snakemake as now, with the target `plan`), and then this again; "
            "`make run` does both"
        )
    if decisions.refusal:
        raise UserError(decisions.refusal)
