"""A trial.json that somebody edited."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from sagebench import registry
from sagebench.errors import UserError
from sagebench.grid.configuration import types
from sagebench.grid.trial import CHOICES, REGISTERED, read_trial
from trials import make_trial

SCRIPTS = Path(__file__).parents[1] / "workflow_scripts"
TOLD = {
    "engine": ("block", "blocks or bipartite or reference or trimmed"),
    "model": ("sagee", "sage or gat or gcn or gin or mlp"),
    "sampler": ("pyg", "pyg_lib or labor or sagebench"),
    "aggregator": ("median", "mean or sum or max"),
    "optimizer": (None, "adam"),
    "learning_rate_scaling": ("linea", "linear or sqrt or none"),
    "validation": ("sample", "sampled or full"),
    "precision": ("bf-16", "bf16 or fp32 or tf32"),
    "placement": ("hosts", "host or auto or device"),
    "device": (["cpu"], "cpu or cuda"),
}


def trial_json(folder: Path, **values) -> Path:
    path = folder / "trial.json"
    path.write_text(json.dumps({**make_trial().to_json(), **values}))
    return path


def test_a_trial_is_read_as_it_was_written(tmp_path):
    assert read_trial(trial_json(tmp_path)) == make_trial()


def test_every_value_that_is_one_of_a_few_words_is_known():
    """What a configuration takes for such a value is what a trial.json may hold."""
    words = {key: get_args(get_args(kind)[0]) for key, (kind, _, _) in types().KEYS.items()}
    texts = {key: one for key, one in words.items() if one and isinstance(one[0], str)}
    named = {kind: registry.names(kind) for kind in REGISTERED}
    assert texts | {"device": CHOICES["device"]} == {**named, **CHOICES}


@pytest.mark.parametrize("name", TOLD)
def test_an_unknown_word_is_named_with_its_place_and_what_to_write(tmp_path, name):
    value, words = TOLD[name]
    path = trial_json(tmp_path, **{name: value})
    with pytest.raises(UserError) as raised:
        read_trial(path)
    assert str(raised.value) == f"{path}: {name} is {value!r}: write {words}"


@pytest.mark.parametrize("text", ["", "[1]", "{}", '{"engine": "blocks", "new": 1}'])
def test_what_is_no_trial_is_named(tmp_path, text):
    path = tmp_path / "trial.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"trial\.json cannot be read .*: delete it"):
        read_trial(path)


@pytest.mark.parametrize("script", ["run_trial", "train_graphsage_ddp"])
def test_a_script_refuses_an_unknown_engine_before_it_starts_anything(tmp_path, script):
    path = trial_json(tmp_path, engine="blok")
    command = [sys.executable, SCRIPTS / f"{script}.py", "--trial", path, "--store", tmp_path]
    command += ["--outcome" if script == "run_trial" else "--out", tmp_path / "results" / "out"]
    ended = subprocess.run(command, capture_output=True, text=True)
    said = f"error: {path}: engine is 'blok': write blocks or bipartite or reference or trimmed\n"
    assert (ended.returncode, ended.stderr) == (2, said)
    assert not (tmp_path / "results").exists()
