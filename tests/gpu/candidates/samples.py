"""Random samples and graphs of the sizes that the default trial has on ogbn-products."""

from __future__ import annotations

import torch
from sagebench.sampling.blocks import Blocks
from torch import Tensor

NODES = 2_449_029
EDGES = 123_718_280
FANOUT = (15, 10, 10, 10, 10)
NODES_PER_HOP = (128, 1_772, 15_210, 97_672, 426_894)
EDGES_PER_HOP = (1_775, 17_530, 150_310, 961_608, 4_174_644)
SKEW = 4.4
"""of the neighbors' popularity: with it, hops find about as many new nodes as on the real graph"""


def scaled(value: int, scale: float) -> int:
    return max(4, round(value * scale))


def random_sample(device: torch.device, scale: float, seed: int) -> Blocks:
    """A sample of five hops, its last not relabelled."""
    generator = torch.Generator(device).manual_seed(seed)

    def uniform(count: int) -> Tensor:
        return torch.rand(count, generator=generator, device=device, dtype=torch.float64)

    nodes = scaled(NODES, scale)
    sizes = [scaled(n, scale) for n in NODES_PER_HOP]
    shuffled = torch.randperm(nodes, generator=generator, device=device)[: sum(sizes)]
    ids = torch.cat([part.sort().values for part in shuffled.split(sizes)])
    degrees, cols = [], []
    for hop, k in enumerate(FANOUT):
        missing = k - EDGES_PER_HOP[hop] / NODES_PER_HOP[hop]
        less = torch.randint(1, k + 1, (sizes[hop],), generator=generator, device=device)
        degrees.append(k - less * (uniform(sizes[hop]) < missing * 2 / (k + 1)))
        edges = int(degrees[-1].sum())
        if hop == len(FANOUT) - 1:
            last = (nodes * uniform(edges) ** SKEW).long().clamp_(max=nodes - 1)
            last = (last * 1_000_003 + 12_345) % nodes
        else:
            known = sum(sizes[: hop + 1])
            col = ((known + sizes[hop + 1]) * uniform(edges) ** 2).long()
            places = torch.randperm(edges, generator=generator, device=device)
            new = torch.arange(known, known + sizes[hop + 1], device=device)[:edges]
            col[places[: len(new)]] = new
            cols.append(col)
    degree = torch.cat(degrees)
    rowptr = torch.cat([degree.new_zeros(1), degree.cumsum(0)])
    col = torch.cat(cols)
    return Blocks(
        node_ids=ids,
        rowptr=rowptr,
        neighbors=torch.cat([ids[col], last]).int(),
        cols=col.int(),
        nodes_per_hop=(*sizes, 0),
        edges_per_hop=tuple(int(d.sum()) for d in degrees),
        key=0xFEDCBA9876543210,
    )


def random_graph(device: torch.device, scale: float, seed: int) -> tuple[Tensor, Tensor]:
    """colptr int64 and row int32 of a graph with heavy tails, in degree and popularity."""
    generator = torch.Generator(device).manual_seed(seed)
    nodes = scaled(NODES, scale)
    mean = torch.tensor(EDGES / NODES).log().item() - 1.1**2 / 2
    degree = torch.randn(nodes, generator=generator, device=device).mul_(1.1).add_(mean).exp_()
    degree = degree.round_().clamp_(max=17_500).long()
    colptr = torch.cat([degree.new_zeros(1), degree.cumsum(0)])
    row = torch.rand(int(colptr[-1]), generator=generator, device=device)
    row = row.pow_(SKEW).mul_(nodes).to(torch.int32).clamp_(max=nodes - 1)
    return colptr, row


def owners(blocks: Blocks, edges: int) -> Tensor:
    """The destination's local number of the first `edges` edges, int32."""
    degree = blocks.rowptr.diff()
    rows = torch.arange(len(degree), dtype=torch.int32, device=degree.device)
    return torch.repeat_interleave(rows, degree)[:edges]
