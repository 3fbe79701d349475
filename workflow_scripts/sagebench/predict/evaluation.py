"""How long validation and test take: every neighbor of every node, or the trial's own sampling."""

from __future__ import annotations

import math
from dataclasses import replace

from sagebench.predict.phases import Case, phases_of
from sagebench.predict.work import Counts
from sagebench.predict.work_evaluation import full_evaluation, shared_bytes

SAMPLED_BATCH = 1024
"""sagebench.training.evaluation.SAMPLED_BATCH_SIZE, which takes torch to import"""


def validation_s(case: Case) -> float:
    """Of one validation, by the trial's method."""
    evaluated = case.graph.valid_nodes
    if case.trial.validation == "full":
        return full_s(case, evaluated)
    return sampled_s(case, evaluated)


def test_s(case: Case) -> float:
    """Of the test: both methods."""
    return full_s(case, case.graph.test_nodes) + sampled_s(case, case.graph.test_nodes)


def full_s(case: Case, evaluated: int) -> float:
    trial, rates = case.trial, case.rates
    host, device = full_evaluation(trial, case.graph, evaluated, case.kept != "host")
    seconds = rates.seconds(host, trial.threads_per_rank)
    seconds += rates.seconds(device, case.device_threads)
    if trial.ranks == 1:
        return seconds
    return seconds / trial.ranks + shared_bytes(trial, case.graph) / case.network.bytes_per_s


def sampled_s(case: Case, evaluated: int) -> float:
    """Nothing overlaps: sampled, loaded and computed batch by batch, the batches shared out. Every
    engine's model is evaluated as engine blocks computes it, in float32."""
    factor = min(SAMPLED_BATCH, evaluated) / case.trial.batch_size
    counts = enlarged(case.counts, factor, case.graph.num_nodes)
    trial = replace(case.trial, engine="blocks", sampler="sagebench", precision="fp32", dropout=0.0)
    phases = phases_of(replace(case, counts=counts, trial=trial))
    each = phases.sampling_s + phases.gather_s + phases.copy_s + phases.forward_s
    return math.ceil(-(-evaluated // SAMPLED_BATCH) / case.trial.ranks) * each


def enlarged(counts: Counts, factor: float, num_nodes: int) -> Counts:
    """The sample of `factor` times the seeds, as if of so many independent samples together: a
    node in a share p of one is in 1 - (1 - p)^factor. A hop's edges go with the nodes expanded."""
    reached = within = 0.0
    nodes: list[float] = []
    for count in counts.nodes:
        within += count
        union = num_nodes * (1 - (1 - min(within / num_nodes, 1.0)) ** factor)
        nodes.append(union - reached)
        reached = union
    edges = [
        edge * (more / few if few else 0.0)
        for edge, more, few in zip(counts.edges, nodes[:-1], counts.nodes[:-1], strict=True)
    ]
    return Counts(nodes, edges)
