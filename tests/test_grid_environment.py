"""Which site a call of Snakemake means."""

from __future__ import annotations

import sys

import pytest
from sagebench.grid.environment import profile_site, typed_command


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
    ("python", "typed"),
    [
        ("{here}/.venv/bin/python", ".venv/bin/snakemake"),  # as make calls it
        ("/opt/python/bin/python", "snakemake"),
    ],
)
def test_the_command_can_be_typed_in_the_projects_folder(tmp_path, monkeypatch, python, typed):
    monkeypatch.delenv("SNAKEMAKE_PROFILE", raising=False)
    monkeypatch.setattr(sys, "executable", python.format(here=tmp_path))
    command = typed_command(["/any/path/snakemake", *OPTIONS], tmp_path)
    assert command == f"{typed} {AS_TYPED}"


def test_a_profile_from_the_environment_is_part_of_the_command(monkeypatch, tmp_path):
    monkeypatch.setenv("SNAKEMAKE_PROFILE", "profiles/my site")
    command = typed_command(["/opt/snakemake", "all"], tmp_path)
    assert command == "SNAKEMAKE_PROFILE='profiles/my site' snakemake all"
