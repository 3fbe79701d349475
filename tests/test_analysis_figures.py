import importlib
import subprocess
import sys
import warnings
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from outcome_factory import GIB, StudyFiles, make_outcome, make_trial
from sagebench.analysis.drawing import choose_offsets, draw
from sagebench.analysis.figures import declared
from sagebench.analysis.figures.accumulation_time import with_several_accumulations
from sagebench.analysis.figures.accuracy_time import accuracy_points
from sagebench.analysis.figures.loss_curves import loss_curves
from sagebench.analysis.figures.phases import step_phases
from sagebench.analysis.figures.speedup import oversubscribed
from sagebench.analysis.outcomes import read_records, read_study
from sagebench.analysis.points import (
    chosen_by,
    common_notes,
    evaluation,
    going_along,
    memory_label,
    of_axis,
    placed,
    rank_word,
    repeats,
)
from sagebench.analysis.statistics import summarise, without_value
from sagebench.analysis.tables import build_tables
from sagebench.page import style

SCRIPTS = Path(__file__).parents[1] / "workflow_scripts"
FILES = {
    "batch_time",
    "batch_memory",
    "accumulation_time",
    "accuracy_time",
    "memory_fanout",
    "scaling_time",
    "speedup",
    "efficiency",
    "loss_curves",
    "phases_batch_size",
    "phases_fanout",
    "phases_ranks",
    "predicted_measured",
}
BATCH = ["series", "batch_size", "accumulation"]


@pytest.fixture
def study(tmp_path):
    files = StudyFiles(tmp_path / "results")
    files.experiment("batch", "batch_size")
    files.experiment("neighbor", "fanout")
    files.experiment("scaling", "ranks")
    return files


def frames(study):
    trials, epochs, *_ = build_tables(read_records(read_study(study.freeze()), study.results, True))
    return trials.to_pandas(), epochs.to_pandas()


def drawn(study, *names):
    """The figures of these names, all unless given, with every warning an error."""
    trials, epochs = frames(study)
    axes = [one["axis"] for one in study.experiments.values()]
    with warnings.catch_warnings(), style.look():
        warnings.simplefilter("error")
        return {
            one.name: draw(one, trials, epochs, trials.iloc[:0])
            for one in declared(axes)
            if not names or one.name in names
        }


def save(study, folder):
    """The files of every figure of the study."""
    folder.mkdir()
    with style.look():
        for name, figure in drawn(study).items():
            style.save(figure, folder, name)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def texts(figure):
    return [text.get_text() for text in figure.findobj(match=lambda a: hasattr(a, "get_text"))]


def add_all(study):
    for seed in range(3):
        for engine in ("blocks", "reference"):
            values = {"engine": engine, "seed": seed}
            for size, accumulation in ((32, 5), (64, 5), (64, 1)):
                trial = make_trial(batch_size=size, accumulation=accumulation, **values)
                study.add("batch", make_outcome(trial, epoch_s=1000 / size + seed))
            study.add("batch", make_outcome(make_trial(batch_size=512, **values), "out_of_memory"))
            for fanout, accuracy in (([5, 0, 0, 0, 0], 0.7), ([5, 5, 5, 5, -1], 0.8)):
                trial = make_trial(fanout=fanout, **values)
                study.add("neighbor", make_outcome(trial, accuracy=accuracy + seed / 100))
            for ranks in (1, 2, 4):
                trial = make_trial(ranks=ranks, **values)
                study.add("scaling", make_outcome(trial, epoch_s=20 / ranks))


def test_every_figure_is_drawn_without_a_warning_and_is_the_same_twice(study, tmp_path):
    add_all(study)
    files = save(study, tmp_path / "first")
    assert set(files) == {f"{name}.{kind}" for name in FILES for kind in ("svg", "png")}
    for name, content in files.items():
        if name.endswith("svg"):
            assert ElementTree.fromstring(content).tag == "{http://www.w3.org/2000/svg}svg"
            assert b"dc:date" not in content
        else:
            assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert save(study, tmp_path / "second") == files


@pytest.mark.parametrize("only", ["out_of_memory", "missing"])
def test_a_study_with_next_to_nothing_draws_placeholders(study, tmp_path, only):
    for experiment in study.experiments:
        if only == "missing":
            study.ask(experiment, make_trial())
        else:
            study.add(experiment, make_outcome(make_trial(), only))
    assert len(save(study, tmp_path / "figures")) == 2 * len(FILES)


