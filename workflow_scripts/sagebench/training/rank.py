"""A whole trial as one rank lives it."""

from __future__ import annotations

import os
import statistics
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch

from sagebench.errors import UserError
from sagebench.files import write_json
from sagebench.graph.store import GraphStore
from sagebench.grid.trial import Trial, dataset_identity
from sagebench.measure import machine
from sagebench.measure.clocks import PhaseClock
from sagebench.measure.energy import Nvml
from sagebench.measure.memory import PeakMemory, lift_limit, limit_memory, release_memory
from sagebench.measure.outcome import EARLY_END_CODE
from sagebench.model.graphsage import GraphSAGE, parameter_count
from sagebench.training.checkpoint import BestCheckpoint
from sagebench.training.distributed import Communicator, RankEnvironment
from sagebench.training.early_end import Deadline, check_finite, explain, write_record
from sagebench.training.engines import make_engine, model_arguments
from sagebench.training.evaluation import Evaluator
from sagebench.training.placement import Placement, choose_placement, place
from sagebench.training.precision import set_precision
from sagebench.training.progress import Progress, epoch_line, placement_line
from sagebench.training.tensors import torch_view
from sagebench.training.trainer import Trainer

MEASURED = "measured.json"
"""what rank 0 has measured so far, in the directory of the attempt"""


def run_rank(trial: Trial, store_path: Path, directory: Path) -> int:
    """Run one rank of `trial` and return the process's exit code.

    Rank 0 writes `measured.json` into `directory`, anew after each epoch. A rank that runs out of
    memory or time, or diverges, writes its own record there and returns EARLY_END_CODE.
    Raises UserError for what the user can mend; any other exception is a failure.
    """
    place = RankEnvironment.read()
    if place.world_size != trial.ranks:
        raise UserError(
            f"the trial has {trial.ranks} ranks but {place.world_size} were started: start "
            f"{trial.ranks}, for instance with workflow_scripts/run_trial.py"
        )
    device = choose_device(trial, place)
    clock = PhaseClock(lambda: torch.cuda.synchronize() if device.type == "cuda" else None)
    directory.mkdir(parents=True, exist_ok=True)
    try:
        RankRun(trial, store_path, directory, place, device, clock).run()
    except UserError:
        raise
    except BaseException as error:
        lift_limit()
        traceback.print_exc()
        end = explain(error, device, trial.memory_limit_gib)
        if end is None:
            return 1
        write_record(directory, place.rank, clock.phase, end)
        print(f"rank {place.rank}: {end.status.value} in {clock.phase}: {end}", file=sys.stderr)
        return EARLY_END_CODE
    return 0


def choose_device(trial: Trial, place: RankEnvironment) -> torch.device:
    """The trial's device for this rank; a trial never falls back to another."""
    torch.set_num_threads(trial.threads_per_rank)
    if trial.device == "cpu":
        return torch.device("cpu")
    count = torch.cuda.device_count()
    if place.local_rank >= count:
        raise UserError(
            f"the trial asks for device: cuda, but local rank {place.local_rank} finds {count} "
            "GPUs here: start it where there are enough, or write device: cpu"
        )
    torch.cuda.set_device(place.local_rank)
    return torch.device("cuda", place.local_rank)


