"""A whole trial as one rank lives it."""

from __future__ import annotations

import math
import os
import sys
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sagebench.engines.base import model_arguments
from sagebench.engines.loaders import LOADERS
from sagebench.engines.make import make_engine
from sagebench.engines.placement import Placement, choose_placement, placement_on
from sagebench.engines.precision import set_precision
from sagebench.engines.tensors import torch_view
from sagebench.errors import UserError
from sagebench.graph.store import GraphStore
from sagebench.grid.trial import Trial, dataset_identity
from sagebench.measure import machine
from sagebench.measure.clocks import PhaseClock
from sagebench.measure.memory import PeakMemory, lift_limit, limit_memory, release_memory
from sagebench.measure.nvml import Nvml
from sagebench.model.graphsage import GraphSAGE, parameter_count
from sagebench.rank_records import CONTINUES_CODE, EARLY_END_CODE, Measurements, RankEarlyEnd
from sagebench.records import Accuracy, Epoch, PeakBytes, Reason, StoreFacts
from sagebench.training.checkpoint import BestCheckpoint
from sagebench.training.continuation import Continuation, Continues
from sagebench.training.distributed import Communicator, RankEnvironment
from sagebench.training.early_end import Deadline, check_finite, explain
from sagebench.training.epoch_sums import EpochSums
from sagebench.training.evaluation import Evaluator, sampled_test_nodes, standard_error
from sagebench.training.profiling import profile_steps
from sagebench.training.progress import Progress, epoch_line
from sagebench.training.state import TrainingState
from sagebench.training.timing import timing
from sagebench.training.trainer import Trainer, synchronise_device


def run_rank(trial: Trial, store_path: Path, directory: Path) -> int:
    """Run one rank of `trial` and return the process's exit code.

    Rank 0 writes `measured.json` into `directory`, anew after each epoch. A rank that runs out of
    memory or time, or diverges, writes its own record there and returns EARLY_END_CODE. Where
    $SAGEBENCH_CHECKPOINT names a file, the trial goes on from that file; out of time, or asked to
    stop by a signal, it writes it and returns CONTINUES_CODE.
    Raises UserError for what the user can mend; any other exception is a failure.
    """
    env = RankEnvironment.read()
    if env.world_size != trial.ranks:
        raise UserError(
            f"the trial has {trial.ranks} ranks but {env.world_size} were started: start "
            f"{trial.ranks}, for instance with workflow_scripts/run_trial.py"
        )
    device = choose_device(trial, env)
    clock = PhaseClock(lambda: synchronise_device(device))
    directory.mkdir(parents=True, exist_ok=True)
    try:
        RankRun(trial, store_path, directory, env, device, clock).run()
    except UserError:
        raise
    except Continues:
        return CONTINUES_CODE
    except BaseException as error:
        lift_limit(device)
        traceback.print_exc()
        end = explain(error, device, trial.memory_limit_gib)
        if end is None:
            return 1
        counted = machine.collect_allocator(device)
        reason = Reason(env.rank, clock.phase, str(end), end.limit)
        RankEarlyEnd(end.status, time.time(), reason, counted).write(directory)
        print(f"rank {env.rank}: {end.status} in {clock.phase}: {end}", file=sys.stderr)
        return EARLY_END_CODE
    return 0


def choose_device(trial: Trial, env: RankEnvironment) -> torch.device:
    """The trial's device for this rank; a trial never falls back to another."""
    torch.set_num_threads(trial.threads_per_rank)
    if trial.device == "cpu":
        return torch.device("cpu")
    count = torch.cuda.device_count()
    if env.local_rank >= count:
        raise UserError(
            f"the trial asks for device: cuda, but local rank {env.local_rank} finds {count} "
            "GPUs here: start it where there are enough, or write device: cpu"
        )
    torch.cuda.set_device(env.local_rank)
    return torch.device("cuda", env.local_rank)


