"""Registry of models, engines, samplers, data sources and figures: modules found by name.

A module is of a kind by a declaration at its top, e.g. MODEL = "what it is, in words", beside other
literals in upper case (OPTIONS, ENGINES, ...). They are read without running the file, so that a
configuration is checked and a grid planned without what the module needs; it is imported where it
is used. docs/extending.md says what a module of each kind has. Plug-ins are modules outside of the
package, named by the environment variable SAGEBENCH_PLUGINS (`use`). Standard library only.
"""

from __future__ import annotations

import ast
import difflib
import os
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, TypedDict, cast

from sagebench.errors import UserError


class Kind(NamedTuple):
    """package: below sagebench. declaration: what makes a module one of the kind. has: what it
    defines, with | between alternatives."""

    package: str
    declaration: str
    has: tuple[str, ...]


KINDS: Mapping[str, Kind] = {
    "method": Kind("methods", "METHOD", ("run|Run",)),
    "model": Kind("models", "MODEL", ("Layer.update",)),
    "engine": Kind("engines", "ENGINE", ("Engine.make_model", "Engine.load", "Engine.stream")),
    "sampler": Kind("sampling", "SAMPLER", ("Sampler.row_ends", "Sampler.sample_rows")),
    "device sampler": Kind("sampling.device", "DEVICE_SAMPLER", ("Sampler.expand",)),
    "source": Kind("graph.sources", "SOURCE", ("load",)),
    "figure": Kind("analysis.figures", "CAPTION", ("draw",)),
}
PLUGINS = "SAGEBENCH_PLUGINS"
"""environment variable: paths of files, separated by os.pathsep"""
OLDER_NAMES: Mapping[str, str] = {"sagebench": "uniform"}
"""names in trials that are older than the present ones; they stay in what is recorded"""


class Option(TypedDict, total=False):
    """A key of a configuration. default: without one the key is required; None: it may be null.
    divides: the key of a number that it must divide. at_most: the key of one that it must not
    exceed. drawn: of a data set, the choices that draw
    its split by `split_seed`. The others bound its type: choices; low, high and example a whole
    number; gt, ge, lt, le and example another."""

    type: str  # choice, flag, switch, path, sha256, number, whole or seed
    help: str
    default: object
    divides: str
    at_most: str
    drawn: Collection[str]
    choices: Collection[str]
    low: int
    high: int
    gt: float
    ge: float
    lt: float
    le: float
    example: float


class Declared(TypedDict, total=False):
    """Declarations of a module beside what it is: each kind has some of them."""

    OPTIONS: dict[str, Option]
    KEYS: Collection[str]
    ENGINES: Collection[str]
    AGGREGATORS: Collection[str]
    AGGREGATES_FEATURES: str
    READS_NEIGHBORS: bool
    TAKES: Collection[str]
    PLACEMENTS: Collection[str]
    LOADS: str
    READS_TABLE: bool
    HAS_KERNELS: bool
    GIVES: str
    LAW: str
    KEYED: bool
    GROUPED: bool
    TITLE: str
    CAPTION: str
    ORDER: int
    AXIS: str | dict[str, str] | None


class Inhabitant(NamedTuple):
    """A module of a kind. literals: upper-case literals at its top."""

    path: Path
    module: str
    literals: Mapping[str, object]


def names(kind: str) -> tuple[str, ...]:
    """All of a kind, in alphabetical order."""
    return tuple(sorted(_known(kind, plugins())))


def present_name(name: str) -> str:
    """The present name of what a trial or an older configuration calls `name`."""
    return OLDER_NAMES.get(name, name)


def recorded(name: str) -> str:
    """The name by which trials record what a configuration calls `name`."""
    return next((older for older, present in OLDER_NAMES.items() if present == name), name)


def declared(kind: str, name: str) -> Declared:
    """The literals at the top of a module. Raises UserError for a name that is not known."""
    return cast(Declared, _find(kind, name).literals)


def option_owners() -> dict[str, dict[str, Option]]:
    """The options of all models and methods: by key, then by owner, e.g. "model gat"."""
    found: dict[str, dict[str, Option]] = {}
    for kind in ("model", "method"):
        for name in names(kind):
            for key, option in declared(kind, name).get("OPTIONS", {}).items():
                found.setdefault(key, {})[f"{kind} {name}"] = option
    return found


def described(kind: str, name: str) -> str:
    """The module's one-line description."""
    return str(_find(kind, name).literals[KINDS[kind].declaration])


def load(kind: str, name: str) -> ModuleType:
    """The module, imported. Raises UserError for a name that is not known, and for a plug-in that
    cannot be imported or lacks what its kind has."""
    found = _find(kind, name)
    if found.module.startswith("sagebench."):
        return import_module(found.module)
    if found.module in sys.modules:
        return sys.modules[found.module]
    spec = spec_from_file_location(found.module, found.path)
    assert spec is not None and spec.loader is not None  # its name ends with .py
    module = sys.modules[found.module] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[found.module]
        raise UserError(
            f"plug-in {found.path} cannot be imported ({type(error).__name__}: {error}): "
            "fix it, or remove it from plugins"
        ) from error
    for names in KINDS[kind].has:
        if not any(_defines(module, name) for name in names.split("|")):
            del sys.modules[found.module]
            raise _lacks(found.path, kind, names)
    return module