class RankRun:
    def __init__(
        self,
        trial: Trial,
        store_path: Path,
        directory: Path,
        place: RankEnvironment,
        device: torch.device,
        clock: PhaseClock,
    ) -> None:
        self.trial = trial
        self.directory = directory
        self.place = place
        self.device = device
        self.clock = clock
        self.progress = Progress(speaks=place.rank == 0)
        self.started_at = float(os.environ.get("SAGEBENCH_STARTED_AT", time.time()))
        self.deadline = Deadline.read()
        self.peak = PeakMemory(device)
        self.nvml = Nvml()
        self.measured: dict[str, Any] = {"epochs": []}

        self.store = GraphStore.open(store_path)
        check_store(trial, self.store)
        set_precision(trial, device)
        self.communicator = Communicator(place, device)
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
            self.engine.feed,
        )
        self.best = BestCheckpoint(directory / "best.pt" if place.rank == 0 else None)

    def _placement(self) -> Placement:
        """One for all ranks: what the fullest device allows."""
        trial = self.trial
        mine = place(trial.placement, self.store, self.device, trial.memory_limit_gib)
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
        self.communicator.close()

    def _set_up(self) -> None:
        trial = self.trial
        self.trainer.warm_up()
        self.trainer.parallelise()
        release_memory(self.device)
        if trial.memory_limit_gib is not None:
            limit_memory(self.device, trial.memory_limit_gib)
        self.peak.start()
        cores = machine.available_cores()
        described = {
            "rank": self.place.rank,
            "local_rank": self.place.local_rank,
            **machine.collect_process(trial.threads_per_rank),
            **machine.collect_cpu(),
            **machine.collect_device(self.device),
            "slurm": machine.collect_slurm(),
            "host_private_before_training_bytes": self.peak.host_bytes(),
        }
        ranks = self.communicator.gather(described)
        on_this_node = sum(rank["node"] == described["node"] for rank in ranks)
        store = self.store
        self.measured |= {
            "store": {
                "name": trial.dataset["name"],
                "checksum": store.checksum,
                "num_nodes": store.num_nodes,
                "num_edges": store.num_edges,
                "num_features": store.num_features,
                "num_classes": store.num_classes,
                "train_nodes": len(store.train),
                "valid_nodes": len(store.valid),
                "test_nodes": len(store.test),
            },
            "placement": self.engine.placement and self.engine.placement.to_json(),
            "parameters": parameter_count(self.engine.model),
            "cores": cores,
            "oversubscribed": trial.device == "cpu"
            and on_this_node * trial.threads_per_rank > cores,
            "versions": machine.collect_versions(),
            "ranks": ranks,
        }
        if self.measured["placement"]:
            self.progress.say(placement_line(self.measured["placement"]))
        self.trainer.on_first_step = self._note_first_step
        self._write()

    def _note_first_step(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.measured["start_to_first_step_s"] = time.time() - self.started_at

    def _train(self) -> None:
        trial = self.trial
        energy = None
        for epoch in range(1, trial.epochs + 1):
            energy_before = self._node_energy_j()
            with self.peak:
                record = self.trainer.epoch(epoch, self.deadline.check)
            energy = add(energy, energy_before, self._node_energy_j())
            with self.clock("forward"):
                check_finite(record["loss"], epoch)
            if epoch % trial.evaluate_every_epochs == 0 or epoch == trial.epochs:
                self._validate(record)
            self.measured["epochs"].append(record)
            self.progress.say(epoch_line(record, trial.epochs))
            self._write()
            if self.best.stale(trial.patience_evaluations):
                self.progress.say(
                    f"stopping early: no better validation in {trial.patience_evaluations} looks"
                )
                break
        peaks = self.communicator.gather(self.peak.read())
        for rank, peak in zip(self.measured["ranks"], peaks, strict=True):
            rank |= peak
        self.measured["memory"] = {
            name: None if peaks[0][name] is None else max(peak[name] for peak in peaks)
            for name in peaks[0]
        }
        energies = [joules for joules in self.communicator.gather(energy) if joules is not None]
        self.measured["energy"] = {"nvml_j": sum(energies) if energies else None}
        self.measured["timing"] = timing(self.measured["epochs"], trial.ranks)
        self._write()

    def _node_energy_j(self) -> float | None:
        """The node's counter, read by its first rank for all of its ranks."""
        if self.device.type != "cuda" or self.place.local_rank != 0:
            return None
        return self.nvml.energy_j(self.place.local_world_size)

    def _validate(self, record: dict[str, Any]) -> None:
        start = time.perf_counter()
        with self.clock("evaluation"):
            weights = self.engine.model.state_dict()
            accuracy = self.evaluator.accuracy(weights, self.store.valid, self.trial.validation)
            self.best.offer(record["epoch"], accuracy, weights)
            release_memory(self.device)
        record["validation_accuracy"] = accuracy
        record["evaluation_s"] = time.perf_counter() - start

    def _test(self) -> None:
        self.progress.say(f"testing the weights of epoch {self.best.epoch}")
        start = time.perf_counter()
        with self.clock("evaluation"):
            tested = {
                f"test_{method}": self.evaluator.accuracy(
                    self.best.weights, self.store.test, method
                )
                for method in ("full", "sampled")
            }
        self.measured["accuracy"] = {
            "best_epoch": self.best.epoch,
            "best_validation": self.best.accuracy,
            "validation_method": self.trial.validation,
            **tested,
        }
        self.measured["timing"]["test_s"] = time.perf_counter() - start
        self.progress.say(
            "test accuracy {test_full:.4f} full, {test_sampled:.4f} sampled".format(**tested)
        )

    def _time_phases(self) -> None:
        if self.trial.phase_window_steps:
            self.measured["phases"] = self.trainer.time_phases(self.trial.epochs + 1)
        self.measured["timing"]["total_s"] = time.time() - self.started_at
        self.measured["complete"] = True
        self._write()

    def _write(self) -> None:
        if self.place.rank == 0:
            write_json(self.directory / MEASURED, self.measured)


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


def timing(epochs: list[dict[str, Any]], ranks: int) -> dict[str, Any]:
    """Statistics of the epochs; the first stands apart: it warms caches and allocators."""
    timed = [record["time_s"] for record in epochs[1:] if not record["resumed"]]
    typical = statistics.median(timed) if timed else None
    last = epochs[-1]
    return {
        "first_epoch_s": epochs[0]["time_s"],
        "epoch_median_s": typical,
        "epoch_min_s": min(timed, default=None),
        "epoch_max_s": max(timed, default=None),
        "epochs_timed": len(timed),
        "steps_per_epoch": last["steps"],
        "seeds_per_s": last["seeds"] / typical if typical else None,
        "seeds_per_s_per_device": last["seeds"] / typical / ranks if typical else None,
        "edges_per_s": statistics.mean(r["edges"] for r in epochs) / typical if typical else None,
        "training_s": sum(record["time_s"] for record in epochs),
        "evaluation_s": sum(record["evaluation_s"] or 0.0 for record in epochs),
    }
