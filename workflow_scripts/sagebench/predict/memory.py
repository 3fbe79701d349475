"""How much memory a rank of a trial will have at its peak, and so whether it fits its device.

What is predicted is what outcomes measure: on a CPU `peak_host_private_bytes`, on CUDA
`peak_reserved_bytes`, of the fullest rank over all epochs. Counted, not fitted:

- a step's tensors in the order in which autograd takes and frees them, for a micro-batch of a size
  (`steps`);
- what the allocator holds for them, by its own rules, over steps of different sizes
  (`allocators`);
- what is there beside the step (`resident`).

The size of a micro-batch is taken as normal, with the probe's mean and standard deviation, and the
largest of all the epochs' is what decides (`extremes`).
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from functools import lru_cache
from math import hypot
from statistics import fmean, stdev

from sagebench.grid.trial import Trial
from sagebench.predict.allocators import CudaAllocator, GlibcHeap, replay
from sagebench.predict.extremes import NORMAL, chance_above, expected_maximum, maximum_quantile
from sagebench.predict.resident import available_bytes, placement_of, resident
from sagebench.predict.samples import GraphFacts, Sample
from sagebench.predict.step_evaluation import evaluation_tape
from sagebench.predict.steps import samples_beside, step_tape
from sagebench.predict.tape import Tape

MODEL_ERROR = {"cpu": 0.2, "cuda": 0.04}
"""standard error of what a rank takes beyond `before_bytes`, as a share of it. cpu: of 18 trainings
on synthetic graphs of three sizes, those that took more than 50 MiB were off by 12 % (root mean
square), and with 15 % three of 18 trainings on PubMed left their intervals. cuda: one trial of
`blocks` on an H100 allocated what was predicted within 0.2 %, and reserved 26 % more. The order of
the steps changes what the largest needs by 2.5 % (`reference`, over the slides' 23 pairs of fanout
and batch size; what is held has a `held_std` of its own beside), tapes are held to torch's record
of a step within 2 %, and what a card's kernels take for themselves is not in them"""
PROCESS_ERROR = 0.06
"""the same of before_bytes, for the small objects that come to lie between a step's tensors, which
are not counted: of 18 trainings on PubMed, whose tensors are small beside a process"""
UNLIKELY = 0.05
"""a chance to run out of memory below this is called `fits`, above its complement `will not fit`"""
KEPT = "kept by the allocator"
FITS, TIGHT, NO_FIT = "fits", "tight", "will not fit"
HEAP_STEPS, CARD_STEPS = 70, 20
"""that are replayed at most: a CPU's heap grows slowly, as steps of ever other sizes come; what a
card needs hardly changes after its first twenty"""
HEAP_RUNS, CARD_RUNS = 3, 6
"""of so many steps each, in other orders and, in a heap, with small objects in other places: the
first steps decide how memory is cut up"""


