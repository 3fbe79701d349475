"""The sampler `labor` on a device, in tensor operations."""

from __future__ import annotations

import torch
from torch import Tensor

from sagebench.sampling.random import LABOR_STREAM, NODE_STRIDE, fold, mix64_tensor, shift, signed
from sagebench.sampling.tensor import TensorSampler

DEVICE_SAMPLER = "on a device, in tensor operations"
EDGES_A_STEP = 1 << 23
"""edges asked at a time, about: 64 MiB an intermediate"""


class Sampler(TensorSampler):
    def most_edges(self, degree: Tensor, k: int) -> Tensor:
        return torch.zeros_like(degree) if k == 0 else degree

    def expand(
        self, frontier: Tensor, k: int, hop: int, key: int, most: int
    ) -> tuple[Tensor, Tensor]:
        degree, start = self.degree[frontier], self.colptr[frontier]
        if k == 0 or not most:
            return self.row[:0], torch.zeros_like(degree)
        asked = degree.cumsum(0)
        pieces, counts = [], []
        # As many rows at a time as have about EDGES_A_STEP edges; the host waits for each piece.
        steps = -(-most // EDGES_A_STEP)
        bounds = torch.searchsorted(
            asked, torch.arange(1, steps, device=self.device) * most // steps
        ).tolist()
        for first, last in zip([0, *bounds], [*bounds, len(frontier)], strict=True):
            found, kept = self._kept(degree[first:last], start[first:last], k, key)
            pieces.append(found[kept])
            ends = torch.cat([kept.new_zeros(1, dtype=torch.int64), kept.cumsum(0)])
            row_ends = asked[first:last] - (asked[first - 1] if first else 0)
            counts.append(ends[row_ends].diff(prepend=ends[:1]))
        return torch.cat(pieces), torch.cat(counts).cumsum(0)

    def _kept(self, degree: Tensor, start: Tensor, k: int, key: int) -> tuple[Tensor, Tensor]:
        """Every neighbor of some rows, and which of them are kept."""
        edges = int(degree.sum())
        rows = torch.repeat_interleave(degree, output_size=edges)
        first = start - (degree.cumsum(0) - degree)
        found = self.row[first[rows] + torch.arange(edges, device=self.device)]
        if k < 0:
            return found, torch.ones_like(found, dtype=torch.bool)
        keyed = signed(fold(LABOR_STREAM, key))
        r = shift(mix64_tensor(found.long() * signed(NODE_STRIDE) + keyed), 32)
        return found, r * degree[rows] < k << 32  # below 2**63: ids and degrees have 31 bits
