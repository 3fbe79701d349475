"""Runs a function as several gloo ranks on this machine, without a new interpreter for each."""

from __future__ import annotations

import multiprocessing
import tempfile
import traceback
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
# The fork server imports once what every rank needs; not torch._dynamo, whose threads do not fork.
CONTEXT.set_forkserver_preload(
    ["sagebench.training.rank", "sagebench.training.blocks_engine", "sagebench.training.pyg_engine"]
)
LIMIT_S = 120


def run_ranks(count: int, function, *arguments) -> list:
    """`function(place, *arguments)` in `count` processes; returns their results in order.

    place: the RankEnvironment of the process. Raises AssertionError with the rank's traceback.
    """
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
            found = dict(results.get(timeout=LIMIT_S) for _ in processes)
        finally:
            for process in processes:
                process.join(10)
                process.kill()
        for rank, (error, _) in sorted(found.items()):
            assert error is None, f"rank {rank}: {error}"
        return [found[rank][1] for rank in range(count)]


def _run(results, rank, count, rendezvous, function, arguments):
    import torch
    from sagebench.training.distributed import RankEnvironment

    torch.set_num_threads(1)
    try:
        place = RankEnvironment(rank, count, rank, count, rendezvous)
        results.put((rank, (None, function(place, *arguments))))
    except BaseException:
        results.put((rank, (traceback.format_exc(), None)))
