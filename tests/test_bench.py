"""The benchmark says what it ran, what it did not, and what failed."""

import json
import sys

import bench_engine
import pytest
from sagebench.bench import rows, table, worker
from sagebench.bench.engines import ENGINES
from sagebench.bench.figures import Figure, figure, ratio
from sagebench.bench.processes import Measured, MeasurementFailed
from sagebench.bench.rows import KEYS
from sagebench.bench.sizes import SIZES
from sagebench.graph.store import GraphStore
from trials import DATASET, make_trial, tiny_store

SECONDS = {
    "blocks": 2.0,
    "bipartite_csr": 5.0,
    "trimmed_csr": 8.0,
    "trimmed_edge_index": 7.0,
    "trimmed": 11.0,
    "reference": 60.0,
}
BYTES = {"blocks": 100, "reference": 500}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tiny_store(tmp_path_factory.mktemp("bench") / "store", train=800)


def fake_worker(job, trial, store):
    """Canned results in place of processes."""
    results = {
        "step": {
            "step_s": [SECONDS[trial["engine"]]],
            "sampling_s": [1.0],
            "data_s": [1.0],
            "peak_bytes": BYTES.get(trial["engine"], 200),
        },
        "sampler": {"edges_per_s": [10e6 * job.get("threads", 1)]},
        "loop": {"step_s": [8.0 / trial.get("ranks", 1)] * 2, "wait_s": [0.5, 0.0]},
        "evaluation": {
            "evaluation_s": 30.0,
            "peak_host_private_bytes": 5,
            "peak_allocated_bytes": None,
        },
    }
    return Measured(results[job["job"]], peak_host_bytes=7, others_cores=0.0)


def fake_trial(trial, store, folder, *, until_first_step=False):
    result = {
        "status": "completed",
        "epochs": [{"time_s": 1.5, "micro_batches": 3, "edges": 30}],
        "memory": {"peak_host_private_bytes": 8, "peak_reserved_bytes": None},
        "timing": {"total_s": 9.0},
        "start_to_first_step_s": 4.0,
    }
    return Measured(result, peak_host_bytes=9, others_cores=0.5)


@pytest.fixture
def bench(monkeypatch, capsys, store):
    """Runs the script with canned measurements; returns (exit code, JSON, table, progress)."""
    monkeypatch.setattr(rows, "run_worker", fake_worker)
    monkeypatch.setattr(rows, "run_trial", fake_trial)

    def run(*arguments):
        command = ["bench_engine.py", "--size", "tiny", "--store", str(store.path), "--json"]
        monkeypatch.setattr(sys, "argv", [*command, *arguments])
        code = bench_engine.main()
        output = capsys.readouterr()
        lines = output.out.strip().splitlines()
        return code, json.loads(lines[-1]), "\n".join(lines[:-1]), output.err

    return run


def test_every_row_fills_its_keys_in_order(bench):
    code, found, shown, progress = bench()
    assert code == 0
    assert list(found)[: len(KEYS)] == list(KEYS)
    assert {key: found[key] for key in KEYS} == {
        "blocks_vs_reference_time_ratio": 30.0,
        "blocks_vs_reference_memory_ratio": 5.0,
        "blocks_vs_trimmed_time_ratio": 5.5,
        "blocks_vs_best_pyg_time_ratio": 3.5,  # the faster of the two trimmed paths
        "sampler_edges_per_s": 10e6,
        "sampler_two_thread_ratio": 2.0,
        "batch512_host_bytes": 9,
        "two_rank_ratio": 2.0,
        "sampling_wait_share": 0.03125,
        "trial_start_s": 4.0,
        "evaluation_s": 30.0,
        "evaluation_host_bytes": 7,
    }
    assert found["details"]["best_pyg"] == "trimmed_edge_index"
    assert found["details"]["blocks_vs_reference_with_sampling_time_ratio"] == 62 / 4
    assert found["blocks_vs_bipartite_csr_time_ratio"] == 2.5
    assert found["details"]["trial_start_cold_s"] is None
    assert all(key in shown for key in KEYS)
    assert "round 3: reference" in progress
    assert "batch512: other work kept up to 0.5 cores busy during 1 of 1" in shown
    assert found["others_cores"]["trial_start"] == [0.5] * 4


@pytest.mark.parametrize(
    ("only", "expected"),
    [
        (["evaluation"], {"evaluation_s", "evaluation_host_bytes"}),
        (["sampler_two_thread_ratio"], {"sampler_edges_per_s", "sampler_two_thread_ratio"}),
        (["two_rank", "batch512"], {"two_rank_ratio", "batch512_host_bytes"}),
    ],
)
def test_only_runs_the_named_rows_and_leaves_the_others_null(bench, only, expected):
    code, found, shown, _ = bench("--only", *only)
    assert code == 0
    assert {key for key in KEYS if found[key] is not None} == expected
    assert not any(key in shown for key in set(KEYS) - expected)


def test_an_unknown_row_is_refused(bench):
    with pytest.raises(bench_engine.UserError, match="--only speed is no row: write some of step"):
        bench("--only", "speed")


def test_a_failed_row_is_said_and_the_others_run(bench, monkeypatch):
    def failing(job, trial, store):
        if job["job"] == "evaluation":
            raise MeasurementFailed("ended by SIGKILL (out of memory?)")
        return fake_worker(job, trial, store)

    monkeypatch.setattr(rows, "run_worker", failing)
    code, found, shown, _ = bench("--only", "evaluation", "sampling_wait")
    assert code == 1
    assert found["evaluation_s"] is None
    assert found["sampling_wait_share"] == 0.03125
    assert found["failures"] == {"evaluation": "ended by SIGKILL (out of memory?)"}
    assert "! evaluation FAILED: ended by SIGKILL" in shown


