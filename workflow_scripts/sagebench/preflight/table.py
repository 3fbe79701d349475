"""The preflight as a table for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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

    def known(name: str) -> list[Any]:
        return [rank[name] for rank in found if rank.get(name) is not None]

    on_cpus = record.get("device") == "cpu"
    meeting, ahead = known("meeting_s"), known("clock_ahead_s")
    speed, count = bandwidth(found), len(record["problems"])
    return (
        str(record["ranks"]),
        once(known("node"), ", "),
        once("cpu" for _ in found)
        if on_cpus
        else once(gpus[0] for gpus in known("devices") if gpus),
        once(known("driver")),
        once(versions["torch"] for versions in known("versions")),
        f"{max(meeting):.1f} s" if meeting else "-",
        f"{speed:.1f} GB/s" if speed is not None else "-",
        f"{max(ahead) - min(ahead):.3f} s" if len(ahead) > 1 else "-",
        f"{count} problem{'s' if count > 1 else ''}" if count else "ok",
    )


def once(values: Iterable[str], between: str = " / ") -> str:
    """What all ranks say, once; a dash where they say nothing."""
    return between.join(dict.fromkeys(values)) or "-"
