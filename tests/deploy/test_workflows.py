"""The release workflow, which only GitHub can run: valid, careful with rights, and what it names exists."""

from __future__ import annotations

import json
import re
from importlib import resources
from typing import Any, Final

import jsonschema
import pytest
from dockerfile import Dockerfile
from places import PROJECT
from ruamel.yaml import YAML

from immich_triton import __version__

FILE: Final = PROJECT / ".github/workflows/release.yml"
TEXT: Final = FILE.read_text(encoding="utf-8")
WORKFLOW: Final[dict[str, Any]] = YAML(typ="safe").load(TEXT)
STEPS: Final = [step for job in WORKFLOW["jobs"].values() for step in job["steps"]]


def test_it_is_valid_by_the_schema_of_workflows() -> None:
    vendored = resources.files("check_jsonschema") / "builtin_schemas/vendor/github-workflows.json"
    schema = json.loads(vendored.read_text(encoding="utf-8"))
    validator = jsonschema.validators.validator_for(schema)(schema)
    assert [f"{error.json_path}: {error.message}" for error in validator.iter_errors(WORKFLOW)] == []
    broken = {**WORKFLOW, "jobs": {"a": {"steps": []}}}
    assert [*validator.iter_errors(broken)]


def test_it_runs_for_tags_alone_and_says_that_it_was_not_run() -> None:
    assert {*WORKFLOW["on"]} == {"push"}
    assert {*WORKFLOW["on"]["push"]} == {"tags"}
    assert "NOT RUN" in TEXT


def test_jobs_have_the_rights_that_they_need_and_an_end() -> None:
    assert WORKFLOW["permissions"] == {"contents": "read"}
    writes = {name: job["permissions"] for name, job in WORKFLOW["jobs"].items() if "permissions" in job}
    assert {*writes} == {"images"}
    for job in WORKFLOW["jobs"].values():
        assert job["timeout-minutes"]
        assert re.search(r"-\d", job["runs-on"]), "a release of the runner, not the latest"
    for step in STEPS:
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False
        if "uses" in step:
            assert re.search(r"@(v\d+|[0-9a-f]{40})$", step["uses"])


def test_nothing_from_outside_is_put_into_a_shell() -> None:
    for step in STEPS:
        assert "${{" not in step.get("run", "")


def test_what_is_pushed_has_an_sbom_and_its_provenance_and_was_started_before() -> None:
    names = [step.get("uses", step.get("run", "")) for step in STEPS]
    (push,) = [step["with"] for step in STEPS if step.get("with", {}).get("push") is True]
    assert (push["sbom"], push["provenance"]) == (True, "mode=max")
    started = next(index for index, name in enumerate(names) if "docker run" in name)
    assert started < next(index for index, step in enumerate(STEPS) if step.get("with", {}).get("push") is True)
    assert any(name.startswith("actions/attest-build-provenance@") for name in names)


def test_targets_and_files_exist() -> None:
    targets = Dockerfile(PROJECT / "deploy/docker/Dockerfile").stages
    for include in WORKFLOW["jobs"]["images"]["strategy"]["matrix"]["include"]:
        assert include["target"] in targets
    for step in STEPS:
        if file := step.get("with", {}).get("file"):
            assert (PROJECT / file).is_file()
    assert re.search(r"^test:", (PROJECT / "Makefile").read_text(), re.MULTILINE)


def test_the_version_is_found_where_it_looks() -> None:
    (pattern,) = re.findall(r"sed -n 's/(.*)/\\1/p'", TEXT)
    text = (PROJECT / "addons/immich_triton/__init__.py").read_text(encoding="utf-8")
    found = re.search(pattern.replace(r"\(", "(").replace(r"\)", ")"), text, re.MULTILINE)
    assert found
    assert found[1] == __version__


@pytest.mark.parametrize("pinned", ["3.12"])
def test_it_tests_with_the_python_of_the_project(pinned: str) -> None:
    assert f'python-version: "{pinned}"' in TEXT
    assert pinned in (PROJECT / ".python-version").read_text(encoding="utf-8")
