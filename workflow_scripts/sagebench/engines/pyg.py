"""PyG's path: its layers, called as its users call them, and its NodeLoader with our or its own
sampler. Each engine of PyG's parts is a layout of these."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map
from torch_geometric.data import Data
from torch_geometric.loader import NodeLoader
from torch_geometric.sampler import BaseSampler, NodeSamplerInput, SamplerOutput
from torch_geometric.utils import trim_to_layer

from sagebench import registry
from sagebench.engines import base
from sagebench.engines.base import Batch, GraphSizes, network_arguments, seeds_of_sizes
from sagebench.engines.loaders import Placement
from sagebench.engines.precision import compute_dtype
from sagebench.errors import UserError
from sagebench.graph.store import GraphStore
from sagebench.grid.trial import Trial
from sagebench.models.base import Stack, layer_class
from sagebench.sampling.blocks import torch_view
from sagebench.sampling.cpu import CpuSampler
from sagebench.sampling.order import MicroBatch, sample_key

LONGEST_TEMPORARY_FOLDER = 75
"""a socket's path takes 107 characters, 32 of them below the temporary folder; a loader process
that cannot have one loses its batches, and the rank would wait for them for ever"""

NARROW = frozenset(
    {"addbmm", "addmm", "baddbmm", "bmm", "linear", "matmul", "__matmul__", "mm", "mv", "prelu"}
)
WIDE = frozenset(
    {"cross_entropy", "cumsum", "exp", "group_norm", "layer_norm", "log", "log_softmax", "nll_loss"}
    | {"norm", "pow", "__pow__", "prod", "reciprocal", "rsqrt", "softmax", "sum"}
)
"""what computes in bfloat16 and what in float32, of the functions that a graph network calls
(https://docs.pytorch.org/docs/stable/amp.html, "CUDA Op-Specific Behavior")"""

Sampled = tuple[MicroBatch, NodeLoader | None, Any]
"""a micro-batch, the loader that sampled it and what it sampled; no loader where there is no seed
node"""


class PygNetwork(Stack):
    """PyG's own layers over the sampled graph, with the parameters of `base.Network`.

    layout: `whole` computes every sampled node in every layer, as the slides do; `trimmed` drops,
    layer by layer, what the seed nodes no longer need (PyG's `trim_to_layer`); `bipartite` calls
    the layers on pairs of sources and destinations. dtype: bfloat16 computes under torch.autocast.
    """

    part = "peer"

    def __init__(self, model: str, widths: list[int], layout: str, **others: Any) -> None:
        super().__init__(model, widths, **others)
        self.model = registry.load("model", model)
        self.layout = layout

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor,
        nodes_per_hop: tuple[int, ...],
        edges_per_hop: tuple[int, ...],
        degrees: Tensor | None = None,
    ) -> Tensor:
        """Logits of the seed nodes, [B, classes].

        x: float32 [n, in_channels] of the sampled nodes, seeds first, then hop by hop.
        edge_index: int64 [2, e] local (source, destination), hop by hop. degrees: float32 [n], the
        nodes' in-degrees in the graph, for models that need them.
        """
        edges = (edge_index,)
        if degrees is not None:
            edges = self.model.peer_edges(edge_index, degrees)
        with autocast(x.device.type, self.dtype):
            for k in range(len(self.convs)):
                if self.layout == "trimmed":
                    x, edge_index, _ = trim_to_layer(
                        k, list(nodes_per_hop), list(edges_per_hop), x, edge_index
                    )
                    edges = (edge_index,)
                read: Tensor | tuple[Tensor, Tensor] = x
                if self.layout == "bipartite":
                    rows = sum(nodes_per_hop[: len(self.convs) - k])
                    edges = (edge_index[:, : sum(edges_per_hop[: len(self.convs) - k])],)
                    read = x, x[:rows]
                x = self.layer(k, read, *edges)
        return x[: nodes_per_hop[0]]

    def layer(self, k: int, read: Tensor | tuple[Tensor, Tensor], *edges: Tensor) -> Tensor:
        """The layer `k`, counted from 0, and what follows it."""
        x = self.convs[k](read, *edges)
        if k < len(self.norms):
            x = F.relu(self.norms[k](x))
            x = F.dropout(x, self.dropout, self.training)
        return x


