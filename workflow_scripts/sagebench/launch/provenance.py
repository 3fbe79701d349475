"""Which code and image a trial ran from, and how its ranks were told to take memory."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from sagebench.launch.image import image_digest

SOURCE = Path(__file__).resolve().parents[3]


def collect_provenance(
    command: str, image: Path | None, expandable_segments: bool | None
) -> dict[str, Any]:
    """Commit and dirtiness of the checkout, and the image's digest; null where there is none."""
    status = _git("status", "--porcelain", "--untracked-files=no")
    return {
        "git_commit": _git("rev-parse", "HEAD"),
        "git_dirty": None if status is None else bool(status),
        "image_digest": None if image is None else image_digest(image),
        "expandable_segments": expandable_segments,
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
