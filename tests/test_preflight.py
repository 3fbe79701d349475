"""What a preflight says: findings from records, reasons from Snakemake's words, and a local one."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from configurations import CLUSTER, WORKSTATION
from sagebench.grid.jobs import preflight_widths
from sagebench.grid.site import validate_site
from sagebench.preflight.findings import problems, reason, table, unknown
from workflow_project import ROOT

SITE = validate_site({**CLUSTER, "gres": "gpu", "binds": ["/project"]}).model_dump(mode="json")
RANK = {
    "rank": 0, "node": "mel1", "error": None, "driver": "560.35", "device_error": None,
    "devices": ["A100"] * 4, "visible_devices": "0,1,2,3", "cores": 16, "cores_of_machine": 64,
    "versions": {"torch": "2.7.1", "cuda": "12.6"}, "unreadable": {}, "unwritable": None,
    "store": None, "meeting_s": 0.5, "clock_ahead_s": 0.001, "unseen": [],
    "all_reduce_gb_per_s": 80.0, "too_old_to_compile": False, "contexts": [0],
    "compiler": {"language": "C", "error": None},
    "shared_memory": {"free_bytes": 256 << 30, "error": None},
}  # fmt: skip


def record(nodes: int = 2, each: int = 4) -> dict:
    """A good one, of `each` ranks on each of mel1, mel2, ..."""
    ranks = nodes * each
    return {
        "ranks": ranks,
        "device": "cuda",
        "place": {"nodes": nodes, "ranks_per_node": each, "cpus_per_rank": 16},
        "needs": {"compiles": False, "shared_memory_bytes": 4 << 30},
        "image": "container/sagebench.sif",
        "logs": "results/preflight/cluster/8",
        "network": "IB",
        "error": None,
        "found": [
            {**RANK, "rank": rank, "node": f"mel{1 + rank // each}"} for rank in range(ranks)
        ],
        "ends": [{"rank": rank, "code": 0, "order": rank, "said": None} for rank in range(ranks)],
    }


def told(record: dict, site: dict = SITE) -> str:
    (sentence,) = problems(record, site)
    return sentence


def with_rank(number: int, **values) -> dict:
    changed = record()
    changed["found"][number] |= values
    return changed


def test_nothing_is_wrong_with_a_good_record():
    assert problems(record(), SITE) == []
    assert problems(record(1, 4), SITE) == []


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {"devices": ["A100"], "error": "device: cuda is asked for, but local rank 3 finds 1"},
            "rank 3 on mel1 sees 1 of the 4 GPUs of its node's ranks: write srun_options: "
            "[--gpu-bind=none] in the profile's site.yaml",
        ),
        (
            {"driver": "535.54", "devices": [],
             "device_error": "The NVIDIA driver on your system is too old (found version 12020)."},
            "rank 3 on mel1 has the driver 535.54, which does not run the image's CUDA 12.6 (The "
            "NVIDIA driver on your system is too old (found version 12020).): write "
            "image_definition: container/slides.def (CUDA 12.1) in the profile's site.yaml",
        ),
        (
            {"driver": None, "devices": [], "device_error": "Found no NVIDIA driver"},
            "rank 3 on mel1 finds no NVIDIA driver on its node: correct partition_gpu and gres in "
            "the profile's site.yaml",
        ),
        (
            {"versions": {"torch": "2.7.1", "cuda": None}},
            "rank 3 on mel1 has torch 2.7.1, which was built without CUDA: use an image with CUDA, "
            "or write device: cpu in the profile's site.yaml",
        ),
        (
            {"cores": 1},
            "rank 3 on mel1 may use 1 of its 16 CPUs: write srun_options: [--cpu-bind=cores] in "
            "the profile's site.yaml",
        ),
        (
            {"unreadable": {"/project": "Permission denied"}},
            "rank 3 on mel1 cannot read /project (Permission denied): correct binds in the "
            "profile's site.yaml",
        ),
        (
            {"unwritable": "Read-only file system"},
            "rank 3 on mel1 cannot write below results/preflight/cluster/8 (Read-only file "
            "system): put results where all nodes can write",
        ),
        (
            {"store": {"path": "s", "error": "no manifest"}},
            "rank 3 on mel1 cannot open the graph store (no manifest): delete it, and it is built "
            "again",
        ),
        (
            {"unseen": [4, 5]},
            "rank 3 on mel1 does not see what rank 4 wrote below results/preflight/cluster/8: put "
            "results on a file system that all nodes share",
        ),
        (
            {"clock_ahead_s": -3.25},
            "rank 3 on mel1 has a clock -3.2 s from rank 0's: tell the site, whose nodes should "
            "share one time",
        ),
        (
            {"too_old_to_compile": True, "versions": {"torch": "2.1.2", "cuda": "12.1"}},
            "rank 3 on mel1 has torch 2.1.2, which is too old for compile: true: write compile: "
            "false, or use a later torch",
        ),
        (
            {"compiler": {"language": "C", "error": "there is none"}},
            "rank 3 on mel1 has no C compiler that works (there is none), for compile: true: use "
            "an image that has it, such as container/current.def's, in the profile's site.yaml",
        ),
        (
            {"shared_memory": {"free_bytes": 64 << 20, "error": None}},
            "rank 3 on mel1 has 0.06 GiB free in /dev/shm, where the loader processes of PyG's "
            "engines keep up to 4.00 GiB of a trial's batches: have it made that "
            "large (no --contain under container_options in the profile's site.yaml), or write "
            "sampling_workers: 0",
        ),
        (
            {"shared_memory": {"free_bytes": None, "error": "Read-only file system"}},
            "rank 3 on mel1 cannot write into /dev/shm (Read-only file system), by which processes "
            "share memory: have it mounted there",
        ),
        (
            {"contexts": [0, 3]},
            "rank 3 on mel1 has a CUDA context on each of the GPUs 0, 3 of its node, which takes "
            "memory of other ranks' GPUs: see CUDA_VISIBLE_DEVICES, and what MPI or UCX set, under "
            "environment in the profile's site.yaml",
        ),
        (
            {"error": "RuntimeError: bad"},
            "rank 3 on mel1 stopped: RuntimeError: bad: see its log in results/preflight/cluster/8",
        ),
    ],
)  # fmt: skip
def test_what_one_rank_finds_is_told_with_what_to_do(values, sentence):
    assert told(with_rank(3, **values)) == sentence


def test_a_compiler_is_installed_where_there_is_no_image():
    changed = with_rank(3, compiler={"language": "C++", "error": "there is none"})
    assert told({**changed, "image": None}).endswith(": install one, and Python's headers")


def test_contexts_that_cannot_be_seen_are_neither_well_nor_wrong():
    changed = with_rank(3, contexts=None)
    assert problems(changed, SITE) == []
    (said,) = unknown(changed)
    assert said.startswith("not known whether rank 3 on mel1 has a CUDA context on another rank's")
    shown = table([{**changed, "problems": [], "unknown": [said]}]).splitlines()
    assert shown[2].endswith("ok") and shown[3] == f"8 ranks: {said}"


@pytest.mark.parametrize("devices", [[], ["A100"]])
def test_without_another_gpu_there_is_nothing_to_see(devices):
    changed = record()
    for rank in changed["found"]:
        rank |= {"contexts": None, "devices": devices}
    assert unknown(changed) == []


def test_devices_that_slurm_hides_are_missed_on_cpus_too():
    on_cpus = {**SITE, "device": "cpu"}
    changed = with_rank(3, visible_devices=None)  # unset: all of them
    assert problems(changed, on_cpus) == []
    changed["found"][3]["visible_devices"] = "3"
    assert "sees 1 of the 4 GPUs" in told(changed, on_cpus)


def test_ranks_that_find_the_same_share_a_sentence():
    changed = record()
    for rank in changed["found"]:
        rank["unreadable"] = {"/project": "gone"}
    assert told(changed).startswith("every rank cannot read /project (gone)")
    for rank in changed["found"][:4]:
        rank["unreadable"] = {}
    assert told(changed).startswith(
        "each of the ranks 4, 5, 6, 7 on mel2 cannot read /project (gone)"
    )


def test_the_first_cause_is_told_and_not_what_follows_from_it():
    changed = record()
    for rank in changed["found"]:
        rank["error"] = "DistBackendError: Connection closed by peer [10.0.0.1]"
    changed["found"][5]["error"] = "OSError: no such interface ib0"
    assert told(changed).startswith("rank 5 on mel2 stopped: OSError: no such interface ib0: see")
    # A rank that could not even say why.
    del changed["found"][5]
    changed["ends"] = [
        {"rank": rank, "code": 1, "order": rank + 1, "said": "Connection closed"}
        for rank in range(8)
    ]
    changed["ends"][5] |= {"code": -11, "order": 0, "said": "Segmentation fault"}
    assert told(changed) == "rank 5 did not start (exit code -11): Segmentation fault"


def test_ranks_that_did_not_start():
    changed = record()
    changed["found"] = []
    said = "srun: error: Unable to create step for job 7: Invalid generic resource specification"
    changed["ends"] = [{"rank": rank, "code": None, "order": 8, "said": said} for rank in range(8)]
    assert told(changed) == f"every rank did not start: {said}"


def test_what_ended_the_whole_width():
    changed = record()
    changed["error"] = "the image container/sagebench.sif is not there: copy it there"
    changed["found"], changed["ends"] = [], []
    assert told(changed) == changed["error"]


def test_ranks_on_other_nodes_than_asked_for():
    changed = record()
    for rank in changed["found"]:
        rank["node"] = "mel1"
    assert "spread over the nodes as [8], not 4 on each of 2" in told(changed)


@pytest.mark.parametrize(("nodes", "advice"), [(2, "NCCL_SOCKET_IFNAME"), (1, "--gpu-bind=none")])
def test_slow_exchange(nodes, advice):
    changed = record(nodes, 4)
    changed["found"][2]["all_reduce_gb_per_s"] = 1.2
    assert "only 1.2 GB/s" in told(changed)
    assert advice in told(changed)
    on_cpus = {**SITE, "device": "cpu"}
    assert problems(changed, on_cpus) == []


def test_table_has_a_line_a_width_and_one_a_problem():
    good, bad = record(1, 4), with_rank(3, cores=1)
    bad["problems"], good["problems"] = problems(bad, SITE), []
    lost = {"ranks": 16, "problems": ["Slurm refused the job: no"]}
    lines = table([good, bad, lost]).splitlines()
    assert lines[2].split()[:4] == ["4", "mel1", "A100", "560.35"]
    assert lines[2].endswith("ok")
    assert "80.0 GB/s" in lines[2]
    assert lines[3].endswith("1 problem")
    assert lines[4].split() == ["16", *["-"] * 7, "1", "problem"]
    assert lines[5].startswith("8 ranks: rank 3 on mel1 may use 1 of its 16 CPUs")
    assert lines[6] == "16 ranks: Slurm refused the job: no"


SAID = """
Error in rule preflight:
    message: SLURM sbatch failed. The error message was 'sbatch: error: Batch job submission failed:
