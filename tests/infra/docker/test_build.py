"""The images themselves, built and run. Where no builder works, or it lacks the bases, each test says so by name.

IMAGE_TEST_PYTHON_BASE and IMAGE_TEST_DEBIAN_BASE name other bases than the Dockerfile's; a base is never pulled.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.infra.docker.dockerfile import ROOT, read_stages

pytestmark = [pytest.mark.images, pytest.mark.timeout(3600)]

TAG = "test"
BUILDERS = ("docker", "podman", "buildah")


def succeeds(*command: str) -> bool:
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0


def has_image(builder: str, image: str) -> bool:
    kind = ["inspect", "--type", "image"] if builder == "buildah" else ["image", "inspect"]
    return succeeds(builder, *kind, image)


@pytest.fixture(scope="session")
def bases() -> dict[str, str]:
    arguments, _stages = read_stages()
    return {name: os.environ.get(f"IMAGE_TEST_{name}", default) for name, default in arguments.items()}


@pytest.fixture(scope="session")
def builder(bases: dict[str, str]) -> str:
    """The builder that `make images` would take, if it has the bases."""
    working = [name for name in BUILDERS if succeeds(name, "info")]
    if not working:
        pytest.skip(f"no working builder among {', '.join(BUILDERS)}")
    for base in bases.values():
        if not has_image(working[0], base):
            pytest.skip(f"{working[0]} has no image {base}, on which ours are built; this test pulls none")
    return working[0]


@pytest.fixture(scope="session")
def built(builder: str, bases: dict[str, str]) -> Iterator[str]:
    """The builder, with the four images at the tag `test`; they go when the tests are done."""
    environment = os.environ | bases | {"TAG": TAG, "BUILDER": builder}
    for name in ("REGISTRY", "PUSH", "IMAGES"):
        environment.pop(name, None)
    made = subprocess.run(
        ["infra/docker/build.sh"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=3000
    )
    assert made.returncode == 0, made.stdout[-4000:] + made.stderr[-4000:]
    yield builder
    for image in ("web", "gateway", "inference", "trainer"):
        remove = ["rmi"] if builder == "buildah" else ["image", "rm"]
        subprocess.run([builder, *remove, name_of(image)], capture_output=True, timeout=120, check=False)


def name_of(image: str) -> str:
    return f"huisheng-{image}:{TAG}"


def config_of(builder: str, image: str) -> dict[str, Any]:
    if builder == "buildah":
        said = subprocess.check_output([builder, "inspect", "--type", "image", name_of(image)], timeout=60)
        return json.loads(said)["OCIv1"]["config"]
    said = subprocess.check_output([builder, "image", "inspect", name_of(image)], timeout=60)
    return json.loads(said)[0]["Config"]


def run(builder: str, image: str, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a container of the image, as its user, without its entry point."""
    variables = [part for name, value in environment.items() for part in ("--env", f"{name}={value}")]
    if builder != "buildah":
        flags = ["--rm", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--network", "none"]
        return subprocess.run(
            [builder, "run", *flags, *variables, "--entrypoint", command[0], name_of(image), *command[1:]],
            capture_output=True,
            text=True,
            timeout=300,
        )
    made = subprocess.check_output([builder, "from", "--pull-never", name_of(image)], text=True, timeout=120)
    container = made.strip()
    try:
        isolation = os.environ.get("BUILDAH_ISOLATION", "chroot")
        return subprocess.run(
            [builder, "run", "--isolation", isolation, *variables, container, "--", *command],
            capture_output=True,
            text=True,
            timeout=300,
        )
    finally:
        subprocess.run([builder, "rm", container], capture_output=True, timeout=120, check=False)


def test_the_images_are_no_larger_than_they_may_be(built: str) -> None:
    environment = os.environ | {"TAG": TAG, "BUILDER": built}
    sizes = subprocess.run(
        ["infra/docker/build.sh", "sizes"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert sizes.returncode == 0, sizes.stdout


@pytest.mark.parametrize("image", ["web", "gateway", "inference", "trainer"])
def test_an_image_runs_without_rights_and_without_tools(built: str, image: str) -> None:
    assert config_of(built, image)["User"] == "10001:10001"
    found = run(
        built,
        image,
        "sh",
        "-c",
        "id -u; id -g; command -v gcc cc pip; ls -A /var/lib/apt/lists /usr/share/doc",
    )
    assert found.stdout.split() == ["10001", "10001", "/var/lib/apt/lists:", "/usr/share/doc:"]


def test_what_serves_has_no_torch_and_what_trains_has(built: str) -> None:
    find = "import importlib.util as u; print([m for m in ('torch', 'django', 'pip') if u.find_spec(m)])"
    assert run(built, "web", "python", "-c", find).stdout == "['django']\n"
    assert run(built, "inference", "python", "-c", find).stdout == "[]\n"
    assert run(built, "trainer", "python", "-c", find).stdout == "['torch']\n"


def test_the_blog_in_its_image_is_safe_complete_and_speaks_to_mysql(built: str) -> None:
    checked = run(
        built,
        "web",
        "huisheng",
        "manage",
        "check",
        "--deploy",
        "--fail-level",
        "WARNING",
        SECRET_KEY="0123456789abcdefghijklmnopqrstuvwxyz-ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        TLS="1",
        ALLOWED_HOSTS="blog.example",
    )
    assert checked.returncode == 0, checked.stderr
    brought = "import MySQLdb; print('MySQLdb')"
    assert run(built, "web", "python", "-c", brought).stdout == "MySQLdb\n"
    # What the blog imports only when it is told to speak to Redis, a cluster, a registry or a language model.
    late = "import kombu.transport.redis, redis, kubernetes, oras.client, openai, snownlp"
    assert run(built, "web", "python", "-c", late).returncode == 0
    made = ("/srv/static/staticfiles.json", "/srv/huisheng/locale/en/LC_MESSAGES/django.mo")
    assert run(built, "web", "ls", *made).returncode == 0


def test_the_inference_service_lives_without_a_model_and_is_not_ready(built: str) -> None:
    """Its own entry point, stopped by the signal that a cluster sends."""
    ask = """
import os, signal, subprocess, sys, time, urllib.error, urllib.request
service = subprocess.Popen(sys.argv[1:])
deadline = time.monotonic() + 120
while True:
    try:
        live = urllib.request.urlopen("http://127.0.0.1:8100/livez").status
        break
    except OSError:
        assert service.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
try:
    ready = urllib.request.urlopen("http://127.0.0.1:8100/readyz").status
except urllib.error.HTTPError as error:
    ready = error.code
service.send_signal(signal.SIGTERM)
print(live, ready, service.wait(60))
"""
    entry = config_of(built, "inference")["Entrypoint"]
    asked = run(built, "inference", "python", "-c", ask, *entry)
    assert asked.stdout.splitlines()[-1:] == ["200 503 0"], asked.stderr


def test_nothing_is_compiled_when_a_process_starts(built: str) -> None:
    """Byte code lies beside every module that the service imports."""
    missing = """
import os, sys
import ml.serve.app
compiled = {name: getattr(module, "__cached__", None) for name, module in sys.modules.items()}
print([name for name, file in compiled.items() if file and not os.path.exists(file)])
"""
    assert run(built, "inference", "python", "-c", missing).stdout == "[]\n"


def test_the_trainer_says_what_it_can(built: str) -> None:
    assert "--aggregator" in run(built, "trainer", "python", "-m", "federated.trainer", "--help").stdout
    assert "--host" in run(built, "trainer", "python", "-m", "federated.aggregator", "--help").stdout


def test_nginx_accepts_its_configuration_in_the_image(built: str) -> None:
    token = "a-token-of-more-than-twenty-characters"
    for role in ("gateway", "store"):
        settings = {"NGINX_ROLE": role, "WEB_ADDRESS": "127.0.0.1:8000", "ARTIFACT_STORE_TOKEN": token}
        accepted = run(built, "gateway", "huisheng", "-t", **settings)
        assert "test is successful" in accepted.stderr, accepted.stderr
