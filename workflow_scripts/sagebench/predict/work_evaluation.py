"""The work of an evaluation over the whole graph (sagebench.training.evaluation)."""

from __future__ import annotations

from sagebench.grid.trial import Trial
from sagebench.predict.samples import GraphFacts
from sagebench.predict.work import FLOAT, Use, product, stream, widths


def full_evaluation(
    trial: Trial, graph: GraphFacts, nodes: int, resident: bool
) -> tuple[list[Use], list[Use]]:
    """(of the host, of the device), of all ranks together: every layer over the whole graph, the
    last over `nodes` alone. resident: graph and features are where is computed."""
    sizes = widths(trial, graph)
    # In float32, whatever the trial's precision.
    products = "products_fp32" if trial.device == "cuda" else "layer_products_fp32"
    host: list[Use] = []
    device: list[Use] = []
    for layer in range(1, trial.layers + 1):
        fi, fo, last = sizes[layer - 1], sizes[layer], layer == trial.layers
        rows = nodes if last else graph.num_nodes
        edges = graph.num_edges * rows / graph.num_nodes
        multiplied_first = narrows(trial, fi, fo)
        row = FLOAT * (fo if multiplied_first else fi)
        away = layer == 1 and not resident
        (host if away and not multiplied_first else device).append(
            Use("segment", (edges + rows) * row, graph.num_nodes * row)
        )
        if not resident:
            device.append(Use("copy", FLOAT * (edges + (2 * rows * fi if away else 0))))
        device += [
            Use("gather", 2 * rows * fi * FLOAT, graph.num_nodes * fi * FLOAT),
            product(products, graph.num_nodes if multiplied_first else rows, fi, fo, FLOAT),
            product(products, rows, fi, fo, FLOAT),
        ]
        if not last:
            device += _activation(trial, rows * fo)
            device.append(stream(2 * rows * fo * FLOAT))  # copied to where it is kept
    return host, device


def narrows(trial: Trial, inputs: int, outputs: int) -> bool:
    """Whether an evaluation multiplies by a layer's weights before it aggregates."""
    return outputs < inputs and trial.aggregator != "max"


def shared_bytes(trial: Trial, graph: GraphFacts) -> float:
    """What the ranks of an evaluation give each other: every hidden layer's output."""
    return FLOAT * graph.num_nodes * trial.hidden_channels * (trial.layers - 1)


def _activation(trial: Trial, values: float) -> list[Use]:
    if trial.device == "cpu":
        return [Use("activation", values, 2 * values * FLOAT)]
    moved = 2 * values * FLOAT
    return [Use("norm", moved, moved), stream(moved)]
