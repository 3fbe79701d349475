"""The window of a pilot: a few micro-steps of the trainer, timed one by one."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from sagebench.training.trainer import EpochSums, Trainer, synchronise_device

WARM_UP_STEPS, WARM_UP_S = 5, 1.0
"""at least, where an epoch has as many: of the process, in its first epoch; so many micro-steps
again until an epoch's loader is as far ahead as it gets"""
STEPS, WINDOW_S = 20, 2.0
"""micro-steps that are timed, and seconds: at least as many of both"""
EPOCHS = 2
"""that are timed, at least, where an epoch is shorter than the window"""


class Marks:
    """When each micro-step began, on the device's own clock where that is a GPU: there the host
    is ahead of what it has given it."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._times: list[float | torch.cuda.Event] = []

    def add(self) -> None:
        if self._on_gpu:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._times.append(event)
        else:
            self._times.append(time.perf_counter())

    def between_s(self) -> list[float]:
        """Seconds from each mark to the next, once the device has come to all of them."""
        pairs = zip(self._times, self._times[1:], strict=False)
        if self._on_gpu:
            return [began.elapsed_time(ended) / 1000 for began, ended in pairs]
        return [ended - began for began, ended in pairs]


@dataclass(frozen=True)
class Stretch:
    """Micro-steps of one epoch. steps_s: of each; time_s: of all, the optimizer's steps included;
    neither has the wait for a first batch. first_batch_s: from the epoch's start to that. epoch_s:
    of the whole epoch, None where it was ended early. nodes, edges: of all of them."""

    steps_s: list[float]
    time_s: float
    first_batch_s: float
    epoch_s: float | None
    nodes: int
    edges: int
    energy_j: float | None


def whole_steps(micro_steps: int, accumulation: int) -> int:
    """At least so many micro-steps, all of whole optimizer steps."""
    return -(-micro_steps // accumulation) * accumulation


class WindowTimer:
    """Runs the trainer for a pilot's window. check: called before every micro-step, to end it all.

    first_step: called after the first optimizer step. energy_j: reads the device's counter.
    """

    def __init__(
        self,
        trainer: Trainer,
        check: Callable[[], None],
        first_step: Callable[[], None],
        energy_j: Callable[[], float | None],
    ) -> None:
        self.trainer = trainer
        self.check = check
        self.first_step = first_step
        self.energy_j = energy_j
        self.device = trainer.device
        trial = trainer.trial
        self.ahead = max(WARM_UP_STEPS, 2 * trial.sampling_workers + 1)
        self.ahead = whole_steps(self.ahead, trial.accumulation)
        # An epoch's last optimizer step may have micro-steps without seed nodes, which cost nothing
        # and are not counted.
        self.micro_batches = -(-len(trainer.order.train_nodes) // trial.batch_size)

    def measure(self) -> dict[str, Any]:
        """The values of a `Pilot` of the same names: of a part of the second epoch, behind its
        first micro-steps, or of whole epochs behind the first."""
        step_s, accumulation = self._warm_up(), self.trainer.trial.accumulation
        steps = whole_steps(max(STEPS, math.ceil(WINDOW_S / step_s)), accumulation)
        if self.micro_batches >= self.ahead + steps:
            last = self.ahead + steps
            return window([self._stretch(2, lambda done: done == last, first=self.ahead)])
        found: list[Stretch] = []
        steps_s: list[float] = []
        while len(found) < EPOCHS or len(steps_s) < STEPS or sum(steps_s) < WINDOW_S:
            found.append(self._stretch(2 + len(found), lambda done: False))
            steps_s += found[-1].steps_s
        return window(found)

    def _warm_up(self) -> float:
        """Train in the first epoch; returns the seconds of a micro-step, about."""
        began = time.monotonic()

        def is_warm(done: int) -> bool:
            return done >= self.ahead and time.monotonic() - began > WARM_UP_S

        return statistics.mean(self._stretch(1, is_warm, after_step=self.first_step).steps_s)

    def _stretch(
        self,
        epoch: int,
        ends: Callable[[int], bool],
        first: int = 0,
        after_step: Callable[[], None] = lambda: None,
    ) -> Stretch:
        """Train in an epoch and time it from micro-step `first` on. ends: whether to leave it at
        so many micro-steps."""
        sums = EpochSums(epoch, self.trainer.trial.layers, self.device)
        marks, asked, ends_seen = Marks(self.device), [], []
        epoch_began = time.perf_counter()

        def look() -> None:
            synchronise_device(self.device)
            ends_seen.append((time.perf_counter(), self.energy_j(), sums.nodes, sums.edges))

        def stops(_: EpochSums) -> bool:
            self.check()
            asked.append((time.perf_counter(), sums.wait_s))
            is_end = ends(sums.micro_steps)
            if is_end or sums.micro_steps == first:
                look()
            if sums.micro_steps >= first:
                marks.add()
            return is_end

        record = self.trainer.epoch(sums, stops, after_step)
        asked.append((time.perf_counter(), sums.wait_s))
        if record is not None:
            marks.add()
            look()
        wait_s = asked[1][1]  # for the first batch
        first_batch_s = asked[0][0] - epoch_began + wait_s
        (began, energy_before, *before), (ended, energy_after, *after) = ends_seen
        nodes, edges = (end - begin for begin, end in zip(before, after, strict=True))
        steps_s = marks.between_s()[: self.micro_batches - first]
        if first == 0:
            steps_s[0] = max(0.0, steps_s[0] - wait_s)
        return Stretch(
            steps_s,
            time_s=record.time_s - first_batch_s if record else ended - began,
            first_batch_s=first_batch_s,
            epoch_s=record and record.time_s,
            nodes=nodes,
            edges=edges,
            energy_j=None
            if None in (energy_before, energy_after)
            else energy_after - energy_before,
        )


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
