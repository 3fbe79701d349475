"""A study from its files: read, checked, expanded."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from typing import Any

from sagebench.errors import script_parser
from sagebench.grid.configuration import validate
from sagebench.grid.expansion import Study, expand
from sagebench.grid.files import laid_over, read_configuration
from sagebench.grid.freeze import thaw
from sagebench.grid.site import read_site

DEFAULT_CONFIGURATION = "config/config.yaml"
DEFAULT_SITE = "profiles/local/site.yaml"


def load_study(
    paths: Sequence[str | os.PathLike[str]],
    site: str | os.PathLike[str],
    overrides: Mapping[str, Any] | None = None,
) -> Study:
    """The study in the configuration files `paths`, under single values laid over them.

    Raises UserError with one sentence for each mistake in them.
    """
    values = laid_over(read_configuration(paths), overrides or {})
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
