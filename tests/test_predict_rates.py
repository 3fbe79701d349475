"""Rates of devices: records, cards, and the calibration script."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import calibrate
import pytest
from sagebench.errors import UserError
from sagebench.files import write_json
from sagebench.predict.cards import CARDS, card_name, card_rates
from sagebench.predict.phases import all_reduce_s
from sagebench.predict.rates import Network, Rates, interpolated, load_rates, path_of
from sagebench.predict.work import Use

SITE = "profiles/local/site.yaml"
ROOT = Path(__file__).parents[1]
CPU_KINDS = {
    "stream": 30e9,
    "norm": 20e9,
    "gather": 15e9,
    "spread": 30e9,
    "scatter": 25e9,
    "scatter_random": 10e9,
    "segment": 18e9,
    "regroup": 3e8,
    "products_fp32": 8e10,
    "products_bf16": 3e11,
    "layer_products_fp32": 1.4e11,
    "activation": 2e9,
    "activation_backward": 1e9,
    "dropout": 7e7,
    "sampled_edges": 2e7,
    "relabelled_edges": 3e7,
    "scanned_nodes": 1e10,
    "operations_blocks": 3e4,
    "operations_pyg": 8e4,
    "operations_optimizer": 6e4,
}


def cpu_rates(**values) -> Rates:
    """A machine of one thread, each kind with one rate."""
    network = Network(1e-4, 1e9)
    return Rates(
        **{
            "source": "rates of a test",
            "device": "cpu",
            "device_name": "test",
            "kinds": {1: {kind: ((1.0, rate),) for kind, rate in CPU_KINDS.items()}},
            "relative_error": 0.35,
            "within_node": network,
            "between_nodes": network,
            "start_s": 3.0,
            "cores": 8,
            **values,
        }
    )


def test_a_record_is_read_as_it_was_written(tmp_path):
    rates = card_rates("H100")
    path = path_of(tmp_path, "mine")
    assert load_rates(path) is None
    write_json(path, rates.to_json())
    assert load_rates(path).to_json() == rates.to_json()


@pytest.mark.parametrize("text", ["", "{}", '{"format": 1}', '{"format": 9}', "[]"])
def test_a_file_that_is_no_record_is_named(tmp_path, text):
    path = path_of(tmp_path, "mine")
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(UserError, match=r"mine\.json are no rates .*make calibrate"):
        load_rates(path)


def test_a_curve_is_followed_between_its_points():
    curve = ((1e6, 100.0), (1e8, 25.0))
    assert interpolated(curve, 1.0) == 100
    assert interpolated(curve, 1e7) == pytest.approx(50)
    assert interpolated(curve, 1e9) == 25


def test_products_take_the_longer_side_of_the_roofline():
    rates = cpu_rates()
    flops = Use("products_fp32", 8e10, 1.0)
    assert rates.one(flops, 1) == pytest.approx(1.0)
    assert rates.one(flops._replace(touched=9e10), 1) == pytest.approx(3.0)


def test_a_gpu_works_while_the_host_calls_and_a_cpu_does_not():
    calls, work = Use("operations_blocks", 1e3), Use("stream", 1e12)
    gpu, cpu = card_rates("A100-40GB"), cpu_rates()
    assert gpu.seconds([calls, work], 0) == gpu.one(work, 0) > gpu.one(calls, 0)
    assert cpu.seconds([calls, work], 1) == cpu.one(work, 1) + cpu.one(calls, 1)


def test_threads_between_those_measured_count_as_fewer():
    one = {"stream": ((1.0, 1.0),)}
    rates = cpu_rates(kinds={1: one, 4: {"stream": ((1.0, 3.0),)}})
    assert [rates.per_s("stream", 1.0, threads) for threads in (1, 3, 4, 64)] == [1, 1, 3, 3]


def test_a_kind_that_was_not_measured_is_a_users_error():
    with pytest.raises(UserError, match="have no 'products_tf32': measure them again"):
        cpu_rates().per_s("products_tf32", 1.0, 1)


def test_what_a_gpu_cannot_do_its_host_does_not_do_for_it():
    """A GPU older than sm_80 is calibrated without bf16, its host's threads with it."""
    kinds = {0: {"products_fp32": ((1.0, 1e13),)}, **cpu_rates().kinds}
    gpu = replace(card_rates("V100-16GB"), kinds=kinds)
    assert gpu.per_s("products_fp32", 1.0, 0) == 1e13
    assert gpu.per_s("products_bf16", 1.0, 1) == CPU_KINDS["products_bf16"]
    with pytest.raises(UserError, match="have no 'products_bf16'"):
        gpu.per_s("products_bf16", 1.0, 0)


