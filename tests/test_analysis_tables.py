import csv
import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from outcome_factory import GIB, StudyFiles, make_outcome, make_trial, trial_id
from sagebench.analysis.outcomes import read_records, read_study
from sagebench.analysis.tables import build_tables, read_table, write_table
from sagebench.errors import UserError

SCRIPTS = Path(__file__).parents[1] / "workflow_scripts"


@pytest.fixture
def study(tmp_path):
    files = StudyFiles(tmp_path / "results")
    files.experiment("batch", "batch_size")
    files.experiment("neighbor", "fanout")
    files.experiment("scaling", "ranks")
    return files


def write_outcome(study, outcome):
    path = study.results / "trials" / outcome["trial_id"] / "outcome.json"
    path.write_text(json.dumps(outcome))


def tables(study, partial=False):
    path = study.freeze()
    trials, epochs, *_ = build_tables(read_records(read_study(path), study.results, partial))
    return trials.to_pylist(), epochs.to_pylist()


def test_a_trial_row_holds_what_the_outcome_holds(study):
    outcome = make_outcome(
        make_trial(batch_size=64, epochs=4, fanout=[15, 10, 0, 0, 0]),
        epoch_s=12.5,
        peak_bytes=3 * GIB,
        accuracy=0.77,
        git_commit="b" * 40,
    )
    study.add("batch", outcome)
    (row,), epochs = tables(study)
    assert row["trial_id"] == outcome["trial_id"]
    assert (row["experiments"], row["axes"], row["status"]) == ("batch", "batch_size", "completed")
    assert (row["batch_size"], row["fanout"], row["total_fanout"]) == (64, "15,10,0,0,0", 150.0)
    assert row["effective_batch_size"] == 64 * 5
    assert (row["epoch_time_s"], row["first_epoch_s"]) == (12.5, 12.5 * 1.4)
    assert row["epoch_time_is_first"] is False
    assert (row["peak_memory_bytes"], row["memory_kind"]) == (3 * GIB, "peak_host_private_bytes")
    assert (row["test_accuracy_full"], row["validation_method"]) == (0.77, "full")
    assert row["phase_backward_s"] == 0.04
    assert row["git_commit"] == "b" * 40
    assert (row["version_torch"], row["version_pyg_lib"]) == ("2.13.0", None)
    assert [epoch["loss"] for epoch in epochs] == [e["loss"] for e in outcome["epochs"]]
    assert [epoch["epoch"] for epoch in epochs] == [1, 2, 3, 4]


def test_memory_of_a_gpu_is_what_is_reserved(study):
    study.add("batch", make_outcome(make_trial(device="cuda", machine="m"), peak_bytes=7 * GIB))
    (row,), _ = tables(study)
    assert (row["peak_memory_bytes"], row["memory_kind"]) == (7 * GIB, "peak_reserved_bytes")
    assert row["peak_host_private_bytes"] == 2 * GIB


def test_out_of_memory_is_a_row_with_rank_phase_and_limit(study):
    outcome = make_outcome(make_trial(memory_limit_gib=0.5), "out_of_memory")
    study.add("batch", outcome)
    (row,), epochs = tables(study)
    assert row["status"] == "out_of_memory"
    assert (row["reason_rank"], row["reason_phase"]) == (0, "backward")
    assert (row["limit_kind"], row["limit_value"], row["limit_unit"]) == (
        "memory_limit",
        0.5,
        "GiB",
    )
    assert row["epoch_time_s"] is None
    assert epochs == []


def test_one_epoch_leaves_the_first_one_s_time_and_says_so(study):
    study.add("batch", make_outcome(make_trial(epochs=1), epoch_s=10.0))
    (row,), _ = tables(study)
    assert (row["epoch_time_s"], row["epoch_time_is_first"]) == (14.0, True)
    assert row["epoch_median_s"] is None


def test_a_trial_of_two_experiments_is_one_row(study):
    study.add("batch")
    study.add("neighbor")
    (row,), _ = tables(study)
    assert (row["experiments"], row["axes"]) == ("batch;neighbor", "batch_size;fanout")


def test_speed_up_is_against_the_median_of_one_rank_and_leaves_oversubscribed_out(study):
    for seed, time in enumerate([10.0, 12.0, 11.0]):
        study.add("scaling", make_outcome(make_trial(seed=seed), epoch_s=time))
    study.add("scaling", make_outcome(make_trial(ranks=2), epoch_s=5.5))
    study.add("scaling", make_outcome(make_trial(ranks=4), epoch_s=4.0))
    trials, _ = tables(study)
    by_ranks = {row["ranks"]: row for row in trials}
    assert (by_ranks[2]["speed_up"], by_ranks[2]["efficiency"]) == (2.0, 1.0)
    assert by_ranks[4]["oversubscribed"] is True
    assert by_ranks[4]["speed_up"] is None
    assert trials[0]["speed_up"] == pytest.approx(1.1)


