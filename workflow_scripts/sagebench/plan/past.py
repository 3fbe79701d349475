"""What outcomes tell the plan: what was measured of its trials, and what corrects predictions."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

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
            outcome = read_outcome(path)
            if outcome is not None:
                yield outcome


def read_outcome(path: Path) -> dict[str, Any] | None:
    """None for what is no outcome: to say what is wrong with it is the analysis' business."""
    try:
        outcome = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return outcome if isinstance(outcome, dict) and "status" in outcome else None


def measured_of(outcome: Mapping[str, Any], device: str) -> Measured:
    timing = outcome.get("timing") or {}
    began, ended = outcome.get("started_at"), outcome.get("finished_at")
    total_h = None
    if began and ended:
        total_h = (
            datetime.fromisoformat(ended) - datetime.fromisoformat(began)
        ).total_seconds() / 3600
    accuracy = outcome.get("accuracy") or {}
    return Measured(
        status=outcome["status"],
        peak_memory_bytes=(outcome.get("memory") or {}).get(PEAK[device]),
        epoch_s=timing.get("epoch_median_s") or timing.get("first_epoch_s"),
        total_h=total_h,
        test_accuracy=accuracy.get("test_full") or accuracy.get("test_sampled"),
    )