def autocast(device_type: str, dtype: torch.dtype) -> AbstractContextManager[Any]:
    """The context in which a float32 model computes its products in `dtype`: torch.autocast, and on
    device `meta`, which it refuses, the casts that it makes on CUDA."""
    if device_type != "meta":
        return torch.autocast(device_type, torch.bfloat16, enabled=dtype == torch.bfloat16)
    return _CastsOfCuda(dtype) if dtype == torch.bfloat16 else nullcontext()


class _CastsOfCuda(TorchFunctionMode):
    def __init__(self, narrow: torch.dtype) -> None:
        super().__init__()
        self.narrow = narrow

    def __torch_function__(self, function, types, args=(), kwargs=None) -> Any:
        name = function.__name__
        if name in NARROW or name in WIDE:
            dtype = self.narrow if name in NARROW else torch.float32

            def cast(value: Any) -> Any:
                lower = isinstance(value, Tensor) and value.is_floating_point()
                return value.to(dtype) if lower and value.dtype != torch.float64 else value

            args, kwargs = tree_map(cast, (args, kwargs or {}))
        return function(*args, **(kwargs or {}))


class KeyedSampler(BaseSampler):
    """Adapts our samplers to PyG's BaseSampler; a batch's `input_id` is its micro-batch."""

    def __init__(self, store: GraphStore, trial: Trial, kind: type[CpuSampler]) -> None:
        self.store = store
        self.trial = trial
        self.kind = kind
        self.epoch = 0
        self._sampler: CpuSampler | None = None

    def sample_from_nodes(self, inputs: NodeSamplerInput, **_: Any) -> SamplerOutput:
        if self._sampler is None:  # once in each worker process
            self._sampler = self.kind(self.store.colptr, self.store.row)
        key = sample_key(self.trial.seed, self.epoch, int(inputs.input_id[0]))
        blocks = self._sampler.sample(inputs.node.numpy(), self.trial.fanout, key)
        row, col = blocks.edge_index()
        return SamplerOutput(
            node=blocks.node_ids,
            row=row,
            col=col,
            edge=None,
            num_sampled_nodes=list(blocks.nodes_per_hop),
            num_sampled_edges=list(blocks.edges_per_hop),
            metadata=(inputs.input_id, inputs.time),
        )

    def sample_from_edges(self, *_: Any, **__: Any) -> SamplerOutput:
        raise TypeError("sagebench samples from nodes")


