"""One job of a preflight: its ranks are started as a trial's are, and their records gathered."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from sagebench.errors import UserError
from sagebench.files import read_json, read_object
from sagebench.grid.expansion import Study
from sagebench.grid.freeze import manifest_path
from sagebench.grid.site import geometry
from sagebench.grid.trial import Trial
from sagebench.launch.container import ROOT
from sagebench.launch.ends import last_lines
from sagebench.launch.launcher import handling_signals
from sagebench.launch.ranks import RANK_SCRIPT, Ranks, rank_group, shared_environment
from sagebench.preflight.findings import problems, unknown

LIMIT_S = 300
FORMAT = 1
BATCHES_AHEAD = 2
"""that torch's DataLoader has each of its processes make"""


def check_width(study: Study, ranks: int, directory: Path) -> dict[str, Any]:
    """The record of one number of ranks: what they found, and what is wrong, in sentences.

    directory: for the ranks' logs and records, made anew.
    """
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    site = study.site
    record: dict[str, Any] = {
        "format": FORMAT,
        "machine": site.machine,
        "device": site.device,
        "ranks": ranks,
        "place": asdict(geometry(ranks, site)),
        "needs": needs(study),
        "image": site.image if site.launcher == "slurm" else None,
        "checked_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "slurm_job_id": os.environ.get("SLURM_JOB_ID"),
        "host": os.uname().nodename,
        "logs": str(directory),
        "error": None,
        "ends": [],
    }
    began = time.monotonic()
    try:
        running = start(study, record, directory)
        with handling_signals(running.stop), running:
            ends = running.wait(time.time() + LIMIT_S)
        record["ends"] = [  # said: the last line of its log, or of srun's where it has none
            {"rank": end.rank, "code": end.code, "order": end.order,
             "said": [None, *last_lines(end.log_tail)][-1]}
            for end in ends
        ]  # fmt: skip
        if running.asked_to_stop:
            record["error"] = "the job was ended from outside before its checks were done"
        elif running.timed_out:
            record["error"] = f"the checks were not done within {LIMIT_S} s"
    except UserError as error:
        record["error"] = str(error)
    except OSError as error:
        record["error"] = f"{error.filename} cannot be run on {record['host']} ({error.strerror})"
    record["wall_s"] = time.monotonic() - began
    paths = [directory / f"rank-{rank}.json" for rank in range(ranks)]
    record["found"] = [read_json(path) for path in paths if path.exists()]
    log = directory / "rank-0.log"
    said = log.read_text(errors="replace") if log.exists() else ""
    networks = re.findall(r"NCCL INFO Using network (.+)", said)  # IB, Socket or a plugin's name
    record["network"] = networks[0].strip() if networks else None
    record["problems"] = problems(record, site.model_dump(mode="json"))
    record["unknown"] = unknown(record)
    return record


def start(study: Study, record: dict[str, Any], directory: Path) -> Ranks:
    """The ranks, as those of a trial, but for what they run. Each opens a graph store of the study,
    where one is built."""
    site, results = study.site.model_dump(mode="json"), Path(study.results)
    manifests = [Path(manifest_path(study.results, name)) for name in study.stores]
    built = [manifest.parent for manifest in manifests if manifest.exists()][:1]
    checks = {
        "directory": str(directory),
        "device": site["device"],
        "folders": [*site["binds"], str(ROOT), str(results)],
        "store": str(built[0]) if built else None,
        "compiles": record["needs"]["compiles"],
    }
    variables = {
        **shared_environment(site["device"], 1, directory, time.time()),
        # In the log of rank 0: the network that NCCL chose.
        "NCCL_DEBUG": "INFO",
        "NCCL_DEBUG_SUBSYS": "INIT,NET",
    }
    arguments = [str(RANK_SCRIPT), "preflight", json.dumps(checks)]
    return rank_group(arguments, variables, directory, [results, *built], site, record["place"])


def needs(study: Study) -> dict[str, Any]:
    """Needs of the trials on a node besides GPUs: {"compiles": whether one has compile: true,
    "shared_memory_bytes": that the loader processes of one may fill in /dev/shm of a node, of those
    whose graph store is built}"""
    graphs = {name: read_object(Path(manifest_path(study.results, name))) for name in study.stores}
    compiles, most_bytes = False, 0
    for request in study.requests.values():
        trial, graph = request.trial, graphs[request.store]
        compiles |= trial.compile
        # PyG's loader processes hand their batches over in /dev/shm, features and all; a batch lies
        # there from when it is made until it is used.
        processes = 0 if trial.samples_where_placed else trial.sampling_workers
        if graph and processes and trial.in_minibatches:
            batches = geometry(trial.ranks, study.site).ranks_per_node
            batches *= BATCHES_AHEAD * processes + 1
            most_bytes = max(most_bytes, batches * batch_bytes(trial, graph))
    return {"compiles": compiles, "shared_memory_bytes": most_bytes}


def batch_bytes(trial: Trial, graph: Mapping[str, int]) -> int:
    """At most, of one micro-batch: as if no two edges led to the same node, as far as the graph
    goes. graph: "num_nodes", "num_edges" and "num_features" of its store."""
    nodes = new = min(trial.batch_size, graph["num_nodes"])
    edges = 0
    for fanout in trial.fanout:
        drawn = graph["num_edges"] if fanout == -1 else new * fanout
        edges = min(edges + drawn, graph["num_edges"])
        new = min(drawn, graph["num_nodes"] - nodes)
        nodes += new
    features, id_and_label, source_and_target = 4 * graph["num_features"], 2 * 8, 2 * 8
    return nodes * (features + id_and_label) + edges * source_and_target
