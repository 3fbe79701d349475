"""The hash of `sagebench.kernels.dropout_mask` in Triton."""

import triton
import triton.language as tl

from sagebench.kernels import dropout_mask

COLUMN_STRIDE = tl.constexpr(dropout_mask.COLUMN_STRIDE)
ROUND_1 = tl.constexpr(dropout_mask.ROUND_1)
ROUND_2 = tl.constexpr(dropout_mask.ROUND_2)


@triton.jit
def mask_words(state, pair):
    """The 32 bits that decide columns 2 * pair (low half) and 2 * pair + 1 (high half).

    state: uint64 [n], a row's of `dropout_mask`. pair: int [m]. Returns uint32 [n, m].
    """
    a = (state & 0xFFFFFFFF).to(tl.uint32)[:, None]
    b = (state >> 32).to(tl.uint32)[:, None]
    v = (pair.to(tl.uint32) * tl.full((), COLUMN_STRIDE, tl.uint32))[None, :] ^ a
    v = (v ^ (v >> 16)) * tl.full((), ROUND_1, tl.uint32)
    v = ((v ^ (v >> 15)) + b) * tl.full((), ROUND_2, tl.uint32)
    return v ^ (v >> 16)
