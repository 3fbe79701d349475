"""Pilots run for real, on a small graph: what they measure, what is left out, what goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from probed import evaluations_in, pilots_in
from sagebench.engines.base import make_engine
from sagebench.graph.store import GraphStore
from sagebench.grid.trial import Trial, store_name
from sagebench.pilot.records import Pilot, pilots_folder
from sagebench.records import Status
from sagebench.sampling.order import SeedOrder
from short_folder import short_folder
from trial_runs import Run
from trials import DATASET, make_trial, tiny_store

SCRIPT = Path(__file__).parents[1] / "workflow_scripts" / "prepare.py"
SITE = Path(__file__).parents[1] / "profiles" / "local" / "site.yaml"
LIMIT_S = 180
DEFAULTS = {
    "layers": 3, "hidden_channels": 16, "fanout": [4, 3, 2], "batch_size": 8, "accumulation": 1,
    "sampling_workers": 1, "epochs": 3, "walltime_min": 5,
}  # fmt: skip


class Study:
    """A folder with a study of the small graph, and the commands called in it."""

    def __init__(self, folder: Path, nodes: int = 1500, train: int = 389, **experiment) -> None:
        self.folder = folder
        self.store = folder / "results" / "stores" / store_name(DATASET)
        tiny_store(self.store, nodes, train)
        self.configure(**experiment)
        self.environment = {**os.environ, "TMPDIR": short_folder(self)}

    def configure(self, **experiment) -> None:
        study = {
            "study": "small",
            "dataset": DATASET,
            "defaults": DEFAULTS,
            "experiments": {"batch": {"axis": "batch_size", **experiment}},
        }
        (self.folder / "study.yaml").write_text(yaml.safe_dump(study))

    @property
    def command(self) -> list[str]:
        return [
            sys.executable,
            str(SCRIPT),
            "pilot",
            "--configfile",
            "study.yaml",
            "--site",
            str(SITE),
        ]

    def pilot(self) -> subprocess.CompletedProcess:
        return subprocess.run(
            self.command, cwd=self.folder, env=self.environment, capture_output=True, text=True,
            timeout=LIMIT_S,
        )  # fmt: skip

    def start(self) -> subprocess.Popen:
        return subprocess.Popen(
            self.command, cwd=self.folder, env=self.environment, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    @property
    def results(self) -> Path:
        return self.folder / "results"

    @property
    def pilots(self) -> dict[str, Pilot]:
        return pilots_in(self.results, "local")

    @property
    def evaluations(self) -> dict[str, Pilot]:
        return evaluations_in(self.results, "local")

    @property
    def files(self) -> dict[str, str]:
        """The records' text by name."""
        folder = pilots_folder(self.results, "local")
        return {path.name: path.read_text() for path in folder.glob("*.json")}

    def attempts(self) -> dict[str, list[str]]:
        """How the attempts ended, by the folder they are in."""
        paths = pilots_folder(self.results, "local").glob("*/attempts.jsonl")
        return {
            path.parent.name: [json.loads(line)["status"] for line in path.open()] for path in paths
        }


def by(pilots: dict[str, Pilot], **values) -> Pilot:
    (found,) = (
        pilot
        for pilot in pilots.values()
        if all(pilot.trial[name] == value for name, value in values.items())
    )
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Study:
    """Both paths of engines, an epoch longer than the window, and a shorter one."""
    study = Study(
        tmp_path_factory.mktemp("finished"),
        nodes=6000,
        train=4000,
        product={"batch_size": [1, 64], "engine": ["blocks", "reference"], "ranks": [1, 2]},
        seeds=[0, 1],
    )
    study.first = study.pilot()
    assert study.first.returncode == 0, study.first.stdout + study.first.stderr
    return study


def counted(study: Study, pilot: Pilot, epochs: dict[int, slice]) -> tuple[float, float]:
    """Nodes and edges of a micro-batch, mean over these micro-batches of these epochs."""
    trial = Trial.from_json(pilot.trial)
    store = GraphStore.open(study.store)
    engine = make_engine(trial, store, torch.device("cpu"))
    order = SeedOrder(store.train, trial.batch_size, trial.accumulation, 1, trial.seed)
    batches = [
        engine.load(engine.sample(micro_batch))
        for epoch, part in epochs.items()
        for micro_batch in list(order.micro_batches(epoch, 0))[part]
    ]
    nodes = sum(sum(batch.nodes_per_hop) for batch in batches)
    edges = sum(sum(batch.edges_per_hop) for batch in batches)
    return nodes / len(batches), edges / len(batches)


