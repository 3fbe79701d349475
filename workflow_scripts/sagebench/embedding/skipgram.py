"""Skip-gram with negative sampling (Mikolov et al. 2013), in synchronous mini-batches, on the CPU.

Of a walk w, node w[i] is the center of a pair with each context w[i + 1], .., w[i + context - 1],
for every i with a whole window (the pairs of PyG's Node2Vec). One matrix holds the vectors of
centers and contexts; a node makes no pair with itself. The loss of a batch is the mean over its
pairs of

    - log sigmoid(x_center . x_context) - sum over k of log sigmoid(- x_center . x_negative_k)

A walk draws its negatives once a position, not once a pair: the pair (i, j) has the negatives
drawn for position j. Each still is a draw from all nodes, independent of its center, so the
expected gradient is that of one draw a pair; but a walk needs some hundred rows, not some thousand.
A step of SparseAdam (torch.optim.SparseAdam) follows, on the rows of the batch alone.

Nothing depends on the number of threads: a walk's gradients are rows of their own, and those of a
node are added in the order of the walks.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from sagebench.embedding.threads import Threads
from sagebench.sampling.cpu import compiled, mix64
from sagebench.sampling.random import GOLDEN, NODE_STRIDE, fold

VECTOR_STREAM = 8
BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8
"""torch's defaults"""
WALKS_PER_TASK = 32
ROWS_PER_TASK = 256
TILE = 4
"""rows that the inner loops take at a time"""

vector_compiled = numba.njit(
    nogil=True, cache=True, boundscheck=False, error_model="numpy",
    fastmath={"reassoc", "contract", "nsz"},
)  # fmt: skip
"""sums may be taken in vectors: their order is fixed when the loop is compiled"""


