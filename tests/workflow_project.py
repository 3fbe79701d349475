"""A small copy of the workflow with stand-ins for the scripts that build, train and draw.

What is tested with it is the glue: what Snakemake runs, when, with what, and what it leaves alone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent

SMALL = {
    "study": "small",
    "dataset": {"name": "pubmed", "source": "pubmed", "split": "large"},
    "defaults": {"epochs": 1, "walltime_min": 5},
    "experiments": {
        "batch": {"axis": "batch_size", "product": {"batch_size": [64, 128]}},
        "scaling": {"axis": "ranks", "product": {"ranks": [1, 2]}},
    },
}

# Each notes in ran.txt what it was asked to do.
_NOTE = """
import argparse, json, os, sys, time
from pathlib import Path
parser = argparse.ArgumentParser()
for name in ("spec", "out", "trial", "store", "outcome", "walltime-min", "study", "results",
             "tables", "figures", "accounting"):
    parser.add_argument("--" + name)
parser.add_argument("--partial", action="store_true")
parser.add_argument("stages", nargs="*")
arguments = parser.parse_args()
with open(os.environ["RAN"], "a") as ran:
    for name in arguments.stages or [Path(sys.argv[0]).stem]:
        ran.write(name + " " + (arguments.outcome or arguments.out or "") + "\\n")
def touch(folder, *names):
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name in names:
        Path(folder, name).write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
"""
_STAND_INS = {
    "build_graph": """
json.loads(Path(arguments.spec).read_text())
touch(arguments.out, "manifest.json")
Path(arguments.out, "manifest.json").write_text(json.dumps({"checksum": "c0ffee" * 10}))
""",
    "run_trial": """
trial = json.loads(Path(arguments.trial).read_text())
assert Path(arguments.store, "manifest.json").exists() and int(arguments.walltime_min) > 0
print("training", trial["batch_size"])
Path(arguments.outcome).with_name("walltime.txt").write_text(arguments.walltime_min)
while Path(os.environ.get("WHILE_THERE", "no such file")).exists():
    time.sleep(0.1)
if str(trial["batch_size"]) == os.environ.get("FAIL"):
    Path(arguments.outcome).with_name("attempts.jsonl").write_text("{}")
    sys.exit(1)
outcome = {"schema": 1, "trial": {}, "trial_id": Path(arguments.outcome).parent.name,
           "status": "completed", "trial": trial, "provenance": {"git_commit": "abcdef"}}
Path(arguments.outcome).write_text(json.dumps(outcome))
""",
    "make_report": """
from sagebench.analysis.figures import declared
study = json.loads(Path(arguments.study).read_text())
tables = Path(arguments.out, "tables")
if "tables" in arguments.stages:
    touch(tables, *(f"{table}.{kind}" for table in ("trials", "epochs", "not_run", "new_nodes")
                    for kind in ("csv", "parquet")))
if "figures" in arguments.stages:
    axes, kinds = [one["axis"] for one in study["experiments"]], ("svg", "png", "rst")
    touch(Path(arguments.out, "figures"),
          *(f"{one.name}.{kind}" for one in declared(axes) for kind in kinds))
if "report" in arguments.stages:
    Path(arguments.out, "report.html").write_text("report")
have = [Path(arguments.results, "trials", trial, "outcome.json").exists()
        for experiment in study["experiments"] for trial in experiment["trials"]
        if trial not in study["skipped"]]
assert all(have) or arguments.partial
if "tables" in arguments.stages:
    (tables / "trials.csv").write_text(f"{sum(have)} of {len(have)}")
""",
}


class Project:
    """A checkout in a folder of its own; commands run in it as a user's would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("rules", "report", "profiles", "config", "container", "envs"):
            shutil.copytree(ROOT / name, folder / name)
        shutil.copy(ROOT / "Snakefile", folder)
        scripts = folder / "workflow_scripts"
        scripts.mkdir()
        (scripts / "sagebench").symlink_to(ROOT / "workflow_scripts" / "sagebench")
        for name in ("plan", "again", "prepare"):
            shutil.copy(ROOT / "workflow_scripts" / f"{name}.py", scripts)
        for name, code in _STAND_INS.items():
            (scripts / f"{name}.py").write_text(_NOTE + code)
        self.configure(SMALL)

    def configure(self, values: dict) -> None:
        (self.folder / "study.yaml").write_text(yaml.safe_dump(values, sort_keys=False))

    def environment(self, **variables: str) -> dict[str, str]:
        return {**os.environ, "RAN": str(self.folder / "ran.txt"), **variables}

    def command(self, *arguments: str, profile: str = "profiles/local") -> list[str]:
        command = [sys.executable, "-m", "snakemake", *arguments, "--profile", profile]
        if "--configfile" not in arguments:
            command += ["--configfile", "study.yaml"]
        return command

    def snakemake(
        self, *arguments: str, profile: str = "profiles/local", **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run Snakemake; stdout holds what it said on both streams."""
        return subprocess.run(
            self.command(*arguments, profile=profile),
            cwd=self.folder,
            env=self.environment(**variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=180,
        )

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment(**variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def ran(self, script: str) -> list[str]:
        """What a script was asked for since the last look, and forget it."""
        path = self.folder / "ran.txt"
        lines = path.read_text().splitlines() if path.exists() else []
        path.write_text("".join(f"{line}\n" for line in lines if line.split()[0] != script))
        return [line.partition(" ")[2] for line in lines if line.split()[0] == script]

    def outcomes(self) -> list[Path]:
        return sorted((self.folder / "results" / "trials").glob("*/outcome.json"))
