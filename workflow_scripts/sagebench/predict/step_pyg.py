"""The step of the engines `reference` and `trimmed`: PyG's SAGEConv, as autograd runs it.

Every event was read off torch's own record of allocations (tests/test_predict_memory.py holds the
tape to it); on CUDA three things differ: dropout keeps a mask of a byte, and under autocast
LayerNorm, and with it all that follows up to the next products, computes in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sagebench.predict.tape import Tape

SAVED, GRADIENTS, MESSAGES = "saved activations", "gradients of activations", "messages"
FORWARD, WEIGHTS = "forward buffers", "gradients of weights"
FP32, BF16 = 4, 2


@dataclass
class _Layer:
    """What one layer leaves for its backward pass."""

    aggregated: int | None = None
    root: int | None = None
    messages: int | None = None
    zeros: int | None = None
    normalised: int | None = None
    rectified: int | None = None
    mask: int | None = None


def pyg_step(
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
) -> Tape:
    """rows, edges: those that each layer reads, of the layers 1 to L. widths: channels, L + 1.
    batch_bytes: of the sample itself, where it takes this memory."""
    tape = Tape()
    tape.take(batch_bytes, "samples")
    layers: list[_Layer] = []
    product = BF16 if bf16 else FP32
    hidden = FP32 if cuda else product  # between LayerNorm and the next layer's products
    x: int | None = None  # the batch's own features
    for k, (n, e) in enumerate(zip(rows, edges, strict=True)):
        inputs, outputs = widths[k], widths[k + 1]
        layer = _Layer()
        layers.append(layer)
        width = hidden if k else FP32
        messages = tape.take(e * inputs * width, MESSAGES)
        aggregated = tape.take(n * inputs * width, SAVED)
        if aggregator == "mean":
            total, aggregated = aggregated, tape.take(n * inputs * width, SAVED)
            tape.drop(total)
        if aggregator == "max" and k:
            layer.zeros = tape.take(n * inputs * width, SAVED)
            layer.messages = messages
        else:
            tape.drop(messages)
        if product < width:
            layer.aggregated = tape.take(n * inputs * product, SAVED)
            left = tape.take(n * outputs * product, FORWARD)
            tape.drop(aggregated)
            layer.root = tape.take(n * inputs * product, SAVED)
        else:
            layer.aggregated, layer.root = aggregated, x
            left = tape.take(n * outputs * product, FORWARD)
        right = tape.take(n * outputs * product, FORWARD)
        out = tape.take(n * outputs * product, SAVED)
        tape.drop(right, left)
        if product < width and k and x != layers[k - 1].rectified:
            tape.drop(x)
        if k == len(rows) - 1:
            break
        if product < hidden:
            out, narrow = tape.take(n * outputs * hidden, SAVED), out
            tape.drop(narrow)
        layer.normalised = out
        normal = tape.take(n * outputs * hidden, FORWARD)
        layer.rectified = x = tape.take(n * outputs * hidden, SAVED)
        tape.drop(normal)
        if dropout:
            layer.mask = tape.take(n * outputs * (1 if cuda else hidden), SAVED)
            x = tape.take(n * outputs * hidden, SAVED)
    tape.drop(out)
    loss = [tape.take(seeds * widths[-1] * FP32, SAVED) for _ in range(3)]

    gradient = tape.take(rows[-1] * widths[-1] * product, GRADIENTS)
    tape.drop(*loss)
    for k in reversed(range(len(rows))):
        n, e, inputs = rows[k], edges[k], widths[k]
        layer = layers[k]
        tape.take(inputs * widths[k + 1] * FP32, WEIGHTS)
        of_root = tape.take(n * inputs * product, GRADIENTS) if k else None
        if k == 0 or layer.root != layers[k - 1].rectified:
            tape.drop(layer.root)
        of_aggregated = tape.take(n * inputs * product, GRADIENTS) if k else None
        tape.take(inputs * widths[k + 1] * FP32, WEIGHTS)
        tape.drop(gradient)
        if k == 0:
            tape.drop(layer.aggregated)
            break
        if aggregator != "max" or product < hidden:
            tape.drop(layer.aggregated)
        if product < hidden:
            of_root = _moved(tape, of_root, n * inputs * hidden)
            of_aggregated = _moved(tape, of_aggregated, n * inputs * hidden)
        if aggregator == "mean":
            of_aggregated = _moved(tape, of_aggregated, n * inputs * hidden)
        if aggregator == "max":
            of_messages = _of_maxima(tape, n * inputs, e * inputs, hidden)
            tape.drop(layer.messages, layer.zeros, layer.aggregated)
        else:
            of_messages = tape.take(e * inputs * hidden, MESSAGES)
        tape.drop(of_aggregated)
        of_sources = tape.take(n * inputs * hidden, GRADIENTS)
        tape.drop(of_messages, of_sources)
        before, m = layers[k - 1], rows[k - 1]
        gradient = of_root
        if m != n:  # of the rows that this layer did not read: zeros
            gradient = _moved(tape, gradient, m * inputs * hidden)
        for saved in (before.mask, before.rectified, before.normalised):
            if saved is not None:
                gradient = _moved(tape, gradient, m * inputs * hidden)
                tape.drop(saved)
        if product < hidden:
            gradient = _moved(tape, gradient, m * inputs * product)
    tape.drop_all()
    return tape


def _moved(tape: Tape, handle: int | None, size: float) -> int:
    """A gradient of one tensor made into that of the one before it."""
    new = tape.take(size, GRADIENTS)
    tape.drop(handle)
    return new


def _of_maxima(tape: Tape, values: float, gathered: float, width: int) -> int:
    """Backward of scatter_reduce(amax), which counts the ties first."""
    maxima = tape.take(gathered * width, MESSAGES)
    own = tape.take(values * width, GRADIENTS)
    equal = tape.take(gathered, MESSAGES)
    ties = tape.take(gathered * width, MESSAGES)
    tape.drop(equal)
    counts = [tape.take(values * width, GRADIENTS) for _ in range(4)]
    tape.drop(counts.pop(2))
    shares = tape.take(gathered * width, MESSAGES)
    equal = tape.take(gathered, MESSAGES)
    chosen = tape.take(gathered * width, MESSAGES)
    result = tape.take(gathered * width, MESSAGES)
    tape.drop(chosen, equal, shares, ties, maxima, own, *counts)
    return result
