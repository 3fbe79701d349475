"""LayerNorm, ReLU and keyed dropout in one pass over memory, and one back.

A program takes ROWS_A_PROGRAM consecutive rows, ROWS at a time. Columns are held as pairs (even,
odd), since one hash decides two of them. The gradients of gamma, beta and of the bias that was
added before the norm are sums over rows: every program writes its own, and one sum adds them up,
so their order does not depend on the device.
"""

import torch
import triton
import triton.language as tl
from sagebench.kernels.fused import scale, threshold
from sagebench.sampling.random import signed
from torch import Tensor

from .hashing import mask_words, node_state

ROWS_A_PROGRAM = 256


@triton.jit
def pairs(x, ROWS: tl.constexpr, PAIRS: tl.constexpr):
    """The even and the odd columns of [ROWS, 2 * PAIRS]."""
    return tl.split(tl.reshape(x, [ROWS, PAIRS, 2]))


@triton.jit
def columns_of(even, odd, ROWS: tl.constexpr, PAIRS: tl.constexpr):
    return tl.reshape(tl.join(even, odd), [ROWS, 2 * PAIRS])


@triton.jit
def norm_gradient(even, odd, up_even, up_odd, rstd, F: tl.constexpr):
    """The gradient of what was normalised, from that of the normalised (even, odd)."""
    plain = ((tl.sum(up_even, 1) + tl.sum(up_odd, 1)) / F)[:, None]
    along = ((tl.sum(up_even * even, 1) + tl.sum(up_odd * odd, 1)) / F)[:, None]
    return (up_even - plain - even * along) * rstd, (up_odd - plain - odd * along) * rstd


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
    gamma_even = tl.load(gamma + 2 * pair, 2 * pair < F, 0.0)[None, :]
    gamma_odd = tl.load(gamma + 2 * pair + 1, 2 * pair + 1 < F, 0.0)[None, :]
    beta_even = tl.load(beta + 2 * pair, 2 * pair < F, 0.0)[None, :]
    beta_odd = tl.load(beta + 2 * pair + 1, 2 * pair + 1 < F, 0.0)[None, :]
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
            state = node_state(key, tl.load(ids + row, live, 0))
            word = mask_words(state, pair)
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
            state = node_state(key, tl.load(ids + row, live, 0))
            word = mask_words(state, pair)
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


def forward(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    p: float,
    key: int,
    ids: Tensor,
    eps: float = 1e-5,
    rows: int = 4,
    warps: int = 4,
) -> tuple[Tensor, Tensor, Tensor]:
    """dropout(relu(layer_norm(x))) as `plain_norm_relu_dropout`, and every row's mean and 1 / std.

    x: bf16 or float32 [n, F], contiguous. gamma, beta: float32 [F]. ids: integer [n]; with key and
    p they decide the mask. Sums are float32.
    """
    n, f = x.shape
    out = torch.empty_like(x)
    mean, rstd = (x.new_empty(n, dtype=torch.float32) for _ in range(2))  # each aligned
    if n:
        _forward_kernel[(triton.cdiv(n, ROWS_A_PROGRAM),)](
            x, gamma, beta, ids, out, mean, rstd, n, signed(key), eps, scale(p),
            F=f, PAIRS=pair_count(f), THRESHOLD=threshold(p), ROWS=rows,
            ROWS_A_PROGRAM=ROWS_A_PROGRAM, num_warps=warps,
        )  # fmt: skip
    return out, mean, rstd


def backward(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    p: float,
    key: int,
    ids: Tensor,
    mean: Tensor,
    rstd: Tensor,
    upstream: Tensor,
    rows: int = 4,
    warps: int = 4,
) -> tuple[Tensor, Tensor]:
    """The gradient of x, and float32 [3, F]: those of gamma, beta and a bias that was added to x.

    Takes what `forward` took and gave. `upstream` takes the result.
    """
    n, f = x.shape
    programs = triton.cdiv(n, ROWS_A_PROGRAM)
    parts = x.new_empty(programs, 3, f, dtype=torch.float32)
    if n:
        _backward_kernel[(programs,)](
            x, gamma, beta, ids, mean, rstd, upstream, upstream, parts, n, signed(key), scale(p),
            F=f, PAIRS=pair_count(f), THRESHOLD=threshold(p), ROWS=rows,
            ROWS_A_PROGRAM=ROWS_A_PROGRAM, num_warps=warps,
        )  # fmt: skip
    return upstream, parts.sum(0)


def pair_count(columns: int) -> int:
    return triton.next_power_of_2(triton.cdiv(columns, 2))
