"""A trial's one outcome, from what its ranks measured and how they ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sagebench.attempts import Attempt
from sagebench.grid.trial import Trial
from sagebench.rank_records import Measurements
from sagebench.records import Epoch, HopMeans, Outcome, Timing


def compose_outcome(
    trial: Trial, measured: Measurements, attempt: Attempt, provenance: dict[str, Any]
) -> Outcome:
    """attempt: the one that ended with the trial's status."""
    assert attempt.status is not None
    timing = measured.timing
    if timing is not None or measured.start_to_first_step_s is not None:
        start_s = measured.start_to_first_step_s
        timing = replace(timing or Timing(), start_to_first_step_s=start_s)
    return Outcome(
        trial_id=trial.id,
        trial=trial.to_json(),
        status=attempt.status,
        reason=attempt.reason,
        started_at=attempt.started_at,
        finished_at=attempt.finished_at,
        attempts=attempt.attempt,
        store=measured.store,
        placement=measured.placement,
        parameters=measured.parameters,
        cores=measured.cores,
        oversubscribed=measured.oversubscribed,
        epochs=measured.epochs,
        timing=timing,
        phases=measured.phases,
        memory=measured.memory,
        energy=measured.energy,
        accuracy=measured.accuracy,
        sample=hop_means(measured.epochs),
        provenance={**provenance, "versions": measured.versions},
        ranks=measured.ranks,
    )


def hop_means(epochs: Sequence[Epoch]) -> HopMeans | None:
    if not epochs:
        return None
    nodes = zip(*(epoch.nodes_per_hop for epoch in epochs), strict=True)
    edges = zip(*(epoch.edges_per_hop for epoch in epochs), strict=True)
    return HopMeans(
        [sum(hop) / len(epochs) for hop in nodes], [sum(hop) / len(epochs) for hop in edges]
    )
