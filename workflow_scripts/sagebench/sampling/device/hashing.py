"""The hashes of `sagebench.sampling.random`, and of the dropout mask, in Triton."""

import triton
import triton.language as tl

from sagebench.sampling import random

MULTIPLIER_1 = tl.constexpr(random.MULTIPLIER_1)
MULTIPLIER_2 = tl.constexpr(random.MULTIPLIER_2)
NODE_STRIDE = tl.constexpr(random.NODE_STRIDE)
GOLDEN = tl.constexpr(random.GOLDEN)
COLUMN_STRIDE = tl.constexpr(random.COLUMN_STRIDE)
ROUND_1 = tl.constexpr(random.ROUND_1)
ROUND_2 = tl.constexpr(random.ROUND_2)


@triton.jit
def mix64(z):
    """`random.mix64` of uint64."""
    z = (z ^ (z >> 30)) * tl.full((), MULTIPLIER_1, tl.uint64)
    z = (z ^ (z >> 27)) * tl.full((), MULTIPLIER_2, tl.uint64)
    return z ^ (z >> 31)


@triton.jit
def node_state(key, nodes):
    """mix64(key + node * NODE_STRIDE): key int64 [], nodes integer [n]; uint64 [n]."""
    stride = tl.full((), NODE_STRIDE, tl.uint64)
    return mix64(key.to(tl.uint64) + nodes.to(tl.int64).to(tl.uint64) * stride)


@triton.jit
def mask_words(state, pair):
    """The 32 bits that decide columns 2 * pair (low half) and 2 * pair + 1 (high half) of a dropout
    mask (sagebench.kernels.mask).

    state: uint64 [n], of a row. pair: int [m]. Returns uint32 [n, m].
    """
    a = (state & 0xFFFFFFFF).to(tl.uint32)[:, None]
    b = (state >> 32).to(tl.uint32)[:, None]
    v = (pair.to(tl.uint32) * tl.full((), COLUMN_STRIDE, tl.uint32))[None, :] ^ a
    v = (v ^ (v >> 16)) * tl.full((), ROUND_1, tl.uint32)
    v = ((v ^ (v >> 15)) + b) * tl.full((), ROUND_2, tl.uint32)
    return v ^ (v >> 16)
