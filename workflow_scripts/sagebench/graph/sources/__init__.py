"""Where graphs come from: one module a source, found by its name.

A source's module has `OPTIONS`, what a data set's spec may hold beside `name` and `source`, and
`load(spec, downloads)`, which makes of a checked spec what `write_store` takes (without `source`);
`downloads` is a folder for archives, kept for the next build. A module whose name begins with an
underscore is no source.

OPTIONS is a literal, read without importing the module, so that a configuration is checked without
what the source needs. It maps a key to its `type` (choice, flag, switch, path, sha256, number,
whole or seed; grid/configuration.py), `help`, `default` (without one the key is required; None: it
may be null), and what bounds the type: `choices`; `low`, `high` and `example` of a whole number;
`gt`, `ge`, `lt`, `le` and `example` of another.
"""

from __future__ import annotations

import ast
import pkgutil
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def names() -> list[str]:
    """The sources there are."""
    found = pkgutil.iter_modules(__path__)
    return sorted(module.name for module in found if not module.name.startswith("_"))


def declaration(name: str) -> tuple[str, dict[str, dict[str, Any]]]:
    """The first line of a source's docstring, and its OPTIONS."""
    tree = ast.parse(Path(find_spec(f"{__name__}.{name}").origin).read_text())
    (options,) = (
        statement.value
        for statement in tree.body
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "OPTIONS"
    )
    return ast.get_docstring(tree).splitlines()[0], ast.literal_eval(options)


def load(spec: Mapping[str, Any], downloads: Path) -> dict[str, Any]:
    """The graph that a checked `spec` names, as keyword arguments of `write_store`."""
    return import_module(f"{__name__}.{spec['source']}").load(spec, downloads)
