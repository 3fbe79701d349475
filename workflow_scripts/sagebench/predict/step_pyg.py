"""The step of the engines `reference` and `trimmed`: PyG's SAGEConv, as autograd runs it.

Read off torch's own record of allocations, to which tests/test_predict_memory.py holds it. On CUDA
two things differ: dropout keeps a mask of one byte a value, and under autocast LayerNorm computes
in float32, and so does what follows up to the next products.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sagebench.predict.tape import Tape

SAVED, FORWARD = "saved activations", "forward buffers"
MESSAGES = "messages"
GRADIENTS, WEIGHTS = "gradients of activations", "gradients of weights"
FP32, BF16 = 4, 2
"""bytes of a value"""


@dataclass
class _Layer:
    """What one layer leaves for its backward pass. maxima: what `max` keeps to find them again."""

    aggregated: int | None = None
    root: int | None = None
    maxima: tuple[int, ...] = ()
    normalised: int | None = None
    rectified: int | None = None
    mask: int | None = None


class PygStep:
    """rows, edges: those that each layer reads, of the layers 1 to L. widths: channels, L + 1.
    batch_bytes: of the sample itself, where it takes this memory. `tape` is the result."""

    def __init__(
        self,
        rows: Sequence[int],
        edges: Sequence[int],
        widths: Sequence[int],
        *,
        seeds: int,
        batch_bytes: float,
        aggregator: str,
        dropout: bool,
        bf16: bool,
        cuda: bool,
    ) -> None:
        self.rows, self.edges, self.widths = rows, edges, widths
        self.aggregator, self.dropout, self.cuda = aggregator, dropout, cuda
        self.product = BF16 if bf16 else FP32
        self.hidden = FP32 if cuda else self.product  # between LayerNorm and the next products
        self.layers = [_Layer() for _ in rows]
        self.tape = Tape()
        self.tape.take(batch_bytes, "samples")
        self._forward()
        loss = [self.tape.take(seeds * widths[-1] * FP32, SAVED) for _ in range(3)]
        gradient = self.tape.take(rows[-1] * widths[-1] * self.product, GRADIENTS)
        self.tape.drop(*loss)
        self._backward(gradient)
        self.tape.drop_all()

    def _forward(self) -> None:
        x = None  # the sample's own features
        for k, n in enumerate(self.rows):
            out = self._convolve(k, x)
            if k == len(self.rows) - 1:
                self.tape.drop(out)
            else:
                x = self._activate(self.layers[k], out, n * self.widths[k + 1])

    def _convolve(self, k: int, x: int | None) -> int:
        """SAGEConv of the layer k, counted from 0; returns its output."""
        tape, layer = self.tape, self.layers[k]
        width = self.hidden if k else FP32
        values, outputs = self.rows[k] * self.widths[k], self.rows[k] * self.widths[k + 1]
        messages = tape.take(self.edges[k] * self.widths[k] * width, MESSAGES)
        aggregated = tape.take(values * width, SAVED)
        if self.aggregator == "mean":
            total, aggregated = aggregated, tape.take(values * width, SAVED)
            tape.drop(total)
        if self.aggregator == "max" and k:
            layer.maxima = messages, tape.take(values * width, SAVED), aggregated
        else:
            tape.drop(messages)
        layer.aggregated, layer.root = aggregated, x
        if self.product < width:
            layer.aggregated = tape.take(values * self.product, SAVED)
        left = tape.take(outputs * self.product, FORWARD)
        if self.product < width:
            tape.drop(aggregated if aggregated not in layer.maxima else None)
            layer.root = tape.take(values * self.product, SAVED)
        right = tape.take(outputs * self.product, FORWARD)
        out = tape.take(outputs * self.product, SAVED)
        tape.drop(right, left)
        if self.product < width and k and x != self.layers[k - 1].rectified:
            tape.drop(x)
        return out

    def _activate(self, layer: _Layer, out: int, values: int) -> int:
        """LayerNorm, ReLU and dropout; returns what the next layer reads."""
        tape, size = self.tape, values * self.hidden
        wider = self.product < self.hidden
        layer.normalised = tape.take(size, SAVED) if wider else out
        normal = tape.take(size, FORWARD)
        layer.rectified = tape.take(size, SAVED)
        tape.drop(normal, out if wider else None)
        if not self.dropout:
            return layer.rectified
        layer.mask = tape.take(values * (1 if self.cuda else self.hidden), SAVED)
        return tape.take(size, SAVED)

    def _backward(self, gradient: int) -> None:
        tape, wider = self.tape, self.product < self.hidden
        for k in reversed(range(len(self.rows))):
            layer, before = self.layers[k], self.layers[k - 1] if k else None
            values = self.rows[k] * self.widths[k]
            of_weights = self.widths[k] * self.widths[k + 1] * FP32
            tape.take(of_weights, WEIGHTS)
            of_root = tape.take(values * self.product, GRADIENTS) if before else None
            if before is None or layer.root != before.rectified:
                tape.drop(layer.root)
            if before and wider:
                of_root = self._onward(of_root, values * self.hidden)
            of_aggregated = tape.take(values * self.product, GRADIENTS) if before else None
            tape.take(of_weights, WEIGHTS)
            tape.drop(gradient, layer.aggregated if layer.aggregated not in layer.maxima else None)
            if before is None:
                return
            if wider:
                of_aggregated = self._onward(of_aggregated, values * self.hidden)
            self._gather_backward(k, of_aggregated)
            gradient = of_root
            outputs = self.rows[k - 1] * self.widths[k]
            if outputs != values:  # the rows that this layer did not read get zeros
                gradient = self._onward(gradient, outputs * self.hidden)
            for saved in (before.mask, before.rectified, before.normalised):
                if saved is not None:
                    gradient = self._onward(gradient, outputs * self.hidden)
                    tape.drop(saved)
            if wider:
                gradient = self._onward(gradient, outputs * self.product)

    def _gather_backward(self, k: int, of_aggregated: int | None) -> None:
        """From the aggregated to the layer's input, where it is added to the root's gradient."""
        tape = self.tape
        values, gathered = (n * self.widths[k] for n in (self.rows[k], self.edges[k]))
        if self.aggregator == "mean":
            of_aggregated = self._onward(of_aggregated, values * self.hidden)
        if self.aggregator == "max":
            of_messages = self._maxima_backward(values, gathered)
            tape.drop(*self.layers[k].maxima)
        else:
            of_messages = tape.take(gathered * self.hidden, MESSAGES)
        tape.drop(of_aggregated)
        of_sources = tape.take(values * self.hidden, GRADIENTS)
        tape.drop(of_messages, of_sources)

    def _maxima_backward(self, values: int, gathered: int) -> int:
        """Of scatter_reduce(amax), which counts ties first, in tensors as large as the messages."""
        tape, width = self.tape, self.hidden
        maxima = tape.take(gathered * width, MESSAGES)
        own = tape.take(values * width, GRADIENTS)
        equal = tape.take(gathered, MESSAGES)
        ties = tape.take(gathered * width, MESSAGES)
        tape.drop(equal)
        shares = [tape.take(values * width, GRADIENTS) for _ in range(4)]
        tape.drop(shares.pop(2))
        shared = tape.take(gathered * width, MESSAGES)
        equal = tape.take(gathered, MESSAGES)
        chosen = tape.take(gathered * width, MESSAGES)
        result = tape.take(gathered * width, MESSAGES)
        tape.drop(chosen, equal, shared, ties, maxima, own, *shares)
        return result

    def _onward(self, gradient: int | None, size: float) -> int:
        """A gradient made into that of the operation before."""
        new = self.tape.take(size, GRADIENTS)
        self.tape.drop(gradient)
        return new