def test_unlike_engines_have_speed_ups_of_their_own(study):
    for engine, time in (("blocks", 10.0), ("reference", 100.0)):
        study.add("scaling", make_outcome(make_trial(engine=engine), epoch_s=time))
        study.add("scaling", make_outcome(make_trial(engine=engine, ranks=2), epoch_s=time / 2))
    trials, _ = tables(study)
    assert [row["speed_up"] for row in trials] == [1.0, 2.0, 1.0, 2.0]


def test_a_far_repeat_and_a_far_epoch_are_flagged_and_kept(study):
    for seed, time in enumerate([10.0, 10.1, 19.0]):
        outcome = make_outcome(make_trial(seed=seed, epochs=6), epoch_s=time)
        if seed == 0:
            outcome["epochs"][3]["time_s"] = 40.0
        study.add("batch", outcome)
    trials, epochs = tables(study)
    assert [row["epoch_time_outlier"] for row in trials] == [False, False, True]
    flagged = [(row["epoch"], row["time_s"]) for row in epochs if row["time_outlier"]]
    assert flagged == [(4, 40.0)]
    assert len(epochs) == 18


def test_two_stores_under_one_name_are_an_error(study):
    study.add("batch", make_outcome(make_trial(), checksum="1" * 64))
    study.add("batch", make_outcome(make_trial(seed=1), checksum="2" * 64))
    with pytest.raises(UserError, match=r"pubmed means two graph stores.*run the older"):
        tables(study)


def test_a_missing_outcome_is_an_error_unless_partial(study):
    study.add("batch")
    study.attempt(
        "batch",
        make_trial(seed=1),
        reason={"rank": 3, "phase": "forward", "message": "boom"},
    )
    study.ask("batch", make_trial(seed=2))
    with pytest.raises(UserError, match=r"2 of 3 trials of demo .*--partial"):
        tables(study)
    trials, _ = tables(study, partial=True)
    assert [row["status"] for row in trials] == ["completed", "failed", "not_finished"]
    assert trials[1]["missing_because"] == "attempt 1 failed, rank 3, forward: boom"
    assert trials[1]["log"].endswith("log.txt")
    assert trials[2]["missing_because"] == "no attempt has finished: not started, or still running"
    assert trials[2]["seed"] == 2


def test_the_last_attempt_counts_and_a_line_cut_short_does_not(study):
    trial = make_trial(seed=5)
    study.attempt("batch", trial, status="failed")
    file = study.ask("batch", trial) / "attempts.jsonl"
    file.write_text(
        file.read_text() + '{"attempt": 2, "status": "interrupted"}\n{"attempt": 3, "st'
    )
    (row,), _ = tables(study, partial=True)
    assert (row["status"], row["missing_because"]) == ("interrupted", "attempt 2 interrupted")


def test_an_outcome_that_was_deleted_is_told_from_a_failure(study):
    study.attempt("batch", make_trial(), status="completed")
    (row,), _ = tables(study, partial=True)
    assert row["status"] == "outcome_removed"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda o: json.dumps(o | {"schema": 99}), "schema 1"),
        (lambda o: json.dumps(o | {"trial_id": "other"}), "belongs to trial other"),
        (lambda o: json.dumps(o | {"status": "fine"}), "unknown status 'fine'"),
        (lambda o: json.dumps(o)[:80], "not a readable outcome"),
        (lambda o: "", "not a readable outcome"),
        (lambda o: "[]", "schema 1"),
    ],
)
def test_a_damaged_outcome_is_an_error_and_passed_over_in_a_partial_study(study, damage, message):
    outcome = study.add("batch")
    path = study.results / "trials" / outcome["trial_id"] / "outcome.json"
    path.write_text(damage(outcome))
    with pytest.raises(
        UserError, match=rf"outcome\.json is damaged .*{message}.*: delete the outc"
    ):
        tables(study)
    (row,), _ = tables(study, partial=True)
    assert row["status"] == "damaged"
    assert message in row["missing_because"]


def test_all_damaged_outcomes_are_named_at_once_before_what_is_missing(study):
    study.ask("batch", make_trial(seed=9))
    for seed in range(2):
        outcome = study.add("batch", make_outcome(make_trial(seed=seed)))
        (study.results / "trials" / outcome["trial_id"] / "outcome.json").write_text("{")
    with pytest.raises(UserError) as raised:
        tables(study)
    assert [line.split()[1:3] for line in str(raised.value).splitlines()] == [["is", "damaged"]] * 2


