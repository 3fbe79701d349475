"""Probe of a graph store: sample sizes and recorded steps of a study's trials, taken on a CPU.

results/probes/<store>.json holds {"format", "store_checksum", "graph": GraphFacts, "samples":
{"<fanout>/<batch size>": Sample}, "steps": {key: StepCost}}. Made by probing.py; standard library
only: the plan reads it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any, final

from sagebench.errors import UserError
from sagebench.files import read_json
from sagebench.grid.last_hop import table_aggregator
from sagebench.grid.trial import Fanout, Trial
from sagebench.pilot.records import deciding_values, step_name
from sagebench.records import FromJson
from sagebench.units import GIB

FORMAT = 2
CONTEXT_BYTES = GIB // 2
"""of a card that the CUDA context, its kernels and libraries take, and the allocator never gets"""
MOST_FANOUTS, MOST_BATCH_SIZES = 24, 14
"""that one picture has room for"""
WITHIN = 2.0
"""factor from a batch size of the study with the same fanout: what lies further off tells nobody of
a trial, and may take hours to sample"""


@dataclass(frozen=True)
class GraphFacts(FromJson):
    """Sizes of a graph store. index_bytes: of colptr and row. feature_bytes: of the features."""

    num_nodes: int
    num_edges: int
    num_features: int
    num_classes: int
    train_nodes: int
    valid_nodes: int
    test_nodes: int
    index_bytes: int
    feature_bytes: int

    @classmethod
    def of_manifest(cls, manifest: Mapping[str, Any]) -> GraphFacts:
        """The facts in a graph store's manifest.json."""
        arrays = manifest["arrays"]

        def size_bytes(name: str) -> int:
            item_bytes = int("".join(filter(str.isdigit, arrays[name]["dtype"]))) // 8
            return prod(arrays[name]["shape"]) * item_bytes

        splits = {f"{name}_nodes": arrays[name]["shape"][0] for name in ("train", "valid", "test")}
        index_bytes = size_bytes("colptr") + size_bytes("row")
        sizes = {"index_bytes": index_bytes, "feature_bytes": size_bytes("features")}
        return cls.from_json({**manifest, **splits, **sizes})

    def micro_batches(self, batch_size: int) -> int:
        """Micro-batches with seeds in an epoch, over all ranks; the last may be a smaller one."""
        return -(-self.train_nodes // batch_size)


@dataclass(frozen=True)
class Spread(FromJson):
    """A count over micro-batches.

    mean: over the micro-batches of an epoch, as outcomes record it; the last one, which may have
    fewer seeds, is in it. full_mean, std: over those with all of their seeds; std from one
    micro-batch to the next. (Where the training nodes do not fill one, of the only one there is.)
    """

    mean: float
    full_mean: float
    std: float


@final
@dataclass(frozen=True)
class Sample(FromJson):
    """Sample sizes of one (fanout, batch size): distinct nodes and edges of a micro-batch.

    nodes_per_hop: new nodes of the hops 0 (the seeds) to L. edges_per_hop: of the hops 1 to L.
    Both as in outcomes' epochs, with one difference: the last hop's nodes are always counted,
    where the `blocks` engine does without their numbers and outcomes then say 0.
    batches: how many were sampled.
    """

    fanout: list[int]
    batch_size: int
    batches: int
    nodes_per_hop: list[Spread]
    edges_per_hop: list[Spread]
    nodes: Spread
    edges: Spread


@dataclass(frozen=True)
class StepCost(FromJson):
    """A micro-step of one configuration on one graph, recorded on no device (estimate/step.py).

    values, placement: what decides it. flops to trace (as AllocationTrace.events has it) and
    typical_*: of a micro-batch of the mean size. largest_z: standard deviations from the mean to
    the largest that was replayed, of which are live_bytes: in use at its peak; held_bytes,
    held_std_bytes: held by the allocator, and how that differs with the order of the steps;
    needed_bytes: what it cannot do without; beside_bytes: its batch, where beside the step.
    sampler_*: of a mean sample, where a GPU's kernels draw it; 0 where they do not.
    """

    values: dict[str, Any]
    placement: str
    parameters: int
    flops: int
    bytes_moved: int
    operations: int
    batch_bytes: list[int]
    trace: list[int]
    largest_z: float
    typical_live_bytes: int
    live_bytes: int
    held_bytes: int
    held_std_bytes: int
    needed_bytes: int
    beside_bytes: int
    typical_beside_bytes: int
    sampler_operations: int = 0
    sampler_bytes: int = 0
    sampler_scratch_bytes: int = 0


@dataclass
class Probe:
    """Facts of a graph store, its samples, and the steps recorded on them."""

    store_checksum: str
    graph: GraphFacts
    samples: dict[str, Sample] = field(default_factory=dict)
    steps: dict[str, StepCost] = field(default_factory=dict)

    def sample_of(self, trial: Trial) -> Sample | None:
        """Sample sizes of the trial; None where not probed, and of no mini-batches."""
        return self.samples.get(sample_name(trial)) if trial.in_minibatches else None

    def cost_of(self, trial: Trial, device_bytes: int | None) -> StepCost | None:
        """Cost of the trial's step on a card of so many bytes; None if not probed."""
        placement = placement_of(trial, self.graph, device_bytes)
        return self.steps.get(step_name(deciding_values(trial), placement))

    def to_json(self) -> dict[str, Any]:
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Probe:
        if record["format"] != FORMAT:
            raise ValueError(f"its format is {record['format']}, this version reads {FORMAT}")
        return cls(
            record["store_checksum"],
            GraphFacts.from_json(record["graph"]),
            {name: Sample.from_json(value) for name, value in record["samples"].items()},
            {name: StepCost.from_json(value) for name, value in record["steps"].items()},
        )


def sample_name(trial: Trial) -> str:
    """ "15,10,10/128": how a probe calls what a trial samples, before it another law of drawing."""
    law = trial.law
    drawn = "" if law == "uniform" else f"{law}:"
    return f"{drawn}{trial.fanout}/{trial.batch_size}"


def path_of(results: str | os.PathLike[str], store: str) -> Path:
    """Path of the probe of a store (its folder's name)."""
    return Path(results, "probes", f"{store}.json")


def load_probe(path: str | os.PathLike[str]) -> Probe | None:
    """The probe in a file; None: no such file. Raises UserError for a file that is none."""
    try:
        return Probe.from_json(read_json(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is no probe ({type(error).__name__}: {error}): `make probe` writes it again"
        ) from None


def available_bytes(trial: Trial, device_bytes: int | None) -> float | None:
    """Bytes that a rank may use on a card of `device_bytes`; None: no limit is known."""
    of_card = None if device_bytes is None else device_bytes - CONTEXT_BYTES
    cap = None if trial.memory_limit_gib is None else trial.memory_limit_gib * GIB
    return min((limit for limit in (of_card, cap) if limit is not None), default=None)


def placement_of(trial: Trial, graph: GraphFacts, device_bytes: int | None) -> str:
    """`device` or `host` on a card, as sagebench.engines.loaders decides it; `mapped` on a CPU.

    device_bytes: total of its GPU; None: not known, and taken as enough.
    """
    if not trial.samples_where_placed:
        return "host"
    if trial.placement != "auto":
        return trial.placement
    if trial.device == "cpu":
        return "mapped"
    available = available_bytes(trial, device_bytes)
    if available is None:
        return "device"
    reserve = min(4 * GIB, 0.5 * available)
    fits = graph.index_bytes + resident_features_bytes(trial, graph) + reserve <= available
    return "device" if fits else "host"


def resident_features_bytes(trial: Trial, graph: GraphFacts) -> int:
    """Features on a card, and the table of aggregated ones where the trial reads it; in bf16 they
    take half (sagebench.engines.loaders.features_dtype)."""
    tables = 2 if table_aggregator(trial) else 1
    return graph.feature_bytes * tables // (2 if trial.precision == "bf16" else 1)


def axes_of(trials: Sequence[Trial]) -> tuple[list[Fanout], list[int]]:
    """The fanouts and batch sizes that are asked for most."""
    fanouts = Counter(trial.fanout for trial in trials).most_common(MOST_FANOUTS)
    sizes = Counter(trial.batch_size for trial in trials).most_common(MOST_BATCH_SIZES)
    return [fanout for fanout, _ in fanouts], sorted(size for size, _ in sizes)


def cells_between(trials: Sequence[Trial], train_nodes: int) -> Iterator[Trial]:
    """Trials that no one asks for: the cells of an engine's picture near those that are.

    Each is the trial of the same fanout whose batch size is nearest, with the cell's.
    """
    for engine in dict.fromkeys(trial.engine for trial in trials):
        of_engine = [trial for trial in trials if trial.engine == engine]
        fanouts, batch_sizes = axes_of(of_engine)
        for fanout in fanouts:
            there = {one.batch_size: one for one in of_engine if one.fanout == fanout}
            for cell in batch_sizes:
                apart = {size: max(size / cell, cell / size) for size in there}
                nearest = min(apart, key=apart.__getitem__)
                if cell not in there and apart[nearest] <= WITHIN and cell <= train_nodes:
                    yield replace(there[nearest], batch_size=cell)