def test_names_with_dollars_are_drawn_as_they_are(study, tmp_path):
    study.add("batch", make_outcome(make_trial(machine="a$b_$")))
    assert save(study, tmp_path / "figures")
    assert any("a$b_$" in text for text in texts(drawn(study, "batch_time")["batch_time"]))


def test_batch_points_are_medians_with_ranges_over_seeds(study):
    for seed, time in enumerate([9.0, 10.0, 14.0]):
        study.add("batch", make_outcome(make_trial(seed=seed), epoch_s=time, peak_bytes=2 * GIB))
    rows = of_axis(frames(study)[0], "batch_size")
    point = summarise(rows, BATCH, "epoch_time_s").iloc[0]
    assert (point["n"], point["median"], point["low"], point["high"]) == (3, 10.0, 9.0, 14.0)
    assert summarise(rows, BATCH, "peak_memory_bytes", GIB)["median"].item() == 2.0


def test_out_of_memory_has_a_mark_and_no_value(study):
    study.add("batch", make_outcome(make_trial(batch_size=64)))
    study.add("batch", make_outcome(make_trial(batch_size=512), "out_of_memory"))
    study.add("batch", make_outcome(make_trial(batch_size=512, seed=1)))
    rows = of_axis(frames(study)[0], "batch_size")
    ended = without_value(rows, ["series", "batch_size"])
    assert ended.to_dict("records") == [
        {"series": "blocks", "batch_size": 512, "status": "out_of_memory", "count": 1, "of": 2}
    ]
    points = summarise(rows, BATCH, "epoch_time_s")
    assert points.set_index("batch_size")["n"].to_dict() == {64: 1, 512: 1}
    shown = texts(drawn(study, "batch_time")["batch_time"])
    assert {"1/2", "out of memory (no value)"} <= set(shown)


def test_the_line_follows_the_accumulation_with_the_most_batch_sizes(study):
    add_all(study)
    rows = of_axis(frames(study)[0], "batch_size")
    assert any(
        "Accumulation 5; median" in text for text in texts(drawn(study, "batch_time")["batch_time"])
    )
    assert set(with_several_accumulations(rows)["batch_size"]) == {64}


def test_series_keep_unlike_trials_apart_and_name_what_differs(study):
    study.add("batch", make_outcome(make_trial()))
    study.add("batch", make_outcome(make_trial(hidden_channels=64)))
    study.add("batch", make_outcome(make_trial(engine="reference")))
    rows = of_axis(frames(study)[0], "batch_size")
    assert set(rows["series"]) == {
        "blocks · hidden channels 256",
        "blocks · hidden channels 64",
        "reference · hidden channels 256",
    }


def test_a_series_names_what_was_compiled(study):
    study.add("batch", make_outcome(make_trial(compile=True)))
    study.add("batch", make_outcome(make_trial()))
    rows = of_axis(frames(study)[0], "batch_size")
    assert set(rows["series"]) == {"compile true", "compile false"}


def test_what_changes_along_with_the_axis_is_said(study):
    study.add("scaling", make_outcome(make_trial(ranks=1, threads_per_rank=2)))
    study.add("scaling", make_outcome(make_trial(ranks=2, threads_per_rank=1)))
    rows = of_axis(frames(study)[0], "ranks")
    assert set(rows["series"]) == {"blocks"}
    assert going_along(rows, "ranks") == ["threads_per_rank"]
    assert common_notes(rows, "ranks") == ["Changes along with the axis: threads per rank."]


def test_what_a_method_does_not_have_does_not_change_along(study):
    spread = {"method": "label_propagation", "options": {"alpha": 0.9}}
    study.experiment("methods", "method")
    for values in ({}, {**spread, "dropout": None}):
        study.add("methods", make_outcome(make_trial(**values)))
    rows = of_axis(frames(study)[0], "method")
    assert "dropout" not in going_along(rows, "method")


def test_cpu_ranks_are_not_called_gpus(study):
    study.add("scaling", make_outcome(make_trial()))
    study.add("scaling", make_outcome(make_trial(ranks=2)))
    rows = of_axis(frames(study)[0], "ranks")
    assert rank_word(rows) == "ranks (CPU)"
    assert memory_label(rows) == "Peak private memory of a rank, GiB"
    for figure in drawn(study, "scaling_time", "speedup", "efficiency").values():
        assert not any("GPU" in text for text in texts(figure))


