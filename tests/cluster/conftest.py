"""The test cluster for a session: installed, started, and stopped where this started it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from project import DEMO, Project, command

TESTBED = Path(__file__).with_name("testbed.py")
INSTALL_LIMIT_S = 1200
IMAGE_LIMIT_S = 900


def pytest_configure():
    """Ended from outside, take the cluster along, as with Ctrl-C."""
    signal.signal(signal.SIGTERM, lambda number, frame: signal.raise_signal(signal.SIGINT))


@pytest.fixture(scope="session", autouse=True)
def cluster() -> Iterator[None]:
    """Two Slurm nodes and Apptainer; nothing of it that is missing is passed over."""
    running = command([sys.executable, TESTBED, "status"], limit_s=120).returncode == 0
    try:
        for action in ("install", "start", "base"):
            testbed(action)
        yield
    finally:
        if not running:
            testbed("stop")


def testbed(action: str) -> None:
    """Call the test cluster's own program; fails with what it said."""
    done = command([sys.executable, TESTBED, action], limit_s=INSTALL_LIMIT_S)
    if done.returncode:
        pytest.exit(f"testbed.py {action} failed:\n{done.stdout}", returncode=1)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory, cluster) -> Iterator[Project]:
    """A project whose jobs have built the container image and the graph store."""
    project = Project(tmp_path_factory.mktemp("prepared") / "checkout")
    with project:
        project.run("image", "stores", limit_s=IMAGE_LIMIT_S)
        yield project


@pytest.fixture(scope="session")
def demo(tmp_path_factory, prepared) -> Iterator[Project]:
    """The demo study, run to its report; for other studies, what nothing has disturbed."""
    with Project(tmp_path_factory.mktemp("demo") / "checkout", prepared) as project:
        project.run(configfile=DEMO)
        yield project


@pytest.fixture
def new_project(tmp_path, prepared) -> Iterator[Callable[..., Project]]:
    """`new_project(name)`: another checkout, with the store; its jobs end with the test."""
    projects: list[Project] = []

    def make(name: str = "checkout") -> Project:
        projects.append(Project(tmp_path / name, prepared))
        return projects[-1]

    yield make
    for project in projects:
        project.close()


@pytest.fixture
def project(new_project) -> Project:
    """One checkout, with the store."""
    return new_project()
