"""What training changes: all that another job needs in order to go on.

Nothing random is among it. The order of the seed nodes, the samples and the dropout masks follow
from the trial's seed, the epoch and the micro-batch's number (sampling/order.py); PyG's path draws
its masks from torch's stream, which every micro-step seeds anew (Trainer.micro_step).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import nn

from sagebench.measure.memory import PeakMemory
from sagebench.records import Epoch
from sagebench.training.adam import Adam
from sagebench.training.checkpoint import BestCheckpoint
from sagebench.training.distributed import Communicator
from sagebench.training.epoch_sums import EpochSums


@dataclass
class TrainingState:
    """Of one rank. epochs: those that are done. sums: of the epoch in hand.

    used_s: from the starts of the earlier jobs to the checkpoints that they were continued from.
    energy_j: None where it is not counted.
    """

    model: nn.Module
    optimizer: Adam
    best: BestCheckpoint
    peak: PeakMemory
    sums: EpochSums
    epochs: list[Epoch] = field(default_factory=list)
    start_to_first_step_s: float | None = None
    used_s: float = 0.0
    energy_j: float | None = None

    def next_epoch(self, done: Epoch) -> None:
        """The epoch in hand is done."""
        self.epochs.append(done)
        self.sums = self.sums.of_next_epoch()

    def gathered(self, communicator: Communicator, elapsed_s: float) -> dict[str, Any]:
        """The state of all ranks, for a checkpoint; a collective.

        elapsed_s: since this job's start. What every rank has alike is rank 0's.
        """
        mine = {
            "sums": self.sums.state(),
            "peaks": self.peak.read(),
            "energy_j": self.energy_j,
        }
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state(),
            "best": self.best.state(),
            "epochs": json.dumps([asdict(epoch) for epoch in self.epochs]),
            "start_to_first_step_s": self.start_to_first_step_s,
            "used_s": self.used_s + elapsed_s,
            "ranks": communicator.gather(mine),
        }

    def restore(self, state: dict[str, Any], rank: int) -> None:
        """Go on from what `gathered` gave."""
        mine = state["ranks"][rank]
        self.model.load_state_dict(state["model"])
        self.optimizer.restore(state["optimizer"])
        self.best.restore(state["best"])
        self.peak.raise_to(mine["peaks"])
        self.sums.restore(mine["sums"])
        self.epochs = [Epoch.from_json(epoch) for epoch in json.loads(state["epochs"])]
        self.start_to_first_step_s = state["start_to_first_step_s"]
        self.used_s = state["used_s"]
        self.energy_j = mine["energy_j"]
