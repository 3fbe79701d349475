"""A trial over several jobs: it goes on where the one before stopped, and stops in time itself."""

from __future__ import annotations

import time
from typing import NoReturn

from sagebench.graph.store import GraphStore
from sagebench.grid.trial import Trial
from sagebench.stop_signals import StopSignals, checkpoint_path
from sagebench.training.checkpoint import read_checkpoint, write_checkpoint
from sagebench.training.distributed import Communicator
from sagebench.training.early_end import Deadline
from sagebench.training.epoch_sums import EpochSums
from sagebench.training.progress import Progress
from sagebench.training.state import TrainingState
from sagebench.training.stop import Stop


class Continues(Exception):
    """The trial stops here with a checkpoint, and the next job goes on with it."""


class Continuation:
    """Where $SAGEBENCH_CHECKPOINT names a file, the trial's state is written there after every
    epoch, before every evaluation, and when it is time to stop or a signal asks for it. Elsewhere
    nothing of this is done, and the deadline is the end.

    The file is written anew only with progress: a job that left it as it was came no further.
    """

    def __init__(
        self, trial: Trial, deadline: Deadline, started_at_unix_s: float, progress: Progress
    ) -> None:
        self.trial = trial
        self.deadline = deadline
        self.started_at_unix_s = started_at_unix_s
        self.progress = progress
        self.path = checkpoint_path()
        # First of all: what is asked before training starts is heeded then.
        self._signals = None if self.path is None else StopSignals()

    def begin(self, state: TrainingState, store: GraphStore, communicator: Communicator) -> bool:
        """Bring `state` to where the job before this one stopped; whether there was one.

        Raises UserError for a checkpoint that cannot be read, or is not this trial's.
        """
        self._state, self._store, self._communicator = state, store, communicator
        if self.path is None:
            return False
        saved = read_checkpoint(self.path, self.trial, store)
        if saved is not None:
            state.restore(saved, communicator.rank)
            epoch, micro_steps = state.sums.position
            self.progress.say(f"going on in epoch {epoch} after {micro_steps} of its micro-batches")
        self._saved_at = state.sums.position
        self._stop = Stop(
            communicator, self._signals, self.deadline, self.trial.accumulation, state.sums.position
        )
        return saved is not None

    def stops(self, sums: EpochSums) -> bool:
        """Whether to stop before this micro-step; every rank asks before every one.

        Raises EarlyEnd where the time is up and no other job would come further.
        """
        if self.path is None:
            self.deadline.check()
            return False
        return self._stop.before_micro_step(sums)

    def save_and_stop_in_time(self) -> None:
        """Between two epochs, or before an evaluation, which no signal interrupts; a collective.

        Raises Continues, or EarlyEnd as `stops` does.
        """
        if self.path is None:
            return
        self._save()
        if self._stop.between_epochs(self._state.sums):
            self._end()

    def save_and_stop(self) -> NoReturn:
        """Stop amid an epoch: raises Continues; a collective."""
        self._save()
        self._end()

    def _save(self) -> None:
        """No rank goes on before the checkpoint is there."""
        if self._state.sums.position == self._saved_at:
            return
        state = self._state.gathered(self._communicator, time.time() - self.started_at_unix_s)
        if self._communicator.rank == 0:
            write_checkpoint(self.path, self.trial, self._store, state)
        self._communicator.barrier()
        self._saved_at = self._state.sums.position

    def _end(self) -> NoReturn:
        epoch, micro_steps = self._state.sums.position
        self.progress.say(
            f"stopped in epoch {epoch} after {micro_steps} of its micro-batches, to be continued"
        )
        raise Continues
