"""A trial over several jobs: what training changes is kept on disk, and the next job goes on.

Nothing random is among it. The order of the seed nodes, the samples and the dropout masks follow
from the trial's seed, the epoch and the micro-batch's number (sampling/order.py); PyG's path draws
its masks from torch's stream, which every micro-step seeds anew (Trainer.micro_step).
"""

from __future__ import annotations

import io
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from sagebench.errors import UserError
from sagebench.files import write_atomic
from sagebench.graph.store import GraphStore
from sagebench.grid.trial import Trial
from sagebench.records import Epoch
from sagebench.stop_signals import StopSignals, checkpoint_path
from sagebench.training.early_end import Deadline
from sagebench.training.epoch_sums import EpochSums
from sagebench.training.setup import RankSetup
from sagebench.training.stop import Stop

FORMAT = 2
"""of a checkpoint; 1 had an Adam of our own"""


class Continues(Exception):
    """The trial stops here with a checkpoint, and the next job goes on with it."""


class BestCheckpoint:
    """Keeps the weights with the best validation accuracy, in memory and (path given) on disk."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.epoch: int | None = None
        self.accuracy = -1.0
        self.weights: dict[str, Tensor] = {}
        self.without_gain = 0

    def offer(self, epoch: int, accuracy: float, weights: dict[str, Tensor]) -> None:
        """Take these weights if they are better; of equals the earlier stay."""
        if accuracy <= self.accuracy:
            self.without_gain += 1
            return
        self.epoch, self.accuracy, self.without_gain = epoch, accuracy, 0
        self.weights = {name: value.detach().cpu().clone() for name, value in weights.items()}
        self._write()

    def stale(self, patience: int | None) -> bool:
        """Whether `patience` evaluations in a row brought nothing better."""
        return patience is not None and self.without_gain >= patience

    def state(self) -> dict[str, Any]:
        """For the trial's checkpoint."""
        return {name: value for name, value in vars(self).items() if name != "_path"}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state`, and write its weights to this job's own path."""
        vars(self).update(state)
        if self.epoch is not None:
            self._write()

    def _write(self) -> None:
        if self._path is not None:
            written = {"epoch": self.epoch, "validation_accuracy": self.accuracy}
            write_tensors(self._path, {**written, "model": self.weights})


class TrainingState:
    """What training changes on one rank.

    sums: of the epoch in hand. used_s: from the starts of the earlier jobs to the checkpoints that
    they were continued from. energy_j: None where it is not counted.
    """

    def __init__(self, run: RankSetup) -> None:
        self.run = run
        self.best = BestCheckpoint(run.directory / "best.pt" if run.env.rank == 0 else None)
        self.sums = EpochSums(1, run.trial.layers, run.device)
        self.used_s = 0.0
        self.energy_j: float | None = None

    def next_epoch(self, done: Epoch) -> None:
        """The epoch in hand is done."""
        self.run.measured.epochs.append(done)
        self.sums = self.sums.of_next_epoch()

    @property
    def elapsed_s(self) -> float:
        """Of all jobs so far."""
        return self.used_s + time.time() - self.run.started_at

    def gathered(self) -> dict[str, Any]:
        """The state of all ranks, for a checkpoint; a collective. What every rank has alike is
        rank 0's."""
        run = self.run
        mine = {"sums": self.sums.state(), "peaks": run.peak.read(), "energy_j": self.energy_j}
        return {
            "model": run.engine.model.state_dict(),
            "optimizer": run.trainer.optimizer.state_dict(),
            "best": self.best.state(),
            "epochs": [asdict(epoch) for epoch in run.measured.epochs],
            "start_to_first_step_s": run.measured.start_to_first_step_s,
            "used_s": self.elapsed_s,
            "ranks": run.communicator.gather(mine),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `gathered` gave."""
        run, mine = self.run, state["ranks"][self.run.env.rank]
        run.engine.model.load_state_dict(state["model"])
        run.trainer.optimizer.load_state_dict(state["optimizer"])
        run.measured.epochs = [Epoch.from_json(epoch) for epoch in state["epochs"]]
        run.measured.start_to_first_step_s = state["start_to_first_step_s"]
        run.peak.raise_to(mine["peaks"])
        self.best.restore(state["best"])
        self.sums.restore(mine["sums"])
        self.used_s = state["used_s"]
        self.energy_j = mine["energy_j"]


class Continuation:
    """Where $SAGEBENCH_CHECKPOINT names a file, the trial's state is written there after every
    epoch, before every evaluation, and when it is time to stop or a signal asks for it. Elsewhere
    nothing of this is done, and the deadline is the end.

    The file is written anew only with progress: a job that left it as it was came no further.
    """

    def __init__(self) -> None:
        self.deadline = Deadline.read()
        self.path = checkpoint_path()
        # First of all: what is asked before training starts is heeded then.
        self._signals = None if self.path is None else StopSignals()

    def begin(self, state: TrainingState) -> bool:
        """Bring `state` to where the job before this one stopped; whether there was one.

        Raises UserError for a checkpoint that cannot be read, or is not this trial's.
        """
        self._state = state
        self._run = run = state.run
        if self.path is None:
            return False
        saved = read_checkpoint(self.path, run.trial, run.store)
        if saved is not None:
            state.restore(saved)
            run.progress.say("going on " + _where(state.sums))
        self._saved_at = state.sums.position
        self._stop = Stop(
            run.communicator, self._signals, self.deadline, run.trial.accumulation, self._saved_at
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
        run, position = self._run, self._state.sums.position
        if position == self._saved_at:
            return
        state = self._state.gathered()
        if run.env.rank == 0:
            write_checkpoint(self.path, run.trial, run.store, state)
        run.communicator.barrier()
        self._saved_at = position

    def _end(self) -> NoReturn:
        self._run.progress.say(f"stopped {_where(self._state.sums)}, to be continued")
        raise Continues


def _where(sums: EpochSums) -> str:
    return f"in epoch {sums.epoch} after {sums.micro_steps} of its micro-batches"


def write_checkpoint(path: Path, trial: Trial, store: GraphStore, state: dict[str, Any]) -> None:
    """Write the state of `trial`, of tensors and plain types, whole or not at all."""
    write_tensors(path, {**_identity(trial, store), **state})


def read_checkpoint(path: Path, trial: Trial, store: GraphStore) -> dict[str, Any] | None:
    """The state of `trial` with its tensors on the CPU; None where none was written yet.

    Raises UserError for a file that is no checkpoint, or one of another trial or graph.
    """
    if not path.exists():
        return None
    start_over = "delete it, and the trial starts over"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a torn or foreign file makes of torch's reader
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"the checkpoint {path} cannot be read ({reason}): {start_over}") from error
    for name, wanted in _identity(trial, store).items():
        found = state.get(name) if isinstance(state, dict) else None
        if found != wanted:
            raise UserError(
                f"the checkpoint {path} has {name} {found}, the trial to be continued {wanted}: "
                f"{start_over}"
            )
    return state


def write_tensors(path: Path, values: dict[str, Any]) -> None:
    """torch.save, whole or not at all."""
    buffer = io.BytesIO()
    torch.save(values, buffer)
    write_atomic(path, buffer.getvalue())


def _identity(trial: Trial, store: GraphStore) -> dict[str, Any]:
    return {"format": FORMAT, "trial": trial.id, "store": store.checksum}
