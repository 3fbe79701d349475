"""Write what follows from the code: docs/reference.md, from the modules' declarations and the
columns of the tables, and config/schema.json, from the types that check a configuration."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from sagebench import registry
from sagebench.analysis.columns import (
    EPOCH_COLUMNS,
    NEW_NODE_COLUMNS,
    SLURM_COLUMNS,
    TRIAL_COLUMNS,
    Column,
)
from sagebench.errors import run_script, script_parser
from sagebench.files import write_atomic, write_json
from sagebench.grid.configuration import json_schema, types

HEAD = """\
# Names and columns

Made by `python workflow_scripts/export_docs.py` from the modules' own declarations: change
those. [Configuration](configuration.md) has the other keys, [Extending](extending.md) says how to
add a name.
"""


def main() -> None:
    script_parser(__doc__).parse_args()
    write_atomic("docs/reference.md", reference())
    write_json("config/schema.json", json_schema())


def reference() -> str:
    """The page of names and columns."""
    columns = {
        "Columns of the table `trials`: a row a trial": TRIAL_COLUMNS,
        "Further columns of `trials` on a cluster": SLURM_COLUMNS,
        "Columns of the table `epochs`: a row a trial and epoch": EPOCH_COLUMNS,
        "Columns of the table `new_nodes`: a row a time that new nodes were embedded": (
            NEW_NODE_COLUMNS
        ),
    }
    tables = (
        _table("Models: key `model`", "name what takes", _names("model")),
        _table("The keys of a model", "model key default what", _keys("model")),
        _table("Methods: key `method`", "name what", _names("method")),
        _table("The keys of a method", "method key default what", _keys("method")),
        _table("Engines: key `engine`", "name what takes", _names("engine")),
        _table("Samplers: key `sampler`", "name what", _names("sampler")),
        _table("Data sets: key `source` of `dataset`", "name what", _names("source")),
        _table("The keys of a data set", "source key default what", _keys("source")),
        _table("The keys of every data set", "key what", _keys_of_every_data_set()),
        _table("Figures: files in `results/STUDY/figures/`", "name title what", _figures()),
        *(_table(heading, "column type what", map(_column, of)) for heading, of in columns.items()),
    )
    return "\n".join([HEAD, *tables])


def _names(kind: str) -> Iterator[list[str]]:
    """Each module of a kind, and what models and engines may be combined with."""
    for name in registry.names(kind):
        row, declared = [f"`{name}`", registry.described(kind, name)], registry.declared(kind, name)
        if kind == "model":
            limits = {key: declared.get(key.upper()) for key in ("engines", "aggregators")}
            row.append("; ".join(f"{key} {_ticked(of)}" for key, of in limits.items() if of))
        elif kind == "engine":
            samplers = {one: registry.declared("sampler", one) for one in registry.names("sampler")}
            taken = (one for one, of in samplers.items() if of["GIVES"] in declared["TAKES"])
            row.append("samplers " + _ticked(taken))
        yield row


def _keys(kind: str) -> Iterator[list[str]]:
    for name in registry.names(kind):
        for key, option in registry.declared(kind, name).get("OPTIONS", {}).items():
            default = f"`{json.dumps(option['default'])}`" if "default" in option else ""
            said = option["help"]
            if "choices" in option:
                said += "; " + _ticked(option["choices"])
            if "divides" in option:
                said += f"; a divisor of `{option['divides']}`"
            yield [f"`{name}`", f"`{key}`", default, said]


def _keys_of_every_data_set() -> Iterator[list[str]]:
    for key, (_, text) in types().SET_APART.items():
        yield [f"`{key}`", text]


def _figures() -> Iterator[list[str]]:
    for name in registry.names("figure"):
        declared = registry.declared("figure", name)
        yield [f"`{name}`", declared["TITLE"], declared["CAPTION"]]


def _column(column: Column) -> list[str]:
    return [f"`{column.name}`", str(column.type), column.meaning]


def _table(heading: str, head: str, rows: Iterable[list[str]]) -> str:
    columns = head.split()
    lines = [" | ".join(row) for row in (columns, ["---"] * len(columns), *rows)]
    return "\n".join([f"## {heading}", "", *(f"| {line} |" for line in lines), ""])


def _ticked(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


if __name__ == "__main__":
    run_script(main)
