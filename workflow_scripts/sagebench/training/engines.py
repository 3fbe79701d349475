"""The engines: how a micro-batch is sampled, loaded and computed. One interface, a grid axis."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from sagebench.errors import UserError
from sagebench.graph.store import GraphStore
from sagebench.grid.trial import Trial
from sagebench.sampling.order import MicroBatch
from sagebench.training.feeds import Feed
from sagebench.training.placement import Placement


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

    feed, placement: how and where the `blocks` engine samples; None where PyG does.
    """

    model: nn.Module
    feed: Feed | None
    placement: Placement | None

    def sample(self, micro_batch: MicroBatch) -> Any:
        """Sample a micro-batch's neighborhood, here and now (the phase `sampling`)."""

    def load(self, sampled: Any) -> Batch:
        """Gather what the model reads and bring it to the device (the phase `data`)."""

    def stream(self, micro_batches: Iterable[MicroBatch]) -> Iterator[Batch]:
        """The batches of these micro-batches in order, sampled in background workers."""


def make_engine(
    trial: Trial, store: GraphStore, device: torch.device, placement: Placement | None = None
) -> Engine:
    """The engine that the trial names. placement: that of all ranks; None: decided here.

    Raises UserError where the trial asks for what is not there: a trial never falls back.
    """
    if trial.engine == "blocks":
        from sagebench.training.blocks_engine import BlocksEngine

        return BlocksEngine(trial, store, device, placement)
    if trial.engine in ("reference", "trimmed"):
        from sagebench.training.pyg_engine import PygEngine

        return PygEngine(trial, store, device)
    raise UserError(f"engine '{trial.engine}' is not known: write blocks, reference or trimmed")


def model_arguments(trial: Trial, store: GraphStore) -> dict[str, Any]:
    return {
        "in_channels": store.num_features,
        "hidden_channels": trial.hidden_channels,
        "out_channels": store.num_classes,
        "layers": trial.layers,
        "dropout": trial.dropout,
        "aggregator": trial.aggregator,
    }
