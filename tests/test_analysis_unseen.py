"""What is said of unseen nodes: names, intervals, paired differences, times, findings."""

from __future__ import annotations

import pandas as pd
import pytest
from outcome_factory import StudyFiles, make_outcome, make_trial
from sagebench.analysis import unseen
from sagebench.analysis.drawing import draw
from sagebench.analysis.figures import declared
from sagebench.analysis.outcomes import read_records, read_study
from sagebench.analysis.tables import TABLES, build_tables, read_table, write_table
from sagebench.page import style

WALKS = {"p": 1.0, "q": 1.0, "dimension": 128}
DEEP = {"method": "node2vec", "options": WALKS, "layers": 1, "fanout": [0]}
BEST = {"transductive": 0.81, "inductive": 0.8}


def spec(setting, seed):
    given = {"setting": setting, "unseen": 0.2, "split_seed": seed} if setting else {}
    return {"name": "pubmed", "source": "pubmed", "split": "large", **given}


def times(way, seconds, **values):
    """Rows of new nodes: 1, 10, 100 of them in these seconds; values: of the most."""
    return [
        {"way": way, "nodes": 10**i, "time_s": s, "low_s": s, "high_s": s, "repeats": 3}
        | {"device": "cpu", **(values if i + 1 == len(seconds) else {})}
        for i, s in enumerate(seconds)
    ]


@pytest.fixture
def made(tmp_path):
    """made(...): tables of a study of (values of a trial, setting, seed, accuracy, new nodes)."""
    study = StudyFiles(tmp_path / "results")
    study.experiment("methods", "method")

    def make(*rows):
        for values, setting, seed, accuracy, new_nodes in rows:
            given = dict(values)
            training_s = given.pop("training_s", 5.0)
            trial = make_trial(**{"seed": seed, "dataset": spec(setting, seed), **given})
            outcome = make_outcome(trial, checksum=str(trial["dataset"]))
            outcome["timing"]["training_s"] = training_s
            outcome["accuracy"] = {"test_full": accuracy, "unseen": accuracy}
            outcome["new_nodes"] = new_nodes
            study.add("methods", outcome)
        tables = build_tables(read_records(read_study(study.freeze()), study.results, False))
        for name, table in zip(TABLES, tables, strict=True):
            write_table(table, tmp_path, name)
        return [read_table(tmp_path, name) for name in TABLES]

    return make


def both_settings(values, shift=0.0, seeds=3, new_nodes=(), training_s=None):
    """Trials of both settings; the inductive ones have embedded new nodes."""
    return [
        (
            values if training_s is None else {**values, "training_s": training_s},
            setting,
            seed,
            best + shift + seed / 100,
            new_nodes if setting == "inductive" else (),
        )
        for setting, best in BEST.items()
        for seed in range(seeds)
    ]


def test_repeats_draw_their_own_nodes_and_are_repeats_all_the_same(made):
    trials, *_ = made(*both_settings({}))
    assert list(trials["setting"].unique()) == list(BEST)
    assert trials["dataset"].nunique() == 2 and not trials["dataset"].str.contains("seed").any()
    assert set(trials["unseen"]) == {0.2} and set(trials["unseen_by"]) == {"node"}
    found = unseen.accuracies(unseen.compared(trials)).set_index("setting")
    assert list(found["n"]) == [3, 3]
    row = found.loc["inductive"]
    assert [row["low"], row["median"], row["high"]] == pytest.approx([0.8, 0.81, 0.82])


def test_the_difference_is_of_the_same_seed(made):
    rows = both_settings({})
    rows[0] = ({}, "transductive", 0, 0.9, ())
    trials, *_ = made(*rows)
    assert unseen.differences(unseen.compared(trials))["pubmed", "sage"] == pytest.approx(
        [0.1, 0.01, 0.01]
    )


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({}, "sage"),
        ({"options": {"correct_and_smooth": True}}, "sage, Correct and Smooth"),
        ({"model": "mlp", "fanout": [0] * 5}, "mlp"),
        ({"model": "mlp", "fanout": [0], "layers": 1}, "logistic"),
        ({"method": "whole_graph", "model": "gcn"}, "gcn, whole graph"),
        ({"method": "label_propagation", "options": {"alpha": 0.9}}, "label propagation"),
        (DEEP, "node2vec, logistic"),
        ({**DEEP, "layers": 2, "fanout": [0, 0]}, "node2vec, mlp"),
        (
            {**DEEP, "options": {**WALKS, "beside_features": True}},
            "node2vec and features, logistic",
        ),
    ],
)
def test_a_method_has_a_name(made, values, name):
    trials, *_ = made((values, "inductive", 0, 0.8, ()))
    assert list(unseen.compared(trials)["name"]) == [name]


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([{"hidden_channels": width} for width in (64, 128)], ["sage, 64", "sage, 128"]),
        (
            [{**DEEP, "options": {**WALKS, "p": p}} for p in (1.0, 0.25)],
            ["node2vec, logistic, 1", "node2vec, logistic, 0.25"],
        ),
    ],
)
def test_two_of_a_name_are_told_apart_by_what_differs(made, values, names):
    trials, *_ = made(*((one, "inductive", 0, 0.8, ()) for one in values))
    assert list(unseen.compared(trials)["name"]) == names


