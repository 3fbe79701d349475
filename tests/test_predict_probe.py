"""The probe: what it says of a store is what training samples of it, and nothing is taken twice."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sagebench.engines.make import make_engine
from sagebench.errors import UserError
from sagebench.predict import counting
from sagebench.predict.interpolation import LARGEST_RATIO, anchors, interpolate
from sagebench.predict.probe import load_probe, path_of, probe_store
from sagebench.predict.samples import Sample, sample_name
from sagebench.sampling.order import SeedOrder
from trials import make_trial, tiny_store


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tiny_store(tmp_path_factory.mktemp("store"), hub=300)


def means(spreads):
    return [spread.mean for spread in spreads]


def layers_of_neighbors(store, seeds, hops):
    """New nodes of each hop and edges of each hop, every neighbor taken; by sets."""
    known, frontier = set(seeds.tolist()), set(seeds.tolist())
    nodes, edges = [len(known)], []
    for _ in range(hops):
        found = [u for v in frontier for u in store.row[store.colptr[v] : store.colptr[v + 1]]]
        frontier = {int(u) for u in found} - known
        known |= frontier
        nodes.append(len(frontier))
        edges.append(len(found))
    return nodes, edges


@pytest.mark.parametrize("batch_size", [70, 200, 400])
def test_counts_are_those_of_a_breadth_first_search(store, tmp_path, batch_size):
    """389 training nodes: five batches of 70 and one of 39, one of 200 and one of 189, one."""
    probe = probe_store(store, [((-1, -1), batch_size)], tmp_path / "probe.json")
    sample = probe.samples[sample_name((-1, -1), batch_size)]
    order = SeedOrder(store.train, batch_size, 1, 1, seed=0)
    batches = [layers_of_neighbors(store, b.seeds, 2) for b in order.micro_batches(1, 0)]
    nodes, edges = (np.array(column, float) for column in zip(*batches, strict=True))
    assert means(sample.nodes_per_hop) == pytest.approx(nodes.mean(0).tolist())
    assert means(sample.edges_per_hop) == pytest.approx(edges.mean(0).tolist())
    assert sample.nodes.mean == pytest.approx(nodes.sum(1).mean())
    assert sample.edges.mean == pytest.approx(edges.sum(1).mean())
    full = nodes[:-1] if len(nodes) > 1 else nodes
    assert [s.full_mean for s in sample.nodes_per_hop] == pytest.approx(full.mean(0).tolist())
    if len(full) > 1:
        assert sample.edges.std == pytest.approx(edges[:-1].sum(1).std(ddof=1))


@pytest.mark.parametrize("engine", ["blocks", "reference"])
def test_says_what_training_then_samples(store, tmp_path, engine):
    """In the first epoch of seed 0; `blocks` does not number the last hop's nodes."""
    trial = make_trial(engine=engine, batch_size=70, fanout=[4, 3, 0], sampling_workers=0)
    batches = list(
        make_engine(trial, store, torch.device("cpu")).stream(
            SeedOrder(store.train, trial.batch_size, 1, 1, trial.seed).micro_batches(1, 0)
        )
    )
    probe = probe_store(store, [(trial.fanout, trial.batch_size)], tmp_path / "probe.json")
    sample = probe.sample_of(trial)
    nodes, edges = (
        np.mean([getattr(batch, name) for batch in batches], 0).tolist()
        for name in ("nodes_per_hop", "edges_per_hop")
    )
    assert means(sample.nodes_per_hop)[: 3 if engine == "blocks" else 4] == pytest.approx(
        nodes[: 3 if engine == "blocks" else 4]
    )
    assert means(sample.edges_per_hop) == pytest.approx(edges)
    assert probe.graph.micro_batches(trial.batch_size) == len(batches)


