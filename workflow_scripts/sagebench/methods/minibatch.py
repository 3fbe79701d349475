"""Mini-batch training over sampled neighborhoods, a whole trial: training with validation, test,
timing."""

from __future__ import annotations

import gzip
import math
import shutil
import statistics
import time
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile, record_function

from sagebench.attempts import PROFILE
from sagebench.graph.store import GraphStore
from sagebench.measure.memory import lift_limit, release_memory
from sagebench.methods.new_nodes import Way, time_ways
from sagebench.methods.propagation import correct_and_smooth
from sagebench.records import Accuracy, Epoch, Status, Timing
from sagebench.sampling.blocks import torch_view
from sagebench.training.checkpoint import BestWeights, write_tensors
from sagebench.training.evaluation import share_of
from sagebench.training.setup import EarlyEnd, RankSetup
from sagebench.training.trainer import EpochSums, synchronise_device

METHOD = "mini-batch training over sampled neighborhoods"
OPTIONS = {
    "correct_and_smooth": {
        "type": "switch",
        "default": None,
        "help": "true: what is tested is what Correct and Smooth (Huang et al. 2021) makes of it",
    }
}

SAVE_EVERY_S = 120.0
"""of training, between two checkpoints within an epoch"""
PROFILE_ROWS = 60
TRACE_LIMIT_BYTES = 15 << 20


