"""One measurement in a process of its own: a job comes as JSON, its result goes as JSON.

    python -m sagebench.bench.worker '{"job": "step", ...}'

The last line of the standard output is the result. `rows.run_worker` starts workers with the same
allocator and thread settings that the launcher gives to a trial's ranks.
"""

from __future__ import annotations

import json
import resource
import sys
import time
import warnings
from itertools import islice, pairwise, product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric import EdgeIndex
from torch_geometric.data import Data

from sagebench.bench.rows import BIPARTITE, PEERS
from sagebench.bench.skipgram import compare
from sagebench.engines.aggregated_features import build_table
from sagebench.engines.base import Batch, Engine, GraphSizes, network_arguments
from sagebench.engines.pyg import PygEngine, PygNetwork
from sagebench.errors import UserError
from sagebench.estimate.sample import record_sample
from sagebench.estimate.step import StepRecorder
from sagebench.graph.store import GraphStore
from sagebench.grid.last_hop import table_aggregator
from sagebench.grid.trial import Trial
from sagebench.kernels.choice import missing
from sagebench.measure.clocks import PhaseClock
from sagebench.measure.memory import PeakMemory
from sagebench.operations import Cost
from sagebench.sampling.order import MicroBatch, SeedOrder, sample_key
from sagebench.sampling.uniform import Sampler as CpuSampler
from sagebench.training.distributed import RankEnvironment
from sagebench.training.rank import choose_device
from sagebench.training.setup import RankSetup
from sagebench.training.trainer import synchronise_device
from sagebench.units import KIB

STEP_WARM_UP, SAMPLER_WARM_UP = 1, 2
"""steps that are not timed"""


class FusedPygNetwork(PygNetwork):
    """PyG's layers on the paths that PyG calls fast, to hold `blocks` against the best of them.

    `SAGEConv` fuses message and aggregation for a CSR matrix (torch.sparse.mm) and for an
    `EdgeIndex` sorted by destination. `trim_to_layer` cuts no torch CSR matrix, and of an
    `EdgeIndex` it drops the cached transpose that the backward pass needs. So every layer's
    adjacency is made beforehand, with all caches filled, in the phase `data`: not part of the step
    that is compared. That is more than PyG's loaders do, in PyG's favour.
    """

    def forward(  # type: ignore[override]
        self, x: Tensor, layers: list[tuple[Tensor, int, int]], seeds: int
    ) -> Tensor:
        """Logits of the seed nodes, float [seeds, classes].

        x: float [n, in_channels] of the sampled nodes. layers: adjacency, nodes that are read and
        nodes that are computed, of each layer.
        """
        for k, (adjacency, sources, rows) in enumerate(layers):
            x = x[:sources]
            x = self.layer(k, (x, x if rows == sources else x[:rows]), adjacency)
        return x[:seeds]


class FusedPygEngine(PygEngine):
    """The trial's engine is one of PEERS."""

    @classmethod
    def make_model(cls, trial: Trial, graph: GraphSizes) -> nn.Module:
        return FusedPygNetwork(**network_arguments(trial, graph), layout="bipartite")

    def _batch(self, micro_batch: MicroBatch, data: Data) -> Batch:
        batch = super()._batch(micro_batch, data)
        x, edge_index, *_ = batch.inputs
        assert isinstance(edge_index, Tensor)
        nodes, edges = batch.nodes_per_hop, batch.edges_per_hop
        layers = []
        for last in range(len(edges), 0, -1):
            sources = sum(nodes[: last + 1])
            rows = sum(nodes[:last]) if self.trial.engine == BIPARTITE else sources
            adjacency = self._adjacency(edge_index[:, : sum(edges[:last])], sources, rows)
            layers.append((adjacency, sources, rows))
        return batch._replace(inputs=(x, layers, nodes[0]))

    def _adjacency(self, edge_index: Tensor, sources: int, rows: int) -> Tensor:
        if self.trial.engine == "trimmed_edge_index":
            cached = EdgeIndex(
                edge_index.contiguous(), sparse_size=(sources, rows), sort_order="col"
            ).fill_cache_()
            cached._get_value()
            return cached
        source, destination = edge_index
        rowptr = torch._convert_indices_from_coo_to_csr(destination.contiguous(), rows)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse")
            ones = torch.ones(len(source), device=source.device)
            return torch.sparse_csr_tensor(rowptr, source.contiguous(), ones, size=(rows, sources))


class StepRun(RankSetup):
    """A rank that is set up as a trial's, for the peers too."""

    def make_engine(self) -> Engine:
        if self.trial.engine in PEERS:
            return FusedPygEngine(self.trial, self.store, self.device)
        return super().make_engine()


