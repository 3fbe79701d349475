"""make and an environment that is not of its own making."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIMIT_S = 60


@pytest.fixture
def checkout(tmp_path) -> Path:
    folder = tmp_path / "my checkout"
    (folder / "envs").mkdir(parents=True)
    shutil.copy(ROOT / "Makefile", folder)
    for name in ("torch.txt", "triton.txt", "requirements.txt"):
        (folder / "envs" / name).touch()
    return folder


def make_install(folder: Path) -> subprocess.CompletedProcess[str]:
    outside = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", "install", f"PYTHON={sys.executable}"],
        cwd=folder,
        env={**outside, "PIP_NO_INDEX": "1"},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )


def complaint(folder: Path) -> str:
    """The one sentence that make ends with, before its own."""
    done = make_install(folder)
    assert done.returncode == 2 and not done.stdout
    sentence, makes_own = done.stderr.splitlines()
    assert makes_own.startswith("make") and sentence.startswith("error: ")
    return sentence


def test_a_link_that_is_up_to_date_is_used(checkout, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "installed").touch()
    (checkout / ".venv").symlink_to(tmp_path / "elsewhere")
    assert make_install(checkout).returncode == 0


@pytest.mark.parametrize("there", [True, False], ids=["to an old one", "to nothing"])
def test_a_link_is_not_filled(checkout, tmp_path, there):
    if there:
        venv.create(tmp_path / "elsewhere")
    (checkout / ".venv").symlink_to(tmp_path / "elsewhere")
    said = complaint(checkout)
    assert f".venv is a link, to {tmp_path / 'elsewhere'}, " in said and "(rm .venv)" in said


def test_what_make_made_is_its_own_until_it_is_moved(checkout, tmp_path):
    assert make_install(checkout).returncode == 0
    assert make_install(checkout).returncode == 0
    moved = checkout.rename(tmp_path / "moved")
    said = complaint(moved)
    assert f".venv was made for another folder than {moved}, " in said and "(rm -r .venv)" in said
