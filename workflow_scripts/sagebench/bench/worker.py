"""One measurement in a process of its own: a job comes as JSON, its result goes as JSON.

    python -m sagebench.bench.worker '{"job": "step", ...}'

The last line of the standard output is the result. `processes.py` starts workers with the same
allocator and thread settings that the launcher gives to a trial's ranks.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from itertools import islice
from typing import Any

import torch

from sagebench.bench.engines import PEERS
from sagebench.bench.peers import FusedPygEngine
from sagebench.engines.base import Engine, model_arguments
from sagebench.engines.loaders import LOADERS
from sagebench.engines.make import make_engine
from sagebench.engines.placement import placement_on
from sagebench.engines.precision import set_precision
from sagebench.engines.tensors import torch_view
from sagebench.graph.store import GraphStore
from sagebench.grid.trial import Trial
from sagebench.measure.clocks import PhaseClock
from sagebench.measure.memory import PeakMemory, release_memory
from sagebench.model.graphsage import GraphSAGE
from sagebench.sampling.cpu import CpuSampler
from sagebench.sampling.order import SeedOrder, sample_key
from sagebench.training.distributed import Communicator, RankEnvironment
from sagebench.training.evaluation import Evaluator
from sagebench.training.progress import Progress
from sagebench.training.rank import choose_device
from sagebench.training.trainer import Trainer, synchronise_device


class Bench:
    """What every job starts from: the store, the device, this process's place among the ranks."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.trial = Trial.from_json(job["trial"])
        place = RankEnvironment.read()
        self.device = choose_device(self.trial, place)
        set_precision(self.trial, self.device)
        self.communicator = Communicator(place, self.device)
        self.store = GraphStore.open(job["store"])
        torch.manual_seed(self.trial.seed)

    def engine(self) -> Engine:
        """Every engine starts from the same weights."""
        initial = GraphSAGE(**model_arguments(self.trial, self.store)).state_dict()
        name = self.trial.engine
        if name in PEERS:
            trimmed = replace(self.trial, engine="trimmed")
            engine = FusedPygEngine(trimmed, self.store, self.device, name)
        else:
            engine = make_engine(self.trial, self.store, self.device)
        engine.model.load_state_dict(initial)
        return engine

    def trainer(self) -> Trainer:
        """Warmed up: what is compiled at run time is there."""
        trainer = Trainer(
            self.trial,
            self.engine(),
            self.store.train,
            self.communicator,
            PhaseClock(),
            Progress(speaks=False),
        )
        trainer.engine.model.train()
        trainer.parallelise()
        trainer.warm_up()
        return trainer

    def now(self) -> float:
        synchronise_device(self.device)
        return time.perf_counter()


def step(job: dict[str, Any]) -> dict[str, Any]:
    """Optimizer steps, phase after phase. `warm` of them are left out of the times, not of the
    memory: `peak_bytes` is private memory (a GPU's: allocated) above the loaded graph and code."""
    bench = Bench(job)
    trainer = bench.trainer()
    peak = PeakMemory(bench.device)
    release_memory(bench.device)
    peak.start()
    on_gpu = bench.device.type == "cuda"
    loaded = torch.cuda.memory_allocated(bench.device) if on_gpu else peak.host_bytes()
    times: dict[str, list[float]] = {"sampling_s": [], "data_s": [], "step_s": []}
    loss = torch.zeros(())
    with peak:
        micro_batches = trainer.order.micro_batches(1, 0)
        for n, micro_batch in enumerate(islice(micro_batches, job["warm"] + job["steps"])):
            marks = [bench.now()]
            sampled = trainer.engine.sample(micro_batch)
            marks.append(bench.now())
            batch = trainer.engine.load(sampled)
            marks.append(bench.now())
            loss, _ = trainer.micro_step(batch, synchronise=True)
            trainer.optimizer_step()
            marks.append(bench.now())
            if n >= job["warm"]:
                for k, name in enumerate(times):
                    times[name].append(marks[k + 1] - marks[k])
            del sampled, batch
    peaks = peak.read()
    highest = peaks["peak_allocated_bytes" if on_gpu else "peak_host_private_bytes"]
    return {**times, "peak_bytes": highest - loaded, "loaded_bytes": loaded, "loss": loss.item()}


def sampler(job: dict[str, Any]) -> dict[str, Any]:
    """Edges a second of the CPU sampler, a figure a micro-batch."""
    trial = Trial.from_json(job["trial"])
    store = GraphStore.open(job["store"])
    sampler = CpuSampler(store.colptr, store.row, threads=job["threads"])
    order = SeedOrder(store.train, trial.batch_size, 1, 1, trial.seed)
    edges_per_s = []
    edges = 0
    for n, micro_batch in enumerate(islice(order.micro_batches(1, 0), job["warm"] + job["steps"])):
        key = sample_key(trial.seed, 1, micro_batch.index)
        start = time.perf_counter()
        blocks = sampler.sample(
            micro_batch.seeds, trial.fanout, key, relabel_last=job["relabel_last"]
        )
        seconds = time.perf_counter() - start
        edges = sum(blocks.edges_per_hop)
        if n >= job["warm"]:
            edges_per_s.append(edges / seconds)
    return {"edges_per_s": edges_per_s, "edges": edges}


def loop(job: dict[str, Any]) -> dict[str, Any]:
    """Optimizer steps as an epoch runs them, sampling in the background; of this rank.

    `step_s`, and `wait_s`: the part of it that waited for a sample.
    """
    bench = Bench(job)
    trainer = bench.trainer()
    accumulation = bench.trial.accumulation
    micro_batches = islice(
        trainer.order.micro_batches(1, bench.communicator.rank),
        (job["warm"] + job["steps"]) * accumulation,
    )
    stream = trainer.engine.stream(micro_batches)
    times: dict[str, list[float]] = {"step_s": [], "wait_s": []}
    bench.communicator.barrier()
    for n in range(job["warm"] + job["steps"]):
        wait_s, start = 0.0, bench.now()
        for a in range(accumulation):
            asked = time.perf_counter()
            batch = next(stream)
            wait_s += time.perf_counter() - asked
            trainer.micro_step(batch, synchronise=a == accumulation - 1)
        trainer.optimizer_step()
        if n >= job["warm"]:
            times["step_s"].append(bench.now() - start)
            times["wait_s"].append(wait_s)
    bench.communicator.close()
    return times


def evaluation(job: dict[str, Any]) -> dict[str, Any]:
    """Accuracy on every test node, computed over the whole graph."""
    bench = Bench(job)
    weights = GraphSAGE(**model_arguments(bench.trial, bench.store)).state_dict()
    labels = torch_view(bench.store.labels).to(bench.device)
    kept = placement_on("auto", bench.store, bench.device, None).chosen
    loader = LOADERS[kept](bench.trial, bench.store, bench.device)
    evaluator = Evaluator(bench.trial, bench.store, bench.communicator, labels, loader)
    peak = PeakMemory(bench.device)
    peak.start()
    start = bench.now()
    with peak:
        accuracy = evaluator.accuracy(weights, bench.store.test, "full")
    seconds = bench.now() - start
    return {"evaluation_s": seconds, "accuracy": accuracy, **peak.read()}


JOBS = {job.__name__: job for job in (step, sampler, loop, evaluation)}


def main() -> None:
    job = json.loads(sys.argv[1])
    result = JOBS[job["job"]](job)
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
