"""Whether a rank of a trial fits its card: the recorded step, what lies beside it, the samples'
spread. Standard library only.

What is estimated is what outcomes measure: `peak_reserved_bytes` of the fullest rank over all
epochs. Counted, not fitted: a step's allocations in order, what torch's allocator holds for them
(both in the probe), and what is there beside the step (`resident`). The size of a micro-batch is
taken as normal, with the probe's mean and standard deviation, and the largest of all the epochs' is
what decides. Nothing is estimated for a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import hypot

from sagebench.estimate.samples import (
    NORMAL,
    GraphFacts,
    Sample,
    StepCost,
    chance_above,
    expected_maximum,
    maximum_quantile,
)
from sagebench.grid.together import samples_where_placed
from sagebench.grid.trial import Trial
from sagebench.units import GIB, KIB

MODEL_ERROR = 0.04
"""standard error of an estimate, as a share of it: recorded steps are held to torch's profiler
within 0.3 %, and what a trial allocated on an H100 to 1.5 %; the order of the steps changes what
the largest needs by 2.5 %, and what a card's kernels take for themselves is not seen"""
UNLIKELY = 0.05
"""a chance to run out of memory below this is called `fits`, above its complement `will not fit`"""
FITS, TIGHT, NO_FIT = "fits", "tight", "will not fit"
STEP, KEPT = "step", "kept by the allocator"
FLOAT, ID = 4, 8
"""bytes of a value, and of a node's id"""
SAMPLER_NODE_BYTES = 14
"""that a device's sampler keeps of every node of the graph"""
SAMPLER_SCRATCH_NODE_BYTES, SAMPLER_DRAW_BYTES = 20, 36
"""what it takes meanwhile: of a node of the graph, or of a draw"""
DRAWS_A_STEP = 1 << 23  # of sagebench.sampling.tensor, which takes torch to import
BLAS_WORKSPACE_BYTES = 8320 * KIB
"""torch's default of CUBLAS_WORKSPACE_CONFIG, :4096:2:16:8"""
CONTEXT_BYTES = GIB // 2
"""of a card that the CUDA context, its kernels and libraries take, and the allocator never gets"""


@dataclass(frozen=True)
class MemoryEstimate:
    """peak_bytes: what an outcome would record; low_bytes to high_bytes holds nine of ten.

    needed_bytes: without which the largest micro-batch cannot do: less than peak_bytes, for the
    allocator gives back what it only keeps once the card is full. parts: bytes at the peak by name;
    together they are peak_bytes. micro_batches: of all epochs and ranks. typical_bytes, std_bytes:
    what an average micro-batch needs, all that stays included, and how that differs from one to
    the next. limit_bytes: what a rank may use; None: not known.
    """

    peak_bytes: int
    low_bytes: int
    high_bytes: int
    needed_bytes: int
    parts: dict[str, int]
    micro_batches: int
    typical_bytes: int
    std_bytes: int
    limit_bytes: int | None

    @cached_property
    def out_of_memory_chance(self) -> float | None:
        """That any of the trial's micro-batches needs more than the limit.

        Over the micro-batches' sizes and over the model's own error, both taken as normal.
        """
        if self.limit_bytes is None:
            return None
        slices = 40
        errors = (MODEL_ERROR * NORMAL.inv_cdf((k + 0.5) / slices) for k in range(slices))
        return sum(self._chance(self.limit_bytes / (1 + error)) for error in errors) / slices

    def _chance(self, room_bytes: float) -> float:
        """The same, should the model be right."""
        room_bytes -= self.typical_bytes
        if not self.std_bytes:
            return float(room_bytes < 0)
        return chance_above(self.micro_batches, room_bytes / self.std_bytes)


