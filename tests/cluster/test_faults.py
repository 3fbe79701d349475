"""What goes wrong on a cluster. Each time the same command again ends with the outcomes of a run
that nothing disturbed, and runs nothing twice that was finished."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import yaml
from bed.daemons import running
from bed.layout import Layout
from bed.processes import leftovers
from project import (
    DEMO,
    ROOT,
    RUN_LIMIT_S,
    Project,
    command,
    slurm,
    wait_for,
)
from sagebench.sampling.order import SeedOrder
from test_launch_trials import comparable
from testbed import STATE

TESTBED = Path(__file__).with_name("testbed.py")
BED = Layout(Path(STATE))
FULL = "error: no space left on the disk"
# A failure stays one, so that the second command is what mends it.
ONCE = ("trials", "--retries", "0")

# Trials of the demo: their undisturbed outcomes are there.
STUDY = {
    **yaml.safe_load((ROOT / DEMO).read_text()),
    "experiments": {
        "scaling": {"axis": "ranks", "product": {"ranks": [1, 2, 4]}},
        "accumulation": {"axis": "ranks", "zip": {"ranks": [1], "accumulation": [8]}},
    },
}


def only(ranks: int) -> dict:
    """The study with one of its trials."""
    return {**STUDY, "experiments": {"scaling": {"axis": "ranks", "product": {"ranks": [ranks]}}}}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory, prepared) -> Iterator[Project]:
    with Project(tmp_path_factory.mktemp("faults") / "checkout", prepared) as project:
        yield project


@pytest.fixture
def project(checkout) -> Project:
    """One checkout for all, so that the ranks compile only once."""
    checkout.forget()
    return checkout


@pytest.fixture(scope="session")
def undisturbed(demo) -> dict[str, dict]:
    """The outcomes, by the trial's id, where nothing goes wrong."""
    return demo.outcomes()


def assert_as_undisturbed(project: Project, undisturbed: dict[str, dict], trials: int) -> None:
    found = {name: comparable(outcome) for name, outcome in project.outcomes().items()}
    assert found == {name: comparable(undisturbed[name]) for name in found}
    assert len(found) == trials


def test_a_killed_rank_a_cancelled_job_and_a_hanging_one(project, undisturbed):
    project.configure(STUDY)
    first = project.start(*ONCE)
    blows: dict[str, Callable[[Path], None]] = {
        "*x1-*-r1-*": let_it_hang, "*-r2-*": kill_a_rank, "*-r4-*": cancel,
    }  # fmt: skip

    def strike() -> bool:
        for pattern, blow in list(blows.items()):
            if attempt := project.trained(pattern):
                blow(attempt)
                del blows[pattern]
        return not blows

    wait_for("an epoch of every trial", strike, RUN_LIMIT_S)
    assert first.wait() == 1
    ends = {job.state for job in project.jobs() if job.rule == "trial"}
    assert ends == {"TIMEOUT", "FAILED", "CANCELLED", "COMPLETED"}
    assert "rank 1 was ended by SIGKILL" in project.log("*-r2-*")
    (kept,) = project.outcomes().values()

    project.run(*ONCE)
    assert_as_undisturbed(project, undisturbed, trials=4)
    assert project.outcomes()[kept["trial_id"]] == kept
    attempts = {name: outcome["attempts"] for name, outcome in project.outcomes().items()}
    assert attempts.pop(kept["trial_id"]) == 1
    assert set(attempts.values()) == {2}


def let_it_hang(attempt: Path) -> None:
    """Slurm has to end it: nothing on the node does any more."""
    started = json.loads((attempt / "started.json").read_text())
    os.kill(started["pid"], signal.SIGSTOP)
    slurm("scontrol", "update", f"JobId={started['slurm_job_id']}", "TimeLimit=1")


def kill_a_rank(attempt: Path) -> None:
    os.kill(json.loads((attempt / "measured.json").read_text())["ranks"][1]["pid"], signal.SIGKILL)


def cancel(attempt: Path) -> None:
    slurm("scancel", json.loads((attempt / "started.json").read_text())["slurm_job_id"])


def test_snakemake_killed_while_a_trial_runs(project, undisturbed):
    project.configure(only(ranks=2))
    first = project.start(*ONCE)
    project.wait_for_epoch()
    first.kill()
    (orphan,) = project.waiting_or_running()
    second = project.run(*ONCE)
    assert f"cancelling 1 jobs that an earlier run left: {orphan}" in second.said
    assert_as_undisturbed(project, undisturbed, trials=1)
    assert [job.state for job in project.jobs()] == ["CANCELLED", "COMPLETED"]
    assert "Nothing to be done" in project.run(*ONCE).said


def test_a_node_fails_and_comes_back(project, undisturbed):
    project.configure(only(ranks=1))
    first = project.start(*ONCE)
    attempt = project.wait_for_epoch()
    node = json.loads((attempt / "measured.json").read_text())["ranks"][0]["node"]
    for pid in (running(BED, f"slurmd.{node}"), *leftovers(BED.state, [node])):
        os.kill(pid, signal.SIGKILL)
    try:
        wait_for("Slurm's notice", lambda: "down" in slurm("sinfo", "-hn", node, "-o", "%T"), 120)
    finally:
        command([sys.executable, TESTBED, "start"], limit_s=120).check_returncode()
    # Slurm itself starts the job again, and Snakemake waits for it.
    first.wait()
    project.run(*ONCE)
    assert_as_undisturbed(project, undisturbed, trials=1)
    assert "Nothing to be done" in project.run(*ONCE).said


