"""The sampler `uniform` on a device, in tensor operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from sagebench.operations import runs_kernels
from sagebench.sampling.blocks import Blocks
from sagebench.sampling.device.by_source import by_source
from sagebench.sampling.random import GOLDEN, NODE_STRIDE, hop_key, mix64_tensor, shift, signed
from sagebench.sampling.tensor import TensorSampler

if TYPE_CHECKING:
    from sagebench.sampling.device.kernels import KernelSampler

DEVICE_SAMPLER = "on a device, in tensor operations"
LARGEST_FANOUT = 32
"""draws of a node that a kernel keeps in registers"""
DRAWS_A_STEP = 1 << 23
"""draws held at a time: 64 MiB an intermediate"""


def without_empty_hops(fanout: Sequence[int]) -> Sequence[int]:
    """A fanout up to the zeros at its end."""
    hops = len(fanout)
    while hops and fanout[hops - 1] == 0:
        hops -= 1
    return fanout[:hops]


class Sampler(TensorSampler):
    """With one kernel a hop where there are kernels, and every hop takes 1 to LARGEST_FANOUT."""

    _kernels: KernelSampler | None = None

    @classmethod
    def groups_by_source(cls, fanout: Sequence[int], device: torch.device) -> bool:
        drawn = without_empty_hops(fanout)
        fits = bool(drawn) and all(1 <= k <= LARGEST_FANOUT for k in drawn)
        return fits and runs_kernels(device)

    def sample(
        self, seeds: np.ndarray, fanout: Sequence[int], key: int, *, relabel_last: bool = True
    ) -> Blocks:
        if not len(seeds) or not self.groups_by_source(fanout, self.device):
            return super().sample(seeds, fanout, key, relabel_last=relabel_last)
        from sagebench.sampling.device.kernels import KernelSampler

        self._kernels = self._kernels or KernelSampler(self.colptr, self.row)
        drawn = without_empty_hops(fanout)
        empty = len(fanout) - len(drawn)  # what the last drawn hop finds is numbered, if more come
        blocks, owner = self._kernels.sample(
            seeds, drawn, key, relabel_last=relabel_last or empty > 0
        )
        grouped = by_source(blocks.cols, owner, len(blocks.node_ids))
        return blocks._replace(by_source=grouped).with_empty_hops(empty)

    def most_edges(self, degree: Tensor, k: int) -> Tensor:
        return degree if k < 0 else degree.clamp(max=k)

    def expand(
        self, frontier: Tensor, k: int, hop: int, key: int, most: int
    ) -> tuple[Tensor, Tensor]:
        edges = most
        degree, start = self.degree[frontier], self.colptr[frontier]
        taken = self.most_edges(degree, k)
        ends = taken.cumsum(0)
        if k < 0 or k >= self.max_degree:
            shifts = torch.repeat_interleave(start - (ends - taken), taken, output_size=edges)
            return self.row[shifts + torch.arange(edges, device=self.device)], ends
        # One place more, where the draws of nodes with fewer than k neighbors go.
        found = self.row.new_empty(edges + 1)
        rows = max(1, DRAWS_A_STEP // max(k, 1))
        keyed = hop_key(key, hop)
        column = torch.arange(k, device=self.device)
        for i in range(0, len(frontier) if edges else 0, rows):
            piece = slice(i, i + rows)
            count = taken[piece, None]
            drawn = self._draw(frontier[piece], degree[piece], k, keyed)
            source = torch.where(column < count, start[piece, None] + drawn, 0)
            place = torch.where(column < count, ends[piece, None] - count + column, edges)
            found[place.flatten()] = self.row[source.flatten()]
        return found[:edges], ends

    def _draw(self, nodes: Tensor, degree: Tensor, k: int, key: int) -> Tensor:
        """k distinct ascending positions among each node's neighbors, [len(nodes), k]; all of
        them, in order, where there are no more than k. Floyd's algorithm over columns of nodes."""
        n = torch.arange(k, device=self.device)[:, None]
        row_keys = mix64_tensor(nodes * signed(NODE_STRIDE) + signed(key))
        draws = shift(mix64_tensor(row_keys + (n + 1) * signed(GOLDEN)), 32)
        dtype = torch.int32 if self.max_degree < 1 << 31 else torch.int64
        highest = (degree - k).clamp_(min=0) + n
        positions = ((draws * (highest + 1)) >> 32).to(dtype)
        highest = highest.to(dtype)
        for i in range(1, k):
            twice = (positions[:i] == positions[i]).any(0)
            positions[i] = torch.where(twice, highest[i], positions[i])
        positions = positions.t().contiguous().sort(1).values
        return torch.where((degree > k)[:, None], positions, n.t().to(positions.dtype))
