"""PubMed, the citation graph that ships with sagebench (data/README.md)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sagebench.graph.download import checked_sha256

SOURCE = "the citation graph that ships with sagebench"
OPTIONS = {
    "split": {
        "type": "choice",
        "choices": ["public", "large"],
        "help": "public: 60 / 500 / 1,000 nodes; large: 18,217 / 500 / 1,000",
    },
}
ARCHIVE = Path(__file__).resolve().parents[4] / "data" / "pubmed.npz"
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
    return {
        "edge_index": arrays["edge_index"],
        "undirected": True,
        "features": _dense(arrays),
        "labels": arrays["y"],
        "splits": splits,
        "provenance": {"file": ARCHIVE.name, "sha256": SHA256, "split": spec["split"]},
    }


def _dense(arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    features = np.zeros(tuple(arrays["x_shape"]), np.float32)
    rows = np.repeat(np.arange(len(features)), np.diff(arrays["x_indptr"]))
    features[rows, arrays["x_indices"]] = arrays["x_values"]
    return features
