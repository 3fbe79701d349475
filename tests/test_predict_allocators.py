"""The simulated allocators hold what is in use and more; the heap is held to a real one."""

import json
import os
import random
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sagebench.launch.start import runtime_environment
from sagebench.predict.allocators import MIB, PINNED_SHARE, CudaAllocator, GlibcHeap, replay
from sagebench.predict.step_blocks import BlocksStep
from sagebench.predict.step_pyg import PygStep
from sagebench.predict.tape import Tape


def tape_of(*sizes_or_drops):
    """Positive: take so much. Zero or negative: give the minus n-th back."""
    tape, handles = Tape(), []
    for value in sizes_or_drops:
        if value > 0:
            handles.append(tape.take(value, "x"))
        else:
            tape.drop(handles[-value])
    return tape


def test_the_caching_allocator_takes_segments():
    def held(*events, frugal=False):
        return replay(CudaAllocator(frugal=frugal), [tape_of(*events)])

    assert held(5_000) == 2 * MIB
    assert held(*[MIB] * 3) == 4 * MIB  # two in a segment of small ones
    assert held(MIB + 1) == 20 * MIB
    assert held(*[9 * MIB] * 2) == 20 * MIB
    assert held(*[9 * MIB] * 3) == 40 * MIB
    assert held(10 * MIB) == 10 * MIB
    assert held(33 * MIB) == 34 * MIB
    # What is free is taken again, cut to size if more than 1 MiB is left; a bit more is not there.
    assert held(64 * MIB, 0, 32 * MIB, 32 * MIB) == 64 * MIB
    assert held(64 * MIB, 0, 63 * MIB) == 64 * MIB
    assert held(64 * MIB, 0, 66 * MIB) == 130 * MIB
    assert held(64 * MIB, 0, 66 * MIB, frugal=True) == 66 * MIB
    # A segment that is in use in part cannot be given back.
    assert held(64 * MIB, 0, 32 * MIB, 66 * MIB, frugal=True) == 130 * MIB
    # Neighbors are joined.
    assert held(64 * MIB, 0, 32 * MIB, 32 * MIB, -1, -2, 64 * MIB) == 64 * MIB


events = st.lists(
    st.tuples(st.integers(4096, 1 << 26), st.integers(0, 30)), min_size=1, max_size=60
)


def test_what_lies_beside_a_tensor_keeps_its_place_from_the_next():
    def held(pinned_share):
        step = tape_of(9_000, MIB, -1, MIB, -2, 0)
        return replay(GlibcHeap(pinned_share=pinned_share), [step, step]) // MIB

    assert held(0) == 1
    assert held(1) == 2  # and with the step it ends


def test_some_places_are_kept():
    """As many as were counted; which, differs from seed to seed."""
    sizes = [MIB] * 40
    step = tape_of(9_000, *sizes, *range(-40, 0), *sizes, *range(-80, -40), 0)
    none, *some, every = (
        replay(GlibcHeap(seed, share), [step])
        for seed, share in [(0, 0), *((seed, PINNED_SHARE) for seed in range(5)), (0, 1)]
    )
    assert none < min(some) < max(some) < every
    assert len(set(some)) > 1


def random_tape(choices):
    tape, live = Tape(), []
    for size, drop in choices:
        live.append(tape.take(size, "x"))
        if drop < len(live):
            tape.drop(live.pop(drop))
    tape.drop_all()
    return tape


@given(events)
@settings(max_examples=30)
def test_an_allocator_holds_what_is_in_use_and_more(choices):
    tape = random_tape(choices)
    live, parts = tape.peak()
    assert sum(parts.values()) == live
    plenty, least = (replay(CudaAllocator(frugal=frugal), [tape, tape]) for frugal in (False, True))
    assert live <= least
    assert live <= plenty
    heap = GlibcHeap()
    assert live <= replay(heap, [tape] * 3)
    assert replay(heap, [tape]) == heap.peak
    assert heap.held == 0  # at the end of a step nothing is in the way


HEAP = """
import json, os, sys, torch
from pathlib import Path
def private():
    resident, shared = Path("/proc/self/statm").read_text().split()[1:3]
    return (int(resident) - int(shared)) * 4096
torch.ones(1000).sum()
for steps in json.loads(sys.stdin.read()):
    if os.fork():
        os.wait()
        continue
    kept, before, peak = {}, private(), 0
    for events in steps:
        for handle, size in events:
            if size:
                kept[handle] = torch.ones(size, dtype=torch.uint8)
            else:
                del kept[handle]
            peak = max(peak, private())
    print(peak - before, flush=True)
    os._exit(0)
"""


def test_the_heap_grows_as_a_real_one_does():
    """Processes take and give back real tensors of the tapes' sizes, and little else, under the
    launcher's allocator settings."""
    draw = random.Random(1).gauss
    widths, factors = [100, 256, 256, 47], [draw(1, 0.02) for _ in range(60)]
    of_pyg = [
        PygStep(
            [int(8_000 * f)] * 3,
            [int(24_000 * f)] * 3,
            widths,
            seeds=64,
            batch_bytes=0,
            **FP32_ON_CPU,
        ).tape
        for f in factors
    ]
    of_blocks = [
        BlocksStep(
            [int(n * f) for n in (8_000, 3_000, 800)],
            [int(e * f) for e in (24_000, 10_000, 2_400)],
            widths,
            kernels=True,
            gathered=False,
            **FP32_ON_CPU,
        ).tape
        for f in factors
    ]
    done = subprocess.run(
        [sys.executable, "-c", HEAP],
        input=json.dumps([[tape.events for tape in steps] for steps in (of_pyg, of_blocks)]),
        capture_output=True,
        text=True,
        env={**os.environ, **runtime_environment("cpu"), "OMP_NUM_THREADS": "1"},
        check=True,
    )
    measured = [int(line) for line in done.stdout.split()]
    said = [replay(GlibcHeap(pinned_share=0), steps) for steps in (of_pyg, of_blocks)]
    # The few small objects lie elsewhere in every process: a real heap was from 1 % less to 12 %
    # more than said, and once 29 %.
    assert measured == pytest.approx(said, rel=0.35)


FP32_ON_CPU = {"aggregator": "mean", "dropout": True, "bf16": False, "cuda": False}
