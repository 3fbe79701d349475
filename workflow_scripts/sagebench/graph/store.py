"""Graph store: a folder of .npy arrays and a manifest, written atomically.

    colptr.npy    int64 [N+1]    column v's neighbors are row[colptr[v]:colptr[v+1]]
    row.npy       int32 [E]      (int64 beyond 2**31 nodes) the u of edges u -> v, ascending,
                                 without repeats and self loops
    features.npy  float32 [N, F]
    labels.npy    int64 [N]      0..num_classes-1; -1 only for nodes in no split
    train.npy, valid.npy, test.npy   int64 ids, ascending
    group.npy     int64 [N]      maybe: the group of each node, e.g. the source of a package
    unseen.npy    int64 ids      maybe: test nodes that are unseen (unseen.py), ascending
    whole_colptr.npy, whole_row.npy  where colptr and row lack the unseen nodes' edges: the graph
                                 with them
    manifest.json shapes, dtypes and checksums of these, the data set's spec, its provenance

Opened read-only and memory-mapped: all processes of a machine share one copy in the page cache.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sagebench.errors import UserError
from sagebench.files import hold, read_json, umask, write_json
from sagebench.graph import checks
from sagebench.graph.csc import csc_from_edges

FORMAT = 1
MANIFEST = "manifest.json"
ARRAYS = ("colptr", "row", "features", "labels", *checks.SPLITS)
MAYBE = ("group", "unseen", "whole_colptr", "whole_row")


@dataclass(frozen=True, eq=False)
class GraphStore:
    """A graph on disk; the module's docstring gives its arrays' shapes and dtypes."""

    path: Path
    manifest: dict[str, Any]
    colptr: NDArray[np.int64]
    row: NDArray[np.integer[Any]]
    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    train: NDArray[np.int64]
    valid: NDArray[np.int64]
    test: NDArray[np.int64]
    group: NDArray[np.int64] | None = None
    unseen: NDArray[np.int64] | None = None
    whole_colptr: NDArray[np.int64] | None = None
    whole_row: NDArray[np.integer[Any]] | None = None

    @classmethod
    def open(cls, folder: str | os.PathLike[str], verify: bool = False) -> GraphStore:
        """Map the store in `folder`.

        `verify` reads every byte and compares checksums. UserError: no store, or not a whole one.
        """
        folder = Path(folder)
        manifest = _read_manifest(folder)
        described = manifest["arrays"]
        names = [*ARRAYS, *(name for name in MAYBE if name in described)]
        arrays = {name: _open_array(folder, **described[name], verify=verify) for name in names}
        return cls(path=folder, manifest=manifest, **arrays)

    @property
    def whole(self) -> GraphStore:
        """The store with its whole graph, which is another than training's where unseen nodes are
        not in that."""
        if self.whole_colptr is None or self.whole_row is None:
            return self
        return replace(
            self,
            colptr=self.whole_colptr,
            row=self.whole_row,
            whole_colptr=None,
            whole_row=None,
        )

    num_nodes = property(lambda self: self.manifest["num_nodes"])
    num_edges = property(lambda self: len(self.row))
    num_features = property(lambda self: self.features.shape[1])
    num_classes = property(lambda self: self.manifest["num_classes"])
    checksum = property(lambda self: self.manifest["checksum"])

    def __reduce__(self) -> tuple[Any, ...]:
        # A worker process maps the files again; by default the arrays' contents would be sent.
        is_whole = self.whole_row is None and "whole_row" in self.manifest["arrays"]
        return (_open_whole if is_whole else GraphStore.open), (self.path,)


def _open_whole(folder: Path) -> GraphStore:
    return GraphStore.open(folder).whole


def write_store(
    folder: str | os.PathLike[str],
    *,
    features: ArrayLike,
    labels: ArrayLike,
    splits: Mapping[str, ArrayLike],
    source: Mapping[str, object],
    edge_index: ArrayLike = (),
    undirected: bool = False,
    csc: tuple[NDArray[np.int64], NDArray[np.integer[Any]]] | None = None,
    num_classes: int | None = None,
    unlabelled: bool = False,
    group: ArrayLike | None = None,
    provenance: Mapping[str, object] | None = None,
) -> GraphStore:
    """Check a graph, write it to `folder` in one move, and open it.

    features [N, F], labels [N], splits {"train", "valid", "test"}: ids or boolean masks, and the
    edges as `edge_index` [2, E] (u; v of u -> v, both directions with `undirected`) or as a
    finished `csc` (colptr, row). `group` [N] maybe is each node's group. `source` is the data set's
    spec, `provenance` what else one wants to know about its origin; both are JSON. A store that is
    already there is replaced at the end; after an error it is as before. UserError: the graph is no
    good (see `checks`).
    """
    features = checks.check_features(features)
    num_nodes, num_features = features.shape
    labels, num_classes = checks.check_labels(labels, num_nodes, num_classes, unlabelled)
    splits = checks.check_splits(splits, labels)
    if csc is None:
        edge_index = checks.check_edge_index(edge_index, num_nodes)
        csc = csc_from_edges(edge_index, num_nodes, undirected)
    colptr, row = csc
    arrays = {"colptr": colptr, "row": row, "features": features, "labels": labels, **splits}
    if group is not None:
        arrays["group"] = checks.check_group(group, num_nodes)
    sizes = {
        "num_nodes": num_nodes,
        "num_edges": len(row),
        "num_features": num_features,
        "num_classes": num_classes,
    }
    return _write(Path(folder), arrays, source, sizes, provenance or {})


def derive_store(
    folder: str | os.PathLike[str],
    base: GraphStore,
    changed: Mapping[str, NDArray[Any]],
    *,
    source: Mapping[str, object],
    provenance: Mapping[str, object],
) -> GraphStore:
    """Write the store of `base` with other arrays, by name, in one move, and open it. What is as in
    `base` is linked where the file system can, so that it takes no space."""
    sizes = {name: base.manifest[name] for name in ("num_nodes", "num_features", "num_classes")}
    sizes["num_edges"] = len(changed.get("row", base.row))
    return _write(Path(folder), changed, source, sizes, provenance, base)


def _write(
    folder: Path,
    arrays: Mapping[str, NDArray[Any]],
    source: Mapping[str, object],
    sizes: Mapping[str, int],
    provenance: Mapping[str, object],
    base: GraphStore | None = None,
) -> GraphStore:
    described = dict(base.manifest["arrays"]) if base else {}
    described |= {
        name: {
            "file": f"{name}.npy",
            "dtype": array.dtype.name,
            "shape": list(array.shape),
            "sha256": _sha256(array),
        }
        for name, array in arrays.items()
    }
    names = [name for name in (*ARRAYS, *MAYBE) if name in described]
    checksums = "".join(described[name]["sha256"] for name in names)
    manifest = {
        "format": FORMAT,
        "source": dict(source),
        **sizes,
        "checksum": hashlib.sha256(checksums.encode()).hexdigest(),
        "arrays": {name: described[name] for name in names},
        "provenance": dict(provenance),
    }
    with _replacing(folder) as building:
        for name in names:
            path = building / f"{name}.npy"
            if name in arrays:
                _save(path, arrays[name])
            elif base is not None:
                _link(base.path / described[name]["file"], path)
        write_json(building / MANIFEST, manifest)
    return GraphStore.open(folder)


def _link(file: Path, path: Path) -> None:
    """A store's files are replaced, never changed, so that two may be one."""
    try:
        os.link(file, path)
    except OSError:  # another file system, or one without links
        shutil.copyfile(file, path)


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest = read_json(path)
    except FileNotFoundError:
        why = f"{folder} is no graph store (no {MANIFEST}); build it with build_graph.py"
        raise UserError(why) from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); build the store again") from None
    if manifest.get("format") != FORMAT:
        raise UserError(
            f"{folder} has store format {manifest.get('format')}, this version reads {FORMAT}; "
            "build the store again"
        )
    return manifest


