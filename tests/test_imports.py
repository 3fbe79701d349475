"""Imports between the library's packages run one way."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import tomllib
from sagebench import __version__

LIBRARY = Path(__file__).parents[1] / "workflow_scripts" / "sagebench"


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


def test_no_circle_of_imports_between_modules_or_packages():
    modules = {
        ".".join(path.relative_to(LIBRARY).with_suffix("").parts): imported(path)
        for path in LIBRARY.rglob("*.py")
    }
    packages: dict[str, set[str]] = {}
    for module, others in modules.items():
        package = module.split(".")[0]
        packages.setdefault(package, set()).update(other.split(".")[0] for other in others)
        packages[package].discard(package)
    assert len(modules) > 100
    for graph in (modules, packages):
        TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_the_version_stands_once():
    project = tomllib.loads((LIBRARY.parents[1] / "pyproject.toml").read_text())["project"]
    assert project["version"] == __version__
