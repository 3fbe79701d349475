"""What NVML tells of a node's GPUs: energy, clocks, power, temperature, throttling."""

from __future__ import annotations

import contextlib
import os
from typing import Any

import torch

THROTTLE_REASONS = {
    0x1: "gpu_idle",
    0x2: "applications_clocks_setting",
    0x4: "software_power_cap",
    0x8: "hardware_slowdown",
    0x10: "sync_boost",
    0x20: "software_thermal_slowdown",
    0x40: "hardware_thermal_slowdown",
    0x80: "hardware_power_brake",
    0x100: "display_clock_setting",
}
"""the bits of nvmlDeviceGetCurrentClocksThrottleReasons (NVML's reference, "Clocks event reasons")
"""
SM_CLOCK, MEMORY_CLOCK, GPU_SENSOR = 1, 2, 0
"""NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU"""


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
        text = self._nvml.nvmlSystemGetDriverVersion()
        return text.decode() if isinstance(text, bytes) else text

    def energy_j(self, gpus: int) -> float | None:
        """Joules that the first `gpus` GPUs this process may use have taken since driver start."""
        joules = [self._thousandth(index, "TotalEnergyConsumption") for index in range(gpus)]
        return None if None in joules else sum(joules)

    def limits(self, index: int) -> dict[str, float | None]:
        """What a GPU is allowed: power in W, clocks in MHz."""
        return {
            "power_limit_w": self._thousandth(index, "PowerManagementLimit"),
            "sm_clock_max_mhz": self._ask(index, "MaxClockInfo", SM_CLOCK),
            "memory_clock_max_mhz": self._ask(index, "MaxClockInfo", MEMORY_CLOCK),
        }

    def state(self, index: int) -> dict[str, Any]:
        """A GPU at this moment: clocks in MHz, power in W, temperature in degrees Celsius, and why
        its clocks are below their highest."""
        reasons = self._ask(index, "CurrentClocksThrottleReasons")
        names = [name for bit, name in THROTTLE_REASONS.items() if reasons and reasons & bit]
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
        """What NVML answers of a GPU of this process; None where it does not."""
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
    """By which NVML knows a GPU of this process; None where torch does not tell (before 2.3)."""
    uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)
    return None if uuid is None else f"GPU-{uuid}"
