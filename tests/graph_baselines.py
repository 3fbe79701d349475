"""What a graph's features and edges tell of its labels, without a GraphSAGE: ridge regression and
label propagation, by SciPy. The table in data/README.md comes from it.

    python tests/graph_baselines.py data/wordnet-3.1.npz data/debian.npz

Accuracies on the test nodes. A: the mean over a node's neighbors. Unseen: for training, the test
nodes and their edges are not there. Label propagation (Zhu and Ghahramani 2002): Y = A Y, training
nodes kept at their labels, 50 rounds from zero. By group: half of the groups to train on, a
quarter to test.
"""

from __future__ import annotations

import sys

import numpy as np
from scipy import sparse

ROUNDS, RIDGE, OTHER_SPLITS = 50, 1.0, 5


def mean_of_neighbors(edges, num_nodes):
    u, v = np.concatenate([edges, edges[::-1]], axis=1)
    sums = sparse.csr_matrix((np.ones(len(u), np.float32), (u, v)), (num_nodes, num_nodes))
    return sparse.diags(1 / np.maximum(np.diff(sums.indptr), 1)) @ sums


def label_propagation(mean, y, train, test):
    known = np.eye(y.max() + 1, dtype=np.float32)[y[train]]
    held = np.zeros((len(y), y.max() + 1), np.float32)
    for _ in range(ROUNDS):
        held[train] = known
        held = mean @ held
    return (held[test].argmax(1) == y[test]).mean()


def ridge(x_train, x_test, y, train, test):
    """x_train, x_test: lists of [N, F] whose training and test rows count."""
    x_train, x_test = (np.hstack([*x, np.ones((len(y), 1))]) for x in (x_train, x_test))
    x = x_train[train].astype(np.float64)
    targets = np.eye(y.max() + 1)[y[train]]
    weights = np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ targets)
    return ((x_test[test] @ weights).argmax(1) == y[test]).mean()


def figures(edges, x, y, train, test):
    mean = mean_of_neighbors(edges, len(y))
    unseen = np.isin(np.arange(len(y)), test)
    mean_seen = mean_of_neighbors(edges[:, ~unseen[edges].any(0)], len(y))
    hops, hops_seen = [x], [x]
    for _ in range(2):
        hops.append(mean @ hops[-1])
        hops_seen.append(mean_seen @ hops_seen[-1])
    yield "ridge on X", ridge(hops[:1], hops[:1], y, train, test)
    yield "ridge on [X, AX]", ridge(hops[:2], hops[:2], y, train, test)
    yield "ridge on [X, AX, A2X]", ridge(hops, hops, y, train, test)
    yield "the same, unseen", ridge(hops_seen, hops, y, train, test)
    yield "label propagation", label_propagation(mean, y, train, test)


def cut(part_of_node, num_parts, seed):
    """Training and test nodes: half, and a quarter, of the parts that nodes are in."""
    quarter = np.random.default_rng(seed).permutation(num_parts) * 4 // num_parts
    return np.flatnonzero(quarter[part_of_node] < 2), np.flatnonzero(quarter[part_of_node] == 3)


def main():
    for path in sys.argv[1:]:
        graph = np.load(path)
        edges, x, y = (graph[name] for name in ("edge_index", "x", "y"))
        degrees = np.bincount(edges.ravel(), minlength=len(y))
        print(f"\n{path}: {len(y):,} nodes, {edges.shape[1]:,} undirected edges")
        print(f"homophily {(y[edges[0]] == y[edges[1]]).mean():.3f}; isolated nodes", end=" ")
        print(f"{(degrees == 0).sum():,}; largest degree {degrees.max():,}")
        by_node, by_group = np.arange(len(y)), graph.get("group")
        splits = {"as made": (graph["train"], graph["test"])}
        if by_group is not None:
            splits["by node"] = cut(by_node, len(y), 0)
        for name, (train, test) in splits.items():
            for what, accuracy in figures(edges, x, y, train, test):
                print(f"{name:9} {what:22} {accuracy:.3f}")
        mean = mean_of_neighbors(edges, len(y))
        for name, part in (("by node", by_node), ("by group", by_group)):
            if part is not None:
                cuts = (cut(part, part.max() + 1, seed) for seed in range(1, OTHER_SPLITS + 1))
                found = [label_propagation(mean, y, *one) for one in cuts]
                spread = f"{min(found):.3f} to {max(found):.3f}"
                print(f"{name:9} label propagation      {spread} in {OTHER_SPLITS} other splits")


if __name__ == "__main__":
    main()
