"""The synthetic graph at full size has ogbn-products' published figures."""

import json
import resource
import shutil
import subprocess
import sys
from itertools import islice
from statistics import mean

import build_graph
import describe_graph
import pytest
from sagebench.graph.store import GraphStore
from sagebench.sampling.order import SeedOrder, sample_key
from sagebench.sampling.uniform import Sampler

GIB = 2**30


def sampled(store, fanout, batch_size, batches):
    """Nodes and edges of a batch, mean over the first of a trial's first epoch."""
    sampler = Sampler(store.colptr, store.row)
    order = SeedOrder(store.train, batch_size, 1, 1, 0)
    blocks = [
        sampler.sample(batch.seeds, fanout, sample_key(0, 1, batch.index))
        for batch in islice(order.micro_batches(1, 0), batches)
    ]
    counted = [(sum(one.nodes_per_hop), sum(one.edges_per_hop)) for one in blocks]
    return [mean(figures) for figures in zip(*counted, strict=True)]


@pytest.mark.slow  # one or two minutes of one core, 3.4 GB of memory and 1.6 GB of disk
def test_products_size(tmp_path):
    spec = {"name": "products", "source": "synthetic", "scale": 1}
    out, figures = (tmp_path / name for name in ("products", "figures.json"))
    try:
        for command in (
            [build_graph.__file__, "--spec", json.dumps(spec), "--out", out],
            [describe_graph.__file__, "--store", out, "--json", figures],
        ):
            subprocess.run([sys.executable, *command], check=True)
        store = GraphStore.open(out)
        nodes, _ = sampled(store, [10, 10, 10], 1024, 5)
        slides_nodes, slides_edges = sampled(store, [15, 10, 10, 10, 10], 128, 2)
    finally:
        shutil.rmtree(out, ignore_errors=True)
    found = json.loads(figures.read_text())
    assert found["nodes"] == 2_449_029
    assert found["directed_edges"] == pytest.approx(123_718_024, rel=0.01)
    assert found["degree_mean"] == pytest.approx(50.5, rel=0.01)
    assert found["degree_median"] == 26
    assert found["degree_maximum"] == pytest.approx(17_500, rel=0.02)
    assert (found["features"], found["classes"]) == (100, 47)
    assert found["homophily"] == pytest.approx(0.81, abs=0.01)
    sizes = (found["train_nodes"], found["valid_nodes"], found["test_nodes"])
    assert sizes == (196_615, 39_323, 2_213_091)
    assert nodes == pytest.approx(517_522, rel=0.1)
    # What is said of the slides' own fanout on the real graph.
    assert 1.2e6 < slides_nodes < 1.4e6
    assert 5e6 < slides_edges < 6e6
    peak_kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert peak_kib * 1024 < 8 * GIB
