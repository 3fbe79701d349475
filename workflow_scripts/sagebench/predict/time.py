"""How long a trial will take: counted work over a device's rates, corrected by outcomes."""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sagebench.errors import UserError
from sagebench.grid.trial import Trial
from sagebench.predict import correction
from sagebench.predict.cards import card_name
from sagebench.predict.correction import History, Observation
from sagebench.predict.evaluation import test_s, validation_s
from sagebench.predict.extremes import expected_maximum
from sagebench.predict.phases import Case, Phases, phases_of
from sagebench.predict.probe import Probe
from sagebench.predict.rates import Rates
from sagebench.predict.resident import placement_of
from sagebench.predict.samples import GraphFacts, Sample
from sagebench.predict.work import Counts

NINE_OF_TEN = 1.645
"""standard deviations on either side of the middle"""


@dataclass(frozen=True)
class TimePrediction:
    """epoch_s: of an epoch that is not the first; low_s to high_s holds nine of ten.

    phases: seconds by the names of the outcomes' window (overlap off; of a micro-step, the last
    two of an optimizer step). start_s: until the first step. evaluation_s: of one validation.
    test_s: of the test after training. source: what the figures rest on, in words. used: ids of
    the trials whose outcomes corrected it.
    """

    epoch_s: float
    low_s: float
    high_s: float
    phases: Mapping[str, float]
    steps_per_epoch: int
    start_s: float
    evaluation_s: float
    test_s: float
    source: str
    used: tuple[str, ...] = ()

    def total_s(self, trial: Trial) -> float:
        """Of the whole trial, should it not stop early."""
        evaluations = -(-trial.epochs // trial.evaluate_every_epochs)
        micro_s = sum(self.phases[f"{name}_s"] for name in correction.PHASES[:4])
        return (
            self.start_s
            + trial.epochs * self.epoch_s
            + evaluations * self.evaluation_s
            + self.test_s
            + trial.phase_window_steps * micro_s
        )


def epoch_time(
    trial: Trial,
    sample: Sample,
    graph: GraphFacts,
    rates: Rates,
    history: History | None = None,
    *,
    nodes: int = 1,
    placement: str | None = None,
) -> TimePrediction:
    """nodes: that the ranks are on. placement: `mapped`, `device` or `host`; None: as the trial
    would choose. Raises UserError where the rates lack what the trial needs (a precision)."""
    case = Case(
        trial,
        Counts(
            [spread.mean for spread in sample.nodes_per_hop],
            [spread.mean for spread in sample.edges_per_hop],
        ),
        graph,
        rates,
        placement or placement_of(trial, graph, rates.device_memory_bytes),
        nodes,
        sample.variation,
    )
    corrected = (history or History()).correct(
        correction.same_of(trial, rates.device_name),
        correction.features_of(trial, case.counts.edges, graph.num_features),
    )
    factors = corrected.factors
    phases = phases_of(case).times(factors)
    epoch_s = compose(case, phases) * factors.get("epoch", 1.0)
    error = rates.relative_error if corrected is correction.NONE else corrected.relative_error
    wide = math.exp(NINE_OF_TEN * error)
    source = rates.source
    if corrected.count:
        source += f", corrected by {corrected.count} outcome{'s' * (corrected.count > 1)}"
    return TimePrediction(
        epoch_s=epoch_s,
        low_s=epoch_s / wide,
        high_s=epoch_s * wide,
        phases=phases.to_json(),
        steps_per_epoch=steps_per_epoch(trial, graph),
        start_s=rates.start_s * factors.get("start", 1.0),
        evaluation_s=validation_s(case) * factors.get(evaluation_of(trial), 1.0),
        test_s=test_s(case) * factors.get("test", 1.0),
        source=source,
        used=corrected.used,
    )


def steps_per_epoch(trial: Trial, graph: GraphFacts) -> int:
    return -(-graph.train_nodes // (trial.batch_size * trial.accumulation * trial.ranks))


def compose(case: Case, phases: Phases) -> float:
    """Seconds of an epoch, overlapped as the engine overlaps."""
    trial, graph = case.trial, case.graph
    background, micro = micro_step_s(case, phases)
    steps = steps_per_epoch(trial, graph)
    micro_steps = -(-graph.micro_batches(trial.batch_size) // trial.ranks)
    slowest = expected_maximum(trial.ranks) * math.sqrt(trial.accumulation)
    waiting = slowest * case.variation * micro
    before = 0.0
    if trial.sampling_workers:  # the first batch has nothing to overlap with
        before = background
        if trial.engine != "blocks":
            before += case.rates.loader_start_s * trial.sampling_workers
    at_step_end = waiting + phases.synchronisation_s + phases.optimizer_s
    return before + micro_steps * micro + steps * at_step_end


def micro_step_s(case: Case, phases: Phases) -> tuple[float, float]:
    """Of a micro-step: (what workers do ahead, how long it takes)."""
    trial = case.trial
    background = phases.sampling_s + phases.gather_s
    foreground = phases.forward_s + phases.backward_s
    if trial.engine == "blocks":
        background += phases.copy_s  # on a stream of its own
    else:
        foreground += phases.copy_s  # on the stream of the step
    if case.kept == "device" or not trial.sampling_workers:
        return background, background + foreground  # one GPU does both, or one thread
    longest = max(foreground, background / trial.sampling_workers)
    if trial.device == "cpu" and case.rates.cores:
        ranks = trial.ranks / case.nodes
        busy = ranks * (foreground * trial.threads_per_rank + background)
        longest = max(longest, busy / case.rates.cores)
    return background, longest


def history_of(
    outcomes: Iterable[Mapping[str, Any]], rates: Rates, probes: Iterable[Probe] = ()
) -> History:
    """What these outcomes (as read from outcome.json) say about predictions from these rates.

    probes: of the outcomes' stores, as far as there are any; without, steps count as even.
    """
    by_checksum = {probe.store_checksum: probe for probe in probes}
    observed = []
    for outcome in outcomes:
        probe = by_checksum.get((outcome.get("store") or {}).get("checksum"))
        with contextlib.suppress(UserError):  # the rates lack, say, its precision
            observed.append(observe(outcome, rates, probe))
    return History([observation for observation in observed if observation is not None])


def observe(
    outcome: Mapping[str, Any], rates: Rates, probe: Probe | None = None
) -> Observation | None:
    """Measured over predicted of one outcome; None where it has no timed epoch or no sample, or was
    run on another kind of device than the rates are of. probe: of its store.

    Raises UserError where the rates lack what it needs.
    """
    timing, sample = outcome.get("timing") or {}, outcome.get("sample")
    epoch_s, ranks = timing.get("epoch_median_s"), outcome.get("ranks")
    trial, graph = Trial.from_json(outcome["trial"]), graph_of(outcome)
    if not (epoch_s and sample and ranks and graph) or trial.device != rates.device:
        return None
    if len(sample["edges_per_hop"]) != trial.layers:
        return None
    counts = Counts(sample["nodes_per_hop"], sample["edges_per_hop"])
    if trial.engine == "blocks" and counts.nodes[-1] == 0:
        counts = counts._replace(nodes=[*counts.nodes[:-1], unnumbered(counts, graph)])
    probed = probe.sample_of(trial) if probe else None
    case = Case(
        trial,
        counts,
        graph,
        rates,
        (outcome.get("placement") or {}).get("chosen")
        or placement_of(trial, graph, rates.device_memory_bytes),
        len({rank.get("node") for rank in ranks}),
        probed.variation if probed else 0.0,
    )
    predicted = phases_of(case)
    whole = epoch_s / compose(case, predicted)
    factors = dict.fromkeys(correction.PHASES, whole)
    measured = outcome.get("phases")
    if measured:
        factors = {
            name: measured[f"{name}_s"] / value
            for name in correction.PHASES
            if measured.get(f"{name}_s") and (value := predicted.to_json()[f"{name}_s"])
        }
    ratios = {**factors, "whole": whole, "epoch": epoch_s / compose(case, predicted.times(factors))}
    evaluations = [e["evaluation_s"] for e in outcome.get("epochs") or [] if e.get("evaluation_s")]
    if evaluations:
        ratios[evaluation_of(trial)] = statistics.median(evaluations) / validation_s(case)
    if timing.get("test_s"):
        ratios["test"] = timing["test_s"] / test_s(case)
    if timing.get("start_to_first_step_s"):
        ratios["start"] = timing["start_to_first_step_s"] / rates.start_s
    name = card_name(ranks[0].get("device_name")) or ranks[0].get("cpu_model")
    return Observation(
        trial_id=trial.id,
        same=correction.same_of(trial, name),
        features=correction.features_of(trial, counts.edges, graph.num_features),
        ratios={name: math.log(ratio) for name, ratio in ratios.items()},
    )


def evaluation_of(trial: Trial) -> str:
    """What corrects a validation: one over the whole graph says nothing of a sampled one."""
    return f"{trial.validation} evaluation"


def graph_of(outcome: Mapping[str, Any]) -> GraphFacts | None:
    """The facts of the store that an outcome was run on; None where it does not say all of them."""
    known = outcome.get("store") or {}
    names = [name for name in GraphFacts.__slots__ if name not in ("index_bytes", "feature_bytes")]
    if any(known.get(name) is None for name in names):
        return None
    store = {name: known[name] for name in names}
    nodes, edges = store["num_nodes"], store["num_edges"]
    index_bytes = 8 * (nodes + 1) + (4 if nodes < 1 << 31 else 8) * edges
    return GraphFacts(
        **store, index_bytes=index_bytes, feature_bytes=4 * nodes * store["num_features"]
    )


def unnumbered(counts: Counts, graph: GraphFacts) -> float:
    """An estimate of the last hop's nodes, which engine blocks does without: its edges thrown at
    the nodes that were not found before."""
    left = graph.num_nodes - sum(counts.nodes)
    return left * -math.expm1(-counts.edges[-1] / graph.num_nodes)
