"""The engines: how a micro-batch is sampled, loaded and computed. One interface, a grid axis."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn

from sagebench.engines.loaders import Loader
from sagebench.engines.placement import Placement
from sagebench.graph.store import GraphStore
from sagebench.grid.trial import Trial
from sagebench.sampling.order import MicroBatch


class Batch(NamedTuple):
    """A micro-batch on the device, ready for the engine's model.

    inputs: what the model's forward takes. labels: int64 [B] of the seed nodes.
    """

    micro_batch: MicroBatch
    inputs: tuple[Any, ...]
    labels: Tensor
    nodes_per_hop: tuple[int, ...]
    edges_per_hop: tuple[int, ...]
    key: int


class Engine(Protocol):
    """model: parameters named as GraphSAGE names them, so that one evaluator serves all.

    loader, placement: how and where the `blocks` engine samples; None where PyG does.
    """

    model: nn.Module
    loader: Loader | None
    placement: Placement | None

    def sample(self, micro_batch: MicroBatch) -> Any:
        """Sample a micro-batch's neighborhood, here and now (the phase `sampling`)."""

    def load(self, sampled: Any) -> Batch:
        """Gather what the model reads and bring it to the device (the phase `data`)."""

    def stream(self, micro_batches: Iterable[MicroBatch]) -> Iterator[Batch]:
        """The batches of these micro-batches in order, sampled in background workers."""


def model_arguments(trial: Trial, store: GraphStore) -> dict[str, Any]:
    return {
        "in_channels": store.num_features,
        "hidden_channels": trial.hidden_channels,
        "out_channels": store.num_classes,
        "layers": trial.layers,
        "dropout": trial.dropout,
        "aggregator": trial.aggregator,
    }
