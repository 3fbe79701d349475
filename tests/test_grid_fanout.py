"""A fanout's spellings."""

import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sagebench.grid.trial import Fanout


@pytest.mark.parametrize(
    ("hops", "total"),
    [((15, 10, 10, 10, 0), 15000), ((50, 0, 0, 0, 0), 50), ((15, -1), None)],
)
def test_the_total_is_the_product_of_the_hops_that_take_any(hops, total):
    assert Fanout(hops).total == total


def test_every_neighbor_is_a_word_for_people_and_a_number_in_tables():
    fanout = Fanout((-1, 5, 0))
    assert (str(fanout), fanout.label, fanout.readable) == ("-1,5,0", "all·5·0", "all.5.0")


@given(st.lists(st.integers(-1, 10_000), min_size=1, max_size=8))
def test_a_fanout_is_its_text_and_an_ordinary_tuple(hops):
    fanout = Fanout(hops)
    assert Fanout.parse(str(fanout)) == fanout == tuple(hops)
    assert pickle.loads(pickle.dumps(fanout)) == fanout
    assert json.loads(json.dumps(fanout)) == hops
