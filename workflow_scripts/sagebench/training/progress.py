"""How far a rank is: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

from sagebench.records import Epoch

Item = TypeVar("Item")
LINE_EVERY_S = 30.0


class Progress:
    """Speaks for rank 0 only; the other ranks' are quiet."""

    def __init__(self, speaks: bool) -> None:
        self.speaks = speaks
        self.bar = speaks and sys.stderr.isatty()

    def say(self, text: str) -> None:
        if self.bar:
            tqdm.write(text, file=sys.stderr)
        elif self.speaks:
            print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)

    def over(self, items: Iterable[Item], total: int, title: str) -> Iterator[Item]:
        """`items`, with the bar or a line every half minute."""
        if self.bar:
            yield from tqdm(items, total=total, desc=title, leave=False, unit="batch")
            return
        start = last = time.monotonic()
        for done, item in enumerate(items):
            yield item
            now = time.monotonic()
            if now - last > LINE_EVERY_S:
                last = now
                left = (now - start) / (done + 1) * (total - done - 1)
                self.say(f"{title}: {done + 1} of {total} batches, about {left:.0f} s left")


def epoch_line(epoch: Epoch, epochs: int) -> str:
    """One epoch in one line of a log."""
    line = (
        f"epoch {epoch.epoch:>3} of {epochs}   loss {epoch.loss:.4f}   "
        f"train accuracy {epoch.train_accuracy:.4f}   {epoch.time_s:.2f} s"
    )
    if epoch.validation_accuracy is not None:
        line += f"   validation {epoch.validation_accuracy:.4f} in {epoch.evaluation_s:.2f} s"
    return line
