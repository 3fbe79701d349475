"""From a study to the rows of its plan."""

from __future__ import annotations

from pathlib import Path

from sagebench.estimate.time import steps_per_epoch
from sagebench.grid.expansion import Request, Study
from sagebench.grid.freeze import outcome_path
from sagebench.grid.resources import Geometry
from sagebench.plan.forecast import Forecast, Forecaster
from sagebench.plan.past import Measured, measured_of
from sagebench.plan.rows import ASKED, MEASURED, PREDICTED, PlanRow
from sagebench.records import Damaged, Status, read_outcome


def plan_rows(study: Study, forecaster: Forecaster | None = None) -> list[PlanRow]:
    """One row for each experiment and trial; an experiment's trial may be another one's too."""
    forecaster = forecaster or Forecaster(study)
    rows: dict[str, PlanRow] = {}
    for experiment in study.experiments:
        for trial_id in experiment.trials:
            if trial_id not in rows:
                rows[trial_id] = _row(study, trial_id, forecaster)
    return [
        rows[trial_id]._replace(experiment=experiment.name)
        for experiment in study.experiments
        for trial_id in experiment.trials
    ]


def _row(study: Study, trial_id: str, forecaster: Forecaster) -> PlanRow:
    request = study.requests[trial_id]
    trial, place = request.trial, forecaster.place(request.trial.ranks)
    probe = forecaster.probes.get(request.store)
    measured, damaged = _measured(study, trial_id)
    forecast = None if measured else forecaster.of(request)
    skipped = measured is None and trial_id in study.skipped
    is_known = forecast is not None and forecast.total_s is not None
    hours, low, high = _hours(request, forecast)
    if measured or skipped:
        hours = low = high = 0.0
    allocated = place.devices_allocated * hours
    return PlanRow(
        experiment="",
        trial=trial_id,
        engine=trial.engine,
        batch_size=trial.batch_size,
        accumulation=trial.accumulation,
        fanout=str(trial.fanout),
        seed=trial.seed,
        ranks=trial.ranks,
        nodes=place.nodes,
        source=MEASURED if measured else PREDICTED if is_known else ASKED,
        status=measured.status if measured else Status.DAMAGED if damaged else None,
        skipped=skipped,
        continues=request.continues,
        walltime_h=request.walltime_min / 60,
        first_job_h=(request.runtime_min or request.walltime_min) / 60,
        hours_used=trial.ranks * hours,
        hours_used_low=trial.ranks * low,
        hours_used_high=trial.ranks * high,
        hours_allocated=allocated,
        node_hours=_node_hours(study, place, hours),
        steps_per_epoch=probe and steps_per_epoch(trial, probe.graph),
        **(_of_outcome(measured) if measured else _of_forecast(forecast, hours)),
    )


def _measured(study: Study, trial_id: str) -> tuple[Measured | None, bool]:
    """What is measured of a trial, and whether a damaged outcome is why that is nothing."""
    path = Path(outcome_path(study.results, trial_id))
    if not path.exists():
        return None, False
    try:
        return measured_of(read_outcome(path, trial_id)), False
    except Damaged:
        return None, True


def _hours(request: Request, forecast: Forecast | None) -> tuple[float, float, float]:
    """Of one rank, with the ends of its interval: as predicted, but not beyond the walltime, which
    ends a trial; else the walltime."""
    asked = request.walltime_min / 60
    if forecast is None or forecast.time is None or forecast.total_s is None:
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


def _of_outcome(measured: Measured) -> dict[str, object]:
    return {
        "peak_memory_bytes": measured.peak_memory_bytes,
        "epoch_s": measured.epoch_s,
        "total_h": measured.total_h,
        "test_accuracy": measured.test_accuracy,
    }


def _of_forecast(forecast: Forecast | None, hours: float) -> dict[str, object]:
    """hours: of one rank, still to be spent."""
    if forecast is None or not forecast.is_known:
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
            "time_basis": took.basis.value,
        }
    if forecast.energy_j is not None and forecast.total_s and hours:
        values |= {
            "energy_kj": forecast.energy_j / 1000 * min(1.0, 3600 * hours / forecast.total_s),
            "energy_source": forecast.energy_source,
        }
    return values
