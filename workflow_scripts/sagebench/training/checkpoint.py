"""What is kept on disk of a trial's weights: the best so far, and a state to continue from."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sagebench.errors import UserError
from sagebench.files import write_atomic
from sagebench.graph.store import GraphStore
from sagebench.grid.trial import Trial

FORMAT = 1


class BestCheckpoint:
    """Keeps the weights with the best validation accuracy, in memory and (path given) on disk."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.epoch: int | None = None
        self.accuracy = -1.0
        self.weights: dict[str, Tensor] = {}
        self._without_gain = 0

    def offer(self, epoch: int, accuracy: float, weights: dict[str, Tensor]) -> None:
        """Take these weights if they are better; of equals the earlier stay."""
        if accuracy <= self.accuracy:
            self._without_gain += 1
            return
        self.epoch, self.accuracy, self._without_gain = epoch, accuracy, 0
        self.weights = {name: value.detach().cpu().clone() for name, value in weights.items()}
        self._write()

    def stale(self, patience: int | None) -> bool:
        """Whether `patience` evaluations in a row brought nothing better."""
        return patience is not None and self._without_gain >= patience

    def state(self) -> dict[str, Any]:
        """For the trial's checkpoint."""
        return {
            "epoch": self.epoch,
            "accuracy": self.accuracy,
            "weights": self.weights,
            "without_gain": self._without_gain,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state`, and write its weights to this job's own path."""
        self.epoch, self.accuracy = state["epoch"], state["accuracy"]
        self.weights, self._without_gain = state["weights"], state["without_gain"]
        if self.epoch is not None:
            self._write()

    def _write(self) -> None:
        if self.path is not None:
            write_tensors(
                self.path,
                {
                    "epoch": self.epoch,
                    "validation_accuracy": self.accuracy,
                    "model": self.weights,
                },
            )


def write_checkpoint(path: Path, trial: Trial, store: GraphStore, state: dict[str, Any]) -> None:
    """Write the state of `trial`, of tensors and plain types, whole or not at all."""
    write_tensors(path, {**_identity(trial, store), **state})


def read_checkpoint(path: Path, trial: Trial, store: GraphStore) -> dict[str, Any] | None:
    """The state of `trial` with its tensors on the CPU; None where none was written yet.

    Raises UserError for a file that is no checkpoint, or one of another trial or graph.
    """
    if not path.exists():
        return None
    start_over = "delete it, and the trial starts over"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a torn or foreign file makes of torch's reader
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"the checkpoint {path} cannot be read ({reason}): {start_over}") from error
    for name, wanted in _identity(trial, store).items():
        found = state.get(name) if isinstance(state, dict) else None
        if found != wanted:
            raise UserError(
                f"the checkpoint {path} has {name} {found}, the trial to be continued {wanted}: "
                f"{start_over}"
            )
    return state


def write_tensors(path: Path, values: dict[str, Any]) -> None:
    """torch.save, whole or not at all."""
    buffer = io.BytesIO()
    torch.save(values, buffer)
    write_atomic(path, buffer.getvalue())


def _identity(trial: Trial, store: GraphStore) -> dict[str, Any]:
    return {"format": FORMAT, "trial": trial.id, "store": store.checksum}
