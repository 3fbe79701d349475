"""A disk without room is told in one sentence, leaves no halves, and stops no rank by its log."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import pytest
from sagebench.errors import run_script
from sagebench.files import write_json
from sagebench.launch.ends import copy_output


def test_a_full_disk_is_told_and_leaves_what_was_there(tmp_path, monkeypatch, capsys):
    def no_room(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "outcome.json"
    write_json(path, {"whole": True})
    monkeypatch.setattr(os, "fsync", no_room)
    with pytest.raises(SystemExit) as end:
        run_script(lambda: write_json(path, {"whole": False}))
    assert end.value.code == 2
    assert capsys.readouterr().err == (
        f"error: no space left on the disk of {path}: free some, and call the same command again\n"
    )
    assert path.read_text() == '{\n "whole": true\n}\n'
    assert list(tmp_path.iterdir()) == [path]


def test_a_log_on_a_full_disk_does_not_stop_its_rank(capfdbinary):
    said = b"epoch 1\n" * 20_000  # more than a pipe holds
    copy_output(io.BufferedReader(io.BytesIO(said)), Path("/dev/full"))
    assert capfdbinary.readouterr().out == said
