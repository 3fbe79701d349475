"""The hashes of `sagebench.sampling.random` in Triton."""

import triton
import triton.language as tl

from sagebench.sampling import random

MULTIPLIER_1 = tl.constexpr(random.MULTIPLIER_1)
MULTIPLIER_2 = tl.constexpr(random.MULTIPLIER_2)
NODE_STRIDE = tl.constexpr(random.NODE_STRIDE)
GOLDEN = tl.constexpr(random.GOLDEN)


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
