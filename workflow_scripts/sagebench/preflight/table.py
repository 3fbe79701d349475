"""Output of a preflight: a table for the terminal, and why a job left no record."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sagebench.preflight.findings import bandwidth
from sagebench.units import text_table

HEAD = ("ranks", "nodes", "device", "driver", "torch", "meeting", "all-reduce", "clocks", "")
SBATCH = re.compile(r"SLURM sbatch failed\. The error message was '(.*?)'\.\n", re.DOTALL)
OURS = re.compile(r"^error: (.+)$", re.MULTILINE)
MESSAGE = re.compile(r"^ *message: (.+?)(?: Reason: Unknown\.)?(?: ?For further error .*)?$", re.M)
LOGS = re.compile(r"^ *log: (.+) \(check log file", re.MULTILINE)


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

    meeting, ahead = known("meeting_s"), known("clock_ahead_s")
    gpus = (devices[0] for devices in known("devices") if devices)
    speed, count = bandwidth(found), len(record["problems"])
    return (
        str(record["ranks"]),
        once(known("node"), ", "),
        once(["cpu"] if record.get("device") == "cpu" and found else gpus),
        once(known("driver")),
        once(versions["torch"] for versions in known("versions")),
        f"{max(meeting):.1f} s" if meeting else "-",
        f"{speed:.1f} GB/s" if speed is not None else "-",
        f"{max(ahead) - min(ahead):.3f} s" if len(ahead) > 1 else "-",
        f"{count} problem{'s' if count > 1 else ''}" if count else "ok",
    )


def once(values: Iterable[str], between: str = " / ") -> str:
    """Distinct values over the ranks; a dash if there are none."""
    return between.join(dict.fromkeys(values)) or "-"


def reason(said: str, path: Path, log: Path) -> str:
    """Why a job left no record, in one sentence. said: all that Snakemake printed, which is in
    `log`. path: the record.

    Where the width's own job did not fail, Snakemake refused the run, such as without its image.
    """
    blocks = re.split(r"^Error in rule ", said, flags=re.MULTILINE)[1:]
    mine = "\n".join(block for block in blocks if str(path) in block)
    for text in (mine, said):
        if found := SBATCH.search(text):
            lines = [line.strip() for line in found[1].splitlines() if line.strip()]
            return f"Slurm refused the job: {' '.join(lines)}"
        for part in (text, *_logs(text)):
            if found := OURS.search(part):
                return found[1].strip()
        if found := MESSAGE.search(text):
            return f"{found[1].strip()} See {log}"
    last = [line.strip() for line in said.splitlines() if line.strip()][-1:]
    return f"its job left no answer{': ' + last[0] if last else ''}; see {log}"


def _logs(text: str) -> list[str]:
    """Text of the failed jobs' logs."""
    paths = [Path(name) for names in LOGS.findall(text) for name in names.split(", ")]
    return [path.read_text(errors="replace") for path in paths if path.is_file()]
