"""How much memory a rank of a trial will have at its peak, and so whether it fits its device.

What is predicted is what outcomes measure: on a CPU `peak_host_private_bytes`, on CUDA
`peak_reserved_bytes`, of the fullest rank over all epochs. Counted, not fitted:

- a step's tensors in the order in which autograd takes and frees them (`step_blocks`, `step_pyg`),
  for a micro-batch of a size;
- what the allocator holds for them, by its own rules, over a few steps of different sizes
  (`allocators`);
- what is there beside the step (`resident`).

The size of a micro-batch is taken as normal, with the probe's mean and standard deviation, and the
largest of all the epochs' is what decides (`extremes`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate
from math import hypot

from sagebench.grid.trial import Trial
from sagebench.predict.allocators import CudaAllocator, GlibcHeap, replay
from sagebench.predict.extremes import NORMAL, chance_above, expected_maximum, maximum_quantile
from sagebench.predict.resident import (
    batches_ahead,
    placement_of,
    resident,
    sample_bytes,
    sampling_bytes,
)
from sagebench.predict.samples import GraphFacts, Sample, Spread
from sagebench.predict.step_blocks import blocks_step
from sagebench.predict.step_pyg import pyg_step
from sagebench.predict.tape import Tape
from sagebench.predict.work import widths

GIB = 1 << 30
MODEL_ERROR = {"cpu": 0.06, "cuda": 0.06}
"""standard error of a peak relative to it. cpu: of the trials in check_predictions.py. cuda: taken
over from there; the tensors are the same, the allocator's rules are known, no card has been asked"""
CONTEXT_BYTES = GIB // 2
"""of a card that the CUDA context, its kernels and libraries take, and the allocator never gets"""
UNLIKELY = 0.05
"""a chance to run out of memory below this is called `fits`, above its complement `will not fit`"""
FITS, TIGHT, WILL_NOT_FIT = "fits", "tight", "will not fit"
SIZES = (0.0, -1.0, 1.0, -0.5, 0.5)
"""of the steps that are replayed before the largest, in standard deviations from the mean"""


@dataclass(frozen=True)
class MemoryPrediction:
    """peak_bytes: what an outcome would record; low_bytes to high_bytes holds nine of ten.

    parts: bytes at that peak by name; together they are peak_bytes. micro_batches: of all epochs
    and ranks. need_bytes: what an average micro-batch cannot do without, all that stays included
    (on CUDA less than peak_bytes: short of memory, the allocator gives back what it only keeps);
    need_std_bytes: how that differs from one micro-batch to the next. before_bytes: of them, what a
    CPU rank has before it trains, which a trial's own limit does not count.
    """

    peak_bytes: int
    low_bytes: int
    high_bytes: int
    parts: dict[str, int]
    micro_batches: int
    need_bytes: int
    need_std_bytes: int
    before_bytes: int
    model_error: float

    def out_of_memory_chance(self, limit_bytes: float) -> float:
        """That any of the trial's micro-batches needs more than `limit_bytes` of a rank's memory.

        Over the micro-batches' sizes and over the model's own error, both taken as normal.
        """
        slices = 40
        return (
            sum(
                self._chance(
                    limit_bytes / (1 + self.model_error * NORMAL.inv_cdf((k + 0.5) / slices))
                )
                for k in range(slices)
            )
            / slices
        )

    def _chance(self, limit_bytes: float) -> float:
        if not self.need_std_bytes:
            return float(self.need_bytes > limit_bytes)
        z = (limit_bytes - self.need_bytes) / self.need_std_bytes
        return chance_above(self.micro_batches, z)

    def verdict(self, limit_bytes: float) -> str:
        """`fits`, `tight` or `will not fit`, by that chance."""
        chance = self.out_of_memory_chance(limit_bytes)
        return FITS if chance < UNLIKELY else WILL_NOT_FIT if chance > 1 - UNLIKELY else TIGHT


def peak_memory(
    trial: Trial,
    sample: Sample,
    graph: GraphFacts,
    device_bytes: int | None = None,
    *,
    placement: str | None = None,
    process_bytes: int | None = None,
) -> MemoryPrediction:
    """device_bytes: of a card in all, for placement: auto; None: taken as enough. placement: as
    outcomes have it; None: as the trial would choose. process_bytes: what a rank has on this
    machine before it trains (outcomes' `host_private_before_training_bytes`); None: as measured
    on one."""
    if placement is None:
        limits = [trial.memory_limit_gib and trial.memory_limit_gib * GIB, device_bytes]
        placement = placement_of(trial, graph, min(filter(None, limits), default=None))
    return _predicted(_without_what_does_not_matter(trial), sample, graph, placement, process_bytes)


def usable_bytes(
    trial: Trial, prediction: MemoryPrediction, device_bytes: int | None
) -> float | None:
    """The limit to ask a prediction about; None: none is known.

    device_bytes: of a card in all, or a rank's share of a host's memory.
    """
    usable = [device_bytes] if device_bytes is not None else []
    if usable and trial.device == "cuda":
        usable = [device_bytes - CONTEXT_BYTES]
    if trial.memory_limit_gib is not None:
        usable.append(trial.memory_limit_gib * GIB + prediction.before_bytes)
    return min(usable, default=None)


