"""The types of single values, each of which says what to write instead of a bad one."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StrictBool,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_core import PydanticCustomError

from sagebench.grid.trial import one_of

# What a trial can hold: larger ones would be planned, and fail once they run.
COUNT_MAX = 2**31 - 1
SEED_MAX = 2**63 - 1
HOP_MAX = 10_000
"""neighbors of one hop, where it is not every one"""

BOUNDS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}


def wanted(what: str) -> PydanticCustomError:
    """The error of a bad value; `what` completes the sentence "write ..."."""
    return PydanticCustomError("wanted", "{what}", {"what": what})


def whole_sentence(text: str) -> PydanticCustomError:
    """The error of a mapping; `text` comes behind its path."""
    return PydanticCustomError("whole_sentence", "{text}", {"text": text})


def worded(kind: Any, what: str | Callable[[Any], str]) -> Any:
    """`kind`, whose error says to write `what`, which may depend on the value."""

    def check(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
        try:
            return validate(value)
        except ValidationError:
            raise wanted(what(value) if callable(what) else what) from None

    return Annotated[kind, WrapValidator(check)]


def whole(low: int, example: int, high: int = COUNT_MAX, *, none: bool = False) -> Any:
    """An int from `low` to `high`, both included, or null where `none`; 128.0 is one, "128" and
    true are none."""
    kind = Annotated[int, Field(ge=low, le=high)]
    return _number(kind, f"a whole number from {low} to {high}", example, none)


def number(example: float, *, none: bool = False, **bounds: float) -> Any:
    """A finite float between `bounds`, by pydantic's names of them, or null where `none`."""
    words = " and ".join(f"{BOUNDS[name]} {bound}" for name, bound in bounds.items())
    kind = Annotated[float, Field(**bounds, allow_inf_nan=False)]
    return _number(kind, f"a number {words}", example, none)


def _number(kind: Any, what: str, example: float, none: bool) -> Any:
    kind = Annotated[kind, BeforeValidator(_no_text)]
    or_null = ", or null for none" if none else ""
    return worded(
        kind | None if none else kind,
        lambda value: f"{what}, e.g. {_unquoted(value) or example}{or_null}",
    )


def _no_text(value: Any) -> Any:
    """To pydantic "128" and true are numbers, too."""
    if isinstance(value, str | bool):
        raise ValueError
    return value


def _unquoted(value: Any) -> str:
    """The number that a text shows, as YAML reads it: the hint is the user's own value."""
    try:
        text = f"{float(value):.15g}" if isinstance(value, str) else "nan"
    except ValueError:
        return ""
    if not math.isfinite(float(text)):
        return ""
    text = text if "." in text else text.replace("e", ".0e")
    return f"{text} without quotes (YAML reads {value} as text)"


def key(default: Any, text: str, alias: str | None = None) -> Any:
    """A key of a mapping, with what it is; it must be given where its default is `...`."""
    return Field(default, description=text, alias=alias)


def choice(*options: str) -> Any:
    """One of a few words."""
    return worded(Literal[options], lambda value: one_of(value, options))


def matching(pattern: str, what: str | Callable[[Any], str]) -> Any:
    """A text of one form; `what` names the form."""
    return worded(Annotated[str, Field(pattern=pattern)], what)


Flag = worded(StrictBool, "true or false")


def _plain_name(value: Any) -> str:
    near = re.sub(r"[^A-Za-z0-9_-]+", "-", str(value)).strip("-_")[:60] or "batch"
    return f"a plain name of at most 60 letters, digits, - and _, e.g. {near}"


Name = matching(r"^[A-Za-z0-9][A-Za-z0-9_-]{0,59}$", _plain_name)
# Spaces, quotes, $ and ` are welcome; a brace would be a wildcard of Snakemake.
FilePath = matching(
    r"^[^{}\x00-\x1f-][^{}\x00-\x1f]*$",
    "a path without { } and control characters, and - not first, e.g. data/graph",
)
Text = matching(r"^[^\x00]*[^\s\x00][^\x00]*$", "a line of text, in quotes if it holds a colon")


def _zeros_last(hops: tuple[int, ...]) -> tuple[int, ...]:
    taken = [hop for hop in hops if hop]
    if 0 in hops[: len(taken)]:
        raise wanted(
            f"zeros only at the end, e.g. {taken + [0] * (len(hops) - len(taken))}: "
            "behind a hop that takes no neighbors there are no nodes to expand"
        )
    return hops


_Hop = Annotated[int, Field(ge=-1, le=HOP_MAX), BeforeValidator(_no_text)]
Fanout = Annotated[
    worded(
        Annotated[tuple[_Hop, ...], Field(min_length=1)],
        "a list of one whole number a layer, e.g. [15, 10, 10, 10, 10] "
        f"(neighbors a hop, {HOP_MAX} at most; -1: every one; 0: none)",
    ),
    AfterValidator(_zeros_last),
]
