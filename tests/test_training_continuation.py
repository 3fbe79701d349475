"""A trial that is cut and continued is the uninterrupted one, to the bit."""

from __future__ import annotations

import json
import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from ranks import run_ranks
from sagebench.attempts import EARLY_END_CODE
from sagebench.errors import UserError
from sagebench.graph.store import GraphStore
from sagebench.methods.minibatch import timing
from sagebench.records import Epoch
from sagebench.training import checkpoint
from sagebench.training.checkpoint import Checkpoint
from sagebench.training.distributed import Communicator, RankEnvironment
from trials import make_trial, tiny_store

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


def job(
    place, values: dict, store: str, home: str, number: int, when=None, what=(), every_s=0.0
) -> int:
    """One rank of a job; its exit code.

    when: after which optimizer step of this job (0: before the first), or in which "evaluation".
    what: befalls each rank then: a signal, or the seconds until the deadline; None: nothing.
    every_s: between checkpoints; 0: after every step.
    """
    from sagebench.methods import minibatch
    from sagebench.training import rank
    from sagebench.training.evaluation import Evaluator
    from sagebench.training.trainer import Trainer

    os.environ |= environment(place, home)
    os.environ["SAGEBENCH_WALLTIME_S"] = "60"
    mine = dict(enumerate(what)).get(place.rank)
    taken = 0

    def cut(now) -> None:
        if now != when or mine is None:
            return
        if isinstance(mine, signal.Signals):
            os.kill(os.getpid(), mine)
        else:
            os.environ["SAGEBENCH_DEADLINE"] = repr(time.time() + mine)

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

    Trainer.optimizer_step, Trainer.warm_up, Evaluator.accuracy = counted, warm_up, accuracy
    minibatch.SAVE_EVERY_S = every_s
    return rank.run_rank(make_trial(**values), Path(store), Path(home, str(number)))


def uninterrupted(place, values: dict, store: str, home: str) -> int:
    """The same where nothing is to be continued."""
    from sagebench.training import rank

    os.environ |= environment(place, home)
    del os.environ["SAGEBENCH_CHECKPOINT"]
    return rank.run_rank(make_trial(**values), Path(store), Path(home, "1"))


WALLTIME = 0.0, 0.0, 0.0
"""it is used up, for every rank"""


def run(home: Path, values: dict, store: str, cuts: list, **options) -> int:
    """Jobs that end at `cuts`, and one more that does not; returns its number."""
    arguments = (values, store, str(home))
    for number, when in enumerate(cuts, start=1):
        codes = run_ranks(
            values["ranks"], partial(job, **options), *arguments, number, when, WALLTIME
        )
        assert codes == [EARLY_END_CODE] * values["ranks"]
    last = len(cuts) + 1
    assert run_ranks(values["ranks"], job, *arguments, last) == [0] * values["ranks"]
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
        # Amid an epoch, then by an evaluation that outlasts the walltime.
        ({"ranks": 2}, [2, "evaluation"]),
        # Twice amid the first epoch; behind it; behind the second; in the third.
        ({"ranks": 1}, [1, 1, STEPS[1] - 2, STEPS[1], 2]),
        ({"ranks": 1, "engine": "reference"}, [STEPS[1] + 2]),
        ({"ranks": 1, "method": "whole_graph"}, [1, "evaluation"]),  # a step an epoch
        ({"ranks": 3}, [STEPS[3] + 1]),  # of three numbers, a sum depends on their order
    ],
)
def test_cut_and_continued_is_the_same(tmp_path, store, expected, changes, cuts):
    values = {**VALUES, **changes}
    last = run(tmp_path, values, store, cuts)
    assert (result(tmp_path, last), last_state(tmp_path)) == expected(values)


def test_what_was_trained_since_the_checkpoint_is_trained_again(tmp_path, store, expected):
    """The first is after the job's first step, the next is not due yet."""
    values = {**VALUES, "ranks": 1}
    last = run(tmp_path, values, store, [STEPS[1] - 1, STEPS[1] - 2], every_s=1e6)
    assert (result(tmp_path, last), last_state(tmp_path)) == expected(values)


