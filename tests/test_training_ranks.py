"""Invariant 3: N ranks compute what one rank computes that accumulates N times as much."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from ranks import run_ranks
from sagebench.engines.aggregated_features import build_table
from sagebench.graph.store import GraphStore
from trials import make_trial, tiny_store

SCRIPTS = Path(__file__).parents[1] / "workflow_scripts"


def step_gradients(place, trial_values: dict, folder: str, device: str = "cpu") -> list[dict]:
    """The gradients of every optimizer step of an epoch, with the weights left as they are.

    Several ranks may share a GPU: the group is Gloo's.
    """
    from sagebench.engines.base import make_engine, network_arguments
    from sagebench.measure.clocks import PhaseClock
    from sagebench.models.base import Network
    from sagebench.training.distributed import Communicator, Progress
    from sagebench.training.trainer import Trainer

    trial, store = make_trial(**trial_values), GraphStore.open(folder)
    communicator = Communicator(place, torch.device(device), backend="gloo")
    torch.manual_seed(5)
    weights = Network(**network_arguments(trial, store)).state_dict()
    engine = make_engine(trial, store, communicator.device)
    engine.model.load_state_dict(weights)
    trainer = Trainer(trial, engine, store.train, communicator, PhaseClock(), Progress(False))
    steps = []
    for batch in engine.stream(trainer.order.micro_batches(1, place.rank)):
        trainer.micro_step(batch, synchronise=batch.micro_batch.last_of_step)
        if batch.micro_batch.last_of_step:
            steps.append(
                {name: p.grad.cpu().numpy().copy() for name, p in engine.model.named_parameters()}
            )
            engine.model.zero_grad()
    communicator.close()
    return steps


def phases_with_a_slow_rank(place, folder: str, slow: int, late_s: float) -> dict:
    """The phases of a trial in which one rank samples that much longer than it needs."""
    from sagebench.engines.base import make_engine
    from sagebench.measure.clocks import PhaseClock
    from sagebench.training.distributed import Communicator, Progress
    from sagebench.training.trainer import Trainer

    trial = make_trial(ranks=place.world_size, phase_window_steps=6)
    store, communicator = GraphStore.open(folder), Communicator(place, torch.device("cpu"))
    engine = make_engine(trial, store, communicator.device)
    sample = engine.sample

    def late(micro_batch):
        time.sleep(late_s if place.rank == slow else 0)
        return sample(micro_batch)

    engine.sample = late
    trainer = Trainer(trial, engine, store.train, communicator, PhaseClock(), Progress(False))
    trainer.warm_up()
    phases = trainer.time_phases(1)
    communicator.close()
    return phases


def leave_groups(place, times: int) -> int:
    """Train two steps and leave, again and again."""
    from sagebench.training.distributed import Communicator
    from torch.nn.parallel import DistributedDataParallel

    for n in range(times):
        here = replace(place, rendezvous=f"{place.rendezvous}{n}")
        communicator = Communicator(here, torch.device("cpu"))
        model = DistributedDataParallel(torch.nn.Linear(300, 300))
        for _ in range(2):
            model(torch.ones(4, 300)).sum().backward()
        communicator.close()
        del model
    return times


def assert_same_gradients(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for name, gradient in other.items():
            difference = torch.tensor(one[name] - gradient).norm()
            assert difference <= 1e-5 * torch.tensor(gradient).norm() + 1e-8, name


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> str:
    folder: Path = tmp_path_factory.mktemp("store") / "tiny"
    tiny_store(folder)
    return str(folder)


@pytest.mark.parametrize("ranks", [2, 3, 4, 8])
def test_ranks_equal_accumulation_with_sampling_and_dropout(store, ranks):
    """389 training nodes: the last step leaves some ranks a part of a micro-batch, some none."""
    values = {"dropout": 0.5, "batch_size": 10}
    alone = run_ranks(1, step_gradients, {**values, "accumulation": 2 * ranks}, store)[0]
    together = run_ranks(
        ranks, step_gradients, {**values, "accumulation": 2, "ranks": ranks}, store
    )
    for rank in together:
        assert_same_gradients(rank, alone)


@pytest.mark.parametrize("engine", ["blocks", "reference"])
def test_ranks_equal_one_large_batch_with_every_neighbor(store, engine):
    list(build_table(GraphStore.open(store), "mean"))
    values = {"engine": engine, "fanout": [-1, -1, -1], "accumulation": 1, "sampling_workers": 0}
    alone = run_ranks(1, step_gradients, {**values, "batch_size": 64}, store)[0]
    together = run_ranks(2, step_gradients, {**values, "batch_size": 32, "ranks": 2}, store)
    for rank in together:
        assert_same_gradients(rank, alone)


def test_engines_give_the_same_gradients_in_the_loop(store):
    expected = run_ranks(1, step_gradients, {"engine": "reference", "sampling_workers": 0}, store)[
        0
    ]
    for engine in ("blocks", "trimmed"):
        assert_same_gradients(run_ranks(1, step_gradients, {"engine": engine}, store)[0], expected)


@pytest.mark.parametrize("slow", [0, 1])
def test_the_others_wait_for_the_slowest_rank_whichever_it_is(store, slow):
    """One of two ranks waits: the mean is half of what the other is late."""
    one, other = run_ranks(2, phases_with_a_slow_rank, store, slow, 0.2)
    assert one == other
    assert 0.08 < one["waiting_s"] < 0.13
    assert 0.1 < one["sampling_s"] < 0.15
    assert one["synchronisation_s"] < 0.05


def test_one_rank_waits_for_none(store):
    (phases,) = run_ranks(1, phases_with_a_slow_rank, store, 0, 0.0)
    assert phases["waiting_s"] is None
    assert phases["synchronisation_s"] is None


def test_leaving_a_group_does_not_wait():
    """Before groups were kept, two ranks hung for ever within 50 turns, as their model went."""
    assert run_ranks(2, leave_groups, 60) == [60, 60]


ENDINGS = """
import os, signal, sys, tempfile
import torch
from sagebench.training.distributed import Communicator, RankEnvironment

os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
for _ in range(6):
    with tempfile.TemporaryDirectory() as folder:
        ranks = []
        for rank in range(2):
            ranks.append(os.fork())
            if not ranks[-1]:
                signal.alarm(60)  # ends what hangs
                place = RankEnvironment(rank, 2, rank, 2, f"{folder}/rendezvous")
                communicator = Communicator(place, torch.device("cpu"))
                for thread in map(int, os.listdir("/proc/self/task")):
                    if thread != os.getpid():
                        os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))
                communicator.sum(torch.zeros(1))
                if sys.argv[1] == "closes":
                    communicator.close()
                sys.exit()
        codes = [os.waitstatus_to_exitcode(os.waitpid(rank, 0)[1]) for rank in ranks]
        print(*codes, flush=True)  # or the next forks would print it again
"""


@pytest.mark.slow  # a dozen interpreters end in turn
@pytest.mark.parametrize("end", ["closes", "fails"])
def test_a_rank_ends_its_interpreter_after_its_threads(end):
    """Group threads that hardly run: one in four aborted, asking for an interpreter's lock that was
    no more."""
    done = subprocess.run(
        [sys.executable, "-c", ENDINGS, end],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SCRIPTS), "GLOO_SOCKET_IFNAME": "lo"},
        check=True,
    )
    assert done.stdout.split() == ["0"] * 12, done.stderr
