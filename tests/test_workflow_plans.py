"""Dry runs: they need nothing of what a run needs, and leave nothing behind."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest
import yaml
from sagebench.grid.freeze import load_study
from workflow_project import ROOT, SMALL, Project


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return Project(tmp_path_factory.mktemp("plans") / "checkout")


def files(project):
    return {path for path in project.folder.rglob("*") if ".snakemake" not in path.parts}


@pytest.mark.parametrize("name", ["config", "published"])
def test_the_slides_study_plans_for_meluxina_and_leaves_nothing_behind(project, name):
    before = files(project)
    result = project.snakemake(
        "-n", "-q", "rules", "--configfile", f"config/{name}.yaml", profile="profiles/meluxina"
    )
    assert result.returncode == 0, result.stdout
    assert re.search(r"^trial +36$", result.stdout, re.MULTILINE)
    assert files(project) == before


def test_without_a_configfile_it_is_the_slides_study(project):
    command = [sys.executable, "-m", "snakemake", "-n", "-q", "rules"]
    result = subprocess.run(command, cwd=project.folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "36" in result.stdout + result.stderr


def test_a_trial_on_meluxina_asks_for_whole_widths(project):
    result = project.snakemake(
        "-n", "trials", "--configfile", "config/config.yaml", profile="profiles/meluxina"
    )
    resources = {}
    for block in result.stdout.split("\nrule ")[1:]:
        if block.startswith("trial:"):
            lines = dict(line.strip().split(": ", 1) for line in block.splitlines() if ": " in line)
            ranks = lines["wildcards"].split("-r")[-1].split("-")[0]
            resources[ranks] = lines["resources"]
    assert set(resources) == {"1", "2", "4", "8"}
    for ranks, nodes in (("1", 1), ("2", 1), ("4", 1), ("8", 2)):
        for wanted in (f"nodes={nodes}", "tasks_per_node=4", "cpus_per_task=16", "gres=gpu:4"):
            assert wanted in resources[ranks]


def test_a_mistake_is_one_sentence_before_anything_runs(project):
    bad = {**SMALL, "defaults": {"learning_rate": "1e-3"}}
    (project.folder / "bad.yaml").write_text(yaml.safe_dump(bad))
    result = project.snakemake("--configfile", "bad.yaml")
    assert result.returncode != 0
    assert "Traceback" not in result.stdout
    (sentence,) = [line for line in result.stdout.splitlines() if line.startswith("error")]
    assert sentence.startswith("error: defaults.learning_rate is '1e-3': write a number above 0")


def test_a_plan_of_an_engine_that_nobody_knows_is_refused_in_a_sentence(project):
    bad = {**SMALL, "defaults": {"engine": "refrence"}}
    (project.folder / "bad.yaml").write_text(yaml.safe_dump(bad))
    planned = subprocess.run(
        [sys.executable, "workflow_scripts/plan.py", "--configfile", "bad.yaml"],
        cwd=project.folder, capture_output=True, text=True,
    )  # fmt: skip
    assert planned.returncode == 2 and not planned.stdout
    assert planned.stderr == (
        "error: defaults.engine is 'refrence': write reference or bipartite or blocks or trimmed.\n"
    )


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        ([], "make pilot"),
        (
            ["--configfile", "config/config.yaml", "--site", "profiles/local/site.yaml"],
            "make pilot",
        ),
        (["--configfile", "my study.yaml"], "make pilot 'CONFIG=my study.yaml'"),
        (
            ["--configfile", "my study.yaml", "--site", "profiles/workstation/site.yaml"],
            "make pilot 'CONFIG=my study.yaml' PROFILE=profiles/workstation",
        ),
    ],
)
def test_a_plan_names_the_next_command_for_its_own_study_and_site(
    project, tmp_path, arguments, command
):
    (project.folder / "my study.yaml").write_text(yaml.safe_dump(SMALL))
    planned = subprocess.run(
        [sys.executable, "workflow_scripts/plan.py", *arguments, "--out", tmp_path / "plan.csv"],
        cwd=project.folder, capture_output=True, text=True,
    )  # fmt: skip
    assert planned.returncode == 0, planned.stderr
    assert f"`{command}` measures some twenty steps of each" in planned.stdout


def test_single_values_of_the_command_line_count(project):
    result = project.snakemake("-n", "trials", "--config", "study=other")
    assert result.returncode == 0, result.stdout
    result = project.snakemake("-n", "--config", "studdy=other")
    assert "studdy (given as 'other') is no known key: write study." in result.stdout


def test_on_one_machine_a_trial_takes_every_core(project):
    result = project.snakemake("-n", "trials", "-c", "7")
    assert result.stdout.count("threads: 7") == 3


def test_thousands_of_trials_plan(project):
    many = {**SMALL, "experiments": {"batch": {"axis": "batch_size"}}}
    columns = {"batch_size": list(range(1, 51)), "accumulation": list(range(1, 51))}
    many["experiments"]["batch"]["product"] = columns
    (project.folder / "many.yaml").write_text(yaml.safe_dump(many))
    result = project.snakemake("-n", "-q", "rules", "--configfile", "many.yaml")
    assert result.returncode == 0, result.stdout
    assert re.search(r"^trial +2500$", result.stdout, re.MULTILINE)


def test_what_snakemake_parses_is_light():
    """No library that takes seconds to import is loaded to read a study."""
    code = """
