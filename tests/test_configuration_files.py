"""The files in config/ and profiles/: what they hold, and that their descriptions are in step."""

from __future__ import annotations

import json
import math

import pytest
import yaml
from configurations import GOOD
from sagebench import registry
from sagebench.errors import UserError
from sagebench.grid.configuration import json_schema, merged, read_configuration, types
from sagebench.grid.freeze import load_study
from sagebench.grid.site import Limits, Site, read_site
from sagebench.grid.trial import CHOICES
from workflow_project import ROOT

CONFIG = ROOT / "config"
MELUXINA = ROOT / "profiles/meluxina/site.yaml"
LOCAL = ROOT / "profiles/local/site.yaml"
WORKSTATION = ROOT / "profiles/workstation/site.yaml"


@pytest.fixture(scope="module")
def slides():
    return load_study([CONFIG / "config.yaml"], MELUXINA)


def trials(study, experiment):
    (ids,) = [e.trials for e in study.experiments if e.name == experiment]
    return [study.requests[trial_id].trial for trial_id in ids]


def test_the_slides_study_has_the_slides_grid(slides):
    assert [len(experiment.trials) for experiment in slides.experiments] == [16, 16, 4]
    batches = [(trial.batch_size, trial.accumulation) for trial in trials(slides, "batch")]
    assert batches[:3] == [(16, 5), (32, 5), (64, 5)] and batches[-1] == (512, 5)
    assert {trial.fanout for trial in trials(slides, "batch")} == {(15, 10, 10, 10, 10)}
    assert len({trial.fanout for trial in trials(slides, "neighbor")}) == 16
    assert [trial.ranks for trial in trials(slides, "scaling")] == [1, 2, 4, 8]
    for trial in trials(slides, "scaling"):
        assert (trial.epochs, trial.batch_size, trial.patience_evaluations) == (10, 128, None)
    for request in slides.requests.values():
        trial = request.trial
        assert (trial.engine, trial.layers, trial.hidden_channels) == ("blocks", 5, 256)
        assert (trial.device, trial.machine) == ("cuda", "meluxina")


def test_the_published_study_differs_in_its_engine_alone(slides):
    published = load_study([CONFIG / "published.yaml"], MELUXINA)
    assert published.name == "published"
    for one, other in zip(slides.requests.values(), published.requests.values(), strict=True):
        mine, theirs = one.trial.to_json(), other.trial.to_json()
        assert (mine.pop("engine"), theirs.pop("engine")) == ("blocks", "reference")
        assert mine == theirs


def test_what_the_slides_do_not_give_is_marked():
    text = (CONFIG / "config.yaml").read_text()
    for key in ("learning_rate:", "epochs: 50", "optimizer", "accumulation: 1 "):
        (line,) = [line for line in text.splitlines() if key in line]
        assert "not in the slides" in line


def test_the_demo_holds_what_it_promises():
    demo = load_study([CONFIG / "demo.yaml"], LOCAL)
    assert len({(t.batch_size, t.accumulation) for t in trials(demo, "batch")}) >= 6
    fanouts = {trial.fanout for trial in trials(demo, "neighbor")}
    assert len(fanouts) >= 6 and any(0 in fanout for fanout in fanouts)
    assert [trial.ranks for trial in trials(demo, "scaling")] == [1, 2]
    assert {trial.threads_per_rank for trial in trials(demo, "scaling")} == {1}
    assert any(request.trial.memory_limit_gib for request in demo.requests.values())
    for request in demo.requests.values():
        trial = request.trial
        batches = math.ceil(18_217 / trial.batch_size)
        assert math.ceil(batches / (trial.accumulation * trial.ranks)) >= 20
        assert trial.epochs >= 3


def test_the_demo_on_a_gpu_shares_no_result_with_the_one_on_the_cpu():
    on_cpu = load_study([CONFIG / "demo.yaml"], LOCAL)
    on_gpu = load_study([CONFIG / "demo-cuda.yaml"], WORKSTATION)
    assert on_cpu.results == on_gpu.results and on_cpu.name != on_gpu.name
    assert not set(on_cpu.requests) & set(on_gpu.requests)
    asked = {(r.trial.device, r.trial.machine) for r in on_gpu.requests.values()}
    assert asked == {("cuda", "workstation")}
    assert {request.trial.ranks for request in on_gpu.requests.values()} == {1}


def test_the_schema_is_in_step():
    exported = json.loads((CONFIG / "schema.json").read_text())
    assert exported == json_schema(), "run python workflow_scripts/export_docs.py"


