"""Real trials in real processes: how they end, and what they leave behind."""

from __future__ import annotations

import fcntl
import gzip
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from sagebench.engines.precision import OLDEST, torch_version
from sagebench.files import hold
from sagebench.methods import minibatch
from sagebench.sampling.order import SeedOrder
from sagebench.slurm.states import state_of
from trial_runs import LIMIT_S, Run
from trials import endless_trial, make_trial, tiny_store


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("store") / "tiny"
    tiny_store(folder)
    return folder


@pytest.fixture(scope="module")
def hub_store(tmp_path_factory) -> Path:
    """Training node 0 has every other node for a neighbor: 60,000 of them."""
    folder = tmp_path_factory.mktemp("store") / "hub"
    tiny_store(folder, nodes=60_001, hub=60_000)
    return folder


def comparable(outcome: dict) -> dict:
    """An outcome without times, hosts, memory, and how often it was tried."""
    epochs = [{k: v for k, v in e.items() if not k.endswith("_s")} for e in outcome["epochs"]]
    kept = ("trial_id", "trial", "status", "store", "parameters", "accuracy", "sample")
    return {"epochs": epochs, **{name: outcome[name] for name in kept}}


def test_two_ranks_complete_and_tell_everything(tmp_path, store):
    # The phase window is longer than an epoch, and the epoch's last step leaves a rank without
    # seed nodes; the folder, and so the ranks' meeting place, has a blank in its name.
    trial = make_trial(ranks=2, epochs=3, phase_window_steps=40)
    run = Run(tmp_path / "two ranks", trial, store)
    finished = run.finish()
    assert finished.returncode == 0, finished.stderr
    outcome = run.outcome
    assert outcome["status"] == "completed"
    assert outcome["trial_id"] == trial.id
    assert [epoch["epoch"] for epoch in outcome["epochs"]] == [1, 2, 3]
    assert {epoch["seeds"] for epoch in outcome["epochs"]} == {389}
    assert outcome["epochs"][0]["loss"] > outcome["epochs"][-1]["loss"]
    assert [rank["rank"] for rank in outcome["ranks"]] == [0, 1]
    assert len({rank["pid"] for rank in outcome["ranks"]}) == 2
    assert outcome["memory"]["peak_host_private_bytes"] > 50e6
    assert outcome["timing"]["epochs_timed"] == 2
    placement = outcome["placement"]
    assert (placement["chosen"], placement["available_bytes"]) == ("mapped", None)
    assert placement["features_bytes"] == 1500 * 10 * 4
    phases = ("sampling", "data", "forward", "backward", "optimizer")
    phases += ("waiting", "synchronisation")
    assert all(outcome["phases"][f"{phase}_s"] > 0 for phase in phases)
    assert outcome["phases"]["micro_steps"] == 389 // (16 * 2 * 2) * 2
    assert outcome["accuracy"]["best_epoch"] == 3
    assert 0 < outcome["accuracy"]["test_full"] <= 1
    assert outcome["provenance"]["expandable_segments"] is None  # of a GPU's memory
    assert (run.home / "best.pt").exists()
    assert run.attempts[0]["status"] == "completed"


@pytest.mark.parametrize("engine", ["blocks", "reference"])
def test_a_profile(tmp_path, store, engine):
    trial = make_trial(ranks=2, epochs=1, profile_steps=3, sampled_test_nodes=50, engine=engine)
    run = Run(tmp_path / "t", trial, store)
    finished = run.finish()
    assert finished.returncode == 0, finished.stderr
    table = (run.home / "profile.txt").read_text()
    assert table.startswith("3 micro-steps; their trace: trace.json.gz")
    assert "micro-step" in table and "aten::" in table
    with gzip.open(run.home / "trace.json.gz") as trace:
        events = json.load(trace)["traceEvents"]
    assert sum(event.get("name") == "micro-step" for event in events) == 3
    accuracy = run.outcome["accuracy"]
    assert accuracy["test_sampled_nodes"] == 50
    assert 0 < accuracy["test_sampled_standard_error"] < 0.1
    ranks = run.outcome["ranks"]
    assert [rank["num_alloc_retries"] for rank in ranks] == [None, None]  # no GPU's allocator


def test_a_profile_takes_no_outcome_with_it(tmp_path, store):
    """It comes after everything, without the trial's cap; a trial that has been measured stays."""
    trial = make_trial(memory_limit_gib=0.03, profile_steps=50)
    run = Run(tmp_path / "t", trial, store)
    assert run.finish().returncode == 0
    assert run.outcome["status"] == "completed"
    assert (run.home / "profile.txt").exists()


