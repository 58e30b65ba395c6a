"""Every rendering is made once, from a copy of infra/k8s with secrets made for it."""

from __future__ import annotations

import functools
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.k8s import rendering
from infra.k8s.make_secrets import make_secrets
from infra.k8s.rendering import Release
from tests.infra.k8s.manifests import Manifests

REPOSITORY = Path(__file__).resolve().parents[3]
Render = Callable[..., Manifests]
# What the policies are held against: each overlay as it stands, and each choice between servers at least once.
RENDERINGS: dict[str, Release] = {
    "local": Release(overlay="local"),
    "local-registry": Release(
        overlay="local",
        registry="registry:5000",
        tag="abc123",
        components=("mariadb", "gpu-trainers", "monitoring"),
    ),
    "production": Release(overlay="production"),
    "production-managed": Release(
        overlay="production",
        registry="registry.example/huisheng",
        tag="1.2.3",
        components=("managed-mysql", "managed-redis"),
    ),
}


@pytest.fixture(scope="session")
def kubectl() -> str:
    """The kubectl of the requirements, so that everybody renders with the same kustomize."""
    program = REPOSITORY / ".venv" / "bin" / "kubectl"
    found = str(program) if program.exists() else shutil.which("kubectl")
    if found is None:
        pytest.fail(
            "kubectl is missing: requirements/test.txt brings it on Linux; elsewhere install 1.36 or newer"
        )
    return found


@pytest.fixture(scope="session")
def k8s(tmp_path_factory: pytest.TempPathFactory, kubectl: str) -> Iterator[Path]:
    """A copy of infra/k8s with secrets of its own, used by what renders."""
    folder = tmp_path_factory.mktemp("rendered") / "infra" / "k8s"
    shutil.copytree(
        REPOSITORY / "infra" / "k8s", folder, ignore=shutil.ignore_patterns("*.env.*", "__pycache__")
    )
    secrets = folder / "overlays" / "local" / "secrets"
    for made in secrets.glob("*.env"):
        made.unlink()
    make_secrets(secrets)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rendering, "HERE", folder)
        patch.setenv("KUBECTL", kubectl)
        yield folder


@pytest.fixture(scope="session")
def render(k8s: Path) -> Render:
    """Render a release; the same one is rendered once."""
    made: dict[str, Manifests] = {}

    def render_once(wanted: Release) -> Manifests:
        key = repr(wanted)
        if key not in made:
            made[key] = Manifests(rendering.render(wanted, k8s.parents[1] / "var"))
        return made[key]

    return render_once


@pytest.fixture(params=RENDERINGS)
def manifests(request: pytest.FixtureRequest, render: Render) -> Manifests:
    """Each of the renderings that policies are held against."""
    return render(RENDERINGS[request.param])


@pytest.fixture(scope="session")
def build(k8s: Path, kubectl: str) -> Callable[[str], Manifests]:
    """Build a folder of infra/k8s as `kubectl apply -k` would."""

    @functools.cache
    def build_folder(name: str) -> Manifests:
        built = subprocess.run(
            [kubectl, "kustomize", str(k8s / name)], capture_output=True, text=True, check=False
        )
        assert built.returncode == 0, built.stderr
        return Manifests(built.stdout)

    return build_folder