def test_gpus_are_called_gpus(study):
    study.add("scaling", make_outcome(make_trial(device="cuda")))
    rows = of_axis(frames(study)[0], "ranks")
    assert rank_word(rows) == "GPUs"
    assert memory_label(rows) == "Peak reserved memory of a GPU, GiB"


def test_oversubscribed_trials_are_kept_out_of_speed_up_and_it_is_said(study):
    for ranks in (1, 2, 4):
        study.add("scaling", make_outcome(make_trial(ranks=ranks), epoch_s=8 / ranks, cores=2))
    trials, _ = frames(study)
    rows = of_axis(trials, "ranks")
    assert oversubscribed(rows) == [4]
    assert summarise(rows, ["series", "ranks"], "speed_up")["ranks"].tolist() == [1, 2]
    figures = drawn(study, "speedup", "efficiency", "scaling_time")
    for name in ("speedup", "efficiency"):
        assert any("oversubscribed" in text and "4 ranks" in text for text in texts(figures[name]))
    assert "oversubscribed" in texts(figures["scaling_time"])


def test_the_accuracy_figure_names_its_evaluation_and_marks_the_front(study):
    for fanout, time, accuracy in (
        ([5, 0, 0, 0, 0], 1.0, 0.70),
        ([5, 5, 0, 0, 0], 2.0, 0.80),
        ([9, 9, 0, 0, 0], 3.0, 0.75),
    ):
        study.add(
            "neighbor", make_outcome(make_trial(fanout=fanout), epoch_s=time, accuracy=accuracy)
        )
    rows = of_axis(frames(study)[0], "fanout")
    points = accuracy_points(rows, evaluation(rows))
    assert points.set_index("fanout")["front"].to_dict() == {
        "5,0,0,0,0": True,
        "5,5,0,0,0": True,
        "9,9,0,0,0": False,
    }
    words = " ".join(texts(drawn(study, "accuracy_time")["accuracy_time"]))
    assert "Test accuracy (full evaluation)" in words
    assert "chosen by full validation" in " ".join(words.split())


def test_without_full_evaluation_the_sampled_one_is_shown(study):
    outcome = make_outcome(make_trial(validation="sampled"))
    outcome["accuracy"]["test_full"] = None
    study.add("neighbor", outcome)
    rows = of_axis(frames(study)[0], "fanout")
    assert evaluation(rows) == "test_accuracy_sampled"
    assert chosen_by(rows) == "model chosen by sampled validation"


def test_every_neighbor_stands_right_of_all_products(study):
    for fanout in ([5, 5, 5, 5, 5], [5, 0, 0, 0, 0], [-1, -1, 0, 0, 0]):
        study.add("neighbor", make_outcome(make_trial(fanout=fanout)))
    rows = of_axis(frames(study)[0], "fanout")
    totals, names = placed(rows, ["total_fanout"])
    (everything,) = names
    assert names[everything] == "all"
    places = dict(zip(rows["fanout"], totals, strict=True))
    assert places["5,0,0,0,0"] == 5
    assert places["-1,-1,0,0,0"] == everything > places["5,5,5,5,5"] == 3125


def test_loss_curves_are_medians_over_the_seeds(study):
    for seed in range(3):
        study.add("scaling", make_outcome(make_trial(seed=seed, epochs=4)))
    trials, epochs = frames(study)
    curves = loss_curves(of_axis(trials, "ranks"), epochs)
    assert curves["epoch"].tolist() == [1, 2, 3, 4]
    assert set(curves["n"]) == {3}
    first = epochs[epochs["epoch"].eq(1)]["loss"]
    assert curves["median"].iloc[0] == first.median()
    assert (curves["low"].iloc[0], curves["high"].iloc[0]) == (first.min(), first.max())


def test_missing_trials_are_counted_in_the_figure(study):
    study.add("batch")
    study.ask("batch", make_trial(seed=1))
    rows = of_axis(frames(study)[0], "batch_size")
    assert common_notes(rows, "batch_size") == ["1 of 2 trials have no outcome and are not shown."]


def test_repeats_are_counted(study):
    study.add("batch")
    rows = of_axis(frames(study)[0], "batch_size")
    points = summarise(rows, BATCH, "epoch_time_s")
    assert repeats(points) == "n\u00a0=\u00a01"
    assert repeats(points.iloc[:0]) == "n\u00a0=\u00a00"