@dataclass(frozen=True)
class MemoryPrediction:
    """peak_bytes: what an outcome would record; low_bytes to high_bytes holds nine of ten.

    needed_bytes: without which the largest micro-batch cannot do; on CUDA less than peak_bytes,
    for the allocator gives back what it only keeps once the device is full. allocated_bytes: of
    that, what tensors take (CUDA: `peak_allocated_bytes` of an outcome). parts: bytes at the
    peak by name; together they are peak_bytes. micro_batches: of all epochs and ranks.
    typical_bytes, std_bytes: what an average micro-batch needs, all that stays included, and how
    that differs from one to the next. before_bytes: what a CPU rank has before it trains, which a
    trial's own limit does not count. evaluation_bytes: the most that it has in all once it is also
    evaluated over the whole graph (`step_evaluation`), which peak_bytes and the chance to run out
    do not count; on CUDA, where the host takes what the card cannot, None.
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
    before_bytes: int
    evaluation_bytes: int | None
    model_error: float

    def out_of_memory_chance(self, limit_bytes: float) -> float:
        """That any of the trial's micro-batches needs more than `limit_bytes` of a rank's memory.

        Over the micro-batches' sizes and over the model's own error, both taken as normal.
        """
        slices = 40
        room = limit_bytes - self.before_bytes
        errors = (self.model_error * NORMAL.inv_cdf((k + 0.5) / slices) for k in range(slices))
        return sum(self._chance(room / (1 + error)) for error in errors) / slices

    def evaluation_chance(self, limit_bytes: float) -> float:
        """That an evaluation over the whole graph needs more than `limit_bytes` of a rank's memory,
        over the model's own error, which covers it: of trials on PubMed under limits `blocks` took
        a fifth more than said, `reference` no more. 0 on CUDA."""
        if self.evaluation_bytes is None:
            return 0.0
        takes = max(1, self.evaluation_bytes - self.before_bytes)
        room = limit_bytes - self.before_bytes
        return NORMAL.cdf((1 - room / takes) / self.model_error)

    def _chance(self, room: float) -> float:
        """The same, should the model be right. room: bytes beyond before_bytes."""
        room -= self.typical_bytes - self.before_bytes
        if not self.std_bytes:
            return float(room < 0)
        return chance_above(self.micro_batches, room / self.std_bytes)


def peak_memory(
    trial: Trial,
    sample: Sample,
    graph: GraphFacts,
    device_bytes: int | None = None,
    *,
    placement: str | None = None,
    process_bytes: int | None = None,
) -> MemoryPrediction:
    """device_bytes: of a card in all, or a rank's share of a host's memory; None: not known, and
    taken as enough. placement: as outcomes have it; None: as the trial would choose. process_bytes:
    what the process alone takes of a CPU rank of the same engine, with others beside it or alone,
    on this machine (`process_bytes_of`); None: as measured on one machine.
    """
    if placement is None:
        placement = placement_of(trial, graph, device_bytes)
    prediction = _predicted(_only_what_matters(trial), sample, graph, placement, process_bytes)
    limit = usable_bytes(trial, prediction, device_bytes)
    if trial.device == "cpu" or limit is None or limit >= prediction.peak_bytes:
        return prediction
    # The allocator keeps what it can, and no more than there is.
    needed = prediction.needed_bytes
    peak = max(round(limit), needed)
    low, high = min(prediction.low_bytes, needed), peak
    if needed > limit:  # and what it would take is as uncertain as ever
        low, high = _interval(
            needed,
            prediction.before_bytes,
            prediction.model_error,
            prediction.micro_batches,
            prediction.std_bytes,
        )
    kept = prediction.parts[KEPT] - (prediction.peak_bytes - peak)
    return replace(
        prediction,
        peak_bytes=peak,
        low_bytes=low,
        high_bytes=high,
        parts=prediction.parts | {KEPT: kept},
    )


def verdict(out_of_memory_chance: float) -> str:
    """FITS, TIGHT or NO_FIT."""
    if out_of_memory_chance < UNLIKELY:
        return FITS
    return NO_FIT if out_of_memory_chance > 1 - UNLIKELY else TIGHT


def usable_bytes(
    trial: Trial, prediction: MemoryPrediction, device_bytes: int | None
) -> float | None:
    """The limit to ask a prediction about; None: none is known.

    device_bytes: of a card in all, or a rank's share of a host's memory.
    """
    return available_bytes(trial, device_bytes, prediction.before_bytes)


def _only_what_matters(trial: Trial) -> Trial:
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


@dataclass(frozen=True)
class _Replayed:
    """Of a trial's steps, in bytes: live, what the largest has in use at its peak, and parts, of
    what that is; held, what the allocator holds at its fullest, and held_std, how that differs from
    one order of the steps to the next (on a CPU part of MODEL_ERROR); needed, without which the
    largest does not run; evaluated, what a CPU's heap holds at its fullest after an evaluation."""

    live: int
    parts: dict[str, int]
    held: float
    held_std: float
    needed: float
    evaluated: float | None