def test_every_key_is_on_its_page_with_default_and_words():
    rows = {}
    for line in (ROOT / "docs" / "configuration.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) >= 2:
            rows.setdefault(cells[0].strip("`"), []).append(cells)
    models = (types().Configuration, types().Experiment, Site)
    keys = {f.alias or name for model in models for name, f in model.model_fields.items()}
    keys |= {f"limits.{name}" for name in Limits.model_fields}
    flat = set(types().KEYS) - set(registry.option_owners())  # those are on the page of names
    assert not (keys - {"limits"} | flat) - set(rows)
    for key in flat:
        default = json.dumps(types().KEYS[key][1]).strip('"')
        assert any(f"`{default}`" in cells for cells in rows[key]), key
        for word in CHOICES.get(key, ()):
            assert any(f"`{word}`" in cells[-1] for cells in rows[key]), (key, word)


def test_less_work_is_planned_beside_the_slides_default(slides):
    study = load_study([CONFIG / "less-work.yaml"], MELUXINA)
    (experiment,) = study.experiments  # those of config.yaml are left out
    found = {(one.sampler, one.fanout) for one in trials(study, experiment.name)}
    assert len(found) == 8
    default = (15, 10, 10, 10, 10)
    for sampler in ("sagebench", "labor"):  # the former is recorded of uniform
        assert {(sampler, default), (sampler, (*default[:-1], -1))} <= found
    # The slides' default is the same trial, so it is measured once.
    shared = study.requests.keys() & slides.requests.keys()
    assert default in {study.requests[trial_id].trial.fanout for trial_id in shared}


def test_an_experiment_is_left_out_by_null(tmp_path):
    names = ["one", "two"]
    base = GOOD | {"experiments": {name: {"product": {"seed": [0]}} for name in names}}
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))
    path = tmp_path / "study.yaml"
    path.write_text("extends: base.yaml\nexperiments: {one: null}\n")
    assert list(read_configuration([path])["experiments"]) == ["two"]
    path.write_text("extends: base.yaml\nexperiments: {onne: null}\n")
    with pytest.raises(
        UserError, match=r"experiments\.onne is null, and base\.yaml has no such .* one of one, two"
    ):
        load_study([path], LOCAL)


def test_a_file_that_extends_another_is_laid_over_it(tmp_path):
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(GOOD))
    top = {
        "extends": "base.yaml",
        "study": "top",
        "defaults": {"dropout": 0.1},
        "dataset": {"name": "s", "source": "synthetic"},
    }
    (tmp_path / "top.yaml").write_text(yaml.safe_dump(top))
    values = read_configuration([tmp_path / "top.yaml"])
    assert values["study"] == "top"
    assert values["defaults"] == {"epochs": 3, "dropout": 0.1}
    assert values["dataset"] == {"name": "s", "source": "synthetic"}
    assert values["experiments"] == GOOD["experiments"]


def test_laying_over_changes_neither_side():
    base, top = {"a": {"b": 1}}, {"a": {"c": 2}}
    assert merged(base, top) == {"a": {"b": 1, "c": 2}}
    assert (base, top) == ({"a": {"b": 1}}, {"a": {"c": 2}})


@pytest.mark.parametrize("path", [LOCAL, MELUXINA, WORKSTATION])
def test_the_sites_are_sound(path):
    assert read_site(path).cpus >= 1


def test_a_workstation_runs_as_the_local_profile_does():
    profiles = [path.with_name("config.yaml").read_text() for path in (LOCAL, WORKSTATION)]
    local, workstation = (yaml.safe_load(text) for text in profiles)
    assert local == workstation


@pytest.mark.parametrize(
    ("name", "site", "experiments"),
    [
        ("inductive-demo", LOCAL, {"inductive": 10, "transductive": 10}),
        (
            "inductive",
            LOCAL,
            {
                "inductive": 50,
                "transductive": 50,
                "public": 20,
                "wordnet-inductive": 15,
                "wordnet-transductive": 15,
                "debian-inductive": 9,
                "debian-transductive": 9,
            },
        ),
        ("inductive-products", MELUXINA, {"inductive": 27, "transductive": 27}),
    ],
)
def test_the_studies_of_unseen_nodes_pair_both_settings(name, site, experiments):
    study = load_study([CONFIG / f"{name}.yaml"], site)
    assert {one.name: len(one.trials) for one in study.experiments} == experiments
    for one in study.experiments:
        other = one.name.replace("inductive", "transductive")
        if other != one.name and "transductive" not in one.name:
            for mine, theirs in zip(trials(study, one.name), trials(study, other), strict=True):
                pair = mine.to_json(), theirs.to_json()
                settings = [values["dataset"].pop("setting") for values in pair]
                assert settings == ["inductive", "transductive"] and pair[0] == pair[1]
