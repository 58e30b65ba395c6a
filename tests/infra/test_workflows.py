from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.y*ml"))
RELEASE = ROOT / ".github" / "workflows" / "release.yaml"


def read(path: Path) -> dict[Any, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in read(path)["jobs"].values() for step in job["steps"]]


def commands(path: Path) -> str:
    return "\n".join(step["run"] for step in steps(path) if "run" in step)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_github_accepts_a_workflow(path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.github-workflows",
        str(path),
    ]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_to_a_commit_and_say_which_release_that_is(path: Path) -> None:
    used = re.findall(r"uses: *(.+)", path.read_text(encoding="utf-8"))
    assert used
    for action in used:
        assert re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_job_may_do_what_it_says_and_nothing_else(path: Path) -> None:
    workflow = read(path)
    assert workflow["permissions"] == {}
    for name, job in workflow["jobs"].items():
        assert job["permissions"] == {"contents": "read"}, name
        assert job["timeout-minutes"] <= 120, name
    for step in steps(path):
        if "checkout" in step.get("uses", ""):
            assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_what_a_workflow_calls_is_in_the_repository(path: Path) -> None:
    rules = re.findall(r"^([a-z][a-z -]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    targets = {target for rule in rules for target in rule.split()}
    called = re.findall(r"^\s*make ([a-z-]+)", commands(path), re.MULTILINE)
    assert called
    assert set(called) <= targets
    for script in re.findall(r"(?:^|\s)((?:infra|\.ci)/[\w./-]+)", commands(path)):
        assert (ROOT / script).exists(), script


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_no_expression_is_pasted_into_a_shell(path: Path) -> None:
    """A branch may be named like a command: values come through the environment."""
    assert "${{" not in commands(path)


def test_what_was_not_tested_is_not_built_and_what_was_not_pushed_is_not_deployed() -> None:
    jobs = read(RELEASE)["jobs"]
    assert ".ci/run" in [step.get("run") for step in jobs["test"]["steps"]]
    assert jobs["images"]["needs"] == "test"
    assert jobs["deploy"]["needs"] == "images"
    assert jobs["deploy"]["if"] == "needs.images.outputs.pushed == 'true'"
    assert jobs["deploy"]["environment"] == "production"
    push = next(step for step in jobs["images"]["steps"] if step.get("id") == "push")
    assert "refs/heads/main" in push["if"]
    assert "pull_request" in push["if"]


def test_images_are_deployed_by_the_digests_that_were_pushed() -> None:
    said = commands(RELEASE)
    assert "make images PUSH=1 DIGESTS=digests.txt" in said
    assert "make deploy DIGESTS=digests.txt" in said


def test_the_deployment_credentials_are_seen_by_the_step_that_deploys_alone() -> None:
    text = RELEASE.read_text(encoding="utf-8")
    assert set(re.findall(r"secrets\.(\w+)", text)) == {"REGISTRY_PASSWORD", "KUBECONFIG"}
    holders = [step["name"] for step in steps(RELEASE) if "secrets." in str(step.get("env", ""))]
    assert holders == ["Push by digest", "Deploy"]
