"""Measure how fast this machine does what training does, for the plan's predictions.

Takes about half a minute and writes results/rates/MACHINE.json. Run it where trials run, with
nothing beside it: on a cluster inside a job on a node of the trials' kind.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sagebench.errors import UserError, run_script
from sagebench.files import write_json
from sagebench.grid.site import read_site
from sagebench.launch.start import runtime_environment
from sagebench.predict.cards import BETWEEN_NODES, card_name, card_rates, find_card
from sagebench.predict.rates import Network, Rates, path_of

SCRIPTS = Path(__file__).resolve().parent
START_S = 3.0
"""a process's imports, roughly: they are no measurement, but take of the time"""
RELATIVE_ERROR = 0.6
"""of a time predicted from measured rates alone: trials on two cores took 1.2 to 2.9 times as long
as predicted, since a step meets colder caches than a measurement and has Python and the sampler
around it; outcomes correct that"""
LIMIT_S = 600
MEASUREMENTS = 34
"""of a process, roughly"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--site", type=Path, required=True, help="the site.yaml of this machine")
    parser.add_argument("--results", type=Path, default=Path("results"), help="default: results")
    parser.add_argument("--seconds", type=float, default=30.0, help="about how long (30)")
    arguments = parser.parse_args()
    site = read_site(arguments.site)
    if site.device == "cuda" and not Path("/dev/nvidiactl").exists():
        raise UserError(
            f"{os.uname().nodename} has no CUDA device: measure {site.machine} in a job on one of "
            "its GPU nodes, or name its card in the site.yaml"
        )
    rates = calibrate(site.machine, site.device, site.devices_per_node, arguments.seconds)
    path = path_of(arguments.results, site.machine)
    write_json(path, rates.to_json())
    print(f"{path}: {rates.source}")


def calibrate(machine: str, device: str, devices: int, seconds: float) -> Rates:
    """Measure this machine. devices: ranks that a node may have."""
    started = time.time()
    cores = len(os.sched_getaffinity(0))
    threads = [2**k for k in range(5) if 2**k <= cores] if device == "cpu" else [1]
    ranks = min(2, devices, cores if device == "cpu" else devices)
    processes = len(threads) + (device == "cuda") + 1 + (ranks > 1)
    slice_s = max(0.0, seconds - START_S * processes) / processes / MEASUREMENTS
    kinds = {
        count: run({"job": "kernels", "device": "cpu", "threads": count, "slice_s": slice_s})
        for count in threads
    }
    if device == "cuda":
        kinds[0] = run({"job": "kernels", "device": device, "threads": 1, "slice_s": slice_s})
    engines = ["blocks", *(["reference"] if find_spec("torch_geometric") else [])]
    begun = time.time()
    host = run({"job": "host", "device": device, "engines": engines, "slice_s": slice_s})
    called = {kind: host["curves"][kind] for kind in host["curves"] if "operations" in kind}
    tables = {count: found["curves"] for count, found in kinds.items()}
    for count in tables:
        if device == "cpu" or count == 0:
            tables[count] |= called
    tables[1] |= host["curves"]
    described = host["machine"]
    name = card_name(described["device_name"]) or described["cpu_model"]
    if ranks > 1:
        within = Network(**run({"job": "all_reduce", "device": device, "repetitions": 20}, ranks))
    else:  # there is nothing to measure, and no trial of two ranks either
        within = card_rates(name).within_node if name and find_card(name) else BETWEEN_NODES
    return Rates(
        source=f"rates measured on {machine} ({name})",
        device=device,
        device_name=name,
        kinds=tables,
        relative_error=RELATIVE_ERROR,
        within_node=within,
        between_nodes=BETWEEN_NODES if device == "cuda" else within,
        start_s=host["ready_unix_s"] - begun,
        machine=machine,
        cores=cores,
        device_memory_bytes=described["device_memory_bytes"],
        loader_start_s=host.get("loader_start_s", 0.1),
        provenance={
            **described,
            "measured_at": datetime.fromtimestamp(started, timezone.utc).isoformat("T", "seconds"),
            "seconds": time.time() - started,
        },
    )


def run(job: dict[str, Any], ranks: int = 1) -> dict[str, Any]:
    """Run a job of sagebench.predict.calibration in as many processes; the first one's result."""
    command = [sys.executable, "-m", "sagebench.predict.calibration", json.dumps(job)]
    with tempfile.TemporaryDirectory(prefix="sagebench-") as scratch:
        processes = [
            subprocess.Popen(
                command,
                env={**os.environ, **environment(job, rank, ranks, Path(scratch))},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(ranks)
        ]
        try:
            outputs = [process.communicate(timeout=LIMIT_S) for process in processes]
        except subprocess.TimeoutExpired:
            raise UserError(
                f"the measurement of {job['job']} did not end within {LIMIT_S} s: run it again "
                "where nothing else keeps the machine busy"
            ) from None
        finally:
            for process in processes:
                process.kill()
    for process, (_, errors) in zip(processes, outputs, strict=True):
        if process.returncode:
            lines = errors.strip().splitlines() or [f"exit code {process.returncode}"]
            raise UserError(f"the measurement of {job['job']} failed: {lines[-1]}")
    return json.loads(outputs[0][0].strip().splitlines()[-1])


def environment(job: dict[str, Any], rank: int, ranks: int, scratch: Path) -> dict[str, str]:
    values = {
        **runtime_environment(job["device"]),
        "PYTHONPATH": str(SCRIPTS),
        "OMP_NUM_THREADS": str(job.get("threads", 1)),
    }
    if ranks > 1:
        values |= {
            "RANK": str(rank),
            "WORLD_SIZE": str(ranks),
            "LOCAL_RANK": str(rank),
            "LOCAL_WORLD_SIZE": str(ranks),
            "SAGEBENCH_RENDEZVOUS": str(scratch / "rendezvous"),
            "GLOO_SOCKET_IFNAME": "lo",
        }
    return values


if __name__ == "__main__":
    run_script(main)
