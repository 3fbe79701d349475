"""The edges grouped by source, without a wait for the device.

One transposed CSR serves every layer of a sample: the edges of a source stand in ascending
destination, so those of a later layer's block, which has fewer destinations, come first.
"""

import torch
from torch import Tensor


def by_source(col: Tensor, owner: Tensor, num_sources: int) -> tuple[Tensor, Tensor]:
    """colptr int32 [num_sources + 1] and the destinations, int32 [E], by a stable radix sort.

    col, owner: int32 [E], source and destination of every edge, by destination.
    """
    ordered, order = torch.sort(col, stable=True)
    sources = torch.arange(num_sources + 1, dtype=torch.int32, device=col.device)
    return torch.searchsorted(ordered, sources, out_int32=True), owner[order]
