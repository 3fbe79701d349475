"""The configuration file: YAML read strictly, one file laid over another, checked; its schema."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib import import_module, reload
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import yaml

from sagebench import registry
from sagebench.errors import UserError
from sagebench.grid.values import checked

if TYPE_CHECKING:
    from sagebench.grid.study_types import Configuration

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _StrictLoader(_Base):
    """PyYAML keeps the last of two equal keys and says nothing; here that is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                raise UserError(
                    f"{node.start_mark.name}, line {key.start_mark.line + 1}: "
                    f"{key.value} is given twice: write it once, or give it another name."
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The mapping in a YAML file; raises UserError where it is none, or holds a key twice."""
    try:
        with Path(path).open(encoding="utf-8") as file:
            values = yaml.load(file, Loader=_StrictLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}): write the path of a file.") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: of a single value
        problem = " ".join(str(error).split())  # of several lines, the place among them
        raise UserError(f"{path} is no YAML ({problem}): write key: value.") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no keys: write keys and their values, key: value.")
    return values


def read_configuration(paths: Sequence[str | os.PathLike[str]]) -> dict[str, Any]:
    """Files laid over each other, the last on top, each over what it extends."""
    values: dict[str, Any] = {}
    for path in paths:
        values = merged(values, _extended(Path(path), ()))
    return values


def merged(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """`top` over `base`: mappings are merged, everything else and data sets are replaced."""
    result = dict(base)
    for key, value in top.items():
        below = result.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping) and key != "dataset":
            value = merged(below, value)
        result[key] = value
    return result


def _extended(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in above:
        raise UserError(f"{path} extends itself: write extends with another file's name.")
    values = read_yaml(path)
    if isinstance(values.get("plugins"), list):  # their files are named from where it is itself
        beside = ((plugin, path.parent / str(plugin)) for plugin in values["plugins"])
        values["plugins"] = [str(file) if file.exists() else name for name, file in beside]
    name = values.pop("extends", None)
    if name is None:
        return values
    if not isinstance(name, str) or not (path.parent / name).is_file():
        raise UserError(
            f"{path}: extends is {name!r}, which is no file beside it: "
            "write the name of a configuration file, e.g. config.yaml."
        )
    base = _extended(path.parent / name, (*above, path.resolve()))
    found = merged(base, values)
    experiments = found.get("experiments")
    if isinstance(experiments, dict):  # null: without this one of the other file
        others = base.get("experiments") or {}
        left_out = {one for one, values in experiments.items() if values is None}
        if unknown := sorted(left_out - others.keys()):
            raise UserError(
                f"{path}: experiments.{unknown[0]} is null, and {name} has no such experiment "
                f"to leave out: write one of {', '.join(others)}."
            )
        found["experiments"] = {n: one for n, one in experiments.items() if n not in left_out}
    return found


def types() -> ModuleType:
    """sagebench.grid.study_types, whose types are those of the plug-ins of now."""
    module = import_module("sagebench.grid.study_types")
    return module if registry.plugins() == module.PLUGINS else reload(module)


def validate(values: Mapping[str, Any]) -> Configuration:
    """The configuration in `values`; raises UserError with one sentence for each bad value."""
    return checked(types().Configuration, values)


def checked_dataset(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A data set's spec, complete; raises UserError with one sentence for each bad value."""
    return checked(types().DatasetAlone, {"dataset": spec}).dataset.model_dump()


def json_schema() -> dict[str, Any]:
    """The JSON schema of a configuration file, for editors."""
    schema = types().Configuration.model_json_schema(by_alias=True)
    named = schema["properties"]["experiments"]["patternProperties"]
    for pattern, experiment in named.items():  # null leaves out one of the file that is extended
        named[pattern] = {"anyOf": [experiment, {"type": "null"}]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
