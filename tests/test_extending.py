"""The examples of docs/extending.md run as plug-ins, from a folder outside of the checkout."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from build_graph import build
from configurations import GOOD, study_of
from outcome_factory import StudyFiles, make_outcome
from probed import CHECKSUM
from sagebench import registry
from sagebench.analysis.drawing import draw
from sagebench.analysis.figures import declared
from sagebench.analysis.outcomes import read_records, read_study
from sagebench.analysis.tables import build_tables
from sagebench.errors import UserError
from sagebench.files import write_json
from sagebench.grid.freeze import Freezer, load_frozen, load_study, outcome_path
from sagebench.plan.forecast import Forecaster, known_outcomes
from sagebench.plan.page import frontiers
from sagebench.plan.rows import plan_rows
from trial_runs import Run
from trials import make_trial, tiny_store

DOCS = (Path(__file__).parents[1] / "docs" / "extending.md").read_text()
EXAMPLES = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", DOCS, re.DOTALL))
SCRIPTS = Path(__file__).parents[1] / "workflow_scripts"
SITE = Path(__file__).parents[1] / "profiles/local/site.yaml"


@pytest.fixture(autouse=True)
def no_plugins_after(monkeypatch):
    monkeypatch.setenv(registry.PLUGINS, "")


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    for name, code in EXAMPLES.items():
        (folder / name).write_text(code)
    return folder


def study_file(folder, **values):
    path = folder.parent / "study.yaml"
    path.write_text(yaml.safe_dump({**GOOD, "plugins": ["mine"], **values}))
    return path


COMBINED = [("in_turn", "first_neighbors"), ("bipartite", "sagebench")]


@pytest.mark.parametrize(("engine", "sampler"), COMBINED)
def test_a_trial_of_a_plugged_in_model(tmp_path, folder, engine, sampler):
    store = tiny_store(tmp_path / "tiny").path
    registry.use([str(folder)])
    trial = make_trial(
        model="shared_weights", options={"kept": 0.25}, engine=engine, sampler=sampler, epochs=4
    )
    run = Run(tmp_path / "run", trial, store)
    finished = run.finish()
    assert finished.returncode == 0, finished.stderr
    losses = [epoch["loss"] for epoch in run.outcome["epochs"]]
    assert losses[-1] < losses[0]
    assert len(run.outcome["provenance"]["plugins"]) == len(EXAMPLES)


def test_a_data_set_of_a_plugged_in_source(tmp_path, folder):
    registry.use([str(folder)])
    store = build({"name": "ring", "source": "ring", "nodes": 400}, tmp_path / "ring", tmp_path)
    assert (store.num_nodes, store.num_edges, store.num_classes) == (400, 800, 4)
    assert len(store.train) == 200


def test_a_plugged_in_figure_is_drawn(tmp_path, folder):
    registry.use([str(folder)])
    study = StudyFiles(tmp_path / "results")
    study.experiment("batch", "batch_size")
    for size in (64, 128):
        study.add("batch", batch_size=size)
    records = read_records(read_study(study.freeze()), study.results, True)
    trials, epochs, *_ = (table.to_pandas() for table in build_tables(records))
    (mine,) = [one for one in declared(["batch_size"]) if one.name == "accuracy_by_memory"]
    (axes,) = draw(mine, trials, epochs, trials.iloc[:0]).axes
    assert [len(line.get_xdata()) for line in axes.lines] == [2]


def test_a_run_uses_the_copies_that_it_froze(tmp_path, folder, monkeypatch):
    monkeypatch.chdir(tmp_path)
    defaults = {"model": "shared_weights", "engine": "in_turn", "kept": 0.25}
    study = load_study([study_file(folder, defaults=defaults)], SITE)
    trials = [request.trial for request in study.requests.values()]
    assert {trial.model for trial in trials} == {"shared_weights"}
    assert trials[0].options == {"kept": 0.25}
    assert "in_turn" in {trial.engine for trial in trials}
    freezer = Freezer(study)
    freezer.write([], [])
    for path in folder.iterdir():
        path.unlink()
    assert load_frozen(freezer.path).requests == study.requests
    assert registry.load("model", "shared_weights").Layer


def test_a_trial_of_a_plugged_in_method(tmp_path, folder):
    store = tiny_store(tmp_path / "tiny")
    trial = make_trial(method="vote", options={"rounds": 2})
    registry.use([str(folder)])
    run = Run(tmp_path / "run", trial, store.path)
    finished = run.finish()
    assert finished.returncode == 0, finished.stderr
    outcome = run.outcome
    assert outcome["status"] == "completed"
    assert 0 < outcome["accuracy"]["test_full"] <= 1
    assert outcome["timing"]["total_s"] > 0 and outcome["memory"]["peak_host_private_bytes"] > 0
    assert outcome["epochs"] == [] and outcome["ranks"][0]["cpu_model"]


def test_what_trials_of_plugins_left_is_of_no_other_study(tmp_path, folder, monkeypatch):
    """Outcomes of their engines, samplers and methods lie beside those of a study without them."""
    monkeypatch.chdir(tmp_path)
    values = {**GOOD, "results": str(tmp_path / "results")}
    others = [{"engine": "in_turn"}, {"sampler": "first_neighbors"}, {"method": "vote"}]
    for trial in (make_trial(**one) for one in others):
        path = Path(values["results"], "trials", trial.id, "outcome.json")
        write_json(path, make_outcome(trial.to_json()))
    study = study_of(values)
    assert not any(row.measured for row in plan_rows(study))
    registry.use([str(folder)])
    assert len(list(known_outcomes(study.results))) == 3


def test_the_page_of_a_plan_whose_method_has_run(tmp_path, folder, monkeypatch):
    monkeypatch.chdir(tmp_path)
    voting = {"axis": "rounds", "fixed": {"method": "vote"}, "product": {"rounds": [1, 3]}}
    file = study_file(folder, experiments={"voting": voting}, results=str(tmp_path / "results"))
    study = load_study([file], SITE)
    for trial_id, request in study.requests.items():
        made = make_outcome(request.trial.to_json(), checksum=CHECKSUM)
        write_json(outcome_path(study.results, trial_id), made)
    rows = plan_rows(study)
    assert [row.measured for row in rows] == [True, True]
    assert not frontiers(study, rows, Forecaster(study))


def test_a_key_that_a_method_does_not_heed(tmp_path, folder, monkeypatch):
    monkeypatch.chdir(tmp_path)
    voting = {"axis": "rounds", "fixed": {"method": "vote"}, "product": {"rounds": [1, 3]}}
    study = load_study([study_file(folder, experiments={"voting": voting})], SITE)
    trials = [request.trial for request in study.requests.values()]
    assert [trial.options for trial in trials] == [{"rounds": 1}, {"rounds": 3}]
    assert {trial.batch_size for trial in trials} == {128}  # whatever the study's defaults are
    assert all("-vote-r1-s0-" in trial.id for trial in trials)
    wrong = {**voting, "fixed": {"method": "vote", "batch_size": 64}}
    said = "experiments.voting.fixed.batch_size means nothing to method vote: leave it out"
    with pytest.raises(UserError, match=said):
        load_study([study_file(folder, experiments={"voting": wrong})], SITE)


WRONG = [
    ("nothing.py", "x = 1\n", "has no declaration: write one at its top"),
    ("sage.py", 'MODEL = "mine"\n', "has the name of another model"),
    ("broken.py", "MODEL = (\n", "cannot be read"),
    (
        "mine.py",
        "MODEL = 'm'\nLayer = None\nOPTIONS = {'epochs': {'default': 1}}\n",
        "mine declares epochs",
    ),
    (
        "mine.py",
        "MODEL = 'm'\nLayer = None\nOPTIONS = {'k': {'type': 'flag'}}\n",
        "declares k without a default",
    ),
    (
        "mine.py",
        "MODEL = 'm'\nLayer = None\nOPTIONS = {'k': {'default': 1}}\n",
        "declares k wrongly",
    ),
    ("mine.py", "TITLE = CAPTION = 't'\nCAPTION = 'c'\n", "has no draw, which a figure needs"),
    ("mine.py", "MODEL = 'm'\n", r"has no Layer\.update, which a model needs"),
]


@pytest.mark.parametrize(("name", "code", "said"), WRONG)
def test_what_is_no_plugin_gets_one_sentence(folder, name, code, said):
    (folder / name).write_text(code)
    with pytest.raises(UserError, match=said) as raised:
        load_study([study_file(folder)], SITE)
    assert Path(name).stem in str(raised.value) and "\n" not in str(raised.value)


def test_one_that_fails_to_import_gets_one_sentence(folder):
    (folder / "broken.py").write_text('MODEL = "mine"\nimport no_such_package as Layer\n')
    registry.use([str(folder / "broken.py")])
    with pytest.raises(UserError, match=r"broken\.py cannot be imported \(ModuleNotFoundError"):
        registry.load("model", "broken")


LACKING = [
    ("method", 'METHOD = "m"\n', "no run or Run, which a method needs"),
    ("model", 'MODEL = "m"\n', r"no Layer\.update, which a model needs"),
    (
        "model",
        "from sagebench.models import base\nMODEL = 'm'\nclass Layer(base.Layer): ...\n",
        r"no Layer\.update",
    ),
    ("engine", 'ENGINE = "m"\n', r"no Engine\.make_model"),
]


@pytest.mark.parametrize(("kind", "code", "said"), LACKING)
def test_one_that_lacks_what_its_kind_has_gets_one_sentence(tmp_path, kind, code, said):
    path = tmp_path / "lacking.py"
    path.write_text(code)
    registry.use([str(path)])
    with pytest.raises(UserError, match=said):
        registry.load(kind, "lacking")


def test_one_that_is_not_installed_gets_one_sentence(folder):
    with pytest.raises(UserError, match="plug-in nobody_has_it is no file, no folder"):
        load_study([study_file(folder, plugins=["nobody_has_it"])], SITE)


def test_a_figure_of_all_trials_stands_in_the_report(tmp_path):
    code = (
        'TITLE = "Mine of all"\nCAPTION = "Of all."\nAXIS = None\nORDER = 3\n\n\n'
        'def draw(data):\n    return "Nothing to draw."\n'
    )
    (tmp_path / "mine.py").write_text(code)
    registry.use([str(tmp_path / "mine.py")])
    study = StudyFiles(tmp_path / "results")
    study.experiment("batch", "batch_size")
    study.add("batch", batch_size=64)
    out = tmp_path / "out"
    command = [sys.executable, SCRIPTS / "make_report.py", "tables", "figures", "report"]
    command += ["--study", study.freeze(), "--results", study.results, "--out", out]
    made = subprocess.run(command, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    assert "Mine of all" in (out / "report.html").read_text()
