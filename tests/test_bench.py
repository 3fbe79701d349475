"""The benchmark says what it ran, what it did not, and what failed."""

import json
import sys

import bench_engine
import numpy as np
import pytest
from sagebench.bench import rows, skipgram, worker
from sagebench.bench.rows import ENGINES, SIZES, Figure, MeasurementFailed, figure, ratio
from sagebench.embedding.walks import Walker
from trials import DATASET, make_trial, tiny_store

SECONDS = {
    "blocks": 2.0,
    "bipartite": 6.0,
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


def fake_worker(job, trial, store, steps):
    """Canned results in place of processes."""
    if job == "sampler":
        rates = [[10e6], [20e6]]
        found = {"edges_per_s": rates, "edges_per_s_as_blocks_uses_it": rates}
        return found, 0.5
    if job == "table":
        return {"table_s": [30.0], "peak_bytes": [5]}, 0.0
    if job == "launches":
        return {"launches": 134, "bytes": 9e9, "by_operation": {}}, 0.0
    if job == "skipgram":
        rates = {"pairs_per_s": [30e6, 40e6], "gensim_pairs_per_s": [5e6, 5e6]}
        return {**rates, "accuracy": [0.75, 0.5], "gensim_accuracy": [0.5, 0.75]}, 0.0
    result = {
        "step_s": [SECONDS[trial["engine"]]],
        "sampling_s": [0.25 if trial["fanout"][-1] == -1 else 1.0],
        "data_s": [1.0],
        "peak_bytes": [BYTES.get(trial["engine"], 200)],
        "host_bytes": 7,
    }
    return result, 0.0


@pytest.fixture
def bench(monkeypatch, capsys, store):
    """Runs the script with canned measurements; returns (exit code, JSON, table, progress)."""
    monkeypatch.setattr(rows, "run_worker", fake_worker)

    def run(*arguments):
        command = ["bench_engine.py", "--size", "tiny", "--store", str(store.path), "--json"]
        monkeypatch.setattr(sys, "argv", [*command, *arguments])
        code = bench_engine.main()
        output = capsys.readouterr()
        lines = output.out.strip().splitlines()
        return code, json.loads(lines[-1]), "\n".join(lines[:-1]), output.err

    return run


KEYS = {
    "blocks_vs_reference_time_ratio": 30.0,
    "blocks_vs_reference_memory_ratio": 5.0,
    "blocks_vs_trimmed_time_ratio": 5.5,
    "blocks_vs_best_pyg_time_ratio": 3.5,  # the faster of the two trimmed paths
    "sampler_edges_per_s": 10e6,
    "sampler_two_thread_ratio": 2.0,
    "exact_last_hop_sampling_ratio": 4.0,
    "exact_last_hop_time_ratio": 4 / 3.25,
    "exact_last_hop_memory_ratio": 1.0,
    "skipgram_vs_gensim_ratio": 7.0,
    "aggregate_table_s": 30.0,
    "launches_per_step": 134,
    "step_bytes": 9e9,
}


def test_every_row_fills_its_keys_in_order(bench):
    code, found, shown, progress = bench()
    assert code == 0
    assert list(found.items())[: len(KEYS)] == list(KEYS.items())
    assert found["details"]["best_pyg"] == "trimmed_edge_index"
    assert found["details"]["blocks_vs_reference_with_sampling_time_ratio"] == 62 / 4
    assert found["details"]["step"]["blocks"]["host_bytes"] == 7
    assert found["blocks_vs_bipartite_csr_time_ratio"] == 2.5
    assert found["skipgram_minus_gensim_accuracy"] == 0
    assert found["spread"]["skipgram_minus_gensim_accuracy"] == [-0.25, 0.25]
    assert all(key in shown for key in KEYS)
    assert "round 3: reference" in progress
    assert "sampler: other work kept up to 0.5 cores busy during 3 of 3" in shown
    assert found["others_cores"]["sampler"] == [0.5] * 3


def test_only_runs_the_named_rows_and_leaves_the_others_null(bench):
    code, found, shown, _ = bench("--only", "sampler")
    expected = {"sampler_edges_per_s", "sampler_two_thread_ratio"}
    assert code == 0
    assert {key for key in KEYS if found[key] is not None} == expected
    assert not any(key in shown for key in set(KEYS) - expected)


def test_a_failed_row_is_said_and_the_others_run(bench, monkeypatch):
    def failing(job, trial, store, steps):
        if job == "sampler":
            raise MeasurementFailed("was ended by SIGKILL")
        return fake_worker(job, trial, store, steps)

    monkeypatch.setattr(rows, "run_worker", failing)
    code, found, shown, _ = bench()
    assert code == 1
    assert found["sampler_edges_per_s"] is None
    assert found["blocks_vs_trimmed_time_ratio"] == 5.5
    assert found["failures"] == {"sampler": "was ended by SIGKILL"}
    assert "! sampler FAILED: was ended by SIGKILL" in shown


def test_an_engine_without_memory_for_its_step_leaves_the_others_compared(bench, monkeypatch):
    def failing(job, trial, store, steps):
        if trial["engine"] == "reference":
            raise MeasurementFailed("DefaultCPUAllocator: can't allocate memory")
        return fake_worker(job, trial, store, steps)

    monkeypatch.setattr(rows, "run_worker", failing)
    code, found, _, _ = bench("--only", "step")
    assert code == 1
    assert found["blocks_vs_reference_time_ratio"] is None
    assert found["blocks_vs_trimmed_time_ratio"] == 5.5
    assert "can't allocate" in found["failures"]["reference"]


def test_fewer_engines_on_purpose_is_no_failure(bench):
    code, found, _, _ = bench("--only", "step", "--engines", "blocks", "trimmed")
    assert code == 0
    assert found["blocks_vs_trimmed_time_ratio"] == 5.5
    assert found["blocks_vs_reference_time_ratio"] is None


def test_an_engine_that_no_row_names_has_its_ratios(monkeypatch):
    monkeypatch.setattr(rows, "run_worker", fake_worker)
    monkeypatch.setitem(SECONDS, "new", 3.0)
    said = []
    bench = rows.Bench(SIZES["tiny"], None, {}, "cpu", 2, 1, ("blocks", "new"), say=said.append)
    rows.step(bench)
    assert bench.figures["blocks_vs_new_time_ratio"].value == 1.5
    assert bench.figures["blocks_vs_new_memory_ratio"].value == 2.0
    assert bench.details["blocks_vs_new_with_sampling_time_ratio"] == 5 / 4


def test_ratios_are_of_medians_and_spread_over_rounds():
    assert ratio([[10.0, 12.0], [30.0]], [[2.0], [3.0, 4.0]]) == Figure(4.0, 5.5, 30 / 3.5)
    assert ratio([[10.0]], [[2.0], [4.0]]) == Figure(10 / 3, 5.0, 5.0)
    assert figure([[3.0], [1.0, 2.0]]) == Figure(2.0, 1.0, 3.0)


def test_targets_stand_for_the_whole_graph_only(bench):
    _, _, shown, _ = bench("--only", "sampler")
    assert "met" not in shown
    large = rows.Bench(SIZES["products"], None, {}, "cpu", 2, 1)
    large.figures = {
        "sampler_edges_per_s": figure([[14e6]]),
        "sampler_two_thread_ratio": figure([[1.5]]),
    }
    lines = bench_engine.table(large).splitlines()
    assert ">= 12" in lines[2] and lines[2].endswith(" met")
    assert lines[3].endswith("NOT MET")


def test_limits_are_not_to_be_exceeded():
    large = rows.Bench(SIZES["products"], None, {}, "cpu", 2, 1)
    large.figures = {"aggregate_table_s": figure([[61.0]]), "step_bytes": figure([[9e9]])}
    lines = bench_engine.table(large).splitlines()
    assert "<= 60.0 NOT MET" in lines[2]
    assert "GB" in lines[3] and lines[3].endswith("<= 11.0 met")


def test_every_engine_takes_the_same_step(store):
    """Dropout off: the same samples and the same first weights give the same loss."""
    values = {"fanout": [4, 3, 2], "accumulation": 1, "dropout": 0.0, "dataset": DATASET}
    found = {
        engine: worker.step(store.path, make_trial(engine=engine, **values), 2)
        for engine in ENGINES
    }
    for result in found.values():
        assert [len(result[name]) for name in ("sampling_s", "data_s", "step_s")] == [2, 2, 2]
        assert result["loss"] == pytest.approx(found["reference"]["loss"], rel=1e-4)
        assert result["host_bytes"] > 50e6


def test_a_table_and_launches_are_of_the_store(store):
    trial = make_trial(fanout=[4, 3, -1], accumulation=1, dataset=DATASET)
    made = worker.table(store.path, trial, 1)
    assert made["table_s"][0] > 0 and made["peak_bytes"][0] >= 0
    of_gpu = make_trial(fanout=[4, 3, 2], precision="bf16", device="cuda", dataset=DATASET)
    counted = worker.launches(store.path, of_gpu, 1)
    parts = [cost for part in counted["by_operation"].values() for cost in part.values()]
    assert counted["launches"] == sum(cost["launches"] for cost in parts) < 250
    assert counted["bytes"] == sum(cost["moved_bytes"] for cost in parts)


@pytest.mark.slow  # a process with torch in it
def test_a_worker_runs_in_a_process_and_its_failure_is_told(store):
    trial = make_trial().to_json()
    rates = rows.run_worker("sampler", trial, store.path, 3)[0]["edges_per_s"]
    assert [len(of_threads) for of_threads in rates] == [3, 3]
    with pytest.raises(MeasurementFailed, match="no graph store"):
        rows.run_worker("sampler", trial, store.path.parent, 3)


def test_without_a_store_the_synthetic_graph_is_made_once(monkeypatch, capfd, tmp_path):
    monkeypatch.setattr(rows, "run_worker", fake_worker)
    monkeypatch.setattr(bench_engine, "STORES", tmp_path)
    monkeypatch.setattr(sys, "argv", ["bench_engine.py", "--size", "tiny", "--only", "sampler"])
    for _ in range(2):
        assert bench_engine.main() == 0
    (made,) = (path for path in tmp_path.iterdir() if path.name.startswith("bench-"))
    assert (made / "manifest.json").exists()


def test_skipgram_counts_its_pairs_and_learns_a_small_graph(store):
    found = worker.skipgram(store.path, make_trial(dataset=DATASET), 2)
    connected = np.flatnonzero(np.diff(store.colptr))
    walks = Walker(store.colptr, store.row).walks(connected, range(10), 40, 0, 1)
    pairs = sum(int((walk[i] != walk[i + 1 : i + 20]).sum()) for walk in walks for i in range(22))
    assert found["pairs"][0] == pairs
    assert skipgram.trained_pairs(np.arange(41)[None], 20) == 22 * 19
    assert len(found["pairs_per_s"]) == 2 and min(found["pairs_per_s"]) > 0
    assert all(0 < accuracy < 1 for accuracy in found["accuracy"])


def test_a_probe_reads_labels_off_vectors_and_not_off_noise():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 3000)
    noise = rng.standard_normal((3000, 8)).astype(np.float32)
    assert skipgram.probe(noise, labels, 0) < 0.4
    assert skipgram.probe(noise + 5 * np.eye(8, dtype=np.float32)[labels], labels, 0) > 0.99


def test_without_gensim_the_row_says_how_to_install_it(bench, monkeypatch):
    monkeypatch.setattr(rows, "find_spec", lambda name: None)
    code, _, _, progress = bench("--only", "skipgram")
    assert code == 0 and "gensim is missing" in progress
    assert "pip install -r envs/bench.txt" in progress
