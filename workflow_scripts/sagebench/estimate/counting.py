"""Samples taken: the project's own sampler over the project's own order of the seeds."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import numpy as np

from sagebench import registry
from sagebench.estimate.samples import Sample, Spread
from sagebench.graph.store import GraphStore
from sagebench.sampling.cpu import CpuSampler
from sagebench.sampling.order import SeedOrder, sample_key

FEWEST_BATCHES, MOST_BATCHES = 6, 96
STANDARD_ERROR = 0.008
"""enough micro-batches are sampled once the mean of every hop is known to this share of it"""
SEED, EPOCH = 0, 1

Counts = tuple[int, ...]
"""of one micro-batch: nodes of the hops 0 to L, then edges of the hops 1 to L"""


class Counter:
    """Samples micro-batches of a store, `threads` at a time; 5 bytes a node each.

    They are those that a trial of seed 0 samples in its first epoch, whatever its ranks.
    """

    def __init__(self, store: GraphStore, threads: int) -> None:
        self.store, self.train = store, store.train
        self._threads = threads
        self._law: str | None = None
        self._samplers: SimpleQueue[CpuSampler] = SimpleQueue()

    def take(self, fanout: tuple[int, ...], batch_size: int, law: str = "uniform") -> Sample:
        """Sample until the means are known well enough, and the epoch's smaller last one."""
        self._use(law)
        order = SeedOrder(self.train, batch_size, accumulation=1, ranks=1, seed=SEED)
        whole, rest = divmod(len(self.train), batch_size)
        most = min(whole, MOST_BATCHES)
        wanted = min(most, FEWEST_BATCHES)
        full: list[Counts] = []
        with ThreadPoolExecutor(self._threads) as pool:
            batches = ((batch.seeds, batch.index) for batch in order.micro_batches(EPOCH, 0))
            while len(full) < wanted:
                some = list(itertools.islice(batches, wanted - len(full)))
                full += pool.map(lambda batch: self.count(fanout, *batch), some)
                wanted = min(most, max(wanted, batches_needed(full)))
        last = self.count(fanout, order.permutation(EPOCH)[-rest:], whole) if rest else None
        return make_sample(fanout, batch_size, full, last, whole)

    def _use(self, law: str) -> None:
        if law != self._law:
            kind = registry.load("sampler", law).Sampler
            self._law, self._samplers = law, SimpleQueue()
            for _ in range(self._threads):
                self._samplers.put(kind(self.store.colptr, self.store.row))

    def count(self, fanout: tuple[int, ...], seeds: np.ndarray, index: int) -> Counts:
        sampler = self._samplers.get()
        try:
            blocks = sampler.sample(seeds, fanout, sample_key(SEED, EPOCH, index))
        finally:
            self._samplers.put(sampler)
        return (*blocks.nodes_per_hop, *blocks.edges_per_hop)


def batches_needed(counts: Sequence[Counts]) -> int:
    """How many micro-batches give every mean to STANDARD_ERROR, by the spread of these."""
    found = np.array(counts, float)
    relative = found.std(0, ddof=1) / np.maximum(found.mean(0), 1) if len(found) > 1 else 0.0
    return int(np.ceil((np.max(relative) / STANDARD_ERROR) ** 2))


def make_sample(
    fanout: tuple[int, ...],
    batch_size: int,
    full: Sequence[Counts],
    last: Counts | None,
    whole: int,
) -> Sample:
    """full: some of the epoch's `whole` micro-batches of batch_size seeds. last: the one with
    fewer, if there is one."""
    hops = len(fanout) + 1

    def with_sums(counts: Sequence[Counts]) -> np.ndarray:
        table = np.array(counts, float)
        return np.column_stack([table, table[:, :hops].sum(1), table[:, hops:].sum(1)])

    table = with_sums(full or [last])
    means = table.mean(0)
    epoch = means if last is None else (whole * means + with_sums([last])[0]) / (whole + 1)
    stds = table.std(0, ddof=1) if len(table) > 1 else np.zeros_like(means)
    columns = zip(epoch.tolist(), means.tolist(), stds.tolist(), strict=True)
    *spreads, nodes, edges = (Spread(*values) for values in columns)
    return Sample(
        fanout=list(fanout),
        batch_size=batch_size,
        batches=len(full) + (last is not None),
        nodes_per_hop=spreads[:hops],
        edges_per_hop=spreads[hops:],
        nodes=nodes,
        edges=edges,
    )
