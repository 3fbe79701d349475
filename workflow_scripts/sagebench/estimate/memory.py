"""GPU memory estimate of a rank: recorded step, resident tensors, spread of the samples. Standard
library only.

What is estimated is what outcomes measure: `peak_reserved_bytes` of the fullest rank over all
epochs. Counted, not fitted: a step's allocations in order, what torch's allocator holds for them
(both in the probe), and what is there beside the step (`resident`). The size of a micro-batch is
taken as normal, with the probe's mean and standard deviation, and the largest of all the epochs' is
what decides. Nothing is estimated for a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import hypot
from statistics import NormalDist
from typing import final

from sagebench.estimate.probe import (
    GraphFacts,
    Sample,
    StepCost,
    available_bytes,
    resident_features_bytes,
)
from sagebench.grid.trial import Trial
from sagebench.units import KIB

NORMAL = NormalDist()
NINE_OF_TEN = NORMAL.inv_cdf(0.95)
"""standard deviations, on either side of the middle"""
MODEL_ERROR = 0.04
"""standard error of an estimate, as a share of it: recorded steps are held to torch's profiler
within 0.3 %, and what a trial allocated on an H100 to 1.5 %; the order of the steps changes what
the largest needs by 2.5 %, and what a card's kernels take for themselves is not seen"""
UNLIKELY = 0.05
"""a chance to run out of memory below this is called `fits`, above its complement `will not fit`"""
FITS, TIGHT, NO_FIT = "fits", "tight", "will not fit"
FLOAT, ID = 4, 8
"""bytes of a value, and of a node's id"""
SAMPLER_NODE_BYTES, KERNEL_SAMPLER_NODE_BYTES = 14, 5
"""that a device's sampler keeps of every node of the graph; without kernels and with them"""
SAMPLER_SCRATCH_NODE_BYTES, SAMPLER_DRAW_BYTES = 20, 36
"""what it takes meanwhile: of a node of the graph, or of a draw"""
DRAWS_A_STEP = 1 << 23  # of sagebench.sampling.tensor, which takes torch to import
BLAS_WORKSPACE_BYTES = 8320 * KIB
"""torch's default of CUBLAS_WORKSPACE_CONFIG, :4096:2:16:8"""


@final
@dataclass(frozen=True)
class MemoryEstimate:
    """peak_bytes: what an outcome would record; low_bytes to high_bytes: 90 % interval.

    needed_bytes, needed_std_bytes: without which the largest micro-batch cannot do, and how that is
    known: less than peak_bytes, for the allocator gives back what it only keeps once the card is
    full. parts: bytes at the peak by name; together they are peak_bytes. limit_bytes: what a rank
    may use; None: not known.
    """

    peak_bytes: int
    low_bytes: int
    high_bytes: int
    needed_bytes: int
    needed_std_bytes: int
    parts: dict[str, int]
    limit_bytes: int | None

    @property
    def out_of_memory_chance(self) -> float | None:
        """Probability that the largest of the trial's micro-batches needs more than the limit."""
        if self.limit_bytes is None:
            return None
        return 1 - NORMAL.cdf((self.limit_bytes - self.needed_bytes) / self.needed_std_bytes)


