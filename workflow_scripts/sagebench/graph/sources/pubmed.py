"""PubMed, the citation graph that ships with sagebench (data/README.md)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sagebench.graph.download import checked_sha256

SOURCE = "the citation graph that ships with sagebench"
GROUPED = False
OPTIONS = {
    "split": {
        "type": "choice",
        "choices": ["public", "large", "glnn"],
        "drawn": ["glnn"],
        "help": "public: 60 / 500 / 1,000 nodes; large: 18,217 / 500 / 1,000; glnn: 60 / 90 / "
        "19,567, drawn as GLNN (Zhang et al. 2022) does",
    },
}
ARCHIVE = Path(__file__).resolve().parents[4] / "data" / "pubmed.npz"
GLNN = {"train": 20, "valid": 30}
"""nodes of each class; all others are tested"""
SHA256 = "93c132f8e3c463cecb40b69a27ab2596466d4c83c509d104a632512a165f2460"


def load(spec: Mapping[str, Any], downloads: Path) -> dict[str, Any]:
    checked_sha256(ARCHIVE, SHA256)
    with np.load(ARCHIVE, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    splits = {name: arrays[name] for name in ("train", "valid", "test")}
    if spec["split"] == "large":
        others = np.ones(len(arrays["y"]), bool)
        others[splits["valid"]] = others[splits["test"]] = False
        splits["train"] = np.flatnonzero(others)
    if spec["split"] == "glnn":
        splits = _drawn_split(arrays["y"], spec["split_seed"])
    return {
        "edge_index": arrays["edge_index"],
        "undirected": True,
        "features": _dense(arrays),
        "labels": arrays["y"],
        "splits": splits,
        "provenance": {"file": ARCHIVE.name, "sha256": SHA256, "split": spec["split"]},
    }


def _drawn_split(labels: NDArray[Any], seed: int) -> dict[str, NDArray[Any]]:
    """As many nodes of each class as GLNN says."""
    random = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *b"split"])))
    ends = np.cumsum(list(GLNN.values()))
    pieces = [
        np.split(random.permutation(np.flatnonzero(labels == one)), ends)
        for one in np.unique(labels)
    ]
    parts = zip(*pieces, strict=True)
    return {name: np.concatenate(part) for name, part in zip((*GLNN, "test"), parts, strict=True)}


def _dense(arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    features = np.zeros(tuple(arrays["x_shape"]), np.float32)
    rows = np.repeat(np.arange(len(features)), np.diff(arrays["x_indptr"]))
    features[rows, arrays["x_indices"]] = arrays["x_values"]
    return features
