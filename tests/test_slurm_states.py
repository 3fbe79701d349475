"""Where a trial stands, told from its folder, the queue and the processes here."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest
import yaml
from configurations import CLUSTER, GOOD, WORKSTATION, study_of
from outcome_factory import make_outcome, make_trial
from sagebench.files import write_json
from sagebench.records import Status
from sagebench.slurm import commands, states
from sagebench.slurm.commands import NoAnswer
from sagebench.slurm.states import STATES, TrialState, as_csv, as_text, look

SCRIPT = Path(__file__).parents[1] / "workflow_scripts" / "status.py"
HERE = os.uname().nodename
GONE = 2**22 + 1
"""no process has so high a number"""

# As squeue of Slurm 22.05 printed it, with the plugin's comments on two jobs.
REAL = """\
19|PENDING|(null)|Resources|/tmp/a b
26|PENDING|(null)|BeginTime|/home/me
23|PENDING|(null)|JobHeldUser|/home/me
18|RUNNING|rule_trial_wildcards_pubmed-blocks-b64x1-f10.5.5-r1-s0-1e20714ac2|None|/home/me
22|COMPLETING|rule_store_wildcards_pubmed-f593379d|None|/home/me
24|PENDING|rule_trial_wildcards_pubmed-blocks-b64x1-f10.5.5-r2-s0-0000000000|Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions|/home/me/a|b
25|PENDING|odd | comment "quoted" $HOME|Priority|/home/me
2
"""  # noqa: E501


def test_the_queue_is_read():
    jobs = {job.job_id: job for job in commands.parse_queue(REAL)}
    assert list(jobs) == ["19", "26", "23", "18", "22", "24", "25"]
    assert jobs["18"].trial_id == "pubmed-blocks-b64x1-f10.5.5-r1-s0-1e20714ac2"
    assert (jobs["18"].state, jobs["18"].waits, jobs["19"].waits) == ("RUNNING", False, True)
    assert jobs["24"].folder == "/home/me/a|b"
    assert jobs["24"].trial_id.endswith("-r2-s0-0000000000")
    assert jobs["24"].reason.startswith("Nodes required")
    assert jobs["22"].trial_id == jobs["25"].trial_id == ""


def test_jobs_of_another_checkout_are_not_ours(tmp_path):
    (tmp_path / "other").mkdir()
    comment = "rule_trial_wildcards_a"
    text = f"1|PENDING|{comment}|Priority|{tmp_path}/other/..\n"
    text += f"2|PENDING|{comment}|Priority|{tmp_path}/other\n3|RUNNING|{comment}|None|/gone\n"
    found = commands.of_trials(commands.parse_queue(text), tmp_path)
    assert [job.job_id for job in found] == ["1"]


class Files:
    """A study's trial folders, and what Slurm says."""

    def __init__(self, results, site):
        self.study = study_of({**GOOD, "results": str(results)}, site)
        self.ids = list(self.study.requests)
        self.trials = results / "trials"

    def folder(self, number=0):
        folder = self.trials / self.ids[number]
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def begin(self, number=0, attempt=1, **values):
        """An attempt that has begun: by a process that is gone, unless values say otherwise."""
        folder = self.folder(number) / "attempts" / str(attempt)
        folder.mkdir(parents=True)
        started = {
            "attempt": attempt,
            "started_at": datetime(2026, 3, 2, 8, tzinfo=timezone.utc).isoformat(),
            "host": HERE,
            "pid": GONE,
            "slurm_job_id": None,
            "walltime_s": 600,
        } | values
        (folder / "started.json").write_text(json.dumps(started))
        (folder / "rank-0.log").write_text("...")
        return folder

    def end(self, number=0, attempt=1, **values):
        """The end of an attempt."""
        log = f"{self.folder(number)}/attempts/{attempt}/rank-0.log"
        line = {"attempt": attempt, "status": "failed", "reason": None, "log": log} | values
        with (self.folder(number) / "attempts.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def outcome(self, number=0, status="completed", **values):
        folder = self.folder(number)
        outcome = {
            "schema": 1,
            "trial": {},
            "trial_id": folder.name,
            "status": status,
            "reason": None,
            **values,
        }
        write_json(folder / "outcome.json", outcome)

    def state(self, number=0):
        return look(self.study)[0][number]


@pytest.fixture
def local(tmp_path):
    return Files(tmp_path / "results", WORKSTATION)


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """As `local`, on a cluster: slurm.queue holds squeue's lines."""
    files = Files(tmp_path / "results", CLUSTER)
    files.queue = []
    monkeypatch.chdir(tmp_path)
    answer = lambda users: commands.parse_queue("\n".join(files.queue))  # noqa: E731
    monkeypatch.setattr(commands, "queued_jobs", answer)
    return files


def in_queue(files, job_id, state, reason="None", number=0):
    comment = f"rule_trial_wildcards_{files.ids[number]}"
    files.queue.append(f"{job_id}|{state}|{comment}|{reason}|{Path.cwd()}")


def test_nothing_has_begun(local):
    states, unknown = look(local.study)
    assert {one.state for one in states} == {"not_started"}
    assert [one.trial_id for one in states] == local.ids
    assert unknown is None
    local.folder()  # trial.json is frozen before the trial starts
    assert local.state().state == "not_started"


def test_what_a_prediction_leaves_out_is_told_from_what_is_to_come(local):
    study = replace(local.study, skipped={local.ids[1]: {}})
    states, _ = look(study)
    assert [one.state for one in states][:3] == ["not_started", "skipped", "not_started"]
    assert states[1].said == "predicted to run out of memory"


def test_what_is_measured(local):
    reason = {"rank": 1, "phase": "forward", "message": "no memory"}
    for number, status in enumerate(("completed", "out_of_memory", "time_limit", "diverged")):
        local.begin(number)
        local.end(number, status=status, reason=None if number == 0 else reason)
        local.outcome(number, status, reason=None if number == 0 else reason, attempts=1)
        found = local.state(number)
        assert (found.state, found.attempt) == (status, 1)
        assert found.said == ("" if number == 0 else "rank 1, forward")


def test_an_outcome_counts_whatever_the_attempts_say(local):
    local.end(status="failed")
    local.outcome(status="diverged", reason={"rank": 0, "phase": "backward", "message": "nan"})
    assert (local.state().state, local.state().said) == ("diverged", "rank 0, backward")


@pytest.mark.parametrize("lost_bytes", [2, 3, 40, 1000])
def test_an_outcome_that_was_cut_short_is_damaged_whatever_the_attempts_say(local, lost_bytes):
    local.begin()
    local.end(status="completed")
    local.outcome(ranks=[{"rank": rank, "slurm": {}} for rank in range(4)])
    path = local.folder() / "outcome.json"
    path.write_bytes(path.read_bytes()[:-lost_bytes])
    found = local.state()
    assert found.state == "damaged"
    assert found.said.startswith("delete the outcome, and call the run again")
    assert found.log == str(path)


def test_an_outcome_of_another_form_is_whole(local):
    local.end(status="completed")
    local.outcome()
    path = local.folder() / "outcome.json"
    path.write_text(json.dumps(json.loads(path.read_text())))
    assert local.state().state == "completed"


def test_a_damaged_outcome_is_named_with_what_to_do(local):
    local.outcome()
    path = local.folder() / "outcome.json"
    path.write_text("")
    text = as_text("good", [local.state()])
    assert "1 trials: 1 damaged" in text
    assert "damaged: delete the outcome, and call the run again" in text and str(path) in text


def test_a_failure_has_its_reason_and_its_log(local):
    local.begin()
    local.end(message="rank 2 failed with exit code 1: RuntimeError: boom")
    found = local.state()
    assert (found.state, found.attempt) == ("failed", 1)
    assert found.said == "rank 2 failed with exit code 1: RuntimeError: boom"
    assert found.log.endswith("attempts/1/rank-0.log")
    local.begin(attempt=2)
    local.end(attempt=2, status="interrupted", message="interrupted")
    assert (local.state().state, local.state().attempt) == ("interrupted", 2)


@pytest.fixture
def launcher(local):
    """A process that looks like the launcher of the first trial."""
    command = [sys.executable, "-c", "print(flush=True); input()", local.ids[0]]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdout.readline()
    yield process
    process.kill()
    process.communicate()


def test_a_running_trial_says_how_far_it_is(local, launcher):
    folder = local.begin(pid=launcher.pid)
    found = local.state()
    assert (found.state, found.epoch, found.epochs, found.left_s) == ("running", 0, 3, None)
    epoch = make_outcome(make_trial())["epochs"][0] | {"time_s": 40.0, "evaluation_s": 20.0}
    (folder / "measured.json").write_text(json.dumps({"epochs": [epoch]}))
    found = local.state()
    assert (found.epoch, round(found.left_s)) == (1, 120)
    (folder / "measured.json").write_text(json.dumps({"epochs": [epoch] * 3}))
    assert (local.state().epoch, local.state().left_s) == (3, None)
    launcher.kill()
    launcher.wait()
    found = local.state()
    assert (found.state, found.said) == ("failed", states.NO_EXIT_RECORD)
    assert found.log == str(folder / "rank-0.log")


def test_a_later_process_of_the_same_number_is_no_launcher(local):
    local.begin(pid=os.getpid())
    assert local.state().state == "failed"


def test_what_another_machine_began_is_taken_for_running(local):
    local.begin(host="another", walltime_s=None)
    assert local.state().state == "running"


def test_what_another_machine_began_is_over_past_its_walltime(local):
    local.begin(host="another", walltime_s=60.0, started_at="2026-11-22T16:37:00+00:00")
    assert local.state().state == "failed"


def test_what_a_launcher_says_before_it_begins(local):
    log = local.folder() / "log.txt"
    log.write_text("12:00:01  epoch 1\nerror: the image a.sif does not exist: build it\n")
    found = local.state()
    assert (found.state, found.said) == ("failed", "the image a.sif does not exist: build it")
    assert found.log == str(log)
    log.write_text("waiting for another trial on this machine to end\n")
    assert local.state().state == "not_started"


def test_a_checkpoint_waits_to_be_continued(local):
    (local.folder() / "checkpoint.pt").touch()
    local.begin()
    local.end(status="continues")
    assert (local.state().state, local.state().attempt) == ("to_be_continued", 1)
    local.begin(attempt=2)  # killed: the checkpoint is still there
    assert local.state().state == "to_be_continued"
    local.end(attempt=2, message="boom")
    assert local.state().state == "failed"


def test_an_outcome_that_was_set_aside_leaves_a_trial_to_do(local):
    local.begin()
    local.end(status="completed")
    found = local.state()
    assert (found.state, found.said) == ("not_started", "its outcome was set aside")


def test_a_waiting_job_says_why_it_waits(slurm):
    in_queue(slurm, "31", "PENDING", "QOSMaxJobsPerUserLimit")
    found = slurm.state()
    assert (found.state, found.said, found.slurm_job_id) == (
        "queued",
        "QOSMaxJobsPerUserLimit",
        "31",
    )
    slurm.begin(slurm_job_id="30")  # an earlier attempt, which failed
    slurm.end(slurm_job_id="30", message="boom")
    assert slurm.state().state == "queued"


def test_a_requeued_job_waits_though_its_attempt_noted_no_end(slurm):
    slurm.begin(slurm_job_id="31")
    in_queue(slurm, "31", "PENDING", "BeginTime")
    assert slurm.state().state == "queued"


def test_a_running_job_starts_then_trains(slurm):
    in_queue(slurm, "31", "RUNNING")
    assert (slurm.state().state, slurm.state().said) == ("running", "starting")
    slurm.begin(slurm_job_id="31", host="mel2001", pid=1)
    assert (slurm.state().state, slurm.state().epoch) == ("running", 0)
    slurm.end(slurm_job_id="31", message="boom")  # and the job is about to end
    assert slurm.state().state == "failed"


def test_a_job_that_is_gone_without_a_word(slurm):
    slurm.begin(slurm_job_id="31", host="mel2001", pid=1)
    assert (slurm.state().state, slurm.state().said) == ("failed", states.NO_EXIT_RECORD)


def test_a_job_that_began_after_the_queue_was_asked_runs(slurm):
    slurm.begin(slurm_job_id="31", started_at=datetime.now(timezone.utc).isoformat())
    assert slurm.state().state == "running"


def test_without_an_answer_of_the_queue(slurm, monkeypatch):
    def jobs(users):
        raise NoAnswer("squeue is not installed here")

    monkeypatch.setattr(commands, "queued_jobs", jobs)
    slurm.begin(slurm_job_id="31", host="mel2001", walltime_s=None)
    found, unknown = look(slurm.study)
    assert [one.state for one in found[:2]] == ["running", "not_started"]
    assert unknown == "squeue is not installed here"
    assert "unknown: squeue is not installed here." in as_text("good", found, unknown)


LONG = "ogbn-products-reference-b1024x16-f15.10.10.10.10-r8-s4-0123456789"
SHOWN = [
    TrialState(LONG, Status.COMPLETED),
    TrialState("b", Status.RUNNING, epoch=3, epochs=10, left_s=700.0),
    TrialState("c", Status.OUT_OF_MEMORY, "rank 0, forward"),
    TrialState(LONG, Status.QUEUED, "Nodes required for job are DOWN, DRAINED or reserved"),
    TrialState("d", Status.FAILED, "boom " * 30, attempt=2, slurm_job_id="31", log="d/rank-0.log"),
    TrialState("e", Status.FAILED, "boom " * 30, attempt=1, log="e/rank-0.log"),
    TrialState("f", Status.INTERRUPTED, "interrupted", log="f/rank-0.log"),
]


def test_the_table_is_narrow_and_has_totals_on_top():
    lines = as_text("good on a machine", SHOWN).splitlines()
    totals = (
        "good on a machine: 7 trials: 1 running, 1 queued, 2 failed, 1 interrupted, "
        "1 out of memory, 1 completed"
    )
    assert " ".join(lines[:2]) == totals
    assert max(map(len, lines)) <= 100
    rows = {line.split("  ")[0]: line for line in lines[5:12]}
    assert list(rows) == [
        *("running", "queued", "failed", "interrupted", "out of memory", "completed"),
    ]
    assert rows["running"].endswith("  epoch 3/10, 12 min")
    assert rows["queued"].endswith("…")
    assert any(line.endswith("attempt 2, job 31") for line in lines)


def test_failures_alike_share_their_reason_and_keep_their_logs():
    text = as_text("good on a machine", SHOWN)
    assert text.count("failed: boom boom") == 1
    assert text.endswith("\n  d/rank-0.log\n  e/rank-0.log\n\ninterrupted\n  f/rank-0.log")


def test_a_large_study_shows_what_matters():
    many = [
        TrialState(f"t{n}", Status.COMPLETED if n % 100 else Status.FAILED) for n in range(10_000)
    ]
    text = as_text("many", many)
    assert "100 failed, 9900 completed" in text.splitlines()[0]
    assert "Below are 100 of them; --csv lists all." in text
    assert "t1 " not in text


def test_the_csv_has_everything():
    rows = list(csv.DictReader(io.StringIO(as_csv(SHOWN))))
    assert [row["state"] for row in rows] == [one.state for one in SHOWN]
    assert rows[4]["said"] == SHOWN[4].said
    assert {row["state"] for row in rows} <= set(STATES)


def test_the_script(tmp_path):
    (tmp_path / "study.yaml").write_text(yaml.safe_dump({**GOOD, "results": "results"}))
    site = Path(__file__).parents[1] / "profiles/local/site.yaml"
    command = [sys.executable, SCRIPT, "--configfile", "study.yaml", "--site", site]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stdout.startswith("good on local: 10 trials: 10 not started\n")
    result = subprocess.run([*command, "--csv"], cwd=tmp_path, capture_output=True, text=True)
    assert len(result.stdout.splitlines()) == 11
    assert not (tmp_path / "results").exists()
