"""Starts a measurement in a process of its own."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from sagebench.grid.trial import Trial
from sagebench.launch.start import local_environment, shared_environment

SCRIPTS = Path(__file__).resolve().parents[2]


class MeasurementFailed(Exception):
    """A process ended without a result; the message says how."""


class Measured(NamedTuple):
    """others_cores: cores that anything else kept busy meanwhile."""

    result: dict[str, Any]
    others_cores: float


def run_worker(job: dict[str, Any], trial: dict[str, Any], store: Path) -> Measured:
    """Run a job of `worker.py` with the environment of a trial's only rank."""
    job = {**job, "trial": trial, "store": str(store)}
    environment = {
        **os.environ,
        **shared_environment(Trial.from_json(trial), Path(), time.time()),
        **local_environment(ranks=1, rank=0),
        "PYTHONPATH": str(SCRIPTS),
    }
    busy, own, start = machine_busy_s(), children_busy_s(), time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "sagebench.bench.worker", json.dumps(job)],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
    )
    if done.returncode:
        raise MeasurementFailed(_ending(done.returncode, done.stderr))
    others = (machine_busy_s() - busy - children_busy_s() + own) / (time.monotonic() - start)
    return Measured(json.loads(done.stdout.splitlines()[-1]), round(max(others, 0.0), 2))


def machine_busy_s() -> float:
    """CPU seconds that this machine has spent on anything, over all cores, since it started."""
    user, nice, system, _, _, irq, softirq, steal = (
        int(text) for text in Path("/proc/stat").read_text().split(maxsplit=9)[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def children_busy_s() -> float:
    """CPU seconds of the processes that this one has started and waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _ending(code: int, log: str) -> str:
    if code < 0:
        name = signal.Signals(-code).name
        return f"ended by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    lines = [line for line in log.strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else f"exit code {code}"
