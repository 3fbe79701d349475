"""Memory and time of node2vec's vectors, estimated from the sizes of the graph and the walks.
Standard library only.

On a GPU there are the vectors and Adam's two moments, [N, dimension] each, and what a step of a
batch of walks takes. Time is the number of pairs, times the dimension, over as much a second of
outcomes on the same machine; without any, a GPU's is what a step moves, over its bandwidth. A whole
trial is known by outcomes alone, for the classifier and the test come with them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from math import hypot
from statistics import median
from typing import Any

from sagebench.estimate.cards import Card
from sagebench.estimate.memory import (
    BLAS_WORKSPACE_BYTES,
    FLOAT,
    MODEL_ERROR,
    NINE_OF_TEN,
    MemoryEstimate,
)
from sagebench.estimate.probe import GraphFacts, available_bytes
from sagebench.estimate.time import A_MODEL, OUTCOMES, OUTCOMES_SPREAD, TimeEstimate
from sagebench.grid.trial import Trial
from sagebench.records import Outcome

METHOD = "node2vec"
MATRICES = 3
"""the vectors, and Adam's two moments"""
BATCH_COPIES, BATCH_ERROR = 7, 0.3
"""of a batch's rows: those read, their gradients, sorted, summed, and in Adam; counted in
embedding/skipgram_torch.py, and not measured on a card"""
BATCH_TRAFFIC = 14
"""the same, each written once and read once"""
ROOFLINE_ERROR = 0.7
"""standard deviation of the time's logarithm; a judgement: walks come from the CPU's threads"""


def rows_of_batch(options: dict[str, Any]) -> int:
    """Vectors that the walks of a batch read, their negatives among them, each as often as read."""
    length, negatives = options["walk_length"], options["negatives"]
    return options["start_nodes"] * options["walks_per_node"] * (1 + length + negatives * length)


def pairs_of_pass(options: dict[str, Any], graph: GraphFacts) -> int:
    """Center and context, over all walks of a pass."""
    centers = options["walk_length"] + 2 - options["context"]
    return graph.num_nodes * options["walks_per_node"] * centers * (options["context"] - 1)


def vectors_memory(
    trial: Trial, graph: GraphFacts, device_bytes: int | None
) -> MemoryEstimate | None:
    """device_bytes: total of the GPU; None: not known. None on a CPU."""
    if trial.device != "cuda":
        return None
    options: dict[str, Any] = trial.options
    row_bytes = FLOAT * options["dimension"]
    parts = {
        "vectors": graph.num_nodes * row_bytes,
        "optimizer": (MATRICES - 1) * graph.num_nodes * row_bytes,
        "batch": BATCH_COPIES * rows_of_batch(options) * row_bytes,
        "workspace": BLAS_WORKSPACE_BYTES,
    }
    peak = sum(parts.values())
    limit = available_bytes(trial, device_bytes)
    std = hypot(MODEL_ERROR * peak, BATCH_ERROR * parts["batch"])
    return MemoryEstimate(
        peak_bytes=peak,
        low_bytes=round(peak - NINE_OF_TEN * std),
        high_bytes=round(peak + NINE_OF_TEN * std),
        needed_bytes=peak,
        needed_std_bytes=round(std),
        parts=parts,
        limit_bytes=None if limit is None else round(limit),
    )


def vectors_time(
    trial: Trial, graph: GraphFacts, outcomes: Iterable[Outcome], card: Card | None
) -> TimeEstimate | None:
    """An epoch is a pass over all nodes. outcomes: of the method, on the same machine."""
    options: dict[str, Any] = trial.options
    pairs, rates, others_s, used = pairs_of_pass(options, graph), [], [], []
    width = options["dimension"]
    for one in outcomes:
        took_s = one.timing.embedding_s if one.timing else None
        if one.timing and took_s and one.store and one.trial["device"] == trial.device:
            theirs: Any = one.trial["options"]
            facts = GraphFacts.from_json({**vars(graph), **vars(one.store)})
            passes = theirs["passes"] * theirs["dimension"] / width  # each so much longer
            rates.append(pairs_of_pass(theirs, facts) * passes / took_s)
            others_s.append((one.timing.total_s or took_s) - took_s)
            used.append(one.trial_id)
    if rates:
        rate = median(rates)
        said = f"{rate / 1e6:.1f} M pairs a second by {len(used)} outcomes of this machine"
        found = _time(pairs / rate, 2 * OUTCOMES_SPREAD, OUTCOMES, said, tuple(used))
        return replace(found, test_s=median(others_s))
    if trial.device != "cuda" or card is None:
        return None
    batches = -(-graph.num_nodes // options["start_nodes"])
    moved = BATCH_TRAFFIC * rows_of_batch(options) * FLOAT * options["dimension"]
    said = f"roofline of {card.name}, {pairs:,} pairs"
    return _time(batches * card.moving_s(moved), ROOFLINE_ERROR, A_MODEL, said)


def vectors_total_s(trial: Trial, took: TimeEstimate) -> float | None:
    """Seconds of the whole trial; None where no outcome says what comes with the vectors."""
    options: dict[str, Any] = trial.options
    return None if took.test_s is None else took.epoch_s * options["passes"] + took.test_s


def _time(
    pass_s: float, error: float, basis: str, source: str, used: tuple[str, ...] = ()
) -> TimeEstimate:
    return TimeEstimate(
        epoch_s=pass_s,
        error=error,
        micro_step_s=0.0,
        start_s=None,
        evaluation_s=None,
        test_s=None,
        basis=basis,
        source=source,
        used=used,
    )
