"""Starts a measurement in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from sagebench.grid.trial import Trial
from sagebench.launch.job import ROOT
from sagebench.launch.ranks import local_environment
from sagebench.launch.start import shared_environment
from sagebench.launch.verdict import RankEnd, ending

SCRIPTS = ROOT / "workflow_scripts"


class MeasurementFailed(Exception):
    """A process ended without a result; the message says how."""


def run_worker(
    job: str, trial: dict[str, Any], store: Path, steps: int
) -> tuple[dict[str, Any], float]:
    """Run a job of `worker.py` with the environment of a trial's only rank.

    Returns its result, and how many cores anything else kept busy meanwhile.
    """
    arguments = json.dumps({"job": job, "trial": trial, "store": str(store), "steps": steps})
    environment = {
        **os.environ,
        **shared_environment(Trial.from_json(trial), Path(), time.time()),
        **local_environment(ranks=1, rank=0),
        "PYTHONPATH": str(SCRIPTS),
    }
    busy, start = others_busy_s(), time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "sagebench.bench.worker", arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
    )
    if done.returncode:
        raise MeasurementFailed(ending(RankEnd(0, done.returncode, 0, done.stderr)))
    others_cores = (others_busy_s() - busy) / (time.monotonic() - start)
    return json.loads(done.stdout.splitlines()[-1]), round(max(others_cores, 0.0), 2)


def others_busy_s() -> float:
    """CPU seconds that this machine has spent since it started, over all cores, on anything but
    the processes that this one has started and waited for."""
    user, nice, system, _, _, irq, softirq, steal = (
        int(text) for text in Path("/proc/stat").read_text().split(maxsplit=9)[1:9]
    )
    machine = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    own = os.times()
    return machine - own.children_user - own.children_system
