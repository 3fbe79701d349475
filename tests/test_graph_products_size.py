"""The synthetic graph at full size has ogbn-products' published figures."""

import json
import resource
import shutil
import subprocess
import sys

import build_graph
import describe_graph
import pytest

GIB = 2**30


@pytest.mark.slow  # one or two minutes of one core, 3.4 GB of memory and 1.6 GB of disk
def test_products_size(tmp_path):
    spec = {"name": "products", "source": "synthetic", "scale": 1}
    out, figures, deep = (tmp_path / name for name in ("products", "figures.json", "deep.json"))
    slides = ["--fanout", "15", "10", "10", "10", "10", "--batch-size", "128", "--batches", "2"]
    try:
        for command in (
            [build_graph.__file__, "--spec", json.dumps(spec), "--out", out],
            [describe_graph.__file__, "--store", out, "--json", figures],
            [describe_graph.__file__, "--store", out, "--json", deep, *slides],
        ):
            subprocess.run([sys.executable, *command], check=True)
    finally:
        shutil.rmtree(out, ignore_errors=True)
    found, sampled = json.loads(figures.read_text()), json.loads(deep.read_text())
    assert found["nodes"] == 2_449_029
    assert found["directed_edges"] == pytest.approx(123_718_024, rel=0.01)
    assert found["degree_mean"] == pytest.approx(50.5, rel=0.01)
    assert found["degree_median"] == 26
    assert found["degree_maximum"] == pytest.approx(17_500, rel=0.02)
    assert (found["features"], found["classes"]) == (100, 47)
    assert found["homophily"] == pytest.approx(0.81, abs=0.01)
    sizes = (found["train_nodes"], found["valid_nodes"], found["test_nodes"])
    assert sizes == (196_615, 39_323, 2_213_091)
    assert found["distinct_input_nodes"] == pytest.approx(517_522, rel=0.1)
    # What is said of the slides' own fanout on the real graph.
    assert 1.2e6 < sampled["distinct_input_nodes"] < 1.4e6
    assert 5e6 < sampled["sampled_edges"] < 6e6
    peak_kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert peak_kib * 1024 < 8 * GIB
