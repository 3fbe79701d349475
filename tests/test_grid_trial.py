"""What makes two trials the same, and that ids stay what they were."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sagebench.grid.trial import INTRODUCTION_DEFAULTS, Trial, canonical_json, store_name

PLAIN = {
    **INTRODUCTION_DEFAULTS,
    "dataset": {"name": "pubmed", "source": "pubmed", "split": "large"},
    "machine": "workstation",
}


def trial(**values):
    return Trial.from_json({**PLAIN, **values})


# Results are kept under these names. If this test fails, what was measured is lost from sight:
# change the code, not the ids.
GOLDEN = [
    (
        {},
        "pubmed-blocks-b128x5-f15.10.10.10.10-r1-s0-89dcbdd66d",
    ),
    (
        {"batch_size": 64, "accumulation": 1, "seed": 3},
        "pubmed-blocks-b64x1-f15.10.10.10.10-r1-s3-4e4297943c",
    ),
    (
        {
            "dataset": {"name": "products", "source": "ogb", "ogb_name": "ogbn-products"},
            "engine": "reference",
            "fanout": [50, 0, 0, 0, 0],
            "ranks": 8,
            "device": "cpu",
            "patience_evaluations": None,
        },
        "products-reference-b128x5-f50.0.0.0.0-r8-s0-3f49c507f2",
    ),
    (
        {"layers": 2, "fanout": [-1, 5], "learning_rate": 0.003, "memory_limit_gib": 1.5},
        "pubmed-blocks-b128x5-fall.5-r1-s0-22199d1154",
    ),
    (
        {"dataset": {"name": "s", "source": "synthetic", "scale": 0.01, "seed": 1}},
        "s-blocks-b128x5-f15.10.10.10.10-r1-s0-f92e7a74b9",
    ),
]


@pytest.mark.parametrize(("values", "trial_id"), GOLDEN)
def test_golden_ids(values, trial_id):
    assert trial(**values).id == trial_id


def test_golden_store_names():
    assert store_name(PLAIN["dataset"]) == "pubmed-f593379d"


def test_the_introduction_defaults_have_not_been_edited():
    """Entries may be added; one that changes or goes would change ids that exist."""
    first = {
        "engine": "blocks", "sampler": "sagebench", "layers": 5, "hidden_channels": 256,
        "dropout": 0.5, "aggregator": "mean", "batch_size": 128, "accumulation": 5,
        "fanout": (15, 10, 10, 10, 10), "ranks": 1, "threads_per_rank": 1, "sampling_workers": 1,
        "epochs": 10, "optimizer": "adam", "learning_rate": 0.001,
        "learning_rate_scaling": "linear", "evaluate_every_epochs": 5,
        "patience_evaluations": 10, "validation": "full", "phase_window_steps": 10, "seed": 0,
        "precision": "fp32", "device": "cuda", "memory_limit_gib": None,
    }  # fmt: skip
    assert {key: INTRODUCTION_DEFAULTS[key] for key in first} == first


def test_every_value_decides():
    others = {
        "engine": "reference", "sampler": "pyg_lib", "layers": 4, "hidden_channels": 128,
        "method": "vote", "dropout": 0.1, "aggregator": "max", "model": "gat",
        "options": {"heads": 2}, "batch_size": 64, "accumulation": 1,
        "fanout": (15, 10, 10, 10, 0), "ranks": 2, "threads_per_rank": 2, "sampling_workers": 0,
        "epochs": 11, "optimizer": "sgd", "learning_rate": 0.01, "learning_rate_scaling": "none",
        "evaluate_every_epochs": 1, "patience_evaluations": None, "validation": "sampled",
        "phase_window_steps": 0, "seed": 1, "precision": "bf16", "device": "cpu",
        "memory_limit_gib": 1.0, "placement": "host", "compile": True, "machine": "other",
        "kernels": "plain", "sampled_test_nodes": 100, "profile_steps": 3, "weight_decay": 0.1,
        "dataset": {"name": "x", "source": "pubmed"},
    }  # fmt: skip
    assert set(others) == set(PLAIN)
    ids = {trial(**{key: value}).id for key, value in others.items()} | {trial().id}
    assert len(ids) == len(others) + 1


def test_one_and_one_point_zero_are_the_same():
    assert trial(memory_limit_gib=4).id == trial(memory_limit_gib=4.0).id
    assert trial(dropout=0).id == trial(dropout=0.0).id


def test_where_an_archive_lies_does_not_decide():
    spec = {"name": "p", "source": "ogb", "ogb_name": "ogbn-products"}
    moved = {**spec, "archive": "/elsewhere/products.zip", "sha256": None}
    assert trial(dataset=spec).id == trial(dataset=moved).id
    assert store_name(spec) == store_name(moved)


def test_a_trial_survives_its_file():
    one = trial(fanout=[1, 2, 3, 4, 0], memory_limit_gib=0.1)
    assert Trial.from_json(json.loads(json.dumps(one.to_json()))) == one


def test_a_file_older_than_a_field_has_the_value_from_before_it():
    values = trial().to_json()
    del values["precision"]
    assert Trial.from_json(values) == trial()


@pytest.mark.parametrize("change", [{"gpus": 1}, {"machine": None}])
def test_a_file_that_is_no_trial_is_refused(change):
    values = {**PLAIN, **change}
    if values["machine"] is None:
        del values["machine"]
    with pytest.raises(ValueError, match=r"not a trial: .*(gpus|machine)"):
        Trial.from_json(values)


def test_an_id_is_a_plain_and_short_name():
    long = trial(dataset={"name": "d" * 60, "source": "pubmed"}, layers=16, fanout=[-1] * 16)
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,100}", long.id)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(JSON)
def test_canonical_json_is_a_fixed_point(value):
    text = canonical_json(value)
    assert canonical_json(json.loads(text)) == text


@given(st.dictionaries(st.text(), JSON, max_size=6), st.randoms())
def test_canonical_json_knows_no_order_of_keys(value, random):
    items = list(value.items())
    random.shuffle(items)
    assert canonical_json(dict(items)) == canonical_json(value)


@given(st.integers(min_value=-(2**53), max_value=2**53))
def test_canonical_json_writes_a_whole_float_as_an_int(value):
    assert canonical_json([float(value)]) == canonical_json([value])


@given(JSON, JSON)
def test_canonical_json_tells_values_apart(one, other):
    if canonical_json(one) == canonical_json(other):
        assert one == other


def test_canonical_json_refuses_what_is_no_json():
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"a": float("nan")})
