"""Seed order: shuffling of the training nodes into micro-batches over ranks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sagebench.sampling.random import fold, hash_ids

ORDER_STREAM = 1
SAMPLE_STREAM = 2


@dataclass(frozen=True)
class MicroBatch:
    """One rank's share of one accumulation step.

    seeds: int64 [<= batch_size] node ids; empty where the epoch's last step has fewer
    micro-batches than ranks times accumulation.
    """

    epoch: int
    step: int
    index: int
    """number of the micro-batch in the epoch, over all ranks"""
    seeds: np.ndarray
    step_seeds: int
    """seed nodes of the whole optimizer step, over all ranks and accumulation steps"""
    last_of_step: bool


@dataclass(frozen=True)
class SeedOrder:
    """One global, seeded permutation of the training nodes an epoch, cut into optimizer steps.

    A step takes `accumulation * ranks` micro-batches of `batch_size` nodes; micro-batch
    `(step * accumulation + a) * ranks + rank` goes to `rank` as its a-th. So every rank takes the
    same number of steps and collectives, and N ranks see what one rank that accumulates N times
    as much sees.
    """

    train_nodes: np.ndarray
    batch_size: int
    accumulation: int
    ranks: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.train_nodes) // self.seeds_per_step)

    @property
    def seeds_per_step(self) -> int:
        return self.batch_size * self.accumulation * self.ranks

    def permutation(self, epoch: int) -> np.ndarray:
        """The epoch's order of the training nodes, int64 [train nodes].

        Sorted by a hash of the node, not drawn from NumPy's stream: that may change with NumPy.
        """
        keys = hash_ids(fold(ORDER_STREAM, self.seed, epoch), self.train_nodes)
        return self.train_nodes[np.argsort(keys, kind="stable")]

    def micro_batches(self, epoch: int, rank: int) -> Iterator[MicroBatch]:
        """The micro-batches of one rank in one epoch (counted from 1), in order."""
        nodes = self.permutation(epoch)
        for step in range(self.steps_per_epoch):
            start = step * self.seeds_per_step
            step_seeds = min(self.seeds_per_step, len(nodes) - start)
            for a in range(self.accumulation):
                index = (step * self.accumulation + a) * self.ranks + rank
                first = index * self.batch_size
                yield MicroBatch(
                    epoch=epoch,
                    step=step,
                    index=index,
                    seeds=nodes[first : first + self.batch_size],
                    step_seeds=step_seeds,
                    last_of_step=a == self.accumulation - 1,
                )


def sample_key(seed: int, epoch: int, index: int) -> int:
    """The 64-bit key of one micro-batch's sample; a hop adds itself to it."""
    return fold(SAMPLE_STREAM, seed, epoch, index)
