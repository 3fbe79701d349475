"""Base of the GPU samplers (tensor operations): graph and sample stay on the device.

Every array is that of the sampler on the CPU, to the bit, on every device.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from sagebench.sampling.blocks import Blocks


class TensorSampler(ABC):
    """Base of a device's sampler: neighborhoods of a graph in CSC where it lies.

    colptr: int64 [N + 1]. row: int32 or int64 [E], on the same device. Holds 14 bytes a node, of
    which 6 are scratch: one instance serves one caller, and one CUDA stream, at a time.
    """

    def __init__(self, colptr: Tensor, row: Tensor) -> None:
        self.colptr = colptr
        self.row = row
        self.device = colptr.device

    # Made for the first sample: a subclass whose kernels draw all samples needs none of it.

    @cached_property
    def degree(self) -> Tensor:
        return self.colptr.diff()

    @cached_property
    def max_degree(self) -> int:
        return int(self.degree.max()) if len(self.degree) else 0

    @cached_property
    def _known(self) -> Tensor:
        return torch.zeros(len(self.degree), dtype=torch.bool, device=self.device)

    @cached_property
    def _found(self) -> Tensor:
        return torch.zeros_like(self._known)

    @cached_property
    def _local(self) -> Tensor:
        return torch.empty(len(self.degree), dtype=torch.int32, device=self.device)

    @cached_property
    def _true(self) -> Tensor:
        """Lies on the device: a Python scalar would have the host wait for the device each time."""
        return torch.ones((), dtype=torch.bool, device=self.device)

    @classmethod
    def groups_by_source(cls, fanout: Sequence[int], device: torch.device) -> bool:
        """Whether samples of a fanout have `Blocks.by_source`."""
        return False

    @torch.no_grad()
    def sample(
        self, seeds: np.ndarray, fanout: Sequence[int], key: int, *, relabel_last: bool = True
    ) -> Blocks:
        """Sample the neighborhood of `seeds`, as `CpuSampler.sample` does.

        Waits for the device once a hop, to read how many nodes it found and how many edges the next
        one has; an `expand` may have to wait besides.
        """
        frontier = self._on_device(torch.tensor(np.asarray(seeds), dtype=torch.int64))
        self._known.zero_()
        self._known[frontier] = self._true
        self._local[frontier] = self._numbers(0, len(frontier))

        nodes, rowptrs = [frontier], [frontier.new_zeros(1)]
        neighbors: list[Tensor] = []
        cols: list[Tensor] = []
        edge_base, node_base = 0, len(seeds)
        most = int(self.most_edges(self.degree[frontier], fanout[0]).sum())
        for hop, k in enumerate(fanout):
            found, ends = self.expand(frontier, k, hop + 1, key, most)
            rowptrs.append(ends + edge_base)
            neighbors.append(found)
            edge_base += len(found)
            if relabel_last or hop < len(fanout) - 1:
                next_k = fanout[hop + 1] if hop + 1 < len(fanout) else 0
                frontier, most = self._number(found, node_base, next_k)
                cols.append(self._local[found])
            else:
                frontier = frontier[:0]
            nodes.append(frontier)
            node_base += len(frontier)
        return Blocks(
            node_ids=torch.cat(nodes),
            rowptr=torch.cat(rowptrs),
            neighbors=torch.cat(neighbors),
            cols=torch.cat(cols) if cols else self._local[:0],
            nodes_per_hop=tuple(len(part) for part in nodes),
            edges_per_hop=tuple(len(part) for part in neighbors),
            key=key,
        )

    @abstractmethod
    def expand(
        self, frontier: Tensor, k: int, hop: int, key: int, most: int
    ) -> tuple[Tensor, Tensor]:
        """The sampled neighbors of the frontier's nodes in the order of `row`, [edges], and where
        those of each node end, int64 [len(frontier)].

        frontier: int64 global ids. k: neighbors of the hop, -1 for every one. hop: from 1. key:
        64-bit key of the micro-batch. most: sum of `most_edges` of the frontier.
        """

    @abstractmethod
    def most_edges(self, degree: Tensor, k: int) -> Tensor:
        """Edges of nodes of such degrees, int64, or how many they are chosen from."""

    def _number(self, found: Tensor, base: int, next_k: int) -> tuple[Tensor, int]:
        """Number the nodes that `found` finds first, ascending, from `base`.

        Returns their ids, and how many edges they have in a hop of `next_k`.
        """
        if not len(found):
            return self.colptr[:0], 0
        self._found.zero_()
        self._found[found] = self._true
        new = self._found.logical_and_(self._known.logical_not())
        self._known.logical_or_(new)
        rank = new.cumsum(0, dtype=torch.int32)
        edges = torch.where(new, self.most_edges(self.degree, next_k), 0).sum()
        count, next_edges = torch.stack([rank[-1].long(), edges]).tolist()
        ids = torch.searchsorted(rank, self._numbers(1, count))
        self._local[ids] = self._numbers(base, count)
        return ids, next_edges

    def _on_device(self, ids: Tensor) -> Tensor:
        """`ids` of the host on the device; a copy from memory that is not pinned would wait."""
        if self.device.type == "cuda":
            ids = ids.pin_memory()
        return ids.to(self.device, non_blocking=True)

    def _numbers(self, first: int, count: int) -> Tensor:
        return torch.arange(first, first + count, dtype=torch.int32, device=self.device)
