"""The step of the engine `blocks`: segment aggregation, two products, one fused pass, and back.

With `kernels` it is the CPU's compiled loops in float32; without them torch's operations do the
same, on a GPU and in bfloat16. Read off torch's own record of allocations, to which
tests/test_predict_memory.py holds it.
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


class BlocksStep:
    """rows, edges: those that each layer computes and aggregates, of the layers 1 to L. widths:
    channels, L + 1. gathered: the sample's features are in a matrix of their own. `tape` is the
    result."""

    def __init__(
        self,
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
    ) -> None:
        self.rows, self.edges, self.widths = rows, edges, widths
        self.aggregator, self.dropout, self.bf16 = aggregator, dropout, bf16
        self.kernels, self.cuda, self.gathered = kernels, cuda, gathered
        self.width = BF16 if bf16 else FP32
        self.layers = [_Layer() for _ in rows]
        self.tape = Tape()
        for k in range(len(rows)):
            self._multiply(k)
            if k < len(rows) - 1:
                self._activate(self.layers[k], rows[k], widths[k + 1])
        loss = [self.tape.take(rows[-1] * widths[-1] * FP32, SAVED) for _ in range(3)]
        self._backward(loss[-1])
        self.tape.drop_all()

    def _multiply(self, k: int) -> None:
        """Aggregation and products of the layer k, counted from 0."""
        tape, layer, n = self.tape, self.layers[k], self.rows[k]
        inputs, outputs = self.widths[k], self.widths[k + 1]
        width = self.width if k else FP32
        layer.aggregated = self._aggregate(n * inputs * width, k, width)
        if k:
            layer.root = self.layers[k - 1].activated
        else:
            layer.root = None if self.gathered else tape.take(n * inputs * FP32, SAVED)
            if self.bf16:
                exact = layer.aggregated, layer.root
                layer.aggregated = tape.take(n * inputs * BF16, SAVED)
                layer.root = tape.take(n * inputs * BF16, SAVED)
                tape.drop(*exact)
        if self.bf16:
            layer.weights = tape.take(2 * inputs * outputs * BF16, SAVED)
        layer.out = tape.take(n * outputs * self.width, SAVED)
        if self.kernels and n >= ROWS_A_CALL:
            tape.drop(*(tape.take(ROWS_A_CALL * outputs * FP32, FORWARD) for _ in range(2)))

    def _aggregate(self, size: float, k: int, width: int) -> int:
        if self.aggregator != "max":
            return self._bag(size, self.edges[k], SAVED)
        out = self.tape.take(size, SAVED)
        if not self.kernels:
            edges = min(self.edges[k], EDGES_A_STEP)
            self.tape.drop(self.tape.take(edges * self.widths[k] * width, FORWARD))
        return out

    def _bag(self, size: float, edges: int, name: str) -> int:
        """embedding_bag, which makes two lists of the edges' destinations beside its result."""
        out = self.tape.take(size, name)
        self.tape.drop(*(self.tape.take(edges * INDEX, EDGES) for _ in range(2)))
        return out

    def _activate(self, layer: _Layer, rows: int, outputs: int) -> None:
        """LayerNorm, ReLU and dropout."""
        tape, values = self.tape, rows * outputs
        if self.kernels:
            layer.activated = tape.take(values * FP32, SAVED)
            layer.statistics = tape.take(rows * 2 * FP32, SAVED)
            return
        normal = tape.take(values * self.width, FORWARD)
        layer.rectified = layer.activated = tape.take(values * self.width, SAVED)
        tape.drop(normal)
        if self.dropout:
            layer.mask = self._mask(values)
            layer.activated = tape.take(values * self.width, SAVED)

    def _mask(self, values: int) -> int:
        """sagebench.model.dropout_mask in torch's integer operations: 32-bit words, two values
        each, then a byte a value."""
        tape = self.tape
        words = [tape.take(values * INDEX / 2, FORWARD) for _ in range(4)]
        tape.drop(words.pop(), words.pop(), words.pop())
        halves = []
        for _ in range(2):
            half = tape.take(values * INDEX / 2, FORWARD)
            halves.append(tape.take(values / 2, FORWARD))
            tape.drop(half)
        kept = tape.take(values, FORWARD)
        tape.drop(*words, *halves)
        exact = tape.take(values * FP32, FORWARD)
        mask = tape.take(values * FP32, SAVED)
        tape.drop(exact, kept)
        if not self.bf16:
            return mask
        narrow = tape.take(values * BF16, SAVED)
        tape.drop(mask)
        return narrow

    def _backward(self, gradient: int) -> None:
        tape = self.tape
        for k in reversed(range(len(self.rows))):
            layer, before = self.layers[k], self.layers[k - 1] if k else None
            # The maxima have the last use of what they were found in; or the ReLU of its result.
            keeps = self.aggregator == "max" and before is not None
            shared = before is not None and layer.root == before.rectified
            of_both = self._products_backward(k, gradient, None if keeps or shared else layer.root)
            tape.drop(layer.weights, None if keeps else layer.aggregated)
            if before is None:
                return
            upstream = self._aggregate_backward(k)
            tape.drop(*of_both)
            if keeps:
                tape.drop(layer.aggregated, None if shared else layer.root)
            gradient = self._activate_backward(k - 1, upstream)

    def _products_backward(
        self, k: int, gradient: int, root: int | None
    ) -> tuple[int | None, int | None]:
        """Gradients of the root and of the aggregated, and of both weights. root: what is then
        used no more."""
        tape = self.tape
        size = self.rows[k] * self.widths[k] * self.width
        weights = self.widths[k] * self.widths[k + 1] * FP32
        first = tape.take(size, GRADIENTS) if k else None
        if self.kernels:  # all in one
            second = tape.take(size, GRADIENTS) if k else None
            tape.take(weights, WEIGHTS)
            tape.take(weights, WEIGHTS)
            tape.drop(gradient, root)
        else:
            tape.take(weights, WEIGHTS)
            tape.drop(root)
            second = tape.take(size, GRADIENTS) if k else None
            tape.take(weights, WEIGHTS)
            tape.drop(gradient)
        return first, second

    def _aggregate_backward(self, k: int) -> int:
        """The gradient of the layer before, from the edges grouped by source."""
        tape, edges, inputs = self.tape, self.edges[k], self.widths[k]
        size, sources = self.rows[k] * inputs * self.width, self.rows[k - 1]
        if self.aggregator != "max":
            regrouped = self._regrouped(edges, sources)
            upstream = self._bag(sources * inputs * self.width, edges, GRADIENTS)
            tape.drop(*regrouped)
            return upstream
        if self.kernels:
            shares = tape.take(size, GRADIENTS)
            regrouped = self._regrouped(edges, sources)
            upstream = tape.take(sources * inputs * self.width, GRADIENTS)
            tape.drop(shares, *regrouped)
            return upstream
        ties = tape.take(size, GRADIENTS)
        upstream = tape.take(sources * inputs * self.width, GRADIENTS)
        shares = tape.take(size, GRADIENTS)
        some = min(edges, EDGES_A_STEP) * inputs
        ends = [tape.take(some * self.width, EDGES) for _ in range(3)]
        equal = tape.take(some, EDGES)
        tape.drop(equal, ties, shares, *ends)
        return upstream

    def _regrouped(self, edges: int, sources: int) -> list[int]:
        """The edges by source and their weights. CUDA sorts them: keys and order, twice over."""
        tape = self.tape
        if not self.cuda:
            sizes = sources * INDEX, edges * INDEX, edges * FP32
            return [tape.take(size, EDGES) for size in sizes]
        destinations = tape.take(edges * INDEX, EDGES)
        ordered = [tape.take(edges * size, EDGES) for size in (INDEX, WIDE_INDEX)]
        tape.drop(tape.take(edges * (INDEX + WIDE_INDEX), EDGES))
        kept = tape.take(edges * INDEX, EDGES)
        tape.drop(destinations, *ordered)
        return [kept, tape.take(sources * WIDE_INDEX, EDGES), tape.take(edges * FP32, EDGES)]

    def _activate_backward(self, k: int, upstream: int) -> int | None:
        tape, layer = self.tape, self.layers[k]
        if self.kernels:  # in place of what was normalised
            tape.drop(upstream, layer.statistics)
            return layer.out
        for saved in (layer.mask, layer.rectified, layer.out):
            if saved is not None:
                size = self.rows[k] * self.widths[k + 1] * self.width
                gradient = tape.take(size, GRADIENTS)
                tape.drop(upstream, saved)
                upstream = gradient
        return upstream
