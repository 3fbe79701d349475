"""Container of the ranks: its image, built from a definition and identified by its digest, the
modules to load before it, and its command line.

`<image>.json` beside an image records {"sha256", "bytes", "mtime_ns"}, and of one that was built
here {"definition", "sources_sha256", "built_at"} too.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from sagebench.errors import UserError
from sagebench.files import hold, read_object, write_json

ROOT = Path(__file__).resolve().parents[3]
CHUNK_BYTES = 1 << 22
MODULES_LIMIT_S = 120


def image_digest(image: Path) -> str | None:
    """ "sha256:..." of the image's bytes, computed where the record is not of this file by its size
    and time, and then recorded where the folder may be written to; None without an image."""
    if not image.exists():
        return None
    record = read_object(record_path(image)) or {}
    if not _fits(record, image):
        record = _record(image)
        with contextlib.suppress(OSError):
            write_json(record_path(image), record)
    return f"sha256:{record['sha256']}"


def build_image(site: Mapping[str, Any]) -> None:
    """Build the site's image, unless it was built from the same before. Its definition's paths are
    relative to the repository's root.

    A build that fails (UserError) or is interrupted leaves the old image. A second build at the
    same time waits, and finds the image there.
    """
    image, definition = Path(site["image"]), Path(site["image_definition"])
    if not (ROOT / definition).is_file():
        raise UserError(
            f"image_definition is {str(definition)!r}, which is no file: correct it in the "
            "profile's site.yaml, e.g. container/current.def"
        )
    image.parent.mkdir(parents=True, exist_ok=True)
    new = image.with_name(f".{image.name}.new")
    waiting = f"{image} is being built already: waiting for that"
    with hold(image.with_name(f".{image.name}.lock"), waiting):
        if is_current(site):
            print(f"{image} was built from the same: it stays as it is", flush=True)
            return
        sources_sha256 = _sources_sha256(site)
        command = [site["apptainer"], "build", "--force", *site["image_build_options"]]
        try:
            _run(
                [*command, str(new.absolute()), str(definition)],
                loaded_environment(site["modules"]),
            )
            record = _record(new)
            new.replace(image)
        finally:
            new.unlink(missing_ok=True)
        built_at = datetime.now(timezone.utc).isoformat(timespec="seconds")
        made_of = {"definition": str(definition), "sources_sha256": sources_sha256}
        write_json(record_path(image), {**record, **made_of, "built_at": built_at})


def check_image(site: Mapping[str, Any], make: str) -> None:
    """Raises UserError where the site's image is not there, or was built from something else than
    its definition is now. make: the command that builds it."""
    image, definition = site["image"], site["image_definition"]
    if image is None or (definition and is_current(site)):
        return
    if not Path(image).is_file():
        advice = f"build it with `{make}`" if definition else "copy it there"
        raise UserError(
            f"the image {image} is missing: {advice}, or correct image in the profile's site.yaml"
        )
    if definition:
        raise UserError(
            f"the image {image} was not built from what {definition} is now: build it with "
            f"`{make}`, or write image_definition: null in the profile's site.yaml, which takes it "
            "as it is"
        )


def is_current(site: Mapping[str, Any]) -> bool:
    """Whether the image was built from what its definition, its files and the options are now."""
    image = Path(site["image"])
    record = read_object(record_path(image)) or {}
    try:
        made_of_the_same = record.get("sources_sha256") == _sources_sha256(site)
        return made_of_the_same and _fits(record, image)
    except FileNotFoundError:  # neither the image nor its definition need be there
        return False


def definition_files(definition: Path, root: Path) -> list[Path]:
    """Inputs of an image: its definition, and the files that it copies from `root`.

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
    """Digest, size and time of the image's file."""
    digest = hashlib.sha256()
    with image.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    found = image.stat()
    return {"sha256": digest.hexdigest(), "bytes": found.st_size, "mtime_ns": found.st_mtime_ns}


def _fits(record: Mapping[str, Any], image: Path) -> bool:
    """Whether it is the record of this file, by its size and time."""
    found = image.stat()
    return (record.get("bytes"), record.get("mtime_ns")) == (found.st_size, found.st_mtime_ns)


def _sources_sha256(site: Mapping[str, Any]) -> str:
    digest = hashlib.sha256("\0".join(site["image_build_options"]).encode())
    for path in definition_files(Path(site["image_definition"]), ROOT):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _run(command: Sequence[str], environment: Mapping[str, str]) -> None:
    """Run the build; whatever ends this ends the build too, with all of its processes."""
    try:
        build = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise UserError(
            f"{command[0]} cannot be run on {os.uname().nodename} ({error.strerror}): correct "
            "apptainer or modules in the profile's site.yaml"
        ) from None
    try:
        code = build.wait()
    except BaseException:
        os.killpg(build.pid, signal.SIGTERM)
        build.wait()
        raise
    if code:
        raise UserError(
            f"building from {command[-1]} failed on {os.uname().nodename} with exit code {code}: "
            f"correct what {command[0]} says above"
        )


def loaded_environment(modules: Sequence[str]) -> dict[str, str]:
    """This process's environment after `module load`; raises UserError with what that said.

    A login shell, since only that knows `module`; the names reach it as arguments, not as text.
    """
    if not modules:
        return dict(os.environ)
    # What the profile says to standard output comes first, up to the NUL.
    script = 'module load "$@" >&2 || exit; printf "\\0"; exec env -0'
    try:
        done = subprocess.run(
            ["bash", "-lc", script, "bash", *modules],
            capture_output=True,
            text=True,
            errors="surrogateescape",
            stdin=subprocess.DEVNULL,
            timeout=MODULES_LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        raise UserError(
            f"`module load {' '.join(modules)}` took longer than {MODULES_LIMIT_S} s on "
            f"{os.uname().nodename}: try it there by hand"
        ) from None
    if done.returncode:
        # Its first paragraph names the module; what follows is general advice.
        said = " ".join(done.stderr.strip().partition("\n\n")[0].split())
        raise UserError(
            f"`module load {' '.join(modules)}` failed on {os.uname().nodename}"
            f"{': ' + said if said else ''}: correct modules in the profile's site.yaml"
        )
    entries = (entry.split("=", 1) for entry in done.stdout.split("\0")[1:] if "=" in entry)
    return {name: value for name, value in entries if not name.startswith("BASH_FUNC_")}


def container_command(
    site: Mapping[str, Any], command: Sequence[str], folders: Iterable[Path]
) -> list[str]:
    """`command` inside the site's image, which sees the site's binds and `folders`.

    Folders keep their names inside. Raises UserError for a bind that is not there.
    """
    for bind in site["binds"]:
        if not Path(bind).exists():
            raise UserError(
                f"{bind} is listed under binds and does not exist on "
                f"{os.uname().nodename}: correct binds in the profile's site.yaml"
            )
    seen = dict.fromkeys([*site["binds"], *(str(folder) for folder in folders)])
    return [
        *(site["apptainer"], "-q", "exec"),
        *(["--nv"] if site["device"] == "cuda" else []),
        *site["container_options"],
        *(f"--mount={mount(folder)}" for folder in seen),
        *("--pwd", str(Path.cwd())),
        str(Path(site["image"]).resolve()),
        *command,
    ]


def mount(folder: str) -> str:
    """The option's value for one folder: CSV, so that a path may hold commas, colons and quotes."""
    fields = ["type=bind", f"source={folder}", f"destination={folder}"]
    quoted = (text.replace(chr(34), chr(34) * 2) for text in fields)
    return ",".join(f'"{text}"' for text in quoted)
