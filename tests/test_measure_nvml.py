"""What a machine without an NVIDIA driver is told of its GPUs: nothing, without an error."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from sagebench.measure import machine
from sagebench.measure.machine import Nvml


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is an NVIDIA driver here")
def test_without_a_driver_all_is_null():
    nvml = Nvml()
    assert nvml.driver() is None
    assert nvml.energy_j(1) is None
    assert set(nvml.limits(0).values()) == set(nvml.state(0).values()) == {None}


class OneGpu:
    """NVML's functions on a node with two GPUs, of which the second takes part."""

    NVMLError = ValueError
    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0

    def nvmlDeviceGetHandleByIndex(self, index):
        return f"index {index}"

    def nvmlDeviceGetHandleByUUID(self, uuid):
        return f"uuid {uuid.decode()}"

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        return {"index 1": 2000, "uuid GPU-a": 3000}[handle]

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle):
        return 0x4 | 0x40

    def nvmlDeviceGetClockInfo(self, handle, clock):
        return 1000 * clock

    def nvmlDeviceGetTemperature(self, handle, sensor):
        return 40

    def nvmlDeviceGetPowerUsage(self, handle):
        raise ValueError("not supported")


@pytest.mark.parametrize(("visible", "joules"), [("1", 2.0), ("GPU-a", 3.0), ("GPU-a,1", 3.0)])
def test_gpus_go_by_what_the_process_may_use(monkeypatch, visible, joules):
    """NVML itself numbers every GPU of the node."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    nvml = Nvml()
    nvml._nvml = OneGpu()
    assert nvml.energy_j(1) == joules
    assert nvml.energy_j(3) is None  # there are not as many
    assert nvml.state(0) == {
        "sm_clock_mhz": 1000,
        "memory_clock_mhz": 2000,
        "power_w": None,
        "temperature_c": 40,
        "throttle_reasons": ["software_power_cap", "hardware_thermal_slowdown"],
    }


def test_the_rank_is_told_of_a_cpu():
    found = machine.collect_device(torch.device("cpu"))
    assert found["device"] == "cpu"
    assert {value for name, value in found.items() if name != "device"} == {None}
    assert set(machine.collect_allocator(torch.device("cpu")).values()) == {None}


class SomeGpus:
    """NVML of a node: which processes are on which of its GPUs."""

    class NVMLError(Exception):
        pass

    def __init__(self, *gpus):
        self.gpus = gpus

    def nvmlDeviceGetCount(self):
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index):
        return self.gpus[index]

    def nvmlDeviceGetComputeRunningProcesses(self, handle):
        return [SimpleNamespace(pid=pid) for pid in handle]


@pytest.mark.parametrize(
    ("gpus", "found"),
    [
        ([{7}, {8}, set()], [0]),
        ([{8, 7}, {9}, {7}], [0, 2]),
        ([{1}, {2}], None),  # a container's own numbers: NVML has the node's
        ([], None),
    ],
)
def test_contexts_are_those_that_nvml_sees_or_not_known(gpus, found):
    nvml = Nvml()
    nvml._nvml = SomeGpus(*gpus)
    assert nvml.with_context(7) == found


THREADS = """
import os, torch
from functools import partial
from sagebench.engines.loaders import SideStream
from sagebench.measure.machine import Nvml
torch.cuda.set_device(1)
device = torch.device("cuda", 1)
for ones in SideStream(device).ahead(partial(torch.ones, device=device), [1000] * 4, workers=2):
    ones.sum().item()
print(Nvml().with_context(os.getpid()))
"""


@pytest.mark.cuda
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs: a thread starts on 0")
def test_a_ranks_background_threads_stay_on_its_gpu():
    scripts = Path(__file__).parents[1] / "workflow_scripts"
    done = subprocess.run(
        [sys.executable, "-c", THREADS], cwd=scripts, capture_output=True, text=True
    )
    assert re.fullmatch(r"None|\[\d+\]", done.stdout.strip()), done.stdout + done.stderr
