"""The simulated caching allocator: its segments, and that it holds what is in use and more."""

from hypothesis import given, settings
from hypothesis import strategies as st
from sagebench.estimate.allocator import AllocationTrace, CudaAllocator, RecordedStep, replay
from sagebench.units import MIB


def step_of(*sizes_or_ends):
    """Positive: allocate so much. Zero or negative: free the minus n-th."""
    trace, handles = AllocationTrace(), []
    for value in sizes_or_ends:
        if value > 0:
            handles.append(trace.alloc(value))
        else:
            trace.free(handles[-value])
    return RecordedStep((), trace, 0, {})


def test_the_caching_allocator_takes_segments():
    def held(*events, frugal=False):
        return replay(CudaAllocator(frugal=frugal), [step_of(*events)], batches=False)

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


@given(st.lists(st.tuples(st.integers(4096, 1 << 26), st.integers(0, 30)), min_size=1, max_size=60))
@settings(max_examples=30)
def test_an_allocator_holds_what_is_in_use_and_more(choices):
    trace, live = AllocationTrace(), []
    for size, end in choices:
        live.append(trace.alloc(size))
        if end < len(live):
            trace.free(live.pop(end))
    for handle in live:
        trace.free(handle)
    steps = [RecordedStep((), trace, 0, {})] * 2
    for frugal in (False, True):
        assert trace.peak_bytes <= replay(CudaAllocator(frugal=frugal), steps, batches=False)
