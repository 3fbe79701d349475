"""Vectors of nodes that were not in the training, two ways, the trained vectors as they are.

Both write the rows `new` (distinct ids) of `vectors`, float32 [N, D], in place. The graph (colptr,
row; see `Walker`) is the whole one. All nodes but `new` count as known, those too that no walk of
the training came to: give them a vector before.
"""

from __future__ import annotations

import numpy as np

from sagebench.embedding.skipgram import SkipGram, first_vectors
from sagebench.embedding.threads import Threads
from sagebench.embedding.walks import Walker
from sagebench.sampling.cpu import compiled

WALKS_PER_NODE, WALK_LENGTH = 50, 5
WALKS_PER_STEP = 2560
"""as many as OGB's batch of 256 start nodes has"""
NODES_PER_TASK = 256


def train_new_nodes(
    vectors: np.ndarray, new: np.ndarray, colptr: np.ndarray, row: np.ndarray, *,
    seed: int, learning_rate: float = 0.005, negatives: int = 1, p: float = 1, q: float = 1,
    threads: int = 1,
) -> None:  # fmt: skip
    """Train the new rows by 50 walks of length 5 from each, all others frozen (Hamilton, Ying,
    Leskovec 2017, "Inductive representation learning on large graphs", appendix C).

    A walk is one window: its start node is the center. The first walk of every new node comes
    before the second of any, so that a row moves some 50 times: at the default rate, about as far
    from 0 as trained ones are. A new node without neighbors keeps the random vector, near 0,
    that all of them start from.
    """
    walker = Walker(colptr, row, p, q, threads)
    vectors[new] = first_vectors(new, vectors.shape[1], seed)
    trained = np.zeros(len(vectors), bool)
    trained[new] = True
    model = SkipGram(vectors, WALK_LENGTH + 1, learning_rate, threads)
    starts = new[np.diff(colptr)[new] > 0]
    for number in range(WALKS_PER_NODE):
        for first in range(0, len(starts), WALKS_PER_STEP):
            drawn = starts[first : first + WALKS_PER_STEP], range(number, number + 1)
            walks = walker.walks(*drawn, WALK_LENGTH, seed, 0)
            noise = walker.negatives(*drawn, (negatives, WALK_LENGTH), seed, 0)
            model.step(walks, noise, trained)


def mean_of_neighbors(
    vectors: np.ndarray, new: np.ndarray, colptr: np.ndarray, row: np.ndarray,
    otherwise: np.ndarray, threads: int = 1,
) -> None:  # fmt: skip
    """Give each new node the mean of its neighbors' vectors, outward in rounds: one whose neighbors
    have no vector yet waits for the next round. Those that no round reaches get `otherwise`,
    float32 [D]."""
    known = np.ones(len(vectors), bool)
    known[new] = False
    pool, waiting = Threads(threads), np.ascontiguousarray(new, np.int64)
    while len(waiting):
        reached = np.zeros(len(waiting), bool)

        def task(first: int, last: int, waiting=waiting, reached=reached) -> None:
            _means(vectors, known, colptr, row, waiting, first, last, reached)

        pool.over(len(waiting), NODES_PER_TASK, task)
        if not reached.any():
            break
        known[waiting[reached]] = True
        waiting = waiting[~reached]
    vectors[waiting] = otherwise


@compiled
def _means(vectors, known, colptr, row, nodes, first, last, reached):
    total = np.empty(vectors.shape[1], np.float32)
    for i in range(first, last):
        v, count = nodes[i], 0
        total[:] = 0
        for e in range(colptr[v], colptr[v + 1]):
            if known[row[e]]:
                count += 1
                near = vectors[row[e]]
                for d in range(len(total)):
                    total[d] += near[d]
        if count:
            reached[i] = True
            for d in range(len(total)):
                vectors[v, d] = total[d] / np.float32(count)
