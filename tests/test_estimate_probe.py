"""The probe: what it says of a store is what training samples of it, and nothing is taken twice."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from sagebench.engines.base import make_engine
from sagebench.errors import UserError
from sagebench.estimate import probing
from sagebench.estimate.probe import load_probe, path_of
from sagebench.estimate.probing import probe_store
from sagebench.sampling.order import SeedOrder
from sagebench.sampling.uniform import Sampler
from trials import make_trial, tiny_store


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tiny_store(tmp_path_factory.mktemp("store"), hub=300)


def of(fanout, batch_size, **values):
    """A trial that asks for such samples."""
    return make_trial(fanout=fanout, layers=len(fanout), batch_size=batch_size, **values)


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
    probe = probe_store(store, [of((-1, -1), batch_size)], tmp_path / "probe.json")
    sample = probe.samples[f"-1,-1/{batch_size}"]
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
    probe = probe_store(store, [trial], tmp_path / "probe.json")
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
    sample = probe_store(store, [of((4, 3, 2), 16)], tmp_path / "probe.json").samples["4,3,2/16"]
    assert sample.batches > probing.FEWEST_BATCHES
    sampler = Sampler(store.colptr, store.row)
    found = [
        probing.count(sampler, (4, 3, 2), batch.seeds, batch.index + 1000)
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
    take = probing.take_sample

    def spy(sampler, train_nodes, fanout, batch_size):
        found.append((fanout, batch_size))
        return take(sampler, train_nodes, fanout, batch_size)

    monkeypatch.setattr(probing, "take_sample", spy)
    return found


def test_nothing_is_taken_twice(store, tmp_path, taken):
    path = path_of(tmp_path, "tiny-1")
    assert path == tmp_path / "probes" / "tiny-1.json"
    assert load_probe(path) is None
    first = probe_store(store, [of((4, 3), 16), of((2, 2), 16)], path)
    assert sorted(taken) == [((2, 2), 16), ((4, 3), 16)]
    before = path.read_bytes()
    again = probe_store(store, [of((4, 3), 16)], path)
    assert (len(taken), path.read_bytes(), again) == (2, before, first)
    more = probe_store(store, [of((4, 3), 16), of((5,), 8)], path)
    assert taken[2:] == [((5,), 8)]
    assert first.samples.items() < more.samples.items()
    assert load_probe(path) == more


def test_threads_do_not_change_a_sample(store, tmp_path):
    requests = [of((4, 3), 16), of((4, 3), 64)]
    one = probe_store(store, requests, tmp_path / "one.json", threads=1)
    assert one == probe_store(store, requests, tmp_path / "three.json", threads=3)


def test_another_graph_starts_anew(store, tmp_path, taken):
    path = tmp_path / "probe.json"
    probe_store(store, [of((4, 3), 16)], path)
    other = tiny_store(tmp_path / "other", nodes=900)
    probe = probe_store(other, [of((2,), 8)], path)
    assert list(probe.samples) == ["2/8"]
    assert (probe.store_checksum, probe.graph.num_nodes) == (other.checksum, 900)


@pytest.mark.parametrize("content", ["", '{"format": 1, "store_ch', '{"format": 99}', "[]", "{}"])
def test_a_torn_record_is_told_of_and_made_again(store, tmp_path, content):
    path = tmp_path / "probe.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"probe\.json is no probe .* `make probe` writes it again"):
        load_probe(path)
    assert list(probe_store(store, [of((2,), 8)], path).samples) == ["2/8"]
    assert json.loads(path.read_text())["format"] == 2


def test_what_an_interrupted_probe_took_is_kept(store, tmp_path, monkeypatch):
    path, take = tmp_path / "probe.json", probing.take_sample

    def interrupted(sampler, train_nodes, fanout, batch_size):
        if fanout == (4, 3):
            raise KeyboardInterrupt
        return take(sampler, train_nodes, fanout, batch_size)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(probing, "take_sample", interrupted)
        probe_store(store, [of((2,), 8), of((4, 3), 16)], path)
    assert list(load_probe(path).samples) == ["2/8"]


def test_a_step_is_recorded_once_for_all_trials_that_share_it(store, tmp_path, monkeypatch):
    recorded = []
    record = probing.step_cost

    def spy(trial, *arguments):
        recorded.append((trial.engine, arguments[2]))
        return record(trial, *arguments)

    monkeypatch.setattr(probing, "step_cost", spy)
    path = tmp_path / "probe.json"
    of_cuda = partial(of, (4, 3), 16, device="cuda")
    same = [of_cuda(seed=seed, ranks=ranks) for seed in (0, 1) for ranks in (1, 2)]
    probe_store(store, [*same, of_cuda(engine="reference")], path)
    assert recorded == [("blocks", "device"), ("blocks", "host"), ("reference", "host")]
    probe_store(store, [*same, of_cuda(epochs=1)], path)
    assert len(recorded) == 3
    probe = probe_store(store, [of_cuda(epochs=100_000)], path)  # has larger micro-batches
    assert recorded[3:] == [("blocks", "device"), ("blocks", "host")]
    trial = of_cuda()
    assert probe.cost_of(trial, None).placement == "device"
    assert probe.cost_of(trial, 1 << 20).placement == "host"
    assert probe.cost_of(of_cuda(hidden_channels=7), None) is None
