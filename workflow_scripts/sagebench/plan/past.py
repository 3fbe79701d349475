"""What outcomes tell the plan: what was measured of its trials, and what corrects predictions."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sagebench.grid.trial import Trial
from sagebench.records import Damaged, Outcome, Status, Timing, read_outcome


@dataclass(frozen=True)
class Measured:
    """An outcome as far as the plan shows it; what it did not measure is None."""

    status: Status
    peak_memory_bytes: float | None
    epoch_s: float | None
    total_h: float | None
    test_accuracy: float | None


def read_outcomes(results: str, without: Collection[str] = ()) -> Iterator[Outcome]:
    """Every outcome below `results` that can be read, but those of the trials `without`."""
    for path in sorted(Path(results, "trials").glob("*/outcome.json")):
        if path.parent.name not in without:
            outcome = known_outcome(path)
            if outcome is not None:
                yield outcome


def known_outcome(path: Path) -> Outcome | None:
    """None for what is no outcome of a trial that is known here: to say what is wrong with it is
    the analysis' business."""
    try:
        outcome = read_outcome(path)
        Trial.from_json(outcome.trial)
    except (Damaged, ValueError, TypeError, KeyError):
        return None
    return outcome


def measured_of(outcome: Outcome) -> Measured:
    timing, accuracy = outcome.timing or Timing(), outcome.accuracy
    total_s = timing.total_s  # of all its jobs; the dates are those of the last one
    if total_s is None and outcome.started_at and outcome.finished_at:
        began, ended = map(datetime.fromisoformat, (outcome.started_at, outcome.finished_at))
        total_s = (ended - began).total_seconds()
    return Measured(
        status=outcome.status,
        peak_memory_bytes=outcome.peak_memory_bytes,
        epoch_s=timing.epoch_median_s or timing.first_epoch_s,
        total_h=None if total_s is None else total_s / 3600,
        test_accuracy=accuracy and (accuracy.test_full or accuracy.test_sampled),
    )
