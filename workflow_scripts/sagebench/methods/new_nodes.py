"""Seconds to embed new nodes: of a trained trial, over their number, each way that it has."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from sagebench.graph.store import GraphStore
from sagebench.graph.unseen import without
from sagebench.measure.memory import PeakMemory
from sagebench.records import NewNodes, PeakBytes
from sagebench.sampling.random import fold, hash_ids
from sagebench.training.trainer import synchronise_device

MOST = 100_000
"""nodes that are embedded at once"""
FEWEST_REPEATS, MOST_REPEATS, REPEATED_FOR_S = 3, 10, 2.0
"""a way is tried until so many seconds are used up"""
ORDER_STREAM = 9


class Way(NamedTuple):
    """A way to embed some nodes. embed: does it. accuracy: of what it gave them."""

    embed: Callable[[], object]
    accuracy: Callable[[], float]


def numbers(available: int) -> list[int]:
    """1, 10, 100, ... and all that there are, at most 100,000."""
    most = min(available, MOST)
    powers = (10**exponent for exponent in range(6))
    return sorted({most, *(power for power in powers if power < most)})


def arrivals(store: GraphStore) -> Iterator[tuple[GraphStore, np.ndarray]]:
    """Some of the unseen nodes (int64 ids, ascending), more from time to time, and the graph that
    they have come into: that of training, with them."""
    assert store.unseen is not None
    whole = store.whole
    drawn = store.unseen[np.argsort(hash_ids(fold(ORDER_STREAM), store.unseen), kind="stable")]
    for number in numbers(len(drawn)):
        colptr, row = without(whole.colptr, whole.row, drawn[number:])
        yield replace(whole, colptr=colptr, row=row), np.sort(drawn[:number])


def time_ways(
    store: GraphStore,
    ways: Callable[[GraphStore, np.ndarray], Mapping[str, Way]],
    device: torch.device,
    energy_j: Callable[[], float | None],
) -> list[NewNodes]:
    """The times of an inductive trial's ways. ways: to embed nodes in a graph, by name. energy_j:
    what the meter says."""
    found, warm = [], set()
    for graph, nodes in arrivals(store):
        for name, way in ways(graph, nodes).items():
            if name not in warm:
                way.embed()  # compiles and loads
                warm.add(name)
            found.append(_timed(name, way, len(nodes), device, energy_j))
            if graph.num_edges == store.whole.num_edges or len(nodes) == MOST:  # the most
                found[-1] = replace(found[-1], accuracy=way.accuracy())
    return found


def _timed(
    name: str,
    way: Way,
    nodes: int,
    device: torch.device,
    energy_j: Callable[[], float | None],
) -> NewNodes:
    times: list[float] = []
    peak, before = PeakMemory(device), energy_j()
    peak.start()
    with peak:
        while len(times) < FEWEST_REPEATS or (
            len(times) < MOST_REPEATS and sum(times) < REPEATED_FOR_S
        ):
            start = time.perf_counter()
            way.embed()
            synchronise_device(device)
            times.append(time.perf_counter() - start)
    after = energy_j()
    joules = None if before is None or after is None else (after - before) / len(times)
    return NewNodes(
        way=name,
        nodes=nodes,
        time_s=statistics.median(times),
        low_s=min(times),
        high_s=max(times),
        repeats=len(times),
        peak_memory_bytes=PeakBytes(**peak.read()).of_device(device.type),
        energy_j=joules,
    )
