"""Ranks of a trial: their numbers, their collectives, and the log of the first."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import socket
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from sagebench.errors import UserError
from sagebench.files import read_json, write_json

COLLECTIVE_TIMEOUT = timedelta(minutes=30)
MEETING_TIMEOUT = timedelta(minutes=10)
"""from the first rank's start to the last one's"""
POLL_S = 0.05
TRY_S = 5.0
"""for one address to answer"""
LINE_EVERY_S = 30.0
Item = TypeVar("Item")

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

    rendezvous: the file where the ranks meet (see `meet`); None: at MASTER_ADDR and MASTER_PORT.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    rendezvous: str | None = None

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> RankEnvironment:
        """Rank by torchrun's variables (the launcher sets them too), else srun's; else one rank."""
        if "RANK" in environ:
            names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        elif "SLURM_PROCID" in environ and "SLURM_STEP_ID" in environ:
            names = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_NTASKS_PER_NODE")
            environ = {"SLURM_NTASKS_PER_NODE": environ["SLURM_NTASKS"], **environ}
        else:
            return cls()
        rank, world_size, local_rank, on_node = (int(environ[name]) for name in names)
        rendezvous = environ.get("SAGEBENCH_RENDEZVOUS")
        return cls(rank, world_size, local_rank, on_node, rendezvous)


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
            store = meet(Path(env.rendezvous), env, meeting_timeout) if env.rendezvous else None
            dist.init_process_group(
                backend,
                store=store,
                rank=env.rank,
                world_size=env.world_size,
                timeout=collective_timeout,
            )
            if backend == "gloo":
                world = dist.group.WORLD
                assert world is not None
                _gloo_groups.append((world, world._get_backend(device)))

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Sum over the ranks, in place."""
        if self.world_size > 1:
            dist.all_reduce(values)
        return values

    def max(self, values: torch.Tensor) -> torch.Tensor:
        """Maximum over the ranks, in place."""
        if self.world_size > 1:
            dist.all_reduce(values, dist.ReduceOp.MAX)
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

    def close(self) -> None:
        if self.world_size > 1:
            dist.destroy_process_group()


def meet(path: Path, env: RankEnvironment, timeout: timedelta) -> dist.Store:
    """The store of the ranks that were given the same `path`, a file that is not there yet.

    Rank 0 serves it at a port that is free, and writes its address there: it is found whatever its
    node is called, and no host or port is configured.
    Raises UserError where rank 0 cannot be found or reached within `timeout`.
    """
    # Tells machines apart, not containers or names: it is the running kernel's.
    machine = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    if env.rank == 0:
        # Port 0: the system chooses one that is free.
        store = dist.TCPStore(
            "127.0.0.1", 0, env.world_size, is_master=True, timeout=timeout, wait_for_workers=False
        )
        write_json(path, {"machine": machine, "port": store.port, "hosts": own_addresses()})
        return store
    until_monotonic_s = time.monotonic() + timeout.total_seconds()
    while not path.exists():
        if time.monotonic() > until_monotonic_s:
            raise UserError(
                f"rank 0 has not written {path}: is it running, and is the folder the same one "
                f"on {socket.gethostname()}?"
            )
        time.sleep(POLL_S)
    found = read_json(path)
    port, hosts = found["port"], found["hosts"]
    host = "127.0.0.1" if found["machine"] == machine else reachable(hosts, port)
    return dist.TCPStore(
        host, port, env.world_size, is_master=False, timeout=timeout, wait_for_workers=False
    )


def own_addresses() -> list[str]:
    """Names, then addresses, by which other machines may reach this one, none of them twice."""
    names = [socket.gethostname(), socket.getfqdn()]
    addresses = []
    for name in names:
        with contextlib.suppress(OSError):
            found = socket.getaddrinfo(name, None, socket.AF_INET)
            addresses += [str(address[0]) for *_, address in found]
    return list(dict.fromkeys(name for name in names + addresses if not name.startswith("127.")))


def reachable(hosts: list[str], port: int) -> str:
    """The first of rank 0's addresses that answers from here."""
    for host in hosts:
        with (
            contextlib.suppress(OSError),
            socket.create_connection((host, port), timeout=TRY_S),
        ):
            return host
    raise UserError(
        f"rank 0 listens at {', '.join(hosts)}, port {port}, and none of these answers on "
        f"{socket.gethostname()}: that node's name must be known and its ports open here"
    )


class Progress:
    """Lines in the log of rank 0; the other ranks are quiet."""

    def __init__(self, speaks: bool) -> None:
        self.speaks = speaks

    def say(self, text: str) -> None:
        if self.speaks:
            print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)

    def over(self, items: Iterable[Item], total: int, title: str) -> Iterator[Item]:
        """`items`, with a line every half minute."""
        start = last = time.monotonic()
        for done, item in enumerate(items, start=1):
            yield item
            now = time.monotonic()
            if now - last > LINE_EVERY_S:
                last = now
                left_s = (now - start) / done * (total - done)
                self.say(f"{title}: {done} of {total} batches, about {left_s:.0f} s left")
