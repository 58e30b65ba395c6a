from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.infra.docker.dockerfile import ROOT, SHIPPED

pytestmark = pytest.mark.once

COMPOSE = ROOT / "infra" / "compose.yaml"
TEXT = COMPOSE.read_text(encoding="utf-8")
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(TEXT)["services"]
OURS = {name: service for name, service in SERVICES.items() if "huisheng-" in service["image"]}
BLOG = ("web", "worker", "labeller", "beat", "migrate")


def test_compose_accepts_the_file() -> None:
    command = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.compose-spec",
        str(COMPOSE),
    ]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert checked.returncode == 0, checked.stdout


def test_the_whole_system_is_there() -> None:
    assert set(SERVICES) == {"gateway", "inference", "mysql", "redis", *BLOG}


def image_name(service: dict[str, Any]) -> str:
    """Without the registry before it and the tag after it."""
    found = re.fullmatch(r"\$\{REGISTRY_PREFIX:-\}huisheng-([a-z-]+):\$\{TAG(:\?[^}]*)?\}", service["image"])
    assert found, service["image"]
    return found[1]


def test_our_services_run_the_images_that_are_built_here() -> None:
    images = {name: image_name(service) for name, service in OURS.items()}
    assert set(images.values()) <= set(SHIPPED)
    assert images == {
        "gateway": "gateway",
        "web": "web",
        "worker": "local-worker",  # trainings are its own processes
        "labeller": "web",
        "beat": "web",
        "migrate": "web",
        "inference": "inference",
    }


@pytest.mark.parametrize("name", OURS)
def test_our_services_can_change_nothing_but_their_volumes(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["tmpfs"] == ["/tmp"]
    assert service["user"] == "10001:10001"
    assert service["cap_drop"] == ["ALL"]


@pytest.mark.parametrize("name", sorted(set(SERVICES) - {"migrate"}))
def test_what_goes_on_running_says_whether_it_works(name: str) -> None:
    assert {"test", "interval", "timeout", "retries", "start_period"} <= set(SERVICES[name]["healthcheck"])


def test_a_service_waits_for_what_it_needs_in_a_state_that_it_reaches() -> None:
    for name, service in SERVICES.items():
        for needed, wait in service.get("depends_on", {}).items():
            condition = wait["condition"]
            if condition == "service_healthy":
                assert "healthcheck" in SERVICES[needed], (name, needed)
            else:
                assert (condition, needed) == ("service_completed_successfully", "migrate"), name
    for name in set(BLOG) - {"migrate"}:
        assert {"migrate", "mysql", "redis"} <= set(SERVICES[name]["depends_on"])


def test_every_secret_comes_from_the_file_that_a_command_makes() -> None:
    made = set(re.findall(r"\b([A-Z_]+)=\$\(random_hex", (ROOT / "infra/docker/compose_env.sh").read_text()))
    made |= set(
        re.search(r"for name in ([A-Z_ ]+);", (ROOT / "infra/docker/compose_env.sh").read_text())[1].split()
    )
    required = dict(re.findall(r"\$\{([A-Z_]+):\?([^}]*)\}", TEXT))
    assert made == set(required) - {"TAG"}
    for name in made:
        assert "make compose-env" in required[name]
    assert "compose-env:" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_no_secret_stands_in_the_file() -> None:
    for name, service in SERVICES.items():
        for variable, value in service.get("environment", {}).items():
            if re.search(r"(SECRET|PASSWORD|TOKEN|KEY|AUTH)", variable):
                assert re.fullmatch(r"\$\{[A-Z_]+(:[-?][^}]*)?\}", value), (name, variable)
            assert not re.search(r"://[^/@:]*:(?!\$\{)[^@]+@", str(value)), (name, variable)


def test_the_blog_is_told_only_what_its_settings_read() -> None:
    settings = (ROOT / "blog_site" / "settings.py").read_text(encoding="utf-8")
    elsewhere = {"READY_FILE", "WORKER_QUEUES", "WORKER_CONCURRENCY"}
    started = (ROOT / "infra/docker/web.sh").read_text() + (ROOT / "blog_site/celery.py").read_text()
    for name in BLOG:
        for variable in SERVICES[name]["environment"]:
            if variable in elsewhere:
                assert variable in started
            else:
                assert re.search(rf'env\.\w+\(\s*"{variable}"', settings), variable


def test_services_look_for_each_other_where_they_listen() -> None:
    environment = SERVICES["web"]["environment"]
    assert environment["INFERENCE_URL"] == "http://inference:8100"
    assert "@mysql:3306/" in environment["DATABASE_URL"]
    assert "@redis:6379/" in environment["CELERY_BROKER_URL"]
    dockerfile = (ROOT / "infra/docker/Dockerfile").read_text(encoding="utf-8")
    assert {"8000", "8080", "8100"} == set(re.findall(r"^EXPOSE (\d+)$", dockerfile, re.MULTILINE))
    assert SERVICES["gateway"]["ports"] == ["${HTTP_ADDRESS:-127.0.0.1}:${HTTP_PORT:-8080}:8080"]
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["gateway"]


def test_the_service_that_predicts_reads_the_store_that_the_worker_writes() -> None:
    assert SERVICES["inference"]["volumes"] == ["store:/srv/store:ro"]
    assert SERVICES["inference"]["environment"]["ARTIFACT_STORE_URL"] == "file:///srv/store"
    assert "store:/srv/store" in SERVICES["worker"]["volumes"]
    assert SERVICES["worker"]["environment"]["ARTIFACT_STORE_URL"] == "file:///srv/store"


def test_each_kind_of_task_has_a_worker() -> None:
    taken = {SERVICES[name]["environment"]["WORKER_QUEUES"] for name in ("worker", "labeller")}
    assert taken == {"celery", "labels"}


def test_images_of_others_are_pinned_to_a_version() -> None:
    for name in set(SERVICES) - set(OURS):
        assert re.fullmatch(r"[a-z]+:\d+\.\d+[\w.-]*", SERVICES[name]["image"]), name


def test_the_file_of_secrets_is_kept_out_of_the_repository() -> None:
    file = Path("infra/.env")
    ignored = subprocess.run(["git", "check-ignore", "-q", str(file)], cwd=ROOT, timeout=30, check=False)
    assert ignored.returncode == 0
