"""A made graph of ogbn-products' size and degrees, or smaller, with planted labels.

Built so, in this order:

- Nodes lie on a line, one class after the other (class sizes follow Zipf's law). Each has a
  degree to reach: lognormal, wider below the median than above, with a stretched tail that ends at
  ogbn-products' largest degree. The many nodes of few neighbors are those that samples miss.
- On the line a node is as long as its degree. A node casts half its degree as edges, to points
  near it on the line, to points anywhere in its class, or to points anywhere: so it receives the
  other half from others, in proportion to its degree. Points nearby make communities, without
  which a sampled neighborhood would have many more distinct nodes than in a real graph.
- Edges count in both directions; repeats and self loops are dropped.
- A share of the labels is drawn anew, so that no model reaches 100 %. Features are the centroid
  of the class plus noise so strong that a node's neighbors tell more than the node.
- The split is by popularity, as in ogbn-products, where it is the sales rank: a node comes early
  in it with a chance that grows with the square root of its degree. Ids follow the split: first
  train, then valid, then test. Within each they are shuffled: neighbors do not lie together there,
  either.

Every draw is keyed by (seed, part, chunk), so the graph depends on scale and seed alone.
The constants below are fitted at scale 1; `describe_graph.py` measures what comes out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sagebench.errors import UserError
from sagebench.graph.csc import colptr_of, edge_keys, row_of, sorted_unique

SOURCE = "a made graph of ogbn-products' size and degrees, with planted labels"
GROUPED = False
OPTIONS = {
    "scale": {
        "type": "number",
        "gt": 0,
        "le": 1,
        "example": 0.01,
        "default": 1.0,
        "help": "its number of nodes, as a share of ogbn-products'",
    },
    "seed": {"type": "seed", "default": 0, "help": "of its random numbers"},
}

# ogbn-products
NUM_NODES = 2_449_029
NUM_TRAIN, NUM_VALID = 196_615, 39_323
NUM_FEATURES = 100
NUM_CLASSES = 47

# Fitted to mean degree 50.5, median 26, maximum 17,500, homophily 0.81 and to what is known of
# samples: 517,522 distinct nodes for fanout [10, 10, 10] at batch 1,024; 1.2 to 1.4 million nodes
# and 5 to 6 million edges for [15, 10, 10, 10, 10] at batch 128.
DEGREE_MEDIAN = 25.3
DEGREE_SIGMA_BELOW, DEGREE_SIGMA = 2.0, 1.205  # of the degree's logarithm; below, above the median
TAIL_FROM, TAIL_STRETCH = 3.0, 0.40  # beyond 3 sigma the logarithm grows with the square, too
DEGREE_LIMIT = 20_300  # some of which is lost to repeats
NEAR_SHARE, CLASS_SHARE = 0.90, 0.025  # of the edges cast; the rest goes anywhere
NEAR_DEGREES = 200.0  # a node's vicinity on the line, in multiples of its own length
TURNS = 4  # of casting: each makes up for the repeats of those before
LABEL_NOISE = 0.06

CENTROID_SCALE = 0.07  # of a feature, against noise of 1

NODES_A_CHUNK = 1 << 16
FEATURE_ROWS_A_CHUNK = 1 << 14


def load(spec: Mapping[str, Any], downloads: Path) -> dict[str, Any]:
    scale, seed = spec["scale"], spec["seed"]
    num_nodes = round(scale * NUM_NODES)
    if num_nodes < 10 * NUM_CLASSES:
        raise UserError(
            f"scale: {scale} gives {num_nodes} nodes for {NUM_CLASSES} classes; write at least "
            f"{10 * NUM_CLASSES / NUM_NODES:.4f}"
        )
    train, valid = round(scale * NUM_TRAIN), round(scale * NUM_VALID)
    degrees = _degrees(seed, num_nodes)
    ids = _ids(seed, degrees, [train, train + valid])
    classes = _classes(num_nodes)
    csc = _edges(seed, degrees, classes, ids)
    labels = np.empty(num_nodes, np.int64)
    labels[ids] = np.repeat(np.arange(NUM_CLASSES), classes)
    noise = _random(seed, "label noise")
    drawn = labels[noise.integers(num_nodes, size=num_nodes)]  # of any node
    return {
        "csc": csc,
        "features": _features(seed, labels),
        "labels": np.where(noise.random(num_nodes) < LABEL_NOISE, drawn, labels),
        "num_classes": NUM_CLASSES,
        "splits": {
            "train": np.arange(train),
            "valid": np.arange(train, train + valid),
            "test": np.arange(train + valid, num_nodes),
        },
        "provenance": {"recipe": 2},  # counted up when a change makes another graph
    }


def _random(seed: int, part: str, *numbers: int) -> np.random.Generator:
    key = [seed, *part.encode(), *numbers]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


def _classes(num_nodes: int) -> NDArray[np.int64]:
    """Nodes a class, by Zipf's law; each has at least one."""
    share = 1 / np.arange(1, NUM_CLASSES + 1)
    ends = np.round(np.cumsum(share) / share.sum() * (num_nodes - NUM_CLASSES)).astype(np.int64)
    return np.diff(ends, prepend=0) + 1


