"""A small table of cards: data sheets, and the few constants that make times and watts of them.

A figure from here is a model's, not a measurement's: the plan says so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sagebench.errors import UserError
from sagebench.units import GIB

GB = 1e9
TERA = 1e12

EFFICIENCY = 0.6
"""of the peak rate of the memory or the arithmetic, whichever bounds a step; one for all cards and
operations, a judgement: 0.88 of the bandwidth is reached by one long read on an A100
(https://forums.developer.nvidia.com/t/339083), less by many short ones"""
OPERATION_S = 10e-6
"""the host's part of an eager operation: 5 to 25 us,
https://jiahuanglin.xyz/all_lessons/gpu_kernel_serving/18_pytorch_to_kernel.html"""
SAMPLED_EDGES_PER_S = 20e6
"""of the CPU sampler and thread: `make bench` on a core of an AMD EPYC (docs/measurements.md)"""
START_S = 20.0
"""of a trial on a GPU: imports, context, communicator; a judgement"""
POWER_SHARE = 0.7
"""of the power limit, while training, which is bound by memory and seldom by its power: a
judgement, until a pilot has measured it"""
RELATIVE_ERROR = 0.55
"""standard deviation of the logarithm of a roofline's time: within a factor 1.7 in two of three
cases; a judgement"""


NVLINK_LATENCY_S, INFINIBAND_LATENCY_S = 10e-6, 40e-6
"""of an all-reduce at least, within a node and between nodes; the former:
https://github.com/NVIDIA/nccl-tests/issues/331"""
INFINIBAND_BYTES_PER_S = 20 * GB
"""one HDR InfiniBand link (25 GB/s) a rank at most: 85 % of the links' sum were measured over three
nodes, https://github.com/NVIDIA/nccl-tests/issues/119"""


@dataclass(frozen=True)
class Card:
    """Data sheet of a GPU: dense FLOP rates, a PCIe link in one direction. memory_bytes: what CUDA
    reports, where known. all_reduce_gb_per_s: within a node."""

    name: str
    memory_bytes: int
    bandwidth_gb_per_s: float
    fp32_tflops: float
    tf32_tflops: float | None
    bf16_tflops: float | None
    pcie_gb_per_s: float
    all_reduce_gb_per_s: float
    power_w: float
    data_sheet: str

    def device_s(self, flops: float, bytes_moved: float, precision: str) -> float | None:
        """Arithmetic and memory traffic one after the other, as products are bound by the one and
        all else by the other (the roofline of each operation: Williams et al. 2009). None for a
        precision that the card does not have."""
        tflops = {"fp32": self.fp32_tflops, "tf32": self.tf32_tflops, "bf16": self.bf16_tflops}
        peak = tflops.get(precision)
        if peak is None:
            return None
        arithmetic_s = flops / (peak * TERA)
        return (arithmetic_s + bytes_moved / (self.bandwidth_gb_per_s * GB)) / EFFICIENCY

    def all_reduce_s(self, size_bytes: float, ranks: int, nodes: int) -> float:
        """Seconds of a ring all-reduce: each rank sends 2 (R - 1) / R of the bytes."""
        if ranks == 1:
            return 0.0
        latency_s, bytes_per_s = NVLINK_LATENCY_S, self.all_reduce_gb_per_s * GB
        if nodes > 1:
            latency_s, bytes_per_s = INFINIBAND_LATENCY_S, INFINIBAND_BYTES_PER_S
        return latency_s + 2 * (ranks - 1) / ranks * size_bytes / bytes_per_s


A100_SHEET = (
    "https://www.nvidia.com/content/dam/en-zz/Solutions/Data-Center/a100/pdf/"
    "nvidia-a100-datasheet-us-nvidia-1758950-r4-web.pdf"
)
H100_SHEET = "https://www.nvidia.com/en-us/data-center/h100/"
H200_SHEET = "https://www.nvidia.com/en-us/data-center/h200/"
V100_SHEET = (
    "https://images.nvidia.com/content/technologies/volta/pdf/volta-v100-datasheet-update-us-"
    "1165301-r5.pdf"
)
L40S_SHEET = "https://www.nvidia.com/en-us/data-center/l40s/"

# All-reduce within a node: A100 about 200 GB/s (https://github.com/NVIDIA/nccl-tests/issues/149),
# the others by their NVLink's share of its 600 GB/s, or half of their PCIe link.
# fmt: off
CARDS = {
    values[0]: Card(*values)
    for values in (
        ("A100-40GB", 42_405_855_232, 1555, 19.5, 156, 312, 31.5, 200, 400, A100_SHEET),
        ("A100-80GB", 80 * GIB, 2039, 19.5, 156, 312, 31.5, 200, 400, A100_SHEET),
        ("H100", 80 * GIB, 3350, 67, 494.5, 989.5, 63, 300, 700, H100_SHEET),
        ("H200", 141 * 10**9, 4800, 67, 494.5, 989.5, 63, 300, 700, H200_SHEET),
        ("V100-16GB", 16 * GIB, 900, 15.7, None, None, 15.75, 100, 300, V100_SHEET),
        ("V100-32GB", 32 * GIB, 900, 15.7, None, None, 15.75, 100, 300, V100_SHEET),
        ("L40S", 48 * 10**9, 864, 91.6, 183, 362, 31.5, 15.75, 350, L40S_SHEET),
    )
}
# fmt: on

OF_DRIVER = re.compile(r"^(NVIDIA|Tesla) |-SXM\d| 80GB HBM3$")
"""what the driver's name of a card has more: NVIDIA A100-SXM4-40GB, NVIDIA H100 80GB HBM3"""


def find_card(name: str) -> Card | None:
    """The card of a name of the table, or of one that the driver gives it."""
    return CARDS.get(OF_DRIVER.sub("", name))


def card_of(name: str) -> Card:
    """Raises UserError for a card that the table does not have."""
    card = find_card(name)
    if card is None:
        raise UserError(f"the card {name!r} is not in the table: write one of {', '.join(CARDS)}")
    return card
