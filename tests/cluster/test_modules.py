"""A site's modules, as Lmod loads them on the node: Apptainer is not there without them."""

from __future__ import annotations

from pathlib import Path

import pytest
from project import Project
from testbed import STATE

MODULE = "Apptainer/1.4"


@pytest.fixture
def environment(tmp_path) -> dict[str, str]:
    """A folder of modulefiles with one that puts Apptainer on the PATH."""
    modulefile = tmp_path / "modules" / f"{MODULE}.lua"
    modulefile.parent.mkdir(parents=True)
    modulefile.write_text(f'prepend_path("PATH", "{Path(STATE) / "bin"}")\n')
    return {"MODULEPATH": str(tmp_path / "modules")}


def test_apptainer_from_a_module(project: Project, environment):
    project.change_site(apptainer="apptainer", modules=["Apptainer/9.9"])
    wrong = project.finish("trials", "--retries", "0", environment=environment)
    assert wrong.returncode == 1
    errors = [line for line in project.log().splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    for part in ("`module load Apptainer/9.9` failed on", '"Apptainer/9.9"', "site.yaml"):
        assert part in errors[0]
    assert "Traceback" not in project.log()

    project.change_site(modules=[MODULE])
    project.run("trials", environment=environment)
    (outcome,) = project.outcomes().values()
    assert outcome["status"] == "completed"
    assert outcome["provenance"]["image_digest"]
