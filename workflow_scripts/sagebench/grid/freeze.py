"""Loading a study, and freezing it when a run starts, so that later edits change nothing of it."""

from __future__ import annotations

import argparse
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from sagebench import registry
from sagebench.errors import script_parser
from sagebench.files import read_json, read_object, write_atomic, write_json
from sagebench.grid.configuration import merged, read_configuration, validate
from sagebench.grid.expansion import Study, expand
from sagebench.grid.site import geometry, read_site, validate_site
from sagebench.grid.trial import digest

DEFAULT_CONFIGURATION = "config/config.yaml"
DEFAULT_SITE = "profiles/local/site.yaml"
FORMAT = 1
REQUESTED = ("store", "walltime_min", "continues")
"""what the file tells of the request for a trial"""


def load_study(
    paths: Sequence[str | os.PathLike[str]],
    site: str | os.PathLike[str],
    overrides: Mapping[str, Any] | None = None,
) -> Study:
    """The study in the configuration files `paths`, under single values laid over them.

    Raises UserError with one sentence for each mistake in them.
    """
    values = merged(read_configuration(paths), overrides or {})
    plugins = values.get("plugins")  # what is wrong with them, validation says
    listed = plugins if isinstance(plugins, list) else []
    registry.use(one for one in listed if isinstance(one, str))
    for kind in registry.KINDS:  # whatever the study names, what a plug-in lacks is said now
        registry.names(kind)
    return expand(validate(values), read_site(site))


def study_parser(docstring: str | None) -> argparse.ArgumentParser:
    """Argument parser of a script that takes a study: by configuration files, or by the frozen."""
    parser = script_parser(docstring)
    parser.add_argument(
        "--configfile",
        nargs="+",
        default=[DEFAULT_CONFIGURATION],
        help=f"configuration files, the last on top; default: {DEFAULT_CONFIGURATION}",
    )
    parser.add_argument("--site", default=DEFAULT_SITE, help="default: %(default)s")
    parser.add_argument("--study", metavar="FROZEN", help="a frozen study instead of the above")
    return parser


def study_of(arguments: argparse.Namespace) -> Study:
    """The study that the arguments name."""
    if arguments.study is not None:
        return load_frozen(arguments.study)
    return load_study(arguments.configfile, arguments.site)


class Freezer:
    """The frozen files of one study: their paths, and how they are written.

    path: of the study. run_path: of the study with the runtimes that this run asks for, which
    change from run to run, and so must not make other tables; the same file where there are none.
    """

    def __init__(self, study: Study) -> None:
        self.study = study
        self._folder = f"{study.results}/{study.name}/frozen"
        # Jobs use copies: the content of each by its path. One that is installed stays where it is.
        self._plugins: dict[str, bytes | None] = {}
        for path, entry in registry.plugin_files(registry.plugins()):
            content = path.read_bytes() if entry is None else None
            name = hashlib.sha256(content or b"").hexdigest()[:10]
            self._plugins[entry or f"{self._folder}/plugins/{name}/{path.name}"] = content
        self.path, self._document = self._frozen(REQUESTED)
        self.run_path, self._run_document = self.path, self._document
        if any(request.runtime_min is not None for request in study.requests.values()):
            self.run_path, self._run_document = self._frozen([*REQUESTED, "runtime_min"])

    def _frozen(self, requested: Sequence[str]) -> tuple[str, dict[str, Any]]:
        """The path of the study's file and what is in it, as plain JSON types: its configuration
        and site, and the trials they make.

        Once the study's trials or its report were made, the file holds "command" too: Snakemake's
        command line of the last time, which is in no name, as no other tables come of it.
        """
        study = self.study
        widths = {request.trial.ranks for request in study.requests.values()}
        document = {
            "format": FORMAT,
            **({"plugins": list(self._plugins)} if self._plugins else {}),
            "study": study.name,
            "configuration": study.configuration.complete(),
            "site": study.site.model_dump(mode="json"),
            "experiments": [asdict(experiment) for experiment in study.experiments],
            "requests": {
                trial_id: {name: getattr(request, name) for name in requested}
                for trial_id, request in study.requests.items()
            },
            # JSON's keys are texts.
            "places": {str(ranks): asdict(geometry(ranks, study.site)) for ranks in sorted(widths)},
            "skipped": dict(study.skipped),
        }
        return f"{self._folder}/{digest(document, 10)}.json", document

    def write(
        self, trial_ids: Iterable[str], stores: Iterable[str], command: str | None = None
    ) -> None:
        """Write the study, what each of `trial_ids` needs, and the specs of the stores to build;
        what is there stays as it is, but `command`, which is noted in the study as "command"."""
        results, noted = self.study.results, {} if command is None else {"command": command}
        frozen = read_object(Path(self.path)) or self._document
        _write_changed(self.path, {**frozen, **noted})
        wanted = {
            trial_path(results, trial_id): self.study.requests[trial_id].trial.to_json()
            for trial_id in trial_ids
        }
        for path, document in {self.run_path: self._run_document, **wanted}.items():
            if not Path(path).exists():
                write_json(path, document)
        for copy, content in self._plugins.items():
            if content is not None and not Path(copy).exists():
                write_atomic(copy, content)
        for store in stores:
            # Where an archive lies may change; what the data is cannot, it is in the name.
            _write_changed(store_spec_path(results, store), self.study.all_stores[store])


def _write_changed(path: str, value: Any) -> None:
    if read_object(Path(path)) != value:
        write_json(path, value)


def load_frozen(path: str | os.PathLike[str]) -> Study:
    """The study in a frozen file, with what was decided by predictions when it was frozen."""
    document = read_json(path)
    registry.use(document.get("plugins", []))
    study = expand(validate(document["configuration"]), validate_site(document["site"]))
    frozen = document["requests"]
    requests = {
        trial_id: replace(request, runtime_min=frozen.get(trial_id, {}).get("runtime_min"))
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
