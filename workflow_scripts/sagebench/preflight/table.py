"""The preflight as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sagebench.preflight.findings import bandwidth
from sagebench.text_table import text_table

HEAD = ("ranks", "nodes", "device", "driver", "torch", "meeting", "all-reduce", "clocks", "")


def table(records: Sequence[Mapping[str, Any]]) -> str:
    """A line a width, then what is wrong and what is not known, a line a sentence.

    A record without an answer holds "ranks" and "problems" alone.
    """
    lines = text_table(HEAD, [row(record) for record in records], left=range(len(HEAD)))
    for record in records:
        ranks = record["ranks"]
        said = [*record["problems"], *record.get("unknown", [])]
        lines += [f"{ranks} rank{'s' if ranks > 1 else ''}: {sentence}" for sentence in said]
    return "\n".join(lines)


def row(record: Mapping[str, Any]) -> tuple[str, ...]:
    found = record.get("found", [])
    meeting = [rank["meeting_s"] for rank in found if rank.get("meeting_s") is not None]
    ahead = [rank["clock_ahead_s"] for rank in found if rank.get("clock_ahead_s") is not None]
    speed = bandwidth(record) if found else None
    count = len(record["problems"])
    return (
        str(record["ranks"]),
        said((rank["node"] for rank in found), ", "),
        said("cpu" if record["device"] == "cpu" else _first_device(rank) for rank in found),
        said(rank.get("driver") for rank in found),
        said(rank.get("versions", {}).get("torch") for rank in found),
        f"{max(meeting):.1f} s" if meeting else "-",
        f"{speed:.1f} GB/s" if speed is not None else "-",
        f"{max(ahead) - min(ahead):.3f} s" if len(ahead) > 1 else "-",
        "ok" if not count else f"{count} problem{'s' if count > 1 else ''}",
    )


def _first_device(rank: Mapping[str, Any]) -> str | None:
    return next(iter(rank.get("devices", [])), None)


def said(values: Any, between: str = " / ") -> str:
    """What all ranks say, once; a dash where they say nothing."""
    return between.join(dict.fromkeys(str(value) for value in values if value)) or "-"
