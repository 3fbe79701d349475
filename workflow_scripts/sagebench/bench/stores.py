"""The graphs that the benchmark runs on: made once, kept under results/stores like any other."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from sagebench.bench.processes import SCRIPTS, MeasurementFailed
from sagebench.errors import UserError
from sagebench.files import read_json, write_json
from sagebench.grid.trial import store_name

MANIFEST = "manifest.json"


def prepare_store(dataset: dict[str, Any], stores: Path) -> Path:
    """The store of `dataset` in the folder `stores`; built if it is not there."""
    folder = stores / store_name(dataset)
    if not (folder / MANIFEST).exists():
        # In a process of its own: building takes gigabytes that would stay with this one.
        command = [sys.executable, str(SCRIPTS / "build_graph.py")]
        command += ["--spec", json.dumps(dataset), "--out", str(folder)]
        if subprocess.run(command, stdout=sys.stderr, check=False).returncode:
            raise UserError(f"the benchmark's graph could not be built in {folder}: see above")
    return folder


def dataset_of(store: Path) -> dict[str, Any]:
    """The data set that a store was made from."""
    try:
        return read_json(store / MANIFEST)["source"]
    except (OSError, ValueError, KeyError):
        raise UserError(f"{store} is no graph store: give one, or leave --store away") from None


def short_store(store: Path, folder: Path, *, train: int, others: int) -> Path:
    """The same graph with only so many nodes to train on, and to validate and test on, so that a
    whole trial is short. Its arrays are links to those of `store`."""
    manifest = read_json(store / MANIFEST)
    folder.mkdir(parents=True)
    for name, described in manifest["arrays"].items():
        file = described["file"]
        if name not in ("train", "valid", "test"):
            (folder / file).symlink_to((store / file).resolve())
            continue
        ids = np.load(store / file)
        count = train if name == "train" else others
        if len(ids) < count:
            raise MeasurementFailed(f"the graph has {len(ids)} nodes in {name}, not {count}")
        chosen = np.sort(np.random.default_rng(0).choice(ids, count, replace=False))
        np.save(folder / file, chosen)
        described["shape"] = [count]
    write_json(folder / MANIFEST, manifest)
    return folder
