"""What is wrong, in plain words: from the record of one width to sentences that say what to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sagebench.launch.verdict import CONSEQUENCES
from sagebench.units import GIB

CLOCK_S = 1.0
"""apart, the times of two nodes no longer tell which rank failed first"""
SLOW_GB_PER_S = 5.0
"""between GPUs: less is what sockets or host memory give, not NVLink or InfiniBand"""
NO_GPU = "there is no GPU"
SITE = "the profile's site.yaml"


def problems(record: Mapping[str, Any], site: Mapping[str, Any]) -> list[str]:
    """One sentence for each thing that is wrong at this width; ranks that say the same share it."""
    found = record["found"]
    errors = [(rank, rank["error"]) for rank in found if rank["error"]]
    by_sentence: dict[Sentence, list[int]] = {}
    for rank in found:
        for sentence in of_rank(rank, record, site):
            by_sentence.setdefault(sentence, []).append(rank["rank"])
    for rank, error in errors:
        if not follows(error):
            sentence = f"stopped: {error}", f"see its log in {record['logs']}"
            by_sentence.setdefault(sentence, []).append(rank["rank"])
    sentences = [record["error"]] if record["error"] else []
    sentences += [
        f"{who(ranks, record)} {sentence}: {advice}"
        for (sentence, advice), ranks in by_sentence.items()
    ]
    return (
        sentences
        or first_ended(record)
        or [f"rank {rank['rank']} stopped: {error}" for rank, error in errors]
        or list(of_all(record, site))
    )


def follows(error: str) -> bool:
    """Whether it is what a rank says whose peer went first, or whose GPUs are counted elsewhere."""
    return any(text in error for text in (*CONSEQUENCES, "rank 0 has not written", NO_GPU))


Sentence = tuple[str, str]
"""what a rank does or does not, and what to write or look at instead"""


def of_rank(
    rank: Mapping[str, Any], record: Mapping[str, Any], site: Mapping[str, Any]
) -> Iterator[Sentence]:
    """What one rank found wrong on its node."""
    place = record["place"]
    slurm = site["launcher"] == "slurm"
    if site["device"] == "cuda" and "devices" in rank:
        yield from of_gpus(rank, place["ranks_per_node"], slurm)
    elif slurm and site["gres"] and rank.get("visible_devices") is not None:  # null: all of them
        visible = rank["visible_devices"].split(",")
        yield from _too_few(len(visible), place["ranks_per_node"], slurm)
    if slurm and "cores" in rank:
        wanted = min(place["cpus_per_rank"], rank["cores_of_machine"])
        if rank["cores"] < wanted:
            yield (
                f"may use {rank['cores']} of its {wanted} CPUs",
                f"write srun_options: [--cpu-bind=cores] in {SITE}",
            )
    for folder, why in rank.get("unreadable", {}).items():
        yield f"cannot read {folder} ({why})", f"correct binds in {SITE}"
    if why := rank.get("unwritable"):
        yield (
            f"cannot write below {record['logs']} ({why})",
            "put results where all nodes can write",
        )
    yield from of_node(rank, record, slurm)
    if (store := rank.get("store")) and store["error"]:
        yield (
            f"cannot open the graph store ({store['error']})",
            "delete it, and it is built again",
        )
    if unseen := rank.get("unseen"):
        yield (
            f"does not see what rank {unseen[0]} wrote below {record['logs']}",
            "put results on a file system that all nodes share",
        )
    if abs(rank.get("clock_ahead_s") or 0.0) > CLOCK_S:
        yield (
            f"has a clock {rank['clock_ahead_s']:+.1f} s from rank 0's",
            "tell the site, whose nodes should share one time",
        )


def of_node(rank: Mapping[str, Any], record: Mapping[str, Any], slurm: bool) -> Iterator[Sentence]:
    """What trials use of a node besides CPUs and devices."""
    if rank.get("too_old_to_compile"):
        yield (
            f"has torch {rank['versions']['torch']}, which is too old for compile: true",
            "write compile: false, or use a later torch",
        )
    if (compiler := rank.get("compiler")) and compiler["error"]:
        where = f"use an image that has it, such as container/current.def's, in {SITE}"
        yield (
            f"has no {compiler['language']} compiler that works ({compiler['error']}), for "
            "compile: true",
            where if record["image"] else "install one, and Python's headers",
        )
    if shared := rank.get("shared_memory"):
        wanted = record["needs"]["shared_memory_bytes"]
        if shared["error"]:
            yield (
                f"cannot write into /dev/shm ({shared['error']}), by which processes share memory",
                "have it mounted there",
            )
        elif shared["free_bytes"] < wanted:
            unless = f" (no --contain under container_options in {SITE})" if slurm else ""
            yield (
                f"has {gib(shared['free_bytes'])} free in /dev/shm, where the loader processes of "
                f"PyG's engines keep up to {gib(wanted)} of a trial's batches",
                f"have it made that large{unless}, or write sampling_workers: 0",
            )
    if len(contexts := rank.get("contexts") or []) > 1:
        yield (
            f"has a CUDA context on each of the GPUs {', '.join(map(str, contexts))} of its node, "
            "which takes memory of other ranks' GPUs",
            f"see CUDA_VISIBLE_DEVICES, and what MPI or UCX set, under environment in {SITE}",
        )


def gib(count: float) -> str:
    return f"{count / GIB:.2f} GiB"


def of_gpus(rank: Mapping[str, Any], wanted: int, slurm: bool) -> Iterator[Sentence]:
    driver, cuda, error = rank["driver"], rank["versions"]["cuda"], rank["device_error"]
    if cuda is None:
        yield (
            f"has torch {rank['versions']['torch']}, which was built without CUDA",
            f"use an image with CUDA, or write device: cpu in {SITE}",
        )
    elif driver is None:
        yield "finds no NVIDIA driver on its node", f"correct partition_gpu and gres in {SITE}"
    elif error and "driver" in error.lower():
        yield (
            f"has the driver {driver}, which does not run the image's CUDA {cuda} ({error})",
            f"write image_definition: container/slides.def (CUDA 12.1) in {SITE}",
        )
    elif error:
        yield (
            f"cannot use its GPUs, with driver {driver} and CUDA {cuda} ({error})",
            "see nvidia-smi on that node",
        )
    else:
        yield from _too_few(len(rank["devices"]), wanted, slurm)


def _too_few(seen: int, wanted: int, slurm: bool) -> Iterator[Sentence]:
    if seen >= wanted:
        return
    advice = "srun_options: [--gpu-bind=none]" if slurm else "the devices_per_node that there are"
    yield f"sees {seen} of the {wanted} GPUs of its node's ranks", f"write {advice} in {SITE}"


def unknown(record: Mapping[str, Any]) -> list[str]:
    """What could not be checked, and so is neither well nor wrong."""
    blind = [
        rank["rank"]
        for rank in record["found"]
        if len(rank.get("devices", [])) > 1 and "contexts" in rank and rank["contexts"] is None
    ]
    if not blind:
        return []
    return [
        f"not known whether {who(blind, record)} has a CUDA context on another rank's GPU: NVML "
        "does not show it the process, e.g. in a container with process numbers of its own"
    ]


def first_ended(record: Mapping[str, Any]) -> list[str]:
    """The first rank that went without saying why, and those like it: the end of their logs."""
    told = {rank["rank"] for rank in record["found"] if rank["error"]}
    bad = [end for end in record["ends"] if end["code"] != 0 and end["rank"] not in told]
    if not bad:
        return []
    first = min(bad, key=lambda end: end["order"])
    alike = [end["rank"] for end in bad if all(end[key] == first[key] for key in ("code", "said"))]
    started = first["rank"] in {rank["rank"] for rank in record["found"]}
    how = "ended early" if started else "did not start"
    code = "" if first["code"] is None else f" (exit code {first['code']})"
    said = first["said"] or f"it said nothing, see {record['logs']}"
    return [f"{who(alike, record)} {how}{code}: {said}"]


def of_all(record: Mapping[str, Any], site: Mapping[str, Any]) -> Iterator[str]:
    """What only shows in all ranks together."""
    place, found = record["place"], record["found"]
    if site["launcher"] == "slurm":
        nodes = [rank["node"] for rank in found]
        counts = sorted(nodes.count(node) for node in set(nodes))
        if counts != [place["ranks_per_node"]] * place["nodes"]:
            yield (
                f"the ranks are spread over the nodes as {counts}, not "
                f"{place['ranks_per_node']} on each of {place['nodes']}: correct srun_options in "
                f"{SITE}"
            )
    speed = bandwidth(record)
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


def bandwidth(record: Mapping[str, Any]) -> float | None:
    """GB/s of the slowest rank; null for one rank."""
    speeds = [rank.get("all_reduce_gb_per_s") for rank in record["found"]]
    return min((speed for speed in speeds if speed is not None), default=None)


def who(ranks: list[int], record: Mapping[str, Any]) -> str:
    """ "rank 3 on mel2001", "every rank", "each of the ranks 4, 5 on mel2002"."""
    if len(ranks) == record["ranks"] > 1:
        return "every rank"
    nodes = {rank["rank"]: rank["node"] for rank in record["found"]}
    on = " and ".join(sorted({nodes[rank] for rank in ranks if rank in nodes}))
    name = f"rank {ranks[0]}"
    if len(ranks) > 1:
        name = f"each of the ranks {', '.join(map(str, ranks))}"
    return f"{name} on {on}" if on else name