def test_a_signal_after_the_ranks_end_loses_nothing(tmp_path, store):
    """What they measured is written all the same."""
    run = Run(tmp_path / "t", make_trial(epochs=1), store)
    scripts = Path(run.command[1]).parent
    run.command[1:2] = ["-c", SIGNAL_LATE, str(scripts)]
    finished = run.finish()
    assert finished.returncode == 0, finished.stderr
    assert run.outcome["status"] == "completed"
    assert [attempt["status"] for attempt in run.attempts] == ["completed"]


SIGNAL_LATE = """
import os, runpy, signal, sys
sys.argv = [sys.argv[1] + "/run_trial.py", *sys.argv[2:]]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
from sagebench.launch import launcher
compose = launcher.compose_outcome

def compose_while_asked_to_stop(*arguments):
    os.kill(os.getpid(), signal.SIGTERM)
    return compose(*arguments)

launcher.compose_outcome = compose_while_asked_to_stop
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""run_trial.py, asked to stop while it composes the outcome"""


def test_a_trace_that_is_too_large_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(minibatch, "TRACE_LIMIT_BYTES", 100)

    def export(path: str) -> None:
        Path(path).write_bytes(os.urandom(1000))

    said = minibatch.write_trace(export, tmp_path / "trace.json.gz")
    assert said.endswith("is not kept: write fewer profile_steps")
    assert list(tmp_path.iterdir()) == []


def test_the_same_trial_gives_the_same_figures(tmp_path, store):
    trial = make_trial(epochs=1, dropout=0.5)
    first, second = (Run(tmp_path / name, trial, store) for name in "ab")
    assert first.finish().returncode == second.finish().returncode == 0
    assert comparable(first.outcome) == comparable(second.outcome)


def test_killed_rank_is_a_failure_and_the_next_run_is_whole(tmp_path, store):
    trial = make_trial(ranks=2, epochs=15, batch_size=4)
    run = Run(tmp_path / "killed", trial, store)
    launcher = run.start()
    victim = run.wait_for_epoch()["ranks"][1]["pid"]
    os.kill(victim, signal.SIGKILL)
    assert launcher.wait(20) == 1
    assert "rank 1 was ended by SIGKILL" in launcher.stderr.read()
    assert not (run.home / "outcome.json").exists()
    assert run.attempts[-1]["status"] == "failed"

    assert run.finish().returncode == 0
    undisturbed = Run(tmp_path / "undisturbed", trial, store)
    assert undisturbed.finish().returncode == 0
    assert comparable(run.outcome) == comparable(undisturbed.outcome)
    assert run.outcome["attempts"] == 2


def hub_trial(hub_rank: int):
    """Two ranks and every neighbor; only `hub_rank` gets the micro-batch with the hub."""
    for seed in range(100):
        order = SeedOrder(np.arange(389), 4, 1, 2, seed)
        seeds = np.concatenate([b.seeds for b in order.micro_batches(1, hub_rank)])
        if 0 in seeds:
            return make_trial(
                ranks=2, batch_size=4, accumulation=1, fanout=[-1, 0, 0], hidden_channels=256,
                memory_limit_gib=0.08, seed=seed, epochs=1,
            )  # fmt: skip
    raise AssertionError("no seed gives the hub to that rank")


@pytest.mark.parametrize("rank", [0, 1])
def test_out_of_memory_on_one_rank_is_an_outcome_that_names_it(tmp_path, hub_store, rank):
    run = Run(tmp_path / "t", hub_trial(rank), hub_store)
    start = time.monotonic()
    finished = run.finish()
    assert finished.returncode == 0, finished.stderr
    assert time.monotonic() - start < 60
    reason = run.outcome["reason"]
    assert run.outcome["status"] == "out_of_memory"
    assert reason["rank"] == rank
    assert reason["phase"] in ("forward", "backward", "sampling", "data")
    assert reason["limit"] == {"kind": "memory_limit", "value": 0.08, "unit": "GiB"}


def test_no_memory_for_a_thread_is_out_of_memory_too(tmp_path, store):
    run = Run(tmp_path / "t", make_trial(memory_limit_gib=0.001), store)
    assert run.finish().returncode == 0
    assert run.outcome["status"] == "out_of_memory"


def test_walltime_is_an_outcome(tmp_path, store):
    run = Run(tmp_path / "t", endless_trial(), store, "--walltime-min", "0.2")
    assert run.finish().returncode == 0
    assert run.outcome["status"] == "time_limit"
    assert run.outcome["reason"]["limit"] == {"kind": "walltime", "value": 12.0, "unit": "s"}


