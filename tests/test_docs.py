"""The pages: their links and paths exist, every page is linked, and they agree with the code."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from export_docs import reference
from sagebench import __version__

ROOT = Path(__file__).parents[1]
TRACKED = subprocess.run(
    ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
).stdout.split("\0")[:-1]
FILES = [name for name in TRACKED if (ROOT / name).is_file()]
PAGES = [name for name in FILES if name.endswith(".md")]
TEXTS = (".md", ".py", ".smk", ".yaml", ".in", ".def", ".sh", "Makefile", "Snakefile", ".toml")


def links(page: str) -> list[tuple[str, str]]:
    """The page's own links: path from the root ("" where it leaves them) and heading."""
    found = []
    for target in re.findall(r"\]\(([^)\s]+)\)", (ROOT / page).read_text()):
        if not re.match(r"https?://", target):
            path, _, heading = target.partition("#")
            path = os.path.normpath(Path(page).parent / path) if path else page
            found.append((path, heading))
    return found


def headings(page: str) -> set[str]:
    """As GitHub names them in links."""
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(), flags=re.DOTALL)
    lines = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page):
    for path, heading in links(page):
        assert (ROOT / path).exists(), path
        assert not heading or heading in headings(path), f"{path}#{heading}"


def test_the_readme_links_every_page_of_docs():
    linked = {path for path, _ in links("README.md")}
    assert {page for page in PAGES if page.startswith("docs/")} <= linked


def test_every_page_can_be_reached_from_the_readme():
    reached, ahead = set(), ["README.md"]
    while ahead:
        page = ahead.pop()
        reached.add(page)
        ahead += {path for path, _ in links(page) if path in PAGES} - reached
    assert reached == set(PAGES)


def test_pages_that_code_and_pages_name_are_there():
    lost = set()
    for name in FILES:
        if name.endswith(TEXTS) and not name.startswith("tests/"):
            for path in re.findall(
                r"(?<![\w/.>(-])((?:[\w.-]+/)*\w+\.md)\b", (ROOT / name).read_text()
            ):
                places = ROOT / path, (ROOT / name).parent / path
                if not any(place.exists() for place in places):
                    lost.add((name, path))
    assert not lost


def test_the_readme_stays_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 110


def test_names_and_columns_are_in_step():
    page = (ROOT / "docs" / "reference.md").read_text()
    assert page == reference(), "run python workflow_scripts/export_docs.py"


def test_the_citation_is_of_this_version():
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == __version__


def test_the_hooks_run_what_make_lint_runs():
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    linted = {re.sub(r"( \.| Snakefile rules)$", "", line.split("$(RUN)/")[1]) for line in
              recipe.splitlines()}  # fmt: skip
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert {hook["entry"].removeprefix(".venv/bin/") for hook in hooks} == linted


def test_the_design_names_scripts_that_exist():
    named = set(re.findall(r"`([a-z_]+\.py)", (ROOT / "docs/design.md").read_text()))
    assert len(named) > 5
    assert named <= {Path(name).name for name in FILES}
