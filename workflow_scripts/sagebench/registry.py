"""What the benchmark can be extended by: a module in the kind's package, found by its name.

A module belongs to a kind by a declaration at its top, such as MODEL = "what it is", beside other
literals in upper case (OPTIONS, REQUIRES, ...). These are read without running the file, so that a
plan needs no torch; the module is imported where it is used. Standard library only.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Mapping
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from sagebench.errors import UserError

KINDS: Mapping[str, tuple[str, str]] = {
    "model": ("models", "MODEL"),
    "engine": ("engines", "ENGINE"),
    "sampler": ("sampling", "SAMPLER"),
    "device sampler": ("sampling.device", "SAMPLER"),
}
"""the package of each kind, below sagebench, and its declaration"""
RECORDED_AS: Mapping[str, str] = {"sagebench": "uniform"}
"""names in trials that are older than the present ones"""


def names(kind: str) -> tuple[str, ...]:
    """All of a kind, in alphabetical order."""
    return tuple(sorted(_modules(kind)))


def declared(kind: str, name: str) -> dict[str, Any]:
    """The upper-case literals at the top of a module, by name; its kind's is what it is, in words.

    Raises UserError for a name that is not known.
    """
    try:
        return _modules(kind)[RECORDED_AS.get(name, name)]
    except KeyError:
        known = names(kind)
        near = difflib.get_close_matches(name, known, n=1)
        raise UserError(
            f"{kind} '{name}' is not known: write {near[0] if near else ' or '.join(known)}"
        ) from None


def load(kind: str, name: str) -> ModuleType:
    """The module, imported. Raises UserError for a name that is not known."""
    declared(kind, name)
    module = RECORDED_AS.get(name, name)
    return import_module(f"sagebench.{KINDS[kind][0]}.{module}")


@lru_cache
def _modules(kind: str) -> dict[str, dict[str, Any]]:
    """Literals of the modules that have the kind's declaration."""
    package, declaration = KINDS[kind]
    folder = Path(__file__).parent / package.replace(".", "/")
    literals = {path.stem: _literals(path) for path in folder.glob("*.py")}
    return {name: values for name, values in literals.items() if declaration in values}


def _literals(path: Path) -> dict[str, Any]:
    found = {}
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if name.isupper():
                try:
                    found[name] = ast.literal_eval(value)
                except ValueError:  # computed: no declaration
                    continue
    return found
