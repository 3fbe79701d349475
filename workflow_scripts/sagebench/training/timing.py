"""The times of a trial, from the records of its epochs."""

from __future__ import annotations

import statistics
from typing import Any


def timing(epochs: list[dict[str, Any]], ranks: int) -> dict[str, Any]:
    """Statistics of the epochs; the first, and the first of a job that continues another, stand
    apart: they warm caches and allocators."""
    timed = [record["time_s"] for record in epochs[1:] if not record["resumed"]]
    typical = statistics.median(timed) if timed else None
    last = epochs[-1]
    return {
        "first_epoch_s": epochs[0]["time_s"],
        "epoch_median_s": typical,
        "epoch_min_s": min(timed, default=None),
        "epoch_max_s": max(timed, default=None),
        "epochs_timed": len(timed),
        "steps_per_epoch": last["steps"],
        "seeds_per_s": last["seeds"] / typical if typical else None,
        "seeds_per_s_per_device": last["seeds"] / typical / ranks if typical else None,
        "edges_per_s": statistics.mean(r["edges"] for r in epochs) / typical if typical else None,
        "training_s": sum(record["time_s"] for record in epochs),
        "evaluation_s": sum(record["evaluation_s"] or 0.0 for record in epochs),
    }
