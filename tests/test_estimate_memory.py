"""Memory of a card from recorded steps: what lies between two recordings, the replay, a card."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from probed import PRODUCTS
from sagebench.estimate.allocator import AllocationTrace, CudaAllocator, RecordedStep, replay
from sagebench.estimate.cards import card_of
from sagebench.estimate.memory import (
    FITS,
    NO_FIT,
    NORMAL,
    TIGHT,
    card_memory,
    expected_maximum,
    resident,
    sampler_bytes,
    spread_of_maximum,
    verdict,
)
from sagebench.estimate.probe import CONTEXT_BYTES, GraphFacts, Sample, available_bytes
from sagebench.estimate.step import StepRecorder, sizes_at, step_cost
from slides import slides_sample, slides_trial

GIB, MIB = 1 << 30, 1 << 20
ENGINES = ("blocks", "trimmed", "reference")
CARD = Path(__file__).parents[1] / "results" / "reference" / "H100-2026-11-28"


@pytest.fixture(scope="module")
def sample():
    """The slides' default fanout and batch size on a graph as large as ogbn-products."""
    return slides_sample()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_step_of_another_size_is_about_the_largest_scaled(sample, engine):
    recorder = StepRecorder(slides_trial(engine, sample), PRODUCTS, "device")
    mean, largest = (recorder.record(*sizes_at(sample, PRODUCTS, z)) for z in (0.0, 3.0))
    scaled = largest.scaled(mean.peak_bytes / largest.peak_bytes)
    pairs = list(zip(scaled.trace.events, mean.trace.events, strict=True))
    sizes = [(mine, its) for mine, its in pairs if its > 0]
    assert [pair for pair in pairs if pair not in sizes] == [
        (its, its) for _, its in pairs if its < 0
    ]
    off = [abs(mine - its) for mine, its in sizes]
    assert sum(off) < 0.01 * sum(its for _, its in sizes)


def test_few_steps_are_recorded(sample, monkeypatch):
    taken = []
    record = StepRecorder.record
    monkeypatch.setattr(
        StepRecorder, "record", lambda *arguments: taken.append(1) or record(*arguments)
    )
    step_cost(slides_trial("reference", sample), sample, PRODUCTS, "host", 1000)
    assert len(taken) == 2


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_in_use_needed_and_held(sample, engine):
    trial = slides_trial(engine, sample)
    found = step_cost(trial, sample, PRODUCTS, "device", 15_000)
    assert 0 < found.typical_live_bytes < found.live_bytes <= found.needed_bytes <= found.held_bytes
    longer = step_cost(trial, sample, PRODUCTS, "device", 1_500_000)
    assert found.live_bytes < longer.live_bytes < 1.05 * found.live_bytes
    assert bool(found.beside_bytes) == (engine == "blocks")


def test_a_trial_of_one_step_needs_that_step(sample):
    trial = slides_trial("reference", sample)
    found = step_cost(trial, sample, PRODUCTS, "host", 1)
    recorded = StepRecorder(trial, PRODUCTS, "host").record(*sizes_at(sample, PRODUCTS, 0.0))
    assert found.live_bytes == recorded.peak_bytes
    assert found.held_std_bytes == 0
    assert found.live_bytes < found.held_bytes < 1.3 * found.live_bytes


def a_step(batch_bytes, *sizes):
    trace = AllocationTrace()
    for handle in [trace.alloc(size) for size in sizes]:
        trace.free(handle)
    return RecordedStep((batch_bytes,), trace, 0, {})


@pytest.mark.parametrize("share", [0.5, 0.0, -1.0])
def test_a_scaled_step_has_the_same_allocations(share):
    """Below nothing, too: far below the mean, where micro-batches differ by as much as that."""
    found = a_step(40 * MIB, 60 * MIB).scaled(share)
    expected = max(1, round(share * 60 * MIB))
    assert found.trace.events == [expected, -1]
    assert replay(CudaAllocator(), [found], batches=True) > 0


def test_a_batch_comes_before_the_last_one_goes():
    steps = [a_step(40 * MIB, 60 * MIB), a_step(40 * MIB, 100 * MIB)]
    # The second batch lies where the first step was; its own step then finds no room there.
    assert replay(CudaAllocator(), steps, batches=True) == (40 + 60 + 100) * MIB
    assert replay(CudaAllocator(), steps, batches=False) == (60 + 100) * MIB
    assert replay(CudaAllocator(frugal=True), steps, batches=False) == 100 * MIB


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("bf16", {"precision": "bf16"}),
        ("fp32", {}),
        ("max", {"precision": "bf16", "aggregator": "max"}),
    ],
)
def test_a_card_allocated_what_is_recorded(sample, line, values):
    """An H100 that trained `blocks`: its most bytes in use, by torch's own count."""
    lines = (CARD / "sweep.jsonl").read_text().splitlines()
    measured = next(json.loads(each)[line] for each in lines if line in json.loads(each))
    outcome = json.loads((CARD / "outcomes.jsonl").read_text().splitlines()[0])
    epoch = outcome["epochs"][-1]
    nodes, edges = ([*map(round, epoch[f"{name}_per_hop"])] for name in ("nodes", "edges"))
    trial = slides_trial("blocks", sample, sampling_workers=1, kernels="plain", **values)
    step = StepRecorder(trial, PRODUCTS, "device").record(nodes, edges)
    placement = outcome["placement"]
    graph = replace(
        PRODUCTS,
        index_bytes=placement["graph_bytes"],
        # That visit kept them in float32 whatever the precision.
        feature_bytes=placement["features_bytes"] * (2 if trial.precision == "bf16" else 1),
    )
    batches = 1 + 2 * trial.sampling_workers
    cost = step_cost(trial, sample, graph, "device", 1)
    beside = sum(resident(trial, cost, graph).values())
    beside += batches * sum(step.batch_bytes) + sampler_bytes(trial, sample, graph, cost)
    found = (step.trace.peak_bytes + beside) / GIB
    assert found == pytest.approx(measured["allocated_gib"], rel=0.015)


