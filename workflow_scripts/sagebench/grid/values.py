"""The types of single values, each of which can say what to write instead of a bad one."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from sagebench.grid.trial_file import one_of

PLAIN_NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,59}$"

# What a trial can hold: larger ones would be planned, and fail once they run.
COUNT_MAX = 2**31 - 1
SEED_MAX = 2**63 - 1
HOP_MAX = 10_000
"""neighbors of one hop, where it is not every one"""


def wanted(what: str) -> PydanticCustomError:
    """The error of a bad value; `what` completes the sentence "write ..."."""
    return PydanticCustomError("wanted", "{what}", {"what": what})


def whole(low: int, example: int, high: int = COUNT_MAX) -> Any:
    """An int from `low` to `high`, both included; 128.0 is one, "128" and true are none."""

    def check(value: Any) -> int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        if is_whole and low <= value <= high:
            return value
        # A bound that is far off only helps whoever went beyond it.
        both = high < COUNT_MAX or (is_whole and value > high)
        bounds = f"from {low} to {high}" if both else f"of at least {low}"
        hint = _unquoted(value, example, lambda shown: low <= shown <= high)
        raise wanted(f"a whole number {bounds}, e.g. {hint}")

    return Annotated[int, Field(ge=low, le=high), BeforeValidator(check)]


def number(
    example: float, *, above: float | None = None, low: float | None = None,
    below: float | None = None, high: float | None = None,
) -> Any:  # fmt: skip
    """A finite float between the bounds (above and below: excluded; low and high: included)."""
    bounds = " and ".join(
        f"{word} {bound}"
        for word, bound in (
            ("above", above),
            ("at least", low),
            ("below", below),
            ("at most", high),
        )
        if bound is not None
    )

    def check(value: Any) -> float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if (
            not is_number
            or not _is_finite(value)
            or (above is not None and value <= above)
            or (low is not None and value < low)
            or (below is not None and value >= below)
            or (high is not None and value > high)
        ):
            raise wanted(f"a number {bounds}, e.g. {_unquoted(value, example)}")
        return float(value)

    constraint = Field(gt=above, ge=low, lt=below, le=high)
    return Annotated[float, constraint, BeforeValidator(check)]


def _is_finite(value: float) -> bool:
    """Whether it is a number that a float can hold."""
    try:
        return math.isfinite(value)
    except OverflowError:  # an int of more than 308 digits
        return False


def choice(*options: str) -> Any:
    """One of a few words."""

    def check(value: Any) -> str:
        if value not in options:
            raise wanted(one_of(value, options))
        return value

    return Annotated[Literal[options], BeforeValidator(check)]


def optional(inner: Any, example: float) -> Any:
    """`inner` or null."""

    def check(value: Any) -> Any:
        if isinstance(value, str) and value.lower() in ("none", "off", "no", "nil"):
            raise wanted(f"null for none, or a number, e.g. {example}")
        return value

    return Annotated[inner | None, BeforeValidator(check)]


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise wanted("true or false")
    return value


Flag = Annotated[bool, BeforeValidator(_flag)]


def matching(pattern: str, what: str) -> Any:
    """A text of one form; `what` names the form."""

    def check(value: Any) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise wanted(what)
        return value

    return Annotated[str, Field(pattern=pattern), BeforeValidator(check)]


def _fanout(value: Any) -> tuple[int, ...]:
    example = "a list of one whole number a layer, e.g. [15, 10, 10, 10, 10]"
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        raise wanted(example)
    hops = []
    for hop in value:
        if isinstance(hop, float) and hop.is_integer():
            hop = int(hop)
        if not isinstance(hop, int) or isinstance(hop, bool) or not -1 <= hop <= HOP_MAX:
            raise wanted(
                f"{example} (neighbors a hop, {HOP_MAX} at most: -1 every one, 0 none), "
                f"and not {hop!r} among them"
            )
        hops.append(hop)
    first_zero = hops.index(0) if 0 in hops else len(hops)
    if any(hops[first_zero:]):
        raise wanted(
            f"zeros only at the end, e.g. {hops[:first_zero] + [0] * (len(hops) - first_zero)}: "
            "behind a hop that takes no neighbors there are no nodes to expand"
        )
    return tuple(hops)


Fanout = Annotated[
    tuple[int, ...],
    BeforeValidator(_fanout),
    WithJsonSchema(
        {
            "type": "array",
            "items": {"type": "integer", "minimum": -1, "maximum": HOP_MAX},
            "minItems": 1,
        }
    ),
]


def _name(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(PLAIN_NAME, value):
        raise wanted(
            "a plain name of at most 60 letters, digits, - and _, e.g. "
            + (re.sub(r"[^A-Za-z0-9_-]+", "-", str(value)).strip("-_")[:60] or "batch")
        )
    return value


Name = Annotated[str, Field(pattern=PLAIN_NAME), BeforeValidator(_name)]


def _path(value: Any) -> str:
    if not isinstance(value, str) or not value or re.search(r"^-|[{}\x00-\x1f]", value):
        raise wanted("a path without { } and control characters, and - not first, e.g. data/graph")
    return value


# Spaces, quotes, $ and ` are welcome; a brace would be a wildcard of Snakemake.
FilePath = Annotated[str, Field(min_length=1), BeforeValidator(_path)]


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise wanted("a line of text, in quotes if it holds a colon")
    return value


Text = Annotated[str, BeforeValidator(_text)]


def _unquoted(
    value: Any, example: float, allowed: Callable[[float], bool] = lambda shown: True
) -> str:
    """The number that a text shows, if it is allowed, so that the hint is the user's own value."""
    try:
        shown = float(value) if isinstance(value, str) else None
    except ValueError:
        shown = None
    if shown is None or not math.isfinite(shown) or not allowed(shown):
        return str(example)
    text = f"{int(shown)}" if shown.is_integer() and abs(shown) < 1e15 else f"{shown!r}"
    if "e" in text and "." not in text:
        text = text.replace("e", ".0e")
    return f"{text} without quotes (YAML reads {value} as text)"
