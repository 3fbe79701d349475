"""Predicted against measured, and trials that were left out, from files to tables and figures."""

from __future__ import annotations

import pytest
from outcome_factory import GIB, StudyFiles, make_outcome, make_trial, trial_id
from sagebench.analysis import comparison, facts
from sagebench.analysis.chart import NOT_RUN_LABEL
from sagebench.analysis.drawing import draw
from sagebench.analysis.figures import declared
from sagebench.analysis.outcomes import read_records, read_study
from sagebench.analysis.tables import build_tables
from sagebench.errors import UserError
from sagebench.files import read_json, write_json
from sagebench.page import style


@pytest.fixture
def files(tmp_path):
    made = StudyFiles(tmp_path / "results")
    made.experiment("batch", "batch_size")
    return made


def predict(files, trial, peak_gib, epoch_s, chance=0.0, checksum="c0ffee" * 10):
    """As a run leaves it beside the trial before it starts."""
    record = {
        "model": "0123456789",
        "store_checksum": checksum,
        "memory": {
            "peak_bytes": peak_gib * GIB,
            "low_bytes": 0.9 * peak_gib * GIB,
            "high_bytes": 1.1 * peak_gib * GIB,
            "limit_bytes": 8 * GIB,
            "out_of_memory_chance": chance,
        },
        "time": {
            "epoch_s": epoch_s,
            "low_s": 0.5 * epoch_s,
            "high_s": 2 * epoch_s,
            "source": "rates measured on local",
        },
    }
    write_json(files.results / "trials" / trial_id(trial) / "prediction.json", record)
    return record


def skip(files, trial, **changed):
    """Let the study leave the trial out."""
    files.experiments["batch"]["trials"].append(trial_id(trial))
    write_json(files.results / "trials" / trial_id(trial) / "trial.json", trial)
    files.freeze()
    study = read_json(files.path)
    figures = {"peak_bytes": 12 * GIB, "low_bytes": 11 * GIB, "high_bytes": 13 * GIB}
    figures |= {"limit_bytes": 8 * GIB, "out_of_memory_chance": 1.0, "model": "0123456789"}
    figures |= changed
    study["skipped"] = {**study.get("skipped", {}), trial_id(trial): figures}
    write_json(files.path, study)


def tables(files, partial=False):
    study = read_study(files.path)
    trials, _, not_run, _ = build_tables(read_records(study, files.results, partial))
    return trials.to_pandas(), not_run.to_pandas()


def drawn(name, trials, not_run):
    (one,) = [one for one in declared(["batch_size", "fanout"]) if one.name == name]
    with style.look():
        return draw(one, trials, None, not_run)


def legend(figure):
    return [text.get_text() for one in figure.legends for text in one.get_texts()]


def test_predictions_stand_beside_what_was_measured_with_their_errors(files):
    for batch_size, epoch_s, peak in ((64, 10.0, 4), (128, 8.0, 4), (256, 5.0, 4)):
        trial = make_trial(batch_size=batch_size)
        files.add("batch", make_outcome(trial, epoch_s=10.0, peak_bytes=4 * GIB))
        predict(files, trial, peak * 1.25, epoch_s)
    files.add("batch", make_outcome(make_trial(batch_size=512)))  # was not predicted
    files.freeze()
    trials, _ = tables(files)
    memory = comparison.compared(trials, comparison.MEMORY)
    assert list(memory["error"]) == pytest.approx([0.25] * 3)
    first, second = comparison.prediction_errors(trials)
    assert first.startswith("Peak memory, 3 trials: median error 25.0%, worst 25.0%")
    assert "median error 20.0%, worst 50.0% (pubmed-blocks-b256" in second
    assert "0 of 3 lie" in first and "3 of 3 lie" in second
    table = comparison.predictions(trials)
    assert len(table.rows) == 3 and table.rows[1][-2].text == "-20.0%"
    assert len(drawn("predicted_measured", trials, trials.iloc[:0]).axes) == 2


