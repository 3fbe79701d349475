"""Samples of batch sizes between those that were taken.

How many nodes and edges a hop has is a smooth function of the batch size: a power of it that falls
off as the sample fills the graph. Logarithms over logarithms, a cubic through the four nearest
sizes: with sizes no more than a factor 2 apart, within the error of the sampled ones themselves
(tests/test_predict_probe.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from sagebench.predict.samples import Sample, Spread

LARGEST_RATIO = 2.0
"""between neighboring batch sizes that are sampled; what lies between them is interpolated"""
CURVE_RATIO = 1.5
"""at least, between the sizes that one curve goes through on one side"""


def anchors(wanted: Iterable[int], known: Iterable[int] = ()) -> list[int]:
    """The batch sizes among `wanted` that are to be sampled, beside those of `known`: as few as
    leave no other one without a sampled size below and above it, at most a factor 2 apart."""
    known = set(known)
    sizes = sorted({*wanted, *known})
    chosen: list[int] = []
    below = 0
    for k, size in enumerate(sizes):
        above = sizes[k + 1] if k + 1 < len(sizes) else None
        if size in known:
            below = size
        elif above is None or above > LARGEST_RATIO * below:
            chosen.append(size)
            below = size
    return chosen


def interpolate(known: Sequence[Sample], batch_size: int, train_nodes: int) -> Sample:
    """The sample of a batch size between those of `known`, all of one fanout."""
    near = _around(known, batch_size)
    sizes = [sample.batch_size for sample in near]
    whole, rest = divmod(train_nodes, batch_size)
    smallest = min(sizes)  # below it the curve is followed no further

    def between(spreads: Sequence[Spread]) -> Spread:
        mean = _curve(sizes, [spread.full_mean for spread in spreads])
        full = mean(batch_size)
        last = mean(max(rest, smallest)) * min(1.0, rest / smallest)
        return Spread(
            mean=(whole * full + last) / (whole + bool(rest)),
            full_mean=full,
            std=_curve(sizes[:2], [spread.std for spread in spreads[:2]])(batch_size),
        )

    nodes = tuple(map(between, zip(*(s.nodes_per_hop for s in near), strict=True)))
    edges = tuple(map(between, zip(*(s.edges_per_hop for s in near), strict=True)))
    return Sample(
        fanout=near[0].fanout,
        batch_size=batch_size,
        batches=0,
        sampled=False,
        nodes_per_hop=nodes,
        edges_per_hop=edges,
        nodes=between([s.nodes for s in near]),
        edges=between([s.edges for s in near]),
    )


def _around(known: Sequence[Sample], batch_size: int) -> list[Sample]:
    """The nearest sample below and the nearest above, then another one on each side, if there is
    one far enough from the first that the noise of both does not make the curve."""
    below = sorted((s for s in known if s.batch_size < batch_size), key=lambda s: -s.batch_size)
    above = sorted((s for s in known if s.batch_size > batch_size), key=lambda s: s.batch_size)
    near = [below[0], above[0]]
    near += [s for s in below if s.batch_size * CURVE_RATIO <= below[0].batch_size][:1]
    near += [s for s in above if s.batch_size >= above[0].batch_size * CURVE_RATIO][:1]
    return near


def _curve(sizes: Sequence[float], values: Sequence[float]) -> Callable[[float], float]:
    """The polynomial through log(value) over log(size), in Lagrange's form; through the two nearest
    values themselves where one is 0."""
    x, y, back = np.log(sizes), np.asarray(values, float), np.exp
    if y.min() > 0:
        y = np.log(y)
    else:
        x, y, back = x[:2], y[:2], float

    def value(size: float) -> float:
        at = np.log(size)
        weights = [
            np.prod([(at - other) / (own - other) for other in x if other != own]) for own in x
        ]
        return max(0.0, float(back(np.dot(weights, y))))

    return value
