"""What a test needs and the machine does not have, by the hooks of conftest.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TESTS = """
import pytest

@pytest.mark.needs("g++")
@pytest.mark.parametrize("n", range(2))
def test_that_compiles(n): pass

@pytest.mark.needs("chromium")
def test_that_looks(chromium): assert chromium.endswith("/chromium")

def test_that_needs_nothing(): pass
"""


@pytest.fixture
def run(tmp_path):
    """Run TESTS where only these programs are; what pytest said, and its exit code."""
    (tmp_path / "test_needs.py").write_text(TESTS)

    def run(*programs: str, required: str = "") -> tuple[str, int]:
        path = tmp_path / "bin"
        path.mkdir()
        for program in programs:
            (path / program).touch(mode=0o755)
        command = [sys.executable, "-m", "pytest", "-n", "0", "-p", "conftest"]
        done = subprocess.run(
            [*command, "-c", ROOT / "pyproject.toml", "--rootdir", tmp_path, tmp_path],
            env={
                **os.environ,
                "PATH": str(path),
                "PYTHONPATH": str(ROOT / "tests"),
                "SAGEBENCH_REQUIRE": required,
            },
            capture_output=True,
            text=True,
        )
        return done.stdout + done.stderr, done.returncode

    return run


def test_a_test_is_skipped_without_what_it_needs(run):
    said, code = run()
    *_, summed_up, closing = said.splitlines()
    assert summed_up == "skipped for want of g++ (2), chromium (1)"
    assert closing.startswith("1 passed, 3 skipped in ") and code == 0


def test_a_test_runs_with_what_it_needs(run):
    said, code = run("clang++", "chromium")
    assert "4 passed in " in said and "skipped" not in said and code == 0


def test_what_is_required_is_not_skipped(run):
    said, code = run("chromium", required="g++ chromium")
    assert said.strip() == (
        "ERROR: SAGEBENCH_REQUIRE lists g++, which is not here: install it, or take it from the "
        "list to skip its tests"
    )
    assert code == pytest.ExitCode.USAGE_ERROR


def test_what_no_test_can_need_is_not_required(run):
    said, code = run(required="cc")
    assert (
        said.strip() == "ERROR: SAGEBENCH_REQUIRE lists cc: write some of g++, gcc, chromium, cuda"
    )
    assert code == pytest.ExitCode.USAGE_ERROR
