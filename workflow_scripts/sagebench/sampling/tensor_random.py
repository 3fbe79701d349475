"""The hash of `sagebench.sampling.random` on tensors, on any device.

torch has no arithmetic on unsigned integers, but int64 wraps around: products and sums of the same
bits have the same bits, and a right shift needs a mask only.
"""

from __future__ import annotations

from torch import Tensor

from sagebench.sampling.random import MASK64, MULTIPLIER_1, MULTIPLIER_2


def mix64(z: Tensor) -> Tensor:
    """`random.mix64` of every element. z: int64; the bits are those of the unsigned integers."""
    z = (z ^ shift(z, 30)) * signed(MULTIPLIER_1)
    z = (z ^ shift(z, 27)) * signed(MULTIPLIER_2)
    return z ^ shift(z, 31)


def shift(v: Tensor, by: int, bits: int = 64) -> Tensor:
    """Shift right without the sign. bits: those of v's dtype."""
    return (v >> by) & ((1 << (bits - by)) - 1)


def signed(value: int, bits: int = 64) -> int:
    """The two's complement integer of the same bits."""
    value &= MASK64 >> (64 - bits)
    return value - (1 << bits) if value >> (bits - 1) else value
