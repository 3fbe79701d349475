"""What a run is to do, written down when it starts, so that later edits change nothing of it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from sagebench.files import read_json, write_json
from sagebench.grid.configuration import validate
from sagebench.grid.expansion import Study, expand
from sagebench.grid.resources import geometry
from sagebench.grid.site import validate_site
from sagebench.grid.trial import digest

FORMAT = 1


def study_document(study: Study) -> dict[str, Any]:
    """The study as plain JSON types: its configuration and site, and the trials they make.

    {"format", "study", "configuration", "site", "experiments": [{"name", "title", "axis", "seeds",
    "trials": [id]}], "requests": {id: {"store", "walltime_min", "continues"}},
    "places": {ranks: Geometry}, "skipped": {id: prediction}}

    Not in it, as no other tables come of it: "command", which the frozen file has once the study's
    trials or its report were made: Snakemake's command line of the last time.
    """
    widths = {request.trial.ranks for request in study.requests.values()}
    return {
        "format": FORMAT,
        "study": study.name,
        "configuration": study.configuration.complete(),
        "site": study.site.model_dump(mode="json"),
        "experiments": [asdict(experiment) for experiment in study.experiments],
        "requests": {
            trial_id: {
                "store": request.store,
                "walltime_min": request.walltime_min,
                "continues": request.continues,
            }
            for trial_id, request in study.requests.items()
        },
        # JSON's keys are texts.
        "places": {str(ranks): asdict(geometry(ranks, study.site)) for ranks in sorted(widths)},
        "skipped": dict(study.skipped),
    }


class Freezer:
    """The frozen files of one study: their paths, and how they are written.

    path: of the study. run_path: of the study with the runtimes that this run asks for, which
    change from run to run, and so must not make other tables; the same file where there are none.
    """

    def __init__(self, study: Study) -> None:
        self.study = study
        document = study_document(study)
        self.digest = digest(document, 10)
        self.path = self.run_path = self._path(self.digest)
        if any(request.runtime_min is not None for request in study.requests.values()):
            self.run_path = self._path(digest(with_runtimes(document, study), 10))

    def _path(self, name: str) -> str:
        return f"{self.study.results}/{self.study.name}/frozen/{name}.json"

    def write(
        self, trial_ids: Iterable[str], stores: Iterable[str], command: str | None = None
    ) -> None:
        """Write the study, what each of `trial_ids` needs, and the specs of the stores to build;
        what is there stays as it is, but `command`, which is noted in the study as "command"."""
        document = study_document(self.study)
        _write_missing(self.path, document)
        if command is not None and (frozen := read_json(self.path)).get("command") != command:
            write_json(self.path, {**frozen, "command": command})
        _write_missing(self.run_path, with_runtimes(document, self.study))
        for trial_id in trial_ids:
            request = self.study.requests[trial_id]
            _write_missing(trial_path(self.study.results, trial_id), request.trial.to_json())
        for store in stores:
            dataset = self.study.stores[store]
            path = store_spec_path(self.study.results, store)
            # Where an archive lies may change; what the data is cannot, it is in the name.
            if not Path(path).exists() or read_json(path) != dataset:
                write_json(path, dataset)


def with_runtimes(document: dict[str, Any], study: Study) -> dict[str, Any]:
    """The document with "runtime_min" in the requests that have one."""
    requests = {
        trial_id: entry
        if request.runtime_min is None
        else {**entry, "runtime_min": request.runtime_min}
        for (trial_id, request), entry in zip(
            study.requests.items(), document["requests"].values(), strict=True
        )
    }
    return {**document, "requests": requests}


def thaw(path: str | os.PathLike[str]) -> Study:
    """The study in a frozen file, with what was decided by predictions when it was frozen."""
    document = read_json(path)
    study = expand(validate(document["configuration"]), validate_site(document["site"]))
    requests = {
        trial_id: replace(request, runtime_min=frozen["runtime_min"])
        if (frozen := document["requests"].get(trial_id, {})).get("runtime_min")
        else request
        for trial_id, request in study.requests.items()
    }
    return replace(study, requests=requests, skipped=document.get("skipped", {}))


def trial_path(results: str, trial_id: str) -> str:
    return f"{results}/trials/{trial_id}/trial.json"


def outcome_path(results: str, trial_id: str) -> str:
    return f"{results}/trials/{trial_id}/outcome.json"


def prediction_path(results: str, trial_id: str) -> str:
    return f"{results}/trials/{trial_id}/prediction.json"


def store_spec_path(results: str, store: str) -> str:
    return f"{results}/stores/{store}.json"


def manifest_path(results: str, store: str) -> str:
    return f"{results}/stores/{store}/manifest.json"


def _write_missing(path: str, value: Any) -> None:
    if not Path(path).exists():
        write_json(path, value)
