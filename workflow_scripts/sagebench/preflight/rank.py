"""One rank of a preflight, in its container: what it finds on its node, then with the others."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sagebench.engines.loaders import SideStream
from sagebench.engines.precision import LANGUAGES, OLDEST, find_compiler, torch_version
from sagebench.errors import UserError
from sagebench.files import write_json
from sagebench.graph.store import GraphStore
from sagebench.measure.machine import (
    Nvml,
    available_cores,
    collect_process,
    collect_slurm,
    collect_versions,
)
from sagebench.training.distributed import Communicator, RankEnvironment
from sagebench.training.rank import choose_device

COMPILER_LIMIT_S = 60
MEETING_TIMEOUT = timedelta(seconds=150)
COLLECTIVE_TIMEOUT = timedelta(seconds=60)
MESSAGE_BYTES = 64 * 2**20
WARM_UPS, ROUNDS = 2, 5


def check_rank(
    directory: str, device: str, folders: Sequence[str], store: str | None, compiles: bool
) -> str | None:
    """Check all there is to check; the record, `directory`/rank-R.json, is written as it grows.

    folders: those that have to be readable. store: a graph store, if any. compiles: a trial of the
    study has compile: true. Returns what stopped the checks, also the record's "error".
    """
    env = RankEnvironment.read()
    record: dict[str, Any] = {"rank": env.rank, **collect_process(1), "error": None}
    home = Path(directory)
    path = home / f"rank-{env.rank}.json"
    try:
        for check in (
            partial(machine, device, compiles),
            partial(files, home / f"seen-{env.rank}", folders, store),
            partial(together, home, env, device),
        ):
            record |= check()
            write_json(path, record)
    except Exception as error:
        said = str(error).strip().splitlines() or [repr(error)]
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        record["error"] = kind + said[0]
        write_json(path, record)
    return record["error"]


def machine(device: str, compiles: bool) -> dict[str, Any]:
    """Versions, CPUs and devices, and what trials use besides them. compiler: {"language",
    "error"} where trials compile code while they run."""
    too_old = torch_version() < OLDEST
    found: dict[str, Any] = {
        "slurm": collect_slurm(),
        "versions": collect_versions(),
        "cores": available_cores(),
        "cores_of_machine": os.cpu_count(),
        "visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "driver": None,
        "devices": [],
        "device_error": None,
        "too_old_to_compile": compiles and too_old,
        "compiler": None,
        "shared_memory": shared_memory(),
    }
    if compiles and not too_old:
        language = LANGUAGES[device]
        found["compiler"] = {"language": language, "error": compiler_error(language)}
    if device == "cuda":
        found["driver"] = Nvml().driver()
        try:
            torch.cuda.init()
            count = torch.cuda.device_count()
            found["devices"] = [torch.cuda.get_device_name(index) for index in range(count)]
        except (RuntimeError, AssertionError) as error:
            found["device_error"] = str(error).strip().splitlines()[0]
    return found


def compiler_error(language: str) -> str | None:
    """Why the compiler makes no Python extension, which Triton's launchers and torch's compiled
    code are; None where it does."""
    command = find_compiler(language)
    if command is None:
        return "there is none"
    # As Triton does: Debian's own scheme names a folder that holds no headers.
    scheme = sysconfig.get_default_scheme().replace("posix_local", "posix_prefix")
    include = sysconfig.get_paths(scheme=scheme)["include"]
    with tempfile.TemporaryDirectory(prefix="sagebench-") as scratch:
        words = [command, f"-x{language.lower()}", "-", "-shared", "-fPIC", "-I", include]
        try:
            done = subprocess.run(
                [*words, "-o", f"{scratch}/x.so"],
                input="#include <Python.h>\n",
                capture_output=True,
                text=True,
                errors="replace",
                timeout=COMPILER_LIMIT_S,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"{command}: {error}"
    if done.returncode == 0:
        return None
    said = [line for line in done.stderr.splitlines() if "error" in line] or ["it failed"]
    return f"{command}: {said[0]}"


def shared_memory(folder: Path = Path("/dev/shm")) -> dict[str, Any]:
    """{"free_bytes", "error"} of the folder through which processes hand each other memory."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
        return {"free_bytes": shutil.disk_usage(folder).free, "error": None}
    except OSError as error:
        return {"free_bytes": None, "error": error.strerror}


def files(own: Path, folders: Sequence[str], store: str | None) -> dict[str, Any]:
    """Folders that cannot be read, by reason; whether the results can be written, and the store
    opened. own: a file to write, by which the others see that they share a file system."""
    found: dict[str, Any] = {"unreadable": {}, "unwritable": None, "store": None}
    for folder in folders:
        try:
            next(Path(folder).iterdir(), None)
        except OSError as error:
            found["unreadable"][folder] = error.strerror
    try:
        own.write_text("")
    except OSError as error:
        found["unwritable"] = error.strerror
    if store is not None:
        found["store"] = {"path": store, "error": None}
        try:
            opened = GraphStore.open(store)
            found["store"]["num_nodes"] = opened.num_nodes
            opened.features[0].sum()
        except (UserError, OSError) as error:
            found["store"]["error"] = str(error)
    return found


def together(directory: Path, env: RankEnvironment, device: str) -> dict[str, Any]:
    """Meet the other ranks; compare clocks and files with theirs; time an all-reduce.

    meeting_s: from the rank's arrival. clock_ahead_s: of rank 0's. all_reduce_gb_per_s: bus
    bandwidth, 10^9 bytes. One rank has no meeting and no all-reduce: null. contexts: GPUs of the
    node on which this process has one now; null on a CPU, and where that is not known.
    """
    began = time.monotonic()
    ranks = Communicator(
        env,
        choose_device(device, env),
        meeting_timeout=MEETING_TIMEOUT,
        collective_timeout=COLLECTIVE_TIMEOUT,
    )
    meeting_s = time.monotonic() - began
    unseen = [rank for rank in range(env.world_size) if not (directory / f"seen-{rank}").exists()]
    found = {
        "clock_ahead_s": statistics.median(_clock_ahead_s(ranks) for _ in range(ROUNDS)),
        "unseen": [rank for rank in unseen if rank != env.rank],
        "meeting_s": meeting_s if env.world_size > 1 else None,
        "all_reduce_gb_per_s": _bus_bandwidth(ranks) / 1e9 or None,
        "contexts": _contexts(ranks.device) if device == "cuda" else None,
    }
    ranks.barrier()
    ranks.close()
    return found


def _contexts(device: torch.device) -> list[int] | None:
    """GPUs of the node on which this process has a context, once background threads have worked on
    a stream of their own, as they do to sample."""
    ones = SideStream(device).ahead(partial(torch.ones, device=device), [1000] * 4, workers=2)
    for one in ones:
        one.sum().item()
    return Nvml().with_context(os.getpid())


def _clock_ahead_s(ranks: Communicator) -> float:
    ranks.barrier()
    now = time.time()
    return now - ranks.gather(now)[0]


def _bus_bandwidth(ranks: Communicator) -> float:
    """Bytes a second that each rank sends and receives, as nccl-tests count them."""
    message = torch.ones(MESSAGE_BYTES // 4, device=ranks.device)
    durations = []
    for _ in range(WARM_UPS + ROUNDS):
        ranks.barrier()
        began = time.monotonic()
        ranks.max(message)[0].item()
        durations.append(time.monotonic() - began)
    share = 2 * (ranks.world_size - 1) / ranks.world_size
    return MESSAGE_BYTES * share / statistics.median(durations[WARM_UPS:])
