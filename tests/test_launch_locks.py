"""Who may run beside whom, on file systems and for users of every kind."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import tempfile

import pytest
from sagebench.errors import UserError
from sagebench.launch.locks import machine_alone, only_one


def test_a_trial_runs_once_at_a_time(tmp_path):
    again = pytest.raises(UserError, match="the trial t is being run already")
    with only_one(tmp_path / "t"), again, only_one(tmp_path / "t"):
        pass
    with only_one(tmp_path / "t"):
        pass


def test_a_file_system_without_locks_still_runs_trials(tmp_path, monkeypatch, capsys):
    def flock(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", flock)
    with only_one(tmp_path / "t"):
        pass
    assert "cannot be locked (Function not implemented)" in capsys.readouterr().err


def test_the_machine_s_lock_is_for_every_user(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = os.umask(0o077)
    try:
        with machine_alone():
            (lock,) = tmp_path.iterdir()
            assert stat.S_IMODE(lock.stat().st_mode) == 0o644
    finally:
        os.umask(before)
