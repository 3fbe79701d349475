"""The cost of drawing a sample by the GPU's kernels, recorded on device `meta` from its sizes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import torch

from sagebench.estimate.trace import Recorder, tensors_in
from sagebench.kernels.choice import kernels_chosen
from sagebench.operations import AUTO, Cost, size_bytes
from sagebench.sampling.device.by_source import by_source
from sagebench.sampling.device.uniform import Sampler, without_empty_hops

META = torch.device("meta")


class RecordedSample(NamedTuple):
    """costs: by operation. scratch_bytes: taken at its peak beside the sample itself."""

    costs: dict[str, Cost]
    scratch_bytes: int


def record_sample(
    fanout: Sequence[int],
    num_nodes: int,
    nodes_per_hop: Sequence[int],
    edges_per_hop: Sequence[int],
    *,
    relabel_last: bool,
) -> RecordedSample | None:
    """What the sampler `uniform` does on a GPU for a sample of so many nodes (of the hops 0 to L)
    and edges (1 to L) in a graph of num_nodes; None where no kernels draw it."""
    with kernels_chosen(AUTO, "meta"):
        if not Sampler.groups_by_source(fanout, META):
            return None
        drawn = without_empty_hops(fanout)
        relabel_last = relabel_last or len(drawn) < len(fanout)
        hops = len(drawn)
        nodes_per_hop, edges_per_hop = nodes_per_hop[: hops + 1], edges_per_hop[:hops]
        from sagebench.sampling.device.kernels import KernelSampler

        numbered = nodes_per_hop if relabel_last else [*nodes_per_hop[:-1], 0]
        sizes = [0, *accumulate(numbered), *edges_per_hop]

        class OfSizes(KernelSampler):
            def _read(self, _: torch.Tensor) -> list[int]:
                return sizes

        colptr = torch.empty(num_nodes + 1, dtype=torch.int64, device=META)
        sampler = OfSizes(colptr, torch.empty(0, dtype=torch.int32, device=META))
        seeds = np.arange(nodes_per_hop[0])
        with Recorder() as recorder:
            blocks, owner = sampler.sample(seeds, drawn, 0, relabel_last=relabel_last)
            grouped = by_source(blocks.cols, owner, len(blocks.node_ids))
    made = tensors_in((blocks, grouped))
    scratch_bytes = recorder.trace.peak_bytes - size_bytes(*made)
    return RecordedSample(recorder.costs, max(0, scratch_bytes))