def test_unseen_by_node_is_what_it_is_without_a_word(made):
    said = {"dataset": {**spec("inductive", 0), "unseen_by": "node"}}
    trials, *_ = made(({}, "transductive", 0, 0.9, ()), (said, "inductive", 0, 0.8, ()))
    found = unseen.differences(unseen.compared(trials))
    assert found["pubmed", "sage"] == pytest.approx([0.1])


def test_other_unseen_nodes_are_no_pair(made):
    rows = both_settings({}, seeds=1)
    others = {"dataset": spec("transductive", 1)}
    trials, *_ = made((others, "transductive", 0, 0.9, ()), rows[1])
    assert not len(unseen.differences(unseen.compared(trials)))


def of_two_data_sets():
    wide = {"hidden_channels": 64, "dataset": {**spec("inductive", 0), "name": "message"}}
    found = times("forward", [0.1, 0.2, 0.3], accuracy=0.8)
    return ({}, "inductive", 0, 0.8, found), (wide, "inductive", 0, 0.7, found)


def test_methods_of_two_data_sets_are_not_pooled(made):
    trials, *_, new_nodes = made(*of_two_data_sets())
    found = unseen.accuracies(unseen.compared(trials))
    assert list(found["name"]) == ["sage", "sage"] and list(found["median"]) == [0.8, 0.7]
    assert [len(unseen.accuracy_table(trials).rows), len(unseen.times(trials, new_nodes))] == [2, 6]


def test_a_figure_has_a_panel_a_data_set(made):
    tables = made(*of_two_data_sets())
    modules = {one.module: one for one in declared(["method"])}
    with style.look():
        for name in ("unseen_accuracy", "new_nodes"):
            titles = [axes.get_title("left") for axes in draw(modules[name], *tables).axes]
            assert [title.split(",")[0] for title in titles] == ["pubmed", "message"]


def test_two_shares_of_one_data_set_are_not_pooled(made):
    fewer = {"dataset": {**spec("inductive", 0), "unseen": 0.1}}
    trials, *_ = made(({}, "inductive", 0, 0.8, ()), (fewer, "inductive", 0, 0.9, ()))
    found = unseen.accuracies(unseen.compared(trials))
    assert list(found["name"]) == ["sage, 0.2", "sage, 0.1"] and list(found["n"]) == [1, 1]


def new_node_rows(sage_s=0.001, frozen_s=(0.01, 0.02, 0.04), again_s=5.0):
    forward = times("forward", [sage_s] * 3, accuracy=0.81)
    frozen = times("frozen_update", frozen_s, accuracy=0.71)
    return [
        *both_settings({}, new_nodes=forward),
        *both_settings({"options": {"correct_and_smooth": True}}, 0.1),
        *both_settings(DEEP, -0.1, new_nodes=frozen, training_s=again_s),
    ]


def test_the_finding_says_the_factors_and_the_accuracies(made):
    trials, *_, new_nodes = made(*new_node_rows())
    said = unseen.findings(trials, new_nodes)
    assert said[0] == (
        "pubmed, 100 new nodes at once, of the most accurate variants: the forward pass of "
        "sage took 1.00 ms, the frozen update of node2vec, logistic 40.0 ms (40.0 times), training "
        "again 5.00 s (5,000 times)."
    )
    assert "more than 10 times faster" in said[1]
    assert "accuracy on them 0.8100 and 0.7100" in said[1]
    assert said[-1] == f"{unseen.PAPER} Both are of one machine here."


def test_trained_again_is_what_the_transductive_trials_took(made):
    trials, *_, new_nodes = made(*new_node_rows(again_s=7.0))
    rows = unseen.times(trials, new_nodes).set_index("way")
    again = rows.loc["retrained"]
    assert (again["time_s"], again["n"], again["nodes"]) == (7.0, 3, 100)
    assert again["accuracy"] == pytest.approx(0.72)  # the transductive median
    assert again["peak_memory_bytes"] > 0


def test_of_two_variants_the_more_accurate_is_compared(made):
    worse = times("frozen_update", (0.001, 0.001, 0.001), accuracy=0.5)
    beside = {**DEEP, "options": {**WALKS, "beside_features": True}}
    trials, *_, new_nodes = made(*new_node_rows(), *both_settings(beside, new_nodes=worse))
    assert (
        "the frozen update of node2vec, logistic 40.0 ms" in unseen.findings(trials, new_nodes)[0]
    )


def test_on_a_gpu_the_note_says_where_the_forward_pass_ran(made):
    rows = new_node_rows()
    for *_, new_nodes in rows:
        for one in new_nodes:
            one["device"] = "cuda" if one["way"] == "forward" else "cpu"
    trials, *_, new_nodes = made(*rows)
    assert unseen.findings(trials, new_nodes)[-1].endswith("here, the forward pass on its GPU.")


