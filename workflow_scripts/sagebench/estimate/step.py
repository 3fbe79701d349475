"""The cost of a trial's steps: recorded on device `meta` at two sizes, as a GPU would run them, and
replayed through torch's allocator."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import AbstractContextManager
from statistics import fmean, stdev
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from sagebench.engines.base import Batch, GraphSizes, engine_class
from sagebench.engines.loaders import gathers
from sagebench.estimate.allocator import CudaAllocator, RecordedStep, replay
from sagebench.estimate.memory import expected_maximum
from sagebench.estimate.probe import GraphFacts, Sample, Spread, StepCost
from sagebench.estimate.sample import RecordedSample, record_sample
from sagebench.estimate.trace import Recorder, tensors_in
from sagebench.grid.last_hop import table_aggregator
from sagebench.grid.trial import Trial
from sagebench.kernels.choice import kernels_chosen
from sagebench.operations import AUTO, PLAIN, Cost
from sagebench.pilot.records import deciding_values
from sagebench.training.trainer import LossModule

META = torch.device("meta")
STEPS, ORDERS = 20, 6
"""replayed: what is needed hardly changes after the first twenty steps; the first ones decide how
memory is cut up, hence several orders of sizes"""


class AsOnGpu(TorchFunctionMode):
    """Substitutes for operations that `meta` lacks or does unlike a GPU: dropout is one operation,
    which keeps a mask of one byte a value; a mask that chooses columns is taken to keep all, as
    PyG's search for self loops does, of which no graph store has any."""

    def __torch_function__(self, function, types, args=(), kwargs=None) -> Any:
        if function is torch.nn.functional.dropout:
            function = _dropout
        elif function is torch.Tensor.__getitem__ and isinstance(args[1], tuple):
            mask = args[1][-1]
            if isinstance(mask, Tensor) and mask.dtype == torch.bool and mask.is_meta:
                return args[0].clone()
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
        with self._kernels():
            batch = self._batch(nodes_per_hop, edges_per_hop)
        storages = [tensor.untyped_storage() for tensor in tensors_in((batch.inputs, batch.labels))]
        lies_in = {storage._cdata: storage.nbytes() for storage in storages}
        lies_in.pop(self.features.untyped_storage()._cdata, None)
        with Recorder() as recorder:
            self._step(batch)
        return RecordedStep(
            batch_bytes=tuple(lies_in.values()),
            trace=recorder.trace,
            flops=recorder.flops,
            costs=recorder.costs,
        )

    def _batch(self, nodes_per_hop: Sequence[int], edges_per_hop: Sequence[int]) -> Batch:
        return self.engine.batch_of_sizes(
            self.trial, self.placement, self.features, nodes_per_hop, edges_per_hop
        )

    def _kernels(self) -> AbstractContextManager[None]:
        """As the trial's own process chooses."""
        return kernels_chosen(AUTO if self.trial.asks_for_kernels else PLAIN, "meta")

    def _step(self, batch: Batch) -> None:
        """One Trainer.micro_step, with gradients still None."""
        self.module.zero_grad(set_to_none=True)
        with AsOnGpu(), self._kernels():
            loss, _ = self.module(batch.inputs, batch.labels)
            (loss / batch.micro_batch.step_seeds).backward()


def sizes_at(sample: Sample, graph: GraphFacts, z: float) -> tuple[list[int], list[int]]:
    """Nodes of the hops 0 to L and edges of the hops 1 to L of a micro-batch that lies `z` standard
    deviations above the mean in all hops at once, as far as their sums spread; never more nodes
    than the graph has."""

    def shifted(per_hop: Sequence[Spread], total: Spread) -> list[int]:
        together = sum(spread.std for spread in per_hop)
        share = total.std / together if together else 0.0
        return [max(0, round(spread.full_mean + z * share * spread.std)) for spread in per_hop]

    nodes = shifted(sample.nodes_per_hop, sample.nodes)
    edges = shifted(sample.edges_per_hop, sample.edges)
    room = graph.num_nodes
    for k, count in enumerate(nodes):
        nodes[k] = min(count, room)
        room -= nodes[k]
    return nodes, edges


def step_cost(
    trial: Trial, sample: Sample, graph: GraphFacts, placement: str, micro_batches: int
) -> StepCost:
    """Records the trial's mean step and its largest, that of `micro_batches`, and replays several
    orders of normally distributed sizes, the largest last.

    Sizes are linear in standard deviations from the mean; the other steps are the largest with
    every allocation made smaller by the same share.
    """
    recorder = StepRecorder(trial, graph, placement)
    beside = recorder.engine.on_side_stream
    largest_z = max(expected_maximum(micro_batches), 0.0)
    typical, largest = (recorder.record(*sizes_at(sample, graph, z)) for z in (0.0, largest_z))

    drawn = drawn_by_kernels(trial, sample, graph) if placement == "device" else None
    drawing = Cost.sum(drawn.costs.values() if drawn else [])

    def live(step: RecordedStep) -> int:
        return step.trace.peak_bytes if beside else step.peak_bytes

    grown = 1 - live(typical) / max(live(largest), 1)
    shrinks = grown / largest_z if largest_z else 0.0  # a standard deviation
    helds, needs = [], []
    for order in range(ORDERS):
        draw = random.Random(order).gauss
        sizes = (min(draw(0.0, 1.0), largest_z) for _ in range(min(micro_batches, STEPS) - 1))
        steps = [*(largest.scaled(1 - shrinks * (largest_z - z)) for z in sizes), largest]
        helds.append(replay(CudaAllocator(), steps, batches=not beside))
        frugal = replay(CudaAllocator(frugal=True), steps, batches=not beside)
        needs.append(min(helds[-1], frugal))
    return StepCost(
        values=deciding_values(trial),
        placement=placement,
        parameters=recorder.parameters,
        flops=typical.flops,
        bytes_moved=typical.cost.moved_bytes,
        operations=typical.cost.launches,
        batch_bytes=list(typical.batch_bytes),
        trace=typical.trace.events,
        largest_z=largest_z,
        typical_live_bytes=live(typical),
        live_bytes=live(largest),
        held_bytes=round(fmean(helds)),
        held_std_bytes=round(stdev(helds)),
        needed_bytes=round(fmean(needs)),
        beside_bytes=sum(largest.batch_bytes) if beside else 0,
        typical_beside_bytes=sum(typical.batch_bytes) if beside else 0,
        sampler_operations=drawing.launches,
        sampler_bytes=drawing.moved_bytes,
        sampler_scratch_bytes=drawn.scratch_bytes if drawn else 0,
    )


def drawn_by_kernels(trial: Trial, sample: Sample, graph: GraphFacts) -> RecordedSample | None:
    """A mean sample that a GPU's kernels draw; None where the trial's is drawn otherwise."""
    if not trial.asks_for_kernels or trial.sampler != "uniform":
        return None
    relabel_last = gathers(trial, "device")
    fanout: Sequence[int] = trial.fanout
    if table_aggregator(trial):
        fanout, relabel_last = fanout[:-1], True
    nodes, edges = sizes_at(sample, graph, 0.0)
    hops = len(fanout)
    return record_sample(
        fanout, graph.num_nodes, nodes[: hops + 1], edges[:hops], relabel_last=relabel_last
    )
