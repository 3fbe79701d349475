"""What the launcher makes of srun's end. srun is stood in for, to do what a test cluster on one
machine cannot: files that show late, and the kernel's killer. The real one: tests/cluster."""

from __future__ import annotations

import os

import pytest
from sagebench.launch.ranks import SlurmRanks

# Renamed when whole, as launch/ends.py does: what waits for it reads it meanwhile.
END = (
    'echo \'{{"code": {1}, "ended_at_unix_s": {2}}}\' > "{0}/end-{2}"; '
    'mv "{0}/end-{2}" "{0}/rank-{2}.end.json"'
)


@pytest.fixture
def ranks(tmp_path, monkeypatch):
    """ranks(script, **options): of two nodes, whose srun is the script; nobody knows sacct."""
    monkeypatch.setenv("PATH", os.defpath)

    def make(script: str, **options) -> SlurmRanks:
        srun = tmp_path / "bin" / "srun"
        srun.parent.mkdir()
        srun.write_text(f"#!/bin/sh\n{script}\n")
        srun.chmod(0o755)
        return SlurmRanks([str(srun)], dict(os.environ), tmp_path, 2, **options)

    return make


def ends(folder, *codes) -> str:
    return "; ".join(END.format(folder, code, rank) for rank, code in enumerate(codes))


def test_what_another_node_wrote_may_show_late(ranks, tmp_path):
    late = f"({END.format(tmp_path, 0, 1)}) "
    with ranks(f"{ends(tmp_path, 0)}; (sleep 2; {late}) >/dev/null 2>&1 &") as made:
        found = made.wait()
    assert [end.code for end in found] == [0, 0]
    assert not any(end.stopped for end in found)


def test_a_node_that_went_writes_nothing(ranks, tmp_path, monkeypatch):
    monkeypatch.setattr(SlurmRanks, "seen_after_failure_s", 0.5)
    with ranks(f"{ends(tmp_path, 0)}; echo 'node tb2 failed' >&2; exit 1") as made:
        found = made.wait()
    assert [end.code for end in found] == [0, None]
    assert "node tb2 failed" in found[1].log_tail


@pytest.mark.parametrize(
    ("said", "killed"),
    [
        ("slurmstepd: error: Detected 1 oom_kill event in StepId=7.0. Some of ...", True),
        ("srun: error: tb2: task 1: Out Of Memory", True),
        ("srun: error: tb2: task 1: Killed", False),
    ],
)  # fmt: skip
def test_a_kill_for_memory_is_told_by_slurm(ranks, tmp_path, said, killed):
    with ranks(f"{ends(tmp_path, 0, -9)}; echo '{said}' >&2; exit 137") as made:
        found = made.wait()
        assert made.killed_for_memory() is killed
    assert [end.code for end in found] == [0, -9]
