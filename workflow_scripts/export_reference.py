"""Write docs/reference.md: what a study can name, with its keys, and the columns of the tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sagebench import registry
from sagebench.analysis.columns import EPOCH_COLUMNS, SLURM_COLUMNS, TRIAL_COLUMNS, Column
from sagebench.errors import run_script, script_parser
from sagebench.files import write_atomic

Takes = Callable[[Mapping[str, Any]], str]
"""words for what a module may be combined with, from its declaration"""

HEAD = """\
# Names and columns

Made by `python workflow_scripts/export_reference.py` from the modules' own declarations: change
those. [Configuration](configuration.md) has the other keys, [Extending](extending.md) says how to
add a name.
"""


def reference() -> str:
    """The page."""
    lines = (
        HEAD,
        *_named("Models: key `model`", "model", _model_takes),
        *_keys("The keys of a model", "model"),
        *_named("Methods: key `method`", "method"),
        *_named("Engines: key `engine`", "engine", _engine_takes),
        *_named("Samplers: key `sampler`", "sampler"),
        *_named("Data sets: key `source` of `dataset`", "source"),
        *_keys("The keys of a data set", "source"),
        *_figures("Figures: files in `results/STUDY/figures/`"),
        *_columns("Columns of the table `trials`: a row a trial", TRIAL_COLUMNS),
        *_columns("Further columns of `trials` on a cluster", SLURM_COLUMNS),
        *_columns("Columns of the table `epochs`: a row a trial and epoch", EPOCH_COLUMNS),
    )
    return "\n".join(lines).rstrip() + "\n"


def _model_takes(declared: Mapping[str, Any]) -> str:
    restricted = {"engines": "ENGINES", "aggregators": "AGGREGATORS"}
    return "; ".join(
        f"{what} {_ticked(declared[key])}" for what, key in restricted.items() if key in declared
    )


def _engine_takes(declared: Mapping[str, Any]) -> str:
    samplers = (
        name
        for name in registry.names("sampler")
        if registry.declared("sampler", name)["GIVES"] in declared["TAKES"]
    )
    return "samplers " + _ticked(samplers)


def _named(heading: str, kind: str, takes: Takes | None = None) -> list[str]:
    head, rows = ["name", "what"], []
    for name in registry.names(kind):
        rows.append([f"`{name}`", registry.described(kind, name)])
        if takes:
            rows[-1].append(takes(registry.declared(kind, name)))
    return _table(heading, [*head, "takes"] if takes else head, rows)


def _figures(heading: str) -> list[str]:
    rows = []
    for name in registry.names("figure"):
        declared = registry.declared("figure", name)
        rows.append([f"`{name}`", declared["TITLE"], declared["CAPTION"]])
    return _table(heading, ["name", "title", "what"], rows)


def _keys(heading: str, kind: str) -> list[str]:
    rows = []
    for name in registry.names(kind):
        for key, option in registry.declared(kind, name).get("OPTIONS", {}).items():
            default = f"`{json.dumps(option['default'])}`" if "default" in option else ""
            rows.append([f"`{name}`", f"`{key}`", default, _bounded(option)])
    return _table(heading, [kind, "key", "default", "what"], rows)


def _bounded(option: Mapping[str, Any]) -> str:
    said = option["help"]
    if "choices" in option:
        said += "; " + _ticked(option["choices"])
    if "divides" in option:
        said += f"; a divisor of `{option['divides']}`"
    return said


def _columns(heading: str, columns: Iterable[Column]) -> list[str]:
    rows = [[f"`{column.name}`", str(column.type), column.meaning] for column in columns]
    return _table(heading, ["column", "type", "what"], rows)


def _table(heading: str, head: list[str], rows: list[list[str]]) -> list[str]:
    lines = [" | ".join(row) for row in (head, ["---"] * len(head), *rows)]
    return [f"## {heading}", "", *(f"| {line} |" for line in lines), ""]


def _ticked(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--out", default="docs/reference.md", help="default: %(default)s")
    write_atomic(parser.parse_args().out, reference())


if __name__ == "__main__":
    run_script(main)
