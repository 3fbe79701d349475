"""ogbn-products and ogbn-arxiv, read straight from OGB's raw archive.

Of the ogb package only its table of data sets is read, as a file: importing ogb starts a network
thread, asks questions, and loads processed files that newer torch versions refuse.
Two layouts are known, both under one top folder of the zip:

    csv     raw/{edge,node-feat,node-label,num-node-list,num-edge-list}.csv.gz
    binary  raw/data.npz (edge_index, node_feat, num_nodes_list, num_edges_list)
            raw/node-label.npz (node_label)
    both    split/<scheme>/{train,valid,test}.csv.gz
"""

from __future__ import annotations

import csv
import gzip
import importlib.util
import sys
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from sagebench.errors import UserError
from sagebench.graph.checks import check_edge_index
from sagebench.graph.csc import csc_from_edges
from sagebench.graph.download import fetch
from sagebench.graph.files import require_file, require_sha256, sha256_of
from sagebench.graph.sources import flag

KEYS = ("ogb_name", "archive", "sha256", "undirected")
# Directed edges without repeats and self loops, where that is known: 61,859,140 raw ones, and
# their inverses, for ogbn-products.
EXPECTED_EDGES = {"ogbn-products": 123_718_024}
READ_BLOCK_BYTES = 1 << 24


def load(spec: Mapping[str, Any], downloads: Path) -> dict[str, Any]:
    """ogb_name: ogbn-products or ogbn-arxiv. archive: path of its zip; without it, it is fetched.

    sha256 of the archive: checked if given, recorded in any case. undirected: whether each edge
    counts in both directions; by default as ogb says (ogbn-products true, ogbn-arxiv false).
    """
    name = spec.get("ogb_name", spec.get("name"))
    about = _metadata(name)
    undirected = flag(spec, "undirected", about["add_inverse_edge"] == "True")
    sha256 = str(spec["sha256"]) if "sha256" in spec else None
    if "archive" in spec:
        archive = Path(spec["archive"])
        require_file(archive)
    else:
        archive = downloads / about["url"].rpartition("/")[2]
        fetch(about["url"], archive, sha256)
    if sha256 is not None:
        require_sha256(archive, sha256)
    with _opened(archive) as raw:
        binary = raw.top + "raw/data.npz" in raw.names
        graph = _read_binary(raw) if binary else _read_csv(raw)
        splits = {
            part: raw.table(f"split/{about['split']}/{part}.csv.gz", np.int64, columns=1)[:, 0]
            for part in ("train", "valid", "test")
        }
        num_nodes = len(graph["features"])
        edge_index = check_edge_index(graph.pop("edge_index"), num_nodes)
        graph["csc"] = csc_from_edges(edge_index, num_nodes, undirected)
    _compare_edges(name, undirected == (about["add_inverse_edge"] == "True"), graph["csc"][1])
    return {
        **graph,
        "splits": splits,
        "num_classes": int(about["num classes"]),
        "provenance": {
            "url": None if "archive" in spec else about["url"],
            "archive": archive.name,
            "archive_bytes": archive.stat().st_size,
            "sha256": sha256_of(archive),
            "ogb_version": about["version"],
            "split": about["split"],
            "undirected": undirected,
        },
    }


def _compare_edges(name: str, as_published: bool, row: NDArray[Any]) -> None:
    """Warn where a well-known graph has not its well-known size: another version, or not it."""
    expected = EXPECTED_EDGES.get(name)
    if as_published and expected is not None and len(row) != expected:
        print(
            f"warning: {name} has {len(row):,} directed edges here, {expected:,} elsewhere; is it "
            "the archive it should be?",
            file=sys.stderr,
        )


def _metadata(name: Any) -> dict[str, str]:
    """The column `name` of ogb's table of node data sets."""
    package = importlib.util.find_spec("ogb")
    if package is None or not package.submodule_search_locations:
        raise UserError("the ogb package is not installed; run pip install --no-deps ogb==1.3.6")
    table = Path(package.submodule_search_locations[0]) / "nodeproppred" / "master.csv"
    with table.open(newline="") as file:
        rows = {row.pop(""): row for row in csv.DictReader(file)}
    known = [
        column
        for column in rows["url"]
        if rows["is hetero"][column] == "False"
        and rows["task type"][column] == "multiclass classification"
    ]
    if name not in known:
        raise UserError(f"ogb_name: {name!r} is not known; write one of {', '.join(known)}")
    return {key: row[name] for key, row in rows.items()}


def _read_csv(raw: _Raw) -> dict[str, Any]:
    num_nodes = int(raw.table("raw/num-node-list.csv.gz", np.int64, columns=1).sum())
    num_edges = int(raw.table("raw/num-edge-list.csv.gz", np.int64, columns=1).sum())
    edges = raw.table("raw/edge.csv.gz", np.int32, rows=num_edges, columns=2)
    return {
        "edge_index": edges.T,
        "features": raw.table("raw/node-feat.csv.gz", np.float32, rows=num_nodes),
        "labels": raw.table("raw/node-label.csv.gz", np.int64, rows=num_nodes, columns=1),
    }


