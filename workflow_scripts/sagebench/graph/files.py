"""Checksums of the files that data comes in."""

from __future__ import annotations

import hashlib
from pathlib import Path

from sagebench.errors import UserError


def checked_sha256(path: Path, expected: str | None = None) -> str:
    """The SHA-256 of a file, in hex. UserError: no file, or another SHA-256 than `expected`."""
    if not path.is_file():
        raise UserError(f"{path} is no file; give the path of one that is there")
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    found = digest.hexdigest()
    if expected not in (None, found):
        raise UserError(
            f"{path} has SHA-256 {found}, not {expected}; it is damaged or another file: delete it "
            "and get it again, or correct sha256 in the data set's spec"
        )
    return found
