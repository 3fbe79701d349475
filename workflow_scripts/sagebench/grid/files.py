"""Configuration files: YAML read strictly, and one file laid over another."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from sagebench.errors import UserError

_Base = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MERGE = "tag:yaml.org,2002:merge"


class _StrictLoader(_Base):
    """PyYAML keeps the last of two equal keys and says nothing; here that is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == _MERGE or not isinstance(key_node, yaml.ScalarNode):
                continue
            if key_node.value in seen:
                raise UserError(
                    f"{node.start_mark.name}, line {key_node.start_mark.line + 1}: "
                    f"{key_node.value} is there twice: write it once, or give it another name."
                )
            seen.add(key_node.value)
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


def laid_over(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """`top` over `base`: mappings are merged, everything else and data sets are replaced."""
    merged = dict(base)
    for key, value in top.items():
        below = merged.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping) and key != "dataset":
            value = laid_over(below, value)
        merged[key] = value
    return merged


def read_configuration(paths: Sequence[str | os.PathLike[str]]) -> dict[str, Any]:
    """Files laid over each other, the last on top, each over what it extends."""
    values: dict[str, Any] = {}
    for path in paths:
        values = laid_over(values, _extended(Path(path), ()))
    return values


def _beside(path: Path, plugin: Any) -> Any:
    """A plug-in's file or folder, which a configuration names from where it is itself."""
    there = path.parent / str(plugin)
    return str(there) if there.exists() else plugin


def _extended(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in above:
        raise UserError(f"{path} extends itself: write extends with another file's name.")
    values = read_yaml(path)
    if isinstance(values.get("plugins"), list):
        values["plugins"] = [_beside(path, plugin) for plugin in values["plugins"]]
    name = values.pop("extends", None)
    if name is None:
        return values
    if not isinstance(name, str) or not (path.parent / name).is_file():
        raise UserError(
            f"{path}: extends is {name!r}, which is no file beside it: "
            "write the name of a configuration file, e.g. config.yaml."
        )
    return laid_over(_extended(path.parent / name, (*above, path.resolve())), values)
