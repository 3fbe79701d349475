"""The preflight as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sagebench.preflight.findings import bandwidth

HEAD = ("ranks", "nodes", "device", "driver", "torch", "meeting", "all-reduce", "clocks", "")


def table(records: Sequence[Mapping[str, Any]]) -> str:
    """A line a width, then what is wrong and what is not known, a line a sentence.

    A record without an answer holds "ranks" and "problems" alone.
    """
    rows = [HEAD, *(row(record) for record in records)]
    widths = [max(len(line[column]) for line in rows) for column in range(len(HEAD))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in rows
    ]
    for record in records:
        said = [*record["problems"], *record.get("unknown", [])]
        lines += [f"{name(record['ranks'])}: {sentence}" for sentence in said]
    return "\n".join(lines)


def row(record: Mapping[str, Any]) -> tuple[str, ...]:
    found = record.get("found", [])
    nodes = list(dict.fromkeys(rank["node"] for rank in found))
    meeting = [rank["meeting_s"] for rank in found if rank.get("meeting_s") is not None]
    ahead = [rank["clock_ahead_s"] for rank in found if rank.get("clock_ahead_s") is not None]
    speed = bandwidth(record) if found else None
    count = len(record["problems"])
    return (
        str(record["ranks"]),
        ", ".join(nodes) or "-",
        said(device(rank, record) for rank in found),
        said(rank.get("driver") for rank in found),
        said(rank.get("versions", {}).get("torch") for rank in found),
        f"{max(meeting):.1f} s" if meeting else "-",
        f"{speed:.1f} GB/s" if speed is not None else "-",
        f"{max(ahead) - min(ahead):.3f} s" if len(ahead) > 1 else "-",
        "ok" if not count else f"{count} problem{'s' if count > 1 else ''}",
    )


def device(rank: Mapping[str, Any], record: Mapping[str, Any]) -> str | None:
    if record["device"] == "cpu":
        return "cpu"
    return next(iter(rank.get("devices", [])), None)


def said(values: Any) -> str:
    """What all ranks say, once; a dash where they say nothing."""
    return " / ".join(dict.fromkeys(str(value) for value in values if value)) or "-"


def name(ranks: int) -> str:
    return "1 rank" if ranks == 1 else f"{ranks} ranks"
