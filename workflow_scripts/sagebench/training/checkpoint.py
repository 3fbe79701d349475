"""The best weights so far."""

from __future__ import annotations

import io
from pathlib import Path

import torch
from torch import Tensor

from sagebench.files import write_atomic


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
        if self.path is not None:
            buffer = io.BytesIO()
            torch.save(
                {"epoch": epoch, "validation_accuracy": accuracy, "model": self.weights}, buffer
            )
            write_atomic(self.path, buffer.getvalue())

    def stale(self, patience: int | None) -> bool:
        """Whether `patience` evaluations in a row brought nothing better."""
        return patience is not None and self._without_gain >= patience
