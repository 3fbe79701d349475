"""The work of PyG's engines, `reference` and `trimmed`."""

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
    product,
    stream,
    widths,
)

COO_BYTES = 72
"""an edge: PyG's int64 edge_index made from a sample's rows"""


def count_pyg(trial: Trial, counts: Counts, graph: GraphFacts, step: MicroStep) -> None:
    sizes, trimmed = widths(trial, graph), trial.engine == "trimmed"
    products = f"products_{trial.precision}"
    size = 2 if trial.precision == "bf16" else FLOAT
    nodes, edges = sum(counts.nodes), sum(counts.edges)
    if trial.sampler == "pyg_lib":
        step.sampling.append(Use("pyg_lib_edges", edges))
    else:
        count_cpu_sampler(graph, edges, edges, trial.layers, step)
        step.sampling.append(stream(COO_BYTES * edges))
    features = FLOAT * graph.num_features * nodes
    step.gather.append(Use("gather", 2 * features, graph.feature_bytes))
    if trial.device != "cpu":
        step.copy.append(Use("copy", features + 2 * INDEX * edges))
    count_operations(trial, step)
    for layer in range(1, trial.layers + 1):
        fi, fo, first = sizes[layer - 1], sizes[layer], layer == 1
        rows = counts.rows(layer - 1) if trimmed else nodes
        taken = counts.edges_of(layer) if trimmed else edges
        into, out = rows * fi * FLOAT, rows * fo * FLOAT
        message = taken * fi * FLOAT
        targets = counts.destinations(trial.layers - layer + 1 if trimmed else trial.layers)
        grouped = targets * fi * FLOAT
        step.forward += [
            Use("gather", 2 * message, into),
            stream(into),  # zeros to add to
            Use("scatter", message + 2 * grouped, into),
        ]
        if trial.aggregator == "mean":
            step.forward.append(stream(2 * into + 30 * taken))
        step.forward += 2 * [product(products, rows, fi, fo, size)]
        step.forward.append(stream(3 * out))  # the two products are added
        if size != FLOAT:  # autocast converts what goes into products and what comes out
            step.forward.append(stream(2 * rows * fi * (FLOAT + size)))
            step.backward.append(stream(2 * rows * (fi + fo) * (FLOAT + size)))
        step.backward += 2 * [product(products, fo, rows, fi, size)]
        step.backward.append(stream(out))  # of the bias
        if layer < trial.layers:
            _count_pyg_activation(trial, out, rows * fo, step)
        if first:
            continue
        step.backward += 2 * [product(products, rows, fo, fi, size)]
        if trial.aggregator == "mean":
            step.backward.append(stream(2 * into))
        if trial.aggregator == "max":  # who reached the maximum, and with how many others
            step.backward += [
                Use("spread", message + grouped, into),
                Use("scatter", message + 2 * grouped, into),
                stream(13 * message),
            ]
        step.backward += [
            Use("spread", message + grouped, into),
            stream(into),  # zeros
            Use("scatter_random", 3 * message, into),
            stream(3 * into),  # the two paths' gradients are added
        ]
        if trimmed:  # a slice's gradient is padded to the layer before
            step.backward.append(stream(FLOAT * fi * (counts.rows(layer - 2) + 2 * rows)))


def _count_pyg_activation(trial: Trial, out: float, values: float, step: MicroStep) -> None:
    on_cpu = trial.device == "cpu"
    step.forward += [Use("norm", 2 * out, 2 * out), stream(2 * out)]
    step.backward += [stream(3 * out), Use("norm", (3 if on_cpu else 5) * out, 3 * out)]
    if trial.dropout:
        if on_cpu:
            step.forward.append(Use("dropout", values, 3 * out))
            step.backward.append(stream(3 * out))
        else:  # one kernel each way, and a byte a value for the mask
            step.forward.append(stream(2 * out + values))
            step.backward.append(stream(2 * out + values))
