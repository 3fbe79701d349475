"""Which outcomes are measured again on purpose."""

from __future__ import annotations

import json

import pytest
from again import matches, parse_where, set_aside
from configurations import GOOD, study_of
from sagebench.errors import UserError
from sagebench.grid.freeze import outcome_path


@pytest.fixture
def study(tmp_path):
    """Six outcomes of batch, three of them out of memory."""
    study = study_of({**GOOD, "results": str(tmp_path)})
    for number, trial_id in enumerate(study.experiments[0].trials):
        path = tmp_path / "trials" / trial_id / "outcome.json"
        path.parent.mkdir(parents=True)
        outcome = {
            "schema": 1,
            "trial": {},
            "trial_id": trial_id,
            "status": "out_of_memory" if number < 3 else "completed",
        }
        path.write_text(json.dumps(outcome))
    return study


@pytest.mark.parametrize(
    ("where", "count"),
    [
        ("status=out_of_memory", 3),
        ("status=completed, experiment=batch", 3),
        ("experiment=batch", 6),
        ("experiment=scaling", 0),
        ("trial=*-reference-*", 3),
        ("trial=*b64x4*,status=completed", 1),
        ("status=diverged", 0),
    ],
)
def test_conditions(study, where, count):
    assert len(list(matches(study, parse_where(where)))) == count


@pytest.mark.parametrize(
    ("where", "advice"),
    [
        ("", "write key=value"),
        ("completed", "write key=value"),
        ("status=", "write key=value"),
        ("stats=completed", "write status"),
        ("status=completed,status=diverged", "once a key"),
        ("experiment=btch", "write batch or scaling"),
        ("commit=1a2b", "write one of status, experiment, trial"),
    ],
)
def test_bad_conditions(study, where, advice):
    with pytest.raises(UserError, match=advice):
        list(matches(study, parse_where(where)))


def test_nothing_is_lost(study):
    (match, *_) = list(matches(study, parse_where("status=completed")))
    texts = []
    (match.path.parent / "superseded").mkdir()
    (match.path.parent / "superseded" / "1-mine.json").write_text("mine")
    for number in (1, 2):
        texts.append(f'{{"status": "completed", "number": {number}}}')
        match.path.write_text(texts[-1])
        assert set_aside(match).name == f"{number}.json"
        assert not match.path.exists()
    kept = sorted((match.path.parent / "superseded").glob("?.json"))
    assert [path.read_text() for path in kept] == texts


@pytest.mark.parametrize("where", ["status=damaged", "status=damaged,experiment=batch,trial=*b64*"])
def test_damaged_outcomes_alone_are_measured_again_by_their_status(study, where):
    (match, *others) = list(matches(study, parse_where("status=out_of_memory")))
    match.path.write_text("{")
    (damaged,) = list(matches(study, parse_where(where)))
    assert (damaged.trial, damaged.status) == (match.trial, "damaged")
    assert set_aside(damaged).read_text() == "{"
    assert list(matches(study, parse_where("status=out_of_memory"))) == others


def test_an_outcome_that_cannot_be_read_is_named(study):
    (match, *_) = list(matches(study, parse_where("status=completed")))
    match.path.write_text("{")
    with pytest.raises(UserError, match=r"outcome\.json is damaged .*: delete the outcome"):
        list(matches(study, parse_where("status=completed")))
    assert outcome_path(study.results, match.trial) == str(match.path)
