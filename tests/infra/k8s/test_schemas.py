"""Everything is built, and every object is one that these versions of Kubernetes would take, unknown fields and all."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from kubernetes_validate import utils

from infra.k8s.rendering import Release
from tests.infra.k8s.conftest import RENDERINGS, Render
from tests.infra.k8s.manifests import Manifests, Object

OLDEST = (1, 31)
VERSIONS = [
    version
    for version in utils.all_versions()
    if tuple(int(part) for part in version.split(".")[:2]) >= OLDEST
]
COMPONENTS = sorted(
    path.parent.name
    for path in (Path(__file__).resolve().parents[3] / "infra" / "k8s" / "components").glob(
        "*/kustomization.yaml"
    )
)
# Kinds of custom resources; their structure is checked below.
CUSTOM = {"HTTPRoute"}


@pytest.fixture(scope="module", autouse=True)
def _schemas_read_once() -> Any:
    """The library reads a megabyte of definitions for each object; the same ones will do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, "schema_contents", functools.cache(utils.schema_contents))
        yield


@functools.cache
def problem(text: str, version: str) -> str | None:
    item = json.loads(text)
    try:
        kubernetes_validate.validate(item, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        path = ".".join(str(part) for part in error.path)
        return f"{item['kind']} {item['metadata']['name']}: {path}: {error.message}"
    return None


def problems(manifests: Manifests, version: str) -> list[str]:
    found = (
        problem(json.dumps(item, sort_keys=True), version)
        for item in manifests.objects
        if item["kind"] not in CUSTOM
    )
    return [each for each in found if each]


def identity(item: Object) -> tuple[str, str, str]:
    return item["kind"], item["metadata"].get("namespace", ""), item["metadata"]["name"]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid(version: str, render: Render) -> None:
    for release in RENDERINGS.values():
        assert problems(render(release), version) == []


def test_the_newest_and_the_oldest_versions_are_among_those_checked() -> None:
    assert VERSIONS[0].startswith("1.31")
    assert VERSIONS[-1].startswith(utils.latest_version())


def test_what_is_wrong_is_seen(render: Render) -> None:
    deployment = json.loads(json.dumps(render(RENDERINGS["local"]).workload("web").owner))
    deployment["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}

    assert "readinesProbe" in (problem(json.dumps(deployment), VERSIONS[-1]) or "")


@pytest.mark.parametrize("overlay", ["local", "local-registry", "production"])
def test_an_overlay_is_built_as_kubectl_builds_it(overlay: str, build: Callable[[str], Manifests]) -> None:
    """Without make: `kubectl apply -k`."""
    built = build(f"overlays/{overlay}")

    assert problems(built, VERSIONS[-1]) == []
    assert not [each for each, count in Counter(map(identity, built.objects)).items() if count > 1]
    kinds = [item["kind"] for item in built.objects]
    assert set(kinds[:2]) == {"Namespace"}, "namespaces come before what is in them"


ALONE = [(name,) for name in COMPONENTS]
# As many as there can be: one of these two takes away what the other changes.
MOST = [tuple(name for name in COMPONENTS if name != left_out) for left_out in ("mariadb", "managed-mysql")]
BACKWARDS = [tuple(reversed(names)) for names in MOST]


@pytest.mark.parametrize("components", [*ALONE, *MOST, *BACKWARDS], ids="+".join)
def test_components_go_alone_and_together_in_any_order(
    components: tuple[str, ...], render: Render, k8s: Path
) -> None:
    built = render(Release(overlay=str(k8s / "base"), tag="1", components=components))

    assert problems(built, VERSIONS[-1]) == []
    assert not [each for each, count in Counter(map(identity, built.objects)).items() if count > 1]


def test_a_managed_server_leaves_nothing_of_ours(render: Render) -> None:
    built = render(RENDERINGS["production-managed"])

    for name in ("mysql", "redis", "backup", "restore"):
        left = [
            identity(item)
            for item in built.objects
            if item["metadata"]["name"].startswith(name)
            or item["metadata"].get("labels", {}).get("app.kubernetes.io/name") == name
        ]
        assert left == []


def test_the_route_has_the_structure_of_the_gateway_api(render: Render) -> None:
    """Checked by hand against gateway.networking.k8s.io/v1: no schema of it comes with a package."""
    built = render(Release(overlay="local", components=("gateway-api",)))
    route = built.get("HTTPRoute", "blog")

    assert route["apiVersion"] == "gateway.networking.k8s.io/v1"
    assert set(route["spec"]) == {"parentRefs", "hostnames", "rules"}
    assert [set(parent) for parent in route["spec"]["parentRefs"]] == [{"group", "kind", "name", "namespace"}]
    (rule,) = route["spec"]["rules"]
    assert set(rule) == {"matches", "backendRefs"}
    assert rule["matches"] == [{"path": {"type": "PathPrefix", "value": "/"}}]
    (backend,) = rule["backendRefs"]
    service = built.get("Service", backend["name"])
    assert backend["port"] in [port["port"] for port in service["spec"]["ports"]]