def test_an_epoch_of_node2vec_is_a_pass_of_its_walks(files):
    trial = make_trial(method="node2vec", options={"passes": 3, "dimension": 8}, layers=1)
    outcome = make_outcome(trial, epoch_s=0.01)
    outcome["timing"]["embedding_s"] = 30.0
    files.add("batch", outcome)
    predict(files, trial, 4, 11.0)
    files.freeze()
    trials, _ = tables(files)
    assert trials["epoch_time_s"].tolist() == [10.0]
    assert comparison.compared(trials, comparison.EPOCH)["error"].tolist() == pytest.approx([0.1])
    assert legend(drawn("predicted_measured", trials, trials.iloc[:0])) == ["node2vec"]


def test_a_prediction_for_another_store_does_not_count(files):
    trial = make_trial()
    files.add("batch", make_outcome(trial))
    predict(files, trial, 4, 10.0, checksum="another")
    files.freeze()
    trials, _ = tables(files)
    assert trials["predicted_peak_bytes"].isna().all()
    assert comparison.predictions(trials) is None


def test_out_of_memory_is_held_to_account_too(files):
    trial = make_trial(batch_size=512)
    files.add("batch", make_outcome(trial, "out_of_memory"))
    predict(files, trial, 9, 10.0, chance=0.97)
    files.freeze()
    (sentence,) = comparison.out_of_memory(tables(files)[0])
    assert "1 of 1 trials that ended so were predicted to" in sentence


def test_what_was_left_out_is_no_outcome_and_no_gap(files):
    files.add("batch", make_outcome(make_trial(batch_size=64)))
    skip(files, make_trial(batch_size=512))
    trials, not_run = tables(files)
    assert list(trials["batch_size"]) == [64] and list(not_run["batch_size"]) == [512]
    assert not_run["status"].item() == "skipped"
    assert not_run["peak_memory_bytes"].isna().all()
    assert comparison.not_run(not_run).rows[0][2].text == "12.0 GiB"

    files.ask("batch", make_trial(batch_size=128))
    study = read_json(files.path)
    study["experiments"] = list(files.experiments.values())
    write_json(files.path, study)
    with pytest.raises(UserError, match="1 of 2 trials"):
        tables(files)


def test_what_was_left_out_and_measured_all_the_same_counts_as_measured(files):
    trial = make_trial(batch_size=512)
    files.add("batch", make_outcome(make_trial(batch_size=64)))
    skip(files, trial)
    write_json(files.results / "trials" / trial_id(trial) / "outcome.json", make_outcome(trial))
    trials, not_run = tables(files)
    assert sorted(trials["batch_size"]) == [64, 512] and not_run.empty


def test_left_out_trials_are_drawn_apart_from_measured_points(files):
    for batch_size in (64, 128):
        files.add("batch", make_outcome(make_trial(batch_size=batch_size), peak_bytes=4 * GIB))
    skip(files, make_trial(batch_size=512))
    trials, not_run = tables(files)
    assert NOT_RUN_LABEL in legend(drawn("batch_memory", trials, not_run))
    assert NOT_RUN_LABEL not in legend(drawn("batch_time", trials, not_run))
    assert NOT_RUN_LABEL not in legend(drawn("batch_memory", trials, not_run.iloc[:0]))


def test_an_experiment_of_which_nothing_was_run_has_no_table(files):
    """And no pilot's end has bytes: its memory ran out before it could tell."""
    files.add("batch", make_outcome(make_trial(batch_size=64)))
    skip(files, make_trial(batch_size=512), peak_bytes=None, low_bytes=None, high_bytes=None)
    trials, not_run = tables(files)
    alone = {"name": "memory", "axis": "batch_size"}
    assert facts.configurations(trials, alone) is None
    assert NOT_RUN_LABEL not in legend(drawn("batch_memory", trials, not_run))
    assert comparison.not_run(not_run).rows[0][2].text == "–"
