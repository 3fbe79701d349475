"""A trial's one outcome, from what its ranks measured and how they ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sagebench.files import read_json
from sagebench.grid.trial import Trial
from sagebench.launch.verdict import Verdict
from sagebench.measure.outcome import SCHEMA


def compose_outcome(
    trial: Trial,
    measured: dict[str, Any],
    verdict: Verdict,
    attempt: dict[str, Any],
    provenance: dict[str, Any],
) -> dict[str, Any]:
    """The one record of a trial; what an early end left unmeasured is null."""
    epochs = measured.get("epochs", [])
    hops = (
        {
            name: [
                sum(values) / len(epochs) for values in zip(*(e[name] for e in epochs), strict=True)
            ]
            for name in ("nodes_per_hop", "edges_per_hop")
        }
        if epochs
        else None
    )
    timing = measured.get("timing")
    if timing is not None or measured.get("start_to_first_step_s") is not None:
        timing = {
            "start_to_first_step_s": measured["start_to_first_step_s"],
            **(timing or {}),
        }
    return {
        "schema": SCHEMA,
        "trial_id": trial.id,
        "trial": trial.to_json(),
        "status": verdict.status.value if verdict.status else None,
        "reason": verdict.reason,
        "started_at": attempt["started_at"],
        "finished_at": attempt["finished_at"],
        "attempts": attempt["attempt"],
        **{
            name: measured.get(name)
            for name in ("store", "placement", "parameters", "cores", "oversubscribed")
        },
        "epochs": epochs,
        "timing": timing,
        **{name: measured.get(name) for name in ("phases", "memory", "energy", "accuracy")},
        "sample": hops,
        "provenance": {**provenance, "versions": measured.get("versions")},
        "ranks": measured.get("ranks", []),
    }


def read_measured(directory: Path) -> dict[str, Any]:
    """What rank 0 wrote last, with the counters of ranks that ended early."""
    path = directory / "measured.json"
    measured = read_json(path) if path.exists() else {}
    for rank in measured.get("ranks", []):
        rank |= (read_record(directory, rank["rank"]) or {}).get("allocator", {})
    return measured


def read_record(directory: Path, rank: int) -> dict[str, Any] | None:
    path = directory / f"rank-{rank}.json"
    return read_json(path) if path.exists() else None
