"""A trial that is cut and continued is the uninterrupted one, to the bit."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from ranks import run_ranks
from sagebench.attempts import CONTINUES_CODE, EARLY_END_CODE
from sagebench.errors import UserError
from sagebench.graph.store import GraphStore
from sagebench.records import Epoch
from sagebench.training import resume
from sagebench.training.rank import timing
from sagebench.training.resume import read_checkpoint, write_checkpoint
from trials import make_trial, tiny_store

SCRIPT = Path(__file__).parents[1] / "workflow_scripts" / "train_graphsage_ddp.py"
LIMIT_S = 120
VALUES = {
    "ranks": 2,
    "dropout": 0.5,
    "epochs": 3,
    "evaluate_every_epochs": 2,
    "accumulation": 3,
    "sampling_workers": 0,
    "phase_window_steps": 0,
}
STEPS = {1: 9, 2: 5, 3: 3}
"""optimizer steps of an epoch, by the number of ranks"""


def environment(place, home: str) -> dict[str, str]:
    """As the launcher gives it to a rank of a trial that is to be continued."""
    return {
        "RANK": str(place.rank),
        "WORLD_SIZE": str(place.world_size),
        "LOCAL_RANK": str(place.rank),
        "LOCAL_WORLD_SIZE": str(place.world_size),
        "SAGEBENCH_RENDEZVOUS": place.rendezvous,
        "SAGEBENCH_CHECKPOINT": f"{home}/checkpoint.pt",
    }


def job(place, values: dict, store: str, home: str, number: int, when=None, what=()) -> int:
    """One rank of a job; its exit code.

    when: after which optimizer step of this job (0: before the first), or in which "evaluation".
    what: befalls each rank then: a signal, or the seconds until the deadline; None: nothing.
    """
    from sagebench.training import rank
    from sagebench.training.early_end import Deadline
    from sagebench.training.evaluation import Evaluator
    from sagebench.training.trainer import Trainer

    os.environ |= environment(place, home)
    deadline = Deadline(None, 60.0)
    mine = dict(enumerate(what)).get(place.rank)
    taken = 0

    def cut(now) -> None:
        if now != when or mine is None:
            return
        if isinstance(mine, signal.Signals):
            os.kill(os.getpid(), mine)
        else:
            deadline.at_unix_s = time.time() + mine

    def counted(self, step=Trainer.optimizer_step) -> None:
        nonlocal taken
        step(self)
        taken += 1
        cut(taken)

    def warm_up(self, warm_up=Trainer.warm_up) -> None:
        warm_up(self)
        cut(0)

    def accuracy(self, *arguments, accuracy=Evaluator.accuracy) -> float:
        cut("evaluation")
        return accuracy(self, *arguments)

    Deadline.read = lambda: deadline
    Trainer.optimizer_step, Trainer.warm_up, Evaluator.accuracy = counted, warm_up, accuracy
    return rank.run_rank(make_trial(**values), Path(store), Path(home, str(number)))


def uninterrupted(place, values: dict, store: str, home: str) -> int:
    """The same where nothing is to be continued."""
    from sagebench.training import rank

    os.environ |= environment(place, home)
    del os.environ["SAGEBENCH_CHECKPOINT"]
    return rank.run_rank(make_trial(**values), Path(store), Path(home, "1"))


STOPPING = (signal.SIGUSR1, signal.SIGTERM)
HARMLESS = (None, signal.SIGTERM)
"""ranks stop with rank 0, none of them alone"""


def run(home: Path, values: dict, store: str, cuts: list, what=STOPPING) -> int:
    """Jobs that end at `cuts`, and one more that does not; returns its number."""
    arguments = (values, store, str(home))
    for number, when in enumerate(cuts, start=1):
        codes = run_ranks(values["ranks"], job, *arguments, number, when, what)
        assert codes == [CONTINUES_CODE] * values["ranks"]
    last = len(cuts) + 1
    codes = run_ranks(values["ranks"], job, *arguments, last, 1, HARMLESS)
    assert codes == [0] * values["ranks"]
    return last


def measured(home: Path, number: int) -> dict:
    return json.loads((home / str(number) / "measured.json").read_text())


def result(home: Path, number: int) -> list:
    """All that came of a trial but its times, and which epochs were resumed."""
    found = measured(home, number)
    epochs = [
        {name: value for name, value in epoch.items() if not name.endswith("_s")}
        for epoch in found["epochs"]
    ]
    for epoch in epochs:
        del epoch["resumed"]
    best = torch.load(home / str(number) / "best.pt", weights_only=True)
    return plain([epochs, found["accuracy"], best])


def last_state(home: Path) -> dict:
    """The weights and the optimizer's state at the end of the training."""
    state = torch.load(home / "checkpoint.pt", weights_only=True)
    return plain({name: state[name] for name in ("model", "optimizer", "best")})


