"""LayerNorm, ReLU and keyed dropout in one pass over memory, and one back.

A program takes ROWS_A_PROGRAM consecutive rows, ROWS at a time. Columns are held as pairs (even,
odd), since one hash decides two of them. The gradients of gamma and beta are sums over rows: every
program writes its own, and one sum adds them up, so their order does not depend on the device.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from sagebench.kernels.mask import scale, threshold
from sagebench.operations import Cost, operation, size_bytes
from sagebench.sampling.device.hashing import mask_words, node_state

ROWS_A_PROGRAM = 256
ROWS = 2
WARPS = 2


@triton.jit
def pairs(x, ROWS: tl.constexpr, PAIRS: tl.constexpr):
    """The even and the odd columns of [ROWS, 2 * PAIRS]."""
    return tl.split(tl.reshape(x, [ROWS, PAIRS, 2]))


@triton.jit
def columns_of(even, odd, ROWS: tl.constexpr, PAIRS: tl.constexpr):
    return tl.reshape(tl.join(even, odd), [ROWS, 2 * PAIRS])


@triton.jit
def by_pairs(vector, pair, F: tl.constexpr):
    """The even and the odd values of a vector of F, each [1, PAIRS]."""
    even = tl.load(vector + 2 * pair, 2 * pair < F, 0.0)
    odd = tl.load(vector + 2 * pair + 1, 2 * pair + 1 < F, 0.0)
    return even[None, :].to(tl.float32), odd[None, :].to(tl.float32)


@triton.jit(do_not_specialize=["num_rows", "key"])
def _forward_kernel(
    x,
    gamma,
    beta,
    ids,
    out,
    mean_out,
    rstd_out,
    num_rows: tl.int64,
    key: tl.int64,
    eps: tl.float32,
    factor: tl.float32,
    F: tl.constexpr,
    PAIRS: tl.constexpr,
    THRESHOLD: tl.constexpr,
    ROWS: tl.constexpr,
    ROWS_A_PROGRAM: tl.constexpr,
):
    column = tl.arange(0, 2 * PAIRS)
    pair = tl.arange(0, PAIRS)
    gamma_even, gamma_odd = by_pairs(gamma, pair, F)
    beta_even, beta_odd = by_pairs(beta, pair, F)
    inside_even = (2 * pair < F)[None, :]
    inside_odd = (2 * pair + 1 < F)[None, :]
    first = tl.program_id(0).to(tl.int64) * ROWS_A_PROGRAM
    for step in range(0, tl.minimum(num_rows - first, ROWS_A_PROGRAM), ROWS):
        row = first + step + tl.arange(0, ROWS)
        live = row < num_rows
        inside = live[:, None] & (column < F)[None, :]
        at = row[:, None] * F + column[None, :]
        even, odd = pairs(tl.load(x + at, inside, 0.0).to(tl.float32), ROWS, PAIRS)
        mean = (tl.sum(even, 1) + tl.sum(odd, 1)) / F
        even = tl.where(inside_even, even - mean[:, None], 0.0)
        odd = tl.where(inside_odd, odd - mean[:, None], 0.0)
        rstd = tl.rsqrt((tl.sum(even * even, 1) + tl.sum(odd * odd, 1)) / F + eps)
        even = tl.maximum(even * rstd[:, None] * gamma_even + beta_even, 0.0)
        odd = tl.maximum(odd * rstd[:, None] * gamma_odd + beta_odd, 0.0)
        if THRESHOLD > 0:
            word = mask_words(node_state(key, tl.load(ids + row, live, 0)), pair)
            even = tl.where((word & 0xFFFF) >= THRESHOLD, even * factor, 0.0)
            odd = tl.where((word >> 16) >= THRESHOLD, odd * factor, 0.0)
        tl.store(out + at, columns_of(even, odd, ROWS, PAIRS).to(out.dtype.element_ty), inside)
        tl.store(mean_out + row, mean, live)
        tl.store(rstd_out + row, rstd, live)


@triton.jit(do_not_specialize=["num_rows", "key"])
def _backward_kernel(
    x,
    gamma,
    beta,
    ids,
    mean_in,
    rstd_in,
    upstream,
    gradient,
    parts,
    num_rows: tl.int64,
    key: tl.int64,
    factor: tl.float32,
    F: tl.constexpr,
    PAIRS: tl.constexpr,
    THRESHOLD: tl.constexpr,
    ROWS: tl.constexpr,
    ROWS_A_PROGRAM: tl.constexpr,
):
    column = tl.arange(0, 2 * PAIRS)
    pair = tl.arange(0, PAIRS)
    gamma_even, gamma_odd = by_pairs(gamma, pair, F)
    beta_even, beta_odd = by_pairs(beta, pair, F)
    of_gamma_even = tl.zeros([ROWS, PAIRS], tl.float32)
    of_gamma_odd = tl.zeros([ROWS, PAIRS], tl.float32)
    of_beta_even = tl.zeros([ROWS, PAIRS], tl.float32)
    of_beta_odd = tl.zeros([ROWS, PAIRS], tl.float32)
    first = tl.program_id(0).to(tl.int64) * ROWS_A_PROGRAM
    for step in range(0, tl.minimum(num_rows - first, ROWS_A_PROGRAM), ROWS):
        row = first + step + tl.arange(0, ROWS)
        live = row < num_rows
        inside = live[:, None] & (column < F)[None, :]
        at = row[:, None] * F + column[None, :]
        even, odd = pairs(tl.load(x + at, inside, 0.0).to(tl.float32), ROWS, PAIRS)
        up_even, up_odd = pairs(tl.load(upstream + at, inside, 0.0).to(tl.float32), ROWS, PAIRS)
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
        up_even *= gamma_even
        up_odd *= gamma_odd
        plain = ((tl.sum(up_even, 1) + tl.sum(up_odd, 1)) / F)[:, None]
        along = ((tl.sum(up_even * even, 1) + tl.sum(up_odd * odd, 1)) / F)[:, None]
        up_even = (up_even - plain - even * along) * rstd
        up_odd = (up_odd - plain - odd * along) * rstd
        out = columns_of(up_even, up_odd, ROWS, PAIRS)
        tl.store(gradient + at, out.to(gradient.dtype.element_ty), inside)
    part = parts + tl.program_id(0).to(tl.int64) * 2 * F
    tl.store(part + 2 * pair, tl.sum(of_gamma_even, 0), 2 * pair < F)
    tl.store(part + 2 * pair + 1, tl.sum(of_gamma_odd, 0), 2 * pair + 1 < F)
    tl.store(part + F + 2 * pair, tl.sum(of_beta_even, 0), 2 * pair < F)
    tl.store(part + F + 2 * pair + 1, tl.sum(of_beta_odd, 0), 2 * pair + 1 < F)


def _forward(
    x: Tensor, gamma: Tensor, beta: Tensor, p: float, key: int, ids: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    n, f = x.shape
    out, mean, rstd = _forward_shapes(x, gamma, beta, p, key, ids, eps)
    if n:
        _forward_kernel[(triton.cdiv(n, ROWS_A_PROGRAM),)](
            x, gamma, beta, ids, out, mean, rstd, n, key, eps, scale(p),
            F=f, PAIRS=pair_count(f), THRESHOLD=threshold(p), ROWS=ROWS,
            ROWS_A_PROGRAM=ROWS_A_PROGRAM, num_warps=WARPS,
        )  # fmt: skip
    return out, mean, rstd


def _forward_shapes(x, gamma, beta, p, key, ids, eps):
    mean, rstd = (x.new_empty(len(x), dtype=torch.float32) for _ in range(2))  # each aligned
    return torch.empty_like(x), mean, rstd


def _backward(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    p: float,
    key: int,
    ids: Tensor,
    mean: Tensor,
    rstd: Tensor,
    upstream: Tensor,
) -> tuple[Tensor, Tensor]:
    n, f = x.shape
    gradient, parts = _backward_shapes(x, gamma, beta, p, key, ids, mean, rstd, upstream)
    if n:
        _backward_kernel[(len(parts),)](
            x, gamma, beta, ids, mean, rstd, upstream, gradient, parts, n, key, scale(p),
            F=f, PAIRS=pair_count(f), THRESHOLD=threshold(p), ROWS=ROWS,
            ROWS_A_PROGRAM=ROWS_A_PROGRAM, num_warps=WARPS,
        )  # fmt: skip
    return gradient, parts


def _backward_shapes(x, gamma, beta, p, key, ids, mean, rstd, upstream):
    programs = triton.cdiv(len(x), ROWS_A_PROGRAM)
    return torch.empty_like(x), x.new_empty(programs, 2, x.shape[1], dtype=torch.float32)


def pair_count(columns: int) -> int:
    return triton.next_power_of_2(triton.cdiv(columns, 2))


forward = operation(
    "norm_relu_dropout(Tensor x, Tensor gamma, Tensor beta, float p, int key, Tensor ids,"
    " float eps) -> (Tensor, Tensor, Tensor)",
    _forward,
    _forward_shapes,
    lambda x, gamma, beta, p, key, ids, eps: Cost(1, 2 * size_bytes(x) + 16 * len(x)),
)
backward = operation(
    "norm_relu_dropout_backward(Tensor x, Tensor gamma, Tensor beta, float p, int key,"
    " Tensor ids, Tensor mean, Tensor rstd, Tensor upstream) -> (Tensor, Tensor)",
    _backward,
    _backward_shapes,
    lambda x, *others: Cost(1, 3 * size_bytes(x) + 16 * len(x)),
)
