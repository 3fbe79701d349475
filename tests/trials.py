"""Trials and stores for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from graphs import random_csc
from sagebench.graph.store import GraphStore, write_store
from sagebench.grid.trial import Trial

DATASET = {"name": "tiny", "source": "arrays", "path": "tiny.npz"}


def make_trial(**values) -> Trial:
    """A trial on `tiny_store` that takes a second; `values` override."""
    return Trial.from_json(
        {
            "dataset": DATASET,
            "layers": 3,
            "hidden_channels": 16,
            "dropout": 0.0,
            "batch_size": 16,
            "accumulation": 2,
            "fanout": [4, 3, 2],
            "epochs": 2,
            "threads_per_rank": 1,
            "learning_rate": 0.01,
            "learning_rate_scaling": "none",
            "phase_window_steps": 2,
            "device": "cpu",
            "machine": "test",
            **values,
        }
    )


def endless_trial(**values) -> Trial:
    """A trial on `tiny_store` that ends only when it is stopped."""
    return make_trial(epochs=100_000, patience_evaluations=None, **values)


def step_trial(**values) -> Trial:
    """A trial of `tiny_store` whose step takes more than the objects around it."""
    return make_trial(
        **{
            "fanout": [6, 5, 4],
            "hidden_channels": 128,
            "dropout": 0.5,
            "batch_size": 48,
            "sampling_workers": 0,
            **values,
        }
    )


def tiny_store(folder: Path, nodes: int = 1500, train: int = 389, hub: int = 0) -> GraphStore:
    """A random graph whose labels follow from the features; train nodes are 0 to `train` - 1.

    hub: give train node 0 that many neighbors, so that its micro-batch alone is large.
    """
    colptr, row = random_csc(nodes, 12 * nodes, seed=1)
    if hub:
        colptr, row = add_hub(colptr, row, hub)
    rng = np.random.default_rng(0)
    features = rng.standard_normal((nodes, 10)).astype(np.float32)
    labels = features[:, :4].argmax(1)
    ids = np.arange(nodes)
    return write_store(
        folder,
        features=features,
        labels=labels,
        splits={
            "train": ids[:train],
            "valid": ids[train : train + 200],
            "test": ids[train + 200 : train + 500],
        },
        csc=(colptr, row),
        source=DATASET,
    )


def sparse_store(folder: Path, nodes: int = 1500, train: int = 389) -> GraphStore:
    """As `tiny_store`, of a tree of stars: most nodes have one neighbor."""
    rng = np.random.default_rng(2)
    ids = rng.permutation(nodes)
    parent = np.where(np.arange(nodes) % 4, np.arange(nodes) // 4 * 4, np.arange(nodes) // 16)
    features = rng.standard_normal((nodes, 10)).astype(np.float32)
    return write_store(
        folder,
        features=features,
        labels=features[:, :4].argmax(1),
        splits={
            "train": ids[:train],
            "valid": ids[train : train + 200],
            "test": ids[train + 200 :],
        },
        edge_index=np.stack([np.arange(nodes), parent]),
        undirected=True,
        source=DATASET,
    )


def add_hub(colptr: np.ndarray, row: np.ndarray, degree: int) -> tuple[np.ndarray, np.ndarray]:
    """The same graph with the neighbors 1 to `degree` for node 0."""
    neighbors = np.arange(1, degree + 1, dtype=row.dtype)
    shifted = colptr + (degree - colptr[1])
    shifted[0] = 0
    return shifted, np.concatenate([neighbors, row[colptr[1] :]])