def test_a_full_results_disk(project, undisturbed):
    project.configure(only(ranks=1))
    filler = project.results / "filler"
    with small_disk(project.results):
        fill(filler)
        first = project.finish(*ONCE)
        assert first.returncode == 1 and FULL in first.said, first.said
        filler.unlink()

        second = project.start(*ONCE)
        project.wait_for_epoch()
        fill(filler)
        assert second.wait() == 1
        # The trial's own log is on the full disk: what the job says is in Slurm's.
        assert FULL in project.slurm_logs()
        assert project.outcomes() == {}
        filler.unlink()

        assert_nothing_by_halves(project.results)
        project.run(*ONCE)
        assert_as_undisturbed(project, undisturbed, trials=1)


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """`folder`, with what is in it, on a file system of its own."""
    kept = folder.with_name("kept")
    folder.rename(kept)
    folder.mkdir()
    command(["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", folder]).check_returncode()
    try:
        shutil.copytree(kept, folder, dirs_exist_ok=True)
        yield
    finally:
        command(["umount", "--lazy", folder]).check_returncode()
        folder.rmdir()
        kept.rename(folder)


def assert_nothing_by_halves(folder: Path) -> None:
    hidden = {path.name for path in folder.rglob(".*")}
    assert hidden <= {".lock"}
    for path in folder.rglob("*.json"):
        json.loads(path.read_text())


def fill(file: Path) -> None:
    with pytest.raises(OSError, match="No space left"), file.open("wb", buffering=0) as disk:
        while True:
            disk.write(bytes(4096))


def test_a_lost_image(project, undisturbed):
    project.configure(only(ranks=1))
    image = project.folder / "images" / "own.sif"
    image.parent.mkdir(exist_ok=True)
    project.change_site(image=str(image), image_definition=None)
    first = project.finish(*ONCE)
    assert first.returncode == 1
    assert f"error: the image {image} is missing: copy it there" in first.said
    assert not project.jobs()
    image.symlink_to(BED.image)
    project.run(*ONCE)
    assert_as_undisturbed(project, undisturbed, trials=1)


def test_ends_that_are_outcomes(project):
    """Out of memory on the one rank or the other, and out of time: measured, and not run again."""
    write_hub_graph(project.folder / "hub.npz")
    project.configure(HUB)
    project.run("trials")
    for rank in (0, 1):
        outcome = project.outcome(seed=seed_with_hub(rank), ranks=2)
        assert outcome["status"] == "out_of_memory"
        assert outcome["reason"]["rank"] == rank
        assert outcome["reason"]["limit"] == {"kind": "memory_limit", "value": 0.08, "unit": "GiB"}
    outcome = project.outcome(ranks=1)
    assert outcome["status"] == "time_limit"
    assert outcome["reason"]["limit"] == {"kind": "walltime", "value": 60.0, "unit": "s"}
    assert outcome["epochs"]
    assert {job.state for job in project.jobs()} == {"COMPLETED"}
    assert "Nothing to be done" in project.run("trials").said


def seed_with_hub(rank: int) -> int:
    """A seed with which `rank`, of two, gets the micro-batch with training node 0 in it."""
    for seed in range(100):
        order = SeedOrder(np.arange(389), 4, 1, 2, seed)
        if any(0 in batch.seeds for batch in order.micro_batches(1, rank)):
            return seed
    raise AssertionError("no seed gives the hub to that rank")


def write_hub_graph(path: Path) -> None:
    """Training node 0 has every other node for a neighbor: 60,000 of them."""
    nodes = 60_001
    rng = np.random.default_rng(0)
    hub = np.stack([np.arange(1, nodes), np.zeros(nodes - 1, dtype=np.int64)])
    ids = np.arange(nodes)
    np.savez(
        path,
        edge_index=np.concatenate([hub, rng.integers(1, nodes, (2, 4 * nodes))], axis=1),
        x=rng.standard_normal((nodes, 10)).astype(np.float32),
        y=ids % 4,
        train=ids[:389],
        valid=ids[389:600],
        test=ids[600:800],
    )


HUB = {
    "study": "hub",
    "dataset": {"name": "hub", "source": "arrays", "path": "hub.npz"},
    "defaults": {
        "layers": 3, "accumulation": 1, "learning_rate_scaling": "none", "sampling_workers": 0,
    },
    "experiments": {
        "memory": {
            "axis": "ranks",
            "fixed": {
                "batch_size": 4, "fanout": [-1, 0, 0], "hidden_channels": 256,
                "memory_limit_gib": 0.08, "epochs": 1, "walltime_min": 5,
            },
            "product": {"ranks": [2]},
            "seeds": [seed_with_hub(0), seed_with_hub(1)],
        },
        "time": {
            "axis": "ranks",
            "fixed": {
                "epochs": 100_000, "batch_size": 128, "fanout": [2, 2, 2], "hidden_channels": 16,
                "walltime_min": 1, "evaluate_every_epochs": 100_000,
            },
            "product": {"ranks": [1]},
        },
    },
}  # fmt: skip
