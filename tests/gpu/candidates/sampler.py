"""The sampler, one kernel a hop: draws in registers, gathered neighbors, marks of what they find.

Arrays are those of `sagebench.sampling.tensor`, to the bit, for 1 <= fanout <= 32. Sizes stay on
the device while a hop is small: it gets the memory that it could need at most. Larger hops wait
for the sizes first, which gives them what they need exactly.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
import triton
import triton.language as tl
from sagebench.sampling.blocks import Blocks
from sagebench.sampling.random import GOLDEN as GOLDEN_INT
from sagebench.sampling.random import MASK64, signed
from sagebench.sampling.random import mix64 as mix64_of_int
from torch import Tensor

from .hashing import GOLDEN, mix64, node_state

EDGES_WITHOUT_WAIT = 1 << 20
"""a hop of at most so many edges gets memory for as many without waiting for its size"""

NODES_A_PROGRAM = 2048


@triton.jit(do_not_specialize=["num_seeds", "K"])
def _start_kernel(seeds, colptr, state, local, taken, sizes, num_seeds, K, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = i < num_seeds
    node = tl.load(seeds + i, live, 0)
    degree = tl.load(colptr + node + 1, live, 0) - tl.load(colptr + node, live, 0)
    tl.store(state + node, 1, live)
    tl.store(local + node, i, live)
    tl.store(taken + i, tl.minimum(degree, K).to(tl.int32), live)
    tl.store(sizes, 0, tl.program_id(0) == 0)
    tl.store(sizes + 1, num_seeds, tl.program_id(0) == 0)


@triton.jit(do_not_specialize=["key"], do_not_specialize_on_alignment=["sizes"])
def _expand_kernel(
    frontier,
    colptr,
    row,
    taken,
    ends,
    found,
    owner,
    state,
    sizes,
    key: tl.int64,
    K: tl.constexpr,
    COLUMNS: tl.constexpr,
    MARK: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Rows lie along the lanes, so a thread draws for its own node and exchanges nothing.

    sizes: nodes before this hop's frontier, and with it.
    """
    before = tl.load(sizes)
    i = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    live = i < tl.load(sizes + 1) - before
    node = tl.load(frontier + i, live, 0)
    start = tl.load(colptr + node, live, 0)
    degree = (tl.load(colptr + node + 1, live, 0) - start).to(tl.int32)
    count = tl.load(taken + i, live, 0)
    first = tl.load(ends + i, live, 0) - count
    n = tl.arange(0, COLUMNS)[:, None]
    golden = tl.full((), GOLDEN, tl.uint64)
    draw = mix64(node_state(key, node)[None, :] + (n + 1).to(tl.uint64) * golden) >> 32
    highest = tl.maximum(degree - K, 0)[None, :] + n
    position = ((draw * (highest + 1).to(tl.uint64)) >> 32).to(tl.int32)
    for m in tl.static_range(1, K):
        drawn = tl.sum(tl.where(n == m, position, 0), 0)[None, :]
        twice = tl.sum(((position == drawn) & (n < m)).to(tl.int32), 0)[None, :]
        position = tl.where((n == m) & (twice > 0), highest, position)
    position = tl.where((degree > K)[None, :], position, n)
    rank = tl.zeros([COLUMNS, ROWS], tl.int32)
    for m in tl.static_range(0, K):
        rank += (tl.sum(tl.where(n == m, position, 0), 0)[None, :] < position).to(tl.int32)
    inside = n < count[None, :]
    neighbor = tl.load(row + start[None, :] + position, inside, 0)
    at = first[None, :] + rank
    tl.store(found + at, neighbor, inside)
    if MARK:
        tl.store(owner + at, (before + i)[None, :] + tl.zeros_like(rank), inside)
        unseen = inside & (tl.load(state + neighbor, inside, 1) == 0)
        tl.store(state + neighbor, 2, unseen)


@triton.jit
def _count_kernel(state, counts, BLOCK: tl.constexpr):
    node = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    new = tl.load(state + node) == 2
    tl.store(counts + tl.program_id(0), tl.sum(new.to(tl.int32), 0))


@triton.jit(do_not_specialize=["K"], do_not_specialize_on_alignment=["sizes"])
def _number_kernel(
    state, counts, block_ends, colptr, local, ids, taken, sizes, K, BLOCK: tl.constexpr
):
    """Number the found nodes in ascending id. sizes: nodes until here; then those with the new."""
    program = tl.program_id(0)
    node = program * BLOCK + tl.arange(0, BLOCK)
    new = tl.load(state + node) == 2
    end = tl.load(block_ends + program)
    at = end - tl.load(counts + program) + tl.cumsum(new.to(tl.int32), 0) - 1
    base = tl.load(sizes)
    degree = tl.load(colptr + node + 1, new, 0) - tl.load(colptr + node, new, 0)
    tl.store(state + node, 1, new)
    tl.store(local + node, base + at, new)
    tl.store(ids + at, node, new)
    tl.store(taken + at, tl.minimum(degree, K).to(tl.int32), new)
    tl.store(sizes + 1, base + end, program == tl.num_programs(0) - 1)


