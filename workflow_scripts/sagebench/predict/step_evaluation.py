"""An evaluation over the whole graph (sagebench.training.evaluation) on a CPU: the same for every
engine, in float32 whatever the trial's precision.

Read off torch's own record of allocations, to which tests/test_predict_steps.py holds it.
"""

from __future__ import annotations

from itertools import pairwise

from sagebench.grid.trial import Trial
from sagebench.predict.resident import FLOAT, ID, LOCAL
from sagebench.predict.samples import GraphFacts
from sagebench.predict.step_blocks import ROWS_A_CALL
from sagebench.predict.tape import Tape
from sagebench.predict.work import widths
from sagebench.predict.work_evaluation import narrows

ROWS_PER_CHUNK = 1 << 15  # of sagebench.training.evaluation
EVERY_NODE, CHUNK = "every node", "chunk"


def evaluation_tape(trial: Trial, graph: GraphFacts) -> Tape:
    """Layer by layer: two matrices of [N, hidden_channels], and what a chunk of rows takes. Of a
    rank that is alone; several cut a small graph into smaller chunks."""
    tape, nodes = Tape(), graph.num_nodes
    *hidden, (inputs, outputs) = pairwise(widths(trial, graph))
    matrices = 0
    for layer, (fi, fo) in enumerate(hidden, 1):
        needed = 2 if layer > 1 or narrows(trial, fi, fo) else 1
        for _ in range(needed - matrices):
            tape.take(nodes * fo * FLOAT, EVERY_NODE)
        matrices = needed
        _layer(tape, trial, graph, nodes, fi, fo)
    if narrows(trial, inputs, outputs) and matrices < 2:
        tape.take(nodes * outputs * FLOAT, EVERY_NODE)
    evaluated = max(graph.valid_nodes, graph.test_nodes)
    _layer(tape, trial, graph, evaluated, inputs, outputs, scattered=True)
    tape.drop_all()
    return tape


def _layer(
    tape: Tape,
    trial: Trial,
    graph: GraphFacts,
    nodes: int,
    inputs: int,
    outputs: int,
    scattered: bool = False,
) -> None:
    """A layer of `nodes` nodes: two chunks, for all others lie where these lay. scattered: they are
    no slice of the graph, so their edges are brought together first."""
    rows = min(nodes, ROWS_PER_CHUNK)
    edges = rows * graph.num_edges / graph.num_nodes
    aggregates = inputs
    if narrows(trial, inputs, outputs):
        aggregates = outputs
        tape.drop(tape.take(min(graph.num_nodes, ROWS_PER_CHUNK) * outputs * FLOAT, CHUNK))
    for _ in range(2):
        ends = [tape.take(rows * ID, CHUNK) for _ in range(2)]
        if scattered:
            firsts = [tape.take(rows * ID, CHUNK) for _ in range(3)]
            places, counted = (tape.take(edges * ID, CHUNK) for _ in range(2))
            tape.drop(counted)
            ends.append(tape.take(edges * LOCAL, CHUNK))
            tape.drop(places, *firsts)
        aggregated = tape.take(rows * aggregates * FLOAT, CHUNK)
        if trial.aggregator != "max":  # embedding_bag lists the edges' destinations, twice
            tape.drop(*(tape.take(edges * LOCAL, CHUNK) for _ in range(2)))
        root = tape.take(rows * inputs * FLOAT, CHUNK)
        out = tape.take(rows * outputs * FLOAT, CHUNK)
        if aggregates == inputs and rows >= ROWS_A_CALL:
            tape.drop(*(tape.take(ROWS_A_CALL * outputs * FLOAT, CHUNK) for _ in range(2)))
        tape.drop(aggregated, root, *ends)
        tape.drop(out)
