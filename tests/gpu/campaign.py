"""One visit to a GPU: what is worth measuring there, most valuable first, in one command.

    python3 tests/gpu/campaign.py --out FOLDER              # nine minutes on a free GPU
    python3 tests/gpu/campaign.py --out FOLDER --device cpu --scale 0.004 --budget-s 900

Needs torch, Triton, NumPy, numba, PyG, pytest and hypothesis, and neither a package index nor
Snakemake; with pytest-xdist the kernels' tests are compiled side by side.
Each step is a process of its own with a limit of its own, and what it found is on disk before the
next one starts, so a visit that is cut off keeps all of it; a step that would not end within what
is left of the budget is left out, and the record says so. The graph is built on one core from the
start, beside the tests. The second command tries the campaign itself, without a GPU.

FOLDER: `campaign.jsonl`, a record a step; `sweep.jsonl`, `profile.jsonl`, `kernels.jsonl` and
`evaluation.jsonl`, a record a variant; `outcomes.jsonl`, whole trials; `profile.txt` and
`trace.json.gz` of four steps; `tests.xml`; `log.txt`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "workflow_scripts"
sys.path.insert(0, str(SCRIPTS))

from sagebench.measure.allocator import allocator_environment  # noqa: E402

STEPS = Path(__file__).with_name("steps.py")
KERNEL_TESTS = ("test_gpu_kernels",)
"""on a GPU if there is one, hence without the mark; else in Triton's interpreter"""
TESTS = ("test_cuda", "test_segment", "test_fused", "test_launch_start")
TRIAL_TESTS = ("test_cuda_trials",)
"""of whole processes, which may hang"""
HANGS_AFTER_S = 45
SHOWN_OF_A_RESULT = 400
COMPILERS = 8
"""processes that compile kernels at a time"""
KEPT_OF_A_LOG = 60_000
"""bytes of a step's output that are kept"""


