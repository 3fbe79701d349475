"""The Triton kernels compiled for GPUs that are not here: what they take of a multiprocessor."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton is not installed")


@pytest.mark.parametrize("capability", [80, 90])
def test_kernels_fit_their_registers_and_shared_memory(capability):
    script = Path(__file__).parent / "compile_kernels.py"
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, str(script), str(capability)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    found = json.loads(done.stdout)
    assert len(found) == 24
    for name, taken in found.items():
        assert taken["spilled_bytes"] <= 16, name
        assert taken["registers"] <= 168, name  # three blocks of 128 threads
        assert taken["shared_bytes"] <= 48 << 10, name
        assert taken["float_atomics"] == 0, name  # sums would depend on who comes first
