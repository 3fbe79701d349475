"""What Slurm's accounting says, read from what a real one (22.05) printed."""

from __future__ import annotations

import re
import stat

import pytest
from sagebench.slurm.accounting import allocations, finished, parse
from sagebench.slurm.commands import NoAnswer

# Completed on two nodes; exit code 3; killed; over its time; cancelled while it ran and while it
# waited; put back into the queue after its end and while it ran; not begun yet.
REAL = """\
18|COMPLETED|0:0|2026-11-22T16:36:48|2026-11-22T16:36:48|2026-11-22T16:36:52|4|2|tb[1-2]|billing=128,cpu=128,gres/gpu=8,node=2|0
18.batch|COMPLETED|0:0|2026-11-22T16:36:48|2026-11-22T16:36:48|2026-11-22T16:36:52|4|1|tb1|cpu=64,gres/gpu=4,mem=0,node=1|0
18.0|COMPLETED|0:0|2026-11-22T16:36:48|2026-11-22T16:36:48|2026-11-22T16:36:52|4|2|tb[1-2]|cpu=128,gres/gpu=8,mem=0,node=2|0
19|FAILED|3:0|2026-11-22T16:36:48|2026-11-22T16:36:52|2026-11-22T16:36:53|1|1|tb1|billing=1,cpu=1,node=1|
19.batch|FAILED|3:0|2026-11-22T16:36:52|2026-11-22T16:36:52|2026-11-22T16:36:53|1|1|tb1|cpu=1,mem=0,node=1|0
20|FAILED|0:9|2026-11-22T16:36:48|2026-11-22T16:36:52|2026-11-22T16:36:52|0|1|tb1|billing=1,cpu=1,node=1|
20.batch|CANCELLED|0:9|2026-11-22T16:36:52|2026-11-22T16:36:52|2026-11-22T16:36:52|0|1|tb1|cpu=1,mem=0,node=1|0
21|TIMEOUT|0:0|2026-11-22T16:36:48|2026-11-22T16:36:52|2026-11-22T16:38:20|88|1|tb1|billing=1,cpu=1,node=1|
21.batch|CANCELLED|0:15|2026-11-22T16:36:52|2026-11-22T16:36:52|2026-11-22T16:38:20|88|1|tb1|cpu=1,mem=0,node=1|0
22|CANCELLED by 0|0:0|2026-11-22T16:36:48|2026-11-22T16:36:52|2026-11-22T16:38:17|85|1|tb1|billing=1,cpu=1,node=1|
22.batch|FAILED|15:0|2026-11-22T16:36:52|2026-11-22T16:36:52|2026-11-22T16:38:17|85|1|tb1|cpu=1,mem=0,node=1|0
23|CANCELLED by 0|0:0|2026-11-22T16:36:48|None|2026-11-22T16:38:15|0|1|None assigned||0
24|REQUEUED|0:0|2026-11-22T16:36:48|2026-11-22T16:36:52|2026-11-22T16:38:15|83|1|tb1|billing=1,cpu=1,gres/gpu=2,node=1|
24.batch|COMPLETED|0:0|2026-11-22T16:36:52|2026-11-22T16:36:52|2026-11-22T16:37:00|8|1|tb1|cpu=1,gres/gpu=2,mem=0,node=1|0
26|PENDING|0:0|2026-11-22T16:36:48|Unknown|Unknown|0|1|None assigned||0
24|COMPLETED|0:0|2026-11-22T16:38:15|2026-11-22T16:40:20|2026-11-22T16:40:28|8|1|tb1|billing=1,cpu=1,gres/gpu=2,node=1|
24.batch|COMPLETED|0:0|2026-11-22T16:40:20|2026-11-22T16:40:20|2026-11-22T16:40:28|8|1|tb1|cpu=1,gres/gpu=2,mem=0,node=1|0
27|REQUEUED|0:0|2026-11-22T16:38:32|2026-11-22T16:38:32|2026-11-22T16:38:36|4|1|tb1|billing=1,cpu=1,gres/gpu=2,node=1|
27.batch|CANCELLED|0:15|2026-11-22T16:38:32|2026-11-22T16:38:32|2026-11-22T16:38:36|4|1|tb1|cpu=1,gres/gpu=2,mem=0,node=1|0
27|RUNNING|0:0|2026-11-22T16:38:36|2026-11-22T16:40:40|Unknown|3|1|tb1|billing=1,cpu=1,gres/gpu=2,node=1|
27.0|RUNNING|0:0|2026-11-22T16:40:40|2026-11-22T16:40:40|Unknown|3|1|tb1|cpu=1,gres/gpu=2,mem=0,node=1|0
"""  # noqa: E501


def job(job_id, *, tres="gres/gpu=4", energy="", steps=()):
    """A job that ran for an hour, and steps of it: (name, energy)."""
    times = "2026-11-22T16:00:00|2026-11-22T16:00:00|2026-11-22T17:00:00|3600|1|tb1"
    lines = [f"{job_id}|COMPLETED|0:0|{times}|{tres}|{energy}"]
    lines += [f"{job_id}.{name}|COMPLETED|0:0|{times}|{tres}|{joules}" for name, joules in steps]
    return parse("\n".join(lines))[job_id][0]


