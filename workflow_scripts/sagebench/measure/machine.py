"""Machine that a trial ran on: one `collect_*` a topic, and NVML; what it does not tell is null."""

from __future__ import annotations

import contextlib
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

OF_A_GPU = (
    *("device_name", "device_uuid", "device_memory_bytes", "driver"),
    *("power_limit_w", "sm_clock_max_mhz", "memory_clock_max_mhz", "allocator_settings"),
)
PACKAGES = ("torch", "torch_geometric", "numpy", "numba", "triton", "pyg_lib", "snakemake")
THROTTLE_REASONS = (
    *("gpu_idle", "applications_clocks_setting", "software_power_cap", "hardware_slowdown"),
    *("sync_boost", "software_thermal_slowdown", "hardware_thermal_slowdown"),
    *("hardware_power_brake", "display_clock_setting"),
)
"""the bits of nvmlDeviceGetCurrentClocksThrottleReasons, lowest first (NVML's reference, "Clocks
event reasons")"""
SM_CLOCK, MEMORY_CLOCK, GPU_SENSOR = 1, 2, 0
"""NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU"""


def collect_versions() -> dict[str, str | None]:
    own = {"sagebench": __version__, "python": platform.python_version()}
    versions: dict[str, str | None] = {**own, **dict.fromkeys(PACKAGES)}
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package)
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
    """Retries of torch's CUDA allocator after freeing its cache, and its failures, in this process;
    null on a CPU."""
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


class Nvml:
    """NVML through nvidia-ml-py; everything is None where there is no NVIDIA driver.

    NVML numbers every GPU of the node by its slot, whatever CUDA_VISIBLE_DEVICES says, and CUDA the
    fastest first; the indices here are CUDA's in this process.
    """

    def __init__(self) -> None:
        self._nvml: Any = None
        with contextlib.suppress(ImportError):
            import pynvml

            with contextlib.suppress(pynvml.NVMLError):
                pynvml.nvmlInit()
                self._nvml = pynvml

    def driver(self) -> str | None:
        if self._nvml is None:
            return None
        return self._nvml.nvmlSystemGetDriverVersion()

    def energy_j(self, gpus: int) -> float | None:
        """Joules that the first `gpus` GPUs this process may use have taken since driver start."""
        joules = [self._thousandth(index, "TotalEnergyConsumption") for index in range(gpus)]
        known = [one for one in joules if one is not None]
        return sum(known) if len(known) == gpus else None

    def limits(self, index: int) -> dict[str, float | None]:
        """Limits of a GPU: power in W, clocks in MHz."""
        return {
            "power_limit_w": self._thousandth(index, "PowerManagementLimit"),
            "sm_clock_max_mhz": self._ask(index, "MaxClockInfo", SM_CLOCK),
            "memory_clock_max_mhz": self._ask(index, "MaxClockInfo", MEMORY_CLOCK),
        }

    def state(self, index: int) -> dict[str, Any]:
        """A GPU at this moment: clocks in MHz, power in W, temperature in degrees Celsius, and why
        its clocks are below their highest."""
        reasons = self._ask(index, "CurrentClocksThrottleReasons")
        names = [name for bit, name in enumerate(THROTTLE_REASONS) if (reasons or 0) >> bit & 1]
        return {
            "sm_clock_mhz": self._ask(index, "ClockInfo", SM_CLOCK),
            "memory_clock_mhz": self._ask(index, "ClockInfo", MEMORY_CLOCK),
            "power_w": self._thousandth(index, "PowerUsage"),
            "temperature_c": self._ask(index, "Temperature", GPU_SENSOR),
            "throttle_reasons": None if reasons is None else names,
        }

    def with_context(self, pid: int) -> list[int] | None:
        """The node's GPUs, as NVML numbers them, on which a process has a CUDA context; None: not
        known, as NVML does not see the process, e.g. in a container with numbers of its own."""
        if self._nvml is None:
            return None
        with contextlib.suppress(self._nvml.NVMLError):
            gpus = range(self._nvml.nvmlDeviceGetCount())
            handles = map(self._nvml.nvmlDeviceGetHandleByIndex, gpus)
            running = map(self._nvml.nvmlDeviceGetComputeRunningProcesses, handles)
            return [
                n for n, processes in enumerate(running) if pid in {p.pid for p in processes}
            ] or None
        return None

    def _ask(self, index: int, what: str, *arguments: int) -> Any:
        """One NVML query for a GPU of this process; None without NVML or on its error."""
        if self._nvml is None:
            return None
        try:
            return getattr(self._nvml, f"nvmlDeviceGet{what}")(self._handle(index), *arguments)
        except (self._nvml.NVMLError, IndexError):
            return None

    def _thousandth(self, index: int, what: str) -> float | None:
        """W and J of what NVML has in mW and mJ."""
        answer = self._ask(index, what)
        return None if answer is None else answer / 1000

    def _handle(self, index: int) -> Any:
        if torch.cuda.is_initialized() and (uuid := gpu_uuid(index)):
            return self._nvml.nvmlDeviceGetHandleByUUID(uuid.encode())
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        name = visible.split(",")[index].strip() if visible else str(index)
        if name.isdigit():
            return self._nvml.nvmlDeviceGetHandleByIndex(int(name))
        return self._nvml.nvmlDeviceGetHandleByUUID(name.encode())


def gpu_uuid(device: torch.device | int) -> str | None:
    """UUID of a GPU of this process for NVML; None for torch before 2.3."""
    uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)
    return None if uuid is None else f"GPU-{uuid}"
