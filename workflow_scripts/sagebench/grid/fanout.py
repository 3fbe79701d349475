"""Fanout: how many neighbors are sampled a hop, and its spellings. Standard library only."""

from __future__ import annotations

import math

EVERY = -1
"""takes every neighbor; 0 takes none"""


class Fanout(tuple[int, ...]):
    """Neighbors a hop, from the seed nodes outward, one hop a layer."""

    @classmethod
    def parse(cls, text: str) -> Fanout:
        """Of its text, "15,10,-1". Raises ValueError for anything else."""
        return cls(int(hop) for hop in text.split(","))

    def __str__(self) -> str:
        """ "15,10,-1", as tables have it."""
        return ",".join(map(str, self))

    @property
    def label(self) -> str:
        """ "15·10·all", for people."""
        return "·".join(self._words)

    @property
    def readable(self) -> str:
        """ "15.10.all", as in a trial's id."""
        return ".".join(self._words)

    @property
    def total(self) -> float | None:
        """Product of the hops that take any; None where one takes every neighbor."""
        return None if EVERY in self else float(math.prod(hop for hop in self if hop))

    @property
    def _words(self) -> list[str]:
        return ["all" if hop == EVERY else str(hop) for hop in self]