def _degrees(seed: int, num_nodes: int) -> NDArray[np.float64]:
    """The degree that each position on the line is to have."""
    z = _random(seed, "degrees").standard_normal(num_nodes)
    tail = np.maximum(z - TAIL_FROM, 0)
    sigma = np.where(z < 0, DEGREE_SIGMA_BELOW, DEGREE_SIGMA)
    degrees = DEGREE_MEDIAN * np.exp(sigma * z + TAIL_STRETCH * tail**2)
    # Whole numbers: an exponential's last bit, which differs between CPUs, changes no edge.
    return np.rint(np.clip(degrees, 1, min(DEGREE_LIMIT, num_nodes / 10)))


def _ids(seed: int, degrees: NDArray[np.float64], split_ends: list[int]) -> NDArray[np.int64]:
    """The node id of each position on the line. split_ends: first ids of valid and test."""
    # As in a race in which a node runs with speed sqrt(degree).
    arrival = _random(seed, "popularity").standard_exponential(len(degrees)) / np.sqrt(degrees)
    ids = np.empty(len(degrees), np.int64)
    first = 0
    for positions in np.split(np.argsort(arrival, kind="stable"), split_ends):
        shuffled = _random(seed, "ids", first).permutation(len(positions))
        ids[positions] = first + shuffled
        first += len(positions)
    return ids


def _edges(
    seed: int,
    wanted: NDArray[np.float64],
    classes: NDArray[np.int64],
    ids: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.integer[Any]]]:
    """CSC of the graph whose positions have the `wanted` degrees. Memory: 8 bytes an edge, and as
    much again while repeats are dropped."""
    num_nodes = len(ids)
    keys = np.empty(0, np.int64)
    colptr = np.zeros(num_nodes + 1, np.int64)
    for turn in range(TURNS):
        missing = np.maximum(wanted - np.diff(colptr)[ids], 0)
        keys = sorted_unique(np.concatenate([keys, *_cast(seed, turn, missing, classes, ids)]))
        colptr = colptr_of(keys, num_nodes)
    return colptr, row_of(keys, num_nodes)


def _cast(
    seed: int,
    turn: int,
    missing: NDArray[np.float64],
    classes: NDArray[np.int64],
    ids: NDArray[np.int64],
) -> Iterator[NDArray[np.int64]]:
    """Keys of new edges, both directions, for positions that miss so many neighbors."""
    num_nodes = len(ids)
    chance = _random(seed, "rounding", turn).random(num_nodes)
    cast = np.floor(missing / 2 + chance).astype(np.int64)
    ends = np.cumsum(missing)  # of the nodes on the line
    class_ends = np.concatenate([[0.0], ends[np.cumsum(classes) - 1]])
    class_of = np.repeat(np.arange(NUM_CLASSES), classes)
    for first in range(0, num_nodes, NODES_A_CHUNK):
        casts = cast[first : first + NODES_A_CHUNK]
        source = np.repeat(np.arange(first, first + len(casts)), casts)
        random = _random(seed, "edges", turn, first // NODES_A_CHUNK)
        kind, point = random.random(len(source)), random.random(len(source))
        near, anywhere = kind < NEAR_SHARE, kind >= NEAR_SHARE + CLASS_SHARE
        # The stretch of the line in which the other end lies: of the class, cut to the vicinity.
        low, high = class_ends[class_of[source]], class_ends[class_of[source] + 1]
        reach = NEAR_DEGREES / 2 * missing[source]
        low = np.where(near, np.maximum(low, ends[source] - reach), low)
        high = np.where(near, np.minimum(high, ends[source] + reach), high)
        low, high = np.where(anywhere, 0.0, low), np.where(anywhere, ends[-1], high)
        target = np.searchsorted(ends, low + point * (high - low), side="right")
        source, target = ids[source], ids[np.minimum(target, num_nodes - 1)]
        yield edge_keys(source, target, num_nodes)
        yield edge_keys(target, source, num_nodes)


def _features(seed: int, labels: NDArray[np.int64]) -> NDArray[np.float32]:
    centroids = _random(seed, "centroids").standard_normal((NUM_CLASSES, NUM_FEATURES), np.float32)
    centroids *= CENTROID_SCALE
    features = np.empty((len(labels), NUM_FEATURES), np.float32)
    for first in range(0, len(labels), FEATURE_ROWS_A_CHUNK):
        rows = features[first : first + FEATURE_ROWS_A_CHUNK]
        random = _random(seed, "features", first // FEATURE_ROWS_A_CHUNK)
        random.standard_normal(dtype=np.float32, out=rows)
        rows += centroids[labels[first : first + len(rows)]]
    return features
