"""The container image: built from its definition, and known by its digest.

`<image>.json` beside an image records {"sha256", "bytes", "mtime_ns"}, and of one that was built
here {"definition", "sources_sha256", "built_at", "apptainer"} too.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any

from sagebench.errors import UserError
from sagebench.files import read_json, write_json
from sagebench.launch.container import loaded_environment

ROOT = Path(__file__).resolve().parents[3]
TAIL_LINES = 10
VERSION_LIMIT_S = 60
TERM_S = 10  # that a stopped build has to clean up after itself
CHUNK_BYTES = 1 << 22


def image_digest(image: Path) -> str | None:
    """ "sha256:..." of the image's bytes; None where there is none.

    As recorded, where the record is of this file by its size and time; else computed, and recorded
    where the folder may be written to.
    """
    try:
        with image.open("rb") as file:
            record = _record(image)
            found = _stat(file)
            if any(record.get(key) != value for key, value in found.items()):
                record = {"sha256": _sha256(file), **found}
                with contextlib.suppress(OSError):
                    write_json(record_path(image), record)
    except FileNotFoundError:
        return None
    return f"sha256:{record['sha256']}"


def build_image(
    image: Path,
    definition: Path,
    *,
    apptainer: str = "apptainer",
    options: Sequence[str] = (),
    modules: Sequence[str] = (),
) -> None:
    """Build `image` from `definition`, in the repository's root, to which the definition's paths
    are relative; one that was built from the same is left alone.

    What Apptainer says goes to stdout. A build that fails or is interrupted leaves the old image.
    One build at a time: a second waits, and finds the image there. Raises UserError where it fails.
    """
    if not (ROOT / definition).is_file():
        raise UserError(
            f"image_definition is {str(definition)!r}, which is no file: correct it in the "
            "profile's site.yaml, e.g. container/current.def"
        )
    image.parent.mkdir(parents=True, exist_ok=True)
    new = image.with_name(f".{image.name}.new")
    with _only_builder(image) as lock:
        if is_current(image, definition, options):
            print(f"{image} was built from the same: it stays as it is", flush=True)
            return
        environment = loaded_environment(modules)
        sources_sha256 = _sources_sha256(definition, options)
        command = [apptainer, "build", "--force", *options, str(new.absolute()), str(definition)]
        try:
            version = _version(apptainer, environment)
            _run(command, environment, lock)
            with new.open("rb") as file:
                os.fsync(file.fileno())
                record = {"sha256": _sha256(file), **_stat(file)}
            new.replace(image)
        finally:
            new.unlink(missing_ok=True)
        record |= {
            "definition": str(definition),
            "sources_sha256": sources_sha256,
            "built_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "apptainer": version,
        }
        write_json(record_path(image), record)


def is_current(image: Path, definition: Path, options: Sequence[str]) -> bool:
    """Whether the image was built from what its definition, its files and the options are now."""
    try:
        with image.open("rb") as file:
            expected = {**_stat(file), "sources_sha256": _sources_sha256(definition, options)}
    except FileNotFoundError:
        return False
    record = _record(image)
    return all(record.get(key) == value for key, value in expected.items())


def definition_files(definition: Path, root: Path) -> list[Path]:
    """What an image is made of: its definition, and the files that this copies from `root`.

    Folders, and paths that the build's arguments give, are not among them.
    """
    files = [root / definition]
    copying = False
    for line in files[0].read_text().splitlines() if files[0].is_file() else []:
        words = line.split()
        if line.startswith("%"):
            copying = words == ["%files"]  # not those `from` another stage
        elif copying and words and (root / words[0]).is_file():
            files.append(root / words[0])
    return files


def record_path(image: Path) -> Path:
    return image.with_name(f"{image.name}.json")


def _record(image: Path) -> dict[str, Any]:
    try:
        record = read_json(record_path(image))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _stat(file: IO[bytes]) -> dict[str, int]:
    found = os.fstat(file.fileno())
    return {"bytes": found.st_size, "mtime_ns": found.st_mtime_ns}


def _sha256(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def _sources_sha256(definition: Path, options: Sequence[str]) -> str:
    digest = hashlib.sha256("\0".join(options).encode())
    for path in definition_files(definition, ROOT):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


@contextlib.contextmanager
def _only_builder(image: Path) -> Iterator[IO[str]]:
    with image.with_name(f".{image.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{image} is being built already: waiting for that", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock


def _version(apptainer: str, environment: Mapping[str, str]) -> str:
    try:
        done = subprocess.run(
            [apptainer, "--version"],
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=VERSION_LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        return "unknown"
    except OSError as error:
        raise UserError(
            f"{apptainer} cannot be run on {os.uname().nodename} ({error.strerror}): correct "
            "apptainer or modules in the profile's site.yaml"
        ) from None
    return done.stdout.split()[-1] if done.stdout.strip() else "unknown"


def _run(command: Sequence[str], environment: Mapping[str, str], lock: IO[str]) -> None:
    """Run the build and pass on what it says; whatever ends this ends the build too."""
    said: deque[str] = deque(maxlen=TAIL_LINES)
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        pass_fds=[lock.fileno()],  # nobody else builds while any of its processes lives
    ) as build:
        assert build.stdout is not None
        try:
            for line in build.stdout:
                sys.stdout.write(line)
                sys.stdout.flush()
                said.append(line.rstrip())
        except BaseException:
            _end(build)
            raise
    if build.returncode:
        tail = "".join(f"\n    {line}" for line in said if line)
        raise UserError(
            f"building from {command[-1]} failed on {os.uname().nodename} with exit code "
            f"{build.returncode}; the end of what {command[0]} said:{tail}"
        )


def _end(build: subprocess.Popen[str]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(build.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            build.wait(TERM_S)