class Run(RankSetup):
    """A whole trial: training with validation, test, and the window that times the phases.

    embedding_s: of what was trained before.
    """

    embedding_s: float | None = None

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.best = BestWeights()
        self.sums = EpochSums(1, self.trial.layers, self.device)
        self.resumed = False  # until the first epoch of a job that goes on is flagged so
        self.build()

    def run(self) -> None:
        self._restore()
        self.begin_measuring()
        self.describe()
        self.train_and_test()

    def train_and_test(self) -> None:
        self._train()
        self.sum_up()
        self.measured.timing = timing(self.measured.epochs, self.trial.ranks, self.embedding_s)
        self.write()
        self._test()
        self.write()
        if self.store.whole is not self.store:
            self.progress.say("timing the embedding of unseen nodes")
            self.measured.new_nodes = time_ways(
                self.store, self.ways_to_embed, self.communicator, self.peak, self.node_energy_j
            )
            self.write()
        if self.trial.phase_window_steps:
            self.measured.phases = self.trainer.time_phases(self.trial.epochs + 1)
        self._time(total_s=self.elapsed_s)
        self.measured.complete = True
        self.write()
        if self.trial.profile_steps:
            self._profile(self.trial.profile_steps)
        self.communicator.close()

    def _train(self) -> None:
        trial, epochs = self.trial, self.measured.epochs
        while len(epochs) < trial.epochs and not self.best.stale(trial.patience_evaluations):
            if self.resumed and self.sums.micro_steps < self.trainer.micro_steps_per_epoch:
                self.sums.resumed, self.resumed = True, False
            with self.measuring():
                epoch = self.trainer.epoch(self.sums, self._before_micro_step, self.note_first_step)
            assert epoch is not None, "it is never left early"
            if not math.isfinite(epoch.loss):
                self.clock.phase = "forward"
                message = f"the training loss was {epoch.loss} in epoch {epoch.epoch}"
                raise EarlyEnd(Status.DIVERGED, message)
            if epoch.epoch % trial.evaluate_every_epochs == 0 or epoch.epoch == trial.epochs:
                self._save(epoch.time_s, self.trainer.micro_steps_per_epoch)
                epoch = self._validated(epoch)
            epochs.append(epoch)
            self.sums = EpochSums(epoch.epoch + 1, trial.layers, self.device)
            self._save(epoch.time_s, self.trainer.micro_steps_per_epoch)
            self.progress.say(epoch_line(epoch, trial.epochs))
            self.write()
        if self.best.stale(trial.patience_evaluations):
            self.progress.say(
                f"stopping early: {trial.patience_evaluations} validations without improvement"
            )

    def _before_micro_step(self, sums: EpochSums) -> bool:
        """Save where it is time to. Raises EarlyEnd where the walltime is used up."""
        if self.checkpoint.wanted and sums.micro_steps == self.save_at:
            sums.stop_clock()
            self.count_energy()
            self._save(sums.time_s, sums.micro_steps)
            sums.start_clock()
        self.check_deadline()
        return False

    def _save(self, time_s: float, micro_steps: int) -> None:
        """Write the checkpoint and decide before which micro-step of the epoch in hand to write the
        next: every rank alike, from how long so many of them took; a collective.

        Nothing is written without progress: a job that left the file as it was came no further.
        """
        if not self.checkpoint.wanted or self._position() == self.saved_at:
            return
        self.saved_at: tuple[int, int] = self._position()
        slowest_s = self.communicator.max(torch.tensor([time_s], device=self.device)).item()
        steps = int(SAVE_EVERY_S / slowest_s * micro_steps / self.trial.accumulation)
        self.save_at = self.sums.micro_steps + max(1, steps) * self.trial.accumulation
        self.checkpoint.write(
            alike={
                "model": self.engine.model.state_dict(),
                "optimizer": self.trainer.optimizer.state_dict(),
                "best": vars(self.best),
                "epochs": [asdict(epoch) for epoch in self.measured.epochs],
                "start_to_first_step_s": self.measured.start_to_first_step_s,
                "used_s": self.elapsed_s,
            },
            own={"sums": self.sums.state(), "peaks": self.peak.read(), "energy_j": self.energy_j},
        )

    def _restore(self) -> None:
        """Go on from the checkpoint of an earlier job, where there is one."""
        saved = self.checkpoint.read()
        if saved is not None:
            alike, own = saved
            self.engine.model.load_state_dict(alike["model"])
            self.trainer.optimizer.load_state_dict(alike["optimizer"])
            self.best = BestWeights(**alike["best"])
            self.measured.epochs = [Epoch.from_json(epoch) for epoch in alike["epochs"]]
            self.measured.start_to_first_step_s = alike["start_to_first_step_s"]
            self.used_s = alike["used_s"]
            self.sums.restore(own["sums"])
            self.peak.raise_to(own["peaks"])
            self.energy_j = own["energy_j"]
            self.resumed = True
            self.progress.say(
                f"going on in epoch {self.sums.epoch} after {self.sums.micro_steps} of its "
                "micro-batches"
            )
        self.saved_at = self._position()
        # After a first step, so that a job that came so far has come further.
        self.save_at = self.sums.micro_steps + self.trial.accumulation

    def _position(self) -> tuple[int, int]:
        return self.sums.epoch, self.sums.micro_steps

    def _validated(self, epoch: Epoch) -> Epoch:
        start = time.perf_counter()
        with self.clock("evaluation"):
            weights = self.engine.model.state_dict()
            accuracy = self.validate(weights)
            self.best.offer(epoch.epoch, accuracy, weights)
            release_memory(self.device)
        evaluation_s = time.perf_counter() - start
        return replace(epoch, validation_accuracy=accuracy, evaluation_s=evaluation_s)

    def _test(self) -> None:
        best = self.best
        if self.env.rank == 0:
            about = {"epoch": best.epoch, "validation_accuracy": best.accuracy}
            write_tensors(self.directory / "best.pt", {**about, "model": best.weights})
        self.progress.say(f"testing the weights of epoch {best.epoch}")
        start = time.perf_counter()
        with self.clock("evaluation"):
            tested = self.test(best.weights)
            if self.trial.options.get("correct_and_smooth"):
                tested = self._smoothed(best.weights, tested)
        self._time(test_s=time.perf_counter() - start)
        self.measured.accuracy = replace(
            tested, best_epoch=best.epoch, best_validation=best.accuracy
        )
        said = f"test accuracy {tested.test_full:.4f} full"
        if tested.test_sampled is not None:
            said += f", {tested.test_sampled:.4f} sampled ({tested.test_sampled_nodes:,} nodes)"
        self.progress.say(said)

    def ways_to_embed(self, graph: GraphStore, nodes: np.ndarray) -> dict[str, Way]:
        """How the trial embeds nodes (int64 ids) that have come into a graph, by name; nothing
        where Correct and Smooth follows, of which that would be a part."""
        if self.trial.options.get("correct_and_smooth"):
            return {}
        evaluator, weights = self.evaluator, self.best.weights
        evaluator.loader = evaluator.loader.over(graph)
        method = "sampled" if self.tests_sampled else "full"

        def accuracy() -> float:
            return evaluator.accuracy(weights, nodes, method)

        return {"forward": Way(accuracy, accuracy, self.device.type)}

    def _smoothed(self, weights: dict[str, Tensor], tested: Accuracy) -> Accuracy:
        """The test after Correct and Smooth of the model's predictions, over the full graph."""
        store, test = self.store, torch_view(self.store.test)
        smoothed = correct_and_smooth(store, self.whole_outputs(weights).softmax(1))
        hits = smoothed.argmax(1).cpu()[test] == torch_view(store.labels)[test]
        return replace(
            tested,
            test_full=hits.sum().item() / len(test),
            unseen=share_of(hits, store.test, store.unseen),
        )

    def _profile(self, steps: int) -> None:
        """Profile micro-steps, once all is measured and written: what a profiler takes or fails at
        is no part of the trial."""
        self.progress.say(f"profiling {steps} micro-steps")
        lift_limit(self.device)
        try:
            self._profile_steps(steps)
        except Exception as error:
            traceback.print_exc()
            self.progress.say(f"no profile: {type(error).__name__}: {error}")

    def _profile_steps(self, steps: int) -> None:
        """Train on as an epoch does, sampling in the background, under torch's profiler; rank 0
        writes the table and the trace (for chrome://tracing or ui.perfetto.dev)."""
        trainer, kind = self.trainer, self.device.type
        of_gpu = [ProfilerActivity.CUDA] if kind == "cuda" else []
        self.engine.model.train()
        micro_batches = trainer.order.micro_batches(self.trial.epochs + 2, self.env.rank)
        activities = [ProfilerActivity.CPU, *of_gpu]
        profiler = profile(activities=activities) if self.env.rank == 0 else None
        with profiler or nullcontext():
            for batch in self.engine.stream(islice(micro_batches, steps)):
                last = batch.micro_batch.last_of_step
                with record_function("micro-step"):
                    trainer.micro_step(batch, synchronise=last)
                if last:
                    trainer.optimizer_step()
            synchronise_device(self.device)
        if profiler is not None:
            table = profiler.key_averages().table(
                sort_by=f"self_{kind}_time_total", row_limit=PROFILE_ROWS, max_name_column_width=80
            )
            table_path, trace_path = (self.directory / name for name in PROFILE)
            said = write_trace(profiler.export_chrome_trace, trace_path)
            table_path.write_text(f"{steps} micro-steps; {said}\n{table}\n")

    def _time(self, **seconds: Any) -> None:
        assert self.measured.timing is not None
        self.measured.timing = replace(self.measured.timing, **seconds)