def test_walltime_used_up_outside_of_an_epoch_is_an_outcome_too(tmp_path, store):
    """A rank that never looks at the clock: it is stopped while it still starts."""
    run = Run(tmp_path / "t", make_trial(), store, "--walltime-min", "0.005")
    assert run.finish().returncode == 0
    assert run.outcome["status"] == "time_limit"
    assert run.outcome["epochs"] == []


def test_nothing_runs_beside_a_trial_on_a_machine(tmp_path, store):
    runs = [Run(tmp_path / name, make_trial(seed=i), store) for i, name in enumerate("ab")]
    for run in runs:
        run.environment["TMPDIR"] = str(tmp_path)
    launchers = [run.start() for run in runs]
    said = [launcher.communicate(timeout=LIMIT_S)[1] for launcher in launchers]
    assert [launcher.returncode for launcher in launchers] == [0, 0]
    assert sum("waiting for another trial" in text for text in said) == 1
    first, second = sorted(run.attempts[0]["started_at"] for run in runs)
    ended = min(run.attempts[0]["finished_at"] for run in runs)
    assert first <= ended <= second


def test_a_reader_that_goes_away_takes_nothing_with_it(tmp_path, store):
    run = Run(tmp_path / "t", make_trial(), store)
    launcher = subprocess.Popen(
        run.command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=run.environment
    )
    launcher.stdout.close()
    launcher.wait(LIMIT_S)
    assert run.outcome["status"] == "completed"
    assert "test accuracy" in (run.home / "attempts" / "1" / "rank-0.log").read_text()


def test_divergence_is_an_outcome(tmp_path, store):
    run = Run(tmp_path / "t", make_trial(learning_rate=1e30, epochs=5), store)
    assert run.finish().returncode == 0
    assert run.outcome["status"] == "diverged"


def test_early_stopping(tmp_path, store):
    trial = make_trial(
        epochs=50, evaluate_every_epochs=1, patience_evaluations=2, learning_rate=1e-12
    )
    run = Run(tmp_path / "t", trial, store)
    assert run.finish().returncode == 0
    assert len(run.outcome["epochs"]) == 3
    assert run.outcome["accuracy"]["best_epoch"] == 1


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"engine": "reference", "sampler": "pyg_lib"}, "pyg-lib, which is not installed"),
        ({"device": "cuda"}, "finds 0 GPUs here"),
        ({"precision": "tf32"}, "write precision: fp32 or bf16"),
        ({"dataset": {"name": "other", "source": "pubmed"}}, "give --store the store of that"),
        pytest.param(
            {"compile": True},
            "compile: true asks for torch 2.6 or later",
            marks=pytest.mark.skipif(torch_version() >= OLDEST, reason="this torch compiles"),
        ),
    ],
)
def test_a_trial_never_falls_back(tmp_path, store, values, sentence):
    run = Run(tmp_path / "t", make_trial(**values), store)
    run.environment["CUDA_VISIBLE_DEVICES"] = ""
    finished = run.finish()
    assert finished.returncode == 1
    assert sentence in finished.stdout + finished.stderr
    assert not (run.home / "outcome.json").exists()
    assert run.attempts[0]["status"] == "failed"


def test_loader_processes_that_could_not_meet_are_said(tmp_path, store):
    """Without a word, the rank would wait for their batches for ever."""
    folder = tmp_path / ("x" * 80)
    folder.mkdir()
    run = Run(tmp_path / "t", make_trial(engine="reference"), store)
    run.environment["TMPDIR"] = str(folder)
    finished = run.finish()
    assert finished.returncode == 1
    assert "set TMPDIR to a folder of at most 75 characters" in finished.stdout + finished.stderr


def test_terminated_launcher_ends_its_ranks_and_says_so(tmp_path, store):
    run = Run(tmp_path / "t", endless_trial(ranks=2), store)
    launcher = run.start()
    pids = [rank["pid"] for rank in run.wait_for_epoch()["ranks"]]
    launcher.terminate()
    assert launcher.wait(30) == 128 + signal.SIGTERM
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert run.attempts[0]["status"] == "interrupted"
    assert not (run.home / "outcome.json").exists()


