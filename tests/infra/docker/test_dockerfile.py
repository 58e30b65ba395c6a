from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.infra.docker.dockerfile import DOCKERFILE, ROOT, SHIPPED, lineage, read_stages

ARGUMENTS, STAGES = read_stages()
OURS = set(STAGES)


def config_of(image: str, word: str) -> str:
    """The last of an instruction that can be given once, wherever in the lineage it stands."""
    return next(stage.all_of(word)[-1] for stage in lineage(STAGES, image) if stage.all_of(word))


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert hadolint, "hadolint is in requirements/test.txt"
    run = subprocess.run(
        [hadolint, "--no-color", str(DOCKERFILE)], capture_output=True, text=True, timeout=60
    )
    assert (run.returncode, run.stdout) == (0, "")


def test_every_stage_is_built_on_a_stage_or_on_a_base_that_can_be_swapped() -> None:
    named_bases = {f"${{{argument}}}" for argument in ARGUMENTS}
    for stage in STAGES.values():
        assert stage.base in OURS | named_bases | {"scratch"}, stage.name


def test_the_bases_are_debian_bookworm_pinned_to_a_version() -> None:
    assert set(ARGUMENTS) == {"PYTHON_BASE", "DEBIAN_BASE"}
    assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm", ARGUMENTS["PYTHON_BASE"])
    assert re.fullmatch(r"debian:bookworm-\d{8}-slim", ARGUMENTS["DEBIAN_BASE"])


@pytest.mark.parametrize("image", SHIPPED)
def test_an_image_runs_as_a_number_that_is_not_root(image: str) -> None:
    assert config_of(image, "USER") == "10001:10001"


@pytest.mark.parametrize("image", SHIPPED)
def test_what_an_image_starts_gets_the_signals_itself(image: str) -> None:
    entry = json.loads(config_of(image, "ENTRYPOINT"))  # a shell form is no JSON
    assert entry[0] in ("/usr/bin/tini", "huisheng")
    for stage in lineage(STAGES, image):
        for command in stage.all_of("CMD"):
            assert isinstance(json.loads(command), list)


@pytest.mark.parametrize("image", SHIPPED)
def test_an_image_says_what_it_is_and_what_it_was_made_of(image: str) -> None:
    labels = " ".join(label for stage in lineage(STAGES, image) for label in stage.all_of("LABEL"))
    for name in ("title", "description", "version", "revision", "source", "created"):
        assert f"org.opencontainers.image.{name}=" in labels
    assert f'title="huisheng-{image}"' in labels


def test_nothing_is_fetched_behind_the_package_managers() -> None:
    for stage in STAGES.values():
        assert stage.all_of("ADD") == [], stage.name
        for command in stage.all_of("RUN"):
            assert not re.search(r"\b(curl|wget|git clone)\b|https?://", command), stage.name


def test_packages_are_installed_at_locked_versions_by_the_builders_own_pip_configuration() -> None:
    installs = [run for stage in STAGES.values() for run in stage.all_of("RUN") if "pip install" in run]
    assert len(installs) == 7
    for run in installs:
        assert "-c requirements/lock.txt" in run
        assert "--mount=type=secret,id=pip-conf" in run
        assert "index-url" not in run


def test_islands_are_built_from_the_lock_file_by_the_builders_own_npm_configuration() -> None:
    (install,) = [run for run in STAGES["islands"].all_of("RUN") if "npm-cli.js" in run]
    assert " ci --ignore-scripts" in install
    assert "--mount=type=secret,id=npm-conf" in install
    assert "resolved" not in (ROOT / "package-lock.json").read_text(encoding="utf-8"), "it names a registry"


def test_of_node_nothing_but_what_it_built_goes_on() -> None:
    taken = [
        copy
        for stage in STAGES.values()
        for copy in stage.all_of("COPY")
        if copy.startswith("--from=islands")
    ]
    assert taken == ["--from=islands /build/static/built static/built"]
    assert [name for name, stage in STAGES.items() if stage.base == "islands"] == []


@pytest.mark.parametrize("image", SHIPPED)
def test_an_image_is_only_copied_together(image: str) -> None:
    """Compilers, headers, caches, mounted places are in stages that nothing shipped is built on."""
    stages = lineage(STAGES, image)
    assert stages[-1].base == "scratch"
    for stage in stages:
        assert stage.all_of("RUN") == [], stage.name


def test_a_stage_that_installs_from_debian_takes_no_recommendations_and_keeps_no_lists() -> None:
    installs = [run for stage in STAGES.values() for run in stage.all_of("RUN") if "apt-get install" in run]
    assert len(installs) == 5
    for run in installs:
        assert "--no-install-recommends" in run
        assert "rm -rf /var/lib/apt/lists/*" in run


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage.endswith("-venv")])
def test_an_environment_is_shipped_sealed(stage: str) -> None:
    (run,) = STAGES[stage].all_of("RUN")
    assert run.startswith("infra/docker/seal_venv.sh /opt/venv")


def test_only_what_trains_has_torch() -> None:
    with_torch = {
        name for name in STAGES for stage in lineage(STAGES, name) if "torch" in str(stage.all_of("RUN"))
    }
    assert with_torch == {"trainer-packages", "trainer-venv", "local-worker-packages", "local-worker-venv"}
    for image, venv in {"web": "web-venv", "inference": "inference-venv", "trainer": "trainer-venv"}.items():
        copied = [
            copy for stage in lineage(STAGES, image) for copy in stage.all_of("COPY") if "/opt/venv" in copy
        ]
        assert copied == [f"--from={venv} /opt/venv /opt/venv"]


def test_no_secret_has_a_place_in_an_image() -> None:
    for stage in STAGES.values():
        for given in stage.all_of("ENV") + stage.all_of("ARG"):
            assert not re.search(r"(SECRET|PASSWORD|TOKEN|KEY)\w*=", given), stage.name


def sources() -> set[str]:
    copies = [
        copy for stage in STAGES.values() for copy in stage.all_of("COPY") if not copy.startswith("--from")
    ]
    return {source for copy in copies for source in copy.split()[:-1]}


def test_all_that_is_copied_is_there_and_sent_to_the_builder() -> None:
    allowed = [
        line[1:]
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    ]
    for source in sources():
        assert (ROOT / source).exists(), source
        parts = Path(source)
        assert any(
            parts == Path(rule) or Path(rule) in parts.parents or parts.match(rule) for rule in allowed
        ), source


def test_nothing_is_sent_to_the_builder_that_is_not_named() -> None:
    """Secrets in infra/.env or an overlay, the database under var/, the history: none may reach a layer or a cache."""
    rules = [line for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line]
    assert rules[1] == "*"
    named = {Path(rule[1:]).parts[0] for rule in rules if rule.startswith("!")}
    assert named == {Path(source).parts[0] for source in sources()}
    assert not {
        rule for rule in rules if rule.startswith(("!infra/k8s", "!infra/.env", "!infra/*", "!var", "!.git"))
    }