@pytest.mark.parametrize("engine", ["blocks", "reference"])
def test_the_window_is_of_an_epoch_s_micro_batches_behind_its_first(finished, engine):
    pilot = by(finished.pilots, engine=engine, batch_size=1)
    assert 20 < pilot.micro_steps < 4000 and pilot.epoch_s is None
    part = slice(5, 5 + pilot.micro_steps)
    assert (pilot.nodes, pilot.edges) == counted(finished, pilot, {2: part})
    assert pilot.micro_steps * pilot.step_mean_s > 0.5  # s, of 2 by what the steps before took
    assert 0 < pilot.step_low_s <= pilot.step_s <= pilot.step_high_s
    assert pilot.step_low_s * 0.5 < pilot.step_mean_s
    assert 0 < pilot.first_batch_s < pilot.start_to_first_step_s < LIMIT_S


@pytest.mark.parametrize("engine", ["blocks", "reference"])
def test_short_epochs_are_measured_whole(finished, engine):
    """4000 training nodes: 63 micro-batches of at most 64."""
    pilot = by(finished.pilots, engine=engine, batch_size=64)
    epochs, left = divmod(pilot.micro_steps, 63)
    assert epochs >= 2 and left == 0
    whole = dict.fromkeys(range(2, 2 + epochs), slice(63))
    assert (pilot.nodes, pilot.edges) == counted(finished, pilot, whole)
    assert 0 < pilot.first_batch_s < pilot.epoch_s
    assert 0 < pilot.step_mean_s < 2 * pilot.epoch_s / 63


def test_every_distinct_configuration_has_one_pilot(finished):
    """Of 16 trials that differ in seeds and ranks, too."""
    assert len(finished.pilots) == 4
    assert {pilot.status for pilot in finished.pilots.values()} == {Status.COMPLETED}
    keys = {*finished.pilots, *finished.evaluations}
    assert finished.attempts() == {key: ["completed"] for key in keys}
    said = finished.first.stdout
    assert [f"pilot {number} of 6: " in said for number in range(1, 8)] == [True] * 6 + [False]


def test_validation_and_test_are_measured_once_for_those_that_evaluate_alike(finished):
    """By our loader, and where PyG's samples for training."""
    assert [record.status for record in finished.evaluations.values()] == [Status.COMPLETED] * 2
    for record in finished.evaluations.values():
        assert record.evaluation_s > 0 and record.test_s > 0
        assert finished.first.stdout.count(f"{record.key}: validation ") == 1


def test_a_record_says_of_what_it_is(finished):
    pilot = by(finished.pilots, engine="blocks", batch_size=1)
    assert pilot.store_checksum == GraphStore.open(finished.store).checksum
    assert pilot.versions["torch"] and pilot.cpu_model and pilot.measured_at
    assert pilot.device_name is None and pilot.energy_j is None  # no GPU


def test_the_memory_is_that_of_the_trial(finished, tmp_path):
    pilot = by(finished.pilots, engine="blocks", batch_size=1)
    run = Run(tmp_path / "trial", Trial.from_json(pilot.trial), finished.store)
    assert run.finish().returncode == 0
    measured = run.outcome["memory"]["peak_host_private_bytes"]
    assert pilot.memory.peak_host_private_bytes == pytest.approx(measured, rel=0.2)


def test_a_second_call_measures_what_is_gone_or_damaged_and_nothing_else(finished):
    before = finished.files
    again = finished.pilot()
    assert again.returncode == 0 and "pilot 1 of" not in again.stdout
    assert finished.files == before
    gone, damaged, *_ = finished.pilots
    lost = next(iter(finished.evaluations))
    folder = pilots_folder(finished.results, "local")
    (folder / f"{gone}.json").unlink()
    (folder / f"{lost}.json").unlink()
    (folder / f"{damaged}.json").write_text(before[f"{damaged}.json"][:-9])
    last = finished.pilot()
    assert last.returncode == 0, last.stderr
    assert f"{damaged}.json is no pilot (" in last.stdout
    new = finished.files
    assert new.keys() == before.keys()
    changed = {name for name in new if new[name] != before[name]}
    assert changed == {f"{name}.json" for name in (gone, damaged, lost)}