def test_kinds_measured_with_one_thread_serve_more():
    one = cpu_rates().kinds[1]
    rates = cpu_rates(kinds={1: one, 4: {"stream": ((1.0, 9e10),)}})
    assert rates.per_s("stream", 1.0, 8) == 9e10
    assert rates.per_s("dropout", 1.0, 8) == CPU_KINDS["dropout"]


def test_every_card_has_its_sheet_and_plausible_rates():
    for name, card in CARDS.items():
        rates = card_rates(name)
        assert card.data_sheet.startswith("https://")
        assert rates.provenance == {"data_sheet": card.data_sheet}
        assert rates.per_s("stream", 1.0, 0) < card.bandwidth_gb_per_s * 1e9
        assert rates.per_s("products_fp32", 1.0, 0) < card.fp32_tflops * 1e12
        assert rates.device_memory_bytes > 10 << 30


@pytest.mark.parametrize(
    ("name", "nvlink_gb_per_s"),
    {
        **dict.fromkeys(("V100-16GB", "V100-32GB"), 300),
        **dict.fromkeys(("A100-40GB", "A100-80GB"), 600),
        **dict.fromkeys(("H100", "H200"), 900),
        "L40S": None,
    }.items(),
)
def test_an_all_reduce_is_by_nvlinks_share_of_an_a100s_or_half_of_the_pcie_link(
    name, nvlink_gb_per_s
):
    card = CARDS[name]
    share = 200 * nvlink_gb_per_s / 600 if nvlink_gb_per_s else card.pcie_gb_per_s / 2
    assert card.all_reduce_gb_per_s == share


def test_cards_are_known_by_the_drivers_names_too():
    assert card_name("NVIDIA A100-SXM4-40GB") == "A100-40GB"
    assert card_name("Tesla V100-SXM2-16GB") == "V100-16GB"
    assert card_name("NVIDIA H100 80GB HBM3") == "H100"
    assert card_name("NVIDIA GeForce RTX 3090") == "NVIDIA GeForce RTX 3090"
    assert card_rates("NVIDIA A100-SXM4-40GB").device_name == "A100-40GB"
    with pytest.raises(UserError, match="'K80' is not in the table: write one of A100-40GB"):
        card_rates("K80")


def test_an_all_reduce_is_a_rings():
    network = Network(1e-5, 1e9)
    assert all_reduce_s(1e9, 1, network) == 0
    assert all_reduce_s(1e9, 2, network) == pytest.approx(1 + 1e-5)
    assert all_reduce_s(1e9, 4, network) == pytest.approx(1.5 + 1e-5)


def test_predictions_need_no_torch():
    code = (
        "import sys; import sagebench.predict.time, sagebench.predict.energy;"
        "sys.exit(any(name in sys.modules for name in ('torch', 'numba', 'pandas')))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "workflow_scripts", check=False)
    assert run.returncode == 0


@pytest.mark.slow  # processes that import torch
def test_calibration_measures_what_predictions_need(tmp_path, monkeypatch, capsys):
    command = ["calibrate.py", "--site", str(ROOT / SITE), "--results", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [*command, "--seconds", "0"])
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0})
    calibrate.main()
    path = path_of(tmp_path, "local")
    assert str(path) in capsys.readouterr().out
    rates = load_rates(path)
    assert rates.machine == "local" and rates.device == "cpu"
    assert rates.source.startswith("rates measured on local (")
    assert set(rates.kinds) == {1}
    assert set(rates.kinds[1]) >= set(CPU_KINDS)
    for curve in rates.kinds[1].values():
        assert all(touched > 0 and rate > 0 for touched, rate in curve)
        assert [touched for touched, _ in curve] == sorted(touched for touched, _ in curve)
    assert rates.start_s > 0 and rates.loader_start_s > 0
    assert rates.provenance["versions"]["torch"] and rates.provenance["cores"]


@pytest.mark.slow  # processes that import torch
def test_calibration_measures_an_all_reduce():
    job = {"job": "all_reduce", "device": "cpu", "repetitions": 2}
    network = Network(**calibrate.run(job, ranks=2))
    assert 0 < network.latency_s < 10
    assert network.bytes_per_s > 0


@pytest.mark.slow  # a process that imports torch
def test_a_failed_measurement_says_what_failed():
    with pytest.raises(UserError, match=r"the measurement of kernels failed: .*device"):
        calibrate.run({"job": "kernels", "device": "nonsense", "threads": 1, "slice_s": 0})
