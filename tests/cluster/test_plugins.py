"""A model, an engine and a method from outside of the checkout, in the container of the jobs."""

from __future__ import annotations

import re

import pytest
from project import ROOT, TINY

DOCS = (ROOT / "docs" / "extending.md").read_text()
EXAMPLES = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", DOCS, re.DOTALL))
TRAINED = {"model": "shared_weights", "engine": "in_turn", "kept": 0.25}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    for name, code in EXAMPLES.items():
        (folder / name).write_text(code)
    return folder


def test_the_examples_of_the_documentation_run_as_jobs(project, folder):
    experiments = {
        "training": {"axis": "ranks", "fixed": TRAINED, "product": {"ranks": [1, 2]}},
        "voting": {"axis": "rounds", "fixed": {"method": "vote"}, "product": {"rounds": [1, 3]}},
    }
    project.configure({**TINY, "plugins": [str(folder)], "experiments": experiments})
    project.run("trials")
    outcomes = project.outcomes().values()
    assert {outcome["status"] for outcome in outcomes} == {"completed"}
    assert len(outcomes) == 4
    for outcome in outcomes:
        assert len(outcome["provenance"]["plugins"]) == len(EXAMPLES)
        assert outcome["provenance"]["image_digest"]