def card_memory(
    trial: Trial, cost: StepCost, sample: Sample, graph: GraphFacts, device_bytes: int | None
) -> MemoryEstimate:
    """device_bytes: total of the GPU; None: not known, and taken as enough."""
    micro_batches = graph.micro_batches(trial.batch_size) * trial.epochs
    largest_z = expected_maximum(micro_batches)
    # Where batches lie beside the step, its own, and those that wait sampled.
    batches = 1 + 2 * trial.sampling_workers if cost.beside_bytes else 0
    # Sizes are linear in z.
    a_std = 1 / cost.largest_z if cost.largest_z > 0 else 0.0
    live_std = (cost.live_bytes - cost.typical_live_bytes) * a_std
    batches_std = batches * (cost.beside_bytes - cost.typical_beside_bytes) * a_std
    live = cost.typical_live_bytes + largest_z * live_std
    parts = {
        "step": live,
        **resident(trial, cost, graph),
        "sampling": sampler_bytes(trial, sample, graph, cost),
        "samples": batches * cost.typical_beside_bytes + largest_z * batches_std,
    }
    holds, needs = (size / max(cost.live_bytes, 1) for size in (cost.held_bytes, cost.needed_bytes))
    kept = live * (holds - 1)
    peak, needed = sum(parts.values()) + kept, sum(parts.values()) + live * (needs - 1)
    spread = spread_of_maximum(micro_batches) * (needs * live_std + batches_std)
    needed_std = hypot(MODEL_ERROR * needed, spread)
    std = hypot(MODEL_ERROR * peak, spread, cost.held_std_bytes)
    low, high = peak - NINE_OF_TEN * std, peak + NINE_OF_TEN * std
    limit = available_bytes(trial, device_bytes)
    if limit is not None and limit < peak:  # the allocator keeps no more than there is
        kept -= peak - max(limit, needed)
        peak = max(limit, needed)
        low, high = min(low, needed), peak
        if needed > limit:  # and what it would take is as uncertain as ever
            low, high = needed - NINE_OF_TEN * needed_std, needed + NINE_OF_TEN * needed_std
    parts["kept by the allocator"] = kept
    return MemoryEstimate(
        peak_bytes=round(peak),
        low_bytes=round(low),
        high_bytes=round(high),
        needed_bytes=round(needed),
        needed_std_bytes=round(needed_std),
        parts={name: round(size) for name, size in parts.items() if round(size)},
        limit_bytes=None if limit is None else round(limit),
    )


def verdict(out_of_memory_chance: float | None) -> str | None:
    """FITS, TIGHT or NO_FIT; None where nobody knows."""
    if out_of_memory_chance is None:
        return None
    if out_of_memory_chance < UNLIKELY:
        return FITS
    return NO_FIT if out_of_memory_chance > 1 - UNLIKELY else TIGHT


def resident(trial: Trial, cost: StepCost, graph: GraphFacts) -> dict[str, int]:
    """Bytes on the device for the whole training, by use."""
    weights = FLOAT * cost.parameters
    held = {
        "parameters": 2 * weights,  # the model's and the evaluator's
        "optimizer": 2 * weights,
        "gradient buckets": weights if trial.ranks > 1 else 0,
        "workspace": BLAS_WORKSPACE_BYTES,
        "labels": ID * graph.num_nodes * (2 if trial.samples_where_placed else 1),
    }
    if cost.placement == "device":
        samplers = trial.sampling_workers + 1
        held["graph and features"] = graph.index_bytes + resident_features_bytes(trial, graph)
        node_bytes = KERNEL_SAMPLER_NODE_BYTES if cost.sampler_operations else SAMPLER_NODE_BYTES
        held["samplers"] = node_bytes * graph.num_nodes * samplers
    return held


def sampler_bytes(trial: Trial, sample: Sample, graph: GraphFacts, cost: StepCost) -> float:
    """Scratch memory of the device's samplers while they run."""
    if cost.placement != "device" or not trial.sampling_workers:
        return 0.0
    if cost.sampler_operations:
        return trial.sampling_workers * cost.sampler_scratch_bytes
    nodes = [spread.full_mean for spread in sample.nodes_per_hop]
    draws = max(count * max(k, 0) for count, k in zip(nodes, trial.fanout, strict=False))
    return trial.sampling_workers * max(
        SAMPLER_SCRATCH_NODE_BYTES * graph.num_nodes, SAMPLER_DRAW_BYTES * min(draws, DRAWS_A_STEP)
    )


# How far above the mean the largest of n micro-batches lies. A sample's size is a sum over its seed
# nodes, and so about normal.


def expected_maximum(n: int) -> float:
    """Standard deviations from the mean to the expected largest of n normal values (Blom 1958)."""
    return NORMAL.inv_cdf((n - 0.375) / (n + 0.25))


def spread_of_maximum(n: int) -> float:
    """The largest's own standard deviation, in those of the n values: from its 90 % interval."""
    low, high = (NORMAL.inv_cdf(p ** (1 / n)) for p in (0.05, 0.95))
    return (high - low) / 2 / NINE_OF_TEN
