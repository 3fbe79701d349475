"""Runs one trial: starts its ranks, learns how they ended, writes its outcome or none.

Standard library only: this runs outside the container, on whatever Python a node has.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from sagebench.errors import UserError
from sagebench.files import read_json, write_json
from sagebench.grid.trial import Trial
from sagebench.launch.processes import Ranks
from sagebench.launch.provenance import collect_provenance
from sagebench.launch.verdict import Verdict, decide
from sagebench.measure.outcome import SCHEMA, Status

TRAINING_SCRIPT = Path(__file__).resolve().parents[2] / "train_graphsage_ddp.py"
WALLTIME_MARGIN = 0.05
"""share of the walltime, up to a minute, that is left for writing the outcome"""

RUNTIME = {
    # Freed memory stays in the process: fresh pages cost more than the work done in them.
    "MALLOC_TRIM_THRESHOLD_": "1073741824",
    "MALLOC_MMAP_MAX_": "0",
    # Compute threads that wait sleep: spinning, they take the cores from the sampler's threads, and
    # an epoch on a machine with as many threads as cores takes ten times as long.
    "OMP_WAIT_POLICY": "passive",
}


def run_trial(trial_path: Path, store: Path, outcome_path: Path, walltime_s: float | None) -> int:
    """Run a trial once and return the exit code: 0 where there is an outcome.

    Beside the outcome: `attempts/N/` with the ranks' logs and measurements, `attempts.jsonl` with
    a line an attempt, `best.pt` of a completed one. Raises UserError if the trial runs already.
    """
    trial = Trial.from_json(read_json(trial_path))
    home = outcome_path.parent
    with only_one(home), machine_alone():
        attempts = home / "attempts"
        number = 1 + max(
            (int(path.name) for path in attempts.glob("*") if path.name.isdigit()), default=0
        )
        directory = attempts / str(number)
        directory.mkdir(parents=True)
        started = time.time()
        provenance = collect_provenance(shlex.join(sys.argv))
        verdict, interrupted = supervise(trial, trial_path, store, directory, started, walltime_s)
        finished = time.time()
        attempt = {
            "attempt": number,
            "started_at": iso(started),
            "finished_at": iso(finished),
            "status": verdict.status.value
            if verdict.status
            else "interrupted"
            if interrupted
            else "failed",
            "reason": verdict.reason,
            "message": verdict.message,
            "log": str(directory / f"rank-{verdict.rank or 0}.log"),
        }
        if verdict.status is not None:
            measured = read_measured(directory)
            if verdict.status is Status.COMPLETED:
                (directory / "best.pt").replace(home / "best.pt")
            write_json(outcome_path, compose_outcome(trial, measured, verdict, attempt, provenance))
        with (home / "attempts.jsonl").open("a") as log:
            log.write(json.dumps(attempt) + "\n")
    if interrupted and verdict.status is None:
        print(f"interrupted by {signal.Signals(interrupted).name}", file=sys.stderr)
        return 128 + interrupted
    if verdict.status is None:
        print(f"error: {verdict.message}; see {attempt['log']}", file=sys.stderr)
        return 1
    print(
        f"{trial.id}: {verdict.status.value}" + (f": {verdict.message}" if verdict.message else "")
    )
    return 0


def supervise(
    trial: Trial,
    trial_path: Path,
    store: Path,
    directory: Path,
    started: float,
    walltime_s: float | None,
) -> tuple[Verdict, int | None]:
    """Start the ranks and wait for their end. Returns the verdict and the signal, if any."""
    command = [sys.executable, str(TRAINING_SCRIPT)]
    command += ["--trial", str(trial_path), "--store", str(store), "--out", str(directory)]
    kills = oom_kills()
    deadline = last_resort = None
    if walltime_s is not None:
        margin = min(60.0, WALLTIME_MARGIN * walltime_s)
        deadline = started + walltime_s - margin
        last_resort = deadline + margin / 2  # for a rank that does not look at the clock
    with tempfile.TemporaryDirectory(prefix="sagebench-") as scratch:
        environments = [
            rank_environment(trial, rank, Path(scratch), started, deadline, walltime_s)
            for rank in range(trial.ranks)
        ]
        with Ranks(command, environments, directory) as ranks, stopping_on_signals(ranks):
            ends = ranks.wait(last_resort)
    ends = [replace(end, record=read_record(directory, end.rank)) for end in ends]
    verdict = decide(
        ends,
        complete=read_measured(directory).get("complete", False),
        limit_gib=trial.memory_limit_gib,
        oom_kills=oom_kills() - kills,
        walltime_s=walltime_s if ranks.timed_out else None,
    )
    if ranks.asked_to_stop and verdict.status is not Status.COMPLETED:
        verdict = Verdict(None, "interrupted")
    return verdict, ranks.asked_to_stop


def rank_environment(
    trial: Trial,
    rank: int,
    scratch: Path,
    started: float,
    deadline: float | None,
    walltime_s: float | None,
) -> dict[str, str]:
    """What a rank on this machine finds in its environment. They meet at a file, not at a port:
    nothing else can take it."""
    environment = {
        "RANK": str(rank),
        "WORLD_SIZE": str(trial.ranks),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(trial.ranks),
        "SAGEBENCH_RENDEZVOUS": str(scratch / "rendezvous"),
        "GLOO_SOCKET_IFNAME": "lo",
        "SAGEBENCH_STARTED_AT": repr(started),
        "SAGEBENCH_LOAD_1M": repr(os.getloadavg()[0]),
        "OMP_NUM_THREADS": str(trial.threads_per_rank),
        "PYTHONUNBUFFERED": "1",
        **RUNTIME,
    }
    if deadline is not None:
        environment["SAGEBENCH_DEADLINE"] = repr(deadline)
        environment["SAGEBENCH_WALLTIME_S"] = repr(walltime_s)
    return environment


def compose_outcome(
    trial: Trial,
    measured: dict[str, Any],
    verdict: Verdict,
    attempt: dict[str, Any],
    provenance: dict[str, Any],
) -> dict[str, Any]:
    """The one record of a trial; what an early end left unmeasured is null."""
    epochs = measured.get("epochs", [])
    hops = (
        {
            name: [
                sum(values) / len(epochs) for values in zip(*(e[name] for e in epochs), strict=True)
            ]
            for name in ("nodes_per_hop", "edges_per_hop")
        }
        if epochs
        else None
    )
    timing = measured.get("timing")
    if timing is not None or "start_to_first_step_s" in measured:
        timing = {
            "start_to_first_step_s": measured.get("start_to_first_step_s"),
            **(timing or {}),
        }
    return {
        "schema": SCHEMA,
        "trial_id": trial.id,
        "trial": trial.to_json(),
        "status": verdict.status.value if verdict.status else None,
        "reason": verdict.reason,
        "started_at": attempt["started_at"],
        "finished_at": attempt["finished_at"],
        "attempts": attempt["attempt"],
        **{
            name: measured.get(name)
            for name in ("store", "placement", "parameters", "cores", "oversubscribed")
        },
        "epochs": epochs,
        "timing": timing,
        **{name: measured.get(name) for name in ("phases", "memory", "energy", "accuracy")},
        "sample": hops,
        "provenance": {**provenance, "versions": measured.get("versions")},
        "ranks": measured.get("ranks", []),
    }


def read_measured(directory: Path) -> dict[str, Any]:
    path = directory / "measured.json"
    return read_json(path) if path.exists() else {}


def read_record(directory: Path, rank: int) -> dict[str, Any] | None:
    path = directory / f"rank-{rank}.json"
    return read_json(path) if path.exists() else None


def oom_kills() -> int:
    """How often the kernel's out-of-memory killer struck in this process's cgroup (version 2)."""
    try:
        group = Path("/proc/self/cgroup").read_text().strip().splitlines()[-1].split(":", 2)[2]
        events = Path(f"/sys/fs/cgroup{group}/memory.events").read_text()
    except (OSError, IndexError):
        return 0
    return sum(int(line.split()[1]) for line in events.splitlines() if line.startswith("oom_kill "))


def iso(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, timezone.utc).isoformat(timespec="seconds")


@contextmanager
def only_one(home: Path) -> Iterator[None]:
    """Hold the trial's lock; the kernel lets go of it with the process, however that ends."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"the trial {home.name} is being run already: wait for that run, or stop it"
            ) from None
        yield


@contextmanager
def machine_alone() -> Iterator[None]:
    """Wait until no other trial runs on this machine, whoever started it: it would be timed too."""
    path = Path(tempfile.gettempdir(), "sagebench-machine.lock")
    try:  # read-only and first without O_CREAT: the file may be another user's
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        descriptor = os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("waiting for another trial on this machine to end", file=sys.stderr, flush=True)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def stopping_on_signals(ranks: Ranks) -> Iterator[None]:
    """SIGTERM, SIGINT and SIGHUP end the ranks and are reported, not fatal to the launcher."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = [signal.signal(number, lambda received, _: ranks.stop(received)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
