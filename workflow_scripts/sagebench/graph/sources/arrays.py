"""A user's own graph.

An .npz file, or a folder of .npy files, with these arrays:

edge_index         integers [2, E]: u (row 0) -> v (row 1); v aggregates u
x                  numbers [N, F], stored as float32
y                  integers [N] or [N, 1]: classes 0, 1, 2, ...
train, valid, test integers: node ids, or boolean masks [N]
group              maybe, integers [N]: the group of each node, e.g. the source of a package
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sagebench.errors import UserError
from sagebench.graph.checks import SPLITS
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
ARRAYS = ("edge_index", "x", "y", *SPLITS)
MAYBE = "group"


def load(spec: Mapping[str, Any], downloads: Path) -> dict[str, Any]:
    path = Path(spec["path"])
    provenance = {"path": str(path.resolve())}
    if not path.is_dir():
        provenance["sha256"] = checked_sha256(path, spec["sha256"])
    arrays = _read(path)
    return {
        "edge_index": arrays["edge_index"],
        "undirected": bool(spec["undirected"]),
        "features": arrays["x"],
        "labels": arrays["y"],
        "splits": {name: arrays[name] for name in SPLITS},
        "group": arrays.get(MAYBE),
        "num_classes": spec["num_classes"],
        "unlabelled": bool(spec["unlabelled"]),
        "provenance": provenance,
    }


def _read(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays in a folder, memory-mapped, or in an .npz."""
    arrays, at = {}, path
    with ExitStack() as stack:
        try:
            if path.is_dir():
                files = {
                    file.stem: partial(np.load, file, mmap_mode="r") for file in path.glob("*.npy")
                }
            else:
                # Opened as a zip first: NumPy takes everything else for a pickle, and says so.
                stack.enter_context(zipfile.ZipFile(path))
                npz = stack.enter_context(np.load(path))
                files = {name: partial(npz.__getitem__, name) for name in npz.files}
            if missing := [name for name in ARRAYS if name not in files]:
                raise UserError(
                    f"{path} has no {', '.join(missing)}; it has "
                    f"{', '.join(sorted(files)) or 'nothing'}, and should have {', '.join(ARRAYS)}"
                )
            for name in [*ARRAYS, *({MAYBE} & files.keys())]:
                at = path / f"{name}.npy"
                arrays[name] = files[name]()
        except zipfile.BadZipFile as error:
            raise UserError(
                f"{path} is no whole .npz file ({error}); write it with numpy.savez, and copy it "
                "whole"
            ) from None
        except (ValueError, OSError, EOFError, zlib.error) as error:
            if "allow_pickle" in str(error) or "Python objects" in str(error):
                advice = "holds Python objects, which are never unpickled here; save plain numbers"
            else:
                advice = f"cannot be read ({error}); save it again"
            raise UserError(f"{at} {advice}") from None
    return arrays
