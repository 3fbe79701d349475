"""One micro-step of a trial's engine, recorded on device `meta` as a GPU would run it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from sagebench.engines.base import Batch, GraphSizes, engine_class
from sagebench.estimate.trace import RecordedStep, Recorder
from sagebench.grid.trial import Trial
from sagebench.training.trainer import LossModule

META = torch.device("meta")


class FusedDropout(TorchFunctionMode):
    """Dropout as it is on a GPU: one operation, which keeps a mask of one byte a value."""

    def __torch_function__(self, function, types, args=(), kwargs=None) -> Any:
        if function is torch.nn.functional.dropout:
            return _dropout(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))


def _dropout(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    if not training or p == 0 or inplace:
        return torch.nn.functional.dropout(x, p, training, inplace)
    return torch.native_dropout(x, p, True)[0]


class StepRecorder:
    """Records steps of any sizes for a trial on a graph: the engine's own model and batches.

    Trials that differ in what `make_model` and a batch do not read have the same steps. A compiled
    model (`compile: true`) is recorded as the one that it is compiled from, which takes more.
    """

    def __init__(self, trial: Trial, graph: GraphSizes, placement: str) -> None:
        """placement: where graph and features are, as Placement.chosen has it; of an engine that
        has no choice any."""
        self.trial, self.placement = trial, placement
        self.engine = engine_class(trial)
        with META:
            self.module = LossModule(self.engine.make_model(trial, graph)).train()
        self.parameters = sum(p.numel() for p in self.module.parameters())
        self.features = torch.empty(graph.num_nodes, graph.num_features, device=META)
        self._step(self._batch([2] * (trial.layers + 1), [2] * trial.layers))  # what is made once

    def record(self, nodes_per_hop: Sequence[int], edges_per_hop: Sequence[int]) -> RecordedStep:
        """nodes_per_hop: of the hops 0 (the seed nodes) to L. edges_per_hop: of the hops 1 to L."""
        batch = self._batch(nodes_per_hop, edges_per_hop)
        with Recorder() as recorder:
            self._step(batch)
        return RecordedStep(
            batch_bytes=_storages(batch, but=self.features),
            trace=recorder.trace,
            flops=recorder.flops,
            bytes_moved=recorder.bytes_moved,
            operations=recorder.operations,
        )

    def _batch(self, nodes_per_hop: Sequence[int], edges_per_hop: Sequence[int]) -> Batch:
        return self.engine.batch_of_sizes(
            self.trial, self.placement, self.features, nodes_per_hop, edges_per_hop
        )

    def _step(self, batch: Batch) -> None:
        """As Trainer.micro_step, from gradients that are not there yet."""
        self.module.zero_grad(set_to_none=True)
        with FusedDropout():
            loss, _ = self.module(batch.inputs, batch.labels)
            (loss / batch.micro_batch.step_seeds).backward()


def _storages(batch: Batch, but: Tensor) -> tuple[int, ...]:
    """Bytes of everything that a batch's tensors lie in, other than those of `but`."""
    found = {}
    for tensor in _tensors((batch.inputs, batch.labels)):
        storage = tensor.untyped_storage()
        found[storage._cdata] = storage.nbytes()
    found.pop(but.untyped_storage()._cdata, None)
    return tuple(found.values())


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [t for part in value for t in _tensors(part)] if isinstance(value, tuple) else []
