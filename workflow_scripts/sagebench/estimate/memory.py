"""Whether a rank of a trial fits its card: the recorded step, what lies beside it, the samples'
spread. Standard library only.

What is estimated is what outcomes measure: `peak_reserved_bytes` of the fullest rank over all
epochs. Counted, not fitted: a step's allocations in order, what torch's allocator holds for them
(`replay`, both in the probe), and what is there beside the step (`resident`). The size of a
micro-batch is taken as normal, with the probe's mean and standard deviation, and the largest of all
the epochs' is what decides (`extremes`). Nothing is estimated for a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import hypot

from sagebench.estimate.costs import StepCost
from sagebench.estimate.extremes import NORMAL, chance_above, expected_maximum, maximum_quantile
from sagebench.estimate.resident import available_bytes, batches_ahead, resident, sampler_bytes
from sagebench.estimate.samples import GraphFacts, Sample
from sagebench.grid.trial import Trial

MODEL_ERROR = 0.04
"""standard error of an estimate, as a share of it: recorded steps are held to torch's profiler
within 0.3 %, and what a trial allocated on an H100 to 1.5 %; the order of the steps changes what
the largest needs by 2.5 %, and what a card's kernels take for themselves is not seen"""
UNLIKELY = 0.05
"""a chance to run out of memory below this is called `fits`, above its complement `will not fit`"""
FITS, TIGHT, NO_FIT = "fits", "tight", "will not fit"
STEP, KEPT = "step", "kept by the allocator"


@dataclass(frozen=True)
class MemoryEstimate:
    """peak_bytes: what an outcome would record; low_bytes to high_bytes holds nine of ten.

    needed_bytes: without which the largest micro-batch cannot do: less than peak_bytes, for the
    allocator gives back what it only keeps once the card is full. allocated_bytes: of the peak,
    what tensors take (`peak_allocated_bytes` of an outcome). parts: bytes at the peak by name;
    together they are peak_bytes. micro_batches: of all epochs and ranks. typical_bytes, std_bytes:
    what an average micro-batch needs, all that stays included, and how that differs from one to
    the next. limit_bytes: what a rank may use; None: not known.
    """

    peak_bytes: int
    low_bytes: int
    high_bytes: int
    needed_bytes: int
    allocated_bytes: int
    parts: dict[str, int]
    micro_batches: int
    typical_bytes: int
    std_bytes: int
    limit_bytes: int | None

    @property
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
    fixed = resident(trial, cost, graph)
    ready = 1 + batches_ahead(trial) if cost.beside_bytes else 0

    def at(typical: int, largest: int, z: float) -> float:
        """Sizes are linear in z."""
        return typical + (largest - typical) * (z / cost.largest_z if cost.largest_z > 0 else 0.0)

    def beside(z: float) -> dict[str, float]:
        batch = at(cost.typical_beside_bytes, cost.beside_bytes, z)
        return {
            "samples": ready * batch,
            "sampling": sampler_bytes(trial, sample, graph, cost.placement),
        }

    def live(z: float) -> float:
        return at(cost.typical_live_bytes, cost.live_bytes, z)

    def need(z: float) -> float:
        share = cost.needed_bytes / max(cost.live_bytes, 1)
        return sum(fixed.values()) + sum(beside(z).values()) + live(z) * share

    kept = live(largest_z) * (cost.held_bytes / max(cost.live_bytes, 1) - 1)
    parts = {STEP: live(largest_z), **fixed, **beside(largest_z), KEPT: kept}
    peak, std = sum(parts.values()), need(1.0) - need(0.0)
    low, high = _interval(peak, micro_batches, std, cost.held_std_bytes)
    limit = available_bytes(trial, device_bytes)
    estimate = MemoryEstimate(
        peak_bytes=round(peak),
        low_bytes=low,
        high_bytes=high,
        needed_bytes=round(need(largest_z)),
        allocated_bytes=round(peak - kept),
        parts={name: round(size) for name, size in parts.items() if size >= 1},
        micro_batches=micro_batches,
        typical_bytes=round(need(0.0)),
        std_bytes=round(std),
        limit_bytes=None if limit is None else round(limit),
    )
    return _within_limit(estimate)


def _within_limit(estimate: MemoryEstimate) -> MemoryEstimate:
    """The allocator keeps what it can, and no more than there is."""
    limit, needed = estimate.limit_bytes, estimate.needed_bytes
    if limit is None or limit >= estimate.peak_bytes:
        return estimate
    peak = max(limit, needed)
    low, high = min(estimate.low_bytes, needed), peak
    if needed > limit:  # and what it would take is as uncertain as ever
        low, high = _interval(needed, estimate.micro_batches, estimate.std_bytes)
    kept = estimate.parts.get(KEPT, 0) - (estimate.peak_bytes - peak)
    parts = {**estimate.parts, KEPT: kept}
    return replace(estimate, peak_bytes=peak, low_bytes=low, high_bytes=high, parts=parts)


def verdict(out_of_memory_chance: float) -> str:
    """FITS, TIGHT or NO_FIT."""
    if out_of_memory_chance < UNLIKELY:
        return FITS
    return NO_FIT if out_of_memory_chance > 1 - UNLIKELY else TIGHT


def _interval(
    size: float, micro_batches: int, std: float, held_std: float = 0.0
) -> tuple[int, int]:
    """Bytes that hold nine of ten around `size`. held_std: of what the allocator holds, from one
    order of the steps to the next."""
    low, high = (maximum_quantile(micro_batches, p) for p in (0.05, 0.95))
    errors = NORMAL.inv_cdf(0.95) * hypot(MODEL_ERROR * size, held_std)
    either_way = hypot(errors, (high - low) / 2 * std)
    return round(size - either_way), round(size + either_way)
