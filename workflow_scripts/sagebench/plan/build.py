"""From a study to the rows of its plan, and to what the plan decides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from sagebench.estimate.memory import NO_FIT
from sagebench.estimate.time import steps_per_epoch
from sagebench.grid.expansion import Request, Study
from sagebench.grid.freeze import outcome_path
from sagebench.grid.resources import Geometry, geometry
from sagebench.plan.budget import refusal
from sagebench.plan.decisions import Decisions, has_guards, inputs, model_version
from sagebench.plan.forecast import Forecast, Forecaster
from sagebench.plan.record import memory_figures
from sagebench.plan.rows import ASKED, MEASURED, PREDICTED, PlanRow, distinct, total
from sagebench.records import Damaged, Outcome, Status, Timing, read_outcome

START_UP_MIN = 2.0
"""minutes of a job beside its trial: the container's start, and writing the outcome"""


def plan_rows(study: Study, forecaster: Forecaster | None = None) -> list[PlanRow]:
    """One row for each experiment and trial; an experiment's trial may be another one's too."""
    forecaster = forecaster or Forecaster(study)
    rows = {trial_id: _row(study, trial_id, forecaster) for trial_id in study.requests}
    return [
        rows[trial_id]._replace(experiment=experiment.name)
        for experiment in study.experiments
        for trial_id in experiment.trials
    ]


def _row(study: Study, trial_id: str, forecaster: Forecaster) -> PlanRow:
    request = study.requests[trial_id]
    trial, place = request.trial, geometry(request.trial.ranks, study.site)
    probe = forecaster.probes.get(request.store)
    path, outcome, status = Path(outcome_path(study.results, trial_id)), None, None
    if path.exists():
        try:
            outcome = read_outcome(path, trial_id)
            status = outcome.status
        except Damaged:
            status = Status.DAMAGED
    forecast = Forecast() if outcome else forecaster.of(request)
    skipped = outcome is None and trial_id in study.skipped
    hours, low, high = _hours(request, forecast)
    if outcome or skipped:
        hours = low = high = 0.0
    return PlanRow(
        experiment="",
        trial=trial_id,
        engine=trial.engine if trial.in_minibatches else trial.method,
        batch_size=trial.batch_size,
        accumulation=trial.accumulation,
        fanout=str(trial.fanout),
        seed=trial.seed,
        ranks=trial.ranks,
        nodes=place.nodes,
        source=MEASURED if outcome else ASKED if forecast.total_s is None else PREDICTED,
        status=status,
        skipped=skipped,
        continues=request.continues,
        walltime_h=request.walltime_min / 60,
        first_job_h=(request.runtime_min or request.walltime_min) / 60,
        hours_used=trial.ranks * hours,
        hours_used_low=trial.ranks * low,
        hours_used_high=trial.ranks * high,
        hours_allocated=place.devices_allocated * hours,
        node_hours=_node_hours(study, place, hours),
        steps_per_epoch=steps_per_epoch(trial, probe.graph) if probe and trial.in_minibatches else None,
        **(_of_outcome(outcome) if outcome else _of_forecast(forecast, hours)),
    )


def _hours(request: Request, forecast: Forecast) -> tuple[float, float, float]:
    """Of one rank, with the ends of its interval: as predicted, but not beyond the walltime, which
    ends a trial; else the walltime."""
    asked = request.walltime_min / 60
    if forecast.time is None or forecast.total_s is None:
        return asked, asked, asked
    longest = float("inf") if request.continues else asked
    hours, took = forecast.total_s / 3600, forecast.time
    low, high = (hours * end / took.epoch_s for end in (took.low_s, took.high_s))
    return min(hours, longest), min(low, longest), min(high, longest)


def _node_hours(study: Study, place: Geometry, hours: float) -> float:
    """Where nodes are shared, the devices' part of them; nothing runs beside a trial that has no
    scheduler."""
    if study.site.launcher == "local":
        return hours * place.nodes
    return hours * place.devices_allocated / study.site.devices_per_node


def _of_outcome(outcome: Outcome) -> dict[str, object]:
    timing, accuracy = outcome.timing or Timing(), outcome.accuracy
    total_s = timing.total_s  # of all its jobs; the dates are those of the last one
    if total_s is None and outcome.started_at and outcome.finished_at:
        began, ended = map(datetime.fromisoformat, (outcome.started_at, outcome.finished_at))
        total_s = (ended - began).total_seconds()
    return {
        "peak_memory_bytes": outcome.peak_memory_bytes,
        "epoch_s": timing.epoch_median_s or timing.first_epoch_s,
        "total_h": None if total_s is None else total_s / 3600,
        "test_accuracy": accuracy and (accuracy.test_full or accuracy.test_sampled),
    }


def _of_forecast(forecast: Forecast, hours: float) -> dict[str, object]:
    """hours: of one rank, still to be spent."""
    if not forecast.is_known:
        return {}
    memory, took, sample = forecast.memory, forecast.time, forecast.sample
    values: dict[str, object] = {
        "fits": forecast.fits,
        "memory_limit": forecast.memory_limit,
        "out_of_memory_chance": forecast.out_of_memory_chance,
        "sampled": sample and f"{sample.batches} micro-batches",
        "pilot_memory_bytes": forecast.pilot and forecast.pilot.peak_memory_bytes,
    }
    if memory is not None:
        values |= {
            "peak_memory_low_bytes": memory.low_bytes,
            "peak_memory_bytes": memory.peak_bytes,
            "peak_memory_high_bytes": memory.high_bytes,
            "needed_memory_bytes": memory.needed_bytes,
            "memory_limit_bytes": memory.limit_bytes,
        }
    if took is not None:
        values |= {
            "epoch_s": took.epoch_s,
            "epoch_low_s": took.low_s,
            "epoch_high_s": took.high_s,
            "total_h": None if forecast.total_s is None else forecast.total_s / 3600,
            "time_source": took.source,
            "time_basis": took.basis,
        }
    if forecast.energy_j is not None and forecast.total_s and hours:
        values |= {
            "energy_kj": forecast.energy_j / 1000 * min(1.0, 3600 * hours / forecast.total_s),
            "energy_source": forecast.energy_source,
        }
    return values


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
