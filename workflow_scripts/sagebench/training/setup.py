"""Set-up of one rank: graph, engine, trainer and evaluator, shared by trials and pilots."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import torch

from sagebench.attempts import Measurements
from sagebench.engines.base import Engine, make_engine, network_arguments
from sagebench.engines.loaders import Loader, Placement, available_bytes, choose_placement
from sagebench.engines.precision import set_precision
from sagebench.errors import UserError
from sagebench.graph.store import GraphStore
from sagebench.grid.last_hop import table_aggregator
from sagebench.grid.trial import Trial, dataset_identity
from sagebench.kernels.choice import choose_kernels
from sagebench.measure import machine
from sagebench.measure.clocks import PhaseClock
from sagebench.measure.machine import Nvml
from sagebench.measure.memory import PeakMemory, limit_memory, release_memory
from sagebench.models.base import Network, parameter_count
from sagebench.operations import AUTO, PLAIN
from sagebench.records import Accuracy, Limit, PeakBytes, Status, StoreFacts
from sagebench.training.checkpoint import Checkpoint
from sagebench.training.distributed import Communicator, Progress, RankEnvironment
from sagebench.training.evaluation import (
    Evaluator,
    sampled_test_nodes,
    share_of,
    standard_error,
)
from sagebench.training.trainer import Trainer, synchronise_device


class EarlyEnd(Exception):
    """A measured end: the trial cannot go on, and that is its result."""

    def __init__(self, status: Status, message: str, limit: Limit | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.limit = limit


@dataclass(eq=False)
class RankSetup:
    """Base of what a rank runs: a whole trial (a method's `Run`) or a pilot's window (`PilotRun`).

    The order: `open`, or `build` for what trains by mini-batches; `begin_measuring`, `describe`,
    the work within `measuring`, and `sum_up`.
    """

    trial: Trial
    store_path: Path
    directory: Path
    env: RankEnvironment
    device: torch.device
    clock: PhaseClock

    tests_sampled = True  # a class's: whether the test samples, too

    def __post_init__(self) -> None:
        torch.set_num_threads(self.trial.threads_per_rank)
        self.progress = Progress(speaks=self.env.rank == 0)
        self.started_at = float(os.environ.get("SAGEBENCH_STARTED_AT", time.time()))
        self.nvml = Nvml()
        self.measured = Measurements()
        self.used_s = 0.0  # by earlier jobs, until the checkpoints that were continued from
        self.energy_j: float | None = None
        self.gpu_state: dict[str, Any] | None = None

    def run(self) -> None:
        """All that the rank does."""
        raise NotImplementedError

    def open(self) -> None:
        """Open the store, which has to be of the trial's data set, and meet the other ranks."""
        self.store = GraphStore.open(self.store_path)
        source, asked = self.store.manifest["source"], self.trial.dataset
        if dataset_identity(source) != dataset_identity(asked):
            raise UserError(
                f"the graph store {self.store_path} was made from {source}, the trial asks for "
                f"{asked}: give --store the store of that data set"
            )
        self.communicator = Communicator(self.env, self.device)
        self.checkpoint = Checkpoint(self.trial, self.store, self.communicator)
        self.peak = PeakMemory(self.device)

    def build(self) -> None:
        """`open` and `build_engine`."""
        # torch.optim loads torch's compiler, a second or two that the store and the other ranks
        # let pass. It is there before the engine imports anything, so that no two threads import.
        compiler = Thread(target=importlib.import_module, args=("torch._dynamo",))
        compiler.start()
        self.open()
        compiler.join()
        self.build_engine()

    def build_engine(self) -> None:
        """Make engine, trainer and evaluator, and compile and load what they need."""
        trial = self.trial
        set_precision(trial, self.device)
        wanted = AUTO if trial.asks_for_kernels else PLAIN
        self.measured.kernels_used = choose_kernels(wanted, self.device.type)
        self.progress.say(f"kernels {self.measured.kernels_used}")
        torch.manual_seed(trial.seed)
        # Every engine starts from the same weights, whatever its layers draw at first.
        initial = Network(**network_arguments(trial, self.store)).state_dict()
        self.engine = self.make_engine()
        self.engine.model.load_state_dict(initial)
        self.trainer = Trainer(
            trial, self.engine, self.store.train, self.communicator, self.clock, self.progress
        )
        kept = "mapped" if self.device.type == "cpu" else "host"
        loader = self.engine.loader or Loader(trial, self.store, self.device, kept)
        self.evaluator = Evaluator(trial, self.store, self.communicator, loader, self.progress)
        self.measured.parameters = parameter_count(self.engine.model)
        self.measured.last_hop = "table" if table_aggregator(trial) else "sampled"
        if self.engine.placement:
            self.measured.placement = self.engine.placement.to_json()
            self.progress.say(f"placement {self.engine.placement}")
        self.trainer.warm_up()  # before memory is capped

    def make_engine(self) -> Engine:
        return make_engine(self.trial, self.store, self.device, self.placement())

    def placement(self) -> Placement:
        """One for all ranks: what the fullest device allows."""
        available = available_bytes(self.device, self.trial.memory_limit_gib)
        if available is not None:
            available = min(self.communicator.gather(available))
        return choose_placement(self.trial, self.store, available)

    def begin_measuring(self) -> None:
        """Start the clock of the memory's peaks, and cap it where the trial says so."""
        release_memory(self.device)
        self.peak.start()
        if self.trial.memory_limit_gib is not None:
            limit_memory(self.device, self.trial.memory_limit_gib)

    def describe(self) -> None:
        """Note and write where and with what is measured; a collective."""
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
        sizes = ("checksum", "num_nodes", "num_edges", "num_features", "num_classes")
        measured.store = StoreFacts(
            name=str(trial.dataset["name"]),
            **{name: store.manifest[name] for name in sizes},
            train_nodes=len(store.train),
            valid_nodes=len(store.valid),
            test_nodes=len(store.test),
            unseen_nodes=None if store.unseen is None else len(store.unseen),
        )
        measured.cores = described["cores"]
        measured.oversubscribed = (
            trial.device == "cpu" and on_this_node * trial.threads_per_rank > measured.cores
        )
        measured.versions = machine.collect_versions()
        self.write()

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
            **{
                name: None if peak is None else max(found[name] for found in of_ranks)
                for name, peak in peaks.items()
            }
        )
        energies = [e for e in self.communicator.gather(self.energy_j) if e is not None]
        measured.energy = {"nvml_j": sum(energies) if energies else None}

    @property
    def elapsed_s(self) -> float:
        """Seconds used by all jobs so far."""
        return self.used_s + time.time() - self.started_at

    def write(self) -> None:
        """Write what is measured so far, on rank 0."""
        if self.env.rank == 0:
            self.measured.write(self.directory)

    def validate(self, weights: dict[str, torch.Tensor]) -> float:
        """Accuracy of `weights` on the validation nodes, by the trial's method."""
        return self.evaluator.accuracy(weights, self.store.valid, self.trial.validation)

    def check_deadline(self) -> None:
        """Raises EarlyEnd once the launcher's deadline, a little before the trial's walltime, is
        over."""
        if time.time() > float(os.environ.get("SAGEBENCH_DEADLINE", "inf")):
            walltime_s = float(os.environ["SAGEBENCH_WALLTIME_S"])
            message = f"the walltime of {walltime_s:.0f} s was used up"
            raise EarlyEnd(Status.TIME_LIMIT, message, Limit("walltime", walltime_s, "s"))

    def test(self, weights: dict[str, torch.Tensor]) -> Accuracy:
        """Accuracy of `weights` on the test nodes: over the full graph, and sampled. The graph has
        the unseen nodes, which training may not have had.

        An engine whose own loader is PyG's leaves the GPU to training; the test samples there if
        graph and features fit once training's memory is freed.
        """
        store, evaluator = self.store, self.evaluator
        nodes = store.test
        drawn = sampled_test_nodes(nodes, self.trial.sampled_test_nodes)
        release_memory(self.device)
        loader = evaluator.loader
        if self.engine.loader is None and self.placement().chosen == "device":
            evaluator.loader = Loader(self.trial, store.whole, self.device, "device")
        elif store.whole is not store:
            evaluator.loader = loader.over(store.whole)
        hits = evaluator.hits(weights, nodes, "full")
        found = Accuracy(
            validation_method=self.trial.validation,
            test_full=hits.sum().item() / len(nodes),
            unseen=share_of(hits, nodes, store.unseen),
        )
        if self.tests_sampled:
            sampled = evaluator.accuracy(weights, drawn, "sampled")
            found = replace(
                found,
                test_sampled=sampled,
                test_sampled_nodes=len(drawn),
                test_sampled_standard_error=standard_error(sampled, len(drawn), len(nodes)),
            )
        evaluator.loader = loader
        release_memory(self.device)
        return found

    def whole_outputs(self, weights: dict[str, torch.Tensor]) -> torch.Tensor:
        """Logits of every node, [N, classes] on the device: of the unseen ones over the whole
        graph, of all others over the one that training sees."""
        store, evaluator = self.store, self.evaluator
        found = evaluator.outputs(weights, np.arange(store.num_nodes))
        if store.unseen is not None and store.whole is not store:
            loader = evaluator.loader
            evaluator.loader = loader.over(store.whole)
            unseen = torch.from_numpy(np.array(store.unseen)).to(self.device)
            found[unseen] = evaluator.outputs(weights, store.unseen)
            evaluator.loader = loader
        return found
