"""The dropout mask: a function of a key, a row's id and a column, so neither threads, ranks nor
device change it.

The definition, in unsigned integers (all arithmetic modulo 2**64, then modulo 2**32):

    state = mix64(key + id * NODE_STRIDE)               64 bits a row; sagebench.sampling.random
    a, b  = low and high 32 bits of state
    v     = (j * 0x9E3779B9) ^ a                        32 bits for columns 2 j and 2 j + 1
    v     = (v ^ (v >> 16)) * 0x7FEB352D
    v     = ((v ^ (v >> 15)) + b) * 0x846CA68B
    word  = v ^ (v >> 16)
    u(2 j) = low 16 bits of word, u(2 j + 1) = high 16 bits
    column c is kept where u(c) >= threshold(p) = round(p * 65536)

So p has a resolution of 1 / 65536; what is kept is scaled by 65536 / (65536 - threshold), which
makes the expectation exact. The rounds are those of lowbias32 (Wellons 2018, "Prospecting for hash
functions"), with the row's second half added between them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sagebench.sampling.random import MASK64, MULTIPLIER_1, MULTIPLIER_2, NODE_STRIDE

LEVELS = 1 << 16
COLUMN_STRIDE = 0x9E3779B9
ROUND_1 = 0x7FEB352D
ROUND_2 = 0x846CA68B


def threshold(p: float) -> int:
    """The number of the 65536 levels that are dropped. Raises ValueError outside of 0 <= p <= 1."""
    if not 0 <= p <= 1:
        raise ValueError(f"dropout is {p}; write a probability from 0 to 1")
    return round(p * LEVELS)


def scale(p: float) -> float:
    """What a kept value is multiplied by (0 where everything is dropped)."""
    kept = LEVELS - threshold(p)
    return LEVELS / kept if kept else 0.0


def keep_mask(key: int, rows: Tensor, num_columns: int, p: float) -> Tensor:
    """The mask by torch's integer operations, on the device of `rows`.

    key: 64-bit integer. rows: integer [n] ids. Returns bool [n, num_columns], True where kept.
    """
    state = _mix64(_signed(key, 64) + rows.long() * _signed(NODE_STRIDE, 64))
    a, b = (half.to(torch.int32)[:, None] for half in (state, state >> 32))
    j = torch.arange(-(-num_columns // 2), dtype=torch.int32, device=rows.device)
    v = (j * _signed(COLUMN_STRIDE, 32)) ^ a
    v = (v ^ _shift(v, 16, 32)) * ROUND_1
    v = ((v ^ _shift(v, 15, 32)) + b) * _signed(ROUND_2, 32)
    v ^= _shift(v, 16, 32)
    halves = torch.stack([v & 0xFFFF, _shift(v, 16, 32)], dim=-1)
    return halves.flatten(1)[:, :num_columns] >= threshold(p)


def _mix64(z: Tensor) -> Tensor:
    z = (z ^ _shift(z, 30, 64)) * _signed(MULTIPLIER_1, 64)
    z = (z ^ _shift(z, 27, 64)) * _signed(MULTIPLIER_2, 64)
    return z ^ _shift(z, 31, 64)


def _shift(v: Tensor, by: int, bits: int) -> Tensor:
    """Shift right without the sign."""
    return (v >> by) & ((1 << (bits - by)) - 1)


def _signed(value: int, bits: int) -> int:
    """The two's complement integer of the same bits: torch has no arithmetic on unsigned ones."""
    value &= MASK64 >> (64 - bits)
    return value - (1 << bits) if value >> (bits - 1) else value
