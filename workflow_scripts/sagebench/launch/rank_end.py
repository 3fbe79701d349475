"""How one rank ended, noted on its own node: srun tells only the worst exit code of all."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

from sagebench.files import read_json, write_json
from sagebench.launch.processes import copy_output, die_with_parent
from sagebench.launch.verdict import RankEnd
from sagebench.measure.outcome import CONTINUES_CODE

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


def end_path(directory: Path, rank: int) -> Path:
    return directory / f"rank-{rank}.end.json"


def log_path(directory: Path, rank: int) -> Path:
    return directory / f"rank-{rank}.log"


def supervise_rank(rank: int, command: list[str], directory: Path) -> int:
    """Run `command` as one rank, write rank-R.log and rank-R.end.json, and return its exit code.

    Rank 0's output is also copied to standard output. Signals go on to the rank. A rank that
    stopped in order to be continued counts as 0: for srun a bad exit would be the peers' end.
    """
    received: list[int] = []
    with log_path(directory, rank).open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if rank == 0 else log,
            stderr=subprocess.STDOUT,
            preexec_fn=die_with_parent,
        )
    for number in FORWARDED:
        signal.signal(number, lambda got, _: (received.append(got), process.send_signal(got)))
    if process.stdout is not None:
        copy_output(process.stdout, log_path(directory, rank))
    code = process.wait()
    write_json(end_path(directory, rank), {"code": exit_code(code), "ended_at_unix_s": time.time()})
    code = exit_code(code)
    if code == CONTINUES_CODE:
        return 0
    return code if code >= 0 else 128 - code


def exit_code(code: int) -> int:
    """Negative for a signal, also where a shell or a container says it as 128 + its number."""
    return 128 - code if 128 < code < 128 + signal.NSIG else code


def read_ends(directory: Path, ranks: int) -> list[RankEnd]:
    """How the ranks ended, by their own nodes' word; code None for a rank without one."""
    ends = {}
    for rank in range(ranks):
        path = end_path(directory, rank)
        if path.exists():
            ends[rank] = read_json(path)
    by_time = sorted(ends, key=lambda rank: ends[rank]["ended_at_unix_s"])
    return [
        RankEnd(
            rank=rank,
            code=ends[rank]["code"] if rank in ends else None,
            order=by_time.index(rank) if rank in ends else ranks,
        )
        for rank in range(ranks)
    ]
