import html
import json
import re
import runpy
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from outcome_factory import StudyFiles, make_outcome, make_trial, trial_id
from sagebench.analysis.comparison import differences
from sagebench.analysis.figures import declared
from sagebench.units import duration, durations, significant

ROOT = Path(__file__).parents[1]
SCRIPTS = ROOT / "workflow_scripts"
COMMAND = ".venv/bin/snakemake --profile 'profiles/my site' --configfile config/bit.yaml"
AXES = ("batch_size", "fanout", "ranks")
ATTACK = '<script>alert("x")</script>'


def run(study, folder, *arguments):
    """The script in this process: its imports are done, a new one takes seconds for them."""
    script, results = "make_report.py", folder.parent
    arguments += ("--study", study, "--results", results, "--out", folder)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(sys, "argv", [script, *map(str, arguments)])
        runpy.run_path(str(SCRIPTS / script), run_name="__main__")
    assert ended.value.code == 0


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The report of a partial study with a bit of everything, made by the scripts."""
    files = StudyFiles(tmp_path_factory.mktemp("report") / "results", "bit")
    files.experiment("batch", "batch_size", f"Batch {ATTACK}")
    files.experiment("neighbor", "fanout", "Fanout & more")
    files.experiment("scaling", "ranks")
    for seed, time in enumerate([10.0, 10.1, 30.0]):
        files.add("batch", make_outcome(make_trial(seed=seed), epoch_s=time))
    full = make_outcome(make_trial(batch_size=512), "out_of_memory")
    full["reason"] |= {"rank": 1, "message": f"no memory {ATTACK}"}
    files.add("batch", full)
    files.add("neighbor", make_outcome(make_trial(fanout=[5, 5, 5, 5, -1]), accuracy=0.8125))
    files.add(
        "scaling",
        make_outcome(
            make_trial(ranks=2, seed=4), git_commit="d" * 40, git_dirty=True, host="other"
        ),
    )
    files.attempt(
        "scaling",
        make_trial(ranks=2),
        reason={"rank": 1, "phase": "forward", "message": f"boom {ATTACK}"},
    )
    study, folder = files.freeze(command=COMMAND), files.results / "bit"
    run(study, folder, "tables", "figures", "report", "--partial")
    return folder / "report.html"


@pytest.fixture(scope="module")
def text(page):
    return page.read_text()


class Elements(HTMLParser):
    def __init__(self, source):
        super().__init__()
        self.found = []
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def of(self, name):
        return [attributes for tag, attributes in self.found if tag == name]


def test_the_page_loads_nothing_from_anywhere(text):
    elements = Elements(text)
    assert not elements.of("link") + elements.of("iframe") + elements.of("object")
    assert all(
        image["src"].startswith("data:image/svg+xml;base64,") for image in elements.of("img")
    )
    assert all("src" not in script for script in elements.of("script"))
    assert not re.search(r"@import|url\(|fetch\(|https?://", text)


def test_the_page_has_every_section_and_every_figure_with_words_for_it(text):
    elements = Elements(text)
    names = {section["id"] for section in elements.of("section")}
    assert names == {
        "ran",
        "batch_size",
        "fanout",
        "ranks",
        "published",
        "missing",
        "trials",
        "again",
    }
    images = elements.of("img")
    assert len(images) == sum(one.axis is not None for one in declared(AXES))
    assert all(len(image["alt"]) > 40 for image in images)
    targets = {a["href"][1:] for a in elements.of("a") if a["href"].startswith("#")}
    assert targets <= {attributes.get("id") for _, attributes in elements.found}


def test_what_users_write_is_escaped(text):
    assert ATTACK not in text
    assert text.count(html.escape("no memory <script>")) >= 1
    assert "Fanout &amp; more" in text


def test_missing_failed_mixed_and_odd_are_said(text):
    assert re.search(r"1 of 7 trials have no outcome", text)
    assert "attempt 1 failed, rank 1, forward: boom" in text
    assert trial_id(make_trial(ranks=2)) in text
    assert "2 commits: aaaaaaaaaaaa (5 trials), dddddddddddd (1 trial)." in text
    assert "2 sets of hosts" in text
    assert "1 of 6 trials ran with uncommitted changes" in text
    assert "time per epoch, among the repeats" in text
    assert "out of memory" in text
    assert "backward" in text


def test_the_slides_numbers_stand_beside_with_what_differs_and_what_is_unknown(text):
    assert "0.8121" in text
    assert "14.56 h" in text
    assert "data set (pubmed), machine (local), CPU instead of GPUs, engine (blocks)" in text
    assert "Whether a number is one run or the middle of several" in text


def test_links_to_the_tables_are_relative_and_lead_somewhere(page, text):
    addresses = [a["href"] for a in Elements(text).of("a") if not a["href"].startswith("#")]
    assert len(addresses) == 4
    assert all((page.parent / address).exists() for address in addresses)


def test_the_top_five_and_the_values_are_there(text):
    assert "5·5·5·5·all" in text
    assert "0.8125" in text
    assert "10.1 s" in text


def test_every_figure_has_a_caption_for_snakemakes_report(page):
    captions = {path.stem: path.read_text() for path in page.parent.glob("figures/*.rst")}
    assert captions == {one.name: f"**{one.title}.** {one.caption}\n" for one in declared(AXES)}


def section(text, name):
    return html.unescape(re.search(f'<section id="{name}">(.*?)</section>', text, re.S)[1])


def test_to_run_it_again_the_report_tells_the_command_that_was_called(text):
    assert re.findall(r"<pre[^>]*><code>(.*)</code></pre>", section(text, "again")) == [COMMAND]


def test_the_report_says_that_what_is_used_of_a_device_is_no_peak(text):
    name = "<code>peak_device_used_bytes</code>"
    (row,) = [line for line in text.splitlines() if name in line]
    assert "no peak" in row and "all processes" in row and "NVML" not in row


def test_a_report_of_a_study_without_its_command_tells_none(page, tmp_path):
    study = json.loads(next((page.parent / "frozen").iterdir()).read_text())
    del study["command"]  # as one frozen by an older version
    (tmp_path / "study.json").write_text(json.dumps(study))
    shutil.copytree(page.parent, tmp_path / "bit")
    run(tmp_path / "study.json", tmp_path / "bit", "report")
    again = section((tmp_path / "bit" / "report.html").read_text(), "again")
    assert "the command itself was not recorded" in again and "snakemake --" not in again


def test_a_report_without_figures_says_what_to_do(page, tmp_path):
    study = next((page.parent / "frozen").iterdir())
    shutil.copytree(page.parent / "tables", tmp_path / "tables")
    command = [sys.executable, SCRIPTS / "make_report.py", "report", "--study", study]
    command += ["--results", tmp_path, "--out", tmp_path]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 2
    assert "draw the figures first" in ended.stderr


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1234.5, "1,230"),
        (0.012345, "0.0123"),
        (9.999, "10.00"),
        (0.0, "0"),
        (74.71, "74.7"),
        (999.7, "1,000"),
    ],
)
def test_numbers_show_three_significant_digits(value, shown):
    assert significant(value) == shown


def test_durations_read_well():
    assert duration(0.0000565) == "56.5 µs"
    assert duration(0.0401) == "40.1 ms"
    assert duration(12.345) == "12.3 s"
    assert duration(227.4) == "3.79 min"
    assert duration(26000) == "7.22 h"
    assert durations(175.0, 181.0) == "2.92 to 3.02 min"


def dump(chromium, source, tmp_path, *options):
    """The page's DOM after its scripts ran, in a real browser."""
    file = tmp_path / "page.html"
    file.write_text(source)
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--virtual-time-budget=4000",
        f"--user-data-dir={tmp_path / 'profile'}",
        *options,
    ]
    return subprocess.run(
        [chromium, *flags, "--dump-dom", file.as_uri()],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    ).stdout


