"""Figures of the report, found by listing this folder: a module each, named as its files.

A module has these literals at its top, which Snakemake's parse reads without running it: TITLE;
CAPTION, how to read it; AXIS, of the experiments that it draws (None: it draws every trial); and
ORDER among the figures of its axis. Its `draw(trials, epochs, not_run)` gets the trials of that
axis with their `series`, all epochs, and the trials that were left out; it returns a `Drawing`, or
a sentence that says why there is nothing to draw. Helpers begin with an underscore.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import NamedTuple

HEADINGS = {
    "batch_size": "Batch size and accumulation",
    "fanout": "Fanout",
    "ranks": "Scaling",
    None: "Predictions",
}
"""what figures stand under, by axis"""


class Declaration(NamedTuple):
    """What a figure's module says of it."""

    name: str
    title: str
    caption: str
    axis: str | None
    order: int


@cache
def declared() -> list[Declaration]:
    """Every figure, in the order of the report."""
    found = [_declaration(path) for path in Path(__file__).parent.glob("[!_]*.py")]
    return sorted(found, key=lambda one: (list(HEADINGS).index(one.axis), one.order, one.name))


def _declaration(path: Path) -> Declaration:
    literals = {
        node.targets[0].id.lower(): ast.literal_eval(node.value)
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id.lower() in Declaration._fields
    }
    return Declaration(path.stem, **literals)
