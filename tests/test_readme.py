"""Every command of the README and of docs/ is run: here, by .ci/run, or as make's dry run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [README, *(path.read_text() for path in sorted((ROOT / "docs").glob("*.md")))]
LIMIT_S = 240

ELSEWHERE = ("make bench", "make gpu", "make probe", "meluxina")
"""what needs 25 minutes of an idle machine (tests/test_bench.py has it at a tiny size), a GPU, a
download of 1.4 GB or a cluster (tests/cluster runs the same targets)"""


def commands() -> list[str]:
    """The commands of shell blocks and the indented calls of make, without their comments."""
    found = []
    for page in PAGES:
        for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL):
            found += block.splitlines()
        found += re.findall(r"^    (make .*)$", page, re.MULTILINE)
    return list(dict.fromkeys(re.sub(r"\s+#.*", "", line).strip() for line in found))


def runs_here(command: str) -> bool:
    return "mine.yaml" in command or any(word in command for word in (" plan ", " -n ", " status "))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of the checkout with the environment of these tests."""
    copy = tmp_path_factory.mktemp("clone") / "sagebench"
    copy.mkdir()
    for name in ("Snakefile", "Makefile", "rules", "workflow_scripts", "config", "profiles",
                 "container", "envs", "data", "report"):  # fmt: skip
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name)
        else:
            shutil.copy2(source, copy / name)
    (copy / ".venv").symlink_to(sys.prefix)
    for path in (copy / "envs").iterdir():  # make would make another environment of newer ones
        os.utime(path, (0, 0))
    (copy / "mine.yaml").write_text(re.search(r"```yaml\n(# mine\.yaml.*?)```", README, re.S)[1])
    nodes = 900
    rng = np.random.default_rng(0)
    np.savez(
        copy / "mine.npz",
        edge_index=rng.integers(0, nodes, (2, 5000)),
        x=rng.standard_normal((nodes, 8)).astype(np.float32),
        y=np.arange(nodes) % 3,
        train=np.arange(0, 300),
        valid=np.arange(300, 600),
        test=np.arange(600, 900),
    )
    return copy


@pytest.mark.parametrize("command", commands())
def test_command_is_run(command, checkout):
    words = command.split()
    if not runs_here(command):
        if command in (ROOT / ".ci" / "run").read_text().splitlines():
            return
        assert any(one in command for one in ELSEWHERE), f"neither here nor in .ci/run: {command}"
        assert words[0] == "make"
        words = [*re.sub('"[^"]*"', "options", command).split(), "--dry-run"]
    finished = subprocess.run(words, cwd=checkout, capture_output=True, text=True, timeout=LIMIT_S)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    if words[-1].endswith("mine.yaml"):
        assert (checkout / "results" / "mine" / "report.html").exists()
