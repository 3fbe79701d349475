"""Findings of a preflight: a table, and one sentence per problem, with what to do."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sagebench.launch.ends import CONSEQUENCES
from sagebench.units import GIB, text_table

HEAD = ("ranks", "nodes", "device", "driver", "torch", "meeting", "all-reduce", "clocks", "")
SBATCH = re.compile(r"SLURM sbatch failed\. The error message was '(.*?)'\.\n", re.DOTALL)
OURS = re.compile(r"^error: (.+)$", re.MULTILINE)
LOGS = re.compile(r"^ *log: (.+) \(check log file", re.MULTILINE)
MESSAGE = re.compile(r"^ *message: (.+?)(?: Reason: Unknown\.)?(?: ?For further error .*)?$", re.M)
CLOCK_S = 1.0
"""apart, the times of two nodes no longer tell which rank failed first"""
SLOW_GB_PER_S = 5.0
"""between GPUs: less is what sockets or host memory give, not NVLink or InfiniBand"""
FOLLOWS = (*CONSEQUENCES, "rank 0 has not written", "device: cuda is asked for")
"""what a rank says whose peer went first, or whose GPUs are counted elsewhere"""
SITE = "the profile's site.yaml"
INSTALL = "install one, and Python's headers"

Record = Mapping[str, Any]


def problems(record: Record, site: Record) -> list[str]:
    """One sentence for each thing that is wrong at this width; ranks that say the same share it."""
    by_sentence: dict[str, list[int]] = {}
    for rank in record["found"]:
        for sentence in of_rank(rank, record, site):
            by_sentence.setdefault(sentence, []).append(rank["rank"])
    sentences = [record["error"]] if record["error"] else []
    sentences += [f"{who(ranks, record)} {sentence}" for sentence, ranks in by_sentence.items()]
    stopped = (rank for rank in record["found"] if rank["error"])
    return (
        sentences
        or first_ended(record)
        or [f"rank {rank['rank']} stopped: {rank['error']}" for rank in stopped]
        or list(of_all(record, site))
    )


def of_rank(rank: Record, record: Record, site: Record) -> Iterator[str]:
    """Findings on one rank, and what to write or look at instead. What it did not come
    to check is not in its record."""
    place, logs, slurm = record["place"], record["logs"], site["launcher"] == "slurm"
    yield from of_gpus(rank, place["ranks_per_node"], site)
    cpus = min(place["cpus_per_rank"], rank.get("cores_of_machine", 0))
    if slurm and rank.get("cores", cpus) < cpus:
        yield (
            f"may use {rank['cores']} of its {cpus} CPUs: write srun_options: "
            f"[--cpu-bind=cores] in {SITE}"
        )
    for folder, why in rank.get("unreadable", {}).items():
        yield f"cannot read {folder} ({why}): correct binds in {SITE}"
    if why := rank.get("unwritable"):
        yield f"cannot write below {logs} ({why}): put results where all nodes can write"
    if rank.get("too_old_to_compile"):
        yield (
            f"has torch {rank['versions']['torch']}, which is too old for compile: true: write "
            "compile: false, or use a later torch"
        )
    if (compiler := rank.get("compiler")) and compiler["error"]:
        an_image = f"use an image that has it, such as container/current.def's, in {SITE}"
        yield (
            f"has no {compiler['language']} compiler that works ({compiler['error']}), for "
            f"compile: true: {an_image if record['image'] else INSTALL}"
        )
    shared, wanted = rank.get("shared_memory"), record["needs"]["shared_memory_bytes"]
    if shared and shared["error"]:
        yield (
            f"cannot write into /dev/shm ({shared['error']}), by which processes share memory: "
            "have it mounted there"
        )
    elif shared and shared["free_bytes"] < wanted:
        unless = f" (no --contain under container_options in {SITE})" if slurm else ""
        yield (
            f"has {shared['free_bytes'] / GIB:.2f} GiB free in /dev/shm, where the loader "
            f"processes of PyG's engines keep up to {wanted / GIB:.2f} GiB of a trial's batches: "
            f"have it made that large{unless}, or write sampling_workers: 0"
        )
    if (store := rank.get("store")) and store["error"]:
        yield f"cannot open the graph store ({store['error']}): delete it, and it is built again"
    if unseen := rank.get("unseen"):
        yield (
            f"does not see what rank {unseen[0]} wrote below {logs}: put results on a file system "
            "that all nodes share"
        )
    if abs(ahead := rank.get("clock_ahead_s") or 0.0) > CLOCK_S:
        yield (
            f"has a clock {ahead:+.1f} s from rank 0's: tell the site, whose nodes should share "
            "one time"
        )
    if (error := rank["error"]) and not any(text in error for text in FOLLOWS):
        yield f"stopped: {error}: see its log in {logs}"


def of_gpus(rank: Record, wanted: int, site: Record) -> Iterator[str]:
    seen, slurm = wanted, site["launcher"] == "slurm"
    if site["device"] == "cuda" and "devices" in rank:
        versions, driver, error = rank["versions"], rank["driver"], rank["device_error"]
        if versions["cuda"] is None:
            yield (
                f"has torch {versions['torch']}, which was built without CUDA: use an image with "
                f"CUDA, or write device: cpu in {SITE}"
            )
        elif driver is None:
            yield f"finds no NVIDIA driver on its node: correct partition_gpu and gres in {SITE}"
        elif error and "driver" in error.lower():
            yield (
                f"has the driver {driver}, which does not run the image's CUDA {versions['cuda']} "
                f"({error}): write image_definition: container/slides.def (CUDA 12.1) in {SITE}"
            )
        elif error:
            yield (
                f"cannot use its GPUs, with driver {driver} and CUDA {versions['cuda']} ({error}): "
                "see nvidia-smi on that node"
            )
        else:
            seen = len(rank["devices"])
    elif slurm and site["gres"] and rank.get("visible_devices") is not None:  # null: all of them
        seen = len(rank["visible_devices"].split(","))
    if seen < wanted:
        right = (
            "srun_options: [--gpu-bind=none]" if slurm else "the devices_per_node that there are"
        )
        yield f"sees {seen} of the {wanted} GPUs of its node's ranks: write {right} in {SITE}"
    if len(contexts := rank.get("contexts") or []) > 1:
        yield (
            f"has a CUDA context on each of the GPUs {', '.join(map(str, contexts))} of its node, "
            "which takes memory of other ranks' GPUs: see CUDA_VISIBLE_DEVICES, and what MPI or "
            f"UCX set, under environment in {SITE}"
        )


def unknown(record: Record) -> list[str]:
    """Checks that could not be done."""
    blind = [
        rank["rank"]
        for rank in record["found"]
        if len(rank.get("devices", [])) > 1 and "contexts" in rank and rank["contexts"] is None
    ]
    said = (
        "has a CUDA context on another rank's GPU: NVML does not show it the process, e.g. in a "
        "container with process numbers of its own"
    )
    return [f"not known whether {who(blind, record)} {said}"] if blind else []


def first_ended(record: Record) -> list[str]:
    """The first rank that went without saying why, and those like it: the end of their logs."""
    started = {rank["rank"]: rank["error"] for rank in record["found"]}
    bad = [end for end in record["ends"] if end["code"] != 0 and not started.get(end["rank"])]
    if not bad:
        return []
    first = min(bad, key=lambda end: end["order"])
    alike = [end["rank"] for end in bad if all(end[key] == first[key] for key in ("code", "said"))]
    how = "ended early" if first["rank"] in started else "did not start"
    code = "" if first["code"] is None else f" (exit code {first['code']})"
    said = first["said"] or f"it said nothing, see {record['logs']}"
    return [f"{who(alike, record)} {how}{code}: {said}"]


def of_all(record: Record, site: Record) -> Iterator[str]:
    """Problems visible only across ranks."""
    place = record["place"]
    if site["launcher"] == "slurm":
        counts = sorted(Counter(rank["node"] for rank in record["found"]).values())
        if counts != [place["ranks_per_node"]] * place["nodes"]:
            yield (
                f"the ranks are spread over the nodes as {counts}, not "
                f"{place['ranks_per_node']} on each of {place['nodes']}: correct srun_options in "
                f"{SITE}"
            )
    speed = bandwidth(record["found"])
    if site["device"] != "cuda" or speed is None or speed >= SLOW_GB_PER_S:
        return
    if place["nodes"] > 1:
        yield (
            f"the GPUs of different nodes exchange only {speed:.1f} GB/s (NCCL's network: "
            f"{record['network'] or 'unknown'}), as over sockets instead of InfiniBand: see "
            f"NCCL_SOCKET_IFNAME and NCCL_IB_HCA under environment in {SITE}"
        )
    else:
        yield (
            f"the GPUs of a node exchange only {speed:.1f} GB/s, as through host memory: write "
            f"srun_options: [--gpu-bind=none] in {SITE}, and no NCCL_P2P_DISABLE in its environment"
        )


def bandwidth(found: Sequence[Record]) -> float | None:
    """GB/s of the slowest rank; null for one rank."""
    speeds = [rank.get("all_reduce_gb_per_s") for rank in found]
    return min((speed for speed in speeds if speed is not None), default=None)


def who(ranks: list[int], record: Record) -> str:
    """ "rank 3 on mel2001", "every rank", "each of the ranks 4, 5 on mel2002"."""
    if len(ranks) == record["ranks"] > 1:
        return "every rank"
    on = sorted({rank["node"] for rank in record["found"] if rank["rank"] in ranks})
    several = f"each of the ranks {', '.join(map(str, ranks))}"
    name = several if len(ranks) > 1 else f"rank {ranks[0]}"
    return f"{name} on {' and '.join(on)}" if on else name


def table(records: Sequence[Mapping[str, Any]]) -> str:
    """A line a width, then what is wrong and what is not known, a line a sentence.

    A record without an answer holds "ranks" and "problems" alone.
    """
    lines = text_table(HEAD, [row(record) for record in records], left=range(len(HEAD)))
    for record in records:
        ranks = record["ranks"]
        said = [*record["problems"], *record.get("unknown", [])]
        lines += [f"{ranks} rank{'s' if ranks > 1 else ''}: {sentence}" for sentence in said]
    return "\n".join(lines)


def row(record: Mapping[str, Any]) -> tuple[str, ...]:
    found = record.get("found", [])

    def known(name: str) -> list[Any]:
        return [rank[name] for rank in found if rank.get(name) is not None]

    def once(values: Iterable[str], between: str = " / ") -> str:
        return between.join(dict.fromkeys(values)) or "-"

    meeting, ahead = known("meeting_s"), known("clock_ahead_s")
    gpus = (devices[0] for devices in known("devices") if devices)
    speed, count = bandwidth(found), len(record["problems"])
    return (
        str(record["ranks"]),
        once(known("node"), ", "),
        once(["cpu"] if record.get("device") == "cpu" and found else gpus),
        once(known("driver")),
        once(versions["torch"] for versions in known("versions")),
        f"{max(meeting):.1f} s" if meeting else "-",
        f"{speed:.1f} GB/s" if speed is not None else "-",
        f"{max(ahead) - min(ahead):.3f} s" if len(ahead) > 1 else "-",
        f"{count} problem{'s' if count > 1 else ''}" if count else "ok",
    )


def reason(said: str, path: Path, log: Path) -> str:
    """Why a job left no record, in one sentence. said: all that Snakemake printed, which is in
    `log`. path: the record.

    Where the width's own job did not fail, Snakemake refused the run, such as without its image.
    """
    blocks = re.split(r"^Error in rule ", said, flags=re.MULTILINE)[1:]
    mine = "\n".join(block for block in blocks if str(path) in block) or said
    logs = [Path(name) for names in LOGS.findall(mine) for name in names.split(", ")]
    logged = (one.read_text(errors="replace") for one in logs if one.is_file())
    if found := SBATCH.search(mine):
        return f"Slurm refused the job: {' '.join(found[1].split())}"
    if found := OURS.search("\n".join([mine, *logged])):
        return found[1].strip()
    if found := MESSAGE.search(mine):
        return f"{found[1].strip()} See {log}"
    last = said.strip().rpartition("\n")[2].strip()
    return f"its job left no answer{': ' + last if last else ''}; see {log}"