def test_the_sample_is_large_enough_for_its_means(store, tmp_path):
    """Other epochs, other keys: within the bounds that predictions are held to."""
    request = (4, 3, 2), 16
    sample = probe_store(store, [request], tmp_path / "probe.json").samples["4,3,2/16"]
    assert sample.batches > counting.FEWEST_BATCHES
    counter = counting.Counter(store, threads=1)
    found = [
        counter.count(request[0], batch.seeds, batch.index + 1000)
        for epoch in range(2, 12)
        for batch in SeedOrder(store.train, 16, 1, 1, seed=3).micro_batches(epoch, 0)
    ]
    truth = np.mean(found, 0)
    said = means(sample.nodes_per_hop) + means(sample.edges_per_hop)
    errors = np.abs(np.array(said) / truth - 1)
    assert np.median(errors) < 0.03
    assert errors.max() < 0.1


@pytest.fixture
def taken(monkeypatch):
    """The samples that were really taken."""
    found = []
    take = counting.Counter.take

    def spy(self, fanout, batch_size):
        found.append((fanout, batch_size))
        return take(self, fanout, batch_size)

    monkeypatch.setattr(counting.Counter, "take", spy)
    return found


def test_nothing_is_taken_twice(store, tmp_path, taken):
    path = path_of(tmp_path, "tiny-1")
    assert path == tmp_path / "probes" / "tiny-1.json"
    assert load_probe(path) is None
    first = probe_store(store, [((4, 3), 16), ((2, 2), 16)], path)
    assert sorted(taken) == [((2, 2), 16), ((4, 3), 16)]
    before = path.read_bytes()
    again = probe_store(store, [((4, 3), 16)], path)
    assert (len(taken), path.read_bytes(), again) == (2, before, first)
    more = probe_store(store, [((4, 3), 16), ((5,), 8)], path)
    assert taken[2:] == [((5,), 8)]
    assert first.samples.items() < more.samples.items()
    assert load_probe(path) == more


def test_threads_do_not_change_a_sample(store, tmp_path):
    requests = [((4, 3), 16), ((4, 3), 64)]
    one = probe_store(store, requests, tmp_path / "one.json", threads=1)
    assert one == probe_store(store, requests, tmp_path / "three.json", threads=3)


def test_another_graph_starts_anew(store, tmp_path, taken):
    path = tmp_path / "probe.json"
    probe_store(store, [((4, 3), 16)], path)
    other = tiny_store(tmp_path / "other", nodes=900)
    probe = probe_store(other, [((2,), 8)], path)
    assert list(probe.samples) == ["2/8"]
    assert (probe.store_checksum, probe.graph.num_nodes) == (other.checksum, 900)


@pytest.mark.parametrize("content", ["", '{"format": 1, "store_ch', '{"format": 99}', "[]", "{}"])
def test_a_torn_record_is_told_of_and_made_again(store, tmp_path, content):
    path = tmp_path / "probe.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"probe\.json is no probe .* delete it, `snakemake probe`"):
        load_probe(path)
    assert list(probe_store(store, [((2,), 8)], path).samples) == ["2/8"]
    assert json.loads(path.read_text())["format"] == 1


def test_what_an_interrupted_probe_took_is_kept(store, tmp_path, monkeypatch):
    path, take = tmp_path / "probe.json", counting.Counter.take

    def interrupted(self, fanout, batch_size):
        if fanout == (4, 3):
            raise KeyboardInterrupt
        return take(self, fanout, batch_size)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(counting.Counter, "take", interrupted)
        probe_store(store, [((2,), 8), ((4, 3), 16)], path)
    assert list(load_probe(path).samples) == ["2/8"]


def test_batch_sizes_between_others_are_interpolated(store, tmp_path, taken):
    sizes = [8, 12, 16, 24, 32, 40, 64, 100, 128]
    path = tmp_path / "probe.json"
    probe = probe_store(store, [((4, 3, 2), size) for size in sizes], path)
    assert [size for _, size in taken] == [8, 16, 32, 64, 128]
    counter = counting.Counter(store, threads=1)
    errors = []
    for size in (12, 24, 40, 100):
        said, truth = probe.samples[f"4,3,2/{size}"], counter.take((4, 3, 2), size)
        assert (said.sampled, said.batches, truth.sampled) == (False, 0, True)
        errors += [
            abs(a.mean / b.mean - 1)
            for a, b in zip(
                (*said.nodes_per_hop[1:], *said.edges_per_hop, said.nodes, said.edges),
                (*truth.nodes_per_hop[1:], *truth.edges_per_hop, truth.nodes, truth.edges),
                strict=True,
            )
        ]
        assert said.nodes_per_hop[0].full_mean == pytest.approx(size, rel=1e-6)
    assert np.median(errors) < 0.02
    assert max(errors) < 0.06


