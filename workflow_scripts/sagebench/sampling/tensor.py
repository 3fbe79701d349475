"""The sampler in tensor operations: the graph stays on the device, and so does the sample.

Every array is that of `sagebench.sampling.cpu`, to the bit, on every device.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sagebench.sampling.blocks import Blocks
from sagebench.sampling.random import GOLDEN, MASK64, NODE_STRIDE
from sagebench.sampling.random import mix64 as mix64_of_int
from sagebench.sampling.tensor_random import mix64, shift, signed

DRAWS_A_STEP = 1 << 23
"""draws held at a time: 64 MiB an intermediate"""


class TensorSampler:
    """Samples neighborhoods of a graph in CSC on the device where it lies.

    colptr: int64 [N + 1]. row: int32 or int64 [E], on the same device. Holds 14 bytes a node, of
    which 6 are scratch: one instance serves one caller, and one CUDA stream, at a time.
    """

    def __init__(self, colptr: Tensor, row: Tensor) -> None:
        self.colptr = colptr
        self.row = row
        self.device = colptr.device
        self.degree = colptr.diff()
        self.max_degree = int(self.degree.max()) if len(self.degree) else 0
        self._position_dtype = torch.int32 if self.max_degree < 1 << 31 else torch.int64
        self._known = torch.zeros(len(self.degree), dtype=torch.bool, device=self.device)
        self._found = torch.zeros_like(self._known)
        self._local = torch.empty(len(self.degree), dtype=torch.int32, device=self.device)
        # Lies on the device: a Python scalar would have the host wait for the device each time.
        self._true = torch.ones((), dtype=torch.bool, device=self.device)

    @torch.no_grad()
    def sample(
        self, seeds: np.ndarray, fanout: Sequence[int], key: int, *, relabel_last: bool = True
    ) -> Blocks:
        """Sample the neighborhood of `seeds`, as `CpuSampler.sample` does.

        Waits for the device once a hop, to read how many nodes it found and how many edges the next
        one has, and nowhere else.
        """
        seeds = self._on_device(torch.tensor(np.asarray(seeds), dtype=torch.int64))
        self._known.zero_()
        self._known[seeds] = self._true
        self._local[seeds] = self._numbers(0, len(seeds))

        frontier = seeds
        nodes, rowptrs = [frontier], [seeds.new_zeros(1)]
        neighbors: list[Tensor] = []
        cols: list[Tensor] = []
        edge_base, node_base = 0, len(seeds)
        edges = int(self._taken(self.degree[seeds], fanout[0]).sum())
        for hop, k in enumerate(fanout):
            hop_key = mix64_of_int((key + (hop + 1) * GOLDEN) & MASK64)
            found, ends = self._expand(frontier, k, hop_key, edges)
            rowptrs.append(ends + edge_base)
            neighbors.append(found)
            edge_base += edges
            if relabel_last or hop < len(fanout) - 1:
                next_k = fanout[hop + 1] if hop + 1 < len(fanout) else 0
                frontier, edges = self._number(found, node_base, next_k)
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

    def _expand(self, frontier: Tensor, k: int, key: int, edges: int) -> tuple[Tensor, Tensor]:
        """The sampled neighbors of the frontier's nodes in edge order [edges], and where those of
        each node end, int64 [len(frontier)]."""
        degree, start = self.degree[frontier], self.colptr[frontier]
        taken = self._taken(degree, k)
        ends = taken.cumsum(0)
        if k < 0 or k >= self.max_degree:
            shifts = torch.repeat_interleave(start - (ends - taken), taken, output_size=edges)
            return self.row[shifts + torch.arange(edges, device=self.device)], ends
        # One place more, where the draws of nodes with fewer than k neighbors go.
        found = self.row.new_empty(edges + 1)
        rows = max(1, DRAWS_A_STEP // max(k, 1))
        column = torch.arange(k, device=self.device)
        for i in range(0, len(frontier) if edges else 0, rows):
            piece = slice(i, i + rows)
            count = taken[piece, None]
            drawn = self._draw(frontier[piece], degree[piece], k, key)
            source = torch.where(column < count, start[piece, None] + drawn, 0)
            place = torch.where(column < count, ends[piece, None] - count + column, edges)
            found[place.flatten()] = self.row[source.flatten()]
        return found[:edges], ends

    def _draw(self, nodes: Tensor, degree: Tensor, k: int, key: int) -> Tensor:
        """k distinct ascending positions among each node's neighbors, [len(nodes), k]; all of
        them, in order, where there are no more than k. Floyd's algorithm over columns of nodes."""
        n = torch.arange(k, device=self.device)[:, None]
        row_keys = mix64(nodes * signed(NODE_STRIDE) + signed(key))
        draws = shift(mix64(row_keys + (n + 1) * signed(GOLDEN)), 32)
        highest = (degree - k).clamp_(min=0) + n
        positions = ((draws * (highest + 1)) >> 32).to(self._position_dtype)
        highest = highest.to(self._position_dtype)
        for i in range(1, k):
            twice = (positions[:i] == positions[i]).any(0)
            positions[i] = torch.where(twice, highest[i], positions[i])
        positions = positions.t().contiguous().sort(1).values
        return torch.where((degree > k)[:, None], positions, n.t().to(positions.dtype))

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
        edges = torch.where(new, self._taken(self.degree, next_k), 0).sum()
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

    @staticmethod
    def _taken(degree: Tensor, k: int) -> Tensor:
        return degree if k < 0 else degree.clamp(max=k)
