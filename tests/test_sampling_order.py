"""Every training node once an epoch, the same number of steps on every rank."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sagebench.sampling.order import SeedOrder, sample_key

orders = st.builds(
    lambda n, batch, accumulation, ranks, seed: SeedOrder(
        np.arange(3, 3 + 2 * n, 2), batch, accumulation, ranks, seed
    ),
    st.integers(1, 300),
    st.integers(1, 40),
    st.integers(1, 4),
    st.integers(1, 9),
    st.integers(0, 5),
)


def epoch_of_all_ranks(order, epoch=1):
    return [list(order.micro_batches(epoch, rank)) for rank in range(order.ranks)]


@given(orders)
def test_every_training_node_is_a_seed_exactly_once(order):
    seeds = [batch.seeds for rank in epoch_of_all_ranks(order) for batch in rank]
    assert np.array_equal(np.sort(np.concatenate(seeds)), order.train_nodes)


@given(orders)
def test_ranks_take_equal_steps_and_batches(order):
    ranks = epoch_of_all_ranks(order)
    lengths = {len(rank) for rank in ranks}
    assert lengths == {order.steps_per_epoch * order.accumulation}
    for together in zip(*ranks, strict=True):
        assert len({batch.step for batch in together}) == 1
        assert len({batch.last_of_step for batch in together}) == 1


@given(orders)
def test_step_seeds_are_the_true_count_of_the_step(order):
    counted = np.zeros(order.steps_per_epoch, int)
    told = np.zeros(order.steps_per_epoch, int)
    for rank in epoch_of_all_ranks(order):
        for batch in rank:
            counted[batch.step] += len(batch.seeds)
            told[batch.step] = batch.step_seeds
    assert counted.tolist() == told.tolist()


@given(orders)
def test_ranks_see_what_one_rank_that_accumulates_sees(order):
    alone = SeedOrder(
        order.train_nodes, order.batch_size, order.accumulation * order.ranks, 1, order.seed
    )
    together = {
        batch.index: (batch.step, batch.seeds.tolist())
        for rank in epoch_of_all_ranks(order)
        for batch in rank
    }
    assert together == {
        batch.index: (batch.step, batch.seeds.tolist()) for batch in alone.micro_batches(1, 0)
    }


def test_epochs_and_seeds_shuffle_anew():
    nodes = np.arange(1000)
    order = SeedOrder(nodes, 10, 1, 1, seed=0)
    other = SeedOrder(nodes, 10, 1, 1, seed=1)
    permutations = [order.permutation(1), order.permutation(2), other.permutation(1)]
    for i in range(3):
        assert not np.array_equal(permutations[i], nodes)
        for j in range(i):
            assert np.mean(permutations[i] == permutations[j]) < 0.02
    assert np.array_equal(order.permutation(1), permutations[0])


def test_slides_study_has_equal_steps_on_eight_ranks():
    # 196,615 nodes cut per rank by ceiling give 193 steps on seven ranks and 192 on one.
    order = SeedOrder(np.arange(196_615), 128, 1, 8, seed=0)
    assert [len(list(order.micro_batches(1, rank))) for rank in range(8)] == [193] * 8


@pytest.mark.parametrize("other", [(1, 1, 3), (1, 2, 2), (2, 1, 2), (0, 1, 2)])
def test_sample_keys_differ(other):
    assert sample_key(1, 1, 2) != sample_key(*other)
