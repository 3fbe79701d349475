"""Where ranks go."""

from __future__ import annotations

import pytest
from configurations import CLUSTER, WORKSTATION
from sagebench.errors import UserError
from sagebench.grid.resources import geometry, slurm_resources
from sagebench.grid.site import validate_site

WHOLE = validate_site(CLUSTER)
SHARED = validate_site({**CLUSTER, "whole_nodes": False})
ONE = validate_site(WORKSTATION)


@pytest.mark.parametrize(
    ("ranks", "nodes", "ranks_per_node", "allocated"),
    [
        (1, 1, 1, 4),
        (2, 1, 2, 4),
        (3, 1, 3, 4),
        (4, 1, 4, 4),
        (6, 2, 3, 8),
        (8, 2, 4, 8),
        (16, 4, 4, 16),
        (40, 10, 4, 40),
    ],
)
def test_whole_nodes(ranks, nodes, ranks_per_node, allocated):
    place = geometry(ranks, WHOLE)
    assert (place.nodes, place.ranks_per_node) == (nodes, ranks_per_node)
    assert place.ranks == ranks
    assert place.devices_allocated == allocated
    assert place.cpus_per_rank == 16  # at every width
    assert place.memory_mib_per_node == 480 * 1024


@pytest.mark.parametrize(("ranks", "gib"), [(1, 120), (2, 240), (4, 480), (8, 480)])
def test_shared_nodes_are_asked_for_in_parts(ranks, gib):
    place = geometry(ranks, SHARED)
    assert place.devices_allocated == ranks
    assert place.memory_mib_per_node == gib * 1024
    assert place.cpus_per_rank == 16


@pytest.mark.parametrize(("ranks", "site"), [(5, WHOLE), (41, WHOLE), (9, ONE), (44, SHARED)])
def test_what_the_nodes_cannot_give(ranks, site):
    with pytest.raises(UserError, match="write"):
        geometry(ranks, site)


@pytest.mark.parametrize("ranks", [1, 2, 4, 8, 16])
def test_whole_nodes_are_asked_for_whole(ranks):
    asked = slurm_resources(ranks, WHOLE)
    assert asked.pop("nodes") == -(-ranks // 4)
    assert {key: value for key, value in asked.items() if value is not None} == {
        "tasks_per_node": 4,
        "cpus_per_task": 16,
        "mpi": "srun",
        "gres": "gpu:4",
        "mem_mb_per_cpu": 7680,
    }


def test_of_shared_nodes_what_is_needed_is_asked_for():
    one, four = slurm_resources(1, SHARED), slurm_resources(4, SHARED)
    assert (one["mpi"], one["gpu"], one["tasks_per_node"]) == (None, 1, 1)
    assert (four["mpi"], four["gpu"], four["tasks_per_node"]) == ("srun", 4, 4)
    assert one["mem_mb_per_cpu"] == four["mem_mb_per_cpu"] == 7680
    assert "tasks" not in four  # with it the plugin starts too many tasks