class SkipGram:
    """Vectors of the nodes, float32 [N, D], trained in place, and Adam's two moments.

    A batch of W walks of length L with K negatives takes W * (1 + L + K * L) * D * 4 bytes.
    """

    def __init__(
        self, vectors: np.ndarray, context: int, learning_rate: float, threads: int = 1
    ) -> None:
        self.vectors = vectors
        # Not zeros_like: memory that no step writes is never taken.
        self.mean, self.square = (np.zeros(vectors.shape, np.float32) for _ in range(2))
        self.steps = 0
        self.context, self.learning_rate = context, learning_rate
        self._threads = Threads(threads)
        self._gradients = np.empty((0, vectors.shape[1]), np.float32)

    def step(
        self, walks: np.ndarray, negatives: np.ndarray, trained: np.ndarray | None = None
    ) -> float:
        """One step; returns the mean loss of the batch before it (0 without a pair).

        walks: int64 [W, L + 1], -1 behind a walk's end. negatives: int64 [W, K, L]. trained: bool
        [N], the rows that may change; None: all.
        """
        ids = touched_rows(walks, negatives)
        gradients = self._rows(ids.size)
        found = np.zeros((-(-len(walks) // WALKS_PER_TASK), 2))
        """loss and pairs, by task: added in order"""

        def pairs(first: int, last: int) -> None:
            _walk_gradients(
                self.vectors, walks, negatives, self.context, first, last, gradients,
                found[first // WALKS_PER_TASK],
            )  # fmt: skip

        running = self._threads.start(len(walks), WALKS_PER_TASK, pairs)
        places, starts = grouped(ids, trained)  # meanwhile
        list(running)
        loss, count = found.sum(0)
        self.steps += 1
        if not count:
            return 0.0
        rate = np.float32(step_size(self.learning_rate, self.steps))

        def update(first: int, last: int) -> None:
            _update(
                self.vectors, self.mean, self.square, gradients, ids, places, starts,
                np.float32(1 / count), rate, first, last,
            )  # fmt: skip

        self._threads.over(len(starts) - 1, ROWS_PER_TASK, update)
        return loss / count

    def _rows(self, count: int) -> np.ndarray:
        if len(self._gradients) < count:
            self._gradients = np.empty((count, self.vectors.shape[1]), np.float32)
        return self._gradients[:count]


def first_vectors(nodes: np.ndarray, dimension: int, seed: int) -> np.ndarray:
    """Vectors that nodes start from, float32 [len(nodes), dimension]: uniform in
    +-0.5 / dimension, as word2vec's; a function of seed and node."""
    vectors = np.empty((len(nodes), dimension), np.float32)
    _fill(np.uint64(fold(VECTOR_STREAM, seed)), nodes, np.float32(0.5 / dimension), vectors)
    return vectors


def touched_rows(walks: np.ndarray, negatives: np.ndarray) -> np.ndarray:
    """Which vector each gradient of a batch belongs to: int64 [W * (L + 1 + K * L)], a walk's nodes
    and then its negatives; -1 where there is no pair, behind the end of a walk."""
    ended = walks[:, None, 1:] < 0
    starts = np.where(walks[:, 1:2] < 0, -1, walks[:, :1])
    drawn = np.where(ended, -1, negatives).reshape(len(walks), -1)
    return np.concatenate([starts, walks[:, 1:], drawn], 1).ravel()


def grouped(ids: np.ndarray, trained: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """The places of equal ids side by side, ascending in id and place, int64 [n], and where each id
    starts, int64 [distinct ids + 1]; without ids below 0 and those that are not `trained`."""
    bits = len(ids).bit_length()
    kept = ids >= 0
    if trained is not None:
        kept &= trained[ids]
    places = np.flatnonzero(kept)
    keys = (ids[places] << bits) | places
    keys.sort()
    nodes = keys >> bits
    starts = np.flatnonzero(np.diff(nodes, prepend=-1, append=-1))
    return keys & ((1 << bits) - 1), starts


def step_size(learning_rate: float, steps: int) -> float:
    """Adam's, with both corrections of the bias, as torch.optim.SparseAdam has it."""
    return learning_rate * math.sqrt(1 - BETA_2**steps) / (1 - BETA_1**steps)


@compiled
def _fill(key, nodes, scale, vectors):
    for i in range(len(nodes)):
        draw = mix64(key + np.uint64(nodes[i]) * np.uint64(NODE_STRIDE))
        for d in range(vectors.shape[1]):
            draw += np.uint64(GOLDEN)
            unit = np.float32(mix64(draw) >> np.uint64(40)) * np.float32(2.0**-23)
            vectors[i, d] = (unit - np.float32(1)) * scale


@compiled
def _walk_gradients(vectors, walks, negatives, context, first, last, gradients, found):
    """Gradients of the sum of the losses of the walks [first, last): rows as `touched_rows` has
    them. found: the sum of the losses, the number of pairs."""
    positions, dimension = walks.shape[1], vectors.shape[1]
    centers, many = positions + 1 - context, negatives.shape[1]
    stride = positions + many * (positions - 1)
    wide = positions + 2 * TILE  # a tile reaches beyond the last context; what is there stays 0
    nodes, drawn = np.zeros((wide, dimension), np.float32), np.zeros((wide, dimension), np.float32)
    scores = np.zeros((centers + 2, wide), np.float32)
    by_center = np.zeros((centers, wide), np.float32)
    by_context = np.zeros((positions, centers + TILE), np.float32)
    other = np.empty(positions, np.int64)
    for w in range(first, last):
        out = gradients[w * stride : (w + 1) * stride]
        out[:] = 0
        walk = walks[w]
        _gather(vectors, walk, nodes)
        _scores(nodes, nodes, centers, context, scores)
        loss, pairs = _derive(scores, walk, walk, context, np.float32(1), by_center, by_context)
        _add_rows(by_center, nodes, 1, context, positions, out[:centers])
        _add_rows(by_context, nodes, 1 - context, 0, centers, out[:positions])
        found[0] += loss
        found[1] += pairs
        for k in range(many):
            other[0], other[1:] = -1, negatives[w, k]
            _gather(vectors, other, drawn)
            _scores(nodes, drawn, centers, context, scores)
            loss, pairs = _derive(
                scores, walk, other, context, np.float32(-1), by_center, by_context
            )
            found[0] += loss
            _add_rows(by_center, drawn, 1, context, positions, out[:centers])
            start = positions + k * (positions - 1) - 1  # one row ahead: position 0 has no negative
            _add_rows(by_context, nodes, 1 - context, 0, centers, out[start : start + positions])


@compiled
def _gather(vectors, ids, out):
    """out[i] = vectors[ids[i]], 0 for an id below 0."""
    for i in range(len(ids)):
        source, target = vectors[max(ids[i], 0)], out[i]
        factor = np.float32(ids[i] >= 0)
        for d in range(len(target)):
            target[d] = factor * source[d]


@vector_compiled
def _scores(x, y, centers, context, out):
    """out[i, j] = x[i] . y[j] for j in [i + 1, i + context), two rows of x and four of y at a
    time."""
    zero = np.float32(0)
    for i in range(0, centers, 2):
        x0, x1 = x[i], x[i + 1]
        for j in range(i + 1, i + context + 1, TILE):
            y0, y1, y2, y3 = y[j], y[j + 1], y[j + 2], y[j + 3]
            a0, a1, a2, a3, b0, b1, b2, b3 = zero, zero, zero, zero, zero, zero, zero, zero
            for d in range(len(x0)):
                a0 += x0[d] * y0[d]
                a1 += x0[d] * y1[d]
                a2 += x0[d] * y2[d]
                a3 += x0[d] * y3[d]
                b0 += x1[d] * y0[d]
                b1 += x1[d] * y1[d]
                b2 += x1[d] * y2[d]
                b3 += x1[d] * y3[d]
            out[i, j], out[i, j + 1], out[i, j + 2], out[i, j + 3] = a0, a1, a2, a3
            out[i + 1, j], out[i + 1, j + 1], out[i + 1, j + 2], out[i + 1, j + 3] = b0, b1, b2, b3


@vector_compiled
def _derive(scores, walk, other, context, sign, by_center, by_context):
    """Derivatives of the losses -log sigmoid(sign * score) of the pairs (walk[i], other[j]), to
    by_center[i, j] and by_context[j, i], 0 where there is no pair; (sum of losses, pairs)."""
    loss, pairs = 0.0, 0
    one = np.float32(1)
    for i in range(len(by_center)):
        linear, product = np.float32(0), 1.0  # one logarithm a center, not one a pair
        for j in range(i + 1, i + context):
            slope = np.float32(0)
            if walk[j] >= 0 and walk[j] != walk[i] and other[j] != walk[i]:
                score = sign * scores[i, j]
                small = math.exp(-abs(score))  # in (0, 1]: nothing overflows
                slope = -sign * (small if score > 0 else one) / (one + small)
                linear += max(-score, np.float32(0))
                product *= np.float64(one + small)
                pairs += 1
            by_center[i, j] = by_context[j, i] = slope
        loss += np.float64(linear) + math.log(product)
    return loss, pairs


@vector_compiled
def _add_rows(factors, x, low, high, columns, out):
    """out[r] += the sum of factors[r, c] * x[c] over c in [r + low, r + high) within [0,
    columns); factors are 0 for three columns beyond."""
    for r in range(len(out)):
        total = out[r]
        for c in range(max(r + low, 0), min(r + high, columns), TILE):
            x0, x1, x2, x3 = x[c], x[c + 1], x[c + 2], x[c + 3]
            f0, f1, f2, f3 = factors[r, c], factors[r, c + 1], factors[r, c + 2], factors[r, c + 3]
            for d in range(len(total)):
                total[d] += f0 * x0[d] + f1 * x1[d] + f2 * x2[d] + f3 * x3[d]


@vector_compiled
def _update(
    vectors, mean, square, gradients, ids, places, starts, share, rate, first, last
):  # fmt: skip
    """One step of Adam for the distinct rows [first, last). share: one over the pairs."""
    decay_1, decay_2 = np.float32(1 - BETA_1), np.float32(1 - BETA_2)
    total = np.empty(vectors.shape[1], np.float32)
    for r in range(first, last):
        total[:] = 0
        for e in range(starts[r], starts[r + 1]):
            part = gradients[places[e]]
            for d in range(len(total)):
                total[d] += part[d]
        node = ids[places[starts[r]]]
        x, m, s = vectors[node], mean[node], square[node]
        for d in range(len(total)):
            g = total[d] * share
            m[d] += (g - m[d]) * decay_1
            s[d] += (g * g - s[d]) * decay_2
            x[d] -= rate * m[d] / (np.sqrt(s[d]) + np.float32(EPSILON))
