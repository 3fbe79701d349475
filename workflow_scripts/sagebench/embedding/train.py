"""Training of node2vec: passes over the nodes of a graph, in batches, which may be interrupted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sagebench.embedding.skipgram import SkipGram, first_vectors
from sagebench.embedding.skipgram_torch import TensorSkipGram
from sagebench.embedding.walks import Walker
from sagebench.sampling.order import SeedOrder

ARRAYS = ("vectors", "mean", "square")


@dataclass(frozen=True)
class Settings:
    """OGB's for ogbn-products (examples/nodeproppred/products/node2vec.py). batch_size: start
    nodes. context: nodes of a window, its center among them. negatives: of a pair."""

    dimension: int = 128
    walk_length: int = 40
    context: int = 20
    walks_per_node: int = 10
    batch_size: int = 256
    learning_rate: float = 0.01
    negatives: int = 1
    passes: int = 1
    p: float = 1
    q: float = 1

    def __post_init__(self) -> None:
        if not 2 <= self.context <= self.walk_length + 1:
            raise ValueError(f"context is {self.context}; write 2 to {self.walk_length + 1}")


def warm_up(
    colptr: np.ndarray, row: np.ndarray, settings: Settings, threads: int,
    device: str | torch.device,
) -> None:  # fmt: skip
    """Compile and load what a `Training` of a graph needs: one walk, and vectors of its nodes."""
    walker = Walker(colptr, row, settings.p, settings.q, threads)
    drawn = walker.connected[:1], range(1)
    walks = walker.walks(*drawn, settings.walk_length, 0, 0)
    negatives = walker.negatives(*drawn, (settings.negatives, settings.walk_length), 0, 0)
    ids, places = np.unique(np.append(walks, negatives), return_inverse=True)
    places -= int((ids < 0).any())  # so that -1, behind a walk's end, stays what it is
    start = first_vectors(np.arange(len(ids)), settings.dimension, 0)
    if walks.size:
        _make_model(start, settings, threads, device).step(
            places[: walks.size].reshape(walks.shape), places[walks.size :].reshape(negatives.shape)
        )


def _make_model(
    start: np.ndarray, settings: Settings, threads: int, device: str | torch.device
) -> SkipGram | TensorSkipGram:
    """Trains `start`, float32 [N, D], in place or on the device."""
    how = settings.context, settings.learning_rate
    if torch.device(device).type == "cpu":
        return SkipGram(start, *how, threads)
    return TensorSkipGram(torch.from_numpy(start).to(device), *how)


class Training:
    """Trains vectors of a graph in CSC (see `Walker`): on the CPU by compiled loops, on another
    device by tensor operations.

    Nodes without neighbors start no walk and are drawn as no negative: unless they are a neighbor,
    as one may be in a directed graph, their vectors stay as they were. Vectors start uniform in
    +-0.5 / dimension, as those of word2vec. They are a function of graph, settings, seed and kind
    of device; the number of threads changes nothing.
    """

    def __init__(
        self, colptr: np.ndarray, row: np.ndarray, settings: Settings, seed: int,
        threads: int = 1, device: str | torch.device = "cpu",
    ) -> None:  # fmt: skip
        self.settings, self.seed = settings, seed
        self.walker = Walker(colptr, row, settings.p, settings.q, threads)
        start = first_vectors(np.arange(len(colptr) - 1), settings.dimension, seed)
        self.model = _make_model(start, settings, threads, device)
        self.pass_number, self.batch = 1, 0
        """where it stands: the pass, from 1, and how many of its batches are done"""
        self._order = SeedOrder(self.walker.connected, settings.batch_size, 1, 1, seed)
        self._ordered = (0, self.walker.connected)

    @property
    def batches_per_pass(self) -> int:
        return self._order.steps_per_epoch

    @property
    def batches_left(self) -> int:
        passes = self.settings.passes - self.pass_number + 1
        return passes * self.batches_per_pass - self.batch

    @property
    def done(self) -> bool:
        return self.pass_number > self.settings.passes or not self.batches_per_pass

    def run(self, between: Callable[[float | None], object] = lambda loss: None) -> None:
        """Train to the end. between: called before each batch with the mean loss of the one before
        it, None at first; what it raises leaves the training whole, to go on or to save."""
        loss = None
        while not self.done:
            between(loss)
            loss = self.step()

    def step(self) -> float:
        """Train the next batch; returns its mean loss."""
        settings = self.settings
        if self._ordered[0] != self.pass_number:
            self._ordered = self.pass_number, self._order.permutation(self.pass_number)
        first = self.batch * settings.batch_size
        starts = self._ordered[1][first : first + settings.batch_size]
        drawn = starts, range(settings.walks_per_node)
        key = self.seed, self.pass_number
        shape = settings.negatives, settings.walk_length
        loss = self.model.step(
            self.walker.walks(*drawn, settings.walk_length, *key),
            self.walker.negatives(*drawn, shape, *key),
        )
        self.batch += 1
        if self.batch == self.batches_per_pass:
            self.pass_number, self.batch = self.pass_number + 1, 0
        return loss

    def state(self) -> dict[str, Any]:
        """Tensors on the CPU and integers. They may share the memory of the training: write them
        before the next batch."""
        arrays = {name: torch.as_tensor(getattr(self.model, name)).cpu() for name in ARRAYS}
        place = {"pass_number": self.pass_number, "batch": self.batch}
        return {**arrays, "steps": self.model.steps, **place}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from the `state` of a training of the same graph, settings and seed."""
        for name in ARRAYS:
            torch.as_tensor(getattr(self.model, name)).copy_(state[name])
        self.model.steps = state["steps"]
        self.pass_number, self.batch = state["pass_number"], state["batch"]
