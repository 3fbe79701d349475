"""The campaign runs on machines that have neither pydantic nor Snakemake."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent
BLOCKED = """
import sys
for name in ("pydantic", "snakemake", "pandas"):
    sys.modules[name] = None
"""


def run(code: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", BLOCKED + code],
        capture_output=True,
        text=True,
        cwd=TESTS.parent,
        timeout=120,
    )


def test_its_tests_are_collected_there():
    done = run(
        f"sys.path.insert(0, {str(TESTS / 'gpu')!r}); import campaign, pytest; "
        f"files = [{str(TESTS)!r} + f'/{{test}}.py' for test in "
        "campaign.KERNEL_TESTS + campaign.TESTS + campaign.TRIAL_TESTS]; "
        "sys.exit(pytest.main(['--collect-only', '-p', 'no:cacheprovider', '-m', 'cuda', *files]))"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test_a_cap_of_memory_is_a_typed_end" in done.stdout


def test_its_steps_can_be_imported_there():
    done = run(f"sys.path.insert(0, {str(TESTS / 'gpu')!r}); import steps; print(*steps.STEPS)")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == "facts"


def test_a_folder_that_holds_a_visit_is_left_alone(tmp_path):
    (tmp_path / "campaign.jsonl").touch()
    done = subprocess.run(
        [sys.executable, str(TESTS / "gpu" / "campaign.py"), "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "holds a visit already: name another folder" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["campaign.jsonl"]
