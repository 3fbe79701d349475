"""On what a trial ran: one `collect_*` a topic; what a machine does not tell is null."""

from __future__ import annotations

import os
import platform
import socket
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "torch_geometric", "numpy", "numba", "triton", "pyg_lib", "snakemake")


def collect_versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    versions["cuda"] = torch.version.cuda
    return versions


def collect_cpu() -> dict[str, Any]:
    return {
        "cpu_model": _cpu_model(),
        "cores": available_cores(),
        "load_1m": float(os.environ.get("SAGEBENCH_LOAD_1M", os.getloadavg()[0])),
        "memory_total_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
    }


def available_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0))


def _cpu_model() -> str | None:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return None


def collect_device(device: torch.device) -> dict[str, Any]:
    """Name, UUID and driver of a GPU; on a CPU all null but the kind."""
    found: dict[str, Any] = {
        "device": device.type,
        "device_name": None,
        "device_uuid": None,
        "device_memory_bytes": None,
        "driver": None,
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found["device_name"] = properties.name
        found["device_memory_bytes"] = properties.total_memory
        uuid = getattr(properties, "uuid", None)  # since torch 2.3
        found["device_uuid"] = None if uuid is None else f"GPU-{uuid}"
        from sagebench.measure.energy import Nvml

        found["driver"] = Nvml().driver()
    return found


def collect_slurm() -> dict[str, str]:
    """The Slurm ids that say where in the cluster this process ran."""
    names = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_PROCID", "SLURM_LOCALID", "SLURMD_NODENAME")
    return {name.lower(): os.environ[name] for name in names if name in os.environ}


def collect_process(threads: int) -> dict[str, Any]:
    host = socket.gethostname()
    return {
        "host": host,
        "node": os.environ.get("SLURMD_NODENAME", host),
        "pid": os.getpid(),
        "threads": threads,
    }
