"""The gradient of an aggregation and, on the same rows, of the norm + ReLU + dropout before it.

In one pass: the gradient between the two, as large as the layer's output, is never written.
"""

import torch
import triton
import triton.language as tl
from sagebench.kernels.fused import scale, threshold
from sagebench.sampling.random import signed
from torch import Tensor

from .hashing import mask_words, node_state
from .norm import columns_of, norm_gradient, pair_count, pairs
from .segment import HUB, _sums, width_of

ROWS_A_PROGRAM = 64


@triton.jit(do_not_specialize=["num_rows", "num_roots", "key"])
def _kernel(
    upstream,
    colptr,
    dst,
    weights,
    x,
    gamma,
    beta,
    ids,
    mean_in,
    rstd_in,
    gradient,
    parts,
    num_rows: tl.int64,
    num_roots: tl.int64,
    key: tl.int64,
    factor: tl.float32,
    F: tl.constexpr,
    STRIDE: tl.constexpr,
    ROOT_AT: tl.constexpr,
    WEIGHTED: tl.constexpr,
    ROWS: tl.constexpr,
    UNROLL: tl.constexpr,
    HUB: tl.constexpr,
    SPLIT: tl.constexpr,
    PAIRS: tl.constexpr,
    THRESHOLD: tl.constexpr,
    ROWS_A_PROGRAM: tl.constexpr,
):
    f = tl.arange(0, 2 * PAIRS)
    pair = tl.arange(0, PAIRS)
    gamma_even = tl.load(gamma + 2 * pair, 2 * pair < F, 0.0)[None, :]
    gamma_odd = tl.load(gamma + 2 * pair + 1, 2 * pair + 1 < F, 0.0)[None, :]
    beta_even = tl.load(beta + 2 * pair, 2 * pair < F, 0.0)[None, :]
    beta_odd = tl.load(beta + 2 * pair + 1, 2 * pair + 1 < F, 0.0)[None, :]
    of_gamma_even = tl.zeros([ROWS, PAIRS], tl.float32)
    of_gamma_odd = tl.zeros([ROWS, PAIRS], tl.float32)
    of_beta_even = tl.zeros([ROWS, PAIRS], tl.float32)
    of_beta_odd = tl.zeros([ROWS, PAIRS], tl.float32)
    of_bias_even = tl.zeros([ROWS, PAIRS], tl.float32)
    of_bias_odd = tl.zeros([ROWS, PAIRS], tl.float32)
    before = tl.program_id(0).to(tl.int64) * ROWS_A_PROGRAM
    for step in range(0, tl.minimum(num_rows - before, ROWS_A_PROGRAM), ROWS):
        row = before + step + tl.arange(0, ROWS)
        live = row < num_rows
        inside = live[:, None] & (f < F)[None, :]
        start = tl.load(colptr + row, live, 0).to(tl.int64)
        degree = (tl.load(colptr + row + 1, live, 0) - start).to(tl.int32)
        total = _sums(
            upstream, dst, weights, num_roots, start, degree, f, f < F,
            STRIDE, WEIGHTED, True, ROWS, UNROLL, False, True, HUB, SPLIT, 2 * PAIRS,
        )  # fmt: skip
        at = row[:, None] * STRIDE + ROOT_AT + f[None, :]
        total += tl.load(upstream + at, inside & (row < num_roots)[:, None], 0.0).to(tl.float32)
        up_even, up_odd = pairs(total, ROWS, PAIRS)
        at = row[:, None] * F + f[None, :]
        even, odd = pairs(tl.load(x + at, inside, 0.0).to(tl.float32), ROWS, PAIRS)
        mean = tl.load(mean_in + row, live, 0.0)[:, None]
        rstd = tl.load(rstd_in + row, live, 0.0)[:, None]
        if THRESHOLD > 0:
            word = mask_words(node_state(key, tl.load(ids + row, live, 0)), pair)
            up_even = tl.where((word & 0xFFFF) >= THRESHOLD, up_even * factor, 0.0)
            up_odd = tl.where((word >> 16) >= THRESHOLD, up_odd * factor, 0.0)
        even = (even - mean) * rstd
        odd = (odd - mean) * rstd
        up_even = tl.where(even * gamma_even + beta_even > 0, up_even, 0.0)
        up_odd = tl.where(odd * gamma_odd + beta_odd > 0, up_odd, 0.0)
        of_gamma_even += up_even * even
        of_gamma_odd += up_odd * odd
        of_beta_even += up_even
        of_beta_odd += up_odd
        up_even, up_odd = norm_gradient(
            even, odd, up_even * gamma_even, up_odd * gamma_odd, rstd, F
        )
        of_bias_even += up_even
        of_bias_odd += up_odd
        out = columns_of(up_even, up_odd, ROWS, PAIRS)
        tl.store(gradient + at, out.to(gradient.dtype.element_ty), inside)
    part = parts + tl.program_id(0).to(tl.int64) * 3 * F
    tl.store(part + 2 * pair, tl.sum(of_gamma_even, 0), 2 * pair < F)
    tl.store(part + 2 * pair + 1, tl.sum(of_gamma_odd, 0), 2 * pair + 1 < F)
    tl.store(part + F + 2 * pair, tl.sum(of_beta_even, 0), 2 * pair < F)
    tl.store(part + F + 2 * pair + 1, tl.sum(of_beta_odd, 0), 2 * pair + 1 < F)
    tl.store(part + 2 * F + 2 * pair, tl.sum(of_bias_even, 0), 2 * pair < F)
    tl.store(part + 2 * F + 2 * pair + 1, tl.sum(of_bias_odd, 0), 2 * pair + 1 < F)


def gradient_norm(
    upstream: Tensor,
    colptr: Tensor,
    dst: Tensor,
    num_roots: int,
    weights: Tensor | None,
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    p: float,
    key: int,
    ids: Tensor,
    mean: Tensor,
    rstd: Tensor,
    *,
    rows: int = 4,
    unroll: int = 4,
    warps: int = 4,
    rows_a_program: int = ROWS_A_PROGRAM,
    split: int = 8,
    registers: int | None = None,
) -> tuple[Tensor, Tensor]:
    """What `norm.backward` gives for what `segment.gradient` gives."""
    n, f = x.shape
    programs = triton.cdiv(n, rows_a_program)
    out, parts = torch.empty_like(x), x.new_empty(programs, 3, f, dtype=torch.float32)
    if n:
        _kernel[(programs,)](
            upstream, colptr, dst, upstream if weights is None else weights, x, gamma, beta, ids,
            mean, rstd, out, parts, n, num_roots, signed(key), scale(p),
            F=f, STRIDE=upstream.stride(0), ROOT_AT=width_of(f), WEIGHTED=weights is not None,
            ROWS=rows, UNROLL=unroll, HUB=HUB, SPLIT=split, PAIRS=pair_count(f),
            THRESHOLD=threshold(p), ROWS_A_PROGRAM=rows_a_program, num_warps=warps,
            maxnreg=registers,
        )  # fmt: skip
    return out, parts.sum(0)
