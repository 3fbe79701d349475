"""The plan as rows: what every trial of a study takes, measured, predicted or asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sagebench.records import Status

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
    batch_size: int
    accumulation: int
    fanout: str
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
    steps_per_epoch: int | None = None  # of the optimizer, where the graph was probed
    peak_memory_bytes: float | None = None
    peak_memory_low_bytes: float | None = None
    peak_memory_high_bytes: float | None = None
    needed_memory_bytes: float | None = None  # the rest of the peak, the allocator only keeps
    memory_limit_bytes: float | None = None
    memory_limit: str | None = None  # what sets it, in words
    out_of_memory_chance: float | None = None
    fits: str | None = None  # FITS, TIGHT or NO_FIT, while it trains
    # Of a CPU rank over the whole graph; estimated no more, the columns stay for who reads them.
    evaluation_memory_bytes: float | None = None
    evaluation_out_of_memory_chance: float | None = None
    epoch_s: float | None = None
    epoch_low_s: float | None = None
    epoch_high_s: float | None = None
    total_h: float | None = None  # of the whole trial
    energy_kj: float | None = None  # of the devices
    energy_source: str | None = None
    time_source: str | None = None
    sampled: str | None = None  # of how many micro-batches the probe has the trial's sample
    test_accuracy: float | None = None
    time_basis: str | None = None  # a model's, measured steps, or outcomes
    pilot_memory_bytes: float | None = None  # the peak of some twenty measured steps

    @property
    def memory_bytes(self) -> float | None:
        """What there is to show: the measured peak, what is estimated to be needed, or what a pilot
        reached."""
        if self.measured:
            return self.peak_memory_bytes
        return self.needed_memory_bytes or self.pilot_memory_bytes

    @property
    def measured(self) -> bool:
        return self.source == MEASURED

    @property
    def to_run(self) -> bool:
        return not self.measured and not self.skipped


@dataclass(frozen=True)
class Total:
    """Of an experiment or the study; hours and energy are those of the trials still to run."""

    name: str
    trials: int
    measured: int
    skipped: int
    predicted: int  # of those still to run
    hours_used: float
    hours_used_low: float
    hours_used_high: float
    hours_allocated: float
    node_hours: float
    energy_kj: float | None
    longest_h: float  # of one trial

    @property
    def to_run(self) -> int:
        return self.trials - self.measured - self.skipped


def totals(rows: Sequence[PlanRow]) -> list[Total]:
    """One total for each experiment, then the study's, which counts a shared trial once."""
    names = dict.fromkeys(row.experiment for row in rows)
    found = [total(name, [row for row in rows if row.experiment == name]) for name in names]
    return [*found, total("all", distinct(rows))]


def distinct(rows: Sequence[PlanRow]) -> list[PlanRow]:
    """Every trial once, however many experiments share it."""
    return list({row.trial: row for row in rows}.values())


def total(name: str, rows: Sequence[PlanRow]) -> Total:
    to_run = [row for row in rows if row.to_run]
    energies = [row.energy_kj for row in to_run if row.energy_kj is not None]
    sums = ("hours_used", "hours_used_low", "hours_used_high", "hours_allocated", "node_hours")
    return Total(
        name=name,
        trials=len(rows),
        measured=sum(row.measured for row in rows),
        skipped=sum(row.skipped for row in rows),
        predicted=sum(row.source == PREDICTED for row in to_run),
        energy_kj=sum(energies) if energies else None,
        longest_h=max((row.hours_used / row.ranks for row in to_run), default=0.0),
        **{column: sum(getattr(row, column) for row in to_run) for column in sums},
    )
