"""Where ranks go."""

from __future__ import annotations

import pytest
from configurations import CLUSTER, WORKSTATION
from sagebench.errors import UserError
from sagebench.grid.jobs import cpu_job_resources, slurm_resources
from sagebench.grid.site import geometry, validate_site

CLUSTER_WITH_GPUS = {**CLUSTER, "gres": "gpu"}
WHOLE = validate_site(CLUSTER_WITH_GPUS)
SHARED = validate_site({**CLUSTER_WITH_GPUS, "whole_nodes": False})
SINGLE = validate_site({**CLUSTER_WITH_GPUS, "devices_per_node": 1, "cpus_per_node": 16})
ONE = validate_site(WORKSTATION)


def place_of(ranks, site):
    place = geometry(ranks, site)
    assert place.nodes * place.ranks_per_node == ranks
    return place.nodes, place.ranks_per_node, place.devices_per_node, place.devices_allocated


@pytest.mark.parametrize(
    ("ranks", "place"),
    [
        (1, (1, 1, 4, 4)),
        (2, (1, 2, 4, 4)),
        (3, (1, 3, 4, 4)),
        (4, (1, 4, 4, 4)),
        (6, (2, 3, 4, 8)),
        (8, (2, 4, 4, 8)),
        (16, (4, 4, 4, 16)),
        (40, (10, 4, 4, 40)),
    ],
)
def test_whole_nodes(ranks, place):
    assert place_of(ranks, WHOLE) == place


@pytest.mark.parametrize(
    ("ranks", "place"),
    [(1, (1, 1, 1, 1)), (2, (1, 2, 2, 2)), (4, (1, 4, 4, 4)), (6, (2, 3, 3, 6)), (8, (2, 4, 4, 8))],
)
def test_of_shared_nodes_what_the_ranks_need(ranks, place):
    assert place_of(ranks, SHARED) == place


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_nodes_of_one_device(ranks):
    assert place_of(ranks, SINGLE) == (ranks, 1, 1, ranks)


@pytest.mark.parametrize("site", [WHOLE, SHARED, SINGLE])
def test_a_rank_has_the_same_cpus_and_memory_at_every_width(site):
    places = [geometry(ranks, site) for ranks in (1, 2, 4, 8) if ranks <= 4 or site is not SINGLE]
    assert {place.cpus_per_rank for place in places} == {16}
    memory = 480 * 1024 // site.cpus_per_node
    assert {place.memory_mib_per_cpu for place in places} == {memory}


def test_what_a_site_does_not_say_is_not_asked_for():
    site = validate_site({**CLUSTER, "memory_per_node_gib": None})
    assert geometry(4, site).memory_mib_per_cpu is None
    asked = slurm_resources(4, site)
    assert asked["mem_mb_per_cpu"] is asked["gres"] is asked["slurm_extra"] is None


@pytest.mark.parametrize(("ranks", "site"), [(5, WHOLE), (41, WHOLE), (9, ONE), (44, SHARED)])
def test_what_the_nodes_cannot_give(ranks, site):
    with pytest.raises(UserError, match="write"):
        geometry(ranks, site)


def test_a_job_without_devices_stays_under_the_sites_limits():
    site = validate_site(
        {**CLUSTER, "cpus_per_node": 4, "limits": {"walltime_max_min": 30}, "partition_cpu": "cpu"}
    )
    asked = cpu_job_resources(site)
    assert (asked["cpus_per_task"], asked["runtime"], asked["slurm_partition"]) == (4, 30, "cpu")
