"""GAT: a node's neighbors and itself, weighted by attention (Velickovic et al. 2018).

Without a tensor of one row of values an edge; the order of every sum is fixed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, linear
from torch_geometric.nn import GATConv

from sagebench.kernels.segment import bag, destinations, edge_steps
from sagebench.models import base

MODEL = "graph attention network (Velickovic et al. 2018), without dropout of the attention"
OPTIONS = {
    "heads": {
        "type": "whole",
        "low": 1,
        "example": 4,
        "default": 4,
        "divides": "hidden_channels",
        "help": "attention heads of a layer: side by side, and their mean in the last layer",
    }
}

NEGATIVE_SLOPE = 0.2
"""of the scores' leaky ReLU, as in PyG's GATConv"""


class Layer(base.Layer):
    def __init__(self, in_channels: int, out_channels: int, *, heads: int, last: bool) -> None:
        super().__init__()
        self.heads, self.last = heads, last
        width = out_channels if last else out_channels // heads
        self.lin = base.Linear(in_channels, heads * width)
        self.att_src = nn.Parameter(nn.init.xavier_uniform_(torch.empty(1, heads, width)))
        self.att_dst = nn.Parameter(nn.init.xavier_uniform_(torch.empty(1, heads, width)))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def project(self, x: Tensor, degrees: Tensor | None) -> Tensor:
        values = linear(x, self.lin.weight.to(x.dtype)).unflatten(1, (self.heads, -1))
        scores = [
            (values * attention.to(x.dtype)).sum(-1) for attention in (self.att_src, self.att_dst)
        ]
        return torch.cat([values.flatten(1), *scores], dim=1)

    def reduce(self, z: Tensor, edges: base.Edges, own: Tensor | None = None) -> Tensor:
        return attend(z, edges.rowptr, edges.col, self.heads, own)

    def update(self, reduced: Tensor, root: Tensor | None, *, projected: bool = False) -> Tensor:
        h = reduced.unflatten(1, (self.heads, -1)).mean(1) if self.last else reduced
        return h + self.bias.to(h.dtype)


def peer(in_channels: int, out_channels: int, *, heads: int, last: bool) -> nn.Module:
    """PyG's layer of the same mathematics and parameters."""
    width = out_channels if last else out_channels // heads
    return GATConv(in_channels, width, heads, concat=not last)


def attend(z: Tensor, rowptr: Tensor, col: Tensor, heads: int, own: Tensor | None = None) -> Tensor:
    """Attention of each destination over its edges and itself (Velickovic et al. 2018, equation 4).

    z: float [n, heads * C + 2 * heads]: values, scores as a source and scores as a destination of
    each head. rowptr: int [rows + 1] from 0. col: int [E], rows of z. own: [rows, width of z] of
    the destinations; None: z's first rows, and only then there is a gradient. Returns [rows, heads
    * C] of z's dtype; the softmax is float32 at least.
    """
    if own is not None:
        return _forward(z, own, rowptr, col, heads)[0]
    return _Attend.apply(z, rowptr, col, heads)


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z: Tensor, rowptr: Tensor, col: Tensor, heads: int) -> Tensor:
        out, *kept = _forward(z, z[: len(rowptr) - 1], rowptr, col, heads)
        ctx.heads = heads
        ctx.save_for_backward(z, rowptr, col, *kept)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor):
        z, rowptr, col, alpha, alpha_self = ctx.saved_tensors
        heads, rows = ctx.heads, len(rowptr) - 1
        own, target = z[:rows], destinations(rowptr, col)
        values, of_source, of_target = _parts(z, heads)
        of_rows = gradient.unflatten(1, (heads, -1))

        # Through the sums: of the weights ...
        of_alpha = torch.empty_like(alpha)
        first = 0
        for source, row in edge_steps(rowptr, col):
            last = first + len(source)
            of_alpha[first:last] = (of_rows[row] * values[source]).sum(-1)
            first = last
        of_self = (of_rows * _parts(own, heads)[0]).sum(-1).to(alpha.dtype)
        # ... through the softmax, and the leaky ReLU of the scores.
        mean = _row_sums(alpha * of_alpha, rowptr) + alpha_self * of_self
        of_scores = alpha * (of_alpha - mean[target]) * _slope(of_source[col] + of_target[target])
        of_self = alpha_self * (of_self - mean) * _slope(of_source[:rows] + of_target[:rows])

        # To the sources: the edges grouped by them, so that no two threads write the same row.
        order = torch.sort(col, stable=True).indices
        bounds = torch.arange(len(z) + 1, dtype=col.dtype, device=col.device)
        colptr = torch.searchsorted(col[order], bounds, out_int32=col.dtype == torch.int32)
        result = torch.empty_like(z)
        of_values, of_sources, of_targets = _parts(result, heads)
        weights, back = alpha[order].to(z.dtype), target[order]
        for head in range(heads):
            of_values[:, head] = bag(of_rows[:, head], colptr, back, "sum", weights[:, head])
        of_values[:rows] += alpha_self.to(z.dtype)[..., None] * of_rows
        of_sources.copy_(_row_sums(of_scores[order], colptr))
        of_sources[:rows] += of_self
        of_targets.zero_()
        of_targets[:rows] = _row_sums(of_scores, rowptr) + of_self
        return result, None, None, None


def _forward(
    z: Tensor, own: Tensor, rowptr: Tensor, col: Tensor, heads: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The sums, each edge's weight [E, heads], and each destination's of itself [rows, heads]."""
    values, of_source, _ = _parts(z, heads)
    own_values, own_source, of_target = _parts(own, heads)
    target = destinations(rowptr, col)
    scores = leaky_relu(_wide(of_source[col] + of_target[target]), NEGATIVE_SLOPE)
    of_self = leaky_relu(_wide(own_source + of_target), NEGATIVE_SLOPE)
    index = target.long()[:, None].expand(-1, heads)
    highest = of_self.scatter_reduce(0, index, scores, "amax")  # so that no exponential overflows
    scores = (scores - highest[target]).exp()
    of_self = (of_self - highest).exp()
    total = _row_sums(scores, rowptr) + of_self
    alpha, alpha_self = scores / total[target], of_self / total
    out = alpha_self.to(z.dtype)[..., None] * own_values
    weights = alpha.to(z.dtype)
    for head in range(heads):
        out[:, head] += bag(values[:, head], rowptr, col, "sum", weights[:, head])
    return out.flatten(1), alpha, alpha_self


def _parts(z: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Views of z: values [n, heads, C], scores as a source and as a destination [n, heads]."""
    values, of_source, of_target = z.split([z.shape[1] - 2 * heads, heads, heads], dim=1)
    return values.unflatten(1, (heads, -1)), of_source, of_target


def _row_sums(edges: Tensor, rowptr: Tensor) -> Tensor:
    """Sums of [E, heads] over each row's edges."""
    every = torch.arange(len(edges), dtype=rowptr.dtype, device=edges.device)
    return bag(edges, rowptr, every, "sum")


def _wide(scores: Tensor) -> Tensor:
    return scores.to(torch.promote_types(scores.dtype, torch.float32))


def _slope(scores: Tensor) -> Tensor:
    return torch.where(scores > 0, 1.0, NEGATIVE_SLOPE)
