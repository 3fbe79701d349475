"""From an engine's name to the engine; each is imported only where it is asked for."""

from __future__ import annotations

import torch

from sagebench.engines.base import Engine
from sagebench.engines.placement import Placement
from sagebench.errors import UserError
from sagebench.graph.store import GraphStore
from sagebench.grid.trial import Trial


def make_engine(
    trial: Trial, store: GraphStore, device: torch.device, placement: Placement | None = None
) -> Engine:
    """The engine that the trial names. placement: that of all ranks; None: decided here.

    Raises UserError where the trial asks for what is not there: a trial never falls back.
    """
    return engine_class(trial.engine)(trial, store, device, placement)


def engine_class(name: str) -> type[Engine]:
    """Raises UserError for a name that is no engine's."""
    if name == "blocks":
        from sagebench.engines.blocks import BlocksEngine

        return BlocksEngine
    if name in ("reference", "trimmed"):
        from sagebench.engines.pyg import PygEngine

        return PygEngine
    raise UserError(f"engine '{name}' is not known: write blocks, reference or trimmed")