def test_the_most_nodes_of_each_seed_stand_together(made):
    """By group, another seed has another number of unseen nodes."""
    rows = []
    for seed, most in enumerate((90, 100, 130)):
        found = times("forward", (0.1, 0.2, 0.3), accuracy=0.8)
        found[-1]["nodes"] = most
        rows.append(({}, "inductive", seed, 0.8, found))
    trials, *_, new_nodes = made(*rows)
    found = unseen.times(trials, new_nodes)
    assert list(found["nodes"]) == [1, 10, 100] and list(found["n"]) == [3, 3, 3]


def test_the_most_of_two_shares_stand_apart(made):
    rows = []
    for share, most in ((0.2, 400), (0.1, 200)):
        found = times("forward", (0.1, 0.2, 0.3), accuracy=0.8)
        found[-1]["nodes"] = most
        rows.append(
            ({"dataset": {**spec("inductive", 0), "unseen": share}}, "inductive", 0, 0.8, found)
        )
    trials, *_, new_nodes = made(*rows)
    found = unseen.times(trials, new_nodes).groupby("name")["nodes"].max()
    assert found.to_dict() == {"sage, 0.2": 400, "sage, 0.1": 200}


def test_columns_that_say_nothing_are_left_out(made):
    rows = [row for row in new_node_rows() if row[1] == "inductive"]
    trials, *_, new_nodes = made(*rows)
    columns = unseen.accuracy_table(trials).columns
    assert "Inductive" in columns and not {"Transductive", "Lost (same seeds)"} & set(columns)
    columns = unseen.time_table(trials, new_nodes).columns
    assert "Accuracy" in columns and not {"Data set", "Energy, J"} & set(columns)


def test_within_ten_times_the_argument_is_accuracy(made):
    trials, *_, new_nodes = made(*new_node_rows(sage_s=0.005))
    assert "is accuracy, if anything, and not time" in unseen.findings(trials, new_nodes)[1]


def test_where_the_range_has_ten_times_it_is_open(made):
    forward = times("forward", [0.005] * 3, accuracy=0.81)
    frozen = times("frozen_update", [0.01, 0.02, 0.06], accuracy=0.71)
    frozen[-1] |= {"low_s": 0.04, "high_s": 0.08}
    of_one = both_settings({}, seeds=1, new_nodes=forward)
    of_one += both_settings(DEEP, seeds=1, new_nodes=frozen)
    trials, *_, new_nodes = made(*of_one)
    first, second, *_ = unseen.findings(trials, new_nodes)
    assert "(12.0 times, 8.0 to 16)" in first
    assert "whether the forward pass is 10 times faster than the frozen update is open" in second


def test_break_even_is_where_the_line_meets_training_again(made):
    trials, *_, new_nodes = made(*new_node_rows(frozen_s=(0.1, 1, 10), again_s=100))
    assert unseen.break_even(unseen.times(trials, new_nodes)) is None  # at 1,000, measured to 100
    trials, *_, new_nodes = made(*new_node_rows(frozen_s=(0.1, 1, 10), again_s=15))
    rows = unseen.times(trials, new_nodes)
    assert "about 150 new nodes on, more than were measured" in unseen.break_even(rows)
    trials, *_, new_nodes = made(*new_node_rows(frozen_s=(0.1, 1, 10), again_s=1))
    assert "about 10 new nodes on (" in unseen.break_even(unseen.times(trials, new_nodes))


def test_without_unseen_nodes_there_is_nothing_to_say(made):
    trials, *_, new_nodes = made(({}, None, 0, 0.8, ()))
    assert unseen.findings(trials, new_nodes) == []
    assert unseen.accuracy_table(trials) is None
    assert trials["setting"].isna().all()


@pytest.mark.parametrize("rows", [new_node_rows(), [({}, None, 0, 0.8, ())]])
def test_both_figures_are_drawn_or_say_why_not(made, rows):
    tables = made(*rows)
    modules = {one.module: one for one in declared(["method"])}
    assert {"unseen_accuracy", "new_nodes"} <= modules.keys()
    assert not {"accuracy", "time", "memory", "phases"} & modules.keys()
    with style.look():
        for name in ("unseen_accuracy", "new_nodes"):
            figure = draw(modules[name], *tables)
            texts = [text.get_text() for text in figure.axes[0].texts]
            drawn = rows[0][1] is not None
            assert any(text.startswith("No trial") for text in texts) != drawn
            assert bool(figure.legends) == drawn


def test_a_row_a_time_in_the_table(made):
    *_, new_nodes = made(*new_node_rows())
    assert len(new_nodes) == 2 * 3 * 3
    assert set(new_nodes["way"]) == {"forward", "frozen_update"}
    assert pd.api.types.is_integer_dtype(new_nodes["nodes"])
