"""Attention over CSR edges: its gradient, and rows without edges."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sagebench.models.gat import attend

HEADS, CHANNELS = 2, 3


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.integers(0, 3), st.integers(0, 99))
def test_gradients_are_those_of_finite_differences(degrees, more_sources, seed):
    torch.manual_seed(seed)
    rows = len(degrees)
    rowptr = torch.tensor([0, *degrees]).cumsum(0)
    col = torch.randint(rows + more_sources, (int(rowptr[-1]),))
    z = torch.randn(rows + more_sources, HEADS * (CHANNELS + 2), dtype=torch.float64)
    z.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: attend(z, rowptr, col, HEADS), [z])


def test_a_row_without_edges_is_itself():
    z = torch.randn(4, HEADS * (CHANNELS + 2))
    out = attend(z, torch.tensor([0, 0, 2]), torch.tensor([2, 3]), HEADS)
    torch.testing.assert_close(out[0], z[0, : HEADS * CHANNELS])


def test_the_destinations_own_rows_may_come_apart():
    z = torch.randn(5, HEADS * (CHANNELS + 2))
    rowptr, col = torch.tensor([0, 2, 4]), torch.tensor([2, 3, 3, 4])
    torch.testing.assert_close(
        attend(z, rowptr, col, HEADS, own=z[:2].clone()), attend(z, rowptr, col, HEADS)
    )
