"""Every command of the README is run: here, or by .ci/run."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
LIMIT_S = 240


def commands() -> list[str]:
    """The commands of the README's shell blocks, without their comments."""
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    lines += re.findall(r"^    (make .*)$", README, re.MULTILINE)
    return [re.sub(r"\s+#.*", "", line).strip() for line in lines]


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
    (copy / "mine.yaml").write_text(re.search(r"```yaml\n(.*?)```", README, re.DOTALL)[1])
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
    if command.startswith("make bench"):
        return  # 25 minutes of an idle machine; tests/test_bench.py runs it at a tiny size
    if command.startswith("make gpu"):
        return  # wants a GPU; .ci/run tries the campaign without one
    if not runs_here(command):
        assert command in (ROOT / ".ci" / "run").read_text().splitlines()
        return
    finished = subprocess.run(
        command.split(), cwd=checkout, capture_output=True, text=True, timeout=LIMIT_S
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    if command.endswith("mine.yaml"):
        assert (checkout / "results" / "mine" / "report.html").exists()


def test_readme_names_every_room():
    rooms = [path.name for path in (ROOT / "workflow_scripts" / "sagebench").iterdir()]
    rooms = [name for name in rooms if "." not in name and not name.startswith("__")]
    assert [name for name in rooms if f"`{name}/`" not in README] == []