def test_labels_of_neighboring_points_do_not_overlap():
    points = [(0.0, 0.0), (3.0, 0.0), (0.0, 3.0), (60.0, 60.0)]
    offsets = choose_offsets(points)
    centres = [(x + o.real, y + o.imag) for (x, y), o in zip(points, offsets, strict=True)]
    for i, a in enumerate(centres):
        for b in centres[i + 1 :]:
            assert abs(a[0] - b[0]) > 8 or abs(a[1] - b[1]) > 8


def test_an_engine_keeps_its_look_from_figure_to_figure():
    alone, (_, beside) = style.looks(["reference"]), style.looks(["reference", "blocks"]).items()
    assert beside == ("reference", alone["reference"])
    assert len({look["marker"] for look in style.looks(["a", "b", "c"]).values()}) == 3


def test_what_snakemake_reads_of_a_figure_is_what_its_module_says():
    for one in declared(["batch_size", "fanout", "ranks"]):
        module = importlib.import_module(f"sagebench.analysis.figures.{one.module}")
        assert one.caption == module.CAPTION
        assert one.title.startswith(module.TITLE.partition("{")[0])


def test_reading_what_figures_there_are_imports_none_of_them():
    code = "import sys; from sagebench.analysis.figures import declared; assert declared([]);"
    code += "assert not {'pandas', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=SCRIPTS)


@pytest.mark.parametrize(
    ("name", "experiment", "values"),
    [
        ("batch_time", "batch", [{"batch_size": 64, "accumulation": n} for n in (1, 2, 3)]),
        ("memory_fanout", "neighbor", [{"fanout": f} for f in ([20, 15, 10], [10, 15, 20])]),
    ],
)
def test_no_point_is_of_unlike_trials(study, name, experiment, values):
    for place, one in enumerate(values, start=1):
        trial = make_trial(layers=3, **{"fanout": [5, 5, 5], **one})
        study.add(experiment, make_outcome(trial, epoch_s=10 * place, peak_bytes=place * GIB))
    for size in (16, 32):  # another accumulation has the most batch sizes
        trial = make_trial(layers=3, fanout=[5, 5, 5], batch_size=size, accumulation=9)
        study.add("batch", make_outcome(trial))
    (figure,) = drawn(study, name).values()
    (axes,) = figure.axes
    heights = {y for line in axes.get_lines() for y in line.get_ydata()}
    shown = {10.0, 20.0, 30.0} if name == "batch_time" else {1.0, 2.0}
    assert shown <= heights


def test_loss_panels_stand_in_the_order_of_the_study(study):
    engines = ("trimmed", "blocks", "reference")
    for engine in engines:
        for ranks in (1, 2, 4):
            study.add("scaling", make_outcome(make_trial(engine=engine, ranks=ranks, epochs=40)))
    (figure,) = drawn(study, "loss_curves").values()
    assert [axes.get_title(loc="left") or axes.get_title() for axes in figure.axes] == list(engines)


def lines_of(figure):
    """The points of each line of medians: [(x, y)]."""
    (axes,) = figure.axes
    lines = [line.get_xydata().tolist() for line in axes.get_lines() if len(line.get_xydata()) > 1]
    return [[tuple(point) for point in line] for line in lines]


def test_any_key_may_be_an_axis_and_numbers_stand_where_they_are(study):
    study.experiments.clear()
    study.experiment("width", "hidden_channels")
    for width in (64, 16, 256):
        study.add("width", make_outcome(make_trial(hidden_channels=width), epoch_s=float(width)))
    figures = drawn(study)
    assert set(figures) == {
        *("time_hidden_channels", "memory_hidden_channels", "accuracy_hidden_channels"),
        "phases_hidden_channels",
        "predicted_measured",
    }
    figure = figures["time_hidden_channels"]
    assert lines_of(figure) == [[(16, 16), (64, 64), (256, 256)]]
    assert figure.axes[0].get_xscale() == "log"
    assert {"Hidden channels, log", "Time per epoch by hidden channels"} <= set(texts(figure))


def test_an_axis_with_a_zero_is_not_logarithmic(study):
    study.experiments.clear()
    study.experiment("workers", "sampling_workers")
    for workers in (0, 1, 4):
        study.add("workers", make_outcome(make_trial(sampling_workers=workers), epoch_s=9.0))
    figure = drawn(study)["time_sampling_workers"]
    assert lines_of(figure) == [[(0, 9), (1, 9), (4, 9)]]
    assert "Sampling workers" in texts(figure)