def test_micro_steps_without_seeds_are_not_counted(tmp_path):
    """389 training nodes: two micro-batches of 200 in a step of twenty."""
    study = Study(tmp_path, fixed={"batch_size": 200, "accumulation": 20}, product={"ranks": [1]})
    began = time.monotonic()
    assert study.pilot().returncode == 0
    (pilot,) = study.pilots.values()
    assert pilot.micro_steps % 2 == 0 and pilot.micro_steps >= 20
    assert counted(study, pilot, dict.fromkeys(range(2, 5), slice(2)))[0] == pytest.approx(
        pilot.nodes, rel=0.1
    )
    assert pilot.step_mean_s > pilot.epoch_s / 10  # half of it, and no fortieth
    assert time.monotonic() - began < 60  # epochs go on for two seconds, not for hundreds of steps


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def test_the_rank_s_window_on_a_device(tmp_path, device):
    store, trial = tiny_store(tmp_path / "store"), make_trial(device=device)
    (tmp_path / "trial.json").write_text(json.dumps(trial.to_json()))
    command = [sys.executable, str(SCRIPT.with_name("rank.py")), "pilot", "--part=window.json"]
    command += ["--trial", tmp_path / "trial.json", "--store", store.path, "--out", tmp_path]
    subprocess.run(command, check=True, timeout=LIMIT_S)
    window = json.loads((tmp_path / "window.json").read_text())
    assert 0 < window["step_low_s"] <= window["step_s"] <= window["step_high_s"]
    assert window["micro_steps"] * window["step_mean_s"] > 0.5
    assert (window["memory"]["peak_reserved_bytes"] is not None) == (device == "cuda")
    assert not (tmp_path / "evaluation.json").exists()


def test_out_of_memory_is_a_result_and_the_next_go_on(tmp_path):
    study = Study(
        tmp_path,
        fixed={"memory_limit_gib": 0.02, "batch_size": 48, "fanout": [6, 5, 4]},
        product={"hidden_channels": [2048, 16]},
    )
    assert study.pilot().returncode == 0
    early, whole = (by(study.pilots, hidden_channels=width) for width in (2048, 16))
    assert (early.status, whole.status) == (Status.OUT_OF_MEMORY, Status.COMPLETED)
    assert (early.reason.limit.kind, early.reason.limit.value) == ("memory_limit", 0.02)
    assert early.reason.phase in ("forward", "backward")
    assert early.step_s is None and whole.step_s > 0
    # Its trial does not come to an evaluation.
    assert len(study.evaluations) == 1
    assert "pilot 1 of" not in study.pilot().stdout


def test_a_pilot_that_fails_is_told_and_tried_again(tmp_path):
    """Loader processes of PyG cannot meet below so long a path."""
    study = Study(tmp_path, product={"engine": ["reference", "blocks"]}, fixed={"batch_size": 64})
    environment = study.environment
    study.environment = {**environment, "TMPDIR": str(long_folder(tmp_path))}
    failed = study.pilot()
    assert failed.returncode == 1
    assert [pilot.trial["engine"] for pilot in study.pilots.values()] == ["blocks"]
    (line,) = failed.stderr.splitlines()
    assert line.startswith("error: tiny-reference-b64x1-f4.3.2-")
    assert "failed with exit code 2: error: the loader processes" in line
    log = study.folder / line.rpartition("; see ")[2]
    assert "cannot meet below" in log.read_text()
    study.environment = environment
    again = study.pilot()
    assert again.returncode == 0 and "pilot 1 of 2: tiny-reference" in again.stdout


def long_folder(folder: Path) -> Path:
    path = folder / ("a" * 80) / ("b" * 80)
    path.mkdir(parents=True)
    return path


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_series_goes_on_where_it_was(tmp_path, number):
    study = Study(tmp_path, product={"batch_size": [8, 16, 32]})
    first = study.start()
    until = time.monotonic() + LIMIT_S
    while not study.pilots and time.monotonic() < until:
        time.sleep(0.02)
    folder = pilots_folder(study.results, "local")
    while len(list(folder.glob("tiny-*/attempts/1/trial.json"))) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    first.send_signal(number)
    said = first.communicate(timeout=LIMIT_S)[1]
    if number is signal.SIGTERM:
        assert (first.returncode, said) == (143, "interrupted by SIGTERM\n")
    kept = study.files
    assert len(study.pilots) == 1 and not study.evaluations
    again = study.pilot()
    assert again.returncode == 0 and "pilot 3 of 3: " in again.stdout
    assert len(study.pilots) == 3 and len(study.evaluations) == 1
    assert kept.items() <= study.files.items()
    ends = [end for of_one in study.attempts().values() for end in of_one]
    assert ends.count("completed") == 4
    assert ends.count("interrupted") == (number is signal.SIGTERM)
