"""The times of a trial, from the records of its epochs."""

from __future__ import annotations

import statistics

from sagebench.records import Epoch, Timing


def timing(epochs: list[Epoch], ranks: int) -> Timing:
    """Statistics of the epochs. The first, and the first of a job that continues another, stand
    apart: they warm caches and allocators."""
    timed = [epoch.time_s for epoch in epochs[1:] if not epoch.resumed]
    typical = statistics.median(timed) if timed else None
    last = epochs[-1]
    return Timing(
        first_epoch_s=epochs[0].time_s,
        epoch_median_s=typical,
        epoch_min_s=min(timed, default=None),
        epoch_max_s=max(timed, default=None),
        epochs_timed=len(timed),
        steps_per_epoch=last.steps,
        seeds_per_s=last.seeds / typical if typical else None,
        seeds_per_s_per_device=last.seeds / typical / ranks if typical else None,
        edges_per_s=statistics.mean(e.edges for e in epochs) / typical if typical else None,
        training_s=sum(epoch.time_s for epoch in epochs),
        evaluation_s=sum(epoch.evaluation_s or 0.0 for epoch in epochs),
    )
