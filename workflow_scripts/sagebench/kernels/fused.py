"""LayerNorm, ReLU and dropout in one pass over memory, and one back.

The dropout mask is that of `sagebench.kernels.mask`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import layer_norm, relu

from sagebench.kernels import cpu_kernels
from sagebench.kernels.mask import keep_mask, scale, threshold
from sagebench.operations import has_kernels
from sagebench.sampling.random import MASK64


def norm_relu_dropout(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    p: float,
    key: int,
    training: bool,
    *,
    rows: Tensor | None = None,
    eps: float = 1e-5,
    overwrite: bool = False,
) -> Tensor:
    """dropout(relu(layer_norm(x))), with the mask of `keep_mask`.

    x: float [n, F]. weight, bias: float [F], LayerNorm's. p: dropout probability, applied when
    `training`. key: 64-bit integer. rows: integer [n] ids that, with the key, decide the mask (0
    to n - 1 when absent). overwrite: x is the caller's last use of its memory, which may take the
    result, or in the backward pass the gradient; that pass then runs once only. Returns [n, F].
    """
    p = p if training else 0.0
    if rows is None:
        rows = torch.arange(len(x), device=x.device)
    if has_kernels(x):
        from sagebench.kernels.gpu.autograd import NormReluDropout

        return NormReluDropout.apply(x.contiguous(), weight, bias, p, key, rows, eps)
    if not _has_kernel(x, weight, bias):
        return plain_norm_relu_dropout(x, weight, bias, p, key, rows, eps)
    mask = (np.uint64(key & MASK64), rows.long().numpy(), threshold(p), np.float32(scale(p)))
    if torch.is_grad_enabled() and any(t.requires_grad for t in (x, weight, bias)):
        return _NormReluDropout.apply(x, weight, bias, mask, eps, overwrite)
    out = x.detach() if overwrite else torch.empty_like(x)
    _forward(x, weight, bias, mask, eps, out)
    return out


def plain_norm_relu_dropout(
    x: Tensor, weight: Tensor, bias: Tensor, p: float, key: int | Tensor, rows: Tensor, eps: float
) -> Tensor:
    """The same by torch's operations, which torch.compile fuses. key: an integer, or int64 [] of
    its bits, with which a new key is no new constant."""
    y = relu(layer_norm(x, x.shape[1:], weight.to(x.dtype), bias.to(x.dtype), eps))
    return y * (keep_mask(key, rows, x.shape[1], p) * scale(p)).to(y.dtype) if p else y


class _NormReluDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, mask, eps, overwrite):
        out = torch.empty_like(x)
        ctx.mask, ctx.overwrite = mask, overwrite
        ctx.statistics = _forward(x, weight, bias, mask, eps, out)
        ctx.save_for_backward(x, weight, bias)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream):
        x, weight, bias = (tensor.detach() for tensor in ctx.saved_tensors)
        if ctx.statistics is None:
            raise RuntimeError("norm_relu_dropout(overwrite=True) runs its backward pass once only")
        gradient = x if ctx.overwrite else torch.empty_like(x)
        bounds = _bounds(x)
        parts = np.empty((len(bounds) - 1, 2, x.shape[1]), np.float32)
        cpu_kernels.run_chunks(
            cpu_kernels.norm_relu_dropout_backward,
            bounds,
            *(tensor.numpy() for tensor in (x, weight, bias)),
            *ctx.mask,
            *ctx.statistics,
            upstream.contiguous().numpy(),
            gradient.numpy(),
            parts,
        )
        if ctx.overwrite:
            ctx.statistics = None
        of_weight, of_bias = torch.from_numpy(parts.sum(0, dtype=np.float64)).to(x.dtype)
        return gradient, of_weight, of_bias, None, None, None


def _forward(x, weight, bias, mask, eps, out):
    """Fill `out`; returns the mean and the reciprocal deviation of every row."""
    mean, rstd = np.empty((2, len(x)), np.float32)
    cpu_kernels.run_chunks(
        cpu_kernels.norm_relu_dropout,
        _bounds(x),
        *(tensor.detach().numpy() for tensor in (x, weight, bias)),
        np.float32(eps),
        *mask,
        out.numpy(),
        mean,
        rstd,
    )
    return mean, rstd


def _bounds(x: Tensor) -> list[int]:
    return [*range(0, len(x), cpu_kernels.ROWS_A_CHUNK), len(x)]


def _has_kernel(*tensors: Tensor) -> bool:
    return all(
        tensor.device.type == "cpu" and tensor.dtype == torch.float32 and tensor.is_contiguous()
        for tensor in tensors
    )
