"""Skip-gram beside gensim's on the same walks: pairs a second, and what a logistic regression makes
of the vectors."""

from __future__ import annotations

import time
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from sagebench.embedding.skipgram import SkipGram, first_vectors
from sagebench.embedding.train import Settings
from sagebench.embedding.walks import Walker
from sagebench.graph.store import GraphStore
from sagebench.sampling.order import SeedOrder

WHOLE_UP_TO = 20_000
"""nodes with neighbors: a graph with no more is embedded whole, and accuracies are compared"""
START_NODES = 2048
"""of a larger one"""
LABELLED = 0.1
"""share of the nodes that the regression is fitted on; it is tested on the others"""

Vectors = np.ndarray


def compare(graph: GraphStore, threads: int, seeds: int) -> dict[str, list[float]]:
    """The figures of ours and, where it is installed, of gensim's, turn by turn, one a seed.

    One pass, one negative a pair, OGB's settings. The walks are made beforehand, and so is
    gensim's vocabulary. gensim's window reaches as far as ours, to both sides of every node, and
    is not shrunk at random.
    """
    settings = Settings()
    walker = Walker(graph.colptr, graph.row, threads=threads)
    whole = len(walker.connected) <= WHOLE_UP_TO
    found: dict[str, list[float]] = {}
    peers = {"": ours, **({"gensim_": gensims} if find_spec("gensim") else {})}
    for seed in range(seeds):
        order = SeedOrder(walker.connected, settings.batch_size, 1, 1, seed).permutation(1)
        starts = order if whole else order[:START_NODES]
        for prefix, train in peers.items():
            vectors, pairs, seconds = train(walker, starts, settings, seed, threads)
            found.setdefault(f"{prefix}pairs_per_s", []).append(pairs / seconds)
            found.setdefault(f"{prefix}pairs", []).append(pairs)
            if whole:
                accuracy = probe(vectors[walker.connected], graph.labels[walker.connected], seed)
                found.setdefault(f"{prefix}accuracy", []).append(accuracy)
    return found


def ours(
    walker: Walker, starts: np.ndarray, settings: Settings, seed: int, threads: int
) -> tuple[Vectors, int, float]:
    """Vectors, pairs, seconds."""
    numbers = range(settings.walks_per_node)
    vectors = first_vectors(np.arange(len(walker.colptr) - 1), settings.dimension, seed)
    shape = settings.negatives, settings.walk_length

    def step(model: SkipGram, batch: np.ndarray) -> tuple[int, float]:
        walks = walker.walks(batch, numbers, settings.walk_length, seed, 1)
        start = time.perf_counter()
        model.step(walks, walker.negatives(batch, numbers, shape, seed, 1))
        return trained_pairs(walks, settings.context), time.perf_counter() - start

    how = settings.context, settings.learning_rate, threads
    batches = [
        starts[i : i + settings.batch_size] for i in range(0, len(starts), settings.batch_size)
    ]
    step(SkipGram(vectors.copy(), *how), batches[0])  # compiles the loops
    model = SkipGram(vectors, *how)
    pairs, seconds = zip(*(step(model, batch) for batch in batches), strict=True)
    return vectors, sum(pairs), sum(seconds)


def trained_pairs(walks: np.ndarray, context: int) -> int:
    centers = walks.shape[1] + 1 - context
    return sum(
        int(((walks[:, :centers] != other) & (other >= 0)).sum())
        for other in (walks[:, reach : reach + centers] for reach in range(1, context))
    )


def gensims(
    walker: Walker, starts: np.ndarray, settings: Settings, seed: int, threads: int
) -> tuple[Vectors, int, float]:
    """As `ours`, by gensim.models.Word2Vec."""
    from gensim.models import Word2Vec

    numbers = range(settings.walks_per_node)
    walks = walker.walks(starts, numbers, settings.walk_length, seed, 1)
    corpus = [[str(v) for v in walk if v >= 0] for walk in walks.tolist()]
    reach = settings.context - 1
    model = Word2Vec(
        vector_size=settings.dimension, window=reach, shrink_windows=False, sg=1,
        negative=settings.negatives, sample=0, min_count=1, workers=threads, seed=seed,
    )  # fmt: skip
    model.build_vocab(corpus)
    begin = time.perf_counter()
    model.train(corpus, total_examples=len(corpus), epochs=1)
    seconds = time.perf_counter() - begin
    lengths = (walks >= 0).sum(1)
    pairs = 2 * sum(int(np.maximum(lengths - apart, 0).sum()) for apart in range(1, reach + 1))
    vectors = np.zeros((len(walker.colptr) - 1, settings.dimension), np.float32)
    vectors[[int(word) for word in model.wv.index_to_key]] = model.wv.vectors
    return vectors, pairs, seconds


def probe(vectors: Vectors, labels: np.ndarray, seed: int) -> float:
    """Accuracy of a logistic regression (weight decay 1 over the labelled nodes, on vectors of mean
    0 and mean square 1), fitted on a random share of the nodes and tested on the others."""
    order = SeedOrder(np.arange(len(vectors)), 1, 1, 1, seed).permutation(2)
    fitted, tested = torch.from_numpy(order).tensor_split([int(LABELLED * len(order))])
    x = torch.from_numpy(vectors).double()
    x = x - x.mean(0)
    x = x / x.square().mean().sqrt()
    y = torch.from_numpy(np.asarray(labels))
    weight = torch.zeros(x.shape[1], int(y.max()) + 1, dtype=x.dtype, requires_grad=True)
    bias = torch.zeros(weight.shape[1], dtype=x.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Any:
        optimizer.zero_grad()
        loss = cross_entropy(x[fitted] @ weight + bias, y[fitted])
        loss = loss + weight.square().sum() / (2 * len(fitted))
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        return ((x[tested] @ weight + bias).argmax(1) == y[tested]).double().mean().item()
