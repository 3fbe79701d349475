"""ogbn-products and ogbn-arxiv, read straight from OGB's raw archive.

The ogb package is not used: importing it starts a network thread, asks questions, and loads
processed files that newer torch versions refuse. Below one top folder of the zip lie

    raw/{edge,node-feat,node-label,num-node-list,num-edge-list}.csv.gz
    split/<scheme>/{train,valid,test}.csv.gz
"""

from __future__ import annotations

import gzip
import sys
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sagebench.errors import UserError
from sagebench.graph.checks import check_edge_index
from sagebench.graph.csc import csc_from_edges
from sagebench.graph.download import fetch
from sagebench.graph.files import require_file, require_sha256, sha256_of
from sagebench.graph.sources import flag

KEYS = ("ogb_name", "archive", "sha256", "undirected")
ARCHIVES = "http://snap.stanford.edu/ogb/data/nodeproppred/"


class Published(NamedTuple):
    """A data set as version 1.3.6 of the ogb package lists it.

    undirected: its edges count in both directions. edges: directed ones without repeats and self
    loops, where that is known: 61,859,140 raw ones, and their inverses, for ogbn-products.
    """

    archive: str
    split: str
    num_classes: int
    undirected: bool
    edges: int | None
    version: str = "1"


PUBLISHED = {
    "ogbn-products": Published("products.zip", "sales_ranking", 47, True, 123_718_024),
    "ogbn-arxiv": Published("arxiv.zip", "time", 40, False, None),
}


def load(spec: Mapping[str, Any], downloads: Path) -> dict[str, Any]:
    """ogb_name: ogbn-products or ogbn-arxiv. archive: path of its zip; without it, it is fetched.

    sha256 of the archive: checked if given, recorded in any case. undirected: whether each edge
    counts in both directions; by default as ogb says (ogbn-products true, ogbn-arxiv false).
    """
    name = spec.get("ogb_name", spec.get("name"))
    if name not in tuple(PUBLISHED):
        raise UserError(f"ogb_name: {name!r} is not known; write one of {', '.join(PUBLISHED)}")
    about = PUBLISHED[name]
    url = None if "archive" in spec else ARCHIVES + about.archive
    undirected = flag(spec, "undirected", about.undirected)
    sha256 = str(spec["sha256"]) if "sha256" in spec else None
    if url is None:
        archive = Path(spec["archive"])
        require_file(archive)
    else:
        archive = downloads / about.archive
        fetch(url, archive, sha256)
    if sha256 is not None:
        require_sha256(archive, sha256)
    with _opened(archive) as raw:
        graph = _read(raw)
        splits = {
            part: raw.table(f"split/{about.split}/{part}.csv.gz", np.int64, columns=1)[:, 0]
            for part in ("train", "valid", "test")
        }
        num_nodes = len(graph["features"])
        edge_index = check_edge_index(graph.pop("edge_index"), num_nodes)
        graph["csc"] = csc_from_edges(edge_index, num_nodes, undirected)
    num_edges = len(graph["csc"][1])
    if undirected == about.undirected and num_edges != (about.edges or num_edges):
        print(
            f"warning: {name} has {num_edges:,} directed edges here, {about.edges:,} elsewhere; is "
            "it the archive it should be?",
            file=sys.stderr,
        )
    return {
        **graph,
        "splits": splits,
        "num_classes": about.num_classes,
        "provenance": {
            "url": url,
            "archive": archive.name,
            "archive_bytes": archive.stat().st_size,
            "sha256": sha256_of(archive),
            "ogb_version": about.version,
            "split": about.split,
            "undirected": undirected,
        },
    }


def _read(raw: _Raw) -> dict[str, Any]:
    num_nodes = int(raw.table("raw/num-node-list.csv.gz", np.int64, columns=1).sum())
    num_edges = int(raw.table("raw/num-edge-list.csv.gz", np.int64, columns=1).sum())
    edges = raw.table("raw/edge.csv.gz", np.int64, rows=num_edges, columns=2)
    return {
        "edge_index": edges.T,
        "features": raw.table("raw/node-feat.csv.gz", np.float32, rows=num_nodes),
        "labels": raw.table("raw/node-label.csv.gz", np.int64, rows=num_nodes, columns=1),
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
        """A csv.gz without a header as [rows, columns].

        rows: as many as it has to have, where that is announced.
        """
        import pyarrow as pa
        from pyarrow import csv

        print(f"reading {name}", file=sys.stderr, flush=True)
        with self._member(name) as member, gzip.open(member) as text:
            found = text.readline().count(b",") + 1
        if columns is not None and found != columns:
            raise UserError(f"{name} has {found} columns, not {columns}; get the archive again")
        names = [str(column) for column in range(found)]
        types = dict.fromkeys(names, pa.from_numpy_dtype(dtype))
        with self._member(name) as member, gzip.open(member) as text:
            try:
                read = csv.read_csv(
                    text,
                    csv.ReadOptions(column_names=names),
                    convert_options=csv.ConvertOptions(column_types=types),
                )
            except pa.ArrowInvalid as error:
                raise UserError(f"{name} is no table of numbers ({error})") from None
        if rows is not None and len(read) != rows:
            raise UserError(
                f"{name} has {len(read):,} lines where {rows:,} are announced; get it again"
            )
        table = np.empty((len(read), found), dtype)
        for k, column in enumerate(read.columns):
            table[:, k] = column.to_numpy()
        return table

    @contextmanager
    def _member(self, name: str) -> Iterator[IO[bytes]]:
        if self.top + name not in self.names:
            raise UserError(
                f"the archive has no {self.top}{name}; give OGB's own zip, or delete it to have "
                "it downloaded again"
            )
        with self.archive.open(self.top + name) as file:
            yield file


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