@pytest.mark.slow  # starts a browser
@pytest.mark.needs("chromium")
def test_tables_sort_by_number_and_back_with_empty_cells_last(chromium, text, tmp_path):
    script = """<script>
      const table = document.querySelector("#trials table");
      const headings = Array.from(table.tHead.rows[0].cells);
      const column = headings.findIndex((h) => h.textContent.startsWith("Time per epoch"));
      const button = headings[column].querySelector("button");
      const read = () => Array.from(table.tBodies[0].rows, (row) => row.cells[column].textContent);
      const seen = [];
      for (let i = 0; i < 2; i++) { button.click(); seen.push(read()); }
      button.focus();
      const input = document.querySelector("input[data-filter]");
      input.value = "memory 512"; input.dispatchEvent(new Event("input"));
      const left = Array.from(table.tBodies[0].rows).filter((row) => !row.hidden).length;
      document.body.innerHTML = "<pre id=seen></pre>";
      document.getElementById("seen").textContent = JSON.stringify([seen, left]);
    </script></body>"""
    dom = dump(chromium, text.replace("</body>", script), tmp_path)
    (up, down), left = json.loads(html.unescape(re.search(r'id="seen">(.*?)</pre>', dom)[1]))
    assert up == ["10.0 s", "10.0 s", "10.0 s", "10.1 s", "30.0 s", "–", "–"]
    assert down == ["30.0 s", "10.1 s", "10.0 s", "10.0 s", "10.0 s", "–", "–"]
    assert left == 1


@pytest.mark.slow  # starts a browser
@pytest.mark.needs("chromium")
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_is_no_wider_than_the_window(chromium, text, tmp_path, width):
    frame = f"""<iframe id=f style="width:{width}px;height:800px;border:0"></iframe><p id=seen></p>
      <script>
        f.onload = () => {{
          const root = f.contentDocument.documentElement;
          seen.textContent = [root.clientWidth, root.scrollWidth].join(" ");
        }};
        f.srcdoc = {json.dumps(text).replace("</", "<" + chr(92) + "/")};
      </script>"""
    dom = dump(chromium, frame, tmp_path)
    client, scroll = map(int, re.search(r'id="seen">(\d+) (\d+)<', dom).groups())
    assert scroll == client
    assert width - 20 <= client <= width


@pytest.mark.parametrize(
    ("column", "ours", "named"),
    [
        ("dataset_name", "ogbn-products-tenth", "data set (ogbn-products-tenth)"),
        ("machine", "meluxina-cpu", "machine (meluxina-cpu)"),
        ("version_torch", "12.1.2", "PyTorch (12.1.2)"),
        ("dataset_name", "ogbn-products", ""),
        ("version_torch", "2.1.2+cu121", ""),
    ],
)
def test_what_differs_from_the_slides_is_what_is_not_theirs(column, ours, named):
    same = {
        "dataset_name": "ogbn-products",
        "machine": "meluxina",
        "device_names": "NVIDIA A100-SXM4-40GB",
        "device": "cuda",
        "engine": "reference",
        "version_torch": "2.1.2",
    }
    rows = pd.DataFrame([{**same, column: ours}])
    assert differences(rows) == (named or "nothing that is recorded; see what is unknown")
