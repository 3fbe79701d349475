"""The dry run of a large study against that of bare Snakemake with as many jobs, and its plan."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "workflow_scripts"))

from sagebench.errors import run_script  # noqa: E402
from sagebench.grid.freeze import load_study  # noqa: E402

TIME_RATIO = 1.41
MEMORY_MIB = 56
PLAN_S = 15.0
WIDTHS = 4  # numbers of ranks in the study, so that what trials ask for differs

BARE = """
JOBS = [f"{{a}}_{{b}}" for a in range({rows}) for b in range({columns})]
rule all:
    input: expand("out/{{job}}/outcome.json", job=JOBS)
rule job:
    output: "out/{{job}}/outcome.json"
    log: "out/{{job}}/log.txt"
    shell: "touch {{output}} > {{log}}"
"""
STUDY = """
study: many
dataset: {{name: small, source: synthetic, scale: 0.002}}
experiments:
  batch:
    axis: batch_size
    product: {{batch_size: {batch_sizes}, accumulation: {accumulations}, ranks: [1, 2, 4, 8]}}
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=10_000, help="default: %(default)s")
    parser.add_argument("--repeats", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--profile", default="profiles/local", help="default: %(default)s")
    arguments = parser.parse_args()
    rows, columns = divide(arguments.trials // WIDTHS)
    with tempfile.TemporaryDirectory() as scratch:
        bare, ours = Path(scratch, "Snakefile"), Path(scratch, "many.yaml")
        bare.write_text(BARE.format(rows=rows, columns=columns * WIDTHS))
        ours.write_text(
            STUDY.format(
                batch_sizes=list(range(1, rows + 1)), accumulations=list(range(1, columns + 1))
            )
        )
        dry = [sys.executable, "-m", "snakemake", "-n", "-q", "rules"]
        profile = ["--profile", str(ROOT / arguments.profile)]
        site = ["--config", f"site={ROOT / arguments.profile / 'site.yaml'}"]
        commands = {
            "bare": [*dry, "-s", str(bare), "--scheduler", "greedy", "-c1"],
            "sagebench": [
                *[*dry, "-s", str(ROOT / "Snakefile"), *profile, *site],
                *["--configfile", str(ours)],
            ],
        }
        measured: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        # In turn, so that what else the machine does falls on both.
        for _, name in itertools.product(range(arguments.repeats), commands):
            measured[name].append(run(commands[name], Path(scratch)))
            seconds, mebibytes = measured[name][-1]
            print(f"{name:9}  {seconds:6.2f} s  {mebibytes:6.0f} MiB", flush=True)
        plan_s = time_plan(ours)
    time_s, memory_mib = (
        {n: min(m[i] for m in runs) for n, runs in measured.items()} for i in (0, 1)
    )
    ratio = time_s["sagebench"] / time_s["bare"]
    more_mib = memory_mib["sagebench"] - memory_mib["bare"]
    print(
        f"{rows * columns * WIDTHS} jobs: {ratio:.2f} x the time (at most {TIME_RATIO}),", end=" "
    )
    print(f"{more_mib:+.0f} MiB (at most +{MEMORY_MIB}); the best of {arguments.repeats} runs each")
    print(f"their plan, probed: {plan_s:.1f} s (at most {PLAN_S:.0f})")
    return int(ratio > TIME_RATIO or more_mib > MEMORY_MIB or plan_s > PLAN_S)


def time_plan(study: Path) -> float:
    """CPU seconds of a plan for GPUs, all trials probed."""
    scripts, site = ROOT / "workflow_scripts", ROOT / "profiles" / "meluxina" / "site.yaml"
    values = yaml.safe_load(study.read_text()) | {"results": str(study.parent / "results")}
    study.write_text(yaml.safe_dump(values))
    ((store, spec),) = load_study([study], site).stores.items()
    folder = study.parent / "results" / "stores" / store
    chosen = ["--site", str(site), "--configfile", str(study)]
    steps = {
        "build_graph": ["--spec", json.dumps(spec), "--out", str(folder)],
        "prepare": ["probe", *chosen],
        "plan": chosen,
    }
    for script, arguments in steps.items():
        seconds, _ = run([sys.executable, str(scripts / f"{script}.py"), *arguments], study.parent)
    return seconds


def divide(trials: int) -> tuple[int, int]:
    """Two numbers near each other that multiply to about `trials`."""
    rows = max(1, round(trials**0.5))
    return rows, max(1, round(trials / rows))


def run(command: list[str], folder: Path) -> tuple[float, float]:
    """CPU seconds and peak MiB of a command, of it alone whatever else the machine does."""
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise subprocess.CalledProcessError(os.waitstatus_to_exitcode(status), command)
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


if __name__ == "__main__":
    run_script(main)
