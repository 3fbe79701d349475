"""From estimates and the rows of a plan to what it decides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from sagebench.estimate.memory import NO_FIT
from sagebench.grid.expansion import Request, Study
from sagebench.plan.budget import refusal
from sagebench.plan.decisions import Decisions, has_guards, inputs, model_version
from sagebench.plan.forecast import Forecast, Forecaster
from sagebench.plan.record import memory_figures
from sagebench.plan.rows import PlanRow, distinct, total

START_UP_MIN = 2.0
"""minutes of a job beside its trial: the container's start, and writing the outcome"""


def decide(study: Study, forecaster: Forecaster) -> Decisions:
    """What is not run, and what jobs ask for; `with_hours` adds the budget."""
    made_from, skipped, runtimes = inputs(study), {}, {}  # before any of it is read
    skips = study.configuration.skip_predicted_out_of_memory
    margin = study.configuration.walltime_from_prediction
    for trial_id, request in study.requests.items() if has_guards(study) else ():
        forecast = forecaster.of(request)
        if skips and forecast.fits == NO_FIT:
            skipped[trial_id] = {"model": model_version(), **memory_figures(forecast)}
        elif margin is not None and (minutes := runtime(request, forecast, margin)) is not None:
            runtimes[trial_id] = minutes
    return Decisions(made_from, skipped, runtimes, node_hours=0.0)


def with_hours(decisions: Decisions, study: Study, rows: Sequence[PlanRow]) -> Decisions:
    """rows: of the study without what is skipped."""
    hours = total("", distinct(rows)).node_hours
    return replace(decisions, node_hours=hours, refusal=refusal(study, rows))


def runtime(request: Request, forecast: Forecast, margin: float) -> int | None:
    """Minutes that the trial's first job asks for: margin times what is estimated, but no less than
    the end of its interval. None: its walltime."""
    if forecast.time is None or forecast.total_s is None:
        return None
    high = forecast.time.high_s / forecast.time.epoch_s
    minutes = math.ceil(max(margin, high) * forecast.total_s / 60 + START_UP_MIN)
    return minutes if minutes < request.walltime_min else None
