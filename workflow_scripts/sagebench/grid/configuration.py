"""The configuration file: what a study's YAML may hold, checked, and its JSON schema."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any

from sagebench import registry
from sagebench.grid.strict import Strict, checked

if TYPE_CHECKING:
    from sagebench.grid.study_types import Configuration


def types() -> ModuleType:
    """sagebench.grid.study_types, for the plug-ins of now."""
    return _types(registry.plugins())


@cache
def _types(plugins: tuple[str, ...]) -> ModuleType:
    spec = find_spec("sagebench.grid.study_types")
    # A name of its own: pydantic looks up the annotations in the module of that name.
    spec.name = f"{spec.name}:{':'.join(plugins)}"
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.name = spec.name
    spec.loader.exec_module(module)
    return module


def validate(values: Mapping[str, Any]) -> Configuration:
    """The configuration in `values`; raises UserError with one sentence for each bad value."""
    return _checked(types().Configuration, values)


def checked_dataset(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A data set's spec, complete; raises UserError with one sentence for each bad value."""
    return _checked(types().DatasetAlone, {"dataset": spec}).dataset.model_dump()


def _checked(model: type[Strict], values: Any) -> Any:
    return checked(model, values, tags=types().SOURCES)


def json_schema() -> dict[str, Any]:
    """The JSON schema of a configuration file, for editors."""
    schema = types().Configuration.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
