"""The sampler `uniform` on a GPU, one kernel a hop: draws in registers, marks of what they find.

Arrays are those of `sagebench.sampling.tensor`, to the bit, for 1 <= fanout <= 32. Sizes stay on
the device while a hop is small: it gets the memory that it could need at most. Larger hops wait
for the sizes first, which gives them what they need exactly.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from sagebench.operations import Cost, operation, size_bytes
from sagebench.sampling.blocks import Blocks
from sagebench.sampling.device.hashing import GOLDEN, mix64, node_state
from sagebench.sampling.random import hop_key, signed

EDGES_WITHOUT_WAIT = 1 << 22
"""a hop of at most so many edges gets memory for as many without waiting for its size"""
NODES_A_PROGRAM = 2048
ROWS_A_PROGRAM = 128


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


def _start(seeds, colptr, state, local, taken, sizes, k):
    grid = (triton.cdiv(len(seeds), 128),)
    _start_kernel[grid](seeds, colptr, state, local, taken, sizes, len(seeds), k, BLOCK=128)


def _expand(frontier, colptr, row, taken, ends, found, owner, state, sizes, key, k):
    _expand_kernel[(triton.cdiv(len(frontier), ROWS_A_PROGRAM),)](
        frontier, colptr, row, taken, ends, found, owner, state, sizes, key,
        K=k, COLUMNS=triton.next_power_of_2(k), MARK=len(owner) > 0, ROWS=ROWS_A_PROGRAM,
        num_warps=4,
    )  # fmt: skip


def _count(state, counts):
    _count_kernel[(len(counts),)](state, counts, BLOCK=NODES_A_PROGRAM)


def _number(state, counts, block_ends, colptr, local, ids, taken, sizes, k):
    _number_kernel[(len(counts),)](
        state, counts, block_ends, colptr, local, ids, taken, sizes, k, BLOCK=NODES_A_PROGRAM
    )


def _nothing(*arguments):
    """What they write to is there already."""


start = operation(
    "sample_start(Tensor seeds, Tensor colptr, Tensor(a!) state, Tensor(b!) local,"
    " Tensor(c!) taken, Tensor(d!) sizes, int k) -> ()",
    _start,
    _nothing,
    lambda seeds, *others: Cost(1, len(seeds) * 33),
)
expand = operation(
    "sample_expand(Tensor frontier, Tensor colptr, Tensor row, Tensor taken, Tensor ends,"
    " Tensor(a!) found, Tensor(b!) owner, Tensor(c!) state, Tensor sizes, int key, int k) -> ()",
    _expand,
    _nothing,
    lambda frontier, colptr, row, taken, ends, found, owner, *others: Cost(
        1, len(frontier) * 36 + 2 * size_bytes(found) + size_bytes(owner) + 2 * len(owner)
    ),
)
count = operation(
    "sample_count(Tensor state, Tensor(a!) counts) -> ()",
    _count,
    _nothing,
    lambda state, counts: Cost(1, size_bytes(state, counts)),
)
number = operation(
    "sample_number(Tensor(a!) state, Tensor counts, Tensor block_ends, Tensor colptr,"
    " Tensor(b!) local, Tensor(c!) ids, Tensor(d!) taken, Tensor(e!) sizes, int k) -> ()",
    _number,
    _nothing,
    lambda state, counts, block_ends, colptr, local, ids, taken, sizes, k: Cost(
        1, size_bytes(state, counts, block_ends) + len(ids) * 33
    ),
)


class Hop(NamedTuple):
    """A hop as it was sampled, in memory that may be larger than it: its frontier's ids, how many
    edges each has, the neighbors, and the local number of each edge's destination."""

    frontier: Tensor
    taken: Tensor
    found: Tensor
    owner: Tensor


