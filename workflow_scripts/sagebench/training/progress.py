"""Progress of a rank in its log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from sagebench.records import Epoch

Item = TypeVar("Item")
LINE_EVERY_S = 30.0


class Progress:
    """Lines in the log of rank 0; the other ranks are quiet."""

    def __init__(self, speaks: bool) -> None:
        self.speaks = speaks

    def say(self, text: str) -> None:
        if self.speaks:
            print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)

    def over(self, items: Iterable[Item], total: int, title: str) -> Iterator[Item]:
        """`items`, with a line every half minute."""
        start = last = time.monotonic()
        for done, item in enumerate(items, start=1):
            yield item
            now = time.monotonic()
            if now - last > LINE_EVERY_S:
                last = now
                left_s = (now - start) / done * (total - done)
                self.say(f"{title}: {done} of {total} batches, about {left_s:.0f} s left")


def epoch_line(epoch: Epoch, epochs: int) -> str:
    """One epoch in one line of a log."""
    line = (
        f"epoch {epoch.epoch:>3} of {epochs}   loss {epoch.loss:.4f}   "
        f"train accuracy {epoch.train_accuracy:.4f}   {epoch.time_s:.2f} s"
    )
    if epoch.validation_accuracy is not None:
        line += f"   validation {epoch.validation_accuracy:.4f} in {epoch.evaluation_s:.2f} s"
    return line
