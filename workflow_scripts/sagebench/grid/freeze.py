"""What a run is to do, written down when it starts, so that later edits change nothing of it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sagebench.files import read_json, write_json
from sagebench.grid.configuration import validate
from sagebench.grid.expansion import Study, expand
from sagebench.grid.site import validate_site
from sagebench.grid.trial import digest

FORMAT = 1


def study_document(study: Study) -> dict[str, Any]:
    """The study as plain JSON types: its configuration and site, and the trials they make.

    {"format", "study", "configuration", "site", "experiments": [{"name", "title", "axis", "seeds",
    "trials": [id]}], "requests": {id: {"store", "walltime_min"}}}
    """
    return {
        "format": FORMAT,
        "study": study.name,
        "configuration": study.configuration.complete(),
        "site": study.site.model_dump(mode="json"),
        "experiments": [
            {
                "name": experiment.name,
                "title": experiment.title,
                "axis": experiment.axis,
                "seeds": list(experiment.seeds),
                "trials": list(experiment.trials),
            }
            for experiment in study.experiments
        ],
        "requests": {
            trial_id: {"store": request.store, "walltime_min": request.walltime_min}
            for trial_id, request in study.requests.items()
        },
    }


class Freezer:
    """The frozen files of one study: their paths, and how they are written."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.digest = digest(study_document(study), 10)
        self.path = f"{study.results}/{study.name}/frozen/{self.digest}.json"

    def write(self, trial_ids: Iterable[str], stores: Iterable[str]) -> None:
        """Write the study, what each of `trial_ids` needs, and the specs of the stores to build;
        what is there stays as it is."""
        _write_missing(self.path, study_document(self.study))
        for trial_id in trial_ids:
            request = self.study.requests[trial_id]
            _write_missing(trial_path(self.study.results, trial_id), request.trial.to_json())
        for store in stores:
            dataset = self.study.stores[store]
            path = store_spec_path(self.study.results, store)
            # Where an archive lies may change; what the data is cannot, it is in the name.
            if not Path(path).exists() or read_json(path) != dataset:
                write_json(path, dataset)


def thaw(path: str | os.PathLike[str]) -> Study:
    """The study in a frozen file."""
    document = read_json(path)
    return expand(validate(document["configuration"]), validate_site(document["site"]))


def trial_path(results: str, trial_id: str) -> str:
    return f"{results}/trials/{trial_id}/trial.json"


def outcome_path(results: str, trial_id: str) -> str:
    return f"{results}/trials/{trial_id}/outcome.json"


def store_spec_path(results: str, store: str) -> str:
    return f"{results}/stores/{store}.json"


def manifest_path(results: str, store: str) -> str:
    return f"{results}/stores/{store}/manifest.json"


def _write_missing(path: str, value: Any) -> None:
    if not Path(path).exists():
        write_json(path, value)
