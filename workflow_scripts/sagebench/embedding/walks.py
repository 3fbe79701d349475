"""Random walks of node2vec (Grover, Leskovec 2016, "node2vec: Scalable feature learning for
networks"), and the nodes that are drawn as negatives.

A step from v, reached from t, goes to a neighbor x of v with probability in proportion to 1/p where
x is t, to 1 where x is a neighbor of t, to 1/q otherwise. With p = q = 1 the walks are first order:
those of DeepWalk (Perozzi, Al-Rfou, Skiena 2014).
"""

from __future__ import annotations

import numpy as np

from sagebench.embedding.threads import Threads
from sagebench.sampling.cpu import compiled, mix64
from sagebench.sampling.random import GOLDEN, NODE_STRIDE, fold

WALK_STREAM = 6
NEGATIVE_STREAM = 7
WALKS_PER_TASK = 128


def reachable(colptr: np.ndarray, row: np.ndarray) -> np.ndarray:
    """bool [N]: the nodes that a walk may come to, or start at (see `Walker`)."""
    found = np.diff(colptr) > 0
    found[row] = True
    return found


class Walker:
    """Walks on a graph in CSC (colptr int64 [N + 1], row int32 or int64 [E], ascending in each
    column): from v to one of row[colptr[v]:colptr[v + 1]].

    p: the larger, the rarer a step back. q: the larger, the closer a walk stays to where it was.
    A walk is a function of (seed, pass, start node, its number); so are its negatives.
    """

    def __init__(
        self, colptr: np.ndarray, row: np.ndarray, p: float = 1, q: float = 1, threads: int = 1
    ) -> None:
        self.colptr, self.row, self.p, self.q = colptr, row, p, q
        self.connected = np.flatnonzero(np.diff(colptr))
        """int64, ascending: the nodes that have neighbors"""
        self._threads = Threads(threads)

    def walks(
        self, starts: np.ndarray, numbers: range, length: int, seed: int, pass_number: int
    ) -> np.ndarray:
        """The walks `numbers` of every start node, int64 [len(starts) * len(numbers), length + 1],
        those of a start node together.

        A walk ends at a node without neighbors, and -1 fills its row: a node that stayed where it
        is would be in pairs with itself.
        """
        out = np.empty((len(starts) * len(numbers), length + 1), np.int64)
        starts = np.ascontiguousarray(starts, np.int64)
        key = np.uint64(fold(WALK_STREAM, seed, pass_number))

        def task(first: int, last: int) -> None:
            _walk(
                self.colptr, self.row, starts, numbers.start, len(numbers), 1 / self.p, 1 / self.q,
                key, first, last, out,
            )  # fmt: skip

        self._threads.over(len(out), WALKS_PER_TASK, task)
        return out

    def negatives(
        self, starts: np.ndarray, numbers: range, shape: tuple[int, ...], seed: int,
        pass_number: int,
    ) -> np.ndarray:  # fmt: skip
        """Nodes drawn uniformly from `connected`, with repeats: int64 [walks, *shape], for the
        walks that `walks` returns."""
        out = np.empty((len(starts) * len(numbers), int(np.prod(shape))), np.int64)
        starts = np.ascontiguousarray(starts, np.int64)
        key = np.uint64(fold(NEGATIVE_STREAM, seed, pass_number))

        def task(first: int, last: int) -> None:
            _draw(self.connected, starts, numbers.start, len(numbers), key, first, last, out)

        self._threads.over(len(out), WALKS_PER_TASK, task)
        return out.reshape(-1, *shape)


@compiled
def _walk_key(key, start, number):
    return mix64(mix64(key + np.uint64(start) * np.uint64(NODE_STRIDE)) + np.uint64(number))


@compiled
def _below(bits, n):
    """An integer of [0, n), n < 2**32, from the upper half of 64 random bits."""
    return np.int64(((bits >> np.uint64(32)) * np.uint64(n)) >> np.uint64(32))


@compiled
def _walk(colptr, row, starts, first_number, numbers, back, away, key, first, last, out):
    """The rows [first, last) of `out`. back, away: the weights 1/p and 1/q.

    By rejection: a neighbor drawn uniformly is taken with its weight over the largest. One hash is
    one attempt: the upper half of its bits draws the neighbor, the lower half decides.
    """
    lower, upper = min(1.0, away), max(1.0, away)
    scale = max(back, upper) / 4294967296.0
    for i in range(first, last):
        v = starts[i // numbers]
        draw = _walk_key(key, v, first_number + i % numbers)
        before = np.int64(-1)
        out[i, 0] = v
        for step in range(1, out.shape[1]):
            start = colptr[v]
            degree = colptr[v + 1] - start
            if degree == 0:
                out[i, step:] = -1
                break
            while True:
                draw += np.uint64(GOLDEN)
                bits = mix64(draw)
                x = np.int64(row[start + _below(bits, degree)])
                height = np.float64(bits & np.uint64(0xFFFFFFFF)) * scale
                if before < 0:
                    break
                if x == before:
                    weight = back
                elif height < lower or height >= upper:
                    weight = lower  # whichever of the two it is
                else:
                    near = _holds(row, colptr[before], colptr[before + 1], x)
                    weight = 1.0 if near else away
                if height < weight:
                    break
            before, v = v, x
            out[i, step] = v


@compiled
def _holds(row, first, last, x):
    """Whether the ascending row[first:last] holds x."""
    end = last
    while first < last:
        middle = (first + last) >> 1
        if row[middle] < x:
            first = middle + 1
        else:
            last = middle
    return first < end and row[first] == x


@compiled
def _draw(nodes, starts, first_number, numbers, key, first, last, out):
    for i in range(first, last):
        draw = _walk_key(key, starts[i // numbers], first_number + i % numbers)
        for j in range(out.shape[1]):
            draw += np.uint64(GOLDEN)
            out[i, j] = nodes[_below(mix64(draw), len(nodes))]
