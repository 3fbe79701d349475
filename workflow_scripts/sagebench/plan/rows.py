"""Rows of the plan: hours, memory and energy of every trial, measured, estimated or requested."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from sagebench.estimate.time import steps_per_epoch
from sagebench.grid.expansion import Request, Study
from sagebench.grid.freeze import outcome_path
from sagebench.grid.site import geometry
from sagebench.grid.trial import Trial, unheeded
from sagebench.plan.forecast import Forecast, Forecaster
from sagebench.records import Accuracy, Damaged, Outcome, Status, read_outcome

MEASURED, PREDICTED, ASKED = "measured", "predicted", "asked for"
"""what a row's hours are: of an outcome; a model's; the walltime, where nothing was probed"""


class PlanRow(NamedTuple):
    """A trial of an experiment. What was not measured, and not predicted, is None.

    Hours, node-hours and energy are those still to be spent: nothing for what is measured or
    skipped. Memory is that of the fullest rank.
    """

    experiment: str
    trial: str
    engine: str
    batch_size: int | None
    accumulation: int | None
    fanout: str | None
    seed: int
    ranks: int
    nodes: int
    source: str  # MEASURED, PREDICTED or ASKED
    status: Status | None  # of the outcome; DAMAGED: not to be read, counts as not there
    skipped: bool  # predicted not to fit, and therefore not run
    continues: bool  # beyond its walltime, in another job
    walltime_h: float  # asked for
    first_job_h: float  # what its first job asks for: the walltime, or less by a prediction
    hours_used: float  # ranks x hours
    hours_used_low: float
    hours_used_high: float
    hours_allocated: float  # what is billed: on whole-node sites every device of the nodes
    node_hours: float
    steps_per_epoch: int | None  # of the optimizer, where the graph was probed
    peak_memory_bytes: float | None
    peak_memory_low_bytes: float | None
    peak_memory_high_bytes: float | None
    needed_memory_bytes: float | None  # the rest of the peak, the allocator only keeps
    memory_limit_bytes: float | None
    memory_limit: str | None  # what sets it, in words
    out_of_memory_chance: float | None
    fits: str | None  # FITS, TIGHT or NO_FIT, while it trains
    # Of a CPU rank over the whole graph; estimated no more, the columns stay for who reads them.
    evaluation_memory_bytes: None
    evaluation_out_of_memory_chance: None
    epoch_s: float | None
    epoch_low_s: float | None
    epoch_high_s: float | None
    total_h: float | None  # of the whole trial
    energy_kj: float | None  # of the devices
    energy_source: str | None
    time_source: str | None
    sampled: str | None  # of how many micro-batches the probe has the trial's sample
    test_accuracy: float | None
    time_basis: str | None  # a model's, measured steps, or outcomes
    pilot_memory_bytes: float | None  # the peak of some twenty measured steps

    @property
    def memory_bytes(self) -> float | None:
        """Memory to show: the measured peak, the estimated need, or what a pilot reached."""
        if self.measured:
            return self.peak_memory_bytes
        return self.needed_memory_bytes or self.pilot_memory_bytes

    @property
    def measured(self) -> bool:
        return self.source == MEASURED

    @property
    def to_run(self) -> bool:
        return not self.measured and not self.skipped


def plan_rows(study: Study, forecaster: Forecaster | None = None) -> list[PlanRow]:
    """One row for each experiment and trial; an experiment's trial may be another one's too."""
    forecaster = forecaster or Forecaster(study)
    rows = {trial_id: _row(study, trial_id, forecaster) for trial_id in study.requests}
    return [
        rows[trial_id]._replace(experiment=experiment.name)
        for experiment in study.experiments
        for trial_id in experiment.trials
    ]


def computes(trial: Trial) -> str:
    """Engine of a trial, and its model and sampler where they are others than sage and uniform; or
    its method; and what its options switch on."""
    others = [key for key in ("model", "sampler") if key in trial.identity()]
    what = trial.engine if trial.in_minibatches else trial.method
    said = [what, *(str(getattr(trial, key)) for key in others)]
    said += [key for key, value in trial.options.items() if value is True]
    if trial.layers == 1 and "layers" not in unheeded(trial.method):
        said.append("one layer")
    return ", ".join(said).replace("_", " ")


def _row(study: Study, trial_id: str, forecaster: Forecaster) -> PlanRow:
    request, site = study.requests[trial_id], study.site
    trial, place = request.trial, geometry(request.trial.ranks, site)
    probe = forecaster.probes.get(request.store)
    path, outcome, status = Path(outcome_path(study.results, trial_id)), None, None
    if path.exists():
        try:
            outcome = read_outcome(path, trial_id)
            status = outcome.status
        except Damaged:
            status = Status.DAMAGED
    forecast = Forecast() if outcome else forecaster.of(request)
    memory, took, energy_kj = forecast.memory, forecast.time, None
    accuracy = (outcome.accuracy if outcome else None) or Accuracy()
    total_s = _measured_s(outcome) if outcome else forecast.total_s
    skipped = outcome is None and trial_id in study.skipped
    spends = not outcome and not skipped
    hours, low, high = _hours(request, forecast) if spends else (0.0, 0.0, 0.0)
    if forecast.energy_j is not None and total_s and hours:
        energy_kj = forecast.energy_j / 1000 * min(1.0, 3600 * hours / total_s)
    # Where nodes are shared, the devices' part of them; nothing runs beside a local trial.
    shares = 1 if site.launcher == "local" else place.devices_per_node / site.devices_per_node
    steps = steps_per_epoch(trial, probe.graph) if probe and trial.in_minibatches else None
    without = unheeded(trial.method)
    return PlanRow(
        experiment="",
        trial=trial_id,
        engine=computes(trial),
        batch_size=None if "batch_size" in without else trial.batch_size,
        accumulation=None if "accumulation" in without else trial.accumulation,
        fanout=None if "fanout" in without else str(trial.fanout),
        seed=trial.seed,
        ranks=trial.ranks,
        nodes=place.nodes,
        source=MEASURED if outcome else ASKED if total_s is None else PREDICTED,
        status=status,
        skipped=skipped,
        continues=request.continues,
        walltime_h=request.walltime_min / 60,
        first_job_h=(request.runtime_min or request.walltime_min) / 60,
        hours_used=trial.ranks * hours,
        hours_used_low=trial.ranks * low,
        hours_used_high=trial.ranks * high,
        hours_allocated=place.devices_allocated * hours,
        node_hours=place.nodes * shares * hours,
        steps_per_epoch=steps,
        peak_memory_bytes=outcome.peak_memory_bytes if outcome else memory and memory.peak_bytes,
        peak_memory_low_bytes=memory and memory.low_bytes,
        peak_memory_high_bytes=memory and memory.high_bytes,
        needed_memory_bytes=memory and memory.needed_bytes,
        memory_limit_bytes=memory and memory.limit_bytes,
        memory_limit=forecast.memory_limit,
        out_of_memory_chance=forecast.out_of_memory_chance,
        fits=forecast.fits,
        evaluation_memory_bytes=None,
        evaluation_out_of_memory_chance=None,
        epoch_s=took.epoch_s if took else outcome.epoch_s if outcome else None,
        epoch_low_s=took and took.low_s,
        epoch_high_s=took and took.high_s,
        total_h=None if total_s is None else total_s / 3600,
        energy_kj=energy_kj,
        energy_source=None if energy_kj is None else forecast.energy_source,
        time_source=took and took.source,
        sampled=forecast.sample and f"{forecast.sample.batches} micro-batches",
        test_accuracy=accuracy.test_full or accuracy.test_sampled,
        time_basis=took and took.basis,
        pilot_memory_bytes=forecast.pilot and forecast.pilot.peak_memory_bytes,
    )


def _hours(request: Request, forecast: Forecast) -> tuple[float, float, float]:
    """Hours of one rank and the ends of their interval: as predicted, but not beyond the walltime,
    which ends a trial; else the walltime."""
    asked, took, total_s = request.walltime_min / 60, forecast.time, forecast.total_s
    if took is None or total_s is None:
        return asked, asked, asked
    longest = float("inf") if request.continues else asked
    hours = total_s / 3600
    low, high = (min(hours * end_s / took.epoch_s, longest) for end_s in (took.low_s, took.high_s))
    return min(hours, longest), low, high


def _measured_s(outcome: Outcome) -> float | None:
    """Seconds of all jobs of a trial; where it did not come to say, of the last one."""
    if outcome.timing and outcome.timing.total_s is not None:
        return outcome.timing.total_s
    if not outcome.started_at or not outcome.finished_at:
        return None
    began, ended = map(datetime.fromisoformat, (outcome.started_at, outcome.finished_at))
    return (ended - began).total_seconds()


class Total:
    """Totals of an experiment or the study; hours and energy of the trials still to run."""

    def __init__(self, name: str, rows: Sequence[PlanRow]) -> None:
        to_run = [row for row in rows if row.to_run]
        energies = [row.energy_kj for row in to_run if row.energy_kj is not None]
        self.name = name
        self.trials, self.to_run = len(rows), len(to_run)
        self.measured = sum(row.measured for row in rows)
        self.skipped = sum(row.skipped for row in rows)
        self.predicted = sum(row.source == PREDICTED for row in to_run)
        self.hours_used = sum(row.hours_used for row in to_run)
        self.hours_used_low = sum(row.hours_used_low for row in to_run)
        self.hours_used_high = sum(row.hours_used_high for row in to_run)
        self.hours_allocated = sum(row.hours_allocated for row in to_run)
        self.node_hours = sum(row.node_hours for row in to_run)
        self.energy_kj = sum(energies) if energies else None
        self.longest_h = max((row.hours_used / row.ranks for row in to_run), default=0.0)  # a trial


def totals(rows: Sequence[PlanRow]) -> list[Total]:
    """One total for each experiment, then the study's, which counts a shared trial once."""
    names = dict.fromkeys(row.experiment for row in rows)
    found = [Total(name, [row for row in rows if row.experiment == name]) for name in names]
    return [*found, total_of(rows)]


def total_of(rows: Sequence[PlanRow]) -> Total:
    """The study's."""
    return Total("all", distinct(rows))


def distinct(rows: Sequence[PlanRow]) -> list[PlanRow]:
    """Every trial once, however many experiments share it."""
    return list({row.trial: row for row in rows}.values())
