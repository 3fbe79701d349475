"""Imports between the library's packages run one way."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import tomllib
from sagebench import __version__

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "workflow_scripts" / "sagebench"
LACKING = ["matplotlib", "seaborn", "snakemake"]
DESIGN = ROOT / "docs" / "design.md"


def imported(path: Path) -> set[str]:
    """Modules of the library that a file imports, wherever in it."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "sagebench":
            below = node.module.removeprefix("sagebench").removeprefix(".")
            names = [f"{below}.{alias.name}".strip(".") for alias in node.names]
            modules |= {name if (module_file(name)).exists() else below for name in names}
    return modules


def module_file(module: str) -> Path:
    return LIBRARY / f"{module.replace('.', '/')}.py"


def imports_of_modules() -> dict[str, set[str]]:
    return {
        ".".join(path.relative_to(LIBRARY).with_suffix("").parts): imported(path)
        for path in LIBRARY.rglob("*.py")
    }


def imports_of_packages() -> dict[str, set[str]]:
    """What each package imports, modules beside the packages left out; theirs is under ""."""
    packages = {path.name for path in LIBRARY.iterdir() if any(path.glob("*.py"))}
    found: dict[str, set[str]] = {name: set() for name in ("", *packages)}
    for module, others in imports_of_modules().items():
        package = module.split(".")[0]
        package = package if package in packages else ""
        found[package] |= {other.split(".")[0] for other in others} & packages - {package}
    return found


def test_no_circle_of_imports_between_modules():
    modules = imports_of_modules()
    assert len(modules) > 100
    TopologicalSorter(modules).prepare()  # raises CycleError, which names the circle


def test_the_page_of_the_design_has_every_package_and_its_imports():
    rows = re.findall(r"^\| `(\w+)/` \| .* \| (.*)\|$", DESIGN.read_text(), re.MULTILINE)
    page = {package: set(re.findall(r"`(\w+)`", cell)) for package, cell in rows}
    packages = imports_of_packages()
    assert packages.pop("") == set(), "modules beside the packages import none of them"
    assert page == packages
    order = list(page)  # the lowest first
    for package, others in page.items():
        assert others <= set(order[: order.index(package)]), f"{package} imports upward"


def test_ranks_need_nothing_that_an_image_lacks():
    """Image: `envs/container.in`, which has neither Snakemake nor what figures need."""
    code = f"""
import sys
sys.modules |= dict.fromkeys({LACKING!r})  # an import of None fails
import sagebench.training.rank, sagebench.methods.minibatch, sagebench.pilot.rank
import sagebench.preflight.rank, sagebench.grid.configuration
from sagebench import registry
for kind in ("engine", "model", "sampler", "source"):
    [registry.load(kind, name) for name in registry.names(kind)]
"""
    path = str(LIBRARY.parent)
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()


def test_the_version_stands_once():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == __version__
