"""Which site a call of Snakemake means."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from sagebench.grid.jobs import profile_site, shell_command


@pytest.fixture
def profile(tmp_path, monkeypatch):
    monkeypatch.delenv("SNAKEMAKE_PROFILE", raising=False)
    folder = tmp_path / "my profile"
    folder.mkdir()
    for name in ("config.yaml", "site.yaml"):
        (folder / name).write_text("")
    return folder


@pytest.mark.parametrize(
    "arguments",
    [
        ["snakemake", "--profile", "{}"],
        ["snakemake", "-n", "--profile={}", "--config", "results=elsewhere"],
        ["snakemake", "--profile", "{}/config.yaml"],
        ["snakemake", "--profile", "another", "--profile", "{}"],
    ],
)
def test_the_site_lies_beside_the_profile(profile, arguments):
    given = [argument.format(profile) for argument in arguments]
    assert profile_site(given) == str(profile / "site.yaml")


def test_the_profile_may_come_from_the_environment(profile, monkeypatch):
    monkeypatch.setenv("SNAKEMAKE_PROFILE", str(profile))
    assert profile_site(["snakemake", "all"]) == str(profile / "site.yaml")


@pytest.mark.parametrize("arguments", [[], ["snakemake"], ["snakemake", "--profile", "nowhere"]])
def test_without_one_there_is_no_site(profile, arguments):
    assert profile_site(arguments) is None


OPTIONS = ["--profile", "profiles/my site", "--config", "study=$(x)"]
AS_TYPED = "--profile 'profiles/my site' --config 'study=$(x)'"


@pytest.mark.parametrize(
    ("program", "typed"),
    [
        (".venv/bin/snakemake", ".venv/bin/snakemake"),  # as make calls it
        ("{here}/.venv/bin/snakemake", ".venv/bin/snakemake"),  # in an activated environment
        ("/opt/python/bin/snakemake", "snakemake"),
        ("/opt/python/lib/snakemake/__main__.py", "snakemake"),  # python -m snakemake
    ],
)
def test_the_command_can_be_typed_in_the_projects_folder(tmp_path, monkeypatch, program, typed):
    monkeypatch.delenv("SNAKEMAKE_PROFILE", raising=False)
    monkeypatch.chdir(tmp_path)
    command = shell_command([program.format(here=tmp_path), *OPTIONS], tmp_path)
    assert command == f"{typed} {AS_TYPED}"


def test_the_module_of_a_projects_own_environment_is_typed_as_its_program(monkeypatch):
    monkeypatch.delenv("SNAKEMAKE_PROFILE", raising=False)
    folder = Path(sys.executable).parents[2]
    typed = Path(sys.executable).with_name("snakemake").relative_to(folder)
    assert shell_command(["/x/snakemake/__main__.py", "-n"], folder) == f"{typed} -n"


def test_a_profile_from_the_environment_is_part_of_the_command(monkeypatch, tmp_path):
    monkeypatch.setenv("SNAKEMAKE_PROFILE", "profiles/my site")
    command = shell_command(["/opt/snakemake", "all"], tmp_path)
    assert command == "SNAKEMAKE_PROFILE='profiles/my site' snakemake all"
