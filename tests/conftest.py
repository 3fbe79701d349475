"""What all tests share."""

import os

import pytest

# As the launcher does: test processes share two cores, and spinning threads would starve them.
os.environ["OMP_WAIT_POLICY"] = "passive"


def pytest_collection_modifyitems(items):
    """Tests for a GPU are skipped without one, and the summary (-rs) names them."""
    import torch

    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("cuda"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device, and there is none here"))