Invalid account or account/partition combination specified'.
    sbatch call:
    output: r/4.json
Error in rule preflight:
    message: SLURM-job '7' failed, SLURM status is: 'TIMEOUT'. Reason: Unknown.For further error \
details see the log
    output: r/8.json
    log: gone.txt, gone too.txt (check log file(s) for error details)
"""


def test_reasons_are_found_in_what_snakemake_said():
    log = Path("log")
    assert reason(SAID, Path("r/4.json"), log) == (
        "Slurm refused the job: sbatch: error: Batch job submission failed: Invalid account or "
        "account/partition combination specified"
    )
    late = "SLURM-job '7' failed, SLURM status is: 'TIMEOUT'. See log"
    assert reason(SAID, Path("r/8.json"), log) == late
    refused = "Using shell\nerror: the site of x still holds the placeholder\n"
    assert reason(refused, Path("r/1.json"), log) == "the site of x still holds the placeholder"
    assert reason("", Path("r/1.json"), log) == "its job left no answer; see log"


def test_a_job_that_failed_tells_why_by_its_log(tmp_path):
    (tmp_path / "8.log").write_text("starting\nerror: the study is damaged\nmore\n")
    said = (
        "Error in rule preflight:\n    message: SLURM-job '7' failed, SLURM status is: 'FAILED'. \n"
        f"    output: {tmp_path / '8.json'}\n"
        f"    log: {tmp_path / '8.log'}, x.log (check log file(s))\n"
    )
    assert reason(said, tmp_path / "8.json", Path("log")) == "the study is damaged"


def test_a_job_whose_own_log_is_empty_tells_why_by_slurms(tmp_path):
    (tmp_path / "8.log").write_text("")
    (tmp_path / "7.log").write_text("error: results cannot be written\n")
    said = (
        "Error in rule preflight:\n    message: SLURM-job '7' failed, SLURM status is: 'FAILED'. \n"
        f"    output: {tmp_path / '8.json'}\n"
        f"    log: {tmp_path / '8.log'}, {tmp_path / '7.log'} (check log file(s))\n"
    )
    assert reason(said, tmp_path / "8.json", Path("log")) == "results cannot be written"


@pytest.mark.parametrize(
    ("values", "widths"),
    [
        ({"devices_per_node": 4, "nodes": 10}, [1, 4, 8]),
        ({"devices_per_node": 4, "nodes": 1}, [1, 4]),
        ({"devices_per_node": 1, "nodes": 3}, [1, 2]),
        ({"devices_per_node": 1, "nodes": 1}, [1]),
    ],
)
def test_widths_are_one_rank_a_node_and_two_nodes(values, widths):
    assert preflight_widths(validate_site({**CLUSTER, **values})) == widths


# Slow: two Snakemake jobs that import torch.
@pytest.mark.slow
def test_a_preflight_of_this_machine(tmp_path):
    profile = tmp_path / "pro file; $(touch ran)"
    profile.mkdir()
    (profile / "config.yaml").write_text((ROOT / "profiles/local/config.yaml").read_text())
    site = {**copy.deepcopy(WORKSTATION), "devices_per_node": 2, "binds": [str(tmp_path / "gone")]}
    (profile / "site.yaml").write_text(yaml.safe_dump(site))
    study = yaml.safe_load((ROOT / "config/demo.yaml").read_text())
    study["results"] = str(tmp_path / "re 'sults'")
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    command = [sys.executable, str(ROOT / "workflow_scripts/preflight.py")]
    command += ["--profile", str(profile), "--configfile", str(tmp_path / "study.yaml")]
    command += ["--snakefile", str(ROOT / "Snakefile")]

    def call() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=tmp_path, env={**os.environ}, capture_output=True, text=True, timeout=180
        )

    done = call()
    assert done.returncode == 1, done.stdout + done.stderr
    gone = f"cannot read {tmp_path / 'gone'} (No such file or directory): correct binds"
    assert f"1 rank: rank 0 on {os.uname().nodename} {gone}" in done.stdout
    assert f"2 ranks: every rank {gone}" in done.stdout
    (tmp_path / "gone").mkdir()
    done = call()
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.split()[-1] for line in done.stdout.splitlines()[3:]] == ["ok", "ok"]
    written = json.loads((tmp_path / "re 'sults'/preflight/workstation/2.json").read_text())
    assert written["found"][1]["all_reduce_gb_per_s"] > 0
    assert written["found"][1]["shared_memory"]["free_bytes"] > 0
    assert not list(tmp_path.rglob("ran"))
