"""Exact last hop: which trials read it from a table of aggregated features, and where that lies.

Standard library only.
"""

from __future__ import annotations

from sagebench import registry
from sagebench.grid.trial import Trial


def aggregates_features(trial: Trial) -> str | None:
    """By what the first layer of the trial's model aggregates raw features: mean, sum or max; None
    for a layer that aggregates something else."""
    declared = registry.declared("model", trial.model).get("AGGREGATES_FEATURES")
    return trial.aggregator if declared == "aggregator" else declared


def table_aggregator(trial: Trial) -> str | None:
    """The aggregator of the table that gives the trial's last hop; None where it is sampled.

    That is so where a fanout of several hops ends in -1, the first layer aggregates raw features,
    and the engine reads tables.
    """
    if not trial.in_minibatches or trial.fanout[-1] != -1 or len(trial.fanout) < 2:
        return None
    reads = registry.declared("engine", trial.engine).get("READS_TABLE", False)
    return aggregates_features(trial) if reads else None


def table_manifest(store: str, aggregator: str) -> str:
    """The manifest beside the table of a store (its folder)."""
    return f"{store}.extra/{aggregator}.json"
