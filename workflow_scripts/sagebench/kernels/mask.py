"""The dropout mask, drawn by keys.

It is a function of a key, a row's id and a column, so neither threads, ranks nor device change
it. In unsigned integers (all arithmetic modulo 2**64, then modulo 2**32):

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

from sagebench.sampling.random import (
    COLUMN_STRIDE,
    NODE_STRIDE,
    ROUND_1,
    ROUND_2,
    mix64_tensor,
    shift,
    signed,
)

LEVELS = 1 << 16


def threshold(p: float) -> int:
    """The number of the 65536 levels that are dropped. Raises ValueError outside of 0 <= p <= 1."""
    if not 0 <= p <= 1:
        raise ValueError(f"dropout is {p}; write a probability from 0 to 1")
    return round(p * LEVELS)


def scale(p: float) -> float:
    """Factor of the kept values, 1 / (1 - p); 0 if everything is dropped."""
    kept = LEVELS - threshold(p)
    return LEVELS / kept if kept else 0.0


def keep_mask(key: int | Tensor, rows: Tensor, num_columns: int, p: float) -> Tensor:
    """The mask by torch's integer operations, on the device of `rows`.

    key: 64-bit integer, or int64 [] of its bits. rows: integer [n] ids. Returns bool
    [n, num_columns], True where kept.
    """
    key = key if isinstance(key, Tensor) else signed(key)
    state = mix64_tensor(key + rows.long() * signed(NODE_STRIDE))
    a, b = (half.to(torch.int32)[:, None] for half in (state, state >> 32))
    j = torch.arange(-(-num_columns // 2), dtype=torch.int32, device=rows.device)
    v = (j * signed(COLUMN_STRIDE, 32)) ^ a
    v = (v ^ shift(v, 16, 32)) * ROUND_1
    v = ((v ^ shift(v, 15, 32)) + b) * signed(ROUND_2, 32)
    v ^= shift(v, 16, 32)
    # Compared before they are interleaved: what is copied then has a byte a value, not four.
    halves = [half >= threshold(p) for half in (v & 0xFFFF, shift(v, 16, 32))]
    return torch.stack(halves, dim=-1).flatten(1)[:, :num_columns]
