"""Where a rank keeps the graph and the features, and so where it samples: decided from sizes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from sagebench.graph.store import GraphStore
from sagebench.units import GIB

RESERVE_BYTES = 4 * GIB
"""left for weights, the sampler's scratch, the batches ahead and a step's activations ..."""
RESERVE_SHARE = 0.5
"""... and no more than this share of what is available"""


@dataclass(frozen=True)
class Placement:
    """chosen: `device`: graph and features resident there, sampled there; `host`: sampled and
    gathered on the host, copied batch by batch; `mapped`: a CPU reads the store where it lies.

    available_bytes: what the device had to give, None on a CPU.
    """

    chosen: str
    graph_bytes: int
    features_bytes: int
    available_bytes: int | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        """The choice and the sizes that led to it."""
        sizes = {
            "graph": self.graph_bytes,
            "features": self.features_bytes,
            "available": self.available_bytes,
        }
        known = (f"{name} {size / GIB:.2f} GiB" for name, size in sizes.items() if size is not None)
        return f"{self.chosen}: {', '.join(known)}"


def choose_placement(
    wanted: str, graph_bytes: int, features_bytes: int, available_bytes: int | None
) -> Placement:
    """wanted: `device` and `host` are obeyed; `auto` takes the device if all of it fits there
    beside the reserve, and `mapped` where there is no device (available_bytes None)."""
    chosen = wanted
    if wanted == "auto" and available_bytes is None:
        chosen = "mapped"
    elif wanted == "auto":
        reserve = min(RESERVE_BYTES, RESERVE_SHARE * available_bytes)
        chosen = "device" if graph_bytes + features_bytes + reserve <= available_bytes else "host"
    return Placement(chosen, graph_bytes, features_bytes, available_bytes)


def placement_on(
    wanted: str, store: GraphStore, device: torch.device, memory_limit_gib: float | None
) -> Placement:
    """The placement of this store on this device as it is now."""
    return choose_placement(
        wanted,
        store.colptr.nbytes + store.row.nbytes,
        store.features.nbytes,
        available_bytes(device, memory_limit_gib),
    )


def available_bytes(device: torch.device, memory_limit_gib: float | None) -> int | None:
    """What this process may still allocate on a CUDA device, None on a CPU."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    allocated = torch.cuda.memory_allocated(device)
    free += torch.cuda.memory_reserved(device) - allocated
    return free if memory_limit_gib is None else min(free, int(memory_limit_gib * GIB) - allocated)