def timing(epochs: list[Epoch], ranks: int, embedding_s: float | None = None) -> Timing:
    """Statistics of the epochs, and seconds of all training. The first, and the first of a job that
    continues another, stand apart: they warm caches and allocators."""
    timed = [epoch.time_s for epoch in epochs[1:] if not epoch.resumed]
    typical = statistics.median(timed) if timed else None
    last = epochs[-1]
    return Timing(
        first_epoch_s=epochs[0].time_s,
        epoch_median_s=typical,
        epoch_min_s=min(timed, default=None),
        epoch_max_s=max(timed, default=None),
        epochs_timed=len(timed),
        steps_per_epoch=last.steps,
        seeds_per_s=last.seeds / typical if typical else None,
        seeds_per_s_per_device=last.seeds / typical / ranks if typical else None,
        edges_per_s=statistics.mean(e.edges for e in epochs) / typical if typical else None,
        training_s=sum(epoch.time_s for epoch in epochs) + (embedding_s or 0.0),
        embedding_s=embedding_s,
        evaluation_s=sum(epoch.evaluation_s or 0.0 for epoch in epochs),
    )


def epoch_line(epoch: Epoch, epochs: int) -> str:
    """One epoch in one line of a log."""
    line = (
        f"epoch {epoch.epoch:>3} of {epochs}   loss {epoch.loss:.4f}   "
        f"train accuracy {epoch.train_accuracy:.4f}   {epoch.time_s:.2f} s"
    )
    if epoch.validation_accuracy is not None:
        line += f"   validation {epoch.validation_accuracy:.4f} in {epoch.evaluation_s:.2f} s"
    return line


def write_trace(export: Callable[[str], None], path: Path) -> str:
    """The trace by torch's `export`, compressed; returns what became of it."""
    with TemporaryDirectory(dir=path.parent) as folder:  # no place for torch's own, nor half a one
        whole = Path(folder, path.name)
        export(str(whole.with_suffix("")))
        with whole.with_suffix("").open("rb") as plain, gzip.open(whole, "wb") as packed:
            shutil.copyfileobj(plain, packed)
        size = whole.stat().st_size
        if size <= TRACE_LIMIT_BYTES:
            whole.replace(path)
            return f"their trace: {path.name}"
    return f"their trace of {size / 2**20:.0f} MiB is not kept: write fewer profile_steps"