def test_csv_and_parquet_hold_the_same(study, tmp_path):
    study.add("batch")
    study.add("batch", make_outcome(make_trial(seed=1), "out_of_memory"))
    trials, epochs, *_ = build_tables(
        read_records(read_study(study.freeze()), study.results, False)
    )
    for name, table in (("trials", trials), ("epochs", epochs)):
        write_table(table, tmp_path, name)
        with (tmp_path / f"{name}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        parquet = pq.read_table(tmp_path / f"{name}.parquet")
        assert parquet.schema.names == list(rows[0])
        told = [
            {k: "" if v is None else str(v) for k, v in row.items()} for row in parquet.to_pylist()
        ]
        assert told == rows


def test_empty_tables_keep_their_columns_and_types(study, tmp_path):
    study.ask("batch", make_trial())
    trials, epochs, *_ = build_tables(read_records(read_study(study.freeze()), study.results, True))
    write_table(epochs, tmp_path, "epochs")
    assert str(trials.schema.field("epoch_time_s").type) == "double"
    assert list(read_table(tmp_path, "epochs").columns)[:2] == ["trial_id", "epoch"]


def test_a_value_that_trials_get_later_becomes_a_column(study):
    outcome = study.add("batch")
    outcome["trial"]["heads"] = [4, 1]
    write_outcome(study, outcome)
    (row,), _ = tables(study)
    assert row["heads"] == "[4, 1]"


def test_placement_and_compile_have_types(study, tmp_path):
    study.add("batch", compile=True, placement="host", profile_steps=3, device="cuda")
    study.add("neighbor", engine="trimmed")
    older = study.add("scaling", seed=7)
    del older["placement"], older["trial"]["placement"], older["trial"]["compile"]
    write_outcome(study, older)
    trials, *_ = build_tables(read_records(read_study(study.freeze()), study.results, False))
    write_table(trials, tmp_path, "trials")
    read = pq.read_table(tmp_path / "trials.parquet")
    names = ["compile", "placement", "profile_steps", "placement_chosen"]
    types = [str(read.schema.field(name).type) for name in names]
    assert types == ["bool", "string", "int64", "string"]
    assert [tuple(row.values()) for row in read.select(names).to_pylist()] == [
        (True, "host", 3, "device"),
        (False, "auto", 0, None),
        (False, "auto", 0, None),  # what they were before there were such keys
    ]


def test_a_result_from_before_a_key_is_not_told_apart_from_its_default(study):
    study.add("batch")
    older = study.add("batch", seed=1)
    del older["trial"]["kernels"]
    write_outcome(study, older)
    trials, *_ = build_tables(read_records(read_study(study.freeze()), study.results, False))
    assert list(trials["kernels"].to_numpy()) == ["auto", "auto"]


def test_what_cuda_allocators_went_through_is_counted_over_the_ranks(study):
    outcome = make_outcome(make_trial(device="cuda", ranks=4), "out_of_memory")
    counted = {"num_alloc_retries": 2, "num_ooms": 0}, {"num_alloc_retries": 3, "num_ooms": 1}
    for rank, counts in zip(outcome["ranks"], (*counted, {}), strict=False):
        rank |= counts  # the other ranks were ended before they counted
    study.add("batch", outcome)
    study.add("batch", device="cpu")
    rows, _ = tables(study)
    names = ("num_alloc_retries", "num_ooms")
    assert [[row[name] for name in names] for row in rows] == [[5, 1], [None, None]]
    assert [type(rows[0][name]) for name in names] == [int, int]


def test_no_column_of_before_has_moved(study):
    """The order of before some of them got a type."""
    study.add("batch")
    names = list(tables(study)[0][0])
    known = ["cpu_models", "load_1m", "device_memory_bytes", "memory_total_bytes", "slurm"]
    known += ["compile", "placement", "profile_steps", "version_numba", "version_pyg_lib"]
    assert [name for name in names if name in known] == known
    assert names.index("sampled_test_nodes") + 1 == names.index("started_at")


def test_repeats_of_another_placement_are_no_repeats(study):
    """An outlier among unlike trials is none."""
    for seed in range(4):
        study.add("batch", make_outcome(make_trial(seed=seed), epoch_s=10.0 + seed / 10))
    study.add("batch", make_outcome(make_trial(seed=5, placement="host"), epoch_s=30.0))
    rows, _ = tables(study)
    assert not any(row["epoch_time_outlier"] for row in rows)


def test_the_script_writes_three_tables_and_a_mistake_is_one_sentence(study, tmp_path):
    study.add("batch")
    command = [
        sys.executable,
        SCRIPTS / "make_report.py",
        "tables",
        "--study",
        study.freeze(),
        "--results",
        study.results,
        "--out",
        tmp_path / "out",
    ]
    subprocess.run(command, check=True)
    names = sorted(path.name for path in (tmp_path / "out" / "tables").iterdir())
    tables = ("epochs", "new_nodes", "not_run", "trials")
    assert names == [f"{table}.{kind}" for table in tables for kind in ("csv", "parquet")]
    study.ask("batch", make_trial(seed=9))
    study.freeze()
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 2
    assert again.stderr.startswith("error: 1 of 2 trials")
    assert trial_id(make_trial(seed=9)) in again.stderr
