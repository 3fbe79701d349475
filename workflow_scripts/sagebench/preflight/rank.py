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

from sagebench.engines.side_stream import SideStream
from sagebench.errors import UserError
from sagebench.files import write_json
from sagebench.measure.machine import Nvml, collect_process
from sagebench.preflight import node
from sagebench.training.distributed import Communicator, RankEnvironment
from sagebench.training.rank import choose_device

MEETING_TIMEOUT = timedelta(seconds=150)
COLLECTIVE_TIMEOUT = timedelta(seconds=60)
MESSAGE_BYTES = 64 * 2**20
WARM_UPS, ROUNDS = 2, 5


def check_rank(
    directory: str, device: str, folders: Sequence[str], store: str | None, compiles: bool
) -> str | None:
    """Check all there is to check; the record, `directory`/rank-R.json, is written as it grows.

    folders: those that have to be readable. store: a graph store; None: there is none. device: cpu
    or cuda. compiles: a trial of the study has compile: true. Returns what stopped the checks,
    which stands in the record's "error", too.
    """
    env = RankEnvironment.read()
    record: dict[str, Any] = {"rank": env.rank, **collect_process(1), "error": None}
    home = Path(directory)
    path = home / f"rank-{env.rank}.json"
    try:
        for check in (
            partial(node.machine, device, compiles),
            partial(node.files, _seen(home, env.rank), folders, store),
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
    others = (rank for rank in range(env.world_size) if rank != env.rank)
    found = {
        "clock_ahead_s": statistics.median(_clock_ahead_s(ranks) for _ in range(ROUNDS)),
        "unseen": [rank for rank in others if not _seen(directory, rank).exists()],
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


def _seen(directory: Path, rank: int) -> Path:
    """A file by which the other ranks see that they share a file system."""
    return directory / f"seen-{rank}"


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