import sys
from sagebench.grid import freeze, jobs
from sagebench.plan import decisions
heavy = {"torch", "numpy", "pandas", "matplotlib", "scipy", "numba", "torch_geometric"}
print(sorted(heavy & set(sys.modules)))
"""
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "workflow_scripts", capture_output=True, text=True
    )
    assert result.stdout.strip() == "[]", result.stderr


def test_lint_finds_nothing(project):
    result = subprocess.run(
        [sys.executable, "-m", "snakemake", "--lint"],
        cwd=project.folder,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def trials_of(said: str) -> set[str]:
    """The ids in what a dry run printed."""
    return set(re.findall(r"results/trials/([^/\s]+)/outcome\.json", said))


def test_the_demo_plans_for_a_workstations_gpus_where_there_are_none(project):
    command = [sys.executable, str(ROOT / "workflow_scripts" / "plan.py")]
    command += ["--site", "profiles/workstation/site.yaml", "--configfile", "config/demo.yaml"]
    planned = subprocess.run(command, cwd=project.folder, capture_output=True, text=True)
    assert planned.returncode == 0, planned.stderr
    assert "workstation" in planned.stdout
    on_gpus, on_cpu = (
        trials_of(
            project.snakemake(
                "-n", "trials", "--configfile", "config/demo.yaml", profile=f"profiles/{name}"
            ).stdout
        )
        for name in ("workstation", "local")
    )
    assert len(on_gpus) == len(on_cpu) == 14
    assert not on_gpus & on_cpu


@pytest.fixture(scope="module")
def make_demo(project):
    """make_demo(...): `make demo` with Snakemake's -n, in a checkout whose .venv is this one."""
    shutil.copy(ROOT / "Makefile", project.folder)
    (project.folder / ".venv").symlink_to(sys.prefix)

    def run(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        command = ["make", "demo", "SNAKEMAKE=.venv/bin/snakemake -n", *words]
        # As if there were the GPU that is asked for; and within `make test`, no word of folders.
        command += ["--assume-old=.venv/installed", "--assume-old=demo-device"]
        command += ["--no-print-directory"]
        return subprocess.run(
            command,
            cwd=project.folder,
            env={**project.environment(), **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return run


@pytest.mark.parametrize(
    ("words", "study", "profile"),
    [
        ([], "demo", "local"),
        (["DEMO_DEVICE=cpu"], "demo", "local"),
        (["DEMO_DEVICE=cuda"], "demo-cuda", "workstation"),
    ],
)
def test_the_demo_is_on_a_gpu_where_asked_alone(make_demo, words, study, profile):
    result = make_demo(*words)
    assert result.returncode == 0, result.stdout
    site, configuration = f"profiles/{profile}/site.yaml", f"config/{study}.yaml"
    wanted = load_study([ROOT / configuration], ROOT / site)
    assert trials_of(result.stdout) == set(wanted.requests)
    assert f"results/{study}/report.html" in result.stdout.splitlines()[-1]


def test_a_demo_on_what_is_no_device_is_refused(make_demo):
    result = make_demo(**{"DEMO_DEVICE": "gpu"})
    assert result.returncode != 0
    assert "DEMO_DEVICE is 'gpu': write cpu or cuda" in result.stdout