@lru_cache(maxsize=20_000)
def _replayed(trial: Trial, sample: Sample, graph: GraphFacts, placement: str) -> _Replayed:
    micro_batches = _micro_batches(trial, graph)
    largest = step_tape(trial, sample, graph, placement, expected_maximum(micro_batches))
    live, parts = largest.peak()

    def run(seed: int, most_steps: int) -> list[Tape]:
        draw = random.Random(seed).gauss
        draws = [draw(0.0, 1.0) for _ in range(min(micro_batches, most_steps) - 1)]
        sizes = [min(z, expected_maximum(micro_batches)) for z in draws]
        return [*(step_tape(trial, sample, graph, placement, z) for z in sizes), largest]

    if trial.device == "cpu":
        heaps = [GlibcHeap(seed) for seed in range(HEAP_RUNS)]
        helds = [replay(heap, run(seed, HEAP_STEPS)) for seed, heap in enumerate(heaps)]
        evaluation = [evaluation_tape(trial, graph)]
        evaluated = fmean(replay(heap, evaluation) for heap in heaps)
        return _Replayed(live, parts, fmean(helds), 0.0, fmean(helds), evaluated)
    runs = [run(seed, CARD_STEPS) for seed in range(CARD_RUNS)]
    helds = [replay(CudaAllocator(), tapes) for tapes in runs]
    needs = [
        min(held, replay(CudaAllocator(frugal=True), tapes))
        for held, tapes in zip(helds, runs, strict=True)
    ]
    return _Replayed(live, parts, fmean(helds), stdev(helds), fmean(needs), None)


def _micro_batches(trial: Trial, graph: GraphFacts) -> int:
    return graph.micro_batches(trial.batch_size) * trial.epochs


@lru_cache(maxsize=20_000)
def _predicted(
    trial: Trial, sample: Sample, graph: GraphFacts, placement: str, process_bytes: int | None
) -> MemoryPrediction:
    micro_batches = _micro_batches(trial, graph)
    largest = expected_maximum(micro_batches)
    fixed = resident(trial, graph, placement, process_bytes)
    steps = _replayed(replace(trial, ranks=1), sample, graph, placement)

    def need(z: float) -> float:
        beside = sum(samples_beside(trial, sample, graph, placement, z).values())
        live = step_tape(trial, sample, graph, placement, z).peak()[0]
        return sum(fixed.values()) + beside + live * steps.needed / max(steps.live, 1)

    beside = samples_beside(trial, sample, graph, placement, largest)
    parts = steps.parts | fixed | beside | {KEPT: steps.held - steps.live}
    peak, std = sum(parts.values()), need(1.0) - need(0.0)
    before = 0 if trial.device == "cuda" else sum(fixed.values())
    error = MODEL_ERROR[trial.device]
    low, high = _interval(peak, before, error, micro_batches, std, steps.held_std)
    return MemoryPrediction(
        peak_bytes=round(peak),
        low_bytes=low,
        high_bytes=high,
        needed_bytes=round(need(largest)),
        allocated_bytes=round(peak - parts[KEPT]),
        parts={name: round(size) for name, size in parts.items() if size >= 1},
        micro_batches=micro_batches,
        typical_bytes=round(need(0.0)),
        std_bytes=round(std),
        before_bytes=before,
        evaluation_bytes=None if steps.evaluated is None else round(before + steps.evaluated),
        model_error=error,
    )


def _interval(
    size: float,
    before: float,
    error: float,
    micro_batches: int,
    std: float,
    held_std: float = 0.0,
) -> tuple[int, int]:
    """Bytes that hold nine of ten around `size`, whose part `before` is known better.

    held_std: of what the allocator holds, from one order of the steps to the next.
    """
    errors = hypot(error * (size - before), PROCESS_ERROR * before, held_std)
    low, high = (maximum_quantile(micro_batches, p) for p in (0.05, 0.95))
    either_way = hypot(NORMAL.inv_cdf(0.95) * errors, (high - low) / 2 * std)
    return round(size - either_way), round(size + either_way)
