"""Set-up of one rank: graph, engine, trainer and evaluator, shared by trials and pilots."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import torch

from sagebench.attempts import Measurements
from sagebench.engines.base import Engine, make_engine, network_arguments
from sagebench.engines.loaders import (
    Loader,
    Placement,
    available_bytes,
    choose_placement,
    torch_view,
)
from sagebench.engines.precision import set_precision
from sagebench.errors import UserError
from sagebench.graph.store import GraphStore
from sagebench.grid.trial import Trial, dataset_identity
from sagebench.measure import machine
from sagebench.measure.clocks import PhaseClock
from sagebench.measure.machine import Nvml
from sagebench.measure.memory import PeakMemory, limit_memory, release_memory
from sagebench.models.base import Network, parameter_count
from sagebench.records import Accuracy, PeakBytes, StoreFacts
from sagebench.training.checkpoint import Checkpoint
from sagebench.training.distributed import Communicator, RankEnvironment
from sagebench.training.early_end import Deadline
from sagebench.training.evaluation import Evaluator, sampled_test_nodes, standard_error
from sagebench.training.progress import Progress
from sagebench.training.trainer import Trainer, synchronise_device


class RankSetup:
    """Base of what a rank runs: a whole trial (a method's `Run`) or a pilot's window (`PilotRun`).

    The order: `open`, or `build` for what trains by mini-batches, which then may `warm_up`;
    `begin_measuring`, `describe`, the work within `measuring`, and `sum_up`.
    """

    def __init__(
        self,
        trial: Trial,
        store_path: Path,
        directory: Path,
        env: RankEnvironment,
        device: torch.device,
        clock: PhaseClock,
    ) -> None:
        torch.set_num_threads(trial.threads_per_rank)
        self.trial = trial
        self.store_path = store_path
        self.directory = directory
        self.env = env
        self.device = device
        self.clock = clock
        self.progress = Progress(speaks=env.rank == 0)
        self.started_at = float(os.environ.get("SAGEBENCH_STARTED_AT", time.time()))
        self.nvml = Nvml()
        self.deadline = Deadline.read()
        self.measured = Measurements()
        self.used_s = 0.0  # by earlier jobs, until the checkpoints that were continued from
        self.energy_j: float | None = None
        self.gpu_state: dict[str, Any] | None = None

    def run(self) -> None:
        """All that the rank does."""
        raise NotImplementedError

    def open(self) -> None:
        """Open the store and meet the other ranks."""
        self.store = GraphStore.open(self.store_path)
        check_store(self.trial, self.store)
        self.communicator = Communicator(self.env, self.device)
        self.checkpoint = Checkpoint(self.trial, self.store, self.communicator)
        self.peak = PeakMemory(self.device)

    def build(self) -> None:
        """`open`, and make engine, trainer and evaluator."""
        trial = self.trial
        # torch.optim loads torch's compiler, a second or two that the store and the other ranks
        # let pass. It is there before the engine imports anything, so that no two threads import.
        compiler = Thread(target=importlib.import_module, args=("torch._dynamo",))
        compiler.start()
        set_precision(trial, self.device)
        self.open()
        compiler.join()
        torch.manual_seed(trial.seed)
        # Every engine starts from the same weights, whatever its layers draw at first.
        initial = Network(**network_arguments(trial, self.store)).state_dict()
        self.engine = self.make_engine()
        self.engine.model.load_state_dict(initial)
        self.trainer = Trainer(
            trial, self.engine, self.store.train, self.communicator, self.clock, self.progress
        )
        self.evaluator = Evaluator(
            trial,
            self.store,
            self.communicator,
            torch_view(self.store.labels).to(self.device),
            self.engine.loader,
            self.progress,
        )
        self.measured.parameters = parameter_count(self.engine.model)
        if self.engine.placement:
            self.measured.placement = self.engine.placement.to_json()
            self.progress.say(f"placement {self.engine.placement}")

    def make_engine(self) -> Engine:
        return make_engine(self.trial, self.store, self.device, self.placement())

    def placement(self) -> Placement:
        """One for all ranks: what the fullest device allows."""
        available = available_bytes(self.device, self.trial.memory_limit_gib)
        if available is not None:
            available = min(self.communicator.gather(available))
        return choose_placement(self.trial.placement, self.store, available)

    def warm_up(self) -> None:
        """Compile and load what training and evaluation need, before memory is capped."""
        self.trainer.parallelise()
        self.trainer.warm_up()

    def begin_measuring(self) -> None:
        """Start the clock of the memory's peaks, and cap it where the trial says so."""
        release_memory(self.device)
        self.peak.start()
        if self.trial.memory_limit_gib is not None:
            limit_memory(self.device, self.trial.memory_limit_gib)

    def describe(self) -> None:
        """Note where and with what is measured; a collective."""
        trial, store, measured = self.trial, self.store, self.measured
        described = {
            "rank": self.env.rank,
            "local_rank": self.env.local_rank,
            **machine.collect_process(trial.threads_per_rank),
            **machine.collect_cpu(),
            **machine.collect_device(self.device),
            "slurm": machine.collect_slurm(),
            "host_private_before_training_bytes": self.peak.host_bytes(),
        }
        measured.ranks = self.communicator.gather(described)
        on_this_node = sum(rank["node"] == described["node"] for rank in measured.ranks)
        measured.store = StoreFacts(
            name=str(trial.dataset["name"]),
            checksum=store.checksum,
            num_nodes=store.num_nodes,
            num_edges=store.num_edges,
            num_features=store.num_features,
            num_classes=store.num_classes,
            train_nodes=len(store.train),
            valid_nodes=len(store.valid),
            test_nodes=len(store.test),
        )
        measured.cores = described["cores"]
        measured.oversubscribed = (
            trial.device == "cpu" and on_this_node * trial.threads_per_rank > measured.cores
        )
        measured.versions = machine.collect_versions()

    def note_first_step(self) -> None:
        """Note when the trial's first step was done: a job that goes on has an earlier one's."""
        if self.measured.start_to_first_step_s is None:
            synchronise_device(self.device)
            self.measured.start_to_first_step_s = time.time() - self.started_at

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Count memory, energy and the GPU's state at the end of what is done within."""
        self._energy_before_j = self.node_energy_j()
        with self.peak:
            yield
        if self.device.type == "cuda":  # before the GPU idles
            self.gpu_state = self.nvml.state(self.device.index)
        self.count_energy()

    def count_energy(self) -> None:
        """Count the energy since this was called before, within `measuring`."""
        before, self._energy_before_j = self._energy_before_j, self.node_energy_j()
        if before is not None and self._energy_before_j is not None:
            self.energy_j = (self.energy_j or 0.0) + self._energy_before_j - before

    def node_energy_j(self) -> float | None:
        """The node's counter, read by its first rank for all of its ranks."""
        if self.device.type != "cuda" or self.env.local_rank != 0:
            return None
        return self.nvml.energy_j(self.env.local_world_size)

    def sum_up(self) -> None:
        """Note memory and energy of all ranks; a collective."""
        measured, peaks = self.measured, self.peak.read()
        mine = {**peaks, **machine.collect_allocator(self.device), "at_end": self.gpu_state}
        of_ranks = self.communicator.gather(mine)
        for rank, found in zip(measured.ranks, of_ranks, strict=True):
            rank |= found
        measured.memory = PeakBytes(
            **{name: highest(found[name] for found in of_ranks) for name in peaks}
        )
        energies = [e for e in self.communicator.gather(self.energy_j) if e is not None]
        measured.energy = {"nvml_j": sum(energies) if energies else None}

    @property
    def elapsed_s(self) -> float:
        """Of all jobs so far."""
        return self.used_s + time.time() - self.started_at

    def write(self) -> None:
        """Write what is measured so far, on rank 0."""
        if self.env.rank == 0:
            self.measured.write(self.directory)

    def validate(self, weights: dict[str, torch.Tensor]) -> float:
        """Accuracy of `weights` on the validation nodes, by the trial's method."""
        return self.evaluator.accuracy(weights, self.store.valid, self.trial.validation)

    def test(self, weights: dict[str, torch.Tensor]) -> Accuracy:
        """Accuracy of `weights` on the test nodes: over the full graph, and sampled."""
        nodes = self.store.test
        drawn = sampled_test_nodes(nodes, self.trial.sampled_test_nodes)
        evaluator = self._tester()
        full = evaluator.accuracy(weights, nodes, "full")
        sampled = evaluator.accuracy(weights, drawn, "sampled")
        del evaluator
        release_memory(self.device)
        return Accuracy(
            validation_method=self.trial.validation,
            test_full=full,
            test_sampled=sampled,
            test_sampled_nodes=len(drawn),
            test_sampled_standard_error=standard_error(sampled, len(drawn), len(nodes)),
        )

    def _tester(self) -> Evaluator:
        """The evaluator of the test, after training's memory is freed.

        An engine whose own loader is PyG's leaves the GPU to training; the test samples there if
        graph and features fit now.
        """
        release_memory(self.device)
        if self.engine.loader is not None or self.device.type == "cpu":
            return self.evaluator
        kept = self.placement().chosen
        if kept == "host":
            return self.evaluator
        loader = Loader(self.trial, self.store, self.device, kept)
        return Evaluator(
            self.trial, self.store, self.communicator, self.evaluator.labels, loader, self.progress
        )


def highest(values: Iterable[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)


def check_store(trial: Trial, store: GraphStore) -> None:
    """Raises UserError where the store is not of the trial's data set."""
    if dataset_identity(store.manifest["source"]) != dataset_identity(trial.dataset):
        raise UserError(
            f"the graph store {store.path} was made from {store.manifest['source']}, the trial "
            f"asks for {trial.dataset}: give --store the store of that data set"
        )
