"""Which code and image a trial ran from."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).resolve().parents[3]


def collect_provenance(command: str) -> dict[str, Any]:
    """Commit and dirtiness of the checkout, and the image's digest; null where there is none."""
    status = _git("status", "--porcelain", "--untracked-files=no")
    return {
        "git_commit": _git("rev-parse", "HEAD"),
        "git_dirty": None if status is None else bool(status),
        "image_digest": os.environ.get("SAGEBENCH_IMAGE_DIGEST"),
        "command": command,
    }


def _git(*arguments: str) -> str | None:
    try:
        answer = subprocess.run(
            ["git", "-C", str(SOURCE), *arguments],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
