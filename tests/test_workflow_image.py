"""The container image in the flow, as on a cluster but run here, with a stand-in for Apptainer."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from workflow_project import ROOT, Project

STAND_IN = """#!/bin/sh
while [ $# -gt 2 ]; do shift; done
echo "image of $2" > "$1"
cat "$(dirname "$0")/fails" 2>/dev/null && exit 1 || exit 0
"""


class Clustered(Project):
    """A cluster's site, whose jobs Snakemake runs here."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.image = folder / "images" / "some image.sif"
        self.definition = folder / "container" / "testbed.def"
        apptainer = folder / "apptainer"
        apptainer.write_text(STAND_IN)
        apptainer.chmod(0o755)
        self.place(image="images/some image.sif", image_definition=str(self.definition))

    def place(self, **values: str | None) -> None:
        site = yaml.safe_load((ROOT / "profiles/testbed/site.yaml").read_text())
        site |= {"apptainer": str(self.folder / "apptainer"), "modules": [], **values}
        (self.folder / "clustered.yaml").write_text(yaml.safe_dump(site))

    def run(self, target: str, fails: bool = False) -> str:
        done = self.snakemake(target, "--config", "site=clustered.yaml")
        assert bool(done.returncode) is fails, done.stdout
        return done.stdout

    def built(self) -> bool:
        """Whether the image was built since the last look."""
        before, self.seen = getattr(self, "seen", None), self.image.stat().st_mtime_ns
        return before != self.seen


@pytest.fixture
def project(tmp_path) -> Clustered:
    return Clustered(tmp_path / "a checkout")


def test_a_run_without_its_image_stops_before_its_first_job(project):
    said = project.run("trials", fails=True)
    assert "error: the image images/some image.sif is missing: build it with `make image" in said
    assert project.ran("build_graph") == [] and not project.image.exists()
    project.run("image")
    project.run("trials")
    assert project.built() and len(project.ran("run_trial")) == 3


def test_another_definition_stops_what_is_still_to_run_and_reruns_no_trial(project):
    project.run("image")
    project.run("trials")
    assert len(project.ran("run_trial")) == 3

    with project.definition.open("a") as definition:
        definition.write("# another version\n")
    assert "Nothing to be done" in project.run("trials")
    project.outcomes()[0].unlink()
    assert "was not built from what" in project.run("trials", fails=True)
    project.run("image")
    project.run("trials")
    assert len(project.ran("run_trial")) == 1

    # One that is brought is taken as it is.
    project.definition.write_text("From: another base\n")
    project.place(image="images/some image.sif", image_definition=None)
    project.outcomes()[0].unlink()
    project.run("trials")
    assert len(project.ran("run_trial")) == 1


def test_a_dry_run_tells_that_the_image_is_missing_and_goes_on(project):
    done = project.snakemake("trials", "-n", "--config", "site=clustered.yaml")
    assert done.returncode == 0
    assert "A run would be refused: the image images/some image.sif is missing" in done.stdout
    assert "This was a dry-run" in done.stdout and not project.image.exists()


def test_the_image_is_built_in_a_job_that_reads_what_its_run_decided(project):
    project.run("plan")
    (frozen,) = (project.folder / "results/small/frozen").glob("*.json")
    job = ["--mode", "remote", "--target-jobs", "image:", "--cores", "1", "--force", "--nolock"]
    run = {"SAGEBENCH_FROZEN_STUDY": str(frozen)}
    done = project.snakemake(*job, "--no-hooks", "--ignore-incomplete", "--notemp", **run)
    assert done.returncode == 0, done.stdout
    assert project.built()


def test_a_failed_build_leaves_the_old_image(project):
    project.run("image")
    assert project.built()
    (project.folder / "fails").write_text("FATAL: no space left")
    project.definition.write_text("From: another base\n")
    assert "FATAL: no space left" in project.run("image", fails=True)
    assert not project.built()