def _read_binary(raw: _Raw) -> dict[str, Any]:
    labels = raw.arrays("raw/node-label.npz", "node_label")["node_label"]
    arrays = raw.arrays("raw/data.npz", "edge_index", "node_feat")
    if labels.dtype.kind == "f":  # nodes without a label have NaN there
        labels = np.where(np.isnan(labels), -1, labels)
    return {
        "edge_index": arrays["edge_index"],
        "features": arrays["node_feat"],
        "labels": labels,
        "unlabelled": True,
    }


class _Raw:
    """The files of an open archive, by their names below its top folder."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self.archive = archive
        self.names = set(archive.namelist())
        self.top = next((name.split("/")[0] + "/" for name in sorted(self.names)), "")

    def table(
        self, name: str, dtype: type, rows: int | None = None, columns: int | None = None
    ) -> NDArray[Any]:
        """A csv.gz without a header as [rows, columns], parsed block by block.

        With `rows` known the blocks go straight into the array; else they are collected.
        """
        print(f"reading {name}", file=sys.stderr, flush=True)
        blocks = self._blocks(name, dtype, columns)
        if rows is None:
            return np.concatenate(list(blocks))
        table: NDArray[Any] | None = None
        at = 0
        for block in blocks:
            if table is None:
                table = np.empty((rows, block.shape[1]), dtype)
            if at + len(block) <= rows:
                table[at : at + len(block)] = block
            at += len(block)
        if table is None or at != rows:
            raise UserError(f"{name} has {at:,} lines where {rows:,} are announced; get it again")
        return table

    def _blocks(self, name: str, dtype: type, columns: int | None) -> Iterator[NDArray[Any]]:
        import pyarrow as pa
        import pyarrow.csv

        integers = np.issubdtype(dtype, np.integer)
        with self._member(name) as member, gzip.open(member) as text:
            first = text.readline().decode()
        found = first.count(",") + 1
        if columns is not None and found != columns:
            raise UserError(f"{name} has {found} columns, not {columns}; get the archive again")
        names = [str(column) for column in range(found)]
        kind = pa.int64() if integers else pa.float32()
        with self._member(name) as member, gzip.open(member) as text:
            try:
                reader = pyarrow.csv.open_csv(
                    text,
                    read_options=pyarrow.csv.ReadOptions(
                        column_names=names, block_size=READ_BLOCK_BYTES
                    ),
                    convert_options=pyarrow.csv.ConvertOptions(
                        column_types=dict.fromkeys(names, kind)
                    ),
                )
                for batch in reader:
                    block = np.empty((batch.num_rows, found), np.int64 if integers else dtype)
                    for column in range(found):
                        block[:, column] = batch.column(column).to_numpy(zero_copy_only=False)
                    yield _narrowed(name, block, dtype)
            except pa.ArrowInvalid as error:
                raise UserError(f"{name} is no table of numbers ({error})") from None

    def arrays(self, name: str, *wanted: str) -> dict[str, NDArray[Any]]:
        """The arrays `wanted` of an .npz inside the archive."""
        print(f"reading {name}", file=sys.stderr, flush=True)
        with self._member(name) as member, np.load(member, allow_pickle=False) as npz:
            missing = [array for array in wanted if array not in npz.files]
            if missing:
                raise UserError(f"{name} has no {', '.join(missing)}; get the archive again")
            return {array: npz[array] for array in wanted}

    @contextmanager
    def _member(self, name: str) -> Iterator[IO[bytes]]:
        if self.top + name not in self.names:
            raise UserError(
                f"the archive has no {self.top}{name}; give OGB's own zip, or delete it to have "
                "it downloaded again"
            )
        with self.archive.open(self.top + name) as file:
            yield file


def _narrowed(name: str, block: NDArray[Any], dtype: type) -> NDArray[Any]:
    """Integers in a narrower dtype, refused rather than wrapped around where they do not fit."""
    if block.dtype != dtype and block.size:
        limits = np.iinfo(dtype)
        if block.min() < limits.min or block.max() > limits.max:
            raise UserError(f"{name} holds {block.max()}, which is no node id; get it again")
    return block.astype(dtype, copy=False)


@contextmanager
def _opened(archive: Path) -> Iterator[_Raw]:
    try:
        with zipfile.ZipFile(archive) as opened:
            yield _Raw(opened)
    except (zipfile.BadZipFile, zlib.error, EOFError, gzip.BadGzipFile) as error:
        raise UserError(
            f"{archive} is damaged or cut short ({error}); delete it and get it again"
        ) from None
    except UserError as error:
        raise UserError(f"{archive}: {error}") from None
