"""A trial over several jobs: its state is saved while it trains, and the next job goes on from it.

So a job may end at any moment, of its walltime, of a signal or with its node: what is lost is what
it did since the last checkpoint. Nothing random is in one. The order of the seed nodes, the samples
and the dropout masks follow from the trial's seed, the epoch and the micro-batch's number
(sampling/order.py); PyG's path draws its masks from torch's stream, which every micro-step seeds
anew (Trainer.micro_step).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sagebench.errors import UserError
from sagebench.files import write_atomic
from sagebench.graph.store import GraphStore
from sagebench.grid.trial import Trial
from sagebench.training.distributed import Communicator

FORMAT = 3


class Checkpoint:
    """The state of a trial in the file that $SAGEBENCH_CHECKPOINT names; without it (`wanted` is
    false) nothing is kept, and the end of the job is the trial's."""

    def __init__(self, trial: Trial, store: GraphStore, communicator: Communicator) -> None:
        self._path = os.environ.get("SAGEBENCH_CHECKPOINT", "")
        self._communicator = communicator
        self._identity = {"format": FORMAT, "trial": trial.id, "store": store.checksum}

    @property
    def wanted(self) -> bool:
        return bool(self._path)

    def end(self) -> None:
        """Keep nothing from now on; the file stays as it is."""
        self._path = ""

    def write(self, alike: dict[str, Any], own: dict[str, Any]) -> None:
        """Save the state of all ranks, of tensors and plain types: what they have alike, as rank 0
        has it, and what each has of its own. A collective: no rank goes on before it is saved."""
        ranks = self._communicator.gather(own)
        if self._communicator.rank == 0:
            write_tensors(Path(self._path), {**self._identity, **alike, "ranks": ranks})
        self._communicator.barrier()

    def read(self) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """State that `write` was given last on this rank, tensors on the CPU; None without one.

        Raises UserError for a file that is no checkpoint, or one of another trial or graph.
        """
        if not self._path or not Path(self._path).exists():
            return None
        start_over = "delete it, and the trial starts over"
        try:
            state = torch.load(self._path, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever a torn or foreign file makes of torch's reader
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"the checkpoint {self._path} cannot be read ({reason}): {start_over}"
            ) from error
        for name, wanted in self._identity.items():
            found = state.get(name) if isinstance(state, dict) else None
            if found != wanted:
                raise UserError(
                    f"the checkpoint {self._path} has {name} {found}, the trial to be continued "
                    f"{wanted}: {start_over}"
                )
        return state, state["ranks"][self._communicator.rank]


@dataclass
class BestWeights:
    """The weights with the best validation accuracy so far, on the CPU. without_gain: evaluations
    since."""

    epoch: int | None = None
    accuracy: float = -1.0
    weights: dict[str, Tensor] = field(default_factory=dict)
    without_gain: int = 0

    def offer(self, epoch: int, accuracy: float, weights: dict[str, Tensor]) -> None:
        """Take these weights if they are better; of equals the earlier stay."""
        if accuracy <= self.accuracy:
            self.without_gain += 1
            return
        self.epoch, self.accuracy, self.without_gain = epoch, accuracy, 0
        self.weights = {name: value.detach().cpu().clone() for name, value in weights.items()}

    def stale(self, patience: int | None) -> bool:
        """Whether `patience` evaluations in a row brought no improvement."""
        return patience is not None and self.without_gain >= patience


def write_tensors(path: Path, values: dict[str, Any]) -> None:
    """torch.save, atomically."""
    write_atomic(path, lambda file: torch.save(values, file))
