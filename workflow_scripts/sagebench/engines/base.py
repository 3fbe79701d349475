"""The engines: how a micro-batch is sampled, loaded and computed. One interface, a grid axis."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, NamedTuple, Protocol, TypedDict, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from sagebench import registry
from sagebench.engines.loaders import Loader, Placement
from sagebench.engines.precision import compile_model
from sagebench.errors import UserError
from sagebench.graph.store import GraphStore
from sagebench.grid.trial import Trial
from sagebench.sampling.order import MicroBatch

Sampled = TypeVar("Sampled")
"""what an engine samples, not loaded yet"""


class Batch(NamedTuple):
    """A micro-batch on the device, ready for the engine's model.

    inputs: what the model's forward takes. labels: int64 [B] of the seed nodes.
    """

    micro_batch: MicroBatch
    inputs: tuple[object, ...]
    labels: Tensor
    nodes_per_hop: tuple[int, ...]
    edges_per_hop: tuple[int, ...]
    key: int


class GraphSizes(Protocol):
    """Sizes of a graph, from its store or its manifest."""

    @property
    def num_nodes(self) -> int: ...
    @property
    def num_features(self) -> int: ...
    @property
    def num_classes(self) -> int: ...


class Engine(ABC, Generic[Sampled]):
    """model: parameters named as GraphSAGE names them, so that one evaluator serves all.

    loader, placement: how and where the `blocks` engine samples; None where PyG does.
    on_side_stream: whether batches are brought to a GPU on a stream of their own, ahead of the
    step, or on the step's.
    """

    loader: Loader | None = None
    placement: Placement | None = None
    on_side_stream = False

    def __init__(
        self,
        trial: Trial,
        store: GraphStore,
        device: torch.device,
        placement: Placement | None = None,
    ) -> None:
        """placement: that of all ranks; None: decided here.

        Raises UserError where the trial asks for what is not there: a trial never falls back.
        """
        self.trial = trial
        self.device = device
        self.model = self.make_model(trial, store).to(device)
        if trial.compile:
            compile_model(self.model, device)
        self.prepare(store, placement)

    @abstractmethod
    def prepare(self, store: GraphStore, placement: Placement | None) -> None:
        """Makes what is needed beside the model, once, with the constructor's arguments."""

    @classmethod
    @abstractmethod
    def make_model(cls, trial: Trial, graph: GraphSizes) -> nn.Module:
        """The trial's model for a graph."""

    @staticmethod
    def batch_of_sizes(
        trial: Trial,
        placement: str,
        features: Tensor,
        nodes_per_hop: Sequence[int],
        edges_per_hop: Sequence[int],
    ) -> Batch:
        """Batch as `load` gives it of so many nodes (of the hops 0 to L) and edges (1 to L): shapes
        and types alone, to be computed on device `meta`.

        placement: as Placement.chosen has it. features: float32 of every node of the graph; the
        batch lies on the same device.
        """
        raise NotImplementedError

    @abstractmethod
    def sample(self, micro_batch: MicroBatch) -> Sampled:
        """Sample a micro-batch's neighborhood, here and now (the phase `sampling`)."""

    @abstractmethod
    def load(self, sampled: Sampled) -> Batch:
        """Gather what the model reads and bring it to the device (the phase `data`)."""

    def smallest_batch(self, micro_batch: MicroBatch) -> Batch:
        """What compiles and loads all that a step needs. micro_batch: of one seed node."""
        return self.load(self.sample(micro_batch))

    @abstractmethod
    def stream(self, micro_batches: Iterable[MicroBatch]) -> Iterator[Batch]:
        """The batches of these micro-batches in order, sampled in background workers."""


def seeds_of_sizes(count: int) -> MicroBatch:
    """A micro-batch that is a step of its own, of any `count` nodes."""
    return MicroBatch(1, 0, 0, np.arange(count), count, True)


def make_engine(
    trial: Trial, store: GraphStore, device: torch.device, placement: Placement | None = None
) -> Engine:
    placements = registry.declared("engine", trial.engine).get("PLACEMENTS", ["auto"])
    if trial.placement not in placements:
        raise UserError(
            f"placement is '{trial.placement}', which engine '{trial.engine}' has not: write "
            f"placement: {' or '.join(placements)}"
        )
    return engine_class(trial)(trial, store, device, placement)


def engine_class(trial: Trial) -> type[Engine]:
    return registry.load("engine", trial.engine).Engine


class NetworkArguments(TypedDict):
    """Constructor arguments of sagebench.models.base.Network and its peers."""

    model: str
    widths: list[int]
    dropout: float
    options: dict[str, object]


def network_arguments(trial: Trial, graph: GraphSizes) -> NetworkArguments:
    own = registry.declared("model", trial.model).get("OPTIONS", {})
    options = {key: value for key, value in trial.options.items() if key in own}
    if "AGGREGATORS" in registry.declared("model", trial.model):
        options["aggregator"] = trial.aggregator
    hidden = [trial.hidden_channels] * (trial.layers - 1)
    return {
        "model": trial.model,
        "widths": [graph.num_features, *hidden, graph.num_classes],
        "dropout": trial.dropout,
        "options": options,
    }
