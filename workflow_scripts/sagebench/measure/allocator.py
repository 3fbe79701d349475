"""How torch takes a GPU's memory, by the variables that it reads: in segments that can grow or not.

What the variables say of it themselves has the last word over what a site asks for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

NAMES = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")
"""in the order in which torch looks. Before 2.9 it knows the first alone; 2.9 obeys the first
alone, and up to 2.11 warns of it, unless the second is there too"""
KEY = "expandable_segments"


def expandable_segments(environment: Mapping[str, str], asked: bool) -> bool:
    """Whether ranks of this environment, at a site that `asked` for it or not, have such."""
    own = re.search(rf"{KEY}\s*:\s*(\w+)", settings(environment))
    return own[1].lower() == "true" if own else asked


def allocator_environment(environment: Mapping[str, str], asked: bool) -> dict[str, str]:
    """The variables to put over `environment` so that torch does as the site asks."""
    own = settings(environment)
    if not asked or KEY in own:
        return {}
    return dict.fromkeys(NAMES, ",".join(filter(None, [own, f"{KEY}:True"])))


def settings(environment: Mapping[str, str]) -> str:
    """What the variables say, "" where they say nothing."""
    return next((environment[name] for name in NAMES if environment.get(name)), "")
