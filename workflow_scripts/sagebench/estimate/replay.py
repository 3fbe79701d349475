"""The cost of a trial's steps: recorded at few sizes, replayed through torch's allocator."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable
from statistics import fmean, stdev

from sagebench.estimate.allocator import CudaAllocator
from sagebench.estimate.costs import StepCost, deciding_values
from sagebench.estimate.extremes import expected_maximum
from sagebench.estimate.samples import GraphFacts, Sample
from sagebench.estimate.sizes import sizes_at
from sagebench.estimate.step import StepRecorder
from sagebench.estimate.trace import RecordedStep
from sagebench.grid.trial import Trial

STEPS, ORDERS = 20, 6
"""replayed: what is needed hardly changes after the first twenty steps; the first ones decide how
memory is cut up, hence several orders of sizes"""
SMALLEST_Z, NEAR_Z = -3.0, 0.5
"""standard deviations from the mean: of the smallest micro-batch that is recorded; between two that
are taken as alike"""


class Steps:
    """The steps of a trial's micro-batches of all sizes, from few that are recorded.

    Sizes of tensors are linear in the counts of nodes and edges, and these in z. So where two sizes
    have the same allocations in the same order, each tensor of a step in between lies in between.
    Where they differ (`max` of `blocks` takes its edges in pieces) one in the middle is recorded,
    until they are near; the larger is then taken.
    """

    def __init__(
        self,
        recorder: StepRecorder,
        sample: Sample,
        graph: GraphFacts,
        largest_z: float,
    ) -> None:
        """largest_z: standard deviations from the mean to the largest micro-batch."""
        self.recorder, self.sample, self.graph = recorder, sample, graph
        self.largest_z = largest_z
        self._recorded: dict[float, RecordedStep] = {}

    @property
    def largest(self) -> RecordedStep:
        return self._record(self.largest_z)

    @property
    def typical(self) -> RecordedStep:
        return self._record(0.0)

    def at(self, z: float) -> RecordedStep:
        """z: standard deviations from the mean, between the smallest and the largest."""
        for bound in (SMALLEST_Z, 0.0, self.largest_z):
            self._record(bound)
        z = min(max(z, SMALLEST_Z), self.largest_z)
        while True:
            below = max(known for known in self._recorded if known <= z)
            above = min(known for known in self._recorded if known >= z)
            smaller, larger = self._recorded[below], self._recorded[above]
            if smaller is larger:
                return larger
            if smaller.trace.is_alike(larger.trace):
                return smaller.towards(larger, (z - below) / (above - below))
            if above - below <= NEAR_Z:
                return larger
            self._record((below + above) / 2)

    def _record(self, z: float) -> RecordedStep:
        if z not in self._recorded:
            sizes = sizes_at(self.sample, self.graph, z)
            self._recorded[z] = self.recorder.record(*sizes)
        return self._recorded[z]


def step_cost(
    trial: Trial, sample: Sample, graph: GraphFacts, placement: str, micro_batches: int
) -> StepCost:
    """Records the trial's steps, and replays them in several orders of normally distributed sizes,
    the largest of `micro_batches` last."""
    recorder = StepRecorder(trial, graph, placement)
    largest_z = max(expected_maximum(micro_batches), 0.0)
    steps = Steps(recorder, sample, graph, largest_z)
    beside = recorder.engine.on_side_stream
    typical, largest = steps.typical, steps.largest
    helds, needs = [], []
    for order in range(ORDERS):
        draw = random.Random(order).gauss
        some = [steps.at(draw(0.0, 1.0)) for _ in range(min(micro_batches, STEPS) - 1)]
        helds.append(replay(CudaAllocator(), [*some, largest], batches=not beside))
        frugal = replay(CudaAllocator(frugal=True), [*some, largest], batches=not beside)
        needs.append(min(helds[-1], frugal))

    def live(step: RecordedStep) -> int:
        return step.trace.peak_bytes + (0 if beside else sum(step.batch_bytes))

    return StepCost(
        values=deciding_values(trial),
        placement=placement,
        parameters=recorder.parameters,
        flops=typical.flops,
        bytes_moved=typical.bytes_moved,
        operations=typical.operations,
        batch_bytes=list(typical.batch_bytes),
        trace=typical.trace.to_json(),
        largest_z=largest_z,
        typical_live_bytes=live(typical),
        live_bytes=live(largest),
        held_bytes=round(fmean(helds)),
        held_std_bytes=round(stdev(helds)),
        needed_bytes=round(fmean(needs)),
        beside_bytes=sum(largest.batch_bytes) if beside else 0,
        typical_beside_bytes=sum(typical.batch_bytes) if beside else 0,
    )


def replay(allocator: CudaAllocator, steps: Iterable[RecordedStep], *, batches: bool) -> int:
    """The most that the allocator holds over these steps. batches: whether their batches come from
    it too, each before the one of the step before has gone."""
    handles, batch = itertools.count(-1, -1), []
    for step in steps:
        earlier, batch = batch, [next(handles) for _ in step.batch_bytes if batches]
        for handle, size in zip(batch, step.batch_bytes, strict=False):
            allocator.take(handle, size)
        for handle in earlier:
            allocator.give(handle)
        for handle, size in step.trace.events:
            if size:
                allocator.take(handle, size)
            else:
                allocator.give(handle)
    return allocator.peak