def test_killed_launcher_leaves_no_ranks_and_no_lock(tmp_path, store):
    run = Run(tmp_path / "t", endless_trial(ranks=2), store)
    launcher = run.start()
    pids = [rank["pid"] for rank in run.wait_for_epoch()["ranks"]]
    launcher.kill()
    launcher.wait(10)
    deadline = time.monotonic() + 10
    while any(is_running(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(is_running(pid) for pid in pids)
    with hold(run.home / ".lock"):  # else BlockingIOError
        pass


def waiting(run: Run) -> subprocess.Popen:
    """A second call while the trial is being run; it has said that it waits."""
    second = run.start()
    said = second.stderr.readline()
    assert "is being run already (process " in said and said.endswith("waiting for its end\n")
    return second


def test_a_second_call_waits_for_the_trial_and_takes_its_outcome(tmp_path, store):
    run = Run(tmp_path / "t", make_trial(epochs=15, batch_size=4), store)
    first = run.start()
    run.wait_for_epoch()
    second = waiting(run)
    assert second.wait(LIMIT_S) == 0
    assert first.wait(1) == 0
    assert len(run.attempts) == run.outcome["attempts"] == 1


@pytest.mark.parametrize("victim", ["launcher", "rank"])
def test_a_second_call_runs_a_trial_that_ended_badly(tmp_path, store, victim):
    run = Run(tmp_path / "t", make_trial(epochs=15, batch_size=4), store)
    first = run.start()
    ranks = run.wait_for_epoch()["ranks"]
    second = waiting(run)
    os.kill(first.pid if victim == "launcher" else ranks[0]["pid"], signal.SIGKILL)
    assert second.wait(LIMIT_S) == 0
    assert first.wait(1) != 0
    assert run.outcome["status"] == "completed"
    assert run.outcome["attempts"] == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_call_can_be_stopped_while_it_waits(tmp_path, store, number):
    run = Run(tmp_path / "t", endless_trial(), store)
    first = run.start()
    run.wait_for_epoch()
    second = waiting(run)
    second.send_signal(number)
    assert second.wait(5) == 128 + number
    assert second.stderr.read() == f"interrupted by {number.name}\n"
    assert first.poll() is None
    first.terminate()
    assert first.wait(30) == 128 + signal.SIGTERM
    assert len(run.attempts) == 1


def test_in_a_job_of_slurm_whose_devices_would_wait_too_a_second_call_is_refused(tmp_path, store):
    run = Run(tmp_path / "t", make_trial(), store, *slurm_study(tmp_path))
    with (run.home / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = run.finish()
    assert second.returncode == 2
    assert second.stderr.endswith(
        "is being run already (by another process): wait for that run, or stop it\n"
    )


def test_an_outcome_of_this_run_is_taken_though_snakemake_deleted_it(tmp_path, store):
    """Which it does before it starts a job whose output came to be since it planned the run."""
    run = Run(tmp_path / "t", make_trial(), store)
    began_unix_s = time.time()
    assert run.finish().returncode == 0
    outcome = run.outcome
    (run.home / "outcome.json").unlink()
    run.environment["SAGEBENCH_RUN_BEGAN"] = repr(began_unix_s)
    assert "completed, run by another process" in run.finish().stdout
    assert run.outcome == outcome
    # A user who deletes it wants to see it measured once more, and that is another run.
    (run.home / "outcome.json").unlink()
    run.environment["SAGEBENCH_RUN_BEGAN"] = repr(time.time() + 1)
    assert run.finish().returncode == 0
    assert run.outcome["attempts"] == 2


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def slurm_study(folder: Path) -> list[str]:
    """The options that name a frozen study of `make_trial()` whose cluster lacks a bind."""
    site = {"launcher": "slurm", "device": "cpu", "modules": [], "environment": {},
            "image": "a.sif", "binds": ["/gone"]}  # fmt: skip
    study = {
        "site": site,
        "places": {"1": {"ranks_per_node": 1}},
        "requests": {make_trial().id: {"walltime_min": 1, "continues": False}},
    }
    (folder / "study.json").write_text(json.dumps(study))
    return ["--study", str(folder / "study.json")]


def test_an_attempt_that_starts_no_rank_is_noted_too(store, tmp_path):
    run = Run(tmp_path / "t", make_trial(), store, *slurm_study(tmp_path))
    result = run.finish()
    assert result.returncode != 0
    (said,) = result.stderr.splitlines()
    assert said.startswith("error: /gone is listed under binds and does not exist")
    (attempt,) = run.attempts
    assert attempt["status"] == "failed"
    assert f"error: {attempt['message']}" == said
    state = state_of(run.home, 2, None)
    assert (state.state, state.said, state.attempt) == ("failed", attempt["message"], 1)
    assert state.log == str(run.home / "log.txt")
