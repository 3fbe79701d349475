"""Download of a file over HTTP, resumed after a cut and renamed when complete; checksums."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from pathlib import Path

import requests
from tqdm import tqdm
from urllib3.exceptions import HTTPError

from sagebench.errors import UserError

BLOCK_BYTES = 1 << 20
TIMEOUT_S = 60.0
SAY_EVERY_S = 5.0
PASSING = (408, 429, *range(500, 600))
"""answers that another try may better"""


def fetch(
    url: str,
    path: Path,
    sha256: str | None = None,
    attempts: int = 6,
    wait_s: float = 2.0,
    timeout_s: float = TIMEOUT_S,
) -> None:
    """Download `url` to `path`; nothing happens where the file is there already.

    What has arrived lies in `path` + ".part" until it is whole, and is continued by the next try
    or the next run. `attempts` in a row without a new byte end it, with pauses of wait_s, twice
    that, and so on between them. UserError: it could not be had, or has another SHA-256.
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    failed = 0
    while True:
        before = _size(part)
        try:
            _continue(url, part, timeout_s)
            break
        except (OSError, HTTPError) as error:  # those of requests are OSErrors
            trouble = error
        failed = 1 if _size(part) > before else failed + 1
        answer = getattr(trouble, "response", None)
        refused = answer is not None and answer.status_code not in PASSING
        if refused or failed >= attempts:
            raise UserError(
                f"{url} could not be downloaded ({trouble}); run again to continue after "
                f"{_size(part):,} bytes, or download it yourself and give its path as archive"
            )
        pause_s = wait_s * 2 ** (failed - 1)
        print(f"{path.name}: {trouble}; again in {pause_s:g} s", file=sys.stderr)
        time.sleep(pause_s)
    if sha256 is not None:
        try:
            checked_sha256(part, sha256)
        except UserError:
            part.unlink()
            raise
    part.replace(path)


def _continue(url: str, part: Path, timeout_s: float) -> None:
    """Append to `part` what is missing of `url`; ConnectionError when the answer ends early."""
    have = _size(part)
    # Compressed on the way, the bytes could not be counted nor continued.
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
    with requests.get(url, headers=headers, stream=True, timeout=timeout_s) as answer:
        sent = answer.headers.get("Content-Range", "")
        if answer.status_code == 416 and have:  # the server's file ends at or before what is here
            if sent == f"bytes */{have}":
                return
            part.unlink()
            raise ConnectionError(f"{part.name} does not fit the server's file")
        answer.raise_for_status()
        if answer.status_code != 206:  # it sends all of it
            have = 0
        elif not sent.startswith(f"bytes {have}-"):
            raise ConnectionError("the server sends another range than asked for")
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else None
        said = {"desc": part.stem, "unit": "B", "unit_scale": True, "mininterval": SAY_EVERY_S}
        with (
            part.open("r+b" if have else "wb") as file,
            tqdm(total=total, initial=have, **said) as progress,
        ):
            file.seek(have)
            while block := answer.raw.read(BLOCK_BYTES, decode_content=False):
                file.write(block)
                have += len(block)
                progress.update(len(block))
            file.flush()
            os.fsync(file.fileno())
    if total is not None and have != total:
        raise ConnectionError(f"the connection ended after {have:,} of {total:,} bytes")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def checked_sha256(path: Path, expected: str | None = None) -> str:
    """The SHA-256 of a file, in hex. UserError: no file, or another SHA-256 than `expected`."""
    if not path.is_file():
        raise UserError(
            f"{path} is no file; give the path of an existing file (`make data` makes "
            "those of the folder data)"
        )
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
