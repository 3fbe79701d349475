"""Processes of the test cluster, found by their number and start, never by a name alone."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Collection, Iterator
from pathlib import Path

PROC = Path("/proc")


def alive(pid: int, *, not_after: float | None = None) -> bool:
    """Whether a process runs (a zombie does not), and began before the time `not_after`."""
    try:
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return False
    if fields[0] in ("Z", "X"):
        return False
    return (
        not_after is None or _boot_time() + int(fields[19]) / os.sysconf("SC_CLK_TCK") < not_after
    )


def end(pid: int, first: signal.Signals, *, limit_s: float) -> None:
    """Send `first`, and SIGKILL after `limit_s`."""
    for number, limit in ((first, limit_s), (signal.SIGKILL, 5.0)):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        until = time.monotonic() + limit
        while time.monotonic() < until:
            _reap(pid)
            if not alive(pid):
                return
            time.sleep(0.05)


def leftovers(state: Path, nodes: Collection[str]) -> list[int]:
    """The jobs' processes on these nodes: each slurmstepd that logs there, what it started, and
    what has this configuration and one of the nodes in its environment."""
    pids = list(_pids())
    found = [pid for pid in pids if _is_stepd(pid, state, nodes) or _is_task(pid, state, nodes)]
    parents = {pid: _parent(pid) for pid in pids}
    for pid in found:  # grows while it is walked: the children's children are found too
        found += [child for child in pids if parents[child] == pid and child not in found]
    return [pid for pid in found if alive(pid)]


def _is_stepd(pid: int, state: Path, nodes: Collection[str]) -> bool:
    try:
        if (PROC / str(pid) / "comm").read_text().strip() != "slurmstepd":
            return False
        files = [str(link.readlink()) for link in (PROC / str(pid) / "fd").iterdir()]
    except OSError:
        return False
    return any(f"{state}/log/steps.{node}.log" in files for node in nodes)


def _is_task(pid: int, state: Path, nodes: Collection[str]) -> bool:
    try:
        environment = (PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return f"SLURM_CONF={state}/etc/slurm.conf".encode() in environment and any(
        f"SLURMD_NODENAME={node}".encode() in environment for node in nodes
    )


def _pids() -> Iterator[int]:
    own = os.getpid()
    for entry in PROC.iterdir():
        if entry.name.isdigit() and int(entry.name) not in (1, own):
            yield int(entry.name)


def _reap(pid: int) -> None:
    """A child of this process stays a zombie until it is waited for."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return


def _parent(pid: int) -> int | None:
    try:
        return int((PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def _boot_time() -> float:
    for line in (PROC / "stat").read_text().splitlines():
        if line.startswith("btime "):
            return float(line.split()[1])
    return 0.0
