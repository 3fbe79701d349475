"""Where the ranks of a trial meet: a store that rank 0 serves, its address in a file all can read.

A file rather than a configured host and port: rank 0 takes a port that is free, and is found
whatever its node is called.
"""

from __future__ import annotations

import socket
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist

from sagebench.errors import UserError
from sagebench.files import read_json, write_json

POLL_S = 0.05
TRY_S = 5.0
"""for one address to answer"""


def meet(path: Path, rank: int, world_size: int, timeout: timedelta) -> dist.Store:
    """The store of the ranks that were given the same `path`, a file that is not there yet.

    Raises UserError where rank 0 cannot be found or reached within `timeout`.
    """
    if rank == 0:
        # Port 0: the system chooses one that is free.
        store = dist.TCPStore(
            "127.0.0.1", 0, world_size, is_master=True, timeout=timeout, wait_for_workers=False
        )
        write_json(path, {"machine": machine_id(), "port": store.port, "hosts": own_addresses()})
        return store
    found = _wait_for(path, time.monotonic() + timeout.total_seconds())
    host = reachable_host(found)
    return dist.TCPStore(
        host, found["port"], world_size, is_master=False, timeout=timeout, wait_for_workers=False
    )


def own_addresses() -> list[str]:
    """How other machines may reach this one: its names, then its addresses, none of them twice."""
    names = [socket.gethostname(), socket.getfqdn()]
    addresses = []
    for name in names:
        try:
            addresses += [entry[4][0] for entry in socket.getaddrinfo(name, None, socket.AF_INET)]
        except OSError:
            continue
    return list(dict.fromkeys(name for name in names + addresses if not name.startswith("127.")))


def reachable_host(found: dict[str, Any]) -> str:
    """The first of rank 0's addresses that answers from here."""
    if found["machine"] == machine_id():
        return "127.0.0.1"
    for host in found["hosts"]:
        try:
            with socket.create_connection((host, found["port"]), timeout=TRY_S):
                return host
        except OSError:
            continue
    raise UserError(
        f"rank 0 listens at {', '.join(found['hosts'])}, port {found['port']}, and none of these "
        f"answers on {socket.gethostname()}: that node's name must be known and its ports open here"
    )


def machine_id() -> str:
    """Tells machines apart, not containers or names: it is the running kernel's."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _wait_for(path: Path, until_monotonic_s: float) -> dict[str, Any]:
    while not path.exists():
        if time.monotonic() > until_monotonic_s:
            raise UserError(
                f"rank 0 has not written {path}: is it running, and is the folder the same one "
                f"on {socket.gethostname()}?"
            )
        time.sleep(POLL_S)
    return read_json(path)
