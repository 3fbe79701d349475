"""Batch size x fanout of a study: the cells that it asks for, and those between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from sagebench.grid.trial import Fanout, Trial

MOST_FANOUTS, MOST_BATCH_SIZES = 24, 14
"""that one picture has room for"""
WITHIN = 2.0
"""times a batch size that is asked for with the same fanout: what lies further off tells nobody of
a trial, and may take hours to sample"""


def trials_to_probe(trials: Sequence[Trial], train_nodes: int) -> list[Trial]:
    """The trials of one store, and those of the cells between them, engine by engine."""
    between = [
        trial
        for engine in dict.fromkeys(trial.engine for trial in trials)
        for trial in cells_between([t for t in trials if t.engine == engine], train_nodes)
    ]
    return [*trials, *between]


def axes_of(trials: Sequence[Trial]) -> tuple[list[Fanout], list[int]]:
    """The fanouts and batch sizes that are asked for most."""
    fanouts = Counter(trial.fanout for trial in trials).most_common(MOST_FANOUTS)
    sizes = Counter(trial.batch_size for trial in trials).most_common(MOST_BATCH_SIZES)
    return [fanout for fanout, _ in fanouts], sorted(size for size, _ in sizes)


def cells_between(trials: Sequence[Trial], train_nodes: int) -> list[Trial]:
    """Trials that no one asks for, of one engine: the cells of the picture near those that are.

    Each is the trial of the same fanout whose batch size is nearest, with the cell's.
    """
    fanouts, batch_sizes = axes_of(trials)
    asked: dict[Fanout, dict[int, Trial]] = {}
    for trial in trials:
        asked.setdefault(trial.fanout, {})[trial.batch_size] = trial
    between = []
    for fanout in fanouts:
        there = asked[fanout]
        for batch_size in batch_sizes:
            nearest = min(there, key=lambda size: _ratio(size, batch_size))
            near = _ratio(nearest, batch_size) <= WITHIN
            if batch_size not in there and near and batch_size <= train_nodes:
                between.append(replace(there[nearest], batch_size=batch_size))
    return between


def _ratio(a: float, b: float) -> float:
    return max(a / b, b / a)
