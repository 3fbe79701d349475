"""Decisions of a plan: trials that will not fit, walltimes, and the budget, in
results/STUDY/plan.json, which Snakemake reads where it parses; no model is run there.

plan.json: {"format", "inputs", "skipped": {trial id: figures}, "runtime_min": {trial id: minutes},
"node_hours", "refusal": text or null}. It is fresh as long as the study, its probes and its pilots
are what it was made from; outcomes do not count.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sagebench.attempts import read_ended_attempts
from sagebench.errors import UserError
from sagebench.estimate.memory import NO_FIT
from sagebench.files import read_object
from sagebench.grid.expansion import Request, Study
from sagebench.grid.freeze import outcome_path
from sagebench.grid.trial import digest
from sagebench.plan.forecast import Forecast, Forecaster, model_version
from sagebench.plan.rows import PlanRow, distinct, total_of
from sagebench.records import FromJson
from sagebench.units import hours_text

FORMAT = 1
START_UP_MIN = 2.0
"""minutes of a job beside its trial: the container's start, and writing the outcome"""
DROPS_NAMED = 5


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


def fresh_decisions(study: Study) -> Decisions | None:
    """Decisions of the study's plan; None without one, or where it was made from something else."""
    found = read_object(plan_path(study))
    if found is None or found.get("format") != FORMAT or found.get("inputs") != inputs(study):
        return None
    try:
        return Decisions.from_json(found)
    except TypeError:  # edited by hand
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


def decide(study: Study, forecaster: Forecaster) -> Decisions:
    """Skipped trials and walltimes; the hours are those of the plan without what is skipped."""
    made_from, skipped, runtimes = inputs(study), {}, {}  # before any of it is read
    skips = study.configuration.skip_predicted_out_of_memory
    margin = study.configuration.walltime_from_prediction
    for trial_id, request in study.requests.items() if has_guards(study) else ():
        forecast = forecaster.of(request)
        if skips and forecast.fits == NO_FIT:
            skipped[trial_id] = {"model": model_version(), **forecast.memory_figures}
        elif margin is not None and (minutes := runtime(request, forecast, margin)) is not None:
            runtimes[trial_id] = minutes
    return Decisions(made_from, skipped, runtimes, node_hours=0.0)


def runtime(request: Request, forecast: Forecast, margin: float) -> int | None:
    """Minutes that the trial's first job asks for: margin times what is estimated, but no less than
    the end of its interval. None: its walltime."""
    if forecast.time is None or forecast.total_s is None:
        return None
    high = forecast.time.high_s / forecast.time.epoch_s
    minutes = math.ceil(max(margin, high) * forecast.total_s / 60 + START_UP_MIN)
    return minutes if minutes < request.walltime_min else None


def over_budget(study: Study, rows: Sequence[PlanRow]) -> str | None:
    """A sentence where the trials still to run take more than budget_node_hours."""
    budget, found = study.configuration.budget_node_hours, total_of(rows)
    if budget is None or found.node_hours <= budget:
        return None
    asked = found.to_run - found.predicted
    basis = f"{asked} of {found.to_run} trials by their walltime_min, the others as predicted"
    if asked in (0, found.to_run):
        basis = "as asked for by walltime_min" if asked else "as predicted"
    return (
        f"The study takes {hours_text(found.node_hours)} node-hours ({basis}), "
        f"budget_node_hours is {budget:g}."
    )


def refusal(study: Study, rows: Sequence[PlanRow]) -> str | None:
    """Why a run must not begin: the sentence, what to drop for what saving, how to override."""
    sentence, rows = over_budget(study, rows), distinct(rows)
    if sentence is None:
        return None
    hours = total_of(rows).node_hours
    dropped = drops(rows, hours - study.configuration.budget_node_hours)
    lines = [
        f"  {hours_text(row.node_hours):>10}  {row.experiment}: {row.engine}, "
        f"batch {row.batch_size}x{row.accumulation}, fanout {row.fanout}, ranks {row.ranks}, "
        f"seed {row.seed}"
        for row in dropped[:DROPS_NAMED]
    ]
    if len(dropped) > DROPS_NAMED:
        others = dropped[DROPS_NAMED:]
        rest = hours_text(total_of(others).node_hours)
        lines.append(f"  {rest:>10}  {len(others)} more (plan.csv has all)")
    saved, enough = total_of(dropped).node_hours, f"budget_node_hours: {math.ceil(hours)}"
    lines.append(f"  {hours_text(saved):>10}  saved; {hours_text(hours - saved)} node-hours remain")
    listed = "\n".join(lines)
    return (
        f"{sentence[:-1]}: drop trials, or give it more.\n\n{listed}\n\n"
        f"Or override it: {enough} in the study (or --config {enough.replace(': ', '=')} for "
        "Snakemake, first with the target `plan`, which shows every trial)."
    )


def drops(rows: Sequence[PlanRow], saving: float) -> list[PlanRow]:
    """The fewest trials without which as many node-hours are saved: the most expensive first, and
    the last of them as cheap as suffices."""
    left, dropped = saving, []
    costly = sorted((row for row in rows if row.node_hours), key=lambda row: -row.node_hours)
    while left > 0 and costly:
        enough = [row for row in costly if row.node_hours >= left]
        row = enough[-1] if enough else costly[0]
        costly.remove(row)
        dropped.append(row)
        left -= row.node_hours
    return dropped
