"""Who may run beside whom, on file systems and for users of every kind."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from sagebench.errors import UserError
from sagebench.launch.job import machine_lock, trial_lock

SCRIPTS = Path(__file__).parents[1] / "workflow_scripts"
LIMIT_S = 30
HOLD = """
import pathlib, sys, time
from sagebench.launch.job import trial_lock
with trial_lock(pathlib.Path("t"), wait=False):
    print("holding", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that runs the trial t."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD], cwd=tmp_path, env={"PYTHONPATH": str(SCRIPTS)},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "holding\n"
    yield process
    process.kill()
    process.communicate(timeout=LIMIT_S)


def test_a_trial_runs_once_at_a_time(tmp_path, holder):
    name = f"process {holder.pid} on {os.uname().nodename}"
    refused = pytest.raises(UserError, match=rf"t is being run already \({name}\): wait")
    with refused, trial_lock(tmp_path / "t", wait=False):
        pass
    holder.kill()
    holder.wait(LIMIT_S)
    with trial_lock(tmp_path / "t", wait=False):
        pass


def test_waiting_for_a_trial_is_said_and_ends_with_whoever_runs_it(tmp_path, holder, capsys):
    threading.Timer(2, holder.kill).start()
    with trial_lock(tmp_path / "t", wait=True):
        assert holder.wait(LIMIT_S) != 0
    said = capsys.readouterr().err
    assert f"already (process {holder.pid} on {os.uname().nodename}): waiting for its end" in said


def test_a_file_system_without_locks_still_runs_trials(tmp_path, monkeypatch, capsys):
    def flock(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", flock)
    with trial_lock(tmp_path / "t", wait=True):
        pass
    assert "cannot be locked (Function not implemented)" in capsys.readouterr().err


def test_the_machine_s_lock_is_for_every_user(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = os.umask(0o077)
    try:
        with machine_lock():
            (lock,) = tmp_path.iterdir()
            assert stat.S_IMODE(lock.stat().st_mode) == 0o644
    finally:
        os.umask(before)