@pytest.mark.parametrize(
    ("axis", "values", "names"),
    [
        ("engine", [{"engine": "blocks"}, {"engine": "reference"}], ["blocks", "reference"]),
        (
            "engine-batch_size",
            [{"engine": e, "batch_size": b} for e in ("trimmed", "blocks") for b in (64, 32)],
            ["trimmed · 64", "trimmed · 32", "blocks · 64", "blocks · 32"],
        ),
        ("compile", [{"compile": c} for c in (False, True)], ["false", "true"]),
    ],
)
def test_what_is_no_number_stands_side_by_side_in_the_order_of_the_study(
    study, axis, values, names
):
    study.experiments.clear()
    study.experiment("words", axis)
    for place, one in enumerate(values):
        study.add("words", make_outcome(make_trial(**one), epoch_s=1.0 + place))
    figures = drawn(study)
    figure = figures[f"time_{axis}"]
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == names
    found = {tuple(xy) for line in axes.get_lines() for xy in line.get_xydata().tolist()}
    assert {(place, 1.0 + place) for place in range(len(values))} <= found
    steps = figures[f"phases_{axis}"].axes[0]
    assert [label.get_text() for label in steps.get_yticklabels()] == names


def test_no_limit_stands_right_of_all_limits(study):
    study.experiments.clear()
    study.experiment("limits", "memory_limit_gib")
    for limit in (None, 0.5, 2.0):
        study.add("limits", make_outcome(make_trial(memory_limit_gib=limit), epoch_s=3.0))
    figure = drawn(study)["time_memory_limit_gib"]
    assert lines_of(figure) == [[(0.5, 3), (2, 3), (16, 3)]]
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels == ["0.5", "2", "none"]
    assert "Memory limit, GiB, log" in texts(figure)


def test_an_option_of_a_model_is_an_axis_like_any_key(study):
    study.experiments.clear()
    study.experiment("heads", "heads")
    for heads in (1, 2, 4):
        trial = make_trial(model="gat", options={"heads": heads})
        study.add("heads", make_outcome(trial, epoch_s=float(heads)))
    rows = of_axis(frames(study)[0], "heads")
    assert set(rows["series"]) == {"blocks"}
    assert lines_of(drawn(study)["time_heads"]) == [[(1, 1), (2, 2), (4, 4)]]


def test_the_phases_are_of_one_optimizer_step(study):
    """Accumulation 5: its sampling, data, forward, backward and waiting count five times."""
    trial = make_trial(ranks=2, accumulation=5)
    study.add("scaling", make_outcome(trial, epoch_s=18.3))
    rows = of_axis(frames(study)[0], "ranks")
    (step,) = step_phases(rows, "ranks").to_dict("records")
    shown = {name: step[name] for name in ("sampling", "waiting", "synchronisation", "optimizer")}
    assert shown == pytest.approx(
        {"sampling": 0.05, "waiting": 0.02, "synchronisation": 0.003, "optimizer": 0.001}
    )
    assert step["overlapped"] == pytest.approx(18.3 / 15)  # 18,217 nodes in steps of 1,280
    (axes,) = drawn(study, "phases_ranks")["phases_ranks"].axes
    ends = {round(bar.get_x() + bar.get_width(), 6) for bar in axes.patches}
    assert {0.384, 1.22} <= ends  # s: all phases together, and the overlapped step


def test_models_with_options_of_their_own_are_places_of_one_axis(study):
    study.experiments.clear()
    study.experiment("models", "model")
    for model, options in (("sage", {}), ("gat", {"heads": 4})):
        trial = make_trial(model=model, options=options)
        study.add("models", make_outcome(trial, epoch_s=3.0))
    assert set(of_axis(frames(study)[0], "model")["series"]) == {"blocks"}


def test_a_figure_that_raises_says_so_in_its_place(study, monkeypatch, capsys):
    study.add("scaling", make_outcome(make_trial(), epoch_s=3.0))
    monkeypatch.setattr("sagebench.analysis.figures.loss_curves.draw", lambda data: 1 / 0)
    (figure,) = drawn(study, "loss_curves").values()
    assert "It could not be drawn: ZeroDivisionError: division by zero" in " ".join(texts(figure))
    assert "ZeroDivisionError" in capsys.readouterr().err