def fake(folder, name, script):
    """Put a command of this name into the folder."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_a_job_on_two_nodes():
    (one,) = parse(REAL)["18"]
    assert (one["state"], one["exit_code"]) == ("COMPLETED", "0:0")
    assert (one["elapsed_s"], one["queue_s"]) == (4, 0)
    assert (one["nodes"], one["node_names"], one["gpus_allocated"]) == (2, "tb[1-2]", 8)
    assert one["energy_j"] is None  # 0 is Slurm's word for no meter
    assert finished(one)


@pytest.mark.parametrize(
    ("job_id", "state", "elapsed_s", "queue_s"),
    [
        ("19", "FAILED", 1, 4),
        ("20", "FAILED", 0, 4),
        ("21", "TIMEOUT", 88, 4),
        ("22", "CANCELLED", 85, 4),
        ("23", "CANCELLED", 0, None),
    ],
)
def test_other_ends(job_id, state, elapsed_s, queue_s):
    (one,) = parse(REAL)[job_id]
    assert (one["state"], one["elapsed_s"], one["queue_s"]) == (state, elapsed_s, queue_s)
    assert finished(one)


def test_a_job_that_has_not_begun_is_not_finished():
    (one,) = parse(REAL)["26"]
    assert (one["started_at"], one["finished_at"], one["gpus_allocated"]) == (None, None, None)
    assert one["node_names"] == ""
    assert not finished(one)


def test_a_requeued_job_is_two_allocations_each_with_its_own_wait():
    first, second = parse(REAL)["24"]
    assert (first["state"], first["elapsed_s"], first["queue_s"]) == ("REQUEUED", 83, 4)
    assert (second["state"], second["elapsed_s"], second["queue_s"]) == ("COMPLETED", 8, 125)
    first, second = parse(REAL)["27"]
    assert finished(first) and not finished(second)


def test_times_are_utc():
    (one,) = parse(REAL)["18"]
    assert one["started_at"] == "2026-11-22T16:36:48+00:00"


@pytest.mark.parametrize(
    ("tres", "gpus"),
    [
        ("billing=64,cpu=64,gres/gpu:a100=4,gres/gpu=4,node=1", 4),
        ("cpu=64,gres/gpu:a100=2,gres/gpu:h100=1", 3),
        ("billing=64,cpu=64,node=1", None),
        ("", None),
    ],
)
def test_gpus(tres, gpus):
    assert job("1", tres=tres)["gpus_allocated"] == gpus


def test_the_energy_is_the_job_s_or_that_of_the_steps_that_saw_most():
    assert job("1", energy="1500000", steps=[("batch", "900000")])["energy_j"] == 1_500_000
    # .batch and .extern read the counters of nodes that the numbered steps read, too.
    steps = [("batch", "500"), ("extern", "1000"), ("0", "300"), ("1", "600")]
    assert job("1", steps=steps)["energy_j"] == 1000
    steps = [("batch", ""), ("0", "18446744073709551614")]
    assert job("1", energy="0", steps=steps)["energy_j"] is None


def test_lines_that_are_not_whole_are_left_out():
    assert parse("sacct: warning\n19.batch|FAILED\n\n17|RUN") == {}
    assert list(parse(REAL + "28|RUNN"))[-1] == "27"


def test_jobs_are_asked_for_in_one_call_with_times_in_utc(tmp_path, monkeypatch):
    said = tmp_path / "said"
    fake(tmp_path, "sacct", f'echo "$TZ $SACCT_FORMAT $*" >> {said}')
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setenv("SACCT_FORMAT", "user's own")
    assert allocations([]) == allocations(["3", "1", "2", "3"]) == {}
    (line,) = said.read_text().splitlines()
    assert line.endswith("--jobs 1,2,3") and line.startswith("UTC0  --parsable2")


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (None, "sacct is not installed here"),
        (
            "echo 'Slurm accounting storage is disabled' >&2; exit 1",
            "sacct failed: Slurm accounting storage is disabled",
        ),
        (
            "echo 'sacct: error: slurm_persist_conn_open: failed' >&2; exit 1",
            "sacct failed: error: slurm_persist_conn_open: failed",
        ),
        ("exec sleep 60", "sacct did not answer within 1 s"),
    ],
)
def test_without_an_answer_there_is_a_reason(tmp_path, monkeypatch, script, reason):
    if script is not None:
        fake(tmp_path, "sacct", script)
    monkeypatch.setenv("PATH", str(tmp_path) if script is None else f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(NoAnswer, match=f"^{re.escape(reason)}$"):
        allocations(["1", "2"], limit_s=1)


def test_a_job_that_was_cancelled_while_it_waited_never_started():
    at = "2026-11-22T16:38:15"
    line = f"23|CANCELLED by 0|0:0|2026-11-22T16:36:48|{at}|{at}|0|1|None assigned||0"
    ((one,),) = parse(line).values()
    assert (one["started_at"], one["elapsed_s"], one["node_names"]) == (None, 0, "")
    assert one["finished_at"] is not None
