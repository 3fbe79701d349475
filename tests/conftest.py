"""What all tests share, and what some of them need beyond what the README lists."""

import os
import shutil
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import settings

# A busy machine is no mistake of what is tested.
settings.register_profile("busy", deadline=None)
settings.load_profile("busy")

# As the launcher does: test processes share two cores, and spinning threads would starve them.
os.environ["OMP_WAIT_POLICY"] = "passive"

# Without a GPU its kernels are tested in Triton's interpreter, as Triton is told when it is loaded.
if not Path("/dev/nvidiactl").exists():
    os.environ["TRITON_INTERPRET"] = "1"

PROGRAMS = {
    "g++": ("g++", "clang++", "c++"),
    "gcc": ("gcc", "cc", "clang"),
    "chromium": ("chromium", "chromium-browser"),
}
CUDA = "a CUDA device"
WORDS = {**{name: name for name in PROGRAMS}, "cuda": CUDA}
"""how SAGEBENCH_REQUIRE names what tests need"""
SKIPPED = "needs {}, and there is none here"


def here(need: str) -> bool:
    if need == CUDA:
        import torch

        return torch.cuda.is_available()
    return any(map(shutil.which, PROGRAMS[need]))


def needs_of(item: pytest.Item) -> list[str]:
    """By the marks `needs("g++")` and `cuda`."""
    marked = [need for mark in item.iter_markers("needs") for need in mark.args]
    return [CUDA, *marked] if item.get_closest_marker("cuda") else marked


@pytest.fixture
def chromium() -> str:
    """For tests that are marked so."""
    return next(filter(None, map(shutil.which, PROGRAMS["chromium"])))


def pytest_configure():
    """What SAGEBENCH_REQUIRE lists has to be here: without it, nothing passes by being skipped."""
    required = os.environ.get("SAGEBENCH_REQUIRE", "").split()
    if unknown := [need for need in required if need not in WORDS]:
        raise pytest.UsageError(
            f"SAGEBENCH_REQUIRE lists {', '.join(unknown)}: write some of {', '.join(WORDS)}"
        )
    if missing := [need for need in required if not here(WORDS[need])]:
        raise pytest.UsageError(
            f"SAGEBENCH_REQUIRE lists {', '.join(missing)}, which is not here: install it, or take "
            "it from the list to skip its tests"
        )


def pytest_collection_modifyitems(items):
    """Tests are skipped without what they need; the summary (-rs) names them."""
    needs = {item: needs_of(item) for item in items}
    missing = {need for need in set().union(*needs.values()) if not here(need)}
    for item in items:
        for need in needs[item]:
            if need in missing:
                item.add_marker(pytest.mark.skip(reason=SKIPPED.format(need)))


@pytest.hookimpl(wrapper=True, tryfirst=True)  # to come after what -rs lists
def pytest_terminal_summary(terminalreporter):
    """One line: how many tests were skipped for want of what."""
    yield
    reasons = Counter(skip.longrepr[2] for skip in terminalreporter.stats.get("skipped", []))
    counts = {need: reasons["Skipped: " + SKIPPED.format(need)] for need in (*PROGRAMS, CUDA)}
    wants = [f"{need} ({count})" for need, count in counts.items() if count]
    if wants:
        terminalreporter.write_line(f"skipped for want of {', '.join(wants)}")
