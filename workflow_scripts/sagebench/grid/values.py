"""The types of single values, each of which says what to write instead of a bad one."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    StrictBool,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_core import PydanticCustomError

from sagebench.grid.trial_file import one_of

# What a trial can hold: larger ones would be planned, and fail once they run.
COUNT_MAX = 2**31 - 1
SEED_MAX = 2**63 - 1
HOP_MAX = 10_000
"""neighbors of one hop, where it is not every one"""


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


def _no_text(value: Any) -> Any:
    """To pydantic "128" and true are numbers, too."""
    if isinstance(value, str | bool):
        raise ValueError
    return value


def whole(low: int, example: int, high: int = COUNT_MAX) -> Any:
    """An int from `low` to `high`, both included; 128.0 is one, "128" and true are none."""

    def what(value: Any) -> str:
        # A bound that is far off only helps whoever went beyond it.
        beyond = isinstance(value, int | float) and value > high
        bounds = f"from {low} to {high}" if high < COUNT_MAX or beyond else f"of at least {low}"
        hint = _unquoted(value, example, lambda shown: low <= shown <= high)
        return f"a whole number {bounds}, e.g. {hint}"

    return worded(Annotated[int, Field(ge=low, le=high), BeforeValidator(_no_text)], what)


def number(
    example: float, *, above: float | None = None, low: float | None = None,
    below: float | None = None, high: float | None = None,
) -> Any:  # fmt: skip
    """A finite float between the bounds (above and below: excluded; low and high: included)."""
    words = {"above": above, "at least": low, "below": below, "at most": high}
    bounds = " and ".join(f"{word} {bound}" for word, bound in words.items() if bound is not None)
    constraint = Field(gt=above, ge=low, lt=below, le=high, allow_inf_nan=False)
    return worded(
        Annotated[float, constraint, BeforeValidator(_no_text)],
        lambda value: f"a number {bounds}, e.g. {_unquoted(value, example)}",
    )


def choice(*options: str) -> Any:
    """One of a few words."""
    return worded(Literal[options], lambda value: one_of(value, options))


def optional(inner: Any, example: float) -> Any:
    """`inner` or null."""

    def check(value: Any) -> Any:
        if isinstance(value, str) and value.lower() in ("none", "off", "no", "nil"):
            raise wanted(f"null for none, or a number, e.g. {example}")
        return value

    return Annotated[inner | None, BeforeValidator(check)]


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


def _fanout(value: Any, validate: ValidatorFunctionWrapHandler) -> tuple[int, ...]:
    example = "a list of one whole number a layer, e.g. [15, 10, 10, 10, 10]"
    try:
        hops = validate(value)
    except ValidationError as error:
        bad = error.errors()[0]
        if not bad["loc"]:
            raise wanted(example) from None
        raise wanted(
            f"{example} (neighbors a hop, {HOP_MAX} at most: -1 every one, 0 none), "
            f"and not {bad['input']!r} among them"
        ) from None
    first_zero = hops.index(0) if 0 in hops else len(hops)
    if any(hops[first_zero:]):
        good = [*hops[:first_zero], *[0] * (len(hops) - first_zero)]
        raise wanted(
            f"zeros only at the end, e.g. {good}: "
            "behind a hop that takes no neighbors there are no nodes to expand"
        )
    return hops


_Hop = Annotated[int, Field(ge=-1, le=HOP_MAX), BeforeValidator(_no_text)]
Fanout = Annotated[tuple[_Hop, ...], Field(min_length=1), WrapValidator(_fanout)]


def _unquoted(
    value: Any, example: float, allowed: Callable[[float], bool] = lambda shown: True
) -> str:
    """The number that a text shows, if it is allowed, so that the hint is the user's own value."""
    try:
        shown = float(value) if isinstance(value, str) else math.nan
    except ValueError:
        shown = math.nan
    if not math.isfinite(shown) or not allowed(shown):
        return str(example)
    text = f"{int(shown)}" if shown.is_integer() and abs(shown) < 1e15 else f"{shown!r}"
    if "e" in text and "." not in text:
        text = text.replace("e", ".0e")
    return f"{text} without quotes (YAML reads {value} as text)"
