"""The plan's page: what it says, that it loads nothing, and that it fits a browser of any width."""

from __future__ import annotations

import html
import json
import re

import pytest
from configurations import CLUSTER, GOOD, changed, study_of
from outcome_factory import make_outcome
from probed import CHECKSUM, probe
from sagebench.files import write_json
from sagebench.grid.freeze import outcome_path
from sagebench.plan.forecast import Forecaster
from sagebench.plan.limits import hints
from sagebench.plan.page import frontiers, render
from sagebench.plan.rows import computes, plan_rows
from sagebench.plan.tables import as_text
from sagebench.units import GIB, significant
from test_analysis_report import Elements, dump

CARD = {**CLUSTER, "card": "A100-40GB"}


def made(folder, values=GOOD, *, probed=True):
    study = study_of({**values, "results": str(folder)}, CARD)
    if probed:
        probe(study)
    first = next(iter(study.requests))
    outcome = make_outcome(study.requests[first].trial.to_json(), checksum=CHECKSUM, accuracy=0.79)
    write_json(outcome_path(study.results, first), outcome)
    return study


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    wide = {
        "axis": "fanout",
        "title": "<script>alert(1)</script>",
        "fixed": {"engine": "reference", "hidden_channels": 2048},
        "product": {"fanout": [[15, 10, 0, 0, 0], [15, 10, 10, 10, 10]], "batch_size": [64, 4096]},
    }
    values = changed("experiments.wide", wide)
    values["budget_node_hours"] = 0.1
    study = made(tmp_path_factory.mktemp("page"), values)
    forecaster = Forecaster(study)
    return render(study, plan_rows(study, forecaster), forecaster)


def test_the_page_loads_nothing_from_anywhere(text):
    elements = Elements(text)
    assert not elements.of("link") + elements.of("iframe") + elements.of("object")
    assert all(image["src"].startswith("data:image/svg+xml") for image in elements.of("img"))
    assert all("src" not in script for script in elements.of("script"))
    assert not re.search(r"@import|url\(|fetch\(", text)
    assert "<script>alert(1)" not in text


def test_the_page_has_its_sections_and_every_picture_has_words(text):
    elements = Elements(text)
    names = [section["id"] for section in elements.of("section")]
    assert names == ["before", "cost", "memory", "trials", "basis"]
    images = elements.of("img")
    assert len(images) == 2 and all(len(image["alt"]) > 40 for image in images)
    targets = {a["href"][1:] for a in elements.of("a") if a["href"].startswith("#")}
    assert targets <= {attributes.get("id") for _, attributes in elements.found}


def test_figures_of_a_model_are_marked_and_measured_ones_are_not(text):
    rows = re.findall(r"<tr>(.*?)</tr>", text[text.index('id="trials"') :], re.DOTALL)[1:]
    measured = [row for row in rows if ">measured<" in row]
    assert len(measured) == 1 and "~" not in measured[0]
    assert all("~" in row for row in rows if ">a model&#39;s<" in row)
    assert "data sheet of A100-40GB" in text and "not measured on the trial itself" in text


def test_what_a_trial_needs_stands_beside_what_its_allocator_holds(text):
    found = re.findall(r">~([\d.]+) GiB<.*?>~([\d.]+) GiB \([\d.]+ to [\d.]+\)<", text, re.DOTALL)
    assert found and all(float(needs) <= float(reserved) for needs, reserved in found)
    assert any(float(needs) < float(reserved) for needs, reserved in found)


def test_what_stands_against_the_study_is_said_first(text):
    before = text[text.index('id="before"') : text.index('id="cost"')]
    assert "budget_node_hours is 0.1" in before
    assert "will not fit in memory" in before or "whether memory suffices is open" in before
    assert "would end as time_limit" in before


def test_without_a_probe_the_page_says_how_to_refine_it(tmp_path):
    study = made(tmp_path, probed=False)
    forecaster = Forecaster(study)
    text = render(study, plan_rows(study, forecaster), forecaster)
    assert "9 of 9 trials are not probed" in text and "snakemake probe" in text
    assert "1 measured: cost nothing" in text and ">~<" not in text and 'model">~' not in text


