"""On what a trial ran: one `collect_*` a topic; what a machine does not tell is null."""

from __future__ import annotations

import os
import platform
import re
import socket
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from sagebench import __version__
from sagebench.measure import allocator
from sagebench.measure.nvml import Nvml, gpu_uuid

OF_A_GPU = (
    *("device_name", "device_uuid", "device_memory_bytes", "driver"),
    *("power_limit_w", "sm_clock_max_mhz", "memory_clock_max_mhz", "allocator_settings"),
)
PACKAGES = ("torch", "torch_geometric", "numpy", "numba", "triton", "pyg_lib", "snakemake")


def collect_versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {
        "sagebench": __version__,
        "python": platform.python_version(),
    }
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    versions["cuda"] = torch.version.cuda
    on_gpu = torch.cuda.is_initialized()  # asking loads the libraries
    versions["cudnn"] = str(torch.backends.cudnn.version()) if on_gpu else None
    versions["nccl"] = ".".join(map(str, torch.cuda.nccl.version())) if on_gpu else None
    return versions


def collect_cpu() -> dict[str, Any]:
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "cpu_model": model and model[1],
        "cores": available_cores(),
        "load_1m": float(os.environ.get("SAGEBENCH_LOAD_1M", os.getloadavg()[0])),
        "memory_total_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
    }


def available_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0))


def collect_device(device: torch.device) -> dict[str, Any]:
    """A GPU's name, driver, limits and allocator settings; on a CPU all null but the kind."""
    if device.type != "cuda":
        return {"device": device.type, **dict.fromkeys(OF_A_GPU)}
    properties = torch.cuda.get_device_properties(device)
    nvml = Nvml()
    return {
        "device": device.type,
        "device_name": properties.name,
        "device_uuid": gpu_uuid(device),
        "device_memory_bytes": properties.total_memory,
        "driver": nvml.driver(),
        **nvml.limits(device.index or 0),
        "allocator_settings": allocator.settings(os.environ) or None,
    }


def collect_allocator(device: torch.device) -> dict[str, int | None]:
    """How often torch's CUDA allocator had to free its cache and ask again, and failed, in this
    process; null on a CPU."""
    names = ("num_alloc_retries", "num_ooms")
    if device.type != "cuda":
        return dict.fromkeys(names)
    counted = torch.cuda.memory_stats(device)
    return {name: counted.get(name, 0) for name in names}


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