def plain(value):
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> str:
    folder: Path = tmp_path_factory.mktemp("store") / "tiny"
    tiny_store(folder)
    return str(folder)


@pytest.fixture(scope="module")
def expected(store, tmp_path_factory):
    """What trials come to in one go, each of them run once."""
    known: dict[str, tuple] = {}

    def of(values: dict) -> tuple:
        key = json.dumps(values, sort_keys=True)
        if key not in known:
            home = tmp_path_factory.mktemp("whole")
            run(home, values, store, [])
            known[key] = result(home, 1), last_state(home)
        return known[key]

    return of


@pytest.mark.parametrize(
    ("changes", "cuts"),
    [
        # At first no step is taken at all; then it stops amid an epoch, and behind an evaluation.
        ({"ranks": 2}, [0, 2, "evaluation"]),
        # Twice amid the first epoch; behind it; before the evaluation of the second; in the third.
        ({"ranks": 1}, [1, 1, STEPS[1] - 2, STEPS[1], 2]),
        ({"ranks": 1, "engine": "reference"}, [STEPS[1] + 2]),
        ({"ranks": 3}, [STEPS[3] + 1]),  # of three numbers, a sum depends on their order
    ],
)
def test_cut_and_continued_is_the_same(tmp_path, store, expected, changes, cuts):
    values = {**VALUES, **changes}
    last = run(tmp_path, values, store, cuts)
    assert (result(tmp_path, last), last_state(tmp_path)) == expected(values)


def test_that_it_could_be_continued_changes_nothing(tmp_path, store, expected):
    assert run_ranks(2, uninterrupted, VALUES, store, str(tmp_path)) == [0, 0]
    assert result(tmp_path, 1) == expected(VALUES)[0]
    assert not (tmp_path / "checkpoint.pt").exists()


def test_a_job_stops_before_its_walltime_is_used_up(tmp_path, store, expected):
    values = {**VALUES, "ranks": 1}
    last = run(tmp_path, values, store, [3], what=(0.0,))
    assert (result(tmp_path, last), last_state(tmp_path)) == expected(values)


def test_a_killed_rank_costs_the_unfinished_epoch(tmp_path, store, expected):
    codes = run_ranks(
        2, job, VALUES, store, str(tmp_path), 1, STEPS[2] + 2, (None, signal.SIGKILL), killed=1
    )
    assert codes == [1, None]
    assert [epoch["epoch"] for epoch in measured(tmp_path, 1)["epochs"]] == [1]
    assert run_ranks(2, job, VALUES, store, str(tmp_path), 2) == [0, 0]
    assert (result(tmp_path, 2), last_state(tmp_path)) == expected(VALUES)


def test_a_stopped_trial_does_not_train_on(tmp_path, store):
    """Cut behind the evaluation that was the last it had patience for."""
    values = {**VALUES, "ranks": 1, "epochs": 9, "learning_rate": 1e-12}
    values |= {"evaluate_every_epochs": 1, "patience_evaluations": 1}
    arguments = (values, store, str(tmp_path))
    assert run_ranks(1, job, *arguments, 1, STEPS[1] + 1, (signal.SIGUSR1,)) == [CONTINUES_CODE]
    assert run_ranks(1, job, *arguments, 2, "evaluation", (signal.SIGUSR1,)) == [CONTINUES_CODE]
    assert run_ranks(1, job, *arguments, 3) == [0]
    assert len(measured(tmp_path, 3)["epochs"]) == 2
    assert measured(tmp_path, 3)["accuracy"]["best_epoch"] == 1


def test_walltime_without_a_step_further_is_an_end(tmp_path, store):
    """From the start, and from a checkpoint, which stays as it was."""
    arguments = ({**VALUES, "ranks": 1}, store, str(tmp_path))
    for number in (1, 3):
        assert run_ranks(1, job, *arguments, number, 0, (-1.0,)) == [EARLY_END_CODE]
        record = json.loads((tmp_path / str(number) / "rank-0.json").read_text())
        assert record["status"] == "time_limit"
        assert record["reason"]["limit"] == {"kind": "walltime", "value": 60.0, "unit": "s"}
        if number == 1:
            assert not (tmp_path / "checkpoint.pt").exists()
            assert run_ranks(1, job, *arguments, 2, 1, (0.0,)) == [CONTINUES_CODE]
            before = (tmp_path / "checkpoint.pt").stat().st_mtime_ns
    assert (tmp_path / "checkpoint.pt").stat().st_mtime_ns == before


