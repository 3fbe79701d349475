"""The very lines that reach Slurm: a trial's sbatch, as the plugin writes it, and its srun."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path

import pytest
from configurations import CLUSTER
from sagebench.grid.jobs import cpu_job_resources, slurm_resources
from sagebench.grid.site import geometry, read_site, validate_site
from sagebench.slurm.commands import srun_command, without_step
from snakemake.iocontainers import ResourceList
from snakemake_executor_plugin_slurm.submit_string import get_submit_command
from snakemake_executor_plugin_slurm.utils import set_gres_string
from snakemake_executor_plugin_slurm.validation import validate_slurm_extra

PROFILES = Path(__file__).parents[1] / "profiles"
WHOLE = validate_site({**CLUSTER, "gres": "gpu"})
SHARED = validate_site({**CLUSTER, "gres": "gpu", "whole_nodes": False})
SINGLE = validate_site(
    {**CLUSTER, "gres": "gpu:a100", "devices_per_node": 1, "cpus_per_node": 16, "nodes": 16}
)
MELUXINA = read_site(PROFILES / "meluxina" / "site.yaml")


class Job:
    """What the plugin looks at; a resource of None is not there."""

    threads = 1

    def __init__(self, asked):
        given = {name: value for name, value in asked.items() if value is not None}
        self.resources = ResourceList(fromdict=given)


def sbatch_line(asked) -> str:
    """The options that differ from job to job and site to site."""
    job = Job(asked)
    validate_slurm_extra(job)
    names = ("run_uuid", "slurm_logfile", "comment_str", "account", "partition", "workdir")
    line = get_submit_command(job, {**dict.fromkeys(names, ""), "workdir": None})
    line += set_gres_string(job)
    return " ".join(shlex.split(line.partition("--comment ''")[2]))


def trial_line(ranks, site) -> str:
    return sbatch_line(slurm_resources(ranks, site))


def srun_line(ranks, site) -> str:
    return shlex.join(srun_command(asdict(geometry(ranks, site)), site.model_dump(mode="json")))


A_NODE = "--ntasks-per-node=4 --cpus-per-task=16 --gres=gpu:4"


@pytest.mark.parametrize(("ranks", "nodes"), [(1, 1), (2, 1), (3, 1), (4, 1), (8, 2), (16, 4)])
def test_of_whole_nodes_a_trial_asks_for_whole_nodes(ranks, nodes):
    assert trial_line(ranks, WHOLE) == f"--mem-per-cpu 7680 --nodes={nodes} {A_NODE}"


@pytest.mark.parametrize(
    ("ranks", "nodes", "of_a_node"),
    [
        # A single task is no MPI job to the plugin.
        (1, 1, "--cpus-per-task=16 --gres=gpu:1"),
        (2, 1, "--ntasks-per-node=2 --cpus-per-task=16 --gres=gpu:2"),
        (3, 1, "--ntasks-per-node=3 --cpus-per-task=16 --gres=gpu:3"),
        (4, 1, A_NODE),
        (6, 2, "--ntasks-per-node=3 --cpus-per-task=16 --gres=gpu:3"),
        (8, 2, A_NODE),
        (16, 4, A_NODE),
    ],
)
def test_of_shared_nodes_a_trial_asks_for_its_share(ranks, nodes, of_a_node):
    assert trial_line(ranks, SHARED) == f"--mem-per-cpu 7680 --nodes={nodes} {of_a_node}"


@pytest.mark.parametrize(
    ("ranks", "tasks"),
    [(1, ""), (2, "--ntasks=2 "), (4, "--ntasks=4 "), (8, "--ntasks=8 "), (16, "--ntasks=16 ")],
)
def test_of_nodes_of_one_device_a_trial_asks_for_one_task_each(ranks, tasks):
    line = f"--mem-per-cpu 30720 --nodes={ranks} {tasks}--cpus-per-task=16 --gres=gpu:a100:1"
    assert trial_line(ranks, SINGLE) == line


def test_without_names_of_devices_none_are_asked_for():
    site = validate_site({**CLUSTER, "memory_per_node_gib": None})
    assert trial_line(8, site) == "--nodes=2 --ntasks-per-node=4 --cpus-per-task=16"
    alone = validate_site({**CLUSTER, "memory_per_node_gib": None, "whole_nodes": False})
    assert trial_line(1, alone) == "--nodes=1 --ntasks=1 --cpus-per-task=16"


@pytest.mark.parametrize(("ranks", "nodes"), [(1, 1), (2, 1), (4, 1), (8, 2), (16, 4)])
def test_a_trial_on_meluxina(ranks, nodes):
    asked = {"runtime": 60, **slurm_resources(ranks, MELUXINA)}
    assert asked["slurm_account"] == "p200EDIT"
    assert asked["slurm_partition"] == "gpu"
    assert sbatch_line(asked) == (
        f"-t 60 --qos=default --mem-per-cpu 7680 --nodes={nodes} --ntasks-per-node=4 "
        "--cpus-per-task=16 --hint=nomultithread --gres=gpu:4"
    )


def test_a_job_without_devices_on_meluxina():
    asked = cpu_job_resources(MELUXINA)
    assert asked["slurm_partition"] == "cpu"
    line = "-t 240 --qos=default --mem-per-cpu 7680 --ntasks=1 --cpus-per-task=8"
    assert sbatch_line(asked) == line


SAME = "--overlap --kill-on-bad-exit=1 --export=ALL"


@pytest.mark.parametrize(
    ("ranks", "nodes", "each"), [(1, 1, 1), (2, 1, 2), (4, 1, 4), (8, 2, 4), (16, 4, 4)]
)
def test_srun_takes_what_the_ranks_need(ranks, nodes, each):
    geometry_of = f"--nodes={nodes} --ntasks={ranks} --ntasks-per-node={each} --cpus-per-task=16"
    assert srun_line(ranks, SHARED) == (
        f"srun {geometry_of} --gres=gpu:{each} --mem-per-cpu=7680 {SAME}"
    )
    # Of a whole node every rank may see every device.
    assert srun_line(ranks, WHOLE) == f"srun {geometry_of} --gres=gpu:4 --mem-per-cpu=7680 {SAME}"
    assert srun_line(ranks, MELUXINA) == (
        f"srun {geometry_of} --gres=gpu:4 --mem-per-cpu=7680 {SAME} "
        "--hint=nomultithread --gpu-bind=none"
    )


@pytest.mark.parametrize("ranks", [1, 2, 4, 8, 16])
def test_srun_over_nodes_of_one_device(ranks):
    assert srun_line(ranks, SINGLE) == (
        f"srun --nodes={ranks} --ntasks={ranks} --ntasks-per-node=1 --cpus-per-task=16 "
        f"--gres=gpu:a100:1 --mem-per-cpu=30720 {SAME}"
    )


def test_options_of_the_site_stay_whole_words():
    site = validate_site(
        {**CLUSTER, "sbatch_options": ["--signal=B:USR1@60", "--comment-like=a b; $(c) `d` 'e'"]}
    )
    line = trial_line(1, site)
    assert "--signal=B:USR1@60 --comment-like=a b; $(c) `d` 'e'" in line


def test_srun_does_not_take_the_step_it_runs_in_for_its_options():
    kept = {"SLURM_CONF": "c", "SLURM_JOB_ID": "7", "CUDA_VISIBLE_DEVICES": "0", "PATH": "p"}
    step = {"SLURM_CPU_BIND": "quiet,mask_cpu:0x1", "SLURM_NTASKS": "1", "SLURM_STEP_ID": "0"}
    assert without_step({**kept, **step}) == kept
