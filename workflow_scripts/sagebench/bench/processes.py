"""Starts what is measured: workers and whole trials, each in processes of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sagebench.files import read_json, write_json
from sagebench.grid.trial import Trial
from sagebench.launch.start import local_environment, shared_environment
from sagebench.records import read_outcome
from sagebench.units import KIB

SCRIPTS = Path(__file__).resolve().parents[2]
POLL_S = 0.02


class MeasurementFailed(Exception):
    """A process ended without a result; the message says how."""


@dataclass(frozen=True)
class Measured:
    """result: of the first rank. peak_host_bytes: the largest of the ranks' peaks of all memory,
    mapped files included. others_cores: cores that anything else kept busy meanwhile."""

    result: dict[str, Any]
    peak_host_bytes: int
    others_cores: float


def run_worker(job: dict[str, Any], trial: dict[str, Any], store: Path) -> Measured:
    """Run a job of `worker.py` in as many processes as the trial has ranks."""
    job = {**job, "trial": trial, "store": str(store)}
    ranks = Trial.from_json(trial)
    command = [sys.executable, "-m", "sagebench.bench.worker", json.dumps(job)]
    busy, start = machine_busy_s(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sagebench-") as scratch:
        processes = []
        for rank in range(ranks.ranks):
            environment = {
                **shared_environment(ranks, Path(scratch), time.time()),
                **local_environment(ranks.ranks, rank),
            }
            processes.append(_start(command, environment, Path(scratch, f"{rank}")))
        try:
            ends = _wait(processes)
        finally:
            for process in processes:
                if process.returncode is None and process.poll() is None:
                    process.kill()
                    process.wait()
        for rank, (code, _) in enumerate(ends):
            if code:
                log = Path(scratch, f"{rank}.err").read_text(errors="replace")
                raise MeasurementFailed(_ending(code, log))
        answer = Path(scratch, "0.out").read_text().strip().splitlines()[-1]
    return _measured(json.loads(answer), [usage for _, usage in ends], busy, start)


def run_trial(
    trial: dict[str, Any], store: Path, folder: Path, *, until_first_step: bool = False
) -> Measured:
    """Run a trial with run_trial.py as a workflow does; the result is its outcome.

    until_first_step: end it after its first epoch, with what it has measured as the result.
    """
    write_json(folder / "trial.json", trial)
    command = [sys.executable, str(SCRIPTS / "run_trial.py"), "--trial", str(folder / "trial.json")]
    command += ["--store", str(store), "--outcome", str(folder / "outcome.json")]
    busy, start = machine_busy_s(), time.monotonic()
    process = _start(command, {}, folder / "run")
    measured = folder / "attempts" / "1" / "measured.json"
    result: dict[str, Any] = {}
    try:
        while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
            if until_first_step and not result and measured.exists():
                found = read_json(measured)
                if found["epochs"]:
                    result = found
                    process.send_signal(signal.SIGTERM)
            time.sleep(POLL_S)
    except BaseException:
        process.kill()
        raise
    process.returncode = os.waitstatus_to_exitcode(ended[1])
    if not result:
        if process.returncode:
            raise MeasurementFailed(
                _ending(process.returncode, (folder / "run.err").read_text(errors="replace"))
            )
        result = read_outcome(folder / "outcome.json").to_json()
    return _measured(result, [ended[2]], busy, start)


def _start(command: list[str], environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, **environment, "PYTHONPATH": str(SCRIPTS)}
    with log.with_suffix(".out").open("wb") as out, log.with_suffix(".err").open("wb") as err:
        return subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err
        )


def _wait(processes: list[subprocess.Popen[bytes]]) -> list[tuple[int, Any]]:
    """(exit code, resource usage) of each; once one fails the others are ended."""
    ends: dict[int, tuple[int, Any]] = {}
    while len(ends) < len(processes):
        for rank, process in enumerate(processes):
            if rank in ends:
                continue
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                process.returncode = os.waitstatus_to_exitcode(status)
                ends[rank] = process.returncode, usage
                if process.returncode:
                    for other in set(range(len(processes))) - set(ends):
                        processes[other].kill()
        time.sleep(POLL_S)
    return [ends[rank] for rank in range(len(processes))]


def _measured(result: dict[str, Any], usages: list[Any], busy: float, start: float) -> Measured:
    own = sum(usage.ru_utime + usage.ru_stime for usage in usages)
    others = (machine_busy_s() - busy - own) / (time.monotonic() - start)
    peak = max(usage.ru_maxrss for usage in usages) * KIB
    return Measured(result, peak, round(max(others, 0.0), 2))


def machine_busy_s() -> float:
    """CPU seconds that this machine has spent on anything, over all cores, since it started."""
    user, nice, system, _, _, irq, softirq, steal = (
        int(text) for text in Path("/proc/stat").read_text().split(maxsplit=9)[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _ending(code: int, log: str) -> str:
    if code < 0:
        name = signal.Signals(-code).name
        return f"ended by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    lines = [line for line in log.strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else f"exit code {code}"
