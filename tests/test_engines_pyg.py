"""PyG's engines: what a sample is, and what loading takes."""

from __future__ import annotations

from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
from sagebench.engines.reference import Engine
from sagebench.sampling.order import MicroBatch
from trials import make_trial, tiny_store


@pytest.mark.parametrize("seeds", [8, 0])
def test_a_sample_is_what_loading_takes(tmp_path, seeds):
    """The annotations hold, also for a rank that the last step leaves without seed nodes."""
    returned = get_type_hints(Engine.sample)["return"]
    assert returned == get_type_hints(Engine.load)["sampled"]
    trial = make_trial(engine="reference")
    engine = Engine(trial, tiny_store(tmp_path / "tiny"), torch.device("cpu"))
    micro_batch = MicroBatch(1, 0, 0, np.arange(seeds), seeds, True)
    sampled = engine.sample(micro_batch)
    _, loader, _ = get_args(returned)
    assert isinstance(sampled[1], loader)
    assert len(engine.load(sampled).labels) == seeds
