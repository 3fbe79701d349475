"""The network on blocks: layers of a model, with LayerNorm, ReLU and dropout between them.

Each layer computes only the nodes that the next one reads. Parameters carry the names of PyG's
layers (`convs.0.lin_l.weight`, ...), so a state dict moves between this network and `PygNetwork`
(engines/pyg.py) as it is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sagebench import registry
from sagebench.kernels.fused import norm_relu_dropout, plain_norm_relu_dropout
from sagebench.kernels.segment import (
    aggregate_beside_root,
    aggregate_with_root,
    segment_aggregate,
)
from sagebench.operations import has_kernels
from sagebench.sampling.blocks import Blocks
from sagebench.sampling.random import fold, signed


class Edges(NamedTuple):
    """Edges that a layer aggregates over, grouped by destination.

    rowptr: int [rows + 1] from 0. col: int [E], rows of the layer's input. degrees, row_degrees:
    float32 in-degrees in the whole graph of the input's rows and of the destinations; None unless
    the layer `needs_degrees`. root_ids: int64 [rows], rows of the input that are the destinations;
    None: its first. known: what the destinations behind those of rowptr aggregate: with root_ids
    the rows of these, otherwise all of it in turn. by_source: the edges grouped by source, colptr
    and destinations, those of an earlier layer's block among them.
    """

    rowptr: Tensor
    col: Tensor
    degrees: Tensor | None = None
    row_degrees: Tensor | None = None
    root_ids: Tensor | None = None
    known: Tensor | None = None
    by_source: tuple[Tensor, Tensor] | None = None


class Layer(nn.Module, ABC):
    """A layer of a model, made as Layer(in_channels, out_channels, last=..., **options).

    It gives `update`, and either `aggregator`, by which the input's rows are aggregated as they
    are, or `project` and `reduce`. Evaluation over the whole graph calls `project` once for every
    node where the layer `projects`, then `reduce` and `update` piece by piece.

    dtype: what it computes in; parameters are float32.
    """

    needs_degrees = False
    aggregator: str | None = None
    dtype = torch.float32

    @property
    def projects(self) -> bool:
        return self.aggregator is None

    def project(self, x: Tensor, degrees: Tensor | None) -> Tensor:
        """Per-node transform before aggregation: [n, in_channels] to [n, any width]."""
        raise NotImplementedError

    def reduce(self, z: Tensor, edges: Edges, own: Tensor | None = None) -> Tensor:
        """Aggregate over the edges, without use of any parameter: it may run on another device.

        z: [n, width], the input, or what `project` made of it. own: [rows, width], z of the
        destinations themselves; None: z's first rows. Returns [rows, any width].
        """
        assert self.aggregator is not None
        return segment_aggregate(z, edges.rowptr, edges.col, self.aggregator)

    @abstractmethod
    def update(self, reduced: Tensor, root: Tensor | None, *, projected: bool = False) -> Tensor:
        """The layer's output, [rows, out_channels].

        root: [rows, in_channels], the destinations' input, given to what has an `aggregator`.
        projected: `reduced` is of what `project` made.
        """

    def update_beside(self, both: Tensor, columns: int) -> Tensor:
        """`update` of [aggregated, root] in one matrix, each half padded from `columns` on."""
        reduced, root = both.split(both.shape[1] // 2, dim=1)
        return self.update(reduced[:, :columns], root[:, :columns])

    def forward(self, x: Tensor, edges: Edges) -> Tensor:
        """The layer's output in training, [rows, out_channels]. x: [n, in_channels]."""
        if self.aggregator is None:
            z = self.project(x.to(self.dtype), edges.degrees)
            return self.update(self.reduce(z, edges), None, projected=True)
        sums = edges.rowptr, edges.col
        if has_kernels(x) and self.aggregator != "max":
            both = aggregate_beside_root(
                x, *sums, self.aggregator == "mean", self.dtype,
                ids=edges.root_ids, known=edges.known, by_source=edges.by_source,
            )  # fmt: skip
            return self.update_beside(both, x.shape[1])
        reduced, root = aggregate_with_root(x, *sums, self.aggregator, edges.by_source)
        if edges.known is not None:
            behind = slice(len(reduced), None)
            mine = slice(None) if edges.root_ids is None else edges.root_ids[behind]
            reduced = torch.cat([reduced, edges.known[mine]])
            root = x[: len(reduced)]
        if edges.root_ids is not None:
            root = x[edges.root_ids]
        return self.update(reduced.to(self.dtype), root.to(self.dtype))

    def compile(self, **options: Any) -> None:
        """Have torch.compile make what is dense; by default nothing."""


