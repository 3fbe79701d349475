"""The step of the engine `blocks`: segment aggregation, two products, one fused pass, and back.

`kernels`: the compiled loops of the CPU in float32; without them torch's operations do the same,
on a GPU and in bfloat16. Read off torch's own record of allocations, as `step_pyg` is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sagebench.predict.step_pyg import BF16, FORWARD, FP32, GRADIENTS, SAVED, WEIGHTS
from sagebench.predict.tape import Tape

EDGES = "edges regrouped"
INDEX, WIDE_INDEX = 4, 8
ROWS_A_CALL = 2048  # of sagebench.model.linear
EDGES_A_STEP = 1 << 16  # of sagebench.model.segment


@dataclass
class _Layer:
    """What one layer leaves for its backward pass."""

    aggregated: int | None = None
    root: int | None = None
    weights: int | None = None
    out: int | None = None
    statistics: int | None = None
    rectified: int | None = None
    mask: int | None = None
    activated: int | None = None


def blocks_step(
    rows: Sequence[int],
    edges: Sequence[int],
    widths: Sequence[int],
    *,
    aggregator: str,
    dropout: bool,
    bf16: bool,
    kernels: bool,
    cuda: bool,
    gathered: bool,
) -> Tape:
    """rows, edges: those that each layer computes and aggregates, of the layers 1 to L. widths:
    channels, L + 1. gathered: the sample's features are in a matrix of their own."""
    tape = Tape()
    layers: list[_Layer] = []
    width = BF16 if bf16 else FP32
    for k, (n, e) in enumerate(zip(rows, edges, strict=True)):
        inputs, outputs = widths[k], widths[k + 1]
        layer = _Layer()
        layers.append(layer)
        own = width if k else FP32
        if aggregator == "max" and not kernels:
            layer.aggregated = tape.take(n * inputs * own, SAVED)
            tape.drop(tape.take(min(e, EDGES_A_STEP) * inputs * own, FORWARD))
        else:
            layer.aggregated = _bag(tape, n * inputs * own, e, aggregator, SAVED)
        if k:
            layer.root = layers[k - 1].activated
        else:
            layer.root = None if gathered else tape.take(n * inputs * FP32, SAVED)
            if bf16:
                exact = layer.aggregated, layer.root
                layer.aggregated = tape.take(n * inputs * BF16, SAVED)
                layer.root = tape.take(n * inputs * BF16, SAVED)
                tape.drop(*exact)
        if bf16:
            layer.weights = tape.take(2 * inputs * outputs * BF16, SAVED)
        layer.out = tape.take(n * outputs * width, SAVED)
        if kernels and n >= ROWS_A_CALL:
            tape.drop(*(tape.take(ROWS_A_CALL * outputs * width, FORWARD) for _ in range(2)))
        if k < len(rows) - 1:
            _activate(tape, layer, n * outputs, n, width, dropout=dropout, kernels=kernels)
    loss = [tape.take(rows[-1] * widths[-1] * FP32, SAVED) for _ in range(3)]

    gradient = loss.pop()
    for k in reversed(range(len(rows))):
        n, e, inputs = rows[k], edges[k], widths[k]
        layer, before = layers[k], layers[k - 1] if k else None
        # Of both, the maxima's backward pass has the last use, or the ReLU's.
        keeps = aggregator == "max" and before is not None
        shared = before is not None and layer.root == before.rectified
        of_root = of_aggregated = None
        if k:
            of_aggregated = tape.take(n * inputs * width, GRADIENTS)
        if k and kernels:
            of_root = tape.take(n * inputs * width, GRADIENTS)
        tape.take(inputs * widths[k + 1] * FP32, WEIGHTS)
        if kernels:
            tape.take(inputs * widths[k + 1] * FP32, WEIGHTS)
            tape.drop(gradient)
        if not keeps and not shared:
            tape.drop(layer.root)
        if not kernels:
            of_root = tape.take(n * inputs * width, GRADIENTS) if k else None
            tape.take(inputs * widths[k + 1] * FP32, WEIGHTS)
            tape.drop(gradient)
        tape.drop(layer.weights, None if keeps else layer.aggregated)
        if before is None:
            break
        values = rows[k - 1] * inputs
        if keeps and not kernels:
            upstream = _plain_max_backward(
                tape, n * inputs, values, min(e, EDGES_A_STEP), inputs, width
            )
        elif keeps:
            shares = tape.take(n * inputs * width, GRADIENTS)
            regrouped = _regrouped(tape, e, rows[k - 1], cuda=cuda)
            upstream = tape.take(values * width, GRADIENTS)
            tape.drop(shares, *regrouped)
        else:
            regrouped = _regrouped(tape, e, rows[k - 1], cuda=cuda)
            upstream = _bag(tape, values * width, e, "sum", GRADIENTS)
            tape.drop(*regrouped)
        tape.drop(of_aggregated, of_root)
        if keeps:
            tape.drop(layer.aggregated, None if shared else layer.root)
        if kernels:  # the gradient takes the place of what was normalised
            tape.drop(upstream, before.statistics)
            gradient = before.out
            continue
        for saved in (before.mask, before.rectified, before.out):
            if saved is not None:
                gradient = tape.take(values * width, GRADIENTS)
                tape.drop(upstream, saved)
                upstream = gradient
    tape.drop_all()
    return tape


