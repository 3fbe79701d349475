"""Predictions corrected by what was measured: outcomes of the same engine on the same card.

An outcome tells how much longer than predicted each phase took, and how much longer its epochs
took than its own phases say. Both ratios, averaged over the outcomes with a weight that falls with
their distance, correct the prediction of another trial.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from sagebench.grid.trial import Trial

PHASES = ("sampling", "data", "forward", "backward", "synchronisation", "optimizer")
"""of the window in outcomes, seconds: all but the last two of a micro-step, these of a step"""

EDGES_DOUBLINGS, BATCH_DOUBLINGS, RANKS_DOUBLINGS, SHAPE, WIDTH_DOUBLINGS = 2.0, 2.0, 1.0, 0.3, 1.0
"""what counts as distance 1, in edges, batch size, ranks, the last hop's share of the edges, and
widths of features and hidden layers"""
NEAREST = 0.05
"""added to the squared distance: an outcome of the very trial weighs 20 times one at distance 1"""
UNCORRECTED_SPREAD, PRIOR_OUTCOMES = 0.15, 2.0
"""the logarithm's standard deviation that is expected before outcomes show their own, and how many
of them that expectation is worth"""
SPREAD_PER_DISTANCE = 0.05
MOST_NAMED = 10


@dataclass(frozen=True)
class Observation:
    """An outcome as a correction sees it.

    same: what must be equal. features: its place among the others. ratios: logarithms of measured
    over predicted, by phase; `epoch`: of the epoch over what its own phases make of it; `whole`:
    of the epoch over its prediction; `full evaluation` or `sampled evaluation`, `test`, `start`
    where they were measured.
    """

    trial_id: str
    same: tuple[Any, ...]
    features: tuple[float, ...]
    ratios: Mapping[str, float]


@dataclass(frozen=True)
class Correction:
    """factors: of the phases, of `epoch`, and what else was measured; what is not there is 1.

    relative_error: one standard deviation of the logarithm of measured over corrected. count: of
    the outcomes it is from. used: ids of their trials, the heaviest first, MOST_NAMED at most.
    """

    factors: Mapping[str, float]
    relative_error: float
    count: int
    used: tuple[str, ...]


NONE = Correction({}, math.inf, 0, ())


class History:
    """Observations, ready to be asked for many trials."""

    def __init__(self, observations: Sequence[Observation] = ()) -> None:
        groups: dict[tuple[Any, ...], list[Observation]] = {}
        for observation in observations:
            groups.setdefault(observation.same, []).append(observation)
        self._groups = {same: _Group(members) for same, members in groups.items()}

    def correct(self, same: tuple[Any, ...], features: Sequence[float]) -> Correction:
        """The correction for a trial; NONE where no outcome is of its engine and card."""
        group = self._groups.get(same)
        return NONE if group is None else group.correct(np.asarray(features))


class _Group:
    """Observations of one engine on one card."""

    def __init__(self, observations: Sequence[Observation]) -> None:
        self.observations = observations

    @cached_property
    def _places(self) -> np.ndarray:
        return np.array([observation.features for observation in self.observations])

    @cached_property
    def _ratios(self) -> dict[str, np.ndarray]:
        """By name, NaN where an observation lacks it."""
        names = sorted({name for each in self.observations for name in each.ratios})
        return {
            name: np.array([each.ratios.get(name, math.nan) for each in self.observations])
            for name in names
        }

    def correct(self, features: np.ndarray) -> Correction:
        squared = ((self._places - features) ** 2).sum(1)
        weights = 1 / (NEAREST + squared)
        factors = {}
        for name, ratios in self._ratios.items():
            known = ~np.isnan(ratios)
            factors[name] = math.exp(np.average(ratios[known], weights=weights[known]))
        order = np.argsort(-weights, kind="stable")
        return Correction(
            factors={name: factor for name, factor in factors.items() if name != "whole"},
            relative_error=_spread(self._ratios["whole"], weights, math.sqrt(squared.min())),
            count=len(order),
            used=tuple(self.observations[k].trial_id for k in order[:MOST_NAMED]),
        )


def _spread(ratios: np.ndarray, weights: np.ndarray, distance: float) -> float:
    """The standard deviation to expect of a trial at this distance from the nearest."""
    mean = np.average(ratios, weights=weights)
    count = weights.sum() ** 2 / (weights**2).sum()
    variance = np.average((ratios - mean) ** 2, weights=weights)
    pooled = (PRIOR_OUTCOMES * UNCORRECTED_SPREAD**2 + count * variance) / (PRIOR_OUTCOMES + count)
    return math.sqrt(pooled * (1 + 1 / count) + (SPREAD_PER_DISTANCE * distance) ** 2)


def features_of(trial: Trial, edges: Sequence[float], num_features: int) -> tuple[float, ...]:
    """A trial's place. edges: of the hops, of one micro-batch."""
    total = sum(edges)
    return (
        math.log2(1 + total) / EDGES_DOUBLINGS,
        math.log2(trial.batch_size) / BATCH_DOUBLINGS,
        (edges[-1] / total if total else 0.0) / SHAPE,
        math.log2(trial.ranks) / RANKS_DOUBLINGS,
        math.log2(trial.hidden_channels) / WIDTH_DOUBLINGS,
        math.log2(num_features) / WIDTH_DOUBLINGS,
    )


def same_of(trial: Trial, device_name: str | None) -> tuple[Any, ...]:
    """What an outcome must share with a trial to correct it. device_name: the card, or the
    processor of a machine without one."""
    return (
        trial.engine,
        trial.sampler,
        trial.precision,
        trial.compile,
        trial.placement,
        trial.device,
        trial.machine,
        device_name,
        trial.threads_per_rank,
    )
