"""One of the jobs before a study's trials, here. What is there already is not made again.

image: builds the site's container image from its definition; prints what Apptainer says, and last
the image's digest.
probe: samples a few micro-batches of every (fanout, batch size) and records a step of every
configuration, on this CPU, for the plan: results/probes/<store>.json.
pilot: times a few micro-steps of every configuration that costs something else, each in a process
that is started as a trial's ranks are, for the plan: results/pilots/<machine>/. Exit code 0 means
that all of it is there.
preflight: starts --ranks ranks that check their nodes, and writes what they found. Exit code 0
means that the record is there, whatever it says: preflight.py tells it.
"""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from pathlib import Path

from sagebench.errors import UserError, run_script
from sagebench.files import write_json
from sagebench.grid.expansion import Study
from sagebench.grid.freeze import manifest_path, study_of, study_parser

say = partial(print, flush=True)


def main() -> int:
    parser = study_parser(__doc__)
    parser.add_argument("what", choices=["image", "probe", "pilot", "preflight"])
    parser.add_argument(
        "--threads",
        type=int,
        default=len(os.sched_getaffinity(0)),
        help="of a probe: of its sampler (default: one a core, %(default)s)",
    )
    parser.add_argument("--ranks", type=int, help="of a preflight")
    parser.add_argument("--out", type=Path, help="of a preflight: the record to write")
    arguments = parser.parse_args()
    study = study_of(arguments)
    if arguments.what == "image":
        image(study)
    elif arguments.what == "pilot":
        from sagebench.pilot.series import Series

        return Series(study).run()
    elif arguments.what == "probe":
        probe(study, max(1, arguments.threads))
    else:
        preflight(study, arguments.ranks, arguments.out)
    return 0


def image(study: Study) -> None:
    from sagebench.launch.container import build_image, image_digest

    # A batch system ends a job with SIGTERM: as an exception it takes the half-built image along.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    site = study.site
    if site.image is None or site.image_definition is None:
        raise UserError(
            f"the site of {site.machine} names no image and image_definition: write both in its "
            "profile's site.yaml, e.g. container/sagebench.sif and container/current.def"
        )
    path = Path(site.image)
    try:
        build_image(site.model_dump())
    except OSError as error:
        raise UserError(f"the image {path} cannot be written: {error}") from None
    say(f"{path}: {path.stat().st_size / 1e6:,.0f} MB, {image_digest(path)}")


def probe(study: Study, threads: int) -> None:
    from sagebench.estimate.probe import cells_between, path_of
    from sagebench.estimate.probing import probe_store
    from sagebench.graph.store import GraphStore

    for name in study.stores:
        store = GraphStore.open(Path(manifest_path(study.results, name)).parent)
        of_store = [r.trial for r in study.requests.values() if r.store == name]
        trials = [trial for trial in of_store if trial.in_minibatches]
        wanted = [*trials, *cells_between(trials, len(store.train))]
        path = path_of(study.results, name)
        probe = probe_store(store, wanted, path, threads=threads, say=say)
        say(f"{len(probe.samples)} samples and {len(probe.steps)} recorded steps: {path}")


def preflight(study: Study, ranks: int, out: Path) -> None:
    from sagebench.preflight.job import check_width

    record = check_width(study, ranks, out.with_suffix(""))
    write_json(out, record)
    for said in [*(record["problems"] or ["ok"]), *record["unknown"]]:
        say(said)


if __name__ == "__main__":
    run_script(main)