class Campaign:
    """Runs the steps; `note` puts what they found on disk."""

    def __init__(self, arguments: argparse.Namespace, scratch: Path) -> None:
        self.device: str = arguments.device
        self.scale: float = arguments.scale
        self.out: Path = arguments.out.resolve()
        self.scratch = scratch
        self.store = self.scratch / "store"
        self.ends_at = time.monotonic() + arguments.budget_s
        self.began = time.monotonic()
        self.failed: list[str] = []
        self.out.mkdir(parents=True, exist_ok=True)

    def all(self) -> None:
        with self.graph() as wait_for_graph:
            self.step("facts", limit_s=60)
            self.pytest("tests_kernels", KERNEL_TESTS, limit_s=130)
            wait_for_graph()
            self.step("profile", limit_s=75)
            self.step("epochs", limit_s=150, least_s=60)
            self.step("sweep", limit_s=100, least_s=30)
            self.step("kernels", limit_s=70, environment=self.interpreted)
            self.step("engines", limit_s=150, least_s=40)
            self.step("repeatable", limit_s=40)
            self.step("frontier", limit_s=110, least_s=30)
            self.step("out_of_memory", limit_s=40, least_s=20)
            self.step("evaluation", limit_s=60, least_s=20)
            self.step(
                "sweep", limit_s=40, least_s=20, environment=allocator_environment({}, asked=True),
                only=["bf16", "batch 1024"], label="expandable segments, ",
            )  # fmt: skip
            self.pytest("tests", TESTS, "cuda and not slow", limit_s=100, least_s=20)
            self.pytest("tests_trials", TRIAL_TESTS, "cuda", limit_s=120, least_s=30)
            self.step("sweep", limit_s=90, least_s=40, only=["compiled", "compiled, batch 1024"])
            self.pytest("tests_compiled", TESTS, "cuda and slow", limit_s=120, least_s=60)
        self.note("end", left_s=round(self.left_s), failed=self.failed)

    @property
    def left_s(self) -> float:
        return self.ends_at - time.monotonic()

    @property
    def interpreted(self) -> dict[str, str]:
        """Without a GPU the kernels run in Triton's interpreter."""
        return {} if self.device == "cuda" else {"TRITON_INTERPRET": "1"}

    def note(self, step: str, **found: Any) -> None:
        record = {"step": step, "at_s": round(time.monotonic() - self.began, 1), **found}
        with (self.out / "campaign.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())
        told = {name: value for name, value in found.items() if name not in ("log", "status")}
        status = found.get("status", "")
        print(
            f"{record['at_s']:6.1f} s  {step}: {'ok' if status == 0 else status}  "
            f"{json.dumps(told)[:SHOWN_OF_A_RESULT]}",
            flush=True,
        )

    def step(
        self,
        name: str,
        *,
        limit_s: float,
        least_s: float = 10,
        environment: dict[str, str] | None = None,
        **values: Any,
    ) -> None:
        """Run a function of steps.py. least_s: what it needs at least; else it is left out."""
        given = {
            "device": self.device, "scale": self.scale, "store": str(self.store),
            "scratch": str(self.scratch), "out": str(self.out), **values,
        }  # fmt: skip
        command = [sys.executable, str(STEPS), name, json.dumps(given)]
        self.run(name, command, limit_s, least_s, environment or {})

    def pytest(
        self,
        name: str,
        tests: Sequence[str],
        marks: str | None = None,
        *,
        limit_s: float,
        least_s: float = 10,
    ) -> None:
        """Whole files, or what of them has the marks. On a CPU what is tried is that they can be
        collected."""
        command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider"]
        command += ["--continue-on-collection-errors", f"--junitxml={self.out / name}.xml"]
        command += ["-o", f"faulthandler_timeout={HANGS_AFTER_S}"]  # says where a test hangs
        command += [str(ROOT / "tests" / f"{test}.py") for test in tests]
        if marks is not None:
            command += ["-m", marks]
        elif self.device == "cuda" and find_spec("xdist"):
            command += ["-n", str(COMPILERS)]
        if self.device == "cpu":
            command += ["--collect-only"]
        required = {"SAGEBENCH_REQUIRE": "cuda"} if self.device == "cuda" else {}
        self.run(name, command, limit_s, least_s, required)

    def run(
        self,
        name: str,
        command: Sequence[str],
        limit_s: float,
        least_s: float,
        environment: dict[str, str],
    ) -> None:
        limit_s = min(limit_s, self.left_s - 5)
        if limit_s < least_s:
            self.note(name, status="left out", left_s=round(self.left_s))
            return
        start = time.monotonic()
        log = self.scratch / f"{name}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
                stdout=subprocess.PIPE,
                stderr=file,
                start_new_session=True,
            )
            status: int | str
            try:
                output, _ = process.communicate(timeout=limit_s)
                status = process.returncode
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                output, _ = process.communicate()
                status = "out of time"
        result = last_words(output)
        if status or (isinstance(result, dict) and result.get("failed")):
            self.failed.append(name)
        errors = log.read_bytes()[-KEPT_OF_A_LOG:]
        with (self.out / "log.txt").open("ab") as whole:
            whole.write(f"\n===== {name}: {status}\n".encode() + output[-KEPT_OF_A_LOG:] + errors)
        self.note(
            name,
            status=status,
            seconds=round(time.monotonic() - start, 1),
            result=result,
            log=None if status == 0 else errors[-3000:].decode(errors="replace"),
        )

    @contextlib.contextmanager
    def graph(self) -> Iterator[Callable[[], None]]:
        """Builds the synthetic graph on one core; yields what waits for it."""
        spec = {"name": "bench", "source": "synthetic", "scale": self.scale}
        log = self.scratch / "build.log"
        command = [sys.executable, str(SCRIPTS / "build_graph.py"), "--spec", json.dumps(spec)]
        with log.open("wb") as file:
            build = subprocess.Popen(
                [*command, "--out", str(self.store)], stdout=subprocess.DEVNULL, stderr=file
            )

        def wait() -> None:
            start = time.monotonic()
            try:
                status: int | str = build.wait(max(5, self.left_s - 60))
            except subprocess.TimeoutExpired:
                status = "out of time"
            said = log.read_text(errors="replace")[-500:] if status else None
            if status:
                self.failed.append("graph")
            self.note("graph", status=status, waited_s=round(time.monotonic() - start, 1), log=said)

        try:
            yield wait
        finally:
            if build.poll() is None:
                build.kill()
                build.wait()


def last_words(output: bytes) -> Any:
    """What the last line holds as JSON; where it holds none, the last three lines."""
    lines = output.decode(errors="replace").strip().splitlines()
    if lines:
        with contextlib.suppress(ValueError):
            return json.loads(lines[-1])
    return lines[-3:]


def has_gpu() -> bool:
    asked = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    return subprocess.run([sys.executable, "-c", asked], check=False).returncode == 0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for what is found")
    parser.add_argument("--budget-s", type=float, default=515, help="seconds (%(default)s)")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument(
        "--scale", type=float, default=1, help="of the graph, as a share of ogbn-products'"
    )
    parser.add_argument(
        "--scratch", type=Path, help="where a temporary folder of 3 GB at scale 1 may be"
    )
    arguments = parser.parse_args()
    if (arguments.out / "campaign.jsonl").exists():
        sys.exit(f"error: {arguments.out} holds a visit already: name another folder with --out")
    if arguments.device == "cuda" and not has_gpu():
        sys.exit("error: torch finds no GPU here: give --device cpu --scale 0.004, a trial run")
    with tempfile.TemporaryDirectory(prefix="sagebench-gpu-", dir=arguments.scratch) as scratch:
        campaign = Campaign(arguments, Path(scratch))
        campaign.all()
    sys.exit(bool(campaign.failed))


if __name__ == "__main__":
    main()
