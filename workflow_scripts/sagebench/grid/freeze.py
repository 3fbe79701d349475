"""A study from its files, and frozen: what a run is to do, written down when it starts, so that
later edits change nothing of it."""

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
from sagebench.grid.configuration import laid_over, read_configuration, validate
from sagebench.grid.expansion import Request, Study, expand
from sagebench.grid.site import geometry, read_site, validate_site
from sagebench.grid.trial import digest

DEFAULT_CONFIGURATION = "config/config.yaml"
DEFAULT_SITE = "profiles/local/site.yaml"
FORMAT = 1


def load_study(
    paths: Sequence[str | os.PathLike[str]],
    site: str | os.PathLike[str],
    overrides: Mapping[str, Any] | None = None,
) -> Study:
    """The study in the configuration files `paths`, under single values laid over them.

    Raises UserError with one sentence for each mistake in them.
    """
    values = laid_over(read_configuration(paths), overrides or {})
    use_plugins(values.get("plugins"))
    return expand(validate(values), read_site(site))


def study_parser(docstring: str | None) -> argparse.ArgumentParser:
    """The parser of a script that is told its study: by what a person writes, or by what a run has
    frozen."""
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
        return thaw(arguments.study)
    return load_study(arguments.configfile, arguments.site)


def study_document(study: Study, runtimes: bool = False) -> dict[str, Any]:
    """The study as plain JSON types: its configuration and site, and the trials they make.

    {"format", "study", "configuration", "site", "experiments": [{"name", "title", "axis", "seeds",
    "trials": [id]}], "requests": {id: {"store", "walltime_min", "continues"}},
    "places": {ranks: Geometry}, "skipped": {id: prediction}}; with `runtimes`, "runtime_min" is
    in the requests that have one.

    Not in it, as no other tables come of it: "command", which the frozen file has once the study's
    trials or its report were made: Snakemake's command line of the last time.
    """
    widths = {request.trial.ranks for request in study.requests.values()}

    def asked(request: Request) -> dict[str, Any]:
        names = ["store", "walltime_min", "continues"]
        if runtimes and request.runtime_min is not None:
            names.append("runtime_min")
        return {name: getattr(request, name) for name in names}

    plugins = list(plugin_copies(_plugins_folder(study)))
    return {
        "format": FORMAT,
        **({"plugins": plugins} if plugins else {}),
        "study": study.name,
        "configuration": study.configuration.complete(),
        "site": study.site.model_dump(mode="json"),
        "experiments": [asdict(experiment) for experiment in study.experiments],
        "requests": {trial_id: asked(request) for trial_id, request in study.requests.items()},
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
        self._document = study_document(study)
        self._run_document = study_document(study, runtimes=True)
        self.path = self.run_path = self._path(self._document)
        if self._run_document != self._document:
            self.run_path = self._path(self._run_document)

    def _path(self, document: dict[str, Any]) -> str:
        return f"{self.study.results}/{self.study.name}/frozen/{digest(document, 10)}.json"

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
        for copy, content in plugin_copies(_plugins_folder(self.study)).items():
            if content is not None and not Path(copy).exists():
                write_atomic(copy, content)
        for store in stores:
            # Where an archive lies may change; what the data is cannot, it is in the name.
            _write_changed(store_spec_path(results, store), self.study.stores[store])


def _write_changed(path: str, value: Any) -> None:
    if read_object(Path(path)) != value:
        write_json(path, value)


def _plugins_folder(study: Study) -> str:
    return f"{study.results}/{study.name}/frozen/plugins"


def use_plugins(plugins: Any) -> None:
    """Those of a configuration, which is not checked yet."""
    registry.use(plugins if isinstance(plugins, list) and all(map(_is_text, plugins)) else [])


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def plugin_copies(folder: str) -> dict[str, bytes | None]:
    """What jobs use of the plug-ins of now: the content of a copy of each file, by its path below
    `folder`, and the names of those that are installed, with None."""
    copies: dict[str, bytes | None] = {}
    for path, entry in registry.plugin_files(registry.plugins()):
        if entry is not None:
            copies[entry] = None
        else:
            content = path.read_bytes()
            name = hashlib.sha256(content).hexdigest()[:10]
            copies[f"{folder}/{name}/{path.name}"] = content
    return copies


def thaw(path: str | os.PathLike[str]) -> Study:
    """The study in a frozen file, with what was decided by predictions when it was frozen."""
    document = read_json(path)
    use_plugins(document.get("plugins"))
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
