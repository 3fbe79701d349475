"""A small table of cards, for a machine that has not been measured: data sheets, and what of them
a program reaches.

A figure from here is a model's, not a measurement's: TimePrediction.source says so.
"""

from __future__ import annotations

from dataclasses import dataclass

from sagebench.errors import UserError
from sagebench.predict.rates import Network, Rates

GB = 1e9
TERA = 1e12
GIB = 1 << 30

# What of a data sheet's figure is reached. None of them was fitted to times of GraphSAGE.
BANDWIDTH_REACHED = 0.88
"""of a GPU's memory: https://forums.developer.nvidia.com/t/339083 (read kernel on an A100: 88 %, by
Nsight Compute; a GTC talk quoted there: at most 90 %). Rows of 400 bytes and more that are gathered
or added anywhere count as bytes in order: they are whole 32-byte sectors. That is the least time
they can take; additions contended between rows take longer."""
FLOPS_REACHED = {"fp32": 0.9, "tf32": 0.7, "bf16": 0.7}
"""of the peak, for tall products of width 256: a judgement. On tensor cores the memory side of the
roofline decides before that"""
COPY_REACHED = 0.8
"""of a PCIe link, pinned memory: 20 to 40 % are protocol,
https://fridayswithfaraday.com/posts/gpu-hw-pcie-gen5-bandwidth-bottleneck"""
CALL_S = 10e-6
"""the host's part of an eager operation: 5 to 25 us,
https://jiahuanglin.xyz/all_lessons/gpu_kernel_serving/18_pytorch_to_kernel.html"""
PYG_CALL_S = 20e-6
"""the same in PyG's layers, whose message passing is written in Python"""
HOST_GATHER = 5 * GB
"""bytes a second of one sampling worker's gather, read and written; a core of the host"""
SAMPLED_EDGES, RELABELLED_EDGES, SCANNED_NODES = 25e6, 40e6, 10e9
"""of the CPU sampler a second and thread: `make bench` on a core of an AMD EPYC (README.md)"""
RELATIVE_ERROR = 0.4
"""of a time predicted from this table: within a factor 1.5 in two of three cases; a judgement"""
START_S = 20.0
"""of a trial on a GPU: imports, context, communicator; a judgement, outcomes correct it"""

BETWEEN_NODES = Network(latency_s=40e-6, bytes_per_s=20 * GB)
"""one HDR InfiniBand link (25 GB/s) a rank at most: 85 % of the links' sum were measured over three
nodes, https://github.com/NVIDIA/nccl-tests/issues/119"""
NVLINK_LATENCY_S = 10e-6
"""https://github.com/NVIDIA/nccl-tests/issues/331"""


@dataclass(frozen=True)
class Card:
    """From its data sheet: dense FLOP rates, a PCIe link in one direction. memory_bytes: what CUDA
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

OF_DRIVER = {
    "A100-SXM4-40GB": "A100-40GB",
    "A100-SXM4-80GB": "A100-80GB",
    "H100 80GB HBM3": "H100",
    "H200": "H200",
    "V100-SXM2-16GB": "V100-16GB",
    "V100-SXM2-32GB": "V100-32GB",
    "L40S": "L40S",
}
"""how the driver ends a card's name, after "NVIDIA " or "Tesla " """


def find_card(name: str) -> Card | None:
    """The card of a name of the table, or of one that the driver gives it."""
    bare = name.removeprefix("NVIDIA ").removeprefix("Tesla ")
    return CARDS.get(OF_DRIVER.get(bare, name))


def card_name(device_name: str | None) -> str | None:
    """One name for a card, however the driver writes it; another card keeps the driver's."""
    if device_name is None:
        return None
    card = find_card(device_name)
    return card.name if card else device_name


def card_rates(name: str) -> Rates:
    """Raises UserError for a card that the table does not have."""
    card = find_card(name)
    if card is None:
        raise UserError(
            f"the card {name!r} is not in the table: write one of {', '.join(CARDS)}, or measure "
            "it with `make calibrate`"
        )
    on_memory = ("stream", "norm", "gather", "spread", "scatter", "scatter_random", "segment")
    per_s = dict.fromkeys(on_memory, card.bandwidth_gb_per_s * GB * BANDWIDTH_REACHED)
    peaks = {"fp32": card.fp32_tflops, "tf32": card.tf32_tflops, "bf16": card.bf16_tflops}
    per_s |= {
        f"products_{precision}": peak * TERA * FLOPS_REACHED[precision]
        for precision, peak in peaks.items()
        if peak
    }
    per_s |= {
        "copy": card.pcie_gb_per_s * GB * COPY_REACHED,
        "operations_blocks": 1 / CALL_S,
        "operations_pyg": 1 / PYG_CALL_S,
        "operations_optimizer": 1 / (10 * CALL_S),  # ten calls for each update of all tensors
    }
    host = {
        **dict.fromkeys(("gather", "segment", "stream"), HOST_GATHER),
        "sampled_edges": SAMPLED_EDGES,
        "relabelled_edges": RELABELLED_EDGES,
        "scanned_nodes": SCANNED_NODES,
    }
    return Rates(
        source=f"data sheet of {card.name}",
        device="cuda",
        device_name=card.name,
        kinds={
            threads: {kind: ((1.0, value),) for kind, value in table.items()}
            for threads, table in ((0, per_s), (1, host))
        },
        relative_error=RELATIVE_ERROR,
        within_node=Network(NVLINK_LATENCY_S, card.all_reduce_gb_per_s * GB),
        between_nodes=BETWEEN_NODES,
        start_s=START_S,
        device_memory_bytes=card.memory_bytes,
        provenance={"data_sheet": card.data_sheet},
    )
