"""Time of a trial, estimated: first a roofline's figure, then measured steps, then outcomes.

A roofline estimate comes of the recorded step and the card's data sheet; it is a model's, with a
wide interval. Where a pilot has timed steps on the site's own devices, an epoch is so many of them.
Outcomes of the same machine take over as they come.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import final

from sagebench.estimate import cards
from sagebench.estimate.cards import GB, OPERATION_S, Card
from sagebench.estimate.memory import FLOAT, NINE_OF_TEN
from sagebench.estimate.probe import GraphFacts, Sample, StepCost
from sagebench.grid.last_hop import table_aggregator
from sagebench.grid.trial import Trial
from sagebench.pilot.records import Pilot
from sagebench.records import Outcome

SAMPLER_DRAW_BYTES, SAMPLER_NODE_BYTES = 600, 60
"""moved by a device's sampler: of an edge, mostly 64-bit hashes; of a node of the graph and hop"""
SAMPLER_OPERATIONS_A_HOP, SAMPLER_OPERATIONS_A_DRAW = 70, 4.5
PASSES = 3
"""of a step: forward, and twice as much backward"""
OUTCOMES_SPREAD = 0.1
"""standard deviation of the logarithm from one run of a configuration to the next, at least; a
judgement, until there are several"""
PILOT_SPREAD, PILOT_SPREAD_OF_RANKS = 0.12, 0.3
"""the same from a pilot to its trial: their epochs differ by 8 % (median of 26 on two cores, where
the same trial again differs by as much, docs/measurements.md); of several ranks a judgement"""
LIKE_SPREAD = 0.2
"""the same from one configuration to another that corrects it"""
A_MODEL, MEASURED_STEPS, OUTCOMES = "a model's", "measured steps", "outcomes"
"""the basis of a time"""


