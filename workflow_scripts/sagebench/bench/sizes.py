"""Sizes of the benchmark, from a test's to a whole ogbn-products."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True)
class Size:
    """A graph, a model and batches on it.

    scale: share of ogbn-products' nodes. step_fanout, step_batch: of the engines' comparison.
    fanout, batch: of the sampler and of the trials. large_batch: of the batch that PyG's path has
    no memory for.
    """

    scale: float
    hidden_channels: int
    step_fanout: tuple[int, ...]
    step_batch: int
    fanout: tuple[int, ...]
    batch: int
    large_batch: int

    @property
    def dataset(self) -> dict[str, Any]:
        return {"name": "bench", "source": "synthetic", "scale": self.scale}


SIZES = MappingProxyType(
    {
        "tiny": Size(0.001, 16, (3, 3, 2), 8, (4, 3, 2), 8, 16),
        "laptop": Size(0.1, 256, (5, 5, 5, 5, 5), 32, (15, 10, 10, 10, 10), 32, 128),
        "products": Size(1, 256, (5, 5, 5, 5, 5), 128, (15, 10, 10, 10, 10), 128, 512),
    }
)
"""`tiny` is for tests, `laptop` for 8 GB of memory, `products` is what targets are given for"""
