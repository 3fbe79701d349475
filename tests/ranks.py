"""Runs a function as several gloo ranks on this machine, without a new interpreter for each."""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import traceback
from multiprocessing import forkserver
from pathlib import Path
from unittest import mock

CONTEXT = multiprocessing.get_context("forkserver")
# The fork server imports once what every rank needs.
CONTEXT.set_forkserver_preload(
    [
        "sagebench.methods.minibatch",
        "sagebench.training.rank",
        "sagebench.engines.blocks",
        "torch._dynamo",
    ]
)
LIMIT_S = 120


def start_server() -> None:
    """The fork server, which otherwise looks for what it is to import on a path of its own, finds
    nothing there, and is silent about it."""
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)):
        forkserver.ensure_running()


def run_ranks(count: int, function, *arguments, killed: int = 0) -> list:
    """`function(place, *arguments)` in `count` processes; returns their results in order.

    place: the RankEnvironment of the process. killed: how many are, and have the result None.
    Raises AssertionError with the rank's traceback.
    """
    start_server()
    with tempfile.TemporaryDirectory() as folder:
        rendezvous = str(Path(folder) / "rendezvous")
        results = CONTEXT.Queue()
        processes = [
            CONTEXT.Process(
                target=_run, args=(results, rank, count, rendezvous, function, arguments)
            )
            for rank in range(count)
        ]
        for process in processes:
            process.start()
        try:
            found = dict(results.get(timeout=LIMIT_S) for _ in range(count - killed))
        finally:
            for process in processes:
                process.join(10)
                process.kill()
        for rank, (error, _) in sorted(found.items()):
            assert error is None, f"rank {rank}: {error}"
        return [found[rank][1] if rank in found else None for rank in range(count)]


def _run(results, rank, count, rendezvous, function, arguments):
    import torch
    from sagebench.training.distributed import RankEnvironment

    torch.set_num_threads(1)
    try:
        place = RankEnvironment(rank, count, rank, count, rendezvous)
        results.put((rank, (None, function(place, *arguments))))
    except BaseException:
        results.put((rank, (traceback.format_exc(), None)))