def estimated(sample, trial=None, cv=0.02, device_bytes=None, **values):
    """Of `reference` unless a trial is given; cv: how unevenly its micro-batches are spread."""
    trial = trial or slides_trial("reference", sample, device="cuda", **values)
    widened = replace(
        sample,
        **{
            name: replace(spread, std=cv * spread.mean)
            for name, spread in (("nodes", sample.nodes), ("edges", sample.edges))
        },
    )
    micro_batches = PRODUCTS.micro_batches(trial.batch_size) * trial.epochs
    cost = step_cost(trial, widened, PRODUCTS, "host", micro_batches)
    return card_memory(trial, cost, widened, PRODUCTS, device_bytes)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_parts_are_the_peak(sample, engine):
    found = estimated(sample, slides_trial(engine, sample, device="cuda"))
    assert sum(found.parts.values()) == pytest.approx(found.peak_bytes, abs=len(found.parts))
    assert found.low_bytes < found.peak_bytes < found.high_bytes
    assert found.needed_bytes <= found.peak_bytes + 1


def test_the_largest_of_many_micro_batches_decides(sample):
    short, long = (estimated(sample, cv=0.05, epochs=epochs) for epochs in (1, 1000))
    steady = estimated(sample, cv=0.0, epochs=1000)
    assert steady.needed_bytes < short.needed_bytes < long.needed_bytes
    limit = (short.needed_bytes + long.needed_bytes) // 2
    chances = [replace(made, limit_bytes=limit).out_of_memory_chance for made in (short, long)]
    assert chances[0] < chances[1]
    assert spread_of_maximum(1) == pytest.approx(1) and 0 < spread_of_maximum(1000) < 0.5
    assert NORMAL.cdf(expected_maximum(10)) == pytest.approx((10 - 0.375) / (10 + 0.25))


def test_the_verdict_follows_the_limit(sample):
    found = estimated(sample)
    chances = [
        replace(found, limit_bytes=round(found.needed_bytes * share)).out_of_memory_chance
        for share in (0.5, 0.95, 1.0, 1.05, 2.0)
    ]
    assert chances == sorted(chances, reverse=True)
    assert [verdict(chance) for chance in chances[::2]] == [NO_FIT, TIGHT, FITS]
    assert estimated(sample).out_of_memory_chance is None  # no limit is known


def test_short_of_memory_the_allocator_keeps_less(sample):
    plenty = estimated(sample)
    card = (plenty.needed_bytes + plenty.peak_bytes) // 2 + CONTEXT_BYTES
    short = estimated(sample, device_bytes=card)
    assert short.peak_bytes == short.high_bytes == card - CONTEXT_BYTES < plenty.peak_bytes
    assert sum(short.parts.values()) == pytest.approx(short.peak_bytes, abs=len(short.parts))
    lacking = estimated(sample, device_bytes=plenty.needed_bytes)
    assert lacking.peak_bytes == lacking.needed_bytes < lacking.high_bytes


def test_what_a_rank_may_use(sample):
    capped = slides_trial("blocks", sample, device="cuda", memory_limit_gib=4)
    assert available_bytes(capped, None) == 4 * GIB
    assert available_bytes(capped, 40 * GIB) == 4 * GIB
    assert available_bytes(capped, 2 * GIB) == 2 * GIB - CONTEXT_BYTES
    assert available_bytes(slides_trial("blocks", sample), None) is None


FRONTIER = {
    "15,10,10,10,10/160": (FITS,),
    "15,10,10,10,10/192": (TIGHT, NO_FIT),
    "15,10,10,10,10/256": (NO_FIT,),
    "15,10,10,10,10/512": (NO_FIT,),
    "12,12,12,12,12/128": (NO_FIT,),
    "15,15,15,15,15/128": (NO_FIT,),
}
"""the slides' ends on an A100 of 40 GB, by what was sampled (fanout/batch size)"""


@pytest.mark.parametrize("name", FRONTIER)
def test_the_slides_frontier(name):
    """PyG's layers on the synthetic graph of ogbn-products' size; nothing is fitted to it."""
    probed = json.loads((Path(__file__).parent / "slides_samples.json").read_text())
    graph = GraphFacts.from_json(probed["graph"])
    sample = Sample.from_json(probed["samples"][name])
    trial = slides_trial("reference", sample, device="cuda", sampling_workers=8)
    micro_batches = graph.micro_batches(trial.batch_size) * trial.epochs
    cost = step_cost(trial, sample, graph, "host", micro_batches)
    card_bytes = card_of("A100-40GB").memory_bytes
    memory = card_memory(trial, cost, sample, graph, card_bytes)
    assert verdict(memory.out_of_memory_chance) in FRONTIER[name]
