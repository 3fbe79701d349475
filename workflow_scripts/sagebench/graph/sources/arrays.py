"""A user's own graph.

An .npz file, or a folder of .npy files, with these arrays:

edge_index         integers [2, E]: u (row 0) -> v (row 1); v aggregates u
x                  numbers [N, F], stored as float32
y                  integers [N] or [N, 1]: classes 0, 1, 2, ...
train, valid, test integers: node ids, or boolean masks [N]
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sagebench.errors import UserError
from sagebench.graph.download import checked_sha256

SOURCE = "a graph of one's own, in NumPy arrays"
OPTIONS = {
    "path": {
        "type": "path",
        "help": "an .npz file or a folder of .npy files: edge_index, x, y, train, valid, test",
    },
    "undirected": {
        "type": "switch",
        "default": None,
        "help": "true: each edge counts in both directions",
    },
    "num_classes": {
        "type": "whole",
        "low": 2,
        "example": 10,
        "default": None,
        "help": "null: the largest label and one; give it where a class has no node",
    },
    "unlabelled": {
        "type": "switch",
        "default": None,
        "help": "true: y may be -1 for nodes in no split",
    },
    "sha256": {
        "type": "sha256",
        "default": None,
        "help": "of the .npz; null: not checked, only recorded in the manifest",
    },
}
ARRAYS = ("edge_index", "x", "y", "train", "valid", "test")


def load(spec: Mapping[str, Any], downloads: Path) -> dict[str, Any]:
    path = Path(spec["path"])
    provenance = {"path": str(path.resolve())}
    if not path.is_dir():
        provenance["sha256"] = checked_sha256(path, spec["sha256"])
    arrays = _read_folder(path) if path.is_dir() else _read_npz(path)
    return {
        "edge_index": arrays["edge_index"],
        "undirected": bool(spec["undirected"]),
        "features": arrays["x"],
        "labels": arrays["y"],
        "splits": {name: arrays[name] for name in ("train", "valid", "test")},
        "num_classes": spec["num_classes"],
        "unlabelled": bool(spec["unlabelled"]),
        "provenance": provenance,
    }


def _read_folder(folder: Path) -> dict[str, NDArray[Any]]:
    files = {file.stem: file for file in folder.glob("*.npy")}
    _require_all(folder, files)
    return {
        name: _read(files[name], lambda file: np.load(file, mmap_mode="r", allow_pickle=False))
        for name in ARRAYS
    }


def _read_npz(path: Path) -> dict[str, NDArray[Any]]:
    try:
        # Opened as a zip first: NumPy takes everything else for a pickle, and says so.
        with zipfile.ZipFile(path) as archive:
            _require_all(path, [Path(name).stem for name in archive.namelist()])
        with np.load(path, allow_pickle=False) as npz:
            return {name: _read(name, lambda name: npz[name], f"{path}: ") for name in ARRAYS}
    except zipfile.BadZipFile as error:
        raise UserError(
            f"{path} is no whole .npz file ({error}); write it with numpy.savez, and copy it whole"
        ) from None


def _require_all(path: Path, names: Collection[str]) -> None:
    missing = [name for name in ARRAYS if name not in names]
    if missing:
        raise UserError(
            f"{path} has no {', '.join(missing)}; it has {', '.join(sorted(names)) or 'nothing'}, "
            f"and should have {', '.join(ARRAYS)}"
        )


def _read(place: Any, read: Callable[[Any], NDArray[Any]], within: str = "") -> NDArray[Any]:
    try:
        return read(place)
    except (ValueError, OSError, EOFError, zlib.error) as error:
        if "allow_pickle" in str(error) or "Python objects" in str(error):
            raise UserError(
                f"{within}{place} holds Python objects, which are never unpickled here; save plain "
                "numbers"
            ) from None
        raise UserError(f"{within}{place} cannot be read ({error}); save it again") from None