def _defines(module: ModuleType, path: str) -> bool:
    """Whether a module has what a path like "Layer.update" names, and not as an abstract method."""
    found: object = module
    for name in path.split("."):
        found = getattr(found, name, None)
    return found is not None and not getattr(found, "__isabstractmethod__", False)


def _lacks(path: Path, kind: str, names: str) -> UserError:
    return UserError(
        f"plug-in {path} has no {names.replace('|', ' or ')}, which a {kind} needs: define it "
        "(docs/extending.md)"
    )


def _find(kind: str, name: str) -> Inhabitant:
    try:
        return _known(kind, plugins())[present_name(name)]
    except KeyError:
        raise UserError(
            f"{kind} '{name}' is not known: write {one_of(name, names(kind))}"
        ) from None


def one_of(value: object, options: Sequence[str]) -> str:
    """Words to write instead of `value`: "trimmed or blocks or reference", the nearest first."""
    near = difflib.get_close_matches(str(value), options, n=1)
    return " or ".join(sorted(options, key=lambda option: option not in near))


def use(plugins: Iterable[str]) -> None:
    """Have these plug-ins from now on, in this process and those that it starts.

    plugins: files, folders of files, and names of installed entry points of the group `sagebench`.
    """
    os.environ[PLUGINS] = os.pathsep.join(plugins)


def plugins() -> tuple[str, ...]:
    """Plug-ins in use, as `use` was given them."""
    return tuple(filter(None, os.environ.get(PLUGINS, "").split(os.pathsep)))


def plugin_files(plugins: Iterable[str]) -> Iterator[tuple[Path, str | None]]:
    """The files of plug-ins, as `use` names them, each with the name of the entry point that
    installed it. Raises UserError for what is none."""
    for plugin in plugins:
        path = Path(plugin)
        if path.is_dir():
            yield from ((file, None) for file in sorted(path.glob("[!_]*.py")))
        elif path.suffix == ".py":
            yield path, None
        elif installed := _installed(plugin):
            yield installed, plugin
        else:
            raise UserError(
                f"plug-in {plugin} is no file, no folder, and no installed entry point of the "
                "group sagebench: write a path that ends with .py, or install its package (where "
                "jobs run in a container, in the image)"
            )


def _installed(name: str) -> Path | None:
    specs = (find_spec(one.value) for one in entry_points(group="sagebench", name=name))
    return next((Path(spec.origin) for spec in specs if spec and spec.origin), None)


@cache
def _known(kind: str, plugins: tuple[str, ...]) -> dict[str, Inhabitant]:
    package, declaration, _ = KINDS[kind]
    folder = Path(__file__).parent / package.replace(".", "/")
    found = {}
    for path in sorted(folder.glob("*.py")):
        literals, _ = _read(path)
        if declaration in literals:
            module = f"sagebench.{package}.{path.stem}"
            found[path.stem] = Inhabitant(path, module, literals)
    for path, _ in plugin_files(plugins):
        literals, names = _read(path)
        if not literals.keys() & {one.declaration for one in KINDS.values()}:
            raise UserError(
                f"plug-in {path} has no declaration: write one at its top, e.g. "
                'MODEL = "a line about it"'
            )
        if declaration not in literals:
            continue
        if path.stem in found:
            raise UserError(
                f"plug-in {path} has the name of another {kind}, {found[path.stem].path}: "
                "rename the file"
            )
        for needed in KINDS[kind].has:
            if not names & {one.partition(".")[0] for one in needed.split("|")}:
                raise _lacks(path, kind, needed)
        found[path.stem] = Inhabitant(path, f"sagebench_plugins.{kind}.{path.stem}", literals)
    return found


def _read(path: Path) -> tuple[dict[str, object], set[str]]:
    """The upper-case literals at the top of a file, and all names that it defines there. Raises
    UserError for a file that is no Python."""
    found: dict[str, object] = {}
    names: set[str] = set()
    try:
        statements = ast.parse(path.read_text(encoding="utf-8")).body
    except FileNotFoundError:
        raise UserError(
            f"plug-in {path} does not exist, from the study's folder or the current one: write "
            "the path of a file"
        ) from None
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"plug-in {path} cannot be read ({error}): mend it") from None
    for statement in statements:
        match statement:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Import(names=imported) | ast.ImportFrom(names=imported):
                names |= {one.asname or one.name for one in imported}
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=ast.expr() as value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
            ):
                names.add(name)
                with suppress(ValueError):  # computed: no declaration
                    if name.isupper():
                        found[name] = ast.literal_eval(value)
    return found, names