class PygEngine(base.Engine[Sampled]):
    """Base of the engines whose batches come from PyG's loader, which samples and gathers on the
    host. layout: of PygNetwork."""

    layout: str

    def prepare(self, store: GraphStore, placement: Placement | None) -> None:
        trial = self.trial
        temporary = tempfile.gettempdir()
        if trial.sampling_workers and len(temporary) > LONGEST_TEMPORARY_FOLDER:
            raise UserError(
                f"the loader processes of engine '{trial.engine}' cannot meet below {temporary}: "
                f"set TMPDIR to a folder of at most {LONGEST_TEMPORARY_FOLDER} characters"
            )
        self._sampler = self._make_sampler(store)
        self._data = Data(
            x=torch_view(store.features),
            y=torch_view(store.labels),
            num_nodes=store.num_nodes,
            # NodeLoader wants to find one to replace; the sampler reads the store's.
            edge_index=torch.empty(2, 0, dtype=torch.int64),
        )
        if layer_class(trial.model).needs_degrees:
            self._data.degrees = torch.from_numpy(np.diff(store.colptr)).float()

    @classmethod
    def make_model(cls, trial: Trial, graph: GraphSizes) -> nn.Module:
        arguments = network_arguments(trial, graph)
        return PygNetwork(**arguments, dtype=compute_dtype(trial), layout=cls.layout)

    @staticmethod
    def batch_of_sizes(
        trial: Trial,
        placement: str,
        features: Tensor,
        nodes_per_hop: Sequence[int],
        edges_per_hop: Sequence[int],
    ) -> Batch:
        nodes = sum(nodes_per_hop)
        data = Data(
            x=features.new_empty(nodes, features.shape[1]),
            edge_index=features.new_empty(2, sum(edges_per_hop), dtype=torch.int64),
            y=features.new_empty(nodes, dtype=torch.int64),
            num_sampled_nodes=nodes_per_hop,
            num_sampled_edges=edges_per_hop,
        )
        if layer_class(trial.model).needs_degrees:
            data.degrees = features.new_empty(nodes)
        return as_batch(seeds_of_sizes(nodes_per_hop[0]), data, key=0)

    def _make_sampler(self, store: GraphStore) -> BaseSampler:
        module = registry.load("sampler", self.trial.sampler)
        if hasattr(module, "pyg_sampler"):
            return module.pyg_sampler(store, self.trial.fanout)
        return KeyedSampler(store, self.trial, module.Sampler)

    def _loader(self, micro_batches: list[MicroBatch], workers: int) -> NodeLoader:
        """PyG's loader over these micro-batches, one a batch."""
        if isinstance(self._sampler, KeyedSampler) and micro_batches:
            self._sampler.epoch = micro_batches[0].epoch
        sizes = [len(micro_batch.seeds) for micro_batch in micro_batches]
        ends = np.cumsum([0, *sizes])
        return NodeLoader(
            self._data,
            node_sampler=self._sampler,
            input_nodes=torch.from_numpy(
                np.concatenate([micro_batch.seeds for micro_batch in micro_batches])
            ),
            input_id=torch.repeat_interleave(
                torch.tensor([micro_batch.index for micro_batch in micro_batches]),
                torch.tensor(sizes),
            ),
            batch_sampler=[list(range(first, last)) for first, last in pairwise(ends)],
            num_workers=workers,
            # None is PyG's choice; without workers the phases are timed, each on its own.
            filter_per_worker=None if workers else False,
            pin_memory=self.device.type == "cuda",
        )

    def sample(self, micro_batch: MicroBatch) -> Sampled:
        if not len(micro_batch.seeds):
            return micro_batch, None, None
        loader = self._loader([micro_batch], workers=0)
        return micro_batch, loader, loader.collate_fn(list(range(len(micro_batch.seeds))))

    def load(self, sampled: Sampled) -> Batch:
        micro_batch, loader, output = sampled
        if loader is None:
            return empty_batch(micro_batch, self.trial.layers, self.device)
        return self._batch(micro_batch, loader.filter_fn(output))

    def stream(self, micro_batches: Iterable[MicroBatch]) -> Iterator[Batch]:
        micro_batches = list(micro_batches)
        full = [micro_batch for micro_batch in micro_batches if len(micro_batch.seeds)]
        if full:
            loader = self._loader(full, self.trial.sampling_workers)
            for micro_batch, data in zip(full, loader, strict=True):
                yield self._batch(micro_batch, data)
        for micro_batch in micro_batches[len(full) :]:
            yield empty_batch(micro_batch, self.trial.layers, self.device)

    def _batch(self, micro_batch: MicroBatch, data: Data) -> Batch:
        key = sample_key(self.trial.seed, micro_batch.epoch, micro_batch.index)
        return as_batch(micro_batch, data.to(self.device, non_blocking=True), key)


def as_batch(micro_batch: MicroBatch, data: Data, key: int) -> Batch:
    """Batch of PyG's loader, as the network takes it."""
    nodes, edges = tuple(data.num_sampled_nodes), tuple(data.num_sampled_edges)
    inputs: tuple[object, ...] = data.x, data.edge_index, nodes, edges
    if "degrees" in data:
        inputs = *inputs, data.degrees
    return Batch(micro_batch, inputs, data.y[: len(micro_batch.seeds)], nodes, edges, key)


def empty_batch(micro_batch: MicroBatch, layers: int, device: torch.device) -> Batch:
    """The batch of a rank that the epoch's last step left without seed nodes."""
    labels = torch.empty(0, dtype=torch.int64, device=device)
    return Batch(micro_batch, (), labels, (0,) * (layers + 1), (0,) * layers, 0)
