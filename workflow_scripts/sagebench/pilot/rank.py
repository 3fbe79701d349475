"""What the one rank of a pilot runs: the window of micro-steps, then validation and test."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Any

from sagebench.files import write_json
from sagebench.measure.memory import release_memory
from sagebench.pilot.records import EVALUATION_PART, WINDOW_PART
from sagebench.pilot.window import WindowTimer
from sagebench.training.setup import RankSetup


class PilotRun(RankSetup):
    """Writes the parts it is asked for into the attempt's folder, each once it is measured, and
    `measured.json`, which describes the machine.

    parts: WINDOW_PART, EVALUATION_PART or both.
    """

    def __init__(self, *arguments: Any, parts: Collection[str]) -> None:
        super().__init__(*arguments)
        self.parts = parts
        self.build()

    def run(self) -> None:
        self.warm_up()
        self.begin_measuring()
        self.describe()
        self.write()
        if WINDOW_PART in self.parts:
            self._measure_window()
        if EVALUATION_PART in self.parts:
            with self.clock("evaluation"):
                self._measure_evaluation()
        self.measured.complete = True
        self.write()

    def _measure_window(self) -> None:
        check = self.deadline.check
        timer = WindowTimer(self.trainer, check, self.note_first_step, self.node_energy_j)
        with self.peak:
            window = timer.measure()
        window["memory"] = self.peak.read()
        window["start_to_first_step_s"] = self.measured.start_to_first_step_s
        write_json(self.directory / WINDOW_PART, window)

    def _measure_evaluation(self) -> None:
        weights = self.engine.model.state_dict()

        def validation() -> None:
            self.validate(weights)
            release_memory(self.device)

        times = {
            "evaluation_s": seconds_of(validation),
            "test_s": seconds_of(lambda: self.test(weights)),
        }
        write_json(self.directory / EVALUATION_PART, times)


def seconds_of(work: Callable[[], Any]) -> float:
    """Of what ends with a figure read from the device, and so with all it was given."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
