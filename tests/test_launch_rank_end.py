"""How a rank's end is noted on its node, and read by the launcher."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sagebench.files import read_json, tail
from sagebench.launch import ends
from sagebench.launch.ends import exit_code, read_ends
from sagebench.launch.ranks import LocalRanks

RANK_SCRIPT = Path(__file__).parents[1] / "workflow_scripts" / "rank.py"
LIMIT_S = 30


def start(folder: Path, rank: int, code: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(RANK_SCRIPT), "start", "--directory", str(folder), "--"]
    return subprocess.Popen(
        [*command, sys.executable, "-c", code],
        env={"SLURM_PROCID": str(rank)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(folder: Path, rank: int, code: str) -> tuple[int, str]:
    process = start(folder, rank, code)
    said, _ = process.communicate(timeout=LIMIT_S)
    return process.returncode, said


def end(folder: Path, rank: int) -> int:
    return read_json(folder / f"rank-{rank}.end.json")["code"]


@pytest.mark.parametrize(
    ("code", "noted", "returned"),
    [
        ("raise SystemExit(0)", 0, 0),
        ("raise SystemExit(86)", 86, 86),
        ("raise SystemExit(137)", -9, 137),  # as a container says it of the process inside
        ("import os; os.kill(os.getpid(), 9)", -9, 137),
        ("raise SystemExit(255)", 255, 255),
    ],
)
def test_the_end_is_noted(tmp_path, code, noted, returned):
    assert run(tmp_path, 1, code)[0] == returned
    assert end(tmp_path, 1) == noted


@pytest.mark.parametrize(("rank", "copied"), [(0, "hello\n"), (1, "")])
def test_the_log_has_all_and_rank_0_is_heard(tmp_path, rank, copied):
    _, said = run(tmp_path, rank, "print('hello')")
    assert said == copied
    assert (tmp_path / f"rank-{rank}.log").read_text() == "hello\n"


def test_a_command_that_is_not_there_is_named_with_what_to_do(tmp_path):
    command = [sys.executable, str(RANK_SCRIPT), "start", "--directory", str(tmp_path)]
    command += ["--", "apptainr", "x"]
    done = subprocess.run(command, env={"SLURM_PROCID": "0"}, timeout=LIMIT_S)
    assert done.returncode == 127 and end(tmp_path, 0) == 127
    (said,) = (tmp_path / "rank-0.log").read_text().splitlines()
    assert said.startswith("error: apptainr cannot be run on ")
    assert "No such file or directory" in said and "site.yaml" in said


def test_the_end_is_noted_though_a_child_keeps_the_output_open(tmp_path, monkeypatch):
    code = "import os\nprint('x', flush=True)\nif os.fork() == 0: __import__('time').sleep(20)"
    monkeypatch.setattr(ends, "COPY_LIMIT_S", 0.5)
    began = time.monotonic()
    assert ends.supervise_rank(0, [sys.executable, "-c", code], tmp_path) == 0
    assert time.monotonic() - began < 10
    assert end(tmp_path, 0) == 0 and (tmp_path / "rank-0.log").read_text() == "x\n"


def test_signals_reach_the_rank(tmp_path):
    code = (
        "import signal, time\n"
        "signal.signal(signal.SIGUSR1, lambda *_: exit(7))\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)"
    )
    process = start(tmp_path, 0, code)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGUSR1)
    assert process.wait(LIMIT_S) == 7
    assert end(tmp_path, 0) == 7


def test_the_rank_ends_with_its_supervisor(tmp_path):
    process = start(tmp_path, 0, "import os, time; print(os.getpid(), flush=True); time.sleep(60)")
    rank = int(process.stdout.readline())
    process.kill()
    process.wait(LIMIT_S)
    until = time.monotonic() + LIMIT_S
    while Path(f"/proc/{rank}").exists() and "Z" not in state(rank):
        assert time.monotonic() < until
        time.sleep(0.02)


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return "Z"


@pytest.mark.parametrize("victim", ["supervisor", "rank"])
def test_a_local_rank_has_a_code_though_nobody_noted_its_end(tmp_path, victim):
    script = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    command = [sys.executable, "-c", script]
    with LocalRanks(command, os.environ, tmp_path, 1) as ranks:
        until = time.monotonic() + LIMIT_S
        while not (said := tail(tmp_path / "rank-0.log")).endswith("\n"):
            assert time.monotonic() < until
            time.sleep(0.02)
        os.kill(int(said) if victim == "rank" else ranks.processes[0].pid, signal.SIGKILL)
        (end,) = ranks.wait()
    assert (end.code, end.stopped) == (-signal.SIGKILL, False)
    assert (tmp_path / "rank-0.end.json").exists() == (victim == "rank")


def test_ends_are_ordered_by_time_and_silence_is_no_code(tmp_path):
    run(tmp_path, 2, "raise SystemExit(3)")
    run(tmp_path, 0, "raise SystemExit(1)")
    found = read_ends(tmp_path, 3)
    assert [(one.rank, one.code, one.order) for one in found] == [
        (0, 1, 1),
        (1, None, 3),
        (2, 3, 0),
    ]


def test_only_signals_count_from_128_on():
    assert [exit_code(code) for code in (-9, 0, 128, 143, 255)] == [-9, 0, 128, -15, 255]
