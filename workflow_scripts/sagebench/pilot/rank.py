"""The one rank of a pilot: a window of micro-steps timed one by one, or validation and test."""

from __future__ import annotations

import math
import statistics
import time
from itertools import pairwise
from typing import Any, NamedTuple

import torch

from sagebench.files import write_json
from sagebench.measure.memory import release_memory
from sagebench.pilot.records import WINDOW_PART
from sagebench.training.setup import RankSetup
from sagebench.training.trainer import EpochSums, synchronise_device

WARM_UP_STEPS, WARM_UP_S = 5, 1.0
"""at least, where an epoch has as many: of the process, in its first epoch; so many micro-steps
again until an epoch's loader is as far ahead as it gets"""
STEPS, WINDOW_S = 20, 2.0
"""micro-steps that are timed, and seconds: at least as many of both"""
EPOCHS = 2
"""that are timed, at least, where an epoch is shorter than the window"""


class Stretch(NamedTuple):
    """Micro-steps of one epoch. steps_s: of each that has seed nodes; time_s: of all; both with the
    optimizer's steps, and without the wait for a first batch. epoch_s: of the whole epoch, None
    where it was ended early. nodes, edges: of all of them."""

    steps_s: list[float]
    time_s: float
    first_batch_s: float
    epoch_s: float | None
    nodes: int
    edges: int
    energy_j: float | None


class PilotRun(RankSetup):
    """Writes its part, WINDOW_PART or EVALUATION_PART, into the attempt's folder, and
    `measured.json`, which describes the machine."""

    def __init__(self, *arguments: Any, part: str) -> None:
        super().__init__(*arguments)
        self.part = part
        self.build()
        ahead = max(WARM_UP_STEPS, 2 * self.trial.sampling_workers + 1)
        self.ahead = whole_steps(ahead, self.trial.accumulation)
        # An epoch's last optimizer step may have micro-steps without seed nodes, which cost nothing
        # and are not counted.
        self.micro_batches = -(-len(self.trainer.order.train_nodes) // self.trial.batch_size)

    def run(self) -> None:
        self.begin_measuring()
        self.describe()
        measure = self._window if self.part == WINDOW_PART else self._evaluation
        write_json(self.directory / self.part, measure())
        self.measured.complete = True
        self.write()

    def _window(self) -> dict[str, Any]:
        with self.peak:
            found = window(self._stretches())
        started_s = self.measured.start_to_first_step_s
        return {**found, "memory": self.peak.read(), "start_to_first_step_s": started_s}

    def _evaluation(self) -> dict[str, Any]:
        """Both end with a figure read from the device, and so with all it was given."""
        weights = self.engine.model.state_dict()
        with self.clock("evaluation"):
            began = time.perf_counter()
            self.validate(weights)
            release_memory(self.device)
            between = time.perf_counter()
            self.test(weights)
        ended = time.perf_counter()
        return {"evaluation_s": between - began, "test_s": ended - between}

    def _stretches(self) -> list[Stretch]:
        """A part of the second epoch, behind its first micro-steps, or whole epochs behind the
        first."""
        steps = max(STEPS, math.ceil(WINDOW_S / self._train_until_warm()))
        last = self.ahead + whole_steps(steps, self.trial.accumulation)
        if self.micro_batches >= last:
            return [self._stretch(2, first=self.ahead, last=last)]
        found: list[Stretch] = []
        while (
            len(found) < EPOCHS
            or sum(len(one.steps_s) for one in found) < STEPS
            or sum(sum(one.steps_s) for one in found) < WINDOW_S
        ):
            found.append(self._stretch(2 + len(found)))
        return found

    def _train_until_warm(self) -> float:
        """Train in the first epoch; returns the seconds of a micro-step, about."""
        sums = EpochSums(1, self.trial.layers, self.device)
        began = time.monotonic()

        def is_warm(_: EpochSums) -> bool:
            nonlocal began
            self.check_deadline()
            if sums.micro_steps <= 1:  # then the first batch has come
                began = time.monotonic()
            return sums.micro_steps >= self.ahead and time.monotonic() - began > WARM_UP_S

        self.trainer.epoch(sums, is_warm, self.note_first_step)
        steps = min(sums.micro_steps, self.micro_batches)
        return (time.monotonic() - began) / max(1, steps - 1)

    def _stretch(self, epoch: int, first: int = 0, last: int | None = None) -> Stretch:
        """Train in an epoch and time it from micro-step `first` on. last: where it is left; None:
        at its end."""
        sums = EpochSums(epoch, self.trial.layers, self.device)
        last = last or self.trainer.micro_steps_per_epoch
        marks: list[Any] = []
        waits_s: list[float] = []
        ends: list[tuple[int, int, float | None]] = []

        def stops(_: EpochSums) -> bool:
            self.check_deadline()
            waits_s.append(sums.wait_s)
            if sums.micro_steps in (first, last):
                synchronise_device(self.device)
                ends.append((sums.nodes, sums.edges, self.node_energy_j()))
            if sums.micro_steps >= first:
                marks.append(mark(self.device))
            return sums.micro_steps == last

        record = self.trainer.epoch(sums, stops)
        if record is not None:
            stops(sums)
        synchronise_device(self.device)
        steps_s, first_batch_s = between_s(marks), waits_s[1]
        if first == 0:
            steps_s[0] = max(0.0, steps_s[0] - first_batch_s)
        (nodes_before, edges_before, joules_before), (nodes, edges, joules) = ends
        return Stretch(
            steps_s=steps_s[: self.micro_batches - first],
            time_s=sum(steps_s),
            first_batch_s=first_batch_s,
            epoch_s=None if record is None else record.time_s,
            nodes=nodes - nodes_before,
            edges=edges - edges_before,
            energy_j=None if joules is None or joules_before is None else joules - joules_before,
        )


def mark(device: torch.device) -> torch.cuda.Event | float:
    """When a micro-step begins, on the device's own clock where that is a GPU: there the host is
    ahead of what it has given it."""
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def between_s(marks: list[Any]) -> list[float]:
    """Seconds from each mark to the next, once the device has come to all of them."""
    on_gpu = isinstance(marks[0], torch.cuda.Event)
    return [
        one.elapsed_time(after) / 1000 if on_gpu else after - one for one, after in pairwise(marks)
    ]


def whole_steps(micro_steps: int, accumulation: int) -> int:
    """At least so many micro-steps, all of whole optimizer steps."""
    return -(-micro_steps // accumulation) * accumulation


def window(stretches: list[Stretch]) -> dict[str, Any]:
    """All of them together, by the names of a `Pilot`."""
    steps_s = [step_s for one in stretches for step_s in one.steps_s]
    low, middle, high = statistics.quantiles(steps_s, n=4, method="inclusive")
    epochs_s = [one.epoch_s for one in stretches if one.epoch_s is not None]
    energies_j = [one.energy_j for one in stretches if one.energy_j is not None]
    return {
        "micro_steps": len(steps_s),
        "step_s": middle,
        "step_low_s": low,
        "step_high_s": high,
        "step_mean_s": sum(one.time_s for one in stretches) / len(steps_s),
        "epoch_s": statistics.median(epochs_s) if epochs_s else None,
        "first_batch_s": statistics.median(one.first_batch_s for one in stretches),
        "nodes": sum(one.nodes for one in stretches) / len(steps_s),
        "edges": sum(one.edges for one in stretches) / len(steps_s),
        "energy_j": sum(energies_j) if energies_j else None,
    }