def test_the_first_epoch_after_a_cut_is_flagged_and_not_timed(tmp_path, store):
    values = {**VALUES, "ranks": 1, "epochs": 5}
    last = run(tmp_path, values, store, [STEPS[1] + 2, 2 * STEPS[1]])
    found = measured(tmp_path, last)
    # Cut amid the second; stopped after the third, so that the fourth is the first of its job.
    assert [epoch["resumed"] for epoch in found["epochs"]] == [False, True, False, True, False]
    assert found["timing"]["epochs_timed"] == 2
    epochs = [Epoch.from_json(epoch) for epoch in found["epochs"]]
    assert timing(epochs, 1).epoch_max_s == max(epochs[k].time_s for k in (2, 4))
    first = measured(tmp_path, 1)
    assert found["start_to_first_step_s"] == first["start_to_first_step_s"]
    assert found["timing"]["total_s"] > found["timing"]["training_s"]


def test_processes_that_are_told_to_stop_with_all_their_children(tmp_path, store):
    """PyG's loader samples in processes of its own, and Slurm tells every process of a step."""
    values = {"ranks": 2, "engine": "reference", "batch_size": 4, "epochs": 3}
    (tmp_path / "trial.json").write_text(json.dumps(make_trial(**values).to_json()))
    command = [sys.executable, str(SCRIPT), "--trial", str(tmp_path / "trial.json")]
    command += ["--store", store, "--out", str(tmp_path / "1")]
    ranks = [
        subprocess.Popen(
            command,
            env={**os.environ, **environment(place, str(tmp_path))},
            start_new_session=True,
            stderr=subprocess.PIPE,
            text=True,
        )
        for place in places(2, tmp_path)
    ]
    until = time.monotonic() + LIMIT_S
    while not (tmp_path / "checkpoint.pt").exists() and time.monotonic() < until:
        time.sleep(0.01)
    for rank, number in zip(ranks, STOPPING, strict=True):
        os.killpg(rank.pid, number)
    said = [rank.communicate(timeout=LIMIT_S)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [CONTINUES_CODE] * 2, said
    assert "to be continued" in said[0]


def told_as_a_worker_starts(place, store: str, home: str) -> int:
    """A rank that is asked to stop, with its loader's worker, when that has torch's handlers and
    not yet its own; its exit code."""
    from sagebench.training import rank
    from torch.utils.data._utils import signal_handling

    def tell(set_handlers=signal_handling._set_worker_signal_handlers) -> None:
        set_handlers()
        for process in (os.getppid(), os.getpid()):
            os.kill(process, signal.SIGTERM)

    signal_handling._set_worker_signal_handlers = tell
    multiprocessing.set_start_method("fork", force=True)  # as elsewhere; here it is the ranks' own
    os.environ |= environment(place, home)
    trial = make_trial(engine="reference", sampling_workers=1, epochs=3)
    return rank.run_rank(trial, Path(store), Path(home, "1"))


def test_a_worker_that_is_told_to_stop_as_it_starts(tmp_path, store):
    """It has died of it now and then, and its rank with it."""
    assert run_ranks(1, told_as_a_worker_starts, store, str(tmp_path)) == [CONTINUES_CODE]


def places(count: int, home: Path) -> list:
    from sagebench.training.distributed import RankEnvironment

    return [RankEnvironment(k, count, k, count, str(home / "meet")) for k in range(count)]


def test_a_checkpoint_that_is_not_the_trials_is_refused(tmp_path, store, monkeypatch):
    trial, graph, path = make_trial(), GraphStore.open(store), tmp_path / "checkpoint.pt"
    assert read_checkpoint(path, trial, graph) is None
    write_checkpoint(path, trial, graph, {"model": {"w": torch.ones(3)}})
    assert torch.equal(read_checkpoint(path, trial, graph)["model"]["w"], torch.ones(3))
    with pytest.raises(UserError, match=r"checkpoint\.pt has trial .*-s0-.*: delete it, and the"):
        read_checkpoint(path, make_trial(seed=1), graph)
    tiny_store(tmp_path / "other", nodes=1000)
    with pytest.raises(UserError, match=r"checkpoint\.pt has store .*: delete it, and the trial"):
        read_checkpoint(path, trial, GraphStore.open(tmp_path / "other"))
    with monkeypatch.context() as before:
        before.setattr(resume, "FORMAT", 1)  # with the optimizer's state in another form
        write_checkpoint(path, trial, graph, {})
    with pytest.raises(UserError, match=r"has format 1, .* continued 2: delete it, and the trial"):
        read_checkpoint(path, trial, graph)
    for content in (b"", b"not a checkpoint", path.read_bytes()[:-99]):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"checkpoint\.pt cannot be read .*: delete it, and"):
            read_checkpoint(path, trial, graph)