sizes = st.sets(st.integers(1, 4096), min_size=1, max_size=12)


@given(sizes, st.sets(st.integers(1, 4096), max_size=4))
def test_every_size_is_taken_or_lies_closely_between_two_that_are(wanted, known):
    chosen = set(anchors(wanted, known))
    assert chosen <= wanted - known
    there = chosen | known
    for size in wanted - there:
        below = max(s for s in there if s < size)
        above = min(s for s in there if s > size)
        assert above <= LARGEST_RATIO * below


@given(st.floats(0.2, 1.0), st.floats(10.0, 1e6), st.integers(33, 63))
def test_a_power_law_is_interpolated_as_what_it_is(exponent, factor, size):
    def at(batch_size):
        counts = [(batch_size, round(factor * batch_size**exponent), round(factor * batch_size))]
        return counting.make_sample((3,), batch_size, counts, None, whole=1)

    sample = interpolate([at(16), at(32), at(64), at(128)], size, train_nodes=size)
    assert sample.nodes_per_hop[1].mean == pytest.approx(factor * size**exponent, rel=0.02, abs=1)
    assert sample.edges.mean == pytest.approx(factor * size, rel=0.02, abs=1)


@pytest.mark.parametrize(("size", "train_nodes"), [(1448, 2900), (724, 725)])
def test_the_last_micro_batch_may_be_smaller_than_all_that_were_sampled(size, train_nodes):
    """A hop that fills the graph, and one that finds the less new nodes the more seeds there are:
    neither curve is to be followed far below the sizes that were taken."""

    def nodes(batch_size):
        return 2e6 * (1 - np.exp(-batch_size / 700))

    def leftover(batch_size):
        return 1e6 * batch_size / (100 + batch_size**1.3 / 100**0.3)

    def at(batch_size):
        found = round(nodes(batch_size)), round(leftover(batch_size))
        counts = [(batch_size, *found, 15 * batch_size, 5 * found[0])]
        return counting.make_sample((15, 5), batch_size, counts, None, whole=1)

    sample = interpolate([at(512), at(1024), at(2048)], size, train_nodes)
    whole, rest = divmod(train_nodes, size)
    for spread, count in zip(sample.nodes_per_hop, (float, nodes, leftover), strict=True):
        mean = (whole * count(size) + count(rest)) / (whole + 1)
        assert spread.mean == pytest.approx(mean, rel=0.05)


def test_a_record_with_the_largest_counts_of_earlier_versions_is_read(store, tmp_path):
    path = tmp_path / "probe.json"
    probe = probe_store(store, [((4, 3), 16)], path)
    record = json.loads(path.read_text())
    for sample in record["samples"].values():
        for name in ("nodes", "edges"):
            sample[name]["max"] = 1.0
            sample[f"{name}_per_hop"]["max"] = [1.0] * len(sample[f"{name}_per_hop"]["mean"])
    path.write_text(json.dumps(record))
    assert load_probe(path) == probe


def test_a_sample_survives_its_record(store, tmp_path):
    sample = probe_store(store, [((4, -1), 16)], tmp_path / "probe.json").samples["4,-1/16"]
    record = json.loads(json.dumps(sample.to_json()))
    assert Sample.from_json("4,-1/16", record) == sample
    assert set(record) == {"batches", "sampled", "nodes_per_hop", "edges_per_hop", "nodes", "edges"}
    assert len(record["nodes_per_hop"]["mean"]) == 3