class Linear(nn.Module):
    """PyG's product in GATConv and GCNConv: a weight whose bias the layer adds at the end."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.weight = nn.Linear(in_channels, out_channels, bias=False).weight


class Stack(nn.Module):
    """Layers of one model with LayerNorm, ReLU and dropout between them; the last goes straight to
    the classes.

    part: what of the model's module makes a layer. model: a name of `registry`. options: of the
    model, as its OPTIONS declare them. dtype: what is computed in; parameters and their gradients
    are float32.
    """

    part: str

    def __init__(
        self,
        model: str,
        widths: list[int],
        *,
        dropout: float = 0.0,
        options: Mapping[str, object] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """widths: of the input, of each hidden layer, and the number of classes."""
        super().__init__()
        make = getattr(registry.load("model", model), self.part)
        last = len(widths) - 2
        self.convs = nn.ModuleList(
            make(widths[k], widths[k + 1], last=k == last, **options or {}) for k in range(last + 1)
        )
        for layer in self.convs:
            if isinstance(layer, Layer):
                layer.dtype = dtype
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in widths[1:-1])
        self.dropout = dropout
        self.dtype = dtype


class Network(Stack):
    """The layers on blocks, each in the network's dtype from its aggregation on."""

    part = "Layer"
    _compiled: Callable[..., Tensor] | None = None

    def forward(
        self,
        features: Tensor,
        blocks: Blocks,
        gathered: bool = False,
        degrees: Tensor | None = None,
        known: Tensor | None = None,
    ) -> Tensor:
        """Logits of the seed nodes, [B, classes] of the network's dtype.

        features: float32 [N, in_channels] of every node of the graph, on the device of `blocks`,
        which the first layer aggregates from. gathered: they are those of the sample's nodes alone,
        in the sample's order; its last hop must be relabelled. degrees: float32 in-degrees of the
        sample's nodes, for layers that need them. known: what the nodes that the sample has no
        edges of aggregate in the first layer: as `features` of every node or, gathered, of them.
        """
        h = features
        for k, conv in enumerate(self.convs, start=1):
            rows = blocks.destinations(k)
            whole = k == 1 and not gathered
            edges = Edges(
                blocks.rowptr[: rows + 1],
                blocks.neighbors if whole else blocks.cols[: blocks.edges(k)],
                degrees if degrees is None else degrees[: blocks.sources(k)],
                degrees if degrees is None else degrees[:rows],
                blocks.node_ids[:rows] if whole else None,
                known if k == 1 else None,
                blocks.by_source_of(k),
            )
            h = conv(h, edges)
            if k < len(self.convs):
                h = self.activate(k, h, rows=blocks.node_ids[:rows], key=fold(blocks.key, k))
        return h

    def compile(self, **options: Any) -> None:
        """Have torch.compile make the dense parts; the aggregations are kernels already."""
        self._compiled = torch.compile(plain_norm_relu_dropout, **options)
        for conv in self.convs:
            conv.compile(**options)

    def activate(
        self, layer: int, h: Tensor, *, rows: Tensor | None = None, key: int = 0
    ) -> Tensor:
        """LayerNorm, ReLU and (in training) dropout after layer `layer`, counted from 1.

        rows: int64 [n] global node ids; with `key` they decide the dropout mask.
        """
        norm = self.norms[layer - 1]
        assert isinstance(norm, nn.LayerNorm)
        if self._compiled is not None and rows is not None:
            bits = torch.full((), signed(key), device=h.device)
            dropout = self.dropout if self.training else 0.0
            return self._compiled(h, norm.weight, norm.bias, dropout, bits, rows, norm.eps)
        return norm_relu_dropout(
            h,
            norm.weight,
            norm.bias,
            self.dropout,
            key,
            self.training,
            rows=rows,
            eps=norm.eps,
            overwrite=True,  # the layer's output, which nothing else reads
        )


def layer_class(model: str) -> type[Layer]:
    return registry.load("model", model).Layer


def parameter_count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def touch_parameters(model: nn.Module) -> Tensor:
    """A zero that depends on every parameter: the loss of a rank that has no seed nodes."""
    return torch.stack([parameter.sum() * 0 for parameter in model.parameters()]).sum()
