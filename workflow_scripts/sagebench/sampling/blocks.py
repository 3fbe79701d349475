"""Sampled blocks: the message-flow graph that a sampler returns and a model reads."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Blocks(NamedTuple):
    """A sampled neighborhood: one destination-grouped CSR whose prefixes are the layers' blocks.

    Nodes are numbered seeds first, then hop by hop; each node stands once, in the hop that found
    it first, and the new nodes of a hop stand in ascending global id. Only nodes new in hop h - 1
    are expanded in hop h, each once (PyG's semantics; DGL samples every destination again in every
    layer). Layer k of L therefore computes the first `destinations(k)` nodes, from edges that are
    a prefix of all edges, and reads the first `sources(k)` nodes.

    node_ids: int64 [nodes] global ids. The nodes that only the last hop found are in it when the
    sample was taken with `relabel_last`; the first layer can do without (see `neighbors`).
    rowptr: int64 [rows + 1], where rows are the nodes of the hops 0 to L - 1.
    neighbors: int32 or int64 [edges] global ids of the sources, edges grouped by destination.
    cols: int32 [edges, or those of the hops 1 to L - 1] the same sources as local numbers.
    nodes_per_hop: new nodes of the hops 0 to L; the last is 0 without `relabel_last`.
    edges_per_hop: sampled edges of the hops 1 to L.
    key: 64-bit key of the micro-batch (dropout draws from it too).
    by_source: the edges of `cols` grouped by source: int32 [nodes + 1] and their destinations,
    ascending for each source; None where the sampler does not make them.
    """

    node_ids: Tensor
    rowptr: Tensor
    neighbors: Tensor
    cols: Tensor
    nodes_per_hop: tuple[int, ...]
    edges_per_hop: tuple[int, ...]
    key: int
    by_source: tuple[Tensor, Tensor] | None = None

    @property
    def layers(self) -> int:
        return len(self.edges_per_hop)

    @property
    def num_seeds(self) -> int:
        return self.nodes_per_hop[0]

    def destinations(self, layer: int) -> int:
        """Number of nodes that layer `layer` (1 is the first) computes."""
        return sum(self.nodes_per_hop[: self.layers - layer + 1])

    def sources(self, layer: int) -> int:
        """Number of nodes that layer `layer` reads."""
        return sum(self.nodes_per_hop[: self.layers - layer + 2])

    def edges(self, layer: int) -> int:
        """Number of edges that layer `layer` aggregates."""
        return sum(self.edges_per_hop[: self.layers - layer + 1])

    def by_source_of(self, layer: int) -> tuple[Tensor, Tensor] | None:
        """`by_source` for the nodes that layer `layer` reads, with edges of earlier layers' blocks
        behind its own; None where it lacks some of the layer's edges."""
        if self.by_source is None or len(self.cols) < self.edges(layer):
            return None
        colptr, destinations = self.by_source
        return colptr[: self.sources(layer) + 1], destinations

    def edge_index(self) -> Tensor:
        """int64 [2, edges] local (source, destination) of every edge, as PyG wants them.

        Needs `relabel_last`.
        """
        if len(self.cols) != len(self.neighbors):
            raise ValueError("edge_index needs a sample whose last hop is relabelled")
        degree = self.rowptr.diff()
        destination = torch.repeat_interleave(
            torch.arange(len(degree), device=degree.device), degree
        )
        return torch.stack([self.cols.long(), destination])

    def with_last_hop_known(self) -> Blocks:
        """The sample with one more hop, of which the nodes that were new last need no edges: what
        they aggregate is known. The rows of `rowptr` are those of the hops before."""
        return self._replace(
            nodes_per_hop=(*self.nodes_per_hop, 0), edges_per_hop=(*self.edges_per_hop, 0)
        )

    def with_empty_hops(self, hops: int) -> Blocks:
        """The sample, whose last hop is relabelled, with so many more hops that find nothing."""
        if not hops:
            return self
        none = (0,) * hops
        rows = self.rowptr[-1:].expand(self.nodes_per_hop[-1])
        return self._replace(
            rowptr=torch.cat([self.rowptr, rows]),
            nodes_per_hop=self.nodes_per_hop + none,
            edges_per_hop=self.edges_per_hop + none,
        )

    def to(self, device: torch.device) -> Blocks:
        """The same sample on `device`; copies from pinned memory do not block."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Blocks:
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Blocks:
        node_ids, rowptr, neighbors, cols = map(change, self[:4])
        by_source = self.by_source and (change(self.by_source[0]), change(self.by_source[1]))
        return Blocks(node_ids, rowptr, neighbors, cols, *self[4:7], by_source)


def edges_of_rows(rowptr: Tensor, cols: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rowptr, int64 [len(rows) + 1], and columns of some rows of a CSR, in their order."""
    starts, ends = rowptr[rows], rowptr[rows + 1]
    found = torch.cat([ends.new_zeros(1), (ends - starts).cumsum(0)])
    edges = torch.repeat_interleave(starts - found[:-1], ends - starts)
    return found, cols[edges.add_(torch.arange(len(edges), device=edges.device))]


def torch_view(array: np.ndarray) -> Tensor:
    """The (memory-mapped, read-only) array as a CPU tensor, without a copy. Never write to it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable.*")
        return torch.from_numpy(array)
