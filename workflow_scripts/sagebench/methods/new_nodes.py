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
from sagebench.graph.unseen import places_of, without
from sagebench.measure.memory import PeakMemory
from sagebench.records import NewNodes, PeakBytes
from sagebench.sampling.random import fold, hash_ids
from sagebench.training.distributed import Communicator
from sagebench.training.trainer import synchronise_device

MOST = 100_000
"""nodes that are embedded at once"""
FEWEST_REPEATS, MOST_REPEATS, REPEATED_FOR_S = 3, 10, 2.0
"""a way is tried until so many seconds are used up"""
ORDER_STREAM = 9


class Way(NamedTuple):
    """A way to embed some nodes. embed: does it. accuracy: of what it gave them. device: `cuda` or
    `cpu`, where it is done."""

    embed: Callable[[], object]
    accuracy: Callable[[], float]
    device: str


def numbers(available: int) -> list[int]:
    """1, 10, 100, ... and all that there are, at most 100,000."""
    most = min(available, MOST)
    powers = (10**exponent for exponent in range(6))
    return sorted({most, *(power for power in powers if power < most)})


def arrivals(store: GraphStore) -> Iterator[tuple[GraphStore, np.ndarray]]:
    """Some of the unseen nodes (int64 ids, ascending), more from time to time, and the graph that
    they have come into: that of training, with them.

    In a drawn order, but first those that have a neighbor there: one without is no example.
    """
    assert store.unseen is not None
    whole, unseen = store.whole, store.unseen
    of_training = np.ones(store.num_nodes, bool)
    of_training[unseen] = False
    ends = places_of(of_training[whole.row])
    alone = ends[whole.colptr[unseen + 1]] == ends[whole.colptr[unseen]]
    drawn = unseen[np.lexsort([hash_ids(fold(ORDER_STREAM), unseen), alone])]
    for number in numbers(len(drawn)):
        colptr, row = without(whole.colptr, whole.row, drawn[number:])
        yield replace(whole, colptr=colptr, row=row), np.sort(drawn[:number])


def time_ways(
    store: GraphStore,
    ways: Callable[[GraphStore, np.ndarray], Mapping[str, Way]],
    communicator: Communicator,
    peak: PeakMemory,
    energy_j: Callable[[], float | None],
) -> list[NewNodes]:
    """The times of an inductive trial's ways, of the slowest rank; a collective. ways: to embed
    nodes in a graph, by name. peak: a started one, whose figures are forgotten. energy_j: what the
    GPUs' meter of this node says."""
    assert store.unseen is not None
    found, warm, most = [], set(), min(len(store.unseen), MOST)
    for graph, nodes in arrivals(store):
        for name, way in ways(graph, nodes).items():
            if name not in warm:
                way.embed()  # compiles and loads
                warm.add(name)
            found.append(_timed(name, way, len(nodes), communicator, peak, energy_j))
            if len(nodes) == most:
                found[-1] = replace(found[-1], accuracy=way.accuracy())
    return found


def _timed(
    name: str,
    way: Way,
    nodes: int,
    communicator: Communicator,
    peak: PeakMemory,
    energy_j: Callable[[], float | None],
) -> NewNodes:
    times: list[float] = []
    device = communicator.device
    peak.forget()
    before = energy_j()
    with peak:
        while len(times) < FEWEST_REPEATS or (
            len(times) < MOST_REPEATS and sum(times) < REPEATED_FOR_S
        ):
            start = time.perf_counter()
            way.embed()
            synchronise_device(device)
            mine = torch.tensor([time.perf_counter() - start], dtype=torch.float64, device=device)
            times.append(communicator.max(mine).item())  # so that all ranks repeat it as often
    after, mine_j = energy_j(), None
    if before is not None and after is not None and way.device == "cuda":
        mine_j = (after - before) / len(times)
    joules = [one for one in communicator.gather(mine_j) if one is not None]
    return NewNodes(
        way=name,
        nodes=nodes,
        time_s=statistics.median(times),
        low_s=min(times),
        high_s=max(times),
        repeats=len(times),
        device=way.device,
        peak_memory_bytes=PeakBytes(**peak.read()).of_device(way.device),
        energy_j=sum(joules) if joules else None,
    )
