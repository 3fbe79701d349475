"""Mappings of a configuration: no keys but their own, and a sentence for each bad value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from sagebench.errors import UserError
from sagebench.grid import messages


class Strict(BaseModel):
    """A mapping with no keys but its own; the error for another one names the nearest."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=False)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            known = [field.alias or name for name, field in cls.model_fields.items()]
            for key in data:
                if key not in known:
                    raise PydanticCustomError("unknown_key", "", {"key": key, "known": known})
        return data


def checked(model: type[Strict], values: Any, root: str = "", tags: Iterable[str] = ()) -> Any:
    """`values` as `model`; raises UserError with one sentence for each bad value.

    root: named before the keys. tags: names of the model's discriminated types.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UserError(messages.sentences(error, tags=tags, root=root)) from None