def test_that_it_could_be_continued_changes_nothing(tmp_path, store, expected):
    assert run_ranks(2, uninterrupted, VALUES, store, str(tmp_path)) == [0, 0]
    assert result(tmp_path, 1) == expected(VALUES)[0]
    assert not (tmp_path / "checkpoint.pt").exists()


def test_an_evaluation_that_outlasts_the_walltime_is_no_progress(tmp_path, store):
    values = {**VALUES, "ranks": 1, "evaluate_every_epochs": 1}
    saved = []
    for number in (1, 2):
        arguments = (values, store, str(tmp_path), number, "evaluation", (signal.SIGKILL,))
        assert run_ranks(1, job, *arguments, killed=1) == [None]
        saved.append((tmp_path / "checkpoint.pt").stat().st_mtime_ns)
    assert saved[0] == saved[1]
    run_ranks(1, job, values, store, str(tmp_path), 3)
    # The first epoch was whole before: the second is the first that the third job trains.
    found = measured(tmp_path, 3)["epochs"]
    assert [epoch["resumed"] for epoch in found] == [False, True, False]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGKILL])
def test_a_rank_that_is_killed_costs_what_was_not_saved(tmp_path, store, expected, number):
    cut = partial(job, every_s=1e6)
    codes = run_ranks(
        2, cut, VALUES, store, str(tmp_path), 1, STEPS[2] + 2, (None, number), killed=1
    )
    assert codes == [1, None]
    assert [epoch["epoch"] for epoch in measured(tmp_path, 1)["epochs"]] == [1]
    assert run_ranks(2, job, VALUES, store, str(tmp_path), 2) == [0, 0]
    assert (result(tmp_path, 2), last_state(tmp_path)) == expected(VALUES)


def test_a_stopped_trial_does_not_train_on(tmp_path, store):
    """Its checkpoint says that it has no patience left."""
    values = {**VALUES, "ranks": 1, "epochs": 9, "learning_rate": 1e-12}
    values |= {"evaluate_every_epochs": 1, "patience_evaluations": 1}
    arguments = (values, store, str(tmp_path))
    assert run_ranks(1, job, *arguments, 1, 2 * STEPS[1], WALLTIME) == [0]
    assert run_ranks(1, job, *arguments, 2, 1, WALLTIME) == [0]
    assert len(measured(tmp_path, 2)["epochs"]) == 2
    assert measured(tmp_path, 2)["accuracy"]["best_epoch"] == 1


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
            assert run_ranks(1, job, *arguments, 2, 1, WALLTIME) == [EARLY_END_CODE]
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


def test_a_checkpoint_that_is_not_the_trials_is_refused(tmp_path, store, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    monkeypatch.setenv("SAGEBENCH_CHECKPOINT", str(path))

    def made(store: str | Path = store, **values) -> Checkpoint:
        communicator = Communicator(RankEnvironment(), torch.device("cpu"))
        return Checkpoint(make_trial(**values), GraphStore.open(store), communicator)

    assert made().read() is None
    made().write({"model": {"w": torch.ones(3)}}, {"peak": 7})
    alike, own = made().read()
    assert torch.equal(alike["model"]["w"], torch.ones(3))
    assert own == {"peak": 7}
    with pytest.raises(UserError, match=r"checkpoint\.pt has trial .*-s0-.*: delete it, and the"):
        made(seed=1).read()
    tiny_store(tmp_path / "other", nodes=1000)
    with pytest.raises(UserError, match=r"checkpoint\.pt has store .*: delete it, and the trial"):
        made(tmp_path / "other").read()
    with monkeypatch.context() as before:
        before.setattr(checkpoint, "FORMAT", 1)  # with the optimizer's state in another form
        made().write({}, {})
    with pytest.raises(UserError, match=r"has format 1, .* continued 3: delete it, and the trial"):
        made().read()
    for content in (b"", b"not a checkpoint", path.read_bytes()[:-99]):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"checkpoint\.pt cannot be read .*: delete it, and"):
            made().read()
