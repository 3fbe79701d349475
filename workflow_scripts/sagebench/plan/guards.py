"""What a study leaves to its plan: trials that will not fit, walltimes, and a budget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from sagebench.estimate.memory import NO_FIT
from sagebench.grid.expansion import Request, Study
from sagebench.plan.decisions import Decisions, has_guards, inputs, model_version
from sagebench.plan.forecast import Forecast, Forecaster
from sagebench.plan.rows import ASKED, PlanRow, Total, distinct
from sagebench.units import hours_text

START_UP_MIN = 2.0
"""minutes of a job beside its trial: the container's start, and writing the outcome"""
DROPS_NAMED = 5


def decide(study: Study, forecaster: Forecaster) -> Decisions:
    """Skipped trials and walltimes; `with_hours` adds the budget."""
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


def with_hours(decisions: Decisions, study: Study, rows: Sequence[PlanRow]) -> Decisions:
    """rows: of the study without what is skipped."""
    hours = Total("", distinct(rows)).node_hours
    return replace(decisions, node_hours=hours, refusal=refusal(study, rows))


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
    budget, rows = study.configuration.budget_node_hours, distinct(rows)
    found = Total("", rows)
    if budget is None or found.node_hours <= budget:
        return None
    asked = sum(row.source == ASKED and row.to_run for row in rows)
    basis = f"{asked} of {found.to_run} trials by their walltime_min, the others as predicted"
    if asked in (0, found.to_run):
        basis = "as asked for by walltime_min" if asked else "as predicted"
    return (
        f"The study takes {hours_text(found.node_hours)} node-hours ({basis}), "
        f"budget_node_hours is {budget:g}."
    )


def refusal(study: Study, rows: Sequence[PlanRow]) -> str | None:
    """Why a run must not begin: the sentence, what to drop for what saving, how to override."""
    sentence = over_budget(study, rows)
    if sentence is None:
        return None
    hours = sum(row.node_hours for row in distinct(rows))
    dropped = drops(distinct(rows), hours - study.configuration.budget_node_hours)
    named, others = dropped[:DROPS_NAMED], dropped[DROPS_NAMED:]
    lines = [
        (
            row.node_hours,
            f"{row.experiment}: {row.engine}, batch {row.batch_size}x{row.accumulation}, "
            f"fanout {row.fanout}, ranks {row.ranks}, seed {row.seed}",
        )
        for row in named
    ]
    saved, rest = (sum(row.node_hours for row in some) for some in (dropped, others))
    if others:
        lines.append((rest, f"{len(others)} more (plan.csv has all)"))
    lines.append((saved, f"saved; {hours_text(hours - saved)} node-hours remain"))
    listed = "\n".join(f"  {hours_text(node_hours):>10}  {what}" for node_hours, what in lines)
    enough = f"budget_node_hours: {math.ceil(hours)}"
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
