"""One measurement in a process of its own: a job comes as JSON, its result goes as JSON.

    python -m sagebench.bench.worker '{"job": "step", ...}'

The last line of the standard output is the result. `processes.py` starts workers with the same
allocator and thread settings that the launcher gives to a trial's ranks.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from dataclasses import replace
from itertools import islice
from typing import Any

import torch

from sagebench.bench.peers import FusedPygEngine
from sagebench.bench.setting import PEERS
from sagebench.engines.base import Engine, model_arguments
from sagebench.engines.make import make_engine
from sagebench.engines.precision import set_precision
from sagebench.graph.store import GraphStore
from sagebench.grid.trial import Trial
from sagebench.measure.clocks import PhaseClock
from sagebench.measure.memory import PeakMemory, release_memory
from sagebench.model.graphsage import GraphSAGE
from sagebench.sampling.order import SeedOrder, sample_key
from sagebench.sampling.uniform import Sampler as CpuSampler
from sagebench.training.distributed import Communicator, RankEnvironment
from sagebench.training.progress import Progress
from sagebench.training.rank import choose_device
from sagebench.training.trainer import Trainer, synchronise_device
from sagebench.units import KIB


def engine_of(trial: Trial, store: GraphStore, device: torch.device) -> Engine:
    """Every engine starts from the same weights."""
    initial = GraphSAGE(**model_arguments(trial, store)).state_dict()
    if trial.engine in PEERS:
        engine = FusedPygEngine(replace(trial, engine="trimmed"), store, device, trial.engine)
    else:
        engine = make_engine(trial, store, device)
    engine.model.load_state_dict(initial)
    return engine


def step(job: dict[str, Any]) -> dict[str, Any]:
    """Optimizer steps, phase after phase. `warm` of them are left out of the times, not of the
    memory: `peak_bytes` is private memory (a GPU's: allocated) above the loaded graph and code;
    `host_bytes` all that the process had at most, mapped files included."""
    trial, place = Trial.from_json(job["trial"]), RankEnvironment.read()
    device = choose_device(trial, place)
    set_precision(trial, device)
    store = GraphStore.open(job["store"])
    torch.manual_seed(trial.seed)
    trainer = Trainer(
        trial,
        engine_of(trial, store, device),
        store.train,
        Communicator(place, device),
        PhaseClock(),
        Progress(speaks=False),
    )
    trainer.engine.model.train()
    trainer.parallelise()
    trainer.warm_up()
    peak = PeakMemory(device)
    release_memory(device)
    peak.start()
    on_gpu = device.type == "cuda"
    loaded = torch.cuda.memory_allocated(device) if on_gpu else peak.host_bytes()

    def now() -> float:
        synchronise_device(device)
        return time.perf_counter()

    times: dict[str, list[float]] = {"sampling_s": [], "data_s": [], "step_s": []}
    loss = torch.zeros(())
    with peak:
        micro_batches = trainer.order.micro_batches(1, 0)
        for n, micro_batch in enumerate(islice(micro_batches, job["warm"] + job["steps"])):
            marks = [now()]
            sampled = trainer.engine.sample(micro_batch)
            marks.append(now())
            batch = trainer.engine.load(sampled)
            marks.append(now())
            loss, _ = trainer.micro_step(batch, synchronise=True)
            trainer.optimizer_step()
            marks.append(now())
            if n >= job["warm"]:
                for k, name in enumerate(times):
                    times[name].append(marks[k + 1] - marks[k])
            del sampled, batch
    peaks = peak.read()
    highest = peaks["peak_allocated_bytes" if on_gpu else "peak_host_private_bytes"]
    return {
        **times,
        "peak_bytes": highest - loaded,
        "loaded_bytes": loaded,
        "host_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB,
        "loss": loss.item(),
    }


def sampler(job: dict[str, Any]) -> dict[str, Any]:
    """Edges a second of the CPU sampler, a figure a micro-batch."""
    trial = Trial.from_json(job["trial"])
    store = GraphStore.open(job["store"])
    sampler = CpuSampler(store.colptr, store.row, threads=job["threads"])
    order = SeedOrder(store.train, trial.batch_size, 1, 1, trial.seed)
    edges_per_s = []
    for n, micro_batch in enumerate(islice(order.micro_batches(1, 0), job["warm"] + job["steps"])):
        key = sample_key(trial.seed, 1, micro_batch.index)
        start = time.perf_counter()
        blocks = sampler.sample(
            micro_batch.seeds, trial.fanout, key, relabel_last=job["relabel_last"]
        )
        seconds = time.perf_counter() - start
        if n >= job["warm"]:
            edges_per_s.append(sum(blocks.edges_per_hop) / seconds)
    return {"edges_per_s": edges_per_s}


JOBS = {job.__name__: job for job in (step, sampler)}


def main() -> None:
    job = json.loads(sys.argv[1])
    print(json.dumps(JOBS[job["job"]](job)), flush=True)


if __name__ == "__main__":
    main()
