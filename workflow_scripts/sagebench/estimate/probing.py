"""Probing a store: samples taken of it, and a step recorded of every configuration.

The samples are those that a trial of seed 0 takes in its first epoch, whatever its ranks.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from sagebench import registry
from sagebench.errors import UserError
from sagebench.estimate.memory import expected_maximum
from sagebench.estimate.probe import GraphFacts, Probe, Sample, Spread, load_probe, sample_name
from sagebench.estimate.step import step_cost
from sagebench.files import hold, write_json
from sagebench.graph.store import GraphStore
from sagebench.grid.trial import Trial
from sagebench.pilot.records import deciding_values, step_name
from sagebench.sampling.cpu import CpuSampler
from sagebench.sampling.order import SeedOrder, sample_key

PLACEMENTS = ("device", "host")
"""of a card: which one is chosen depends on its memory, so both are recorded"""
SAVED_EVERY_S = 10.0
"""while steps are recorded: writing the file takes as long as some of them"""
FEWEST_BATCHES, MOST_BATCHES = 6, 96
STANDARD_ERROR = 0.008
"""enough micro-batches are sampled once the mean of every hop is known to this share of it"""
SEED, EPOCH = 0, 1

Counts = tuple[int, ...]
"""of one micro-batch: nodes of the hops 0 to L, then edges of the hops 1 to L"""


def probe_store(
    store: GraphStore,
    trials: Iterable[Trial],
    path: str | os.PathLike[str],
    *,
    threads: int = 1,
    say: Callable[[str], None] = lambda line: None,
) -> Probe:
    """Take the samples and record the steps of `trials` that the probe in `path` lacks.

    It is written as it grows, so that a probe that was interrupted goes on where it was. A file
    that is no probe, or one of another graph, is replaced. threads: of the sampler. say: is given
    a line a sample, and some of the steps.
    """
    path, trials = Path(path), list(trials)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.lock")
    with hold(lock, f"{path} is being written by another process: waiting for it"):
        probe = None
        with contextlib.suppress(UserError):
            probe = load_probe(path)
        if probe is None or probe.store_checksum != store.checksum:
            probe = Probe(store.checksum, GraphFacts.of_manifest(store.manifest))
        for done in chain(_sample(probe, store, trials, threads), _record(probe, trials)):
            write_json(path, probe.to_json())
            say(done)
    return probe


def _sample(probe: Probe, store: GraphStore, trials: list[Trial], threads: int) -> Iterator[str]:
    wanted = {sample_name(trial): trial for trial in trials}
    missing = [(name, trial) for name, trial in wanted.items() if name not in probe.samples]
    samplers: dict[str, CpuSampler] = {}
    for done, (name, trial) in enumerate(missing, start=1):
        law = trial.law
        if law not in samplers:
            kind = registry.load("sampler", law).Sampler
            samplers[law] = kind(store.colptr, store.row, threads=threads)
        sample = take_sample(samplers[law], store.train, trial.fanout, trial.batch_size)
        probe.samples[name] = sample
        yield (
            f"sampled {done} of {len(missing)}: {name}: {sample.nodes.mean:,.0f} nodes, "
            f"{sample.edges.mean:,.0f} edges, from {sample.batches} micro-batches"
        )


def take_sample(
    sampler: CpuSampler, train_nodes: np.ndarray, fanout: tuple[int, ...], batch_size: int
) -> Sample:
    """Sample until the means are known well enough, and the epoch's smaller last micro-batch."""
    order = SeedOrder(train_nodes, batch_size, accumulation=1, ranks=1, seed=SEED)
    whole, rest = divmod(len(train_nodes), batch_size)
    batches, hops = order.micro_batches(EPOCH, 0), len(fanout) + 1
    full: list[Counts] = []
    while len(full) < min(whole, MOST_BATCHES, batches_needed(full)):
        batch = next(batches)
        full.append(count(sampler, fanout, batch.seeds, batch.index))
    last = [count(sampler, fanout, order.permutation(EPOCH)[-rest:], whole)] if rest else []

    def with_sums(counts: Sequence[Counts]) -> np.ndarray:
        table = np.array(counts, float)
        return np.column_stack([table, table[:, :hops].sum(1), table[:, hops:].sum(1)])

    table = with_sums(full or last)
    means = table.mean(0)
    epoch = (whole * means + with_sums(last)[0]) / (whole + 1) if last else means
    stds = table.std(0, ddof=1) if len(table) > 1 else np.zeros_like(means)
    columns = zip(epoch.tolist(), means.tolist(), stds.tolist(), strict=True)
    *spreads, nodes, edges = (Spread(*values) for values in columns)
    return Sample(
        fanout=list(fanout),
        batch_size=batch_size,
        batches=len(full) + len(last),
        nodes_per_hop=spreads[:hops],
        edges_per_hop=spreads[hops:],
        nodes=nodes,
        edges=edges,
    )


def count(sampler: CpuSampler, fanout: tuple[int, ...], seeds: np.ndarray, index: int) -> Counts:
    blocks = sampler.sample(seeds, fanout, sample_key(SEED, EPOCH, index))
    return (*blocks.nodes_per_hop, *blocks.edges_per_hop)


def batches_needed(counts: Sequence[Counts]) -> int:
    """Number of micro-batches that give every mean to STANDARD_ERROR, by the spread of these."""
    if len(counts) < FEWEST_BATCHES:
        return FEWEST_BATCHES
    found = np.array(counts, float)
    relative = found.std(0, ddof=1) / np.maximum(found.mean(0), 1)
    return int(np.ceil((np.max(relative) / STANDARD_ERROR) ** 2))


def _record(probe: Probe, trials: list[Trial]) -> Iterator[str]:
    missing: dict[str, tuple[Trial, str, int]] = {}
    for trial in trials:
        values = deciding_values(trial)
        micro_batches = probe.graph.micro_batches(trial.batch_size) * trial.epochs
        for placement in PLACEMENTS if trial.samples_where_placed else ("host",):
            name = step_name(values, placement)
            known, most = probe.steps.get(name), missing.get(name, (trial, placement, 0))[2]
            if known is None or known.largest_z < expected_maximum(micro_batches):
                missing[name] = trial, placement, max(micro_batches, most)
    saved_s = time.monotonic()
    for done, (name, (trial, placement, micro_batches)) in enumerate(missing.items(), start=1):
        sample = probe.samples[sample_name(trial)]
        probe.steps[name] = step_cost(trial, sample, probe.graph, placement, micro_batches)
        if time.monotonic() - saved_s > SAVED_EVERY_S or done == len(missing):
            saved_s = time.monotonic()
            yield f"recorded {done} of {len(missing)} steps"