class KernelSampler:
    """Neighborhoods as TensorSampler's. Holds 5 bytes a node beside the graph; one instance serves
    one caller and one stream."""

    def __init__(self, colptr: Tensor, row: Tensor) -> None:
        self.colptr, self.row, self.device = colptr, row, colptr.device
        self.nodes = len(colptr) - 1
        padded = triton.cdiv(self.nodes, NODES_A_PROGRAM) * NODES_A_PROGRAM
        self._state = torch.zeros(padded, dtype=torch.uint8, device=self.device)
        self._local = torch.empty(self.nodes, dtype=torch.int32, device=self.device)

    @torch.no_grad()
    def sample(
        self, seeds: np.ndarray, fanout: Sequence[int], key: int, *, relabel_last: bool = True
    ) -> tuple[Blocks, Tensor]:
        """The sample, and the local number of the destination of each edge in `cols`, int32."""
        hops = len(fanout)
        numbered = hops if relabel_last else hops - 1
        frontier = torch.from_numpy(np.asarray(seeds, np.int64))
        if self.device.type == "cuda":  # from memory that is not pinned a copy would wait
            frontier = frontier.pin_memory()
        frontier = frontier.to(self.device, non_blocking=True)
        taken = frontier.new_empty(len(frontier), dtype=torch.int32)
        sizes = frontier.new_zeros(2 * hops + 2)  # nodes until each hop, then edges of each
        self._state.zero_()
        start(frontier, self.colptr, self._state, self._local, taken, sizes, fanout[0])
        sampled: list[Hop] = []
        known: list[int] = []
        for hop, k in enumerate(fanout):
            ends = taken.cumsum(0)
            sizes[hops + 2 + hop].copy_(ends[-1])
            bound = len(frontier) * k
            if bound > EDGES_WITHOUT_WAIT:
                known = self._read(sizes)
                found_nodes, bound = max(known[hop + 1] - known[hop], 1), known[hops + 2 + hop]
                frontier, taken = frontier[:found_nodes], taken[:found_nodes]
                ends = ends[:found_nodes]
            mark = hop < numbered
            found = self.row.new_empty(bound)
            owner = frontier.new_empty(bound if mark else 0, dtype=torch.int32)
            keyed = signed(hop_key(key, hop + 1))
            expand(
                frontier, self.colptr, self.row, taken, ends, found, owner, self._state,
                sizes[hop:], keyed, k,
            )  # fmt: skip
            sampled.append(Hop(frontier, taken, found, owner))
            if mark:
                next_k = fanout[hop + 1] if hop + 1 < hops else 0
                frontier, taken = self._numbered(sizes[hop + 1 :], min(bound, self.nodes), next_k)
        if numbered == hops or not known or known[hops] == 0:
            known = self._read(sizes)
        nodes = [after - before for before, after in pairwise(known[: numbered + 2])]
        return self._blocks(sampled, frontier, nodes, known[hops + 2 :], numbered, key)

    def _numbered(self, sizes: Tensor, bound: int, k: int) -> tuple[Tensor, Tensor]:
        """The ids of the nodes that a hop found, and how many edges each has in a hop of `k`."""
        ids = self.colptr.new_empty(max(bound, 1))
        taken = ids.new_zeros(len(ids), dtype=torch.int32)
        counts = taken.new_empty(len(self._state) // NODES_A_PROGRAM)
        count(self._state, counts)
        block_ends = counts.cumsum(0)
        number(self._state, counts, block_ends, self.colptr, self._local, ids, taken, sizes, k)
        return ids, taken

    def _read(self, sizes: Tensor) -> list[int]:
        return sizes.tolist()

    def _blocks(
        self,
        sampled: list[Hop],
        last: Tensor,
        nodes: list[int],
        edges: list[int],
        numbered: int,
        key: int,
    ) -> tuple[Blocks, Tensor]:
        frontiers = [*(hop.frontier for hop in sampled), last][: numbered + 1]
        ids = torch.cat([part[:n] for part, n in zip(frontiers, nodes, strict=True)])
        taken = torch.cat([hop.taken[:n] for hop, n in zip(sampled, nodes, strict=False)])
        rowptr = torch.zeros(len(taken) + 1, dtype=torch.int64, device=self.device)
        torch.cumsum(taken, 0, out=rowptr[1:])
        neighbors = torch.cat([hop.found[:e] for hop, e in zip(sampled, edges, strict=True)])
        owners = [hop.owner[:e] for hop, e in zip(sampled[:numbered], edges, strict=False)]
        owner = torch.cat(owners) if owners else taken[:0]
        blocks = Blocks(
            node_ids=ids,
            rowptr=rowptr,
            neighbors=neighbors,
            cols=self._local[neighbors[: len(owner)]],
            nodes_per_hop=tuple(nodes) + (0,) * (len(sampled) - numbered),
            edges_per_hop=tuple(edges),
            key=key,
        )
        return blocks, owner
