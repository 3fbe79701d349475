"""What a rank has of an epoch so far: enough to go on with it, in this job or the next."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sagebench.engines.base import Batch
from sagebench.records import Epoch
from sagebench.training.distributed import Communicator


class EpochSums:
    """micro_steps: how many are done. time_s, wait_s: in the epoch, and therein for its samples.

    resumed: whether the epoch was the first of a job that continues another.
    """

    def __init__(self, epoch: int, layers: int, device: torch.device) -> None:
        self.epoch = epoch
        self.micro_steps = 0
        self.time_s = 0.0
        self.wait_s = 0.0
        self.resumed = False
        self._layers = layers
        self._losses = torch.zeros(2, dtype=torch.float64, device=device)  # loss, correct
        # micro-batches, seeds, nodes, edges, nodes of each hop, edges of each hop
        self._counts = torch.zeros(4 + (layers + 1) + layers, dtype=torch.int64)

    @property
    def position(self) -> tuple[int, int]:
        """How far the trial is: the epoch, and the micro-steps done of it."""
        return self.epoch, self.micro_steps

    @property
    def nodes(self) -> int:
        return int(self._counts[2])

    @property
    def edges(self) -> int:
        return int(self._counts[3])

    def add(self, batch: Batch, loss: Tensor, correct: Tensor) -> None:
        """Count a micro-batch; its loss and correct predictions stay on the device."""
        self.micro_steps += 1
        self._losses[0] += loss
        self._losses[1] += correct
        nodes, edges = batch.nodes_per_hop, batch.edges_per_hop
        seeds = len(batch.labels)
        self._counts += torch.tensor([seeds > 0, seeds, sum(nodes), sum(edges), *nodes, *edges])

    def record(self, communicator: Communicator, steps: int, learning_rate: float) -> Epoch:
        """The figures of all ranks, the times of the slowest; a collective."""
        device = self._losses.device
        figures = communicator.sum(
            torch.cat([self._losses.cpu(), self._counts]).to(device)
        ).tolist()
        time_s, wait_s = communicator.max(
            torch.tensor([self.time_s, self.wait_s], dtype=torch.float64, device=device)
        ).tolist()
        loss, correct, micro_batches, seeds, nodes, edges = figures[:6]
        hops = [number / micro_batches for number in figures[6:]]
        return Epoch(
            epoch=self.epoch,
            time_s=time_s,
            micro_batches=int(micro_batches),
            loss=loss / seeds,
            train_accuracy=correct / seeds,
            seeds=int(seeds),
            nodes=int(nodes),
            edges=int(edges),
            nodes_per_hop=hops[: self._layers + 1],
            edges_per_hop=hops[self._layers + 1 :],
            sampling_wait_s=wait_s,
            resumed=self.resumed,
            steps=steps,
            learning_rate=learning_rate,
        )

    def state(self) -> dict[str, Any]:
        """For a checkpoint, of tensors on the CPU and plain types."""
        return {**vars(self), "_losses": self._losses.cpu()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state` of the same trial."""
        vars(self).update(state, _losses=state["_losses"].to(self._losses.device))

    def of_next_epoch(self) -> EpochSums:
        return EpochSums(self.epoch + 1, self._layers, self._losses.device)