def test_what_no_pilot_measures_is_named():
    rows = [{"method": "label_propagation"}, {"model": "sage"}, {"method": "node2vec"}]
    study = study_of(changed("experiments", {"methods": {"axis": "method", "list": rows}}), CARD)
    rows = plan_rows(study, Forecaster(study))
    said = " ".join(hints(study, rows, "make {}".format))
    assert "1 of 3 trials have no measured time" in said
    assert "2 of 3 trials (label_propagation, node2vec) stand with the time asked for" in said


def test_trials_of_other_options_are_told_apart():
    said = [
        {"method": "node2vec"},
        {"method": "node2vec", "beside_features": True},
        {"model": "mlp", "layers": 1},
        {"model": "mlp", "correct_and_smooth": True},
    ]
    study = study_of(changed("experiments", {"methods": {"axis": "method", "list": said}}))
    assert [computes(request.trial) for request in study.requests.values()] == [
        "node2vec",
        "node2vec, beside features",
        "blocks, mlp, one layer",
        "blocks, mlp, correct and smooth",
    ]


def test_the_frontier_estimates_what_is_near_and_says_so(tmp_path):
    study = made(tmp_path, changed("experiments.batch.zip.fanout", [[5] * 5, [5] * 5, [9] * 5]))
    forecaster = Forecaster(study)
    blocks, _ = frontiers(study, plan_rows(study, forecaster), forecaster)
    assert blocks.batch_sizes == [64, 128, 256]
    asked = {pair for pair, cell in blocks.cells.items() if cell.asked}
    assert {("5,5,5,5,5", 64), ("5,5,5,5,5", 128), ("9,9,9,9,9", 256)} <= asked
    assert blocks.cells["5,5,5,5,5", 64].ended
    estimate = blocks.cells["9,9,9,9,9", 128]
    assert not estimate.asked and ("9,9,9,9,9", 64) not in blocks.cells
    assert estimate.memory_bytes < blocks.cells["9,9,9,9,9", 256].memory_bytes


def test_of_trials_that_share_a_cell_the_one_that_does_not_fit_is_shown(tmp_path):
    values = changed("experiments.capped", {"axis": "batch_size", "fixed": {"dropout": 0.2}})
    sizes = {"batch_size": [64, 128, 256], "accumulation": [4, 2, 1]}
    values["experiments"]["capped"] |= {"zip": sizes, "fixed": {"memory_limit_gib": 0.01}}
    study = study_of({**values, "results": str(tmp_path)}, CARD)
    probe(study)
    forecaster = Forecaster(study)
    blocks, _ = frontiers(study, plan_rows(study, forecaster), forecaster)
    assert {cell.fits for cell in blocks.cells.values() if cell.asked} == {"will not fit"}


def test_the_frontier_and_the_terminal_tell_what_a_trial_needs(tmp_path):
    """Not what an allocator would keep of a card that has more."""
    large = changed("experiments.batch.zip.batch_size", [512, 512, 512])
    study = study_of({**large, "results": str(tmp_path)}, CARD)
    probe(study)
    forecaster = Forecaster(study)
    rows = plan_rows(study, forecaster)
    kept = [r for r in rows if r.needed_memory_bytes < 0.98 * r.peak_memory_bytes]
    assert kept
    cells = {one.engine: one.cells for one in frontiers(study, rows, forecaster)}
    for row in kept:
        assert f"~{significant(row.needed_memory_bytes / GIB)} GiB" in as_text(study, [row])
        if row.experiment == "batch":
            cell = cells[row.engine][row.fanout, row.batch_size]
            assert cell.memory_bytes == row.needed_memory_bytes


@pytest.mark.slow  # starts a browser
@pytest.mark.needs("chromium")
def test_no_width_makes_the_page_scroll_sideways_and_its_table_filters(chromium, text, tmp_path):
    script = """<script>
      const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
      const input = document.querySelector("input[data-filter]");
      input.value = "measured"; input.dispatchEvent(new Event("input"));
      const rows = Array.from(document.querySelector("#trials table").tBodies[0].rows);
      const left = rows.filter((row) => !row.hidden).length;
      document.body.innerHTML = "<pre id=seen></pre>";
      document.getElementById("seen").textContent = JSON.stringify([wide, left]);
    </script></body>"""
    dom = dump(chromium, text.replace("</body>", script), tmp_path, "--window-size=390,900")
    wide, left = json.loads(html.unescape(re.search(r'id="seen">(.*?)</pre>', dom)[1]))
    assert wide <= 0 and left == 1
