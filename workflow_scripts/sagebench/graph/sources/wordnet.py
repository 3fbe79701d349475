"""WordNet: synsets, joined by their pointers; a class is a lexicographer file.

Read from the database files data.noun, data.verb, data.adj and data.adv; a line (wndb(5WN)) is

    offset file type words {word id} ... pointers {symbol offset type words} ... | gloss

where `words` (hexadecimal) and `pointers` count what follows, and `file` is the lexicographer file.
A line that begins with a blank is of the licence. Type s (satellite) is a (adjective) in pointers.
Two synsets that share a word have no edge for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sagebench.errors import UserError
from sagebench.graph.download import checked_sha256
from sagebench.graph.texts import RAW, once_each, random_split, text_features

SOURCE = "WordNet's synsets and pointers, from its database files"
GROUPED = False
OPTIONS = {
    "release": {"type": "choice", "choices": ["3.0", "3.1"], "help": "of WordNet"},
    "path": {
        "type": "path",
        "default": None,
        "help": "folder of the files data.noun, data.verb, ...; null: that of `make data`",
    },
}
FILES = ("data.noun", "data.verb", "data.adj", "data.adv")
NUM_CLASSES = 45  # lexicographer files, lexnames(5WN)


def load(spec: Mapping[str, Any], downloads: Path) -> dict[str, Any]:
    folder = Path(spec["path"] or RAW / f"wordnet-{spec['release']}")
    ids: dict[tuple[str, str], int] = {}
    pointers: list[tuple[int, tuple[str, str], str]] = []
    labels, glosses = [], []
    for path in (folder / name for name in FILES):
        for number, line in enumerate(_text(path).removesuffix("\n").split("\n"), 1):
            at = f"{path}, line {number},"
            if line.startswith(" "):
                _check_release(line, at, spec["release"])
                continue
            key, label, targets, gloss = _synset(line, at)
            pointers += ((len(ids), target, at) for target in targets)
            ids[key] = len(ids)
            labels.append(label)
            glosses.append(gloss)
    for _, target, at in pointers:
        if target not in ids:
            raise UserError(
                f"{at} points to synset {' '.join(target)}, which is not in {folder}: give the "
                "files of one release, as they came"
            )
    edges = [(source, ids[target]) for source, target, _ in pointers]
    return {
        "edge_index": once_each(edges),
        "undirected": True,
        "features": text_features(glosses),
        "labels": np.array(labels),
        "num_classes": NUM_CLASSES,
        "splits": random_split(np.arange(len(ids))),
        "provenance": {
            "folder": str(folder.resolve()),
            "sha256": {name: checked_sha256(folder / name) for name in FILES},
        },
    }


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}): run `make data`, or give as path the "
            "folder of WordNet's database files"
        ) from None


def _synset(line: str, at: str) -> tuple[tuple[str, str], int, list[tuple[str, str]], str]:
    """A line's (type, offset), lexicographer file, (type, offset) of its pointers, and gloss."""
    data, bar, gloss = line.partition(" | ")
    try:
        offset, label, kind, words, *rest = data.split()
        at_count = 2 * int(words, 16)
        fours = rest[at_count + 1 :][: 4 * int(rest[at_count])]
        targets = [_key(*pair) for pair in zip(fours[2::4], fours[1::4], strict=True)]
        whole = bar and len(fours) == 4 * int(rest[at_count])
        if not whole or int(label) not in range(NUM_CLASSES):
            raise ValueError
    except (ValueError, IndexError):
        raise UserError(
            f"{at} is no synset: give WordNet's own database files, as they came"
        ) from None
    return _key(kind, offset), int(label), targets, gloss


def _key(kind: str, offset: str) -> tuple[str, str]:
    return "a" if kind == "s" else kind, offset


def _check_release(line: str, at: str, release: str) -> None:
    found = re.search(r"WordNet (\S+) Copyright", line)
    if found and found[1] != release:
        raise UserError(f"{at} is of WordNet {found[1]}, not {release}: correct release, or path")