def step(store: Path, trial: Trial, steps: int) -> dict[str, Any]:
    """Optimizer steps, phase after phase. The warm-up is left out of the times, not of the memory:
    `peak_bytes` is private memory (a GPU's: allocated) above the loaded graph and code;
    `host_bytes` all that the process had at most, mapped files included."""
    env = RankEnvironment.read()
    device = choose_device(trial.device, env)
    run = StepRun(trial, store, Path(), env, device, PhaseClock())
    run.build()
    run.begin_measuring()
    on_gpu = device.type == "cuda"
    loaded = torch.cuda.memory_allocated(device) if on_gpu else run.peak.host_bytes()
    engine, trainer, loss = run.engine, run.trainer, torch.zeros(())

    def now() -> float:
        synchronise_device(device)
        return time.perf_counter()

    steps_s = []
    with run.peak:
        for micro_batch in islice(trainer.order.micro_batches(1, 0), STEP_WARM_UP + steps):
            marks = [now()]
            sampled = engine.sample(micro_batch)
            marks.append(now())
            batch = engine.load(sampled)
            marks.append(now())
            loss, _ = trainer.micro_step(batch, synchronise=True)
            trainer.optimizer_step()
            marks.append(now())
            steps_s.append([end - start for start, end in pairwise(marks)])
            del sampled, batch
    sampling_s, data_s, step_s = zip(*steps_s[STEP_WARM_UP:], strict=True)
    highest = run.peak.read()["peak_allocated_bytes" if on_gpu else "peak_host_private_bytes"]
    assert highest is not None
    return {
        "sampling_s": sampling_s,
        "data_s": data_s,
        "step_s": step_s,
        "peak_bytes": [highest - loaded],
        "host_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB,
        "loss": loss.item(),
    }


def sampler(store: Path, trial: Trial, steps: int) -> dict[str, Any]:
    """Edges a second of the CPU sampler with one thread and with two, a figure a micro-batch: as
    PyG's engines use it, with the last hop relabelled, and as `blocks` does, without."""
    graph = GraphStore.open(store)
    order = SeedOrder(graph.train, trial.batch_size, 1, 1, trial.seed)
    found: dict[str, list[list[float]]] = {"edges_per_s": [], "edges_per_s_as_blocks_uses_it": []}
    for (name, rates), threads in product(found.items(), (1, 2)):
        sampler = CpuSampler(graph.colptr, graph.row, threads=threads)
        edges_per_s = []
        for batch in islice(order.micro_batches(1, 0), SAMPLER_WARM_UP + steps):
            key = sample_key(trial.seed, 1, batch.index)
            start = time.perf_counter()
            blocks = sampler.sample(
                batch.seeds, trial.fanout, key, relabel_last=name == "edges_per_s"
            )
            edges_per_s.append(sum(blocks.edges_per_hop) / (time.perf_counter() - start))
        rates.append(edges_per_s[SAMPLER_WARM_UP:])
    return found


def table(store: Path, trial: Trial, steps: int) -> dict[str, Any]:
    """The table of aggregated features of the trial's store, made anew: seconds, and private memory
    above what the process had before."""
    graph, aggregator = GraphStore.open(store), table_aggregator(trial)
    assert aggregator is not None
    peak = PeakMemory(torch.device("cpu"))
    peak.start()
    before = peak.host_bytes()
    with peak:
        start = time.perf_counter()
        for _ in build_table(graph, aggregator):
            pass
        seconds = time.perf_counter() - start
    highest = peak.read()["peak_host_private_bytes"]
    assert highest is not None
    return {"table_s": [seconds], "peak_bytes": [highest - before]}


def launches(store: Path, trial: Trial, steps: int) -> dict[str, Any]:
    """What a micro-step and its sample launch on a GPU, by operation; sizes from one real sample,
    as `blocks` takes it."""
    graph = GraphStore.open(store)
    order = SeedOrder(graph.train, trial.batch_size, 1, 1, trial.seed)
    seeds = next(iter(order.micro_batches(1, 0))).seeds
    key = sample_key(trial.seed, 1, 0)
    sampled = CpuSampler(graph.colptr, graph.row, threads=trial.threads_per_rank).sample(
        seeds, trial.fanout, key, relabel_last=False
    )
    sizes = sampled.nodes_per_hop, sampled.edges_per_hop
    sample = record_sample(trial.fanout, graph.num_nodes, *sizes, relabel_last=False)
    if sample is None:
        raise UserError(f"a GPU's kernels cannot be recorded here: {missing()}")
    step = StepRecorder(trial, graph, "device").record(*sizes).costs
    whole = Cost.sum([*sample.costs.values(), *step.values()])
    return {
        "launches": whole.launches,
        "bytes": whole.moved_bytes,
        "nodes_per_hop": sampled.nodes_per_hop,
        "edges_per_hop": sampled.edges_per_hop,
        "by_operation": {
            part: {name: cost._asdict() for name, cost in found.items() if any(cost)}
            for part, found in (("sample", sample.costs), ("step", step))
        },
    }


def skipgram(store: Path, trial: Trial, steps: int) -> dict[str, Any]:
    """Pairs a second, and accuracies, of skip-gram and gensim's: one of each a seed."""
    return compare(GraphStore.open(store), trial.threads_per_rank, steps)


def main() -> None:
    job = json.loads(sys.argv[1])
    jobs = {each.__name__: each for each in (step, sampler, table, launches, skipgram)}
    found = jobs[job["job"]](Path(job["store"]), Trial.from_json(job["trial"]), job["steps"])
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
