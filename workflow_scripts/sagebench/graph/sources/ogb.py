"""A graph of the Open Graph Benchmark, from its raw archive.

Of the ogb package only its table of data sets is read, as a file: importing ogb starts a network
thread, asks questions, and loads processed files that newer torch versions refuse.
Two layouts are known, both under one top folder of the zip:

    csv     raw/{edge,node-feat,node-label}.csv.gz
    binary  raw/data.npz (edge_index, node_feat)
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
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from sagebench.errors import UserError
from sagebench.graph.checks import SPLITS
from sagebench.graph.download import checked_sha256, fetch

SOURCE = "a graph of the Open Graph Benchmark, from its raw archive"
GROUPED = False
OPTIONS = {
    "ogb_name": {
        "type": "choice",
        "choices": ["ogbn-products", "ogbn-arxiv", "ogbn-papers100M"],
        "help": "which graph",
    },
    "archive": {
        "type": "path",
        "default": None,
        "help": "path of an archive already there; null: it is downloaded",
    },
    "sha256": {
        "type": "sha256",
        "default": None,
        "help": "what the archive must hash to; null: not checked, only recorded in the manifest",
    },
    "undirected": {
        "type": "flag",
        "default": None,
        "help": "whether each edge counts in both directions; null: as OGB says",
    },
}


def load(spec: Mapping[str, Any], downloads: Path) -> dict[str, Any]:
    name, sha256 = spec["ogb_name"], spec["sha256"]
    about = _metadata(name)
    undirected = spec["undirected"]
    if undirected is None:
        undirected = about["add_inverse_edge"] == "True"
    if spec["archive"] is None:
        archive = downloads / about["url"].rpartition("/")[2]
        fetch(about["url"], archive, sha256)
    else:
        archive = Path(spec["archive"])
    sha256 = checked_sha256(archive, sha256)
    try:
        with zipfile.ZipFile(archive) as opened:
            top = next(zipfile.Path(opened).iterdir(), zipfile.Path(opened))
            graph, splits = _read(top, about["split"])
    except (zipfile.BadZipFile, zlib.error, EOFError, gzip.BadGzipFile) as error:
        raise UserError(
            f"{archive} is damaged or cut short ({error}); delete it and get it again"
        ) from None
    except UserError as error:
        raise UserError(f"{archive}: {error}") from None
    return {
        **graph,
        "undirected": undirected,
        "splits": splits,
        "num_classes": int(about["num classes"]),
        "provenance": {
            "url": about["url"] if spec["archive"] is None else None,
            "archive": archive.name,
            "archive_bytes": archive.stat().st_size,
            "sha256": sha256,
            "ogb_version": about["version"],
            "split": about["split"],
            "undirected": undirected,
        },
    }


def _metadata(name: str) -> dict[str, str]:
    """The column `name` of ogb's table of node data sets."""
    package = importlib.util.find_spec("ogb")
    if package is None or not package.submodule_search_locations:
        raise UserError("the ogb package is not installed; run pip install --no-deps ogb==1.3.6")
    table = Path(package.submodule_search_locations[0]) / "nodeproppred" / "master.csv"
    with table.open(newline="") as file:
        return {row[""]: row[name] for row in csv.DictReader(file)}


def _read(top: zipfile.Path, split: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The graph and its splits, from an archive's top folder."""
    if (top / "raw/data.npz").exists():
        arrays = _arrays(top, "raw/data.npz", "edge_index", "node_feat")
        labels = _arrays(top, "raw/node-label.npz", "node_label")["node_label"]
        if labels.dtype.kind == "f":  # nodes without a label have NaN there
            labels = np.where(np.isnan(labels), -1, labels)
        graph = {
            "edge_index": arrays["edge_index"],
            "features": arrays["node_feat"],
            "labels": labels,
            "unlabelled": True,
        }
    else:
        graph = {
            "edge_index": _table(top, "raw/edge.csv.gz", int, columns=2).T,
            "features": _table(top, "raw/node-feat.csv.gz", float),
            "labels": _table(top, "raw/node-label.csv.gz", int, columns=1),
        }
    return graph, {
        part: _table(top, f"split/{split}/{part}.csv.gz", int, columns=1)[:, 0] for part in SPLITS
    }


def _table(top: zipfile.Path, name: str, kind: type, columns: int | None = None) -> NDArray[Any]:
    """A csv.gz without a header: [lines, columns] of int64 (kind int) or float32 (float)."""
    print(f"reading {name}", file=sys.stderr, flush=True)
    import pyarrow as pa
    from pyarrow import csv as pa_csv

    with _member(top, name) as member, gzip.open(member) as text:
        found = text.readline().count(b",") + 1
    if columns is not None and found != columns:
        raise UserError(f"{name} has {found} columns, not {columns}; get the archive again")
    names = [str(column) for column in range(found)]
    types = dict.fromkeys(names, pa.int64() if kind is int else pa.float32())
    with _member(top, name) as member, gzip.open(member) as text:
        try:
            table = pa_csv.read_csv(
                text,
                read_options=pa_csv.ReadOptions(column_names=names),
                convert_options=pa_csv.ConvertOptions(column_types=types),
            )
        except pa.ArrowInvalid as error:
            raise UserError(f"{name} is no table of numbers ({error})") from None
    values = np.empty((len(table), found), np.int64 if kind is int else np.float32)
    for column in range(found):
        values[:, column] = table[column].to_numpy()
    return values


def _arrays(top: zipfile.Path, name: str, *wanted: str) -> dict[str, NDArray[Any]]:
    """The arrays `wanted` of an .npz inside the archive."""
    with _member(top, name) as member, np.load(member, allow_pickle=False) as npz:
        missing = [array for array in wanted if array not in npz.files]
        if missing:
            raise UserError(f"{name} has no {', '.join(missing)}; get the archive again")
        return {array: npz[array] for array in wanted}


def _member(top: zipfile.Path, name: str) -> IO[bytes]:
    path = top / name
    if not path.exists():
        raise UserError(
            f"the archive has no {path.at}; give OGB's own zip, or delete it to have it "
            "downloaded again"
        )
    return path.open("rb")
