"""A user's own graph: an .npz file, or a folder of .npy files, with these arrays.

edge_index         integers [2, E]: u (row 0) -> v (row 1); v aggregates u
x                  numbers [N, F], stored as float32
y                  integers [N] or [N, 1]: classes 0, 1, 2, ...
train, valid, test integers: node ids, or boolean masks [N]
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sagebench.errors import UserError
from sagebench.graph.files import require_file, require_sha256, sha256_of
from sagebench.graph.sources import flag

KEYS = ("path", "undirected", "num_classes", "unlabelled", "sha256")
ARRAYS = ("edge_index", "x", "y", "train", "valid", "test")


def load(spec: Mapping[str, Any], downloads: Path) -> dict[str, Any]:
    """path: the .npz or the folder, from the folder where the command runs.

    undirected (false): each edge counts in both directions. num_classes (largest label + 1).
    unlabelled (false): y may be -1 for nodes in no split. sha256: of the .npz, checked if given.
    """
    if not isinstance(spec.get("path"), str):
        raise UserError("path is missing; give the path of an .npz file or a folder of .npy files")
    num_classes = spec.get("num_classes")
    if num_classes is not None and (type(num_classes) is not int or num_classes < 2):
        raise UserError(f"num_classes: {num_classes!r} is no number of classes; write 2 or more")
    path = Path(spec["path"])
    provenance = {"path": str(path.resolve())}
    if path.is_dir():
        arrays = _read_folder(path)
    else:
        require_file(path)
        if "sha256" in spec:
            require_sha256(path, str(spec["sha256"]))
        provenance["sha256"] = sha256_of(path)
        arrays = _read_npz(path)
    return {
        "edge_index": arrays["edge_index"],
        "undirected": flag(spec, "undirected"),
        "features": arrays["x"],
        "labels": arrays["y"],
        "splits": {name: arrays[name] for name in ("train", "valid", "test")},
        "num_classes": num_classes,
        "unlabelled": flag(spec, "unlabelled"),
        "provenance": provenance,
    }


def _read_npz(path: Path) -> dict[str, NDArray[Any]]:
    try:
        # Opened as a zip first: NumPy takes everything else for a pickle, and says so.
        with zipfile.ZipFile(path) as archive:
            names = {Path(name).stem for name in archive.namelist() if name.endswith(".npy")}
        _require_all(path, names)
        with np.load(path, allow_pickle=False) as npz:
            return {name: _read(f"{path}: {name}", lambda n=name: npz[n]) for name in ARRAYS}
    except zipfile.BadZipFile as error:
        raise UserError(
            f"{path} is no whole .npz file ({error}); write it with numpy.savez, and copy it whole"
        ) from None


def _read_folder(folder: Path) -> dict[str, NDArray[Any]]:
    _require_all(folder, {path.stem for path in folder.glob("*.npy")})
    return {
        name: _read(str(file), lambda f=file: np.load(f, mmap_mode="r", allow_pickle=False))
        for name, file in ((name, folder / f"{name}.npy") for name in ARRAYS)
    }


def _require_all(path: Path, names: set[str]) -> None:
    missing = [name for name in ARRAYS if name not in names]
    if missing:
        raise UserError(
            f"{path} has no {', '.join(missing)}; it has {', '.join(sorted(names)) or 'nothing'}, "
            f"and should have {', '.join(ARRAYS)}"
        )


def _read(place: str, read: Callable[[], NDArray[Any]]) -> NDArray[Any]:
    try:
        return read()
    except zipfile.BadZipFile:
        raise
    except (ValueError, OSError, EOFError, zlib.error) as error:
        if "allow_pickle" in str(error) or "Python objects" in str(error):
            raise UserError(
                f"{place} holds Python objects, which are never unpickled here; save plain numbers"
            ) from None
        raise UserError(f"{place} cannot be read ({error}); save it again") from None
