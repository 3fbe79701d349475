"""Building the container image, with a stand-in for Apptainer, and knowing it by its digest."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from configurations import CLUSTER, GOOD
from sagebench.errors import UserError
from sagebench.launch import container
from sagebench.launch.container import (
    build_image,
    check_image,
    definition_files,
    image_digest,
    record_path,
)

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "workflow_scripts" / "prepare.py"
DEFINITION = Path("container/some.def")
LIMIT_S = 60

# Notes its options, says a line, and does to its target what the file `deed` says.
STAND_IN = r"""#!/bin/sh
here=$(dirname "$0")
while [ $# -gt 2 ]; do printf '%s\n' "$1" >> "$here/options"; shift; done
echo built >> "$here/builds"
echo "INFO: building from $2"
. "$here/deed"
"""


class Bench:
    """A repository with a definition, and an Apptainer that does what it is told."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "a 'quoted' $HOME `root`"
        (self.root / "container").mkdir(parents=True)
        self.lock = self.root / "lock.txt"
        self.lock.write_text("numpy==1\n")
        (self.root / DEFINITION).write_text(
            "From: base\n\n%files\n    lock.txt /lock.txt\n    {{ wheels }} /wheels\n"
        )
        self.tools = folder / "tools"
        self.tools.mkdir()
        self.apptainer = self.tools / "apptainer"
        self.apptainer.write_text(STAND_IN)
        self.apptainer.chmod(0o755)
        self.image = folder / "images; exit" / 'some "image".sif'
        self.does('echo "image $(cat builds 2>/dev/null)" > "$1"')

    def does(self, deed: str) -> None:
        (self.tools / "deed").write_text(f'cd "$here"; {deed}\n')

    def site(self, *options: str) -> dict:
        return {
            "image": str(self.image),
            "image_definition": str(DEFINITION),
            "image_build_options": list(options),
            "apptainer": str(self.apptainer),
            "modules": [],
        }

    def build(self, *options: str) -> None:
        build_image(self.site(*options))

    def builds(self) -> int:
        path = self.tools / "builds"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def state(self) -> tuple[bytes, str, list[str]]:
        """The image, its record, and what lies in its folder."""
        names = sorted(path.name for path in self.image.parent.iterdir())
        return self.image.read_bytes(), record_path(self.image).read_text(), names


@pytest.fixture
def bench(tmp_path, monkeypatch) -> Bench:
    bench = Bench(tmp_path)
    monkeypatch.setattr(container, "ROOT", bench.root)
    return bench


def sha256(path: Path) -> str:
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_is_built_is_recorded(bench):
    bench.build("--build-arg=wheels=$HOME; `exit`", "--fakeroot")
    record = json.loads(record_path(bench.image).read_text())
    assert image_digest(bench.image) == sha256(bench.image) == f"sha256:{record['sha256']}"
    assert record["bytes"] == bench.image.stat().st_size
    assert record["mtime_ns"] == bench.image.stat().st_mtime_ns
    assert record["definition"] == str(DEFINITION)
    assert record["built_at"].endswith("+00:00")
    options = (bench.tools / "options").read_text().splitlines()
    assert options[2:] == ["--build-arg=wheels=$HOME; `exit`", "--fakeroot"]


def test_what_was_built_from_the_same_is_left_alone(bench, capfd):
    bench.build("--fakeroot")
    before = bench.state()
    os.utime(bench.lock)
    bench.build("--fakeroot")
    assert bench.builds() == 1 and bench.state() == before
    assert "stays as it is" in capfd.readouterr().out


@pytest.mark.parametrize("change", ["definition", "a copied file", "options", "lost", "replaced"])
def test_anything_else_is_built_anew(bench, change):
    bench.build()
    options = []
    if change == "definition":
        with (bench.root / DEFINITION).open("a") as definition:
            definition.write("%post\n")
    elif change == "a copied file":
        bench.lock.write_text("numpy==2\n")
    elif change == "options":
        options = ["--fakeroot"]
    elif change == "lost":
        bench.image.unlink()
    else:
        bench.image.write_text("another image")
    bench.build(*options)
    assert bench.builds() == 2
    assert image_digest(bench.image) == sha256(bench.image)


def test_a_failed_build_leaves_the_old_image_and_says_why(bench, capfd):
    bench.build()
    before = bench.state()
    bench.lock.write_text("numpy==2\n")
    bench.does('echo half > "$1"; echo "no space left" >&2; exit 7')
    with pytest.raises(UserError, match=r"some\.def failed on .* exit code 7: correct what"):
        bench.build()
    assert bench.state() == before
    assert "INFO: building from" in (said := capfd.readouterr().out) and "no space left" in said
    bench.does('echo whole > "$1"')
    bench.build()
    assert bench.image.read_text() == "whole\n"


def test_missing_definition_and_apptainer_are_named(bench):
    bench.apptainer.unlink()
    with pytest.raises(UserError, match=r"cannot be run on .* correct apptainer or modules"):
        bench.build()
    (bench.root / DEFINITION).unlink()
    with pytest.raises(UserError, match=r"image_definition is 'container/some\.def', which is no"):
        bench.build()


def test_what_a_run_needs_of_an_image_is_told(bench):
    def refusal(**values):
        with pytest.raises(UserError) as raised:
            check_image({**bench.site(), **values}, "make image PROFILE=p")
        return str(raised.value)

    assert "is missing: build it with `make image PROFILE=p`, or correct image in" in refusal()
    assert "is missing: copy it there, or correct image in" in refusal(image_definition=None)
    bench.build()
    check_image(bench.site(), "")
    bench.lock.write_text("numpy==2\n")
    assert re.search(
        r"was not built from what container/some\.def is now: build it with `make image PROFILE=p`",
        refusal(),
    )
    check_image({**bench.site(), "image_definition": None}, "")
    check_image({**bench.site(), "image": None}, "")


# --- the script -----------------------------------------------------------------------------------


def script(bench: Bench) -> list[str]:
    study = bench.tools / "study.json"
    # Absolute: the script's own root is this repository.
    site = {**bench.site(), "image_definition": str(bench.root / DEFINITION)}
    frozen = {"configuration": GOOD, "site": {**CLUSTER, **site}, "requests": {}}
    study.write_text(json.dumps(frozen))
    return [sys.executable, str(SCRIPT), "image", "--study", str(study)]


def wait_for(condition) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def lives(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_an_interrupted_build_leaves_the_old_image_and_no_process(bench):
    command = script(bench)
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=LIMIT_S)
    assert done.stdout.strip().endswith(sha256(bench.image))
    before = bench.state()
    (bench.root / DEFINITION).write_text("From: another base\n")
    bench.does('echo half > "$1"; sleep 600 & echo $! > child; wait')
    build = subprocess.Popen(command)
    child = bench.tools / "child"
    wait_for(lambda: child.exists() and child.read_text().strip())
    build.send_signal(signal.SIGTERM)
    assert build.wait(LIMIT_S) == 128 + signal.SIGTERM
    assert bench.state() == before
    wait_for(lambda: not lives(int(child.read_text())))


def test_two_at_the_same_time_build_once(bench):
    bench.does('sleep 1; echo whole > "$1"')
    builds = [subprocess.Popen(script(bench)) for _ in range(2)]
    assert [build.wait(LIMIT_S) for build in builds] == [0, 0]
    assert bench.builds() == 1


# --- digests --------------------------------------------------------------------------------------


def test_the_digest_is_read_from_a_record_that_fits(tmp_path):
    image = tmp_path / "some.sif"
    image.write_text("image")
    assert image_digest(image) == sha256(image)
    record = json.loads(record_path(image).read_text())
    record_path(image).write_text(json.dumps({**record, "sha256": "as recorded"}))
    assert image_digest(image) == "sha256:as recorded"


@pytest.mark.parametrize("stale", ["time", "size", "broken", "no record"])
def test_the_digest_is_computed_where_the_record_does_not_fit(tmp_path, stale):
    image = tmp_path / "some.sif"
    image.write_text("image")
    image_digest(image)
    record = json.loads(record_path(image).read_text())
    if stale == "time":
        image.write_text("again")
        os.utime(image, ns=(0, record["mtime_ns"] + 1))
    elif stale == "size":
        image.write_text("longer image")
        os.utime(image, ns=(0, record["mtime_ns"]))
    elif stale == "broken":
        record_path(image).write_text('{"sha')
    else:
        record_path(image).unlink()
    assert image_digest(image) == sha256(image)
    assert json.loads(record_path(image).read_text())["bytes"] == image.stat().st_size


def test_no_image_has_no_digest(tmp_path):
    assert image_digest(tmp_path / "none.sif") is None


@pytest.mark.parametrize("name", ["current", "slides", "testbed"])
def test_definitions_are_made_of_the_install_step_and_a_lock(name):
    definition = Path("container", f"{name}.def")
    files = definition_files(definition, ROOT)
    lock = "container-slides.txt" if name == "slides" else "container-current.txt"
    assert {ROOT / definition, ROOT / "container/install.sh", ROOT / "envs" / lock} <= set(files)


@pytest.mark.parametrize("name", ["current", "slides"])
def test_a_lock_is_pinned_for_the_torch_of_its_base(name):
    definition = (ROOT / f"container/{name}.def").read_text()
    base = re.search(r"^From: pytorch/pytorch:([\d.]+)-cuda([\d.]+)-", definition, re.M)
    torch, cuda = base.groups()
    assert f"\ntorch=={torch}\n" in (ROOT / f"envs/container-{name}.in").read_text()
    assert f"sagebench.base pytorch-{torch}-cuda{cuda}\n" in definition


@pytest.mark.parametrize("compiler", ["true", "false"])
def test_the_current_image_is_good_with_a_compiler_alone(tmp_path, compiler):
    """Its %test, with this Python in place of the image's and a stand-in for the compiler."""
    definition = (ROOT / "container/current.def").read_text()
    script = re.search(r"^%test\n(.*?)^%", definition, re.M | re.S)[1]
    (tmp_path / "gcc").symlink_to(shutil.which(compiler))
    done = subprocess.run(
        ["sh", "-c", script],
        env={**os.environ, "PATH": f"{tmp_path}:{Path(sys.executable).parent}:{os.defpath}"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode == 0) == (compiler == "true"), done.stderr
    assert ("Triton needs it" in done.stderr) == (compiler == "false")
