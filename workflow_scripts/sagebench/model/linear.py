"""The two matrix products of a SAGE layer.

On the CPU in float32 they go through oneDNN, which picks its instructions by what the processor
has; torch's default, MKL, keeps AMD processors to AVX2, at half the speed where they have AVX-512.
Both are true float32.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

_onednn = (
    getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    if torch.backends.mkldnn.is_available()
    else None
)
"""torch.compile's own way to oneDNN; without it torch's default does the same"""


def sage_linear(
    aggregated: Tensor, root: Tensor, weight_l: Tensor, bias: Tensor, weight_r: Tensor
) -> Tensor:
    """aggregated @ weight_l.T + bias + root @ weight_r.T, as PyG's SAGEConv has them.

    aggregated, root: float [n, in]. weight_l, weight_r: [out, in]. bias: [out]. All of one dtype.
    Returns [n, out], memory that nothing else reads.
    """
    if _onednn is None or not _is_plain(aggregated, root, weight_l, bias, weight_r):
        return linear(aggregated, weight_l, bias).addmm_(root, weight_r.t())
    return _SageLinear.apply(aggregated, root, weight_l, bias, weight_r)


class _SageLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, aggregated, root, weight_l, bias, weight_r):
        ctx.save_for_backward(aggregated, root, weight_l, weight_r)
        return _multiply(aggregated, weight_l, bias).add_(_multiply(root, weight_r))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream):
        aggregated, root, weight_l, weight_r = ctx.saved_tensors
        need = ctx.needs_input_grad
        upstream = upstream.contiguous()
        return (
            _multiply(upstream, weight_l.t()) if need[0] else None,
            _multiply(upstream, weight_r.t()) if need[1] else None,
            upstream.t() @ aggregated if need[2] else None,
            upstream.sum(0) if need[3] else None,
            upstream.t() @ root if need[4] else None,
        )


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return _onednn(x, weight, bias, "none", [], "")


def _is_plain(x: Tensor, *others: Tensor) -> bool:
    return len(x) > 0 and all(
        tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in (x, *others)
    )