class RankRun:
    def __init__(
        self,
        trial: Trial,
        store_path: Path,
        directory: Path,
        env: RankEnvironment,
        device: torch.device,
        clock: PhaseClock,
    ) -> None:
        self.trial = trial
        self.directory = directory
        self.env = env
        self.device = device
        self.clock = clock
        self.progress = Progress(speaks=env.rank == 0)
        self.started_at = float(os.environ.get("SAGEBENCH_STARTED_AT", time.time()))
        self.continuation = Continuation(trial, Deadline.read(), self.started_at, self.progress)
        self.resumed = False  # until the first epoch of a job that goes on is flagged so
        self.nvml = Nvml()
        self.measured = Measurements()
        self.gpu_state: dict[str, Any] = {}

        self.store = GraphStore.open(store_path)
        check_store(trial, self.store)
        set_precision(trial, device)
        self.communicator = Communicator(env, device)
        torch.manual_seed(trial.seed)
        # Every engine starts from the same weights, whatever its layers draw at first.
        initial = GraphSAGE(**model_arguments(trial, self.store)).state_dict()
        self.engine = make_engine(trial, self.store, device, self._placement())
        self.engine.model.load_state_dict(initial)
        self.trainer = Trainer(
            trial, self.engine, self.store.train, self.communicator, clock, self.progress
        )
        self.evaluator = Evaluator(
            trial,
            self.store,
            self.communicator,
            torch_view(self.store.labels).to(device),
            self.engine.loader,
            self.progress,
        )
        self.state = TrainingState(
            self.engine.model,
            self.trainer.optimizer,
            BestCheckpoint(directory / "best.pt" if env.rank == 0 else None),
            PeakMemory(device),
            EpochSums(1, trial.layers, device),
        )

    def _placement(self) -> Placement:
        """One for all ranks: what the fullest device allows."""
        trial = self.trial
        mine = placement_on(trial.placement, self.store, self.device, trial.memory_limit_gib)
        if mine.available_bytes is None:
            return mine
        return choose_placement(
            trial.placement,
            mine.graph_bytes,
            mine.features_bytes,
            min(self.communicator.gather(mine.available_bytes)),
        )

    def run(self) -> None:
        self._set_up()
        self._train()
        self._test()
        self._time_phases()
        self._profile()
        self.communicator.close()

    def _set_up(self) -> None:
        trial = self.trial
        self.trainer.parallelise()
        self.trainer.warm_up()
        if trial.memory_limit_gib is not None:
            self.evaluator.warm_up()
        self.resumed = self.continuation.begin(self.state, self.store, self.communicator)
        release_memory(self.device)
        self.state.peak.start()
        if trial.memory_limit_gib is not None:
            limit_memory(self.device, trial.memory_limit_gib)
        cores = machine.available_cores()
        described = {
            "rank": self.env.rank,
            "local_rank": self.env.local_rank,
            **machine.collect_process(trial.threads_per_rank),
            **machine.collect_cpu(),
            **machine.collect_device(self.device),
            "slurm": machine.collect_slurm(),
            "host_private_before_training_bytes": self.state.peak.host_bytes(),
        }
        measured, store = self.measured, self.store
        measured.ranks = self.communicator.gather(described)
        on_this_node = sum(rank["node"] == described["node"] for rank in measured.ranks)
        measured.store = StoreFacts(
            name=trial.dataset["name"],
            checksum=store.checksum,
            num_nodes=store.num_nodes,
            num_edges=store.num_edges,
            num_features=store.num_features,
            num_classes=store.num_classes,
            train_nodes=len(store.train),
            valid_nodes=len(store.valid),
            test_nodes=len(store.test),
        )
        measured.parameters = parameter_count(self.engine.model)
        measured.cores = cores
        measured.oversubscribed = (
            trial.device == "cpu" and on_this_node * trial.threads_per_rank > cores
        )
        measured.versions = machine.collect_versions()
        if self.engine.placement:
            measured.placement = self.engine.placement.to_json()
            self.progress.say(f"placement {self.engine.placement}")
        self._write()

    def _note_first_step(self) -> None:
        """Of the trial: a job that goes on has an earlier one's."""
        if self.state.start_to_first_step_s is None:
            synchronise_device(self.device)
            self.state.start_to_first_step_s = time.time() - self.started_at

    def _train(self) -> None:
        trial, state = self.trial, self.state
        while state.sums.epoch <= trial.epochs and not state.best.stale(trial.patience_evaluations):
            epoch = self._epoch()
            if epoch.epoch % trial.evaluate_every_epochs == 0 or epoch.epoch == trial.epochs:
                self.continuation.save_and_stop_in_time()
                epoch = self._validated(epoch)
            state.next_epoch(epoch)
            self.progress.say(epoch_line(epoch, trial.epochs))
            self._write()
            self.continuation.save_and_stop_in_time()
        if state.best.stale(trial.patience_evaluations):
            self.progress.say(
                f"stopping early: no better validation in {trial.patience_evaluations} looks"
            )
        peaks = self.communicator.gather(state.peak.read())
        ends = self.communicator.gather(
            {**machine.collect_allocator(self.device), "at_end": self.gpu_state or None}
        )
        for rank, peak, end in zip(self.measured.ranks, peaks, ends, strict=True):
            rank |= {**peak, **end}
        self.measured.memory = PeakBytes(
            **{
                name: None if peaks[0][name] is None else max(peak[name] for peak in peaks)
                for name in peaks[0]
            }
        )
        energies = self.communicator.gather(state.energy_j)
        energies = [joules for joules in energies if joules is not None]
        self.measured.energy = {"nvml_j": sum(energies) if energies else None}
        self.measured.timing = timing(state.epochs, trial.ranks)
        self._write()

    def _epoch(self) -> Epoch:
        """Train the epoch in hand to its end."""
        sums = self.state.sums
        if self.resumed and sums.micro_steps < self.trainer.micro_steps_per_epoch:
            sums.resumed, self.resumed = True, False
        energy_before = self._node_energy_j()
        with self.state.peak:
            epoch = self.trainer.epoch(sums, self.continuation.stops, self._note_first_step)
        if self.device.type == "cuda":  # before the GPU idles
            self.gpu_state = self.nvml.state(self.device.index)
        self.state.energy_j = add(self.state.energy_j, energy_before, self._node_energy_j())
        if epoch is None:
            self.continuation.save_and_stop()
        with self.clock("forward"):
            check_finite(epoch.loss, sums.epoch)
        return epoch

    def _node_energy_j(self) -> float | None:
        """The node's counter, read by its first rank for all of its ranks."""
        if self.device.type != "cuda" or self.env.local_rank != 0:
            return None
        return self.nvml.energy_j(self.env.local_world_size)

    def _validated(self, epoch: Epoch) -> Epoch:
        start = time.perf_counter()
        with self.clock("evaluation"):
            weights = self.engine.model.state_dict()
            accuracy = self.evaluator.accuracy(weights, self.store.valid, self.trial.validation)
            self.state.best.offer(epoch.epoch, accuracy, weights)
            release_memory(self.device)
        evaluation_s = time.perf_counter() - start
        return replace(epoch, validation_accuracy=accuracy, evaluation_s=evaluation_s)

    def _test(self) -> None:
        best = self.state.best
        self.progress.say(f"testing the weights of epoch {best.epoch}")
        start = time.perf_counter()
        nodes = self.store.test
        of_sampled = sampled_test_nodes(nodes, self.trial.sampled_test_nodes)
        if (self.trial.sampled_test_nodes or 0) > len(nodes):
            self.progress.say(
                f"sampled_test_nodes is {self.trial.sampled_test_nodes:,}, and there are "
                f"{len(nodes):,} test nodes: all of them are sampled"
            )
        with self.clock("evaluation"):
            evaluator = self._tester()
            full = evaluator.accuracy(best.weights, nodes, "full")
            sampled = evaluator.accuracy(best.weights, of_sampled, "sampled")
            del evaluator
            release_memory(self.device)
        error = standard_error(sampled, len(of_sampled), len(nodes))
        self.measured.accuracy = Accuracy(
            best_epoch=best.epoch,
            best_validation=best.accuracy,
            validation_method=self.trial.validation,
            test_full=full,
            test_sampled=sampled,
            test_sampled_nodes=len(of_sampled),
            test_sampled_standard_error=error if math.isfinite(error) else None,
        )
        self._time(test_s=time.perf_counter() - start)
        self.progress.say(
            f"test accuracy {full:.4f} full, {sampled:.4f} sampled"
            + ("" if of_sampled is nodes else f" (+- {error:.4f}, {len(of_sampled):,} nodes)")
        )

    def _tester(self) -> Evaluator:
        """The evaluator of the test, after training's memory is freed.

        An engine whose own loader is PyG's leaves the GPU to training; the test samples there if
        graph and features fit now.
        """
        release_memory(self.device)
        if self.engine.loader is not None or self.device.type == "cpu":
            return self.evaluator
        kept = self._placement().chosen
        if kept == "host":
            return self.evaluator
        loader = LOADERS[kept](self.trial, self.store, self.device)
        return Evaluator(
            self.trial, self.store, self.communicator, self.evaluator.labels, loader, self.progress
        )

    def _time_phases(self) -> None:
        if self.trial.phase_window_steps:
            self.measured.phases = self.trainer.time_phases(self.trial.epochs + 1)
        self._time(total_s=self.state.used_s + time.time() - self.started_at)
        self.measured.complete = True
        self._write()

    def _profile(self) -> None:
        """Once all is measured and written: what a profiler takes or fails at is no part of it."""
        trial = self.trial
        if not trial.profile_steps:
            return
        self.progress.say(f"profiling {trial.profile_steps} micro-steps")
        lift_limit(self.device)
        mine = self.directory if self.env.rank == 0 else None
        try:
            profile_steps(self.trainer, trial.epochs + 2, trial.profile_steps, mine)
        except Exception as error:
            traceback.print_exc()
            self.progress.say(f"no profile: {type(error).__name__}: {error}")

    def _write(self) -> None:
        if self.env.rank == 0:
            self.measured.epochs = self.state.epochs
            self.measured.start_to_first_step_s = self.state.start_to_first_step_s
            self.measured.write(self.directory)

    def _time(self, **seconds: float) -> None:
        self.measured.timing = replace(self.measured.timing, **seconds)


def check_store(trial: Trial, store: GraphStore) -> None:
    """Raises UserError where the store is not of the trial's data set."""
    if dataset_identity(store.manifest["source"]) != dataset_identity(trial.dataset):
        raise UserError(
            f"the graph store {store.path} was made from {store.manifest['source']}, the trial "
            f"asks for {trial.dataset}: give --store the store of that data set"
        )


def add(total: float | None, before: float | None, after: float | None) -> float | None:
    if before is None or after is None:
        return total
    return (total or 0.0) + after - before
