"""Probes made up for a study, so that its plan holds estimates."""

from __future__ import annotations

from sagebench.estimate.costs import StepCost, deciding_values, step_name
from sagebench.estimate.probe import PLACEMENTS, Probe, path_of
from sagebench.estimate.samples import GraphFacts, Sample, Spread, sample_name
from sagebench.files import write_json
from sagebench.grid.expansion import Study
from sagebench.grid.trial import Trial

PRODUCTS = GraphFacts(
    num_nodes=2_449_029,
    num_edges=123_718_024,
    num_features=100,
    num_classes=47,
    train_nodes=196_615,
    valid_nodes=39_323,
    test_nodes=2_213_091,
    index_bytes=8 * 2_449_030 + 4 * 123_718_024,
    feature_bytes=400 * 2_449_029,
)
CHECKSUM = "c0ffee" * 10


def sample(fanout: tuple[int, ...], batch_size: int) -> Sample:
    """Every hop takes all of its neighbors and finds no node twice: at most half the graph."""
    nodes, edges = [float(batch_size)], []
    for hop in fanout:
        edges.append(nodes[-1] * hop)
        nodes.append(min(edges[-1], (PRODUCTS.num_nodes / 2 - sum(nodes)) / 2))
    return Sample(
        fanout=fanout,
        batch_size=batch_size,
        batches=8,
        nodes_per_hop=tuple(map(spread, nodes)),
        edges_per_hop=tuple(map(spread, edges)),
        nodes=spread(sum(nodes)),
        edges=spread(sum(edges)),
    )


def spread(mean: float) -> Spread:
    return Spread(mean, mean, 0.02 * mean)


def cost(trial: Trial, placement: str) -> StepCost:
    """A step whose every edge takes as much memory as a row of the hidden layers."""
    found = sample(trial.fanout, trial.batch_size)
    live = round(4 * trial.hidden_channels * found.edges.mean)
    return StepCost(
        values=deciding_values(trial),
        placement=placement,
        parameters=500_000,
        flops=10 * live,
        bytes_moved=3 * live,
        operations=1000,
        batch_bytes=[live // 20],
        trace=[],
        largest_z=3.5,
        typical_live_bytes=live,
        live_bytes=round(1.07 * live),
        held_bytes=round(1.3 * live),
        held_std_bytes=round(0.02 * live),
        needed_bytes=round(1.1 * live),
        beside_bytes=0,
        typical_beside_bytes=0,
    )


def probe(study: Study, leave_out: tuple[str, ...] = ()) -> None:
    """Write the probes of the study's stores; `leave_out`: names of samples without."""
    for store in study.stores:
        trials = [r.trial for r in study.requests.values() if r.store == store]
        samples, steps = {}, {}
        for trial in trials:
            name = sample_name(trial.fanout, trial.batch_size)
            if name in leave_out:
                continue
            samples[name] = sample(trial.fanout, trial.batch_size)
            for placement in PLACEMENTS:
                made = cost(trial, placement)
                steps[step_name(made.values, placement)] = made
        record = Probe(CHECKSUM, PRODUCTS, samples, steps).to_json()
        write_json(path_of(study.results, store), record)
