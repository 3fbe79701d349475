"""The work of engine `blocks`."""

from __future__ import annotations

from sagebench.grid.trial import Trial
from sagebench.predict.samples import GraphFacts
from sagebench.predict.work import (
    FLOAT,
    INDEX,
    Counts,
    MicroStep,
    Use,
    count_cpu_sampler,
    count_operations,
    path_of,
    product,
    stream,
    widths,
)

DRAW_BYTES = 600
"""of the tensor sampler's intermediates an edge; most are 64-bit hashes"""
NUMBERING_BYTES = 60
"""of the tensor sampler a node of the graph and hop"""


def count_blocks(
    trial: Trial, counts: Counts, graph: GraphFacts, placement: str, step: MicroStep
) -> None:
    sizes, layers = widths(trial, graph), trial.layers
    path = path_of(trial)
    size = 2 if trial.precision == "bf16" else FLOAT
    products = f"products_{trial.precision}"
    onward = f"layer_{products}" if path == "fused" else products
    _count_block_sampling(trial, counts, graph, placement, step)
    count_operations(trial, step)
    for layer in range(1, layers + 1):
        fi, fo, first = sizes[layer - 1], sizes[layer], layer == 1
        rows, sources, edges = counts.rows(layer), counts.rows(layer - 1), counts.edges_of(layer)
        read = FLOAT if first else size  # features are float32 in any case
        whole_graph = first and placement != "host"
        span = fi * read * (graph.num_nodes if whole_graph else sources)
        _count_segment(trial, path, rows, edges, fi * read, span, step.forward)
        if first:
            step.forward.append(Use("gather", 2 * rows * fi * read, span))
            if size != FLOAT:
                step.forward.append(stream(2 * rows * fi * (FLOAT + size)))
        step.forward += 2 * [product(onward, rows, fi, fo, size)]
        step.backward += 2 * [product(products, fo, rows, fi, size)]
        step.backward.append(stream(rows * fo * size))  # of the bias
        if layer < layers:
            _count_activation(trial, path, rows, fo, size, step)
        if not first:
            step.backward += 2 * [product(onward, rows, fo, fi, size)]
            _count_segment_backward(
                trial, path, rows, sources, edges, fi * size, span, step.backward
            )
            step.backward.append(stream(3 * rows * fi * size))  # the roots' gradient is added


def _count_segment(
    trial: Trial, path: str, rows: float, edges: float, row: float, span: float, uses: list[Use]
) -> None:
    """row: bytes of one source's row."""
    if trial.aggregator == "max" and path != "fused":  # no kernel: gathered, then scattered
        uses += [
            Use("gather", 2 * edges * row, span),
            Use("scatter", (edges + 2 * rows) * row, rows * row),
        ]
    else:
        uses.append(Use("segment", (edges + rows) * row, span))


def _count_segment_backward(
    trial: Trial,
    path: str,
    rows: float,
    sources: float,
    edges: float,
    row: float,
    span: float,
    uses: list[Use],
) -> None:
    on_cpu = trial.device == "cpu"
    # A GPU sorts 8-byte keys with 8-byte positions, four times over both.
    regroup = Use("regroup", edges, FLOAT * edges) if on_cpu else stream(edges * 4 * 4 * INDEX)
    if trial.aggregator != "max":
        uses += [regroup, Use("segment", (edges + sources) * row, rows * row)]
    elif path == "fused":  # the ties are counted, then shared out
        uses += [
            Use("segment", (edges + rows) * row, span),
            regroup,
            Use("segment", (2 * edges + 2 * sources) * row, rows * row),
        ]
    else:
        uses += [
            Use("gather", 4 * edges * row, span),
            Use("spread", 3 * (edges + rows) * row, rows * row),
            Use("scatter", (edges + 2 * rows) * row, rows * row),
            Use("scatter_random", 3 * edges * row, span),
            stream(5 * edges * row),
        ]


def _count_activation(
    trial: Trial, path: str, rows: float, width: int, size: int, step: MicroStep
) -> None:
    """LayerNorm, ReLU and dropout of engine blocks."""
    values = rows * width
    if path == "fused" or (path == "compiled" and trial.device == "cpu"):
        step.forward.append(Use("activation", values, 2 * values * size))
        step.backward.append(Use("activation_backward", values, 3 * values * size))
        return
    if path == "compiled":
        step.forward.append(stream(2 * values * size))
        step.backward.append(stream(5 * values * size))
        return
    step.forward += [Use("norm", 2 * values * size, 2 * values * size), stream(2 * values * size)]
    step.backward += [
        stream(3 * values * size),
        Use("norm", 3 * values * size, 3 * values * size),
    ]
    if trial.dropout:
        # 20 passes over 32-bit words that hash two columns each, then comparison and product.
        mask = 75 * values
        step.forward += [stream(mask), stream(values * (2 + 4 * size))]
        step.backward.append(stream(3 * values * size))


def _count_block_sampling(
    trial: Trial, counts: Counts, graph: GraphFacts, placement: str, step: MicroStep
) -> None:
    edges, inner = sum(counts.edges), sum(counts.edges[:-1])
    hops = trial.layers
    if placement == "device":
        draws = sum(70 + 4.5 * max(k, 0) for k in trial.fanout)
        step.sampling += [
            stream(DRAW_BYTES * edges),
            stream(NUMBERING_BYTES * graph.num_nodes * (hops - 1)),
            Use("operations_blocks", draws),
        ]
        return
    host = placement == "host"
    count_cpu_sampler(graph, edges, edges if host else inner, hops if host else hops - 1, step)
    if host:
        features = FLOAT * graph.num_features * sum(counts.nodes)
        rows = counts.rows(1)
        step.gather.append(Use("gather", 2 * features, graph.feature_bytes))
        step.copy.append(
            Use("copy", features + INDEX * sum(counts.nodes) + INDEX * rows + FLOAT * edges)
        )
