"""Which trials share a pilot, and what is to be measured yet; pilots written and read."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sagebench.grid.trial import FIELD_NAMES
from sagebench.pilot.records import (
    EVALUATION_PART,
    WINDOW_PART,
    Pilot,
    Work,
    evaluation_key,
    missing,
    pilot_key,
    pilots_folder,
    read_pilots,
    write_pilot,
)
from sagebench.records import Limit, PeakBytes, Reason, Status
from trials import make_trial

# Another value of every field, by whether a micro-step or an evaluation takes as long.
OTHER = {
    "dataset": {"name": "other", "source": "arrays", "path": "other.npz"},
    "model": "gin",
    "options": {"heads": 4},
    "engine": "reference",
    "sampler": "pyg_lib",
    "layers": 2,
    "hidden_channels": 17,
    "dropout": 0.5,
    "aggregator": "max",
    "batch_size": 17,
    "accumulation": 3,
    "fanout": (5, 3, 2),
    "ranks": 2,
    "threads_per_rank": 2,
    "sampling_workers": 0,
    "epochs": 7,
    "optimizer": "sgd",
    "learning_rate": 0.1,
    "learning_rate_scaling": "linear",
    "weight_decay": 0.1,
    "evaluate_every_epochs": 2,
    "patience_evaluations": 3,
    "validation": "sampled",
    "phase_window_steps": 3,
    "seed": 5,
    "precision": "bf16",
    "device": "cuda",
    "machine": "other",
    "memory_limit_gib": 1.0,
    "placement": "host",
    "compile": True,
    "kernels": "plain",
    "sampled_test_nodes": 10,
    "profile_steps": 1,
    "method": "vote",
}
SAME_STEP = {
    "ranks", "epochs", "learning_rate", "learning_rate_scaling", "evaluate_every_epochs",
    "patience_evaluations", "validation", "phase_window_steps", "seed", "sampled_test_nodes",
    "profile_steps", "weight_decay",
}  # fmt: skip
SAME_EVALUATION = SAME_STEP - {"validation", "sampled_test_nodes"} | {
    "dropout", "batch_size", "accumulation", "optimizer", "compile",
}  # fmt: skip


@pytest.mark.parametrize("name", FIELD_NAMES)
@pytest.mark.parametrize("key, same", [(pilot_key, SAME_STEP), (evaluation_key, SAME_EVALUATION)])
def test_trials_that_cost_the_same_share_a_key(name, key, same):
    trial = make_trial()
    other = replace(trial, **{name: OTHER[name]})
    assert other != trial
    assert (key(other, "checksum") == key(trial, "checksum")) == (name in same)


@given(st.sets(st.sampled_from(sorted(SAME_STEP))), st.integers(0, 2**31))
def test_a_key_is_a_file_name_that_no_neutral_value_changes(names, seed):
    trial = make_trial()
    other = replace(trial, **{**{name: OTHER[name] for name in names}, "seed": seed})
    assert pilot_key(other, "checksum") == pilot_key(trial, "checksum")
    assert re.fullmatch(r"tiny-blocks-b16x2-f4\.3\.2-[0-9a-f]{10}", pilot_key(other, "checksum"))


@pytest.mark.parametrize("key", [pilot_key, evaluation_key])
def test_a_key_is_of_the_data_and_not_of_where_it_lies(key):
    trial = make_trial()
    elsewhere = replace(trial, dataset={**trial.dataset, "archive": "/elsewhere.zip"})
    assert key(elsewhere, "checksum") == key(trial, "checksum")
    assert key(trial, "another checksum") != key(trial, "checksum")


def test_both_engines_of_pyg_evaluate_alike():
    keys = {evaluation_key(make_trial(engine=engine), "c") for engine in ("trimmed", "reference")}
    assert len(keys) == 1


def work(key: str, part: str, pilot: str) -> Work:
    return Work(key, part, make_trial(), "tiny", "checksum", pilot)


def record(key: str = "a", status: Status = Status.COMPLETED, **values):
    return Pilot(key=key, trial={}, status=status, store_checksum="checksum", **values)


WORKS = [
    *(work(key, WINDOW_PART, key) for key in "abc"),
    *(work(key, EVALUATION_PART, pilot) for key, pilot in ("ea", "eb", "fc")),
]


def works(*arguments) -> list[tuple]:
    return [(work.key, work.pilot) for work in missing(WORKS, *arguments)]


def test_steps_of_all_come_before_one_evaluation_of_those_alike():
    found = missing(WORKS, {})
    assert works({}) == [("a", "a"), ("b", "b"), ("c", "c"), ("e", "a"), ("f", "c")]
    assert [work.part for work in found] == [WINDOW_PART] * 3 + [EVALUATION_PART] * 2


def test_what_is_there_is_not_measured_again():
    assert works({key: record(key=key) for key in "abcef"}) == []
    assert works({key: record(key=key) for key in "ae"}) == [("b", "b"), ("c", "c"), ("f", "c")]
    assert works({key: record(key=key) for key in "abcf"}) == [("e", "a")]


def test_where_all_steps_are_out_of_memory_nothing_is_evaluated():
    pilots = {key: record(key=key, status=Status.OUT_OF_MEMORY) for key in "abc"}
    assert works(pilots) == []
    assert works({**pilots, "b": record(key="b")}) == [("e", "b")]


def test_what_failed_is_left_and_its_evaluation_goes_to_the_next():
    assert works({}, {"a"}) == [("b", "b"), ("c", "c"), ("e", "b"), ("f", "c")]


def test_pilots_read_as_they_were_written(tmp_path):
    folder = pilots_folder(tmp_path, "here")
    reason = Reason(0, "forward", "no memory", Limit("memory_limit", 0.5, "GiB"))
    written = [
        record(key="a", step_s=0.5, memory=PeakBytes(peak_reserved_bytes=7)),
        record(key="b", status=Status.OUT_OF_MEMORY, reason=reason),
    ]
    written.append(record(key="evaluation-0123456789", evaluation_s=1.0, test_s=2.0))
    for one in written:
        write_pilot(folder, one)
    assert read_pilots(tmp_path, "here") == {one.key: one for one in written}
    assert read_pilots(tmp_path, "elsewhere") == {}


@pytest.mark.parametrize(
    "change",
    [
        lambda values: json.dumps(values)[:-9],
        lambda values: "[]",
        lambda values: json.dumps({**values, "format": 0}),
        lambda values: json.dumps({**values, "key": "another"}),
        lambda values: json.dumps({**values, "status": "time_limit"}),
        lambda values: json.dumps({**values, "memory": 7}),
    ],
)
def test_a_damaged_pilot_is_left_out_with_a_sentence(tmp_path, change):
    folder, said = pilots_folder(tmp_path, "here"), []
    for key in ("a", "b"):
        write_pilot(folder, record(key=key))
    path = folder / "a.json"
    path.write_text(change(json.loads(path.read_text())))
    assert list(read_pilots(tmp_path, "here", said.append)) == ["b"]
    (sentence,) = said
    assert f"{path} is no pilot (" in sentence and "`make pilot` repeats it" in sentence