def test_two_ranks_take_two_gpus(monkeypatch, tmp_path):
    monkeypatch.setattr(rows, "gpu_count", lambda: 1)
    one_gpu = rows.Bench(SIZES["tiny"], tmp_path, {}, "cuda", threads=1, rounds=1)
    with pytest.raises(rows.LeftOut, match="two ranks take two GPUs, and this machine has 1"):
        next(rows.two_rank(one_gpu))


def test_a_row_that_is_left_out_fails_nothing(bench, monkeypatch):
    def left_out(bench):
        """A row."""
        raise rows.LeftOut("said so")

    monkeypatch.setitem(rows.ROWS, "two_rank", (left_out, rows.ROWS["two_rank"][1]))
    code, found, shown, _ = bench("--only", "two_rank", "sampling_wait")
    assert code == 0
    assert found["sampling_wait_share"] == 0.03125
    assert found["two_rank_ratio"] is None
    assert found["left_out"] == {"two_rank": "said so"}
    assert "! two_rank left out: said so" in shown


def test_an_engine_without_memory_for_its_step_leaves_the_others_compared(bench, monkeypatch):
    def failing(job, trial, store):
        if trial["engine"] == "reference":
            raise MeasurementFailed("DefaultCPUAllocator: can't allocate memory")
        return fake_worker(job, trial, store)

    monkeypatch.setattr(rows, "run_worker", failing)
    code, found, _, _ = bench("--only", "step")
    assert code == 1
    assert found["blocks_vs_reference_time_ratio"] is None
    assert found["blocks_vs_trimmed_time_ratio"] == 5.5
    assert "can't allocate" in found["failures"]["reference"]


def test_a_trial_that_ran_out_of_memory_is_no_figure(bench, monkeypatch):
    def exhausted(*arguments, **how):
        return Measured({"status": "out_of_memory", "reason": "said so"}, 1, 0.0)

    monkeypatch.setattr(rows, "run_trial", exhausted)
    code, found, _, _ = bench("--only", "batch512")
    assert code == 1
    assert found["batch512_host_bytes"] is None
    assert "out_of_memory" in found["failures"]["batch512"]


def test_fewer_engines_on_purpose_is_no_failure(bench):
    code, found, _, _ = bench("--only", "step", "--engines", "blocks", "trimmed")
    assert code == 0
    assert found["blocks_vs_trimmed_time_ratio"] == 5.5
    assert found["blocks_vs_reference_time_ratio"] is None


def test_ratios_are_of_medians_and_spread_over_rounds():
    assert ratio([[10.0, 12.0], [30.0]], [[2.0], [3.0, 4.0]]) == Figure(4.0, 5.5, 30 / 3.5)
    assert ratio([[10.0]], [[2.0], [4.0]]) == Figure(10 / 3, 5.0, 5.0)
    assert figure([3.0, 1.0, 2.0]) == Figure(2.0, 1.0, 3.0)


def test_targets_stand_for_the_whole_graph_only(bench):
    _, _, shown, _ = bench("--only", "evaluation")
    assert "met" not in shown
    large = rows.Bench(SIZES["products"], None, {}, "cpu", 2, 1)
    large.figures = {"trial_start_s": figure([4.0]), "evaluation_s": figure([300.0])}
    lines = table.table(large).splitlines()
    assert "<= 5" in lines[1] and lines[1].endswith(" met")
    assert lines[2].endswith("NOT MET")


def job(store, **values):
    trial = make_trial(fanout=[4, 3, 2], accumulation=1, **values).to_json()
    return {"trial": trial, "store": str(store.path), "warm": 1, "steps": 2}


def test_every_engine_takes_the_same_step(store):
    """Dropout off: the same samples and the same first weights give the same loss."""
    found = {
        engine: worker.step(job(store, engine=engine, dropout=0.0, dataset=DATASET))
        for engine in ENGINES
    }
    for result in found.values():
        assert [len(result[name]) for name in ("sampling_s", "data_s", "step_s")] == [2, 2, 2]
        assert result["loss"] == pytest.approx(found["reference"]["loss"], rel=1e-4)


def test_the_other_jobs_measure(store):
    assert set(worker.loop(job(store))) == {"step_s", "wait_s"}
    sampled = worker.sampler({**job(store), "threads": 2, "relabel_last": False})
    assert len(sampled["edges_per_s"]) == 2
    evaluated = worker.evaluation(job(store))
    assert 0 <= evaluated["accuracy"] <= 1 and evaluated["evaluation_s"] > 0


def test_a_short_store_is_the_same_graph(store, tmp_path):
    short = GraphStore.open(rows.short_store(store.path, tmp_path / "s", train=10, others=5))
    assert (len(short.train), len(short.valid), len(short.test)) == (10, 5, 5)
    assert short.num_edges == store.num_edges
    assert set(short.train) <= set(store.train)


@pytest.mark.slow  # a process with torch in it
def test_a_worker_runs_in_a_process_and_its_failure_is_told(store):
    trial = make_trial().to_json()
    measured = rows.run_worker(
        {"job": "sampler", "warm": 1, "steps": 1, "threads": 1, "relabel_last": True},
        trial,
        store.path,
    )
    assert len(measured.result["edges_per_s"]) == 1
    assert measured.peak_host_bytes > 50e6
    with pytest.raises(MeasurementFailed, match="no graph store"):
        rows.run_worker({"job": "evaluation"}, trial, store.path.parent)
