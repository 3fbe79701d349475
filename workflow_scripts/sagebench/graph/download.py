"""Fetch a file over HTTP: resumed after a cut, checked, and there whole or not at all."""

from __future__ import annotations

import http.client
import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from sagebench.errors import UserError
from sagebench.graph.files import require_sha256
from sagebench.units import GIB

BLOCK_BYTES = 1 << 20
TIMEOUT_S = 60.0


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
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in (408, 429):
                raise UserError(
                    f"{url} answers {error.code} {error.reason}; download the file yourself and "
                    "give its path as archive"
                ) from None
            trouble: Exception = error
        except (OSError, http.client.HTTPException) as error:
            trouble = error
        failed = 1 if _size(part) > before else failed + 1
        if failed >= attempts:
            raise UserError(
                f"{url} could not be downloaded ({trouble}); run again to continue after "
                f"{_size(part):,} bytes, or download it yourself and give its path as archive"
            ) from None
        pause_s = wait_s * 2 ** (failed - 1)
        print(f"{path.name}: {trouble}; again in {pause_s:g} s", file=sys.stderr)
        time.sleep(pause_s)
    if sha256 is not None:
        try:
            require_sha256(part, sha256)
        except UserError:
            part.unlink()
            raise
    part.replace(path)


def _continue(url: str, part: Path, timeout_s: float) -> None:
    """Append to `part` what is missing of `url`; ConnectionError when the answer ends early."""
    have = _size(part)
    # Compressed on the way, the bytes could not be counted nor continued.
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
    try:
        answer = urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=timeout_s
        )
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # the server's file ends at or before what is here
            if error.headers.get("Content-Range") == f"bytes */{have}":
                return
            part.unlink()
            raise ConnectionError(f"{part.name} does not fit the server's file") from None
        raise
    with answer:
        if answer.status != 206:  # it sends all of it
            have = 0
        elif not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            raise ConnectionError("the server sends another range than asked for")
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length is not None else None
        step = total / 10 if total else GIB
        _say(part.stem, have, total)
        with part.open("r+b" if have else "wb") as file:
            file.seek(have)
            while block := answer.read(BLOCK_BYTES):
                file.write(block)
                have += len(block)
                if have // step > (have - len(block)) // step:
                    _say(part.stem, have, total)
            file.flush()
            os.fsync(file.fileno())
    if total is not None and have != total:
        raise ConnectionError(f"the connection ended after {have:,} of {total:,} bytes")


def _say(name: str, have: int, total: int | None) -> None:
    of = f" of {total / GIB:.3f}" if total else ""
    print(f"{name}: {have / GIB:.3f}{of} GiB", file=sys.stderr, flush=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
