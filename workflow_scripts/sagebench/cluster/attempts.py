"""The attempts at a trial, as its folder tells them: those that ended, and those that only began.

`attempts.jsonl` holds a line for each that reached its end; `attempts/N/started.json` what each
began with.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

MEASURED = ("completed", "out_of_memory", "time_limit", "diverged")
"""the ends that leave an outcome"""
CONTINUES = "continues"
"""the end that leaves a checkpoint for the next attempt"""


@dataclass(frozen=True)
class Attempt:
    """status: how it ended, None where nobody noted it. record: all that was noted of it."""

    number: int
    status: str | None
    record: dict[str, Any]

    @property
    def slurm_job_id(self) -> str | None:
        return self.record.get("slurm_job_id")

    @property
    def started_s(self) -> float | None:
        """Unix seconds."""
        try:
            return datetime.fromisoformat(self.record["started_at"]).timestamp()
        except (KeyError, TypeError, ValueError):
            return None

    @property
    def failed(self) -> bool:
        """Whether nothing came of it: no outcome, and no checkpoint to go on from."""
        return self.status not in (*MEASURED, CONTINUES)


def read_attempts(folder: Path) -> list[Attempt]:
    """All attempts in a trial's folder, oldest first."""
    found = {
        line.get("attempt", number): Attempt(
            line.get("attempt", number), str(line.get("status")), line
        )
        for number, line in enumerate(read_ends(folder / "attempts.jsonl"), start=1)
    }
    for number in _numbers(folder / "attempts"):
        if number not in found:
            started = read_object(folder / "attempts" / str(number) / "started.json")
            found[number] = Attempt(number, None, started or {})
    return [found[number] for number in sorted(found)]


def read_ends(path: Path) -> list[dict[str, Any]]:
    """The lines of an attempts.jsonl, oldest first, without one cut short by a crash."""
    try:
        text = path.read_text(errors="replace")
    except FileNotFoundError:
        return []
    ends = []
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(entry, dict):
            ends.append(entry)
    return ends


def why_ended(record: dict[str, Any]) -> str:
    """What a line of attempts.jsonl says of the end: "rank 3, forward: no memory"."""
    reason = record.get("reason") or {}
    parts = [f"exit code {record['exit_code']}"] if record.get("exit_code") is not None else []
    if reason.get("rank") is not None:
        parts.append(f"rank {reason['rank']}")
    if reason.get("phase"):
        parts.append(str(reason["phase"]))
    message = reason.get("message") or record.get("message")
    return ": ".join(filter(None, (", ".join(parts), message and str(message))))


def read_object(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None where there is none."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _numbers(folder: Path) -> list[int]:
    try:
        return [int(path.name) for path in folder.iterdir() if path.name.isdigit()]
    except FileNotFoundError:
        return []
