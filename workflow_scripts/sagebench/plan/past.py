"""What outcomes tell the plan: what was measured of its trials, and what corrects predictions."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sagebench.grid.trial import Trial
from sagebench.measure.outcome import Damaged, read_outcome

PEAK = {"cpu": "peak_host_private_bytes", "cuda": "peak_reserved_bytes"}
"""which counter of an outcome is the peak memory of a device"""


@dataclass(frozen=True)
class Measured:
    """An outcome as far as the plan shows it; what it did not measure is None."""

    status: str
    peak_memory_bytes: float | None
    epoch_s: float | None
    total_h: float | None
    test_accuracy: float | None


def read_outcomes(results: str, without: Collection[str] = ()) -> Iterator[dict[str, Any]]:
    """Every outcome below `results` that can be read, but those of the trials `without`."""
    for path in sorted(Path(results, "trials").glob("*/outcome.json")):
        if path.parent.name not in without:
            outcome = known_outcome(path)
            if outcome is not None:
                yield outcome


def known_outcome(path: Path) -> dict[str, Any] | None:
    """None for what is no outcome of a trial that is known here: to say what is wrong with it is
    the analysis' business."""
    try:
        outcome = read_outcome(path)
        Trial.from_json(outcome["trial"])
    except (Damaged, ValueError, TypeError, KeyError):
        return None
    return outcome


def measured_of(outcome: Mapping[str, Any], device: str) -> Measured:
    timing = outcome.get("timing") or {}
    total_s = timing.get("total_s")  # of all its jobs; the dates are those of the last one
    if total_s is None and outcome.get("started_at") and outcome.get("finished_at"):
        began, ended = outcome["started_at"], outcome["finished_at"]
        total_s = (datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds()
    accuracy = outcome.get("accuracy") or {}
    return Measured(
        status=outcome["status"],
        peak_memory_bytes=(outcome.get("memory") or {}).get(PEAK[device]),
        epoch_s=timing.get("epoch_median_s") or timing.get("first_epoch_s"),
        total_h=None if total_s is None else total_s / 3600,
        test_accuracy=accuracy.get("test_full") or accuracy.get("test_sampled"),
    )
