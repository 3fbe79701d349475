"""What ranks find in their environment: of the launcher, of the site, and for torch's allocator."""

from __future__ import annotations

import json

import pytest
from sagebench.bench import rows
from sagebench.launch.job import Job, local_site
from sagebench.launch.ranks import rank_group, shared_environment
from sagebench.measure.allocator import NAMES
from trials import make_trial

SITE = {
    "launcher": "local",
    "device": "cuda",
    "environment": {},
    "expandable_segments": True,
    "modules": [],
    "image": None,
    "gres": "gpu",
    "srun_options": [],
}
PLACE = {
    "nodes": 1,
    "ranks_per_node": 1,
    "cpus_per_rank": 1,
    "devices_per_node": 1,
    "memory_mib_per_cpu": None,
}
HEAP = {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES"}
OLD, NEW = NAMES
WANTED = "expandable_segments:True"


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    """None of what is looked at comes from whoever runs the tests."""
    for name in (*HEAP, *NAMES, "OMP_WAIT_POLICY", "PYTHONUNBUFFERED"):
        monkeypatch.delenv(name, raising=False)


def environment_of(site=SITE, **variables):
    """What a rank of this machine is told, beside the rank of a Slurm job at the same site."""
    script = "import json, os; print(json.dumps(dict(os.environ)))"
    (folder := variables.pop("folder")).mkdir(exist_ok=True)
    with rank_group(["-c", script], variables, folder, [], site, PLACE) as ranks:
        ranks.wait()
    found = json.loads((folder / "rank-0.log").read_text())
    site = {**site, "launcher": "slurm"}
    by_slurm = rank_group(["-c", ""], variables, folder, [], site, PLACE).environment
    assert {name: by_slurm.get(name) for name in NAMES} == {name: found.get(name) for name in NAMES}
    return found


@pytest.mark.parametrize(("device", "heap"), [("cpu", HEAP), ("cuda", set())])
def test_the_heap_is_set_for_ranks_that_compute_on_it(device, heap):
    found = shared_environment(device, 1, rows.SCRIPTS, 0.0)
    assert found.keys() & HEAP == heap
    assert (found["OMP_WAIT_POLICY"], found["PYTHONUNBUFFERED"]) == ("passive", "1")


@pytest.mark.parametrize(("device", "heap"), [("cpu", HEAP), ("cuda", set())])
def test_a_benchmarks_process_has_what_a_rank_has(tmp_path, monkeypatch, device, heap):
    (tmp_path / "sagebench" / "bench").mkdir(parents=True)
    (tmp_path / "sagebench" / "__init__.py").touch()
    (tmp_path / "sagebench" / "bench" / "__init__.py").touch()
    (tmp_path / "sagebench" / "bench" / "worker.py").write_text(
        "import json, os; print(json.dumps(dict(os.environ)))"
    )
    monkeypatch.setattr(rows, "SCRIPTS", tmp_path)
    found, _ = rows.run_worker("step", make_trial(device=device).to_json(), tmp_path, 1)
    assert found.keys() & HEAP == heap
    assert found["OMP_WAIT_POLICY"] == "passive"


def test_a_site_asks_for_expandable_segments_by_both_names(tmp_path):
    found = environment_of(folder=tmp_path)
    assert (found[OLD], found[NEW]) == (WANTED, WANTED)


@pytest.mark.parametrize("values", [{"device": "cpu"}, {"expandable_segments": False}])
def test_torch_is_left_alone_on_cpus_and_where_nobody_asks(tmp_path, values):
    found = environment_of({**SITE, **values}, folder=tmp_path)
    assert not found.keys() & set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_other_settings_of_the_allocator_stay(tmp_path, name):
    site = {**SITE, "environment": {name: "max_split_size_mb:128", "NCCL_DEBUG": "WARN"}}
    found = environment_of(site, folder=tmp_path)
    assert found[OLD] == found[NEW] == f"max_split_size_mb:128,{WANTED}"
    assert found["NCCL_DEBUG"] == "WARN"


@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize("own", [True, False])
def test_what_a_user_says_of_segments_decides(tmp_path, monkeypatch, asked, own):
    monkeypatch.setenv(OLD, f"expandable_segments:{own}")
    site = {**SITE, "expandable_segments": asked}
    found = environment_of(site, folder=tmp_path)
    assert (found[OLD], found.get(NEW)) == (f"expandable_segments:{own}", None)
    assert recorded(site) is own


def recorded(site, device="cuda"):
    return Job(make_trial(device=device), *[rows.SCRIPTS] * 3, site, PLACE).expandable_segments


@pytest.mark.parametrize(
    ("site", "device", "said"),
    [
        (SITE, "cuda", True),
        ({**SITE, "expandable_segments": False}, "cuda", False),
        ({**SITE, "environment": {NEW: "x:1, expandable_segments : False"}}, "cuda", False),
        (local_site("cuda"), "cuda", False),
        ({**SITE, "device": "cpu"}, "cpu", None),
    ],
)  # fmt: skip
def test_what_the_ranks_are_told_is_recorded(site, device, said):
    assert recorded(site, device) is said


@pytest.mark.cuda
@pytest.mark.parametrize("asked", [True, False])
def test_torch_obeys_and_says_nothing(asked, tmp_path):
    script = (
        "import torch; torch.ones(1, device='cuda'); "
        "print(torch.cuda.memory._snapshot()['allocator_settings']['expandable_segments'])"
    )
    site = {**SITE, "expandable_segments": asked}
    arguments = ["-W", "error", "-c", script]
    with rank_group(arguments, {}, tmp_path, [], site, PLACE) as ranks:
        ranks.wait()
    assert (tmp_path / "rank-0.log").read_text() == f"{asked}\n"
