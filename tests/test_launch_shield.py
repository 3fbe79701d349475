"""The process that mounts the image outlives the signals that Slurm sends to a whole step."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess

from sagebench.launch.shield import MOUNTER, shielded_path

LIMIT_S = 30


def test_signals_do_not_end_what_mounts(tmp_path):
    programs = tmp_path / "some programs"
    programs.mkdir()
    mounter = programs / MOUNTER
    mounter.write_text('#!/bin/sh\necho "$@"\nread line\necho "$line"\n')
    mounter.chmod(0o755)
    directory = tmp_path / "attempt's $1"
    directory.mkdir()
    path = shielded_path(directory, f"{programs}{os.pathsep}{os.environ['PATH']}")
    process = subprocess.Popen(
        [shutil.which(MOUNTER, path=path), "-o", "ro,offset=1"],
        env={},  # as Apptainer starts it
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "-o ro,offset=1\n"
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP):
        process.send_signal(number)
    assert process.communicate("still there\n", timeout=LIMIT_S)[0] == "still there\n"
    assert process.returncode == 0


def test_without_a_mounter_nothing_changes(tmp_path):
    assert shielded_path(tmp_path, str(tmp_path)) == str(tmp_path)
    assert list(tmp_path.iterdir()) == []