@final
@dataclass(frozen=True)
class TimeEstimate:
    """epoch_s: of an epoch that is not the first; low_s to high_s: 90 % interval. error:
    standard deviation of its logarithm. micro_step_s: of one rank. start_s: until the first step.
    evaluation_s: of one validation. test_s: of the test after training; all three None where nobody
    knows. source: the basis in words. used: ids of the trials whose outcomes it rests on."""

    epoch_s: float
    error: float
    micro_step_s: float
    start_s: float | None
    evaluation_s: float | None
    test_s: float | None
    basis: str
    source: str
    used: tuple[str, ...] = ()

    @property
    def low_s(self) -> float:
        return self.epoch_s / math.exp(NINE_OF_TEN * self.error)

    @property
    def high_s(self) -> float:
        return self.epoch_s * math.exp(NINE_OF_TEN * self.error)

    def total_s(self, trial: Trial) -> float | None:
        """Seconds of the whole trial without early stopping; None if a part is unknown."""
        if self.evaluation_s is None or self.test_s is None:
            return None
        evaluations = -(-trial.epochs // trial.evaluate_every_epochs)
        return (
            (self.start_s or 0.0)
            + trial.epochs * self.epoch_s
            + evaluations * self.evaluation_s
            + self.test_s
            + trial.phase_window_steps * self.micro_step_s
        )


def steps_per_epoch(trial: Trial, graph: GraphFacts) -> int:
    return -(-graph.train_nodes // (trial.batch_size * trial.accumulation * trial.ranks))


def micro_steps_per_epoch(trial: Trial, graph: GraphFacts) -> int:
    """Micro-steps of one rank in an epoch."""
    return -(-graph.micro_batches(trial.batch_size) // trial.ranks)


def roofline(
    trial: Trial, cost: StepCost, sample: Sample, graph: GraphFacts, card: Card, nodes: int
) -> TimeEstimate | None:
    """nodes: of the ranks. None for a precision that the card does not have."""
    step_s = card.device_s(cost.flops, cost.bytes_moved, trial.precision)
    if step_s is None:
        return None
    edges, gathered = sample.edges.mean, sample.nodes.mean
    if table_aggregator(trial):  # the last hop is not sampled; its frontier reads two rows a node
        nodes_per_hop = [spread.mean for spread in sample.nodes_per_hop]
        edges -= sample.edges_per_hop[-1].mean
        gathered += nodes_per_hop[-2] - nodes_per_hop[-1]
    step_s = max(step_s, cost.operations * OPERATION_S)
    if cost.placement == "device":  # the same GPU does both
        moved, operations = float(cost.sampler_bytes), float(cost.sampler_operations)
        if not operations:  # not by kernels
            moved = SAMPLER_DRAW_BYTES * edges
            moved += SAMPLER_NODE_BYTES * graph.num_nodes * (trial.layers - 1)
            draws = sum(max(k, 0) for k in trial.fanout)
            operations = SAMPLER_OPERATIONS_A_HOP * trial.layers + SAMPLER_OPERATIONS_A_DRAW * draws
        micro_s = step_s + max(card.moving_s(moved), operations * OPERATION_S)
    else:
        gathered_bytes = FLOAT * graph.num_features * gathered
        sampling_s = edges / cards.SAMPLED_EDGES_PER_S + gathered_bytes / (GB * 5)
        copy_s = sum(cost.batch_bytes) / (card.pcie_gb_per_s * GB)
        micro_s, workers = step_s + copy_s, trial.sampling_workers
        micro_s = max(micro_s, sampling_s / workers) if workers else micro_s + sampling_s
    epoch_s = micro_steps_per_epoch(trial, graph) * micro_s
    epoch_s += all_reduces_s(trial, cost, graph, card, nodes)
    # Over the full graph every layer reads a row for every edge.
    columns = graph.num_features + (trial.layers - 1) * trial.hidden_channels
    full_s = card.moving_s(FLOAT * graph.num_edges * columns)
    sampled_s = step_s / PASSES / trial.batch_size  # a node
    tested = min(trial.sampled_test_nodes or graph.test_nodes, graph.test_nodes)
    validation_s = full_s if trial.validation == "full" else sampled_s * graph.valid_nodes
    return TimeEstimate(
        epoch_s=epoch_s,
        error=cards.RELATIVE_ERROR,
        micro_step_s=micro_s,
        start_s=cards.START_S,
        evaluation_s=validation_s / trial.ranks,
        test_s=(full_s + sampled_s * tested) / trial.ranks,
        basis=A_MODEL,
        source=f"a recorded step against the data sheet of {card.name}",
    )


def all_reduces_s(trial: Trial, cost: StepCost, graph: GraphFacts, card: Card, nodes: int) -> float:
    """Seconds of an epoch's all-reduces."""
    once_s = card.all_reduce_s(FLOAT * cost.parameters, trial.ranks, nodes)
    return steps_per_epoch(trial, graph) * once_s


def from_pilot(
    trial: Trial,
    pilot: Pilot,
    evaluation: Pilot | None,
    graph: GraphFacts,
    summing_s: float | None,
    modelled: TimeEstimate | None,
) -> TimeEstimate:
    """An epoch as so many measured micro-steps of one rank.

    pilot: a completed one. summing_s: of several ranks on a card for the sum of their gradients,
    which no pilot measures; None: not known, and taken as nothing. modelled: whose validation and
    test stand for those that were not measured.
    """
    assert pilot.first_batch_s is not None and pilot.step_mean_s is not None  # completed
    epoch_s = pilot.first_batch_s + micro_steps_per_epoch(trial, graph) * pilot.step_mean_s
    source, error = MEASURED_STEPS, PILOT_SPREAD
    if trial.ranks == 1:
        epoch_s = pilot.epoch_s or epoch_s
    else:
        source, error = f"{MEASURED_STEPS} of one rank", PILOT_SPREAD_OF_RANKS
        if summing_s is not None:
            epoch_s += summing_s
            source += ", and a model's all-reduce"
    evaluation_s = test_s = None
    if evaluation and evaluation.evaluation_s is not None and evaluation.test_s is not None:
        evaluation_s = evaluation.evaluation_s / trial.ranks
        test_s = evaluation.test_s / trial.ranks
    elif modelled is not None:
        evaluation_s, test_s = modelled.evaluation_s, modelled.test_s
        source += ", and a model's validation and test"
    return TimeEstimate(
        epoch_s=epoch_s,
        error=error,
        micro_step_s=pilot.step_mean_s,
        start_s=pilot.start_to_first_step_s or 0.0,
        evaluation_s=evaluation_s,
        test_s=test_s,
        basis=MEASURED_STEPS,
        source=source,
    )


def of_outcomes(
    trial: Trial, outcomes: Sequence[Outcome], graph: GraphFacts, estimate: TimeEstimate | None
) -> TimeEstimate:
    """Medians of outcomes of the very configuration, all of them with a timed epoch; `estimate` for
    what none of them measured."""
    timings = [one.timing for one in outcomes if one.timing]
    epochs_s = [one.epoch_median_s for one in timings if one.epoch_median_s is not None]
    of_each = [[e.evaluation_s for e in o.epochs if e.evaluation_s is not None] for o in outcomes]

    def middle(name: str, measured: Iterable[float | None]) -> float | None:
        known = [one for one in measured if one is not None]
        return median(known) if known else getattr(estimate, name, None)

    return TimeEstimate(
        epoch_s=median(epochs_s),
        error=max(OUTCOMES_SPREAD, _spread(epochs_s)),
        micro_step_s=median(epochs_s) / micro_steps_per_epoch(trial, graph),
        start_s=middle("start_s", (one.start_to_first_step_s for one in timings)) or 0.0,
        evaluation_s=middle("evaluation_s", map(fmean, filter(None, of_each))),
        test_s=middle("test_s", (one.test_s for one in timings)),
        basis=OUTCOMES,
        source=f"{_outcomes(len(outcomes))} of the same configuration",
        used=tuple(one.trial_id for one in outcomes),
    )


def corrected(estimate: TimeEstimate, ratios: Mapping[str, float]) -> TimeEstimate:
    """The estimate after outcomes of configurations that are alike. ratios: of measured over
    estimated epochs, by trial id."""
    ratio = median(ratios.values())
    return replace(
        estimate,
        epoch_s=ratio * estimate.epoch_s,
        error=max(LIKE_SPREAD, _spread(ratios.values())),
        micro_step_s=ratio * estimate.micro_step_s,
        basis=OUTCOMES,
        source=f"{estimate.source}, times the median ratio of {_outcomes(len(ratios))}",
        used=tuple(ratios),
    )


def _outcomes(count: int) -> str:
    return f"{count} outcome{'s' * (count > 1)}"


def _spread(values: Collection[float]) -> float:
    """Half of the range of the logarithms."""
    return math.log(max(values) / min(values)) / 2
