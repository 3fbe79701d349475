"""The window of a pilot: a few micro-steps of the trainer, timed one by one."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from sagebench.pilot.records import Window
from sagebench.training.epoch_sums import EpochSums
from sagebench.training.trainer import Trainer, synchronise_device

WARM_UP_STEPS, WARM_UP_S = 5, 1.0
"""at least, where an epoch has as many: of the process, in its first epoch; so many micro-steps
again until an epoch's loader is as far ahead as it gets"""
STEPS, WINDOW_S = 20, 2.0
"""micro-steps that are timed, and seconds: at least as many of both"""
EPOCHS = 2
"""that are timed, at least, where an epoch is shorter than the window"""


@dataclass
class Marks:
    """When each micro-step began, on the device's own clock where that is a GPU: there the host
    is ahead of what it has given it."""

    device: torch.device
    times: list[float | torch.cuda.Event] = field(default_factory=list)

    def add(self) -> None:
        if self.device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.times.append(event)
        else:
            self.times.append(time.perf_counter())

    def between_s(self) -> list[float]:
        """Seconds from each mark to the next, once the device has come to all of them."""
        if self.device.type == "cuda":
            pairs = zip(self.times, self.times[1:], strict=False)
            return [began.elapsed_time(ended) / 1000 for began, ended in pairs]
        return [ended - began for began, ended in zip(self.times, self.times[1:], strict=False)]


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

    def measure(self) -> Window:
        step_s = self._warm_up()
        steps = whole_steps(
            max(STEPS, math.ceil(WINDOW_S / step_s)), self.trainer.trial.accumulation
        )
        if self.micro_batches < self.ahead + steps:
            return self._of_epochs()
        return self._of_part(steps)

    def _sums(self, epoch: int) -> EpochSums:
        return EpochSums(epoch, self.trainer.trial.layers, self.device)

    def _warm_up(self) -> float:
        """Train in the first epoch; returns the seconds of a micro-step, about."""
        marks, began = Marks(self.device), time.monotonic()

        def stops(sums: EpochSums) -> bool:
            self.check()
            marks.add()
            return sums.micro_steps >= self.ahead and time.monotonic() - began > WARM_UP_S

        self.trainer.epoch(self._sums(1), stops, self.first_step)
        marks.add()
        synchronise_device(self.device)
        return statistics.mean(marks.between_s()[: self.micro_batches])

    def _of_part(self, steps: int) -> Window:
        """Of the second epoch, behind its first micro-steps."""
        marks, ends = Marks(self.device), []
        start = FirstBatch()

        def stops(sums: EpochSums) -> bool:
            self.check()
            start.look(sums)
            done = sums.micro_steps - self.ahead
            if done in (0, steps):
                synchronise_device(self.device)
                ends.append((time.perf_counter(), self.energy_j(), sums.nodes, sums.edges))
            if done >= 0:
                marks.add()
            return done == steps

        self.trainer.epoch(self._sums(2), stops)
        (began, energy_before, *before), (ended, energy_after, *after) = ends
        nodes, edges = (end - begin for begin, end in zip(before, after, strict=True))
        return window(
            marks.between_s(),
            (ended - began) / steps,
            (nodes, edges),
            first_batch_s=start.seconds,
            energy_j=used(energy_before, energy_after),
        )

    def _of_epochs(self) -> Window:
        """Of whole epochs behind the first."""
        steps_s: list[float] = []
        firsts_s: list[float] = []
        epochs = []
        before = self.energy_j()
        while len(epochs) < EPOCHS or len(steps_s) < STEPS or sum(steps_s) < WINDOW_S:
            marks, sums, start = Marks(self.device), self._sums(2 + len(epochs)), FirstBatch()

            def stops(sums: EpochSums, marks: Marks = marks, start: FirstBatch = start) -> bool:
                self.check()
                start.look(sums)
                marks.add()
                return False

            epochs.append(self.trainer.epoch(sums, stops))
            marks.add()
            synchronise_device(self.device)
            start.look(sums)
            first, *others = marks.between_s()[: self.micro_batches]
            steps_s += [max(0.0, first - start.seconds), *others]
            firsts_s.append(start.seconds)
        stepping_s = sum(epoch.time_s for epoch in epochs) - sum(firsts_s)
        return window(
            steps_s,
            stepping_s / len(steps_s),
            (sum(epoch.nodes for epoch in epochs), sum(epoch.edges for epoch in epochs)),
            epoch_s=statistics.median(epoch.time_s for epoch in epochs),
            first_batch_s=statistics.median(firsts_s),
            energy_j=used(before, self.energy_j()),
        )


class FirstBatch:
    """Seconds from an epoch's start, which is now, to its first batch."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._asked: float | None = None
        self.seconds = 0.0

    def look(self, sums: EpochSums) -> None:
        """Before every micro-step: before the first it is asked for, and then was waited for."""
        if self._asked is None:
            self._asked = time.perf_counter()
        elif sums.micro_steps == 1:
            self.seconds = self._asked - self._began + sums.wait_s


def window(
    steps_s: list[float],
    mean_s: float,
    counted: tuple[int, int],
    *,
    first_batch_s: float,
    energy_j: float | None,
    epoch_s: float | None = None,
) -> Window:
    """steps_s: of each micro-step. counted: nodes and edges of all of them."""
    low, middle, high = statistics.quantiles(steps_s, n=4, method="inclusive")
    nodes, edges = counted
    return Window(
        micro_steps=len(steps_s),
        step_s=middle,
        step_low_s=low,
        step_high_s=high,
        step_mean_s=mean_s,
        epoch_s=epoch_s,
        first_batch_s=first_batch_s,
        nodes=nodes / len(steps_s),
        edges=edges / len(steps_s),
        energy_j=energy_j,
    )


def used(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before