def _open_array(
    folder: Path, file: str, dtype: str, shape: list[int], sha256: str, verify: bool
) -> NDArray[Any]:
    try:
        # Read-only on purpose: a private writable mapping ("c") would count against the memory
        # limit of a trial (RLIMIT_DATA), shared read-only pages do not.
        array = np.load(folder / file, mmap_mode="r", allow_pickle=False)
        if (array.dtype.name, list(array.shape)) != (dtype, shape):
            found = f"{array.dtype.name} {list(array.shape)}"
            raise ValueError(f"it holds {found}, {MANIFEST} says {dtype} {shape}")
        if verify and _sha256(array) != sha256:
            raise ValueError(f"its checksum is not that in {MANIFEST}")
    except (OSError, ValueError, EOFError) as error:
        again = f"cannot be read ({error}); delete {folder} and build the store again"
        raise UserError(f"{folder / file} {again}") from None
    return array


def _sha256(array: NDArray[Any]) -> str:
    """Checksum of dtype, shape and values: NumPy versions pad a file's header differently."""
    array = np.ascontiguousarray(array)
    digest = hashlib.sha256(f"{array.dtype.str} {array.shape}\n".encode())
    digest.update(array.data.cast("B") if array.size else b"")
    return digest.hexdigest()


def _save(path: Path, array: NDArray[Any]) -> None:
    with path.open("wb") as file:
        np.save(file, array, allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """A hidden folder beside `folder` to write into; it takes its place at the end, or vanishes.

    A store may be replaced, somebody's other files may not. What killed builds left is removed: a
    running one holds a lock on its folder.
    """
    if folder.exists():
        known = {MANIFEST, *(f"{name}.npy" for name in (*ARRAYS, *MAYBE))}
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else [folder.name]
        foreign = sorted(set(names) - known)
        if foreign:
            raise UserError(
                f"{folder} has files that are no graph store's ({foreign[0]}); give another folder"
            )
    folder.parent.mkdir(parents=True, exist_ok=True)
    for kind in ("building", "old"):
        for leftover in folder.parent.glob(f".{glob.escape(folder.name)}.{kind}-*"):
            with contextlib.suppress(OSError), hold(leftover, flags=os.O_RDONLY):
                shutil.rmtree(leftover, ignore_errors=True)
    building = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.building-"))
    old = building.with_name(building.name.replace(".building-", ".old-"))
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # some file systems have no locks
            stack.enter_context(hold(building, flags=os.O_RDONLY))
        try:
            yield building
            building.chmod(0o777 & ~umask())
            if folder.exists():
                folder.rename(old)
            building.rename(folder)
            shutil.rmtree(old, ignore_errors=True)
        except BaseException:
            if old.exists() and not folder.exists():
                old.rename(folder)
            shutil.rmtree(building, ignore_errors=True)
            raise
