"""Checks on the files that data comes in."""

from __future__ import annotations

import hashlib
from pathlib import Path

from sagebench.errors import UserError


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def require_file(path: Path) -> None:
    """UserError where there is no file at `path`."""
    if not path.is_file():
        raise UserError(f"{path} is no file; give the path of one that is there")


def require_sha256(path: Path, expected: str) -> None:
    """UserError unless the file at `path` has this SHA-256."""
    require_file(path)
    found = sha256_of(path)
    if found != expected.lower():
        raise UserError(
            f"{path} has SHA-256 {found}, not {expected}; it is damaged or another file: delete it "
            "and get it again, or correct sha256 in the data set's spec"
        )
