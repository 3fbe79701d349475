"""The container's command line and the modules before it; paths and names are never code."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest
from sagebench.errors import UserError
from sagebench.launch import container
from sagebench.launch.container import (
    container_command,
    loaded_environment,
    mount,
)

AWFUL = 'it\'s a "b" $(touch ran) `touch ran`; touch ran & | * , : = \\ é'


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / AWFUL).mkdir()
    (tmp_path / AWFUL / "image.sif").write_text("")
    return {
        "image": str(tmp_path / AWFUL / "image.sif"),
        "apptainer": "apptainer",
        "device": "cpu",
        "container_options": ["--no-home"],
        "binds": [str(tmp_path / AWFUL)],
    }


@pytest.mark.parametrize("folder", ["/plain", f"/{AWFUL}", '/a,b"c"', "/-rf"])
def test_a_bound_folder_is_one_line_of_csv(folder):
    (fields,) = csv.reader([mount(folder)])
    assert fields == ["type=bind", f"source={folder}", f"destination={folder}"]


def test_the_whole_command(site, tmp_path):
    folders = [Path("/results"), Path(site["binds"][0])]
    assert container_command(site, ["python", "x y"], folders) == [
        *("apptainer", "-q", "exec", "--no-home"),
        f"--mount={mount(site['binds'][0])}",  # once, though it is asked for twice
        f"--mount={mount('/results')}",
        *("--pwd", str(tmp_path), site["image"]),
        *("python", "x y"),
    ]
    on_gpus = container_command({**site, "device": "cuda"}, ["python"], [])
    assert on_gpus[3] == "--nv"


def test_an_image_behind_a_link_is_named_by_where_it_lies(site, tmp_path):
    (tmp_path / "link.sif").symlink_to(site["image"])
    command = container_command({**site, "image": "link.sif"}, ["python"], [])
    assert command[-2] == site["image"]


def refusal(site):
    with pytest.raises(UserError) as raised:
        container_command(site, ["python"], [])
    (sentence,) = str(raised.value).splitlines()
    return sentence


def test_a_missing_bind_is_named_with_its_node(site):
    sentence = refusal({**site, "binds": ["/gone"]})
    assert sentence.startswith("/gone is listed under binds and does not exist on ")
    assert os.uname().nodename in sentence
    assert "correct binds" in sentence


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """A login shell that knows `module`: it notes its arguments and loads `good` ones."""
    home = tmp_path / "home"
    home.mkdir()
    (home / ".bash_profile").write_text(
        'module() { printf "%s\\n" "$@" > "$HOME/asked"; case "$*" in *bad*) '
        'echo "Lmod has detected: The following module(s) are unknown" >&2; return 1;; esac; '
        'export LOADED="a b\n$2"; func() { :; }; export -f func; }\n'
        "unset BASH_ENV\n"  # by which a machine's own `module` would come back
    )
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    return home


def test_without_modules_the_environment_stays(monkeypatch):
    monkeypatch.setenv("SOME", AWFUL)
    assert loaded_environment([]) == dict(os.environ)


def test_modules_change_the_environment_and_their_names_are_no_code(modules, tmp_path, monkeypatch):
    monkeypatch.setenv("SOME", AWFUL)
    found = loaded_environment(["env/release", AWFUL])
    assert (modules / "asked").read_text().splitlines() == ["load", "env/release", AWFUL]
    assert found["LOADED"] == "a b\nenv/release"
    assert found["SOME"] == AWFUL
    assert not [name for name in found if "func" in name]  # no variable that a shell would run
    assert not list(tmp_path.rglob("ran"))


def test_a_module_that_is_not_there_is_told_in_its_own_words(modules):
    with pytest.raises(UserError) as raised:
        loaded_environment(["bad/1.0"])
    sentence = str(raised.value)
    assert "`module load bad/1.0` failed on " in sentence
    assert "The following module(s) are unknown" in sentence
    assert "correct modules" in sentence


def test_modules_that_hang_are_given_up(modules, monkeypatch):
    (modules / ".bash_profile").write_text("module() { sleep 60; }; unset BASH_ENV\n")
    monkeypatch.setattr(container, "MODULES_LIMIT_S", 1)
    with pytest.raises(UserError, match="took longer than 1 s"):
        loaded_environment(["slow"])
