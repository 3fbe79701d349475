"""A trial in a folder of its own, run by its launcher as a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from short_folder import short_folder

SCRIPT = Path(__file__).parents[1] / "workflow_scripts" / "run_trial.py"
LIMIT_S = 120


class Run:
    """A trial's folder, and its launcher."""

    def __init__(self, home: Path, trial, store: Path, *options: str) -> None:
        self.home = home
        home.mkdir(exist_ok=True)
        (home / "trial.json").write_text(json.dumps(trial.to_json()))
        self.command = [sys.executable, str(SCRIPT), "--trial", str(home / "trial.json")]
        self.command += ["--store", str(store), "--outcome", str(home / "outcome.json"), *options]
        # A temporary folder of its own, and so a machine lock of its own: tests run side by side.
        self.environment = {**os.environ, "TMPDIR": short_folder(self)}

    def finish(self) -> subprocess.CompletedProcess:
        return subprocess.run(
            self.command, capture_output=True, text=True, timeout=LIMIT_S, env=self.environment
        )

    def start(self) -> subprocess.Popen:
        return subprocess.Popen(
            self.command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
        )

    @property
    def outcome(self) -> dict:
        return json.loads((self.home / "outcome.json").read_text())

    @property
    def attempts(self) -> list[dict]:
        return [json.loads(line) for line in (self.home / "attempts.jsonl").open()]

    def wait_for_epoch(self, attempt: int = 1) -> dict:
        """What is measured once an epoch is done."""
        path = self.home / "attempts" / str(attempt) / "measured.json"
        deadline = time.monotonic() + LIMIT_S
        while time.monotonic() < deadline:
            if path.exists() and (measured := json.loads(path.read_text()))["epochs"]:
                return measured
            time.sleep(0.02)
        raise AssertionError("no epoch in time")
