"""How a trial stops in order to be continued: when, and all of its ranks after the same step."""

from __future__ import annotations

import time

import torch

from sagebench.stop_signals import StopSignals
from sagebench.training.distributed import Communicator
from sagebench.training.early_end import Deadline
from sagebench.training.epoch_sums import EpochSums

END = "first step not to be taken"


class Stop:
    """Decides on rank 0, and has every rank stop before the same optimizer step.

    Rank 0 decides before a step, and announces which step is the first not to be taken: one that
    no rank has begun, and that none begins without having seen the announcement. Gradients are
    averaged in every step, so a rank that has finished a step knows that rank 0 had begun it, and
    with gloo it has finished step t-1 when it begins t: t+1 will do. NCCL only queues its work on
    the device; here a rank waits until the device has finished t-2, and t+2 will do.

    start: where this job started, an EpochSums' position.
    """

    def __init__(
        self,
        communicator: Communicator,
        signals: StopSignals,
        deadline: Deadline,
        accumulation: int,
        start: tuple[int, int],
    ) -> None:
        self.communicator = communicator
        self.signals = signals
        self.deadline = deadline
        self.accumulation = accumulation
        self.start = start
        self._queues = communicator.device.type == "cuda" and communicator.world_size > 1
        self._ahead = 2 if self._queues else 1 if communicator.world_size > 1 else 0
        self._end: int | None = None
        self._queued: torch.cuda.Event | None = None
        self._step_began_s: float | None = None
        self._longest_step_s = 0.0

    def before_micro_step(self, sums: EpochSums) -> bool:
        """Whether to stop here; asked by every rank before every micro-step.

        Raises EarlyEnd where the walltime is used up and this job has not come a step further.
        """
        step, within = divmod(sums.micro_steps, self.accumulation)
        if within:
            return False
        if self._queues:
            self._wait_for_step_before_last()
        if self._end is None and self.communicator.rank > 0:
            self._end = self.communicator.announced(END)
        elif self._end is None:
            self._time_step()
            if self._wanted(sums):
                self._end = step + self._ahead
                self.communicator.announce(END, self._end)
        return self._end is not None and step >= self._end

    def between_epochs(self, sums: EpochSums) -> bool:
        """Whether to stop between two epochs or before an evaluation; a collective.

        Raises EarlyEnd as `before_micro_step` does.
        """
        self._step_began_s = None
        wanted = self.communicator.rank == 0 and self._wanted(sums)
        flag = torch.tensor([float(wanted)], device=self.communicator.device)
        return bool(self.communicator.max(flag).item())

    def _wanted(self, sums: EpochSums) -> bool:
        if self.signals.received or self._end is not None:
            return True
        # The steps to come if it is not now, before the next look and until all have stopped.
        if not self.deadline.within((1 + self._ahead) * self._longest_step_s):
            return False
        if sums.position == self.start:
            self.deadline.check()  # another job would not come further either
        return True

    def _time_step(self) -> None:
        began, self._step_began_s = self._step_began_s, time.monotonic()
        if began is not None:
            self._longest_step_s = max(self._longest_step_s, self._step_began_s - began)

    def _wait_for_step_before_last(self) -> None:
        before, self._queued = self._queued, torch.cuda.Event(blocking=True)
        self._queued.record()
        if before is not None:
            before.synchronize()
