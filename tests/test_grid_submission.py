"""What is refused before it reaches Slurm."""

from __future__ import annotations

import subprocess

import pytest
from configurations import CLUSTER
from sagebench.errors import UserError
from sagebench.grid.jobs import check_submission, survives_shell
from sagebench.grid.site import validate_site

SITE = validate_site(CLUSTER)
GOOD = {"folder": "/home/me/my own study; x", "python": "/opt/venv-3.11/bin/python", "texts": {}}
CARRIED = [
    "/plain/path",
    "/with spaces and, commas: colons",
    "/with \"double\" quotes; $HOME $(touch x) `touch x` & | * ? [a] # ~ !",
    "/its; x & y * | > z",
    "é 漢 🙂",
]  # fmt: skip
NOT_CARRIED = [
    "/it's $HOME",
    "/it's $(touch x)",
    "/it's `touch x`",
    '/it\'s "this"',
    "/back\\slash",
    "/line\nbreak",
    "/tab\t",
    "/no-break\u00a0space",
    "'looks' quoted; touch x",
]


@pytest.mark.parametrize("text", CARRIED + NOT_CARRIED)
def test_what_is_carried_is_what_a_shell_makes_of_pythons_quotes(text, tmp_path):
    quoted = text if text.startswith("'") else repr(text)  # as Snakemake does
    done = subprocess.run(
        ["sh", "-c", f"printf %s {quoted}"], capture_output=True, text=True, cwd=tmp_path
    )
    arrives = done.stdout == text and not list(tmp_path.iterdir())
    assert survives_shell(text) == (text in CARRIED) == arrives


def refusal(**changes) -> str:
    with pytest.raises(UserError) as raised:
        check_submission(**{"site": SITE, **GOOD, **changes})
    (sentence,) = str(raised.value).splitlines()
    return sentence


def test_good_names_are_submitted():
    check_submission(SITE, **GOOD)
    check_submission(SITE, **{**GOOD, "texts": {"results: the path": CARRIED[2]}})


def test_placeholders_are_named():
    site = validate_site({**CLUSTER, "account": "p200EDIT", "binds": ["/a", "/project/p200EDIT"]})
    sentence = refusal(site=site)
    assert "the site of cluster still holds the placeholder EDIT in account, binds" in sentence
    assert "site.yaml" in sentence


@pytest.mark.parametrize("account", ["EDITO", "CREDIT", "EDITH-2"])
def test_a_name_that_holds_the_placeholder_is_none(account):
    check_submission(validate_site({**CLUSTER, "account": account}), **GOOD)


@pytest.mark.parametrize("account", ["EDIT", "p200EDIT", "EDIT-cluster"])
def test_a_placeholder_may_be_a_part_of_a_value(account):
    assert "in account" in refusal(site=validate_site({**CLUSTER, "account": account}))


def test_a_folder_that_slurm_takes_for_a_pattern():
    assert "the folder /home/me/100%j has a %" in refusal(folder="/home/me/100%j")


@pytest.mark.parametrize("python", ["/my venv/bin/python", "/$(x)/python", "/a;b/python", "/é/p"])
def test_a_python_whose_path_the_shell_would_take_apart(python):
    sentence = refusal(python=python)
    assert python in sentence
    assert "VENV=" in sentence


@pytest.mark.parametrize("text", NOT_CARRIED)
def test_what_would_not_arrive_is_refused_wherever_it_stands(text):
    assert "the folder" in refusal(folder=text)
    assert "results: the path" in refusal(texts={"results: the path": text})


def test_wrapped_commands_carry_less():
    sentence = refusal(folder="/home/$USER", as_script=False)
    assert "slurm-pass-command-as-script: true" in sentence
    check_submission(SITE, **{**GOOD, "folder": "/home/its; x"}, as_script=False)
