"""The two matrix products of a SAGE layer.

On the CPU in float32 they go through oneDNN, which picks its instructions by what the processor
has; torch's default, MKL, keeps AMD processors to AVX2, at half the speed where they have AVX-512.
Both are true float32.

oneDNN keeps compiled code and buffers for every shape it has met, and a sample's shapes are all
different: a gigabyte after a thousand steps. So it only ever sees ROWS_A_CALL rows; MKL does the
rest.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import linear

_onednn = (
    getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    if torch.backends.mkldnn.is_available()
    else None
)
"""torch.compile's own way to oneDNN; without it torch's default does the same"""

ROWS_A_CALL = 2048


def sage_linear(
    aggregated: Tensor, root: Tensor, weight_l: Tensor, bias: Tensor, weight_r: Tensor
) -> Tensor:
    """aggregated @ weight_l.T + bias + root @ weight_r.T, as PyG's SAGEConv has them.

    aggregated, root: float [n, in]. weight_l, weight_r: [out, in]. bias: [out]. All of one dtype.
    Returns [n, out], memory that nothing else reads.
    """
    if _onednn is None or not _is_plain(aggregated, root, weight_l, bias, weight_r):
        return plain_sage_linear(aggregated, root, weight_l, bias, weight_r)
    return _SageLinear.apply(aggregated, root, weight_l, bias, weight_r)


def warm_up_linear(weight_l: Tensor, bias: Tensor, weight_r: Tensor) -> None:
    """Have oneDNN make its code for a layer's products and their gradients: that of torch 2.1 ends
    the process by SIGSEGV where it lacks the memory for it."""
    rows = weight_l.new_zeros(ROWS_A_CALL, weight_l.shape[1], requires_grad=True)
    torch.autograd.grad(sage_linear(rows, rows, weight_l, bias, weight_r).sum(), rows)


def plain_sage_linear(
    aggregated: Tensor, root: Tensor, weight_l: Tensor, bias: Tensor, weight_r: Tensor
) -> Tensor:
    """The same by torch's operations, in any dtype."""
    return linear(aggregated, weight_l, bias).addmm_(root, weight_r.t())


class _SageLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, aggregated, root, weight_l, bias, weight_r):
        ctx.save_for_backward(aggregated, root, weight_l, weight_r)
        out = aggregated.new_empty(len(aggregated), len(weight_l))
        weight_r_t = weight_r.t()
        for first, last in _pieces(len(out)):
            piece = out[first:last]
            if last - first == ROWS_A_CALL:
                torch.add(
                    _onednn(aggregated[first:last], weight_l, bias, "none", [], ""),
                    _onednn(root[first:last], weight_r, None, "none", [], ""),
                    out=piece,
                )
            else:
                torch.addmm(bias, aggregated[first:last], weight_l.t(), out=piece)
                piece.addmm_(root[first:last], weight_r_t)
        return out

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


def _multiply(x: Tensor, weight: Tensor) -> Tensor:
    """x @ weight.T"""
    out = x.new_empty(len(x), len(weight))
    for first, last in _pieces(len(x)):
        if last - first == ROWS_A_CALL:
            out[first:last] = _onednn(x[first:last], weight, None, "none", [], "")
        else:
            torch.mm(x[first:last], weight.t(), out=out[first:last])
    return out


def _pieces(rows: int) -> Iterator[tuple[int, int]]:
    for first in range(0, rows, ROWS_A_CALL):
        yield first, min(first + ROWS_A_CALL, rows)


def _is_plain(x: Tensor, *others: Tensor) -> bool:
    return len(x) > 0 and all(
        tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in (x, *others)
    )
