"""Counter-based random numbers: a draw is a function of its key, so no thread, rank or device
changes a sample.

A draw's key is (seed, epoch, micro-batch index, hop, node, i). The first four are folded into one
64-bit `sample_key` (`fold`); the rest is hashed by `mix64`, the finalizer of splitmix64 (Steele,
Lea, Flood 2014, "Fast splittable pseudorandom number generators"). All arithmetic is modulo 2**64,
so Python integers, numba's uint64 and torch's int64 agree to the bit: torch has no arithmetic on
unsigned integers, but int64 wraps around, and a right shift needs a mask only.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

MASK64 = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
NODE_STRIDE = 0xD1342543DE82EF95
MULTIPLIER_1 = 0xBF58476D1CE4E5B9
MULTIPLIER_2 = 0x94D049BB133111EB
COLUMN_STRIDE = 0x9E3779B9
ROUND_1 = 0x7FEB352D
ROUND_2 = 0x846CA68B
"""of the dropout mask (kernels/fused.py), in 32 bits"""
LABOR_STREAM = 5
"""see `fold`: no two uses of one key have the same stream"""


def mix64(z: int) -> int:
    """Hash a 64-bit integer to a 64-bit integer (Python integers, both in [0, 2**64))."""
    z = ((z ^ (z >> 30)) * MULTIPLIER_1) & MASK64
    z = ((z ^ (z >> 27)) * MULTIPLIER_2) & MASK64
    return z ^ (z >> 31)


def fold(*values: int) -> int:
    """Fold integers into one 64-bit key; order and count matter."""
    key = GOLDEN
    for value in values:
        key = mix64((key ^ (value & MASK64)) + GOLDEN & MASK64)
    return key


def hop_key(key: int, hop: int) -> int:
    """The 64-bit key of a hop (counted from 1) of a micro-batch."""
    return mix64((key + hop * GOLDEN) & MASK64)


def hash_ids(key: int, ids: np.ndarray) -> np.ndarray:
    """`mix64(key + id * NODE_STRIDE)` for every id. ids: int [n]; returns uint64 [n]."""
    z = np.uint64(key) + ids.astype(np.uint64) * np.uint64(NODE_STRIDE)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(MULTIPLIER_1)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(MULTIPLIER_2)
    return z ^ (z >> np.uint64(31))


def mix64_tensor(z: Tensor) -> Tensor:
    """`mix64` of every element. z: int64; the bits are those of the unsigned integers."""
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
