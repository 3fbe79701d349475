"""What a report says of how trials ran: all alike, or mixed."""

from __future__ import annotations

import pytest
from outcome_factory import StudyFiles, make_outcome, make_trial
from sagebench.analysis import facts
from sagebench.analysis.outcomes import read_records, read_study
from sagebench.analysis.tables import build_tables, read_table, write_table


@pytest.fixture
def trials(tmp_path):
    """trials(...): the table of trials on a GPU, or on a CPU for None, by `expandable_segments`."""
    study = StudyFiles(tmp_path / "results")
    study.experiment("batch", "batch_size")

    def make(*ways):
        for seed, way in enumerate(ways):
            trial = make_trial(seed=seed, device="cpu" if way is None else "cuda", machine="m")
            study.add("batch", make_outcome(trial, expandable_segments=way))
        table, *_ = build_tables(read_records(read_study(study.freeze()), study.results, False))
        write_table(table, tmp_path, "trials")
        return read_table(tmp_path, "trials")

    return make


def about_memory(trials):
    return [sentence for sentence in facts.mixed(trials) if "segments" in sentence]


def test_runs_with_and_without_expandable_segments_are_mixed(trials):
    assert about_memory(trials(True, False, True)) == [
        "2 ways of taking a GPU's memory: expandable segments (2 trials), torch's own segments "
        "(1 trial)."
    ]


@pytest.mark.parametrize("ways", [(True, True), (False, False), (None, None), (None, True)])
def test_runs_that_take_memory_alike_are_not_mixed(trials, ways):
    assert about_memory(trials(*ways)) == []


@pytest.mark.parametrize(
    ("ways", "said"),
    [((True,), ["expandable segments"]), ((False,), ["torch's own segments"]), ((None,), None)],
)
def test_how_memory_was_taken_is_among_what_ran(trials, ways, said):
    assert dict(facts.what_ran(trials(*ways))).get("GPU memory") == said
