"""What a recorded step costs, by what decides it. Standard library only: the plan reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sagebench.grid.trial import FIELD_NAMES, Trial, digest
from sagebench.records import FromJson

WITHOUT_EFFECT = frozenset(
    {
        "dataset",  # the store stands for it
        "sampler",  # as does the sample
        "accumulation",
        "ranks",
        "threads_per_rank",
        "sampling_workers",
        "epochs",
        "optimizer",
        "learning_rate",
        "learning_rate_scaling",
        "evaluate_every_epochs",
        "patience_evaluations",
        "validation",
        "phase_window_steps",
        "seed",
        "device",
        "machine",
        "memory_limit_gib",
        "placement",  # where it was chosen to be stands for it
        "compile",
        "sampled_test_nodes",
        "profile_steps",
    }
)
"""values of a trial that change nothing of a recorded step; a new one does until it stands here"""


@dataclass(frozen=True)
class StepCost(FromJson):
    """A micro-step of one configuration on one graph, recorded on no device (estimate/step.py).

    values, placement: what decides it. parameters: of the model. flops, bytes_moved, operations
    (about the launches), batch_bytes and trace (as AllocationTrace.to_json has it): of a
    micro-batch of the mean size; typical_live_bytes: what it has in use at its peak.
    largest_z: standard deviations from the mean to the largest micro-batch that was replayed;
    live_bytes, held_bytes, held_std_bytes, needed_bytes, beside_bytes: of it: in use,
    held by the allocator, and how that differs with the order of the steps, what it cannot do
    without, and its batch where that lies beside the step; typical_beside_bytes: of the mean.
    """

    values: dict[str, Any]
    placement: str
    parameters: int
    flops: int
    bytes_moved: int
    operations: int
    batch_bytes: list[int]
    trace: list[int]
    largest_z: float
    typical_live_bytes: int
    live_bytes: int
    held_bytes: int
    held_std_bytes: int
    needed_bytes: int
    beside_bytes: int
    typical_beside_bytes: int


def deciding_values(trial: Trial) -> dict[str, Any]:
    """Those that a recorded step depends on, as JSON has them."""
    values = trial.to_json()
    kept = {name: values[name] for name in FIELD_NAMES if name not in WITHOUT_EFFECT}
    return {**kept, "dropout": kept["dropout"] > 0}


def step_name(values: Mapping[str, Any], placement: str) -> str:
    """The key of a cost in a probe's record."""
    return digest({**values, "placement": placement}, 12)