class KernelSampler:
    """As TensorSampler. Holds 5 bytes a node; one instance serves one caller and one stream."""

    def __init__(self, colptr: Tensor, row: Tensor, rows: int = 128, warps: int = 4) -> None:
        self.colptr, self.row, self.device = colptr, row, colptr.device
        self.nodes = len(colptr) - 1
        padded = triton.cdiv(self.nodes, NODES_A_PROGRAM) * NODES_A_PROGRAM
        self._state = torch.zeros(padded, dtype=torch.uint8, device=self.device)
        self._local = torch.empty(self.nodes, dtype=torch.int32, device=self.device)
        self._tuning = {"ROWS": rows, "num_warps": warps}
        self.waits = 0

    @torch.no_grad()
    def sample(
        self, seeds: np.ndarray, fanout: Sequence[int], key: int, *, relabel_last: bool = True
    ) -> Blocks:
        """Sample the neighborhood of `seeds`, as `CpuSampler.sample` does."""
        return self.sample_with_owners(seeds, fanout, key, relabel_last=relabel_last)[0]

    def sample_with_owners(
        self, seeds: np.ndarray, fanout: Sequence[int], key: int, *, relabel_last: bool = True
    ) -> tuple[Blocks, Tensor]:
        """The sample, and the destination's local number of each edge in `cols`, int32."""
        hops, colptr, state = len(fanout), self.colptr, self._state
        numbered = hops if relabel_last else hops - 1
        frontier = torch.tensor(np.asarray(seeds), dtype=torch.int64, device=self.device)
        taken = frontier.new_empty(len(frontier), dtype=torch.int32)
        sizes = frontier.new_zeros(2 * hops + 2)  # nodes until each hop, then edges of each
        state.zero_()
        _start_kernel[(triton.cdiv(len(frontier), 128),)](
            frontier, colptr, state, self._local, taken, sizes, len(frontier), fanout[0], BLOCK=128
        )
        kept = []
        self.waits = 0
        for hop, k in enumerate(fanout):
            ends = taken.cumsum(0)
            edges = sizes[hops + 2 + hop]
            edges.copy_(ends[-1])
            bound = len(frontier) * k
            if bound > EDGES_WITHOUT_WAIT:
                known = self._read(sizes)
                count, bound = max(known[hop + 1] - known[hop], 1), known[hops + 2 + hop]
                frontier, taken, ends = frontier[:count], taken[:count], ends[:count]
            found = self.row.new_empty(bound)
            mark = hop < numbered
            owner = frontier.new_empty(bound if mark else 0, dtype=torch.int32)
            _expand_kernel[(triton.cdiv(len(frontier), self._tuning["ROWS"]),)](
                frontier, colptr, self.row, taken, ends, found, owner, state, sizes[hop:],
                signed(mix64_of_int((key + (hop + 1) * GOLDEN_INT) & MASK64)),
                K=k, COLUMNS=triton.next_power_of_2(k), MARK=mark, **self._tuning,
            )  # fmt: skip
            kept.append((frontier, taken, found, owner))
            if mark:
                next_k = fanout[hop + 1] if hop + 1 < hops else 0
                frontier, taken = self._number(sizes[hop + 1 :], min(bound, self.nodes), next_k)
        if numbered == hops or not self.waits or known[hops] == 0:
            known = self._read(sizes)
        totals, edges = known[: numbered + 2], known[hops + 2 :]
        nodes = [b - a for a, b in pairwise(totals)]
        return self._assemble(kept, frontier, nodes, edges, numbered, key)

    def _number(self, sizes: Tensor, bound: int, k: int) -> tuple[Tensor, Tensor]:
        """The ids of the nodes that a hop found, and how many edges each has in a hop of `k`."""
        bound = max(bound, 1)
        ids = self.colptr.new_empty(bound)
        taken = ids.new_zeros(bound, dtype=torch.int32)
        programs = len(self._state) // NODES_A_PROGRAM
        counts = taken.new_empty(programs)
        grid = (programs,)
        _count_kernel[grid](self._state, counts, BLOCK=NODES_A_PROGRAM)
        _number_kernel[grid](
            self._state, counts, counts.cumsum(0), self.colptr, self._local, ids, taken, sizes,
            k, BLOCK=NODES_A_PROGRAM,
        )  # fmt: skip
        return ids, taken

    def _read(self, sizes: Tensor) -> list[int]:
        self.waits += 1
        return sizes.tolist()

    def _assemble(self, kept, last, nodes, edges, numbered, key) -> tuple[Blocks, Tensor]:
        hops = len(kept)
        frontiers = [*(part[0] for part in kept), last][: numbered + 1]
        ids = torch.cat([part[:n] for part, n in zip(frontiers, nodes, strict=True)])
        taken = torch.cat([part[1][:n] for part, n in zip(kept, nodes, strict=False)])
        rowptr = torch.zeros(len(taken) + 1, dtype=torch.int64, device=self.device)
        torch.cumsum(taken, 0, out=rowptr[1:])
        neighbors = torch.cat([part[2][:e] for part, e in zip(kept, edges, strict=True)])
        owners = [part[3][:e] for part, e in zip(kept[:numbered], edges, strict=False)]
        owners = torch.cat(owners) if owners else taken[:0]
        cols = self._local[neighbors[: len(owners)]]
        blocks = Blocks(
            node_ids=ids,
            rowptr=rowptr,
            neighbors=neighbors,
            cols=cols,
            nodes_per_hop=tuple(nodes) + (0,) * (hops - numbered),
            edges_per_hop=tuple(edges),
            key=key,
        )
        return blocks, owners
