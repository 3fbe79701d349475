"""One process a device: who this rank is, and the few collectives the training needs."""

from __future__ import annotations

import atexit
import gc
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import _get_default_store

from sagebench.training.rendezvous import meet

COLLECTIVE_TIMEOUT = timedelta(minutes=30)
MEETING_TIMEOUT = timedelta(minutes=10)
"""from the first rank's start to the last one's"""

_gloo_groups: list[tuple[Any, Any]] = []
"""each with its backend: kept until the process is about to end.

Gloo's destructor waits for a thread that may itself wait for the interpreter's lock, to forget the
last collective: for good, where a model's DDP, which holds that lock, is the last to hold the
group."""


@atexit.register
def _forget() -> None:
    """While there still is an interpreter: without one, a thread that asks for its lock aborts the
    process."""
    if not _gloo_groups:
        return
    if dist.is_initialized():  # a rank that failed
        dist.destroy_process_group()
    gc.collect()  # a DDP may be part of a cycle
    backends = [backend for _, backend in _gloo_groups]
    _gloo_groups.clear()
    backends.clear()  # unlike its group, a backend lets go of the lock in every torch since 2.1


@dataclass(frozen=True)
class RankEnvironment:
    """Rank numbers of this process, and where the ranks meet.

    rendezvous: the file where the ranks meet (rendezvous.py); None: at MASTER_ADDR and MASTER_PORT.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    rendezvous: str | None = None

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> RankEnvironment:
        """From the variables of torchrun (the launcher sets them too), else srun's, else alone."""
        if "RANK" in environ:
            names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        elif "SLURM_PROCID" in environ and "SLURM_STEP_ID" in environ:
            names = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_NTASKS_PER_NODE")
            environ = {"SLURM_NTASKS_PER_NODE": environ["SLURM_NTASKS"], **environ}
        else:
            return cls()
        return cls(*(int(environ[name]) for name in names), environ.get("SAGEBENCH_RENDEZVOUS"))


class Communicator:
    """The process group of a trial; with one rank every collective returns at once."""

    def __init__(
        self,
        env: RankEnvironment,
        device: torch.device,
        backend: str | None = None,
        meeting_timeout: timedelta = MEETING_TIMEOUT,
        collective_timeout: timedelta = COLLECTIVE_TIMEOUT,
    ) -> None:
        """backend: None is NCCL on GPUs, of which it wants one a rank, and else Gloo, which takes
        tensors on GPUs, too."""
        self.rank, self.world_size = env.rank, env.world_size
        self.device = device
        if env.world_size > 1:
            backend = backend or ("nccl" if device.type == "cuda" else "gloo")
            store = None
            if env.rendezvous:
                store = meet(Path(env.rendezvous), env.rank, env.world_size, meeting_timeout)
            dist.init_process_group(
                backend,
                store=store,
                rank=env.rank,
                world_size=env.world_size,
                timeout=collective_timeout,
            )
            if backend == "gloo":
                _gloo_groups.append((dist.group.WORLD, dist.group.WORLD._get_backend(device)))

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Sum over the ranks, in place."""
        return self._reduce(values, dist.ReduceOp.SUM)

    def max(self, values: torch.Tensor) -> torch.Tensor:
        """Maximum over the ranks, in place."""
        return self._reduce(values, dist.ReduceOp.MAX)

    def _reduce(self, values: torch.Tensor, operation: Any) -> torch.Tensor:
        if self.world_size > 1:
            dist.all_reduce(values, operation)
        return values

    def broadcast(self, values: torch.Tensor, source: int) -> None:
        """Give every rank the values of rank `source`, in place."""
        if self.world_size > 1:
            dist.broadcast(values, source)

    def gather(self, value: Any) -> list[Any]:
        """Every rank's (picklable) value, in the order of the ranks, on every rank."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        """Wait for every rank. Reading the sum holds the host: NCCL only queues the reduction."""
        if self.world_size > 1:
            self.sum(torch.zeros(1, device=self.device)).item()

    def announce(self, name: str, number: int) -> None:
        """Let the other ranks' `announced` find `number`, at least 1; not a collective."""
        if self.world_size > 1:
            _get_default_store().add(name, number)

    def announced(self, name: str) -> int | None:
        """What a rank has announced under this name, once it has."""
        if self.world_size == 1:
            return None
        # Adding nothing asks without waiting; torch 2.1 knows no other way.
        return _get_default_store().add(name, 0) or None

    def close(self) -> None:
        if self.world_size > 1:
            dist.destroy_process_group()
