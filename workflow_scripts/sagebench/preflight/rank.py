"""One rank of a preflight: what it finds on its node, then together with the others."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from sagebench.engines.compilation import OLDEST, torch_version
from sagebench.engines.side_stream import SideStream
from sagebench.errors import UserError
from sagebench.files import write_json
from sagebench.graph.store import GraphStore
from sagebench.measure.machine import (
    available_cores,
    collect_process,
    collect_slurm,
    collect_versions,
)
from sagebench.measure.nvml import Nvml
from sagebench.preflight import node
from sagebench.preflight.findings import NO_GPU
from sagebench.training.distributed import RankEnvironment
from sagebench.training.rendezvous import meet

MEETING_TIMEOUT = timedelta(seconds=150)
COLLECTIVE_TIMEOUT = timedelta(seconds=60)
MESSAGE_BYTES = 64 * 2**20
WARM_UPS, ROUNDS = 2, 5


def check_rank(
    directory: Path, *, device: str, folders: Sequence[str], store: str | None, compiles: bool
) -> str | None:
    """Check all there is to check; the record, `directory`/rank-R.json, is written as it grows.

    folders: those that have to be readable. store: a graph store; None: there is none. device: cpu
    or cuda. compiles: a trial of the study has compile: true. Returns what stopped the checks,
    which stands in the record's "error", too.
    """
    place = RankEnvironment.read()
    record: dict[str, Any] = {"rank": place.rank, **collect_process(1), "error": None}
    path = directory / f"rank-{place.rank}.json"
    try:
        for check in (
            lambda: machine(device),
            lambda: of_node(device, compiles),
            lambda: files(directory, place.rank, folders, store),
            lambda: together(directory, place, choose_device(device, place)),
            lambda: contexts(device, place.local_rank),
        ):
            record |= check()
            write_json(path, record)
    except Exception as error:
        said = str(error).strip().splitlines() or [repr(error)]
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        record["error"] = kind + said[0]
        write_json(path, record)
    if dist.is_initialized() and record["error"] is None:
        dist.destroy_process_group()
    return record["error"]


def machine(device: str) -> dict[str, Any]:
    """Versions, CPUs and devices, as they are inside of the container."""
    found: dict[str, Any] = {
        "slurm": collect_slurm(),
        "versions": collect_versions(),
        "cores": available_cores(),
        "cores_of_machine": os.cpu_count(),
        "visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "driver": None,
        "devices": [],
        "device_error": None,
    }
    if device == "cuda":
        found["driver"] = Nvml().driver()
        try:
            torch.cuda.init()
            count = torch.cuda.device_count()
            found["devices"] = [torch.cuda.get_device_name(index) for index in range(count)]
        except (RuntimeError, AssertionError) as error:
            found["device_error"] = str(error).strip().splitlines()[0]
    return found


def of_node(device: str, compiles: bool) -> dict[str, Any]:
    """What trials use of a node besides CPUs and devices."""
    return {
        "too_old_to_compile": compiles and torch_version() < OLDEST,
        "compiler": node.compiler(device, compiles),
        "shared_memory": node.shared_memory(),
    }


def files(directory: Path, rank: int, folders: Sequence[str], store: str | None) -> dict[str, Any]:
    """Folders that cannot be read, by reason; whether the results can be written, and the store
    opened."""
    unreadable = {}
    for folder in folders:
        try:
            next(Path(folder).iterdir(), None)
        except OSError as error:
            unreadable[folder] = error.strerror
    found: dict[str, Any] = {"unreadable": unreadable, "unwritable": None, "store": None}
    try:
        _seen(directory, rank).write_text("")
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


def choose_device(kind: str, place: RankEnvironment) -> torch.device:
    """As for a trial: of its node's devices the one with the rank's own number there."""
    if kind == "cpu":
        return torch.device("cpu")
    if place.local_rank >= torch.cuda.device_count():
        raise UserError(f"{NO_GPU} {place.local_rank} for it")
    torch.cuda.set_device(place.local_rank)
    return torch.device("cuda", place.local_rank)


def together(directory: Path, place: RankEnvironment, device: torch.device) -> dict[str, Any]:
    """Meet the other ranks; compare clocks and files with theirs; time an all-reduce.

    meeting_s: from the rank's arrival. clock_ahead_s: of rank 0's. all_reduce_gb_per_s: bus
    bandwidth, 10^9 bytes; null for one rank.
    """
    if place.world_size == 1:
        (torch.ones(1000, device=device) * 2).sum().item()
        return {"meeting_s": None, "clock_ahead_s": 0.0, "unseen": [], "all_reduce_gb_per_s": None}
    assert place.rendezvous is not None
    began = time.monotonic()
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=meet(Path(place.rendezvous), place.rank, place.world_size, MEETING_TIMEOUT),
        rank=place.rank,
        world_size=place.world_size,
        timeout=COLLECTIVE_TIMEOUT,
    )
    found: dict[str, Any] = {"meeting_s": time.monotonic() - began}
    ahead = [_clock_ahead_s(place, device) for _ in range(ROUNDS)]
    found["clock_ahead_s"] = statistics.median(ahead)
    ranks = range(place.world_size)
    found["unseen"] = [rank for rank in ranks if not _seen(directory, rank).exists()]
    found["all_reduce_gb_per_s"] = _bus_bandwidth(place, device) / 1e9
    _barrier(device)
    return found


def contexts(kind: str, local_rank: int) -> dict[str, Any]:
    """The GPUs of the node on which this process has a context; null on a CPU, and where that is
    not known."""
    if kind == "cpu":
        return {"contexts": None}
    # Once by background threads on a stream of their own, as samples are drawn: what they touch
    # besides their stream's GPU is part of it.
    device = torch.device(kind, local_rank)
    side = SideStream(device)
    for ones in side.ahead(partial(torch.ones, device=device), [1000] * 4, workers=2):
        ones.sum().item()
    return {"contexts": node.gpus_with_context(os.getpid())}


def _seen(directory: Path, rank: int) -> Path:
    """A file by which the other ranks see that they share a file system."""
    return directory / f"seen-{rank}"


def _barrier(device: torch.device) -> None:
    dist.all_reduce(one := torch.ones(1, device=device))
    one.item()


def _clock_ahead_s(place: RankEnvironment, device: torch.device) -> float:
    _barrier(device)
    now = time.time()
    times = torch.zeros(place.world_size, dtype=torch.float64, device=device)
    times[place.rank] = now
    dist.all_reduce(times)
    return now - times[0].item()


def _bus_bandwidth(place: RankEnvironment, device: torch.device) -> float:
    """Bytes a second that each rank sends and receives, as nccl-tests count them."""
    message = torch.ones(MESSAGE_BYTES // 4, device=device)
    durations = []
    for _ in range(WARM_UPS + ROUNDS):
        _barrier(device)
        began = time.monotonic()
        dist.all_reduce(message, op=dist.ReduceOp.MAX)
        message[0].item()
        durations.append(time.monotonic() - began)
    share = 2 * (place.world_size - 1) / place.world_size
    return MESSAGE_BYTES * share / statistics.median(durations[WARM_UPS:])
