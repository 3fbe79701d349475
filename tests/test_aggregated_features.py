"""The table of aggregated features: what its rows are, and which table is read."""

from pathlib import Path

import numpy as np
import pytest
from sagebench.engines import aggregated_features
from sagebench.engines.aggregated_features import build_table, open_table, pieces_of
from sagebench.errors import UserError
from sagebench.grid.last_hop import table_manifest
from trials import tiny_store

ROWS = {"mean": np.mean, "sum": np.sum, "max": np.max}


@pytest.fixture
def store(tmp_path):
    return tiny_store(tmp_path / "tiny", nodes=300, train=60, hub=120)


def make(store, aggregator):
    return list(build_table(store, aggregator))


@pytest.mark.parametrize("aggregator", ROWS)
def test_a_row_is_of_every_neighbor(store, aggregator, monkeypatch):
    monkeypatch.setattr(aggregated_features, "EDGES_AT_A_TIME", 50)
    shares = make(store, aggregator)
    assert len(shares) > 10 and shares == sorted(shares) and shares[-1] == 1
    table = open_table(store, aggregator)
    assert table.dtype == np.float32
    for node in range(store.num_nodes):
        neighbors = store.row[store.colptr[node] : store.colptr[node + 1]]
        of_neighbors = store.features[neighbors].astype(np.float64)
        expected = ROWS[aggregator](of_neighbors, axis=0) if len(neighbors) else 0
        np.testing.assert_allclose(table[node], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("edges", [1, 7, 1000])
def test_pieces_are_all_rows_in_order(edges):
    colptr = np.array([0, 0, 3, 3, 3, 20, 21, 21], np.int64)
    pieces = list(pieces_of(colptr, edges))
    assert [row for first, last in pieces for row in range(first, last)] == list(range(7))
    for first, last in pieces:
        assert last == first + 1 or colptr[last] - colptr[first] <= edges


def test_the_store_stays_as_it_is(store):
    before = sorted(path.name for path in store.path.iterdir())
    make(store, "mean")
    assert sorted(path.name for path in store.path.iterdir()) == before


def test_no_table_is_one_sentence(store):
    with pytest.raises(
        UserError,
        match=r"is not there: make it with python workflow_scripts/build_table\.py --store .*",
    ):
        open_table(store, "mean")


def test_a_table_of_another_graph_is_not_read(store, tmp_path):
    make(store, "mean")
    other = tiny_store(tmp_path / "other", nodes=310, train=60)
    manifest = Path(table_manifest(str(other.path), "mean"))
    Path(table_manifest(str(store.path), "mean")).parent.rename(manifest.parent)
    with pytest.raises(UserError, match="was made of another graph"):
        open_table(other, "mean")


def test_an_interrupted_build_leaves_no_table(store, monkeypatch):
    monkeypatch.setattr(aggregated_features, "EDGES_AT_A_TIME", 50)
    build = build_table(store, "mean")
    next(build)
    build.close()
    with pytest.raises(UserError, match="is not there"):
        open_table(store, "mean")
    make(store, "mean")
    assert len(open_table(store, "mean")) == store.num_nodes