def _bag(tape: Tape, size: float, edges: int, aggregator: str, name: str) -> int:
    """embedding_bag, which makes two lists of the edges' destinations beside its result."""
    out = tape.take(size, name)
    if aggregator != "max":
        tape.drop(*(tape.take(edges * INDEX, EDGES) for _ in range(2)))
    return out


def _activate(
    tape: Tape, layer: _Layer, values: int, rows: int, width: int, *, dropout: bool, kernels: bool
) -> None:
    """LayerNorm, ReLU and dropout."""
    if kernels:
        layer.activated = tape.take(values * width, SAVED)
        layer.statistics = tape.take(rows * 2 * FP32, SAVED)
        return
    normal = tape.take(values * width, FORWARD)
    layer.rectified = layer.activated = tape.take(values * width, SAVED)
    tape.drop(normal)
    if not dropout:
        return
    words = [tape.take(values * INDEX / 2, FORWARD) for _ in range(4)]
    tape.drop(words.pop())
    halves = tape.take(values * INDEX, FORWARD)
    tape.drop(words.pop(), words.pop())
    kept = tape.take(values, FORWARD)
    tape.drop(*words, halves)
    exact = tape.take(values * FP32, FORWARD)
    layer.mask = tape.take(values * FP32, SAVED)
    tape.drop(exact, kept)
    if width < FP32:
        layer.mask, exact = tape.take(values * width, SAVED), layer.mask
        tape.drop(exact)
    layer.activated = tape.take(values * width, SAVED)


def _regrouped(tape: Tape, edges: int, sources: int, *, cuda: bool) -> list[int]:
    """The edges by source and their weights. CUDA sorts them: keys and order, twice over."""
    if cuda:
        destinations = tape.take(edges * INDEX, EDGES)
        ordered = [tape.take(edges * size, EDGES) for size in (INDEX, WIDE_INDEX)]
        scratch = tape.take(edges * (INDEX + WIDE_INDEX), EDGES)
        tape.drop(scratch)
        kept = [tape.take(edges * INDEX, EDGES)]
        tape.drop(destinations, *ordered)
        kept.append(tape.take(sources * WIDE_INDEX, EDGES))
    else:
        kept = [tape.take(size * INDEX, EDGES) for size in (sources, edges)]
    kept.append(tape.take(edges * FP32, EDGES))
    return kept


def _plain_max_backward(
    tape: Tape, values: int, source_values: int, edges: int, inputs: int, width: int
) -> int:
    """Gathered rows of both ends, as many edges at a time as torch's own loop takes."""
    ties = tape.take(values * width, GRADIENTS)
    result = tape.take(source_values * width, GRADIENTS)
    shares = tape.take(values * width, GRADIENTS)
    gathered = [tape.take(edges * inputs * width, EDGES) for _ in range(3)]
    equal = tape.take(edges * inputs, EDGES)
    tape.drop(equal, ties, shares, *gathered)
    return result