def card_memory(
    trial: Trial,
    cost: StepCost,
    sample: Sample,
    graph: GraphFacts,
    device_bytes: int | None,
) -> MemoryEstimate:
    """device_bytes: of the card in all; None: not known, and taken as enough."""
    micro_batches = graph.micro_batches(trial.batch_size) * trial.epochs
    largest_z = expected_maximum(micro_batches)
    ready = 1 + batches_ahead(trial) if cost.beside_bytes else 0
    fixed = {
        **resident(trial, cost, graph),
        "sampling": sampler_bytes(trial, sample, graph, cost.placement),
    }

    def at(typical: int, largest: int, z: float) -> float:
        """Sizes are linear in z."""
        return typical + (largest - typical) * (z / cost.largest_z if cost.largest_z > 0 else 0.0)

    def samples(z: float) -> float:
        return ready * at(cost.typical_beside_bytes, cost.beside_bytes, z)

    def live(z: float) -> float:
        return at(cost.typical_live_bytes, cost.live_bytes, z)

    def need(z: float) -> float:
        share = cost.needed_bytes / max(cost.live_bytes, 1)
        return sum(fixed.values()) + samples(z) + live(z) * share

    kept = live(largest_z) * (cost.held_bytes / max(cost.live_bytes, 1) - 1)
    parts = {STEP: live(largest_z), **fixed, "samples": samples(largest_z)}
    peak, needed, std = sum(parts.values()) + kept, need(largest_z), need(1.0) - need(0.0)
    low, high = _interval(peak, micro_batches, std, cost.held_std_bytes)
    limit = available_bytes(trial, device_bytes)
    if limit is not None and limit < peak:  # the allocator keeps no more than there is
        kept -= peak - max(limit, needed)
        peak = high = max(limit, needed)
        low = min(low, needed)
        if needed > limit:  # and what it would take is as uncertain as ever
            low, high = _interval(needed, micro_batches, std)
    return MemoryEstimate(
        peak_bytes=round(peak),
        low_bytes=round(low),
        high_bytes=round(high),
        needed_bytes=round(needed),
        parts={name: round(size) for name, size in {**parts, KEPT: kept}.items() if round(size)},
        micro_batches=micro_batches,
        typical_bytes=round(need(0.0)),
        std_bytes=round(std),
        limit_bytes=None if limit is None else round(limit),
    )


def verdict(out_of_memory_chance: float) -> str:
    """FITS, TIGHT or NO_FIT."""
    if out_of_memory_chance < UNLIKELY:
        return FITS
    return NO_FIT if out_of_memory_chance > 1 - UNLIKELY else TIGHT


def _interval(
    size: float, micro_batches: int, std: float, held_std: float = 0.0
) -> tuple[float, float]:
    """Bytes that hold nine of ten around `size`. held_std: of what the allocator holds, from one
    order of the steps to the next."""
    low, high = (maximum_quantile(micro_batches, p) for p in (0.05, 0.95))
    errors = NORMAL.inv_cdf(0.95) * hypot(MODEL_ERROR * size, held_std)
    either_way = hypot(errors, (high - low) / 2 * std)
    return size - either_way, size + either_way


def available_bytes(trial: Trial, device_bytes: int | None) -> float | None:
    """What a rank may take of a card of `device_bytes` in all; None: no limit is known."""
    limits: list[float] = []
    if device_bytes is not None:
        limits.append(device_bytes - CONTEXT_BYTES)
    if trial.memory_limit_gib is not None:
        limits.append(trial.memory_limit_gib * GIB)
    return min(limits, default=None)


def placement_of(trial: Trial, graph: GraphFacts, device_bytes: int | None) -> str:
    """`device` or `host` on a card, as sagebench.engines.loaders decides it; `mapped` on a CPU.

    device_bytes: of its card in all; None: not known, and taken as enough.
    """
    if not samples_where_placed(trial):
        return "host"
    if trial.placement != "auto":
        return trial.placement
    if trial.device == "cpu":
        return "mapped"
    available = available_bytes(trial, device_bytes)
    if available is None:
        return "device"
    reserve = min(4 * GIB, 0.5 * available)
    fits = graph.index_bytes + graph.feature_bytes + reserve <= available
    return "device" if fits else "host"


def resident(trial: Trial, cost: StepCost, graph: GraphFacts) -> dict[str, int]:
    """What stays from before the first step to after the last."""
    weights = FLOAT * cost.parameters
    held = {
        "parameters": 2 * weights,  # the model's and the evaluator's
        "optimizer": 2 * weights,
        "gradient buckets": weights if trial.ranks > 1 else 0,
        "workspace": BLAS_WORKSPACE_BYTES,
        "labels": ID * graph.num_nodes * (2 if samples_where_placed(trial) else 1),
    }
    if cost.placement == "device":
        samplers = trial.sampling_workers + 1
        held["graph and features"] = graph.index_bytes + graph.feature_bytes
        held["samplers"] = SAMPLER_NODE_BYTES * graph.num_nodes * samplers
    return {name: size for name, size in held.items() if size}


def batches_ahead(trial: Trial) -> int:
    """Micro-batches that wait sampled on the device while a step runs, beside its own
    (sagebench.engines.side_stream; PyG's loader keeps its own on the host)."""
    return 2 * trial.sampling_workers if samples_where_placed(trial) else 0


def sampler_bytes(trial: Trial, sample: Sample, graph: GraphFacts, placement: str) -> float:
    """What a device's samplers at work take meanwhile."""
    if placement != "device" or not trial.sampling_workers:
        return 0.0
    nodes = [spread.full_mean for spread in sample.nodes_per_hop]
    draws = max(count * max(k, 0) for count, k in zip(nodes, trial.fanout, strict=False))
    return trial.sampling_workers * max(
        SAMPLER_SCRATCH_NODE_BYTES * graph.num_nodes, SAMPLER_DRAW_BYTES * min(draws, DRAWS_A_STEP)
    )
