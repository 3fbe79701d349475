"""Energy of the GPUs of a node, from NVML's own counter."""

from __future__ import annotations

import contextlib
import os


class Nvml:
    """NVML through nvidia-ml-py; everything is None where there is no NVIDIA driver."""

    def __init__(self) -> None:
        self._nvml = None
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
        """Joules that the first `gpus` GPUs this process may use have taken since driver start.

        NVML numbers every GPU of the node, whatever CUDA_VISIBLE_DEVICES says.
        """
        if self._nvml is None:
            return None
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = visible.split(",") if visible else [str(i) for i in range(gpus)]
        try:
            handles = [
                self._nvml.nvmlDeviceGetHandleByIndex(int(name))
                if name.isdigit()
                else self._nvml.nvmlDeviceGetHandleByUUID(name.encode())
                for name in names[:gpus]
            ]
            return sum(
                self._nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000 for handle in handles
            )
        except self._nvml.NVMLError:
            return None
