"""Debian's packages, joined by what they depend on; a class is a section.

Read from a Packages file (deb822(5)): stanzas of `Field: value`, an empty line between two; a line
that begins with a blank continues a field. A name is a node. Where several stanzas have it, as
versions of it, the first gives its section, description and source; the edges of all count.

An edge is a name in Depends or Pre-Depends, each alternative too (`a | b`), whatever its version or
architecture (`a:any (>= 1)`). A name that is no package stands for the first package that provides
it; where none does, there is no edge.
"""

from __future__ import annotations

import gzip
import lzma
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sagebench.errors import UserError
from sagebench.graph.download import checked_sha256
from sagebench.graph.texts import RAW, once_each, random_split, text_features

SOURCE = "Debian's packages and what they depend on, from a Packages file"
OPTIONS = {
    "packages": {
        "type": "path",
        "default": None,
        "help": "a Packages file, plain or .gz or .xz; null: that of `make data`",
    },
}
ADVICE = "give as packages a Packages file of apt, unpacked or as .gz or .xz"
DEPENDS = ("Depends", "Pre-Depends")


def load(spec: Mapping[str, Any], downloads: Path) -> dict[str, Any]:
    path = Path(spec["packages"] or RAW / "debian" / "Packages")
    stanzas = _stanzas(path)
    first: dict[str, dict[str, str]] = {}
    provided: dict[str, str] = {}
    for stanza in stanzas:
        name = stanza["Package"]
        first.setdefault(name, stanza)
        for virtual in _names(stanza.get("Provides", "")):
            provided.setdefault(virtual, name)
    ids = {name: number for number, name in enumerate(first)}
    meant = {virtual: ids[name] for virtual, name in provided.items()} | ids
    edges = [
        (ids[stanza["Package"]], meant[name])
        for stanza in stanzas
        for field in DEPENDS
        for name in _names(stanza.get(field, ""))
        if name in meant
    ]
    # Beyond the area main a section is, e.g., universe/net.
    sections = [(one.get("Section") or "unknown").split("/")[-1] for one in first.values()]
    sources = [(one.get("Source") or name).split()[0] for name, one in first.items()]
    group = np.unique(sources, return_inverse=True)[1].astype(np.int64)
    classes, labels = np.unique(sections, return_inverse=True)
    return {
        "edge_index": once_each(edges),
        "undirected": True,
        "features": text_features([one.get("Description", "") for one in first.values()]),
        "labels": labels,
        "splits": random_split(group),
        "group": group,
        "provenance": {
            "packages": str(path.resolve()),
            "sha256": checked_sha256(path),
            "classes": classes.tolist(),
        },
    }


def _names(field: str) -> list[str]:
    """Package names of a field like "a:any (>= 1), b | c"."""
    return re.sub(r"[(\[<:][^,|]*", "", field).replace("|", ",").replace(",", " ").split()


def _stanzas(path: Path) -> list[dict[str, str]]:
    stanzas: list[dict[str, str]] = []
    fields: dict[str, str] = {}
    field = ""
    for number, line in enumerate(_lines(path), 1):
        name, colon, value = line.partition(":")
        if not line.strip():
            fields = {}
        elif line[0] in " \t" and fields:
            fields[field] += line
        elif colon and line[0] not in " \t":
            if not fields:
                stanzas.append(fields)
            field = name
            fields[field] = value.strip()
        else:
            raise UserError(f"{path}, line {number}, is no field of a package: {ADVICE}")
    for stanza in stanzas or [{}]:
        if not stanza.get("Package"):
            given = ", ".join([*stanza][:3]) or "it is empty"
            raise UserError(f"{path} has a stanza without a Package ({given}): {ADVICE}")
    return stanzas


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open("rb") as file:
            unpack: Any = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix)
            with unpack(file) if unpack else file as lines:
                yield from (line.decode(errors="replace") for line in lines)
    except FileNotFoundError:
        raise UserError(f"{path} is no file: run `make data`, or {ADVICE}") from None
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise UserError(f"{path} cannot be read ({error}): {ADVICE}") from None
