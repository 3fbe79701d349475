"""The slides' trials, and what they sample."""

from __future__ import annotations

from sagebench.estimate.probe import Sample, Spread
from sagebench.grid.trial import Trial

# Means of four micro-batches of 128 on the synthetic graph of ogbn-products' size and degrees:
# nodes of the hops 0 to 5, edges of the hops 1 to 5.
SIZES = {
    (15, 10, 10, 10, 10): (
        (128, 1_671, 14_103, 98_082, 484_067, 974_342),
        (1_674, 16_590, 139_872, 971_458, 4_775_672),
    ),
    (15, 15, 15, 5, 5): (
        (128, 1_671, 20_143, 182_350, 430_707, 602_203),
        (1_674, 24_605, 296_011, 910_065, 2_148_142),
    ),
    (15, 10, 10, 10, 0): (
        (128, 1_671, 14_103, 98_082, 484_067, 0),
        (1_674, 16_590, 139_872, 971_458, 0),
    ),
}
DEFAULT = (15, 10, 10, 10, 10)


def slides_sample(fanout: tuple[int, ...] = DEFAULT, factor: int = 1) -> Sample:
    """Of a batch of 128; factor: so many times fewer nodes and edges."""
    nodes, edges = ([count // factor for count in counts] for counts in SIZES[fanout])
    return Sample(
        fanout=list(fanout),
        batch_size=128 // factor,
        batches=4,
        nodes_per_hop=list(map(_spread, nodes)),
        edges_per_hop=list(map(_spread, edges)),
        nodes=_spread(sum(nodes)),
        edges=_spread(sum(edges)),
    )


def _spread(mean: float) -> Spread:
    return Spread(mean, mean, 0.02 * mean)


def slides_trial(engine: str, sample: Sample, **values) -> Trial:
    return Trial.from_json(
        {
            "dataset": {"name": "ogbn-products", "source": "ogb"},
            "engine": engine,
            "fanout": sample.fanout,
            "batch_size": sample.batch_size,
            "epochs": 10,
            "sampling_workers": 4,
            "threads_per_rank": 4,
            "machine": "meluxina",
            **values,
        }
    )