def _without_what_does_not_matter(trial: Trial) -> Trial:
    """One trial for all that have the same memory, and that can be looked up."""
    return replace(
        trial,
        dataset=None,
        dropout=0.5 if trial.dropout else 0.0,
        accumulation=1,
        ranks=min(trial.ranks, 2),
        threads_per_rank=1,
        learning_rate=1.0,
        learning_rate_scaling="none",
        evaluate_every_epochs=1,
        patience_evaluations=None,
        validation="full",
        phase_window_steps=0,
        seed=0,
        machine="",
        memory_limit_gib=None,
    )


@lru_cache(maxsize=20_000)
def _predicted(
    trial: Trial, sample: Sample, graph: GraphFacts, placement: str, process_bytes: int | None
) -> MemoryPrediction:
    micro_batches = graph.micro_batches(trial.batch_size) * trial.epochs
    largest = expected_maximum(micro_batches)
    fixed = resident(trial, graph, placement, process_bytes)
    cuda = trial.device == "cuda"

    steps = {z: step_tape(trial, sample, graph, placement, z) for z in (*SIZES, largest)}
    live, parts = steps[largest].peak()
    held = replay(CudaAllocator() if cuda else GlibcHeap(), steps.values())
    needed = held
    if cuda:
        needed = replay(CudaAllocator(pressed=True), [steps[0.0], steps[largest]])

    def need(z: float) -> float:
        beside = sum(_samples(trial, sample, graph, placement, z).values())
        return sum(fixed.values()) + beside + steps[z].peak()[0] * needed / live

    parts |= fixed | _samples(trial, sample, graph, placement, largest)
    parts["kept by the allocator"] = held - live
    peak, std = sum(parts.values()), need(1.0) - need(0.0)
    error = MODEL_ERROR[trial.device]
    low, high = (maximum_quantile(micro_batches, p) for p in (0.05, 0.95))
    either_way = hypot(NORMAL.inv_cdf(0.95) * error * peak, (high - low) / 2 * std)
    return MemoryPrediction(
        peak_bytes=round(peak),
        low_bytes=round(peak - either_way),
        high_bytes=round(peak + either_way),
        parts={name: round(size) for name, size in parts.items() if size >= 1},
        micro_batches=micro_batches,
        need_bytes=round(need(0.0)),
        need_std_bytes=round(std),
        before_bytes=0 if cuda else sum(fixed.values()),
        model_error=error,
    )


def step_tape(
    trial: Trial, sample: Sample, graph: GraphFacts, placement: str, z: float = 0.0
) -> Tape:
    """The step of a micro-batch that lies `z` standard deviations above the mean."""
    nodes, edges = hops(sample, graph, z)
    to_hop = list(accumulate(nodes))[::-1]  # nodes of the hops 0 to L, to L - 1, ...
    to_hop_edges = list(accumulate(edges))[::-1]
    channels = widths(trial, graph)
    choices = {
        "aggregator": trial.aggregator,
        "dropout": trial.dropout > 0,
        "bf16": trial.precision == "bf16",
        "cuda": trial.device == "cuda",
    }
    if trial.engine == "blocks":
        return blocks_step(
            to_hop[1:],
            to_hop_edges,
            channels,
            kernels=trial.device == "cpu" and trial.precision == "fp32" and not trial.compile,
            gathered=placement == "host",
            **choices,
        )
    if trial.engine == "reference":
        to_hop = [to_hop[0]] * trial.layers
        to_hop_edges = [to_hop_edges[0]] * trial.layers
    return pyg_step(
        to_hop[: trial.layers],
        to_hop_edges,
        channels,
        seeds=round(nodes[0]),
        batch_bytes=sample_bytes(trial, graph, placement, nodes, edges),
        **choices,
    )


def _samples(
    trial: Trial, sample: Sample, graph: GraphFacts, placement: str, z: float
) -> dict[str, float]:
    """The micro-batches that the `blocks` engine has sampled, and what its samplers have in hand."""
    if trial.engine != "blocks":
        return {}
    counts = hops(sample, graph, z)
    ready = 1 + batches_ahead(trial)
    return {
        "samples": ready * sample_bytes(trial, graph, placement, *counts),
        "sampling": sampling_bytes(trial, graph, placement, *counts),
    }


def hops(sample: Sample, graph: GraphFacts, z: float) -> tuple[list[float], list[float]]:
    """Nodes of the hops 0 to L and edges of the hops 1 to L in a micro-batch that lies `z` standard
    deviations above the mean in all of them at once, as far as their sums spread."""
    nodes = _shifted(sample.nodes_per_hop, sample.nodes, z)
    edges = _shifted(sample.edges_per_hop, sample.edges, z)
    room = float(graph.num_nodes)
    for k, count in enumerate(nodes):
        nodes[k] = min(count, room)
        room -= nodes[k]
    return nodes, edges


def _shifted(per_hop: Sequence[Spread], total: Spread, z: float) -> list[float]:
    together = sum(spread.std for spread in per_hop)
    share = total.std / together if together else 0.0
    return [max(0.0, spread.full_mean + z * share * spread.std) for spread in per_hop]
