"""The cards of cards.yaml, and the few constants that make times and watts of their data sheets.

A figure from here is a model's, not a measurement's: the plan says so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import final

import yaml

from sagebench.errors import UserError

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


@final
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

    def moving_s(self, bytes_moved: float) -> float:
        return bytes_moved / (self.bandwidth_gb_per_s * GB) / EFFICIENCY

    def all_reduce_s(self, size_bytes: float, ranks: int, nodes: int) -> float:
        """Seconds of a ring all-reduce: each rank sends 2 (R - 1) / R of the bytes."""
        if ranks == 1:
            return 0.0
        latency_s, bytes_per_s = NVLINK_LATENCY_S, self.all_reduce_gb_per_s * GB
        if nodes > 1:
            latency_s, bytes_per_s = INFINIBAND_LATENCY_S, INFINIBAND_BYTES_PER_S
        return latency_s + 2 * (ranks - 1) / ranks * size_bytes / bytes_per_s


CARDS = {
    name: Card(name, **values)
    for name, values in yaml.safe_load(Path(__file__).with_name("cards.yaml").read_text()).items()
}

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
