"""Probes and pilots made up for a study, so that its plan holds estimates."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from sagebench.estimate.probe import (
    GraphFacts,
    Probe,
    Sample,
    Spread,
    StepCost,
    cells_between,
    path_of,
    sample_name,
)
from sagebench.files import write_json
from sagebench.grid.expansion import Study
from sagebench.grid.trial import Trial
from sagebench.pilot.records import (
    Pilot,
    deciding_values,
    evaluation_key,
    pilot_key,
    pilots_folder,
    read_pilots,
    step_name,
    write_pilot,
)
from sagebench.records import PeakBytes, Reason, Status

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
        fanout=list(fanout),
        batch_size=batch_size,
        batches=8,
        nodes_per_hop=list(map(spread, nodes)),
        edges_per_hop=list(map(spread, edges)),
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
        for trial in (*trials, *cells_between(trials, PRODUCTS.train_nodes)):
            name = sample_name(trial)
            if name in leave_out:
                continue
            samples[name] = sample(trial.fanout, trial.batch_size)
            for placement in ("device", "host"):
                made = cost(trial, placement)
                steps[step_name(made.values, placement)] = made
        record = Probe(CHECKSUM, PRODUCTS, samples, steps).to_json()
        write_json(path_of(study.results, store), record)


def pilot(
    study: Study,
    step_s: float = 0.5,
    out_of_memory: Collection[str] = (),
    evaluated: Status | None = Status.COMPLETED,
    **about: Any,
) -> None:
    """Write pilots and evaluations of the study's trials on the probes' store.

    out_of_memory: ids of trials whose pilots ended so. evaluated: how evaluations ended; None:
    there are none. about: more of each pilot.
    """
    folder = pilots_folder(study.results, study.site.machine)
    for trial_id, request in study.requests.items():
        trial, known = request.trial, {"trial": request.trial.to_json(), "store_checksum": CHECKSUM}
        key = pilot_key(trial, CHECKSUM)
        if trial_id in out_of_memory:
            ended = {"status": Status.OUT_OF_MEMORY, "reason": Reason(0, "forward", "no memory")}
            write_pilot(folder, Pilot(key=key, **ended, **known))
            continue
        window = {"micro_steps": 20, "step_s": step_s, "step_low_s": step_s, "step_high_s": step_s}
        window |= {"step_mean_s": step_s, "first_batch_s": 1.0, "start_to_first_step_s": 5.0}
        memory = PeakBytes(peak_reserved_bytes=3 << 30, peak_host_private_bytes=1 << 30)
        window |= {"nodes": 1e5, "edges": 1e6, "memory": memory}
        write_pilot(folder, Pilot(key=key, status=Status.COMPLETED, **window, **known, **about))
        if evaluated is not None:
            ended = evaluated is Status.COMPLETED
            times = {"evaluation_s": 4.0, "test_s": 7.0} if ended else {}
            key = evaluation_key(trial, CHECKSUM)
            write_pilot(folder, Pilot(key=key, status=evaluated, **times, **known))


def pilots_in(results: Path | str, machine: str) -> dict[str, Pilot]:
    """Those of micro-steps."""
    found = read_pilots(results, machine)
    return {key: pilot for key, pilot in found.items() if not key.startswith("evaluation-")}


def evaluations_in(results: Path | str, machine: str) -> dict[str, Pilot]:
    """Those of validation and test."""
    found = read_pilots(results, machine)
    return {key: pilot for key, pilot in found.items() if key.startswith("evaluation-")}
