"""Rendering and deploying a release: what is refused, what is waited for, what is said."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infra.k8s import deployment, release, rendering
from infra.k8s.kubectl import ReleaseError
from infra.k8s.rendering import Release
from tests.infra.k8s.conftest import Render
from tests.infra.k8s.manifests import Object

StandIn = Callable[[dict[str, Any]], Path]


@pytest.mark.parametrize("tag", ["Upper", "under_score", "-1", "a" * 43, "1/2", "latest", "a\n"])
def test_a_tag_that_names_no_object_is_refused(tag: str) -> None:
    with pytest.raises(ReleaseError, match="TAG="):
        Release(tag=tag)


def test_an_overlay_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(ReleaseError, match="There are local, local-registry, production"):
        Release(overlay="staging").folder()


def test_a_component_that_is_not_there_is_refused_with_those_that_are(render: Render) -> None:
    with pytest.raises(ReleaseError, match="COMPONENTS=postgres: there are .*mariadb"):
        render(Release(components=("postgres",)))


def test_secrets_that_were_not_made_are_asked_for(k8s: Path, tmp_path: Path) -> None:
    secret = k8s / "overlays/local/secrets/redis.env"
    kept = secret.rename(tmp_path / "redis.env")
    try:
        with pytest.raises(ReleaseError, match="make secrets writes"):
            rendering.render(Release(tag="other"), tmp_path)
    finally:
        kept.rename(secret)


def test_an_overlay_of_ones_own_may_lie_anywhere(render: Render, k8s: Path, tmp_path: Path) -> None:
    own = tmp_path / "mine"
    own.mkdir()
    (own / "kustomization.yaml").write_text(
        json.dumps({"resources": [os.path.relpath(k8s / "overlays" / "production", own)]}), encoding="utf-8"
    )

    built = render(Release(overlay=str(own), registry="r.example", tag="7"))

    assert built.settings()["TRAINER_IMAGE"] == "r.example/huisheng-trainer:7"


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        ("mysql:8.4", {"newName": "mysql", "newTag": "8.4"}),
        ("registry:5000/mysql", {"newName": "registry:5000/mysql"}),
        (
            "registry:5000/a/b:1@sha256:0",
            {"newName": "registry:5000/a/b", "newTag": "1", "digest": "sha256:0"},
        ),
        ("a@sha256:0", {"newName": "a", "digest": "sha256:0"}),
    ],
)
def test_names_of_images_are_understood(reference: str, parts: dict[str, str]) -> None:
    assert rendering.split_reference(reference) == parts


def test_digests_are_read_as_the_images_are_pushed(tmp_path: Path) -> None:
    file = tmp_path / "digests"
    file.write_text(
        "huisheng-web=r:5000/huisheng-web:1@sha256:aa\n\nhuisheng-gateway=r:5000/huisheng-gateway:1@sha256:bb\n"
    )

    assert release.read_digests(file) == {"huisheng-web": "sha256:aa", "huisheng-gateway": "sha256:bb"}


def test_the_command_takes_its_settings_from_the_environment(
    k8s: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(release, "WORK", tmp_path)
    environment = {
        "REGISTRY": "registry:5000/",
        "TAG": "9",
        "SETTINGS": "LABELLER=openai",
        "COMPONENTS": "mariadb",
    }

    assert release.main(["manifests"], environment) == 0

    rendered = capsys.readouterr().out
    assert "image: registry:5000/huisheng-web:9" in rendered
    assert "image: mariadb:" in rendered
    assert "LABELLER: openai" in rendered


def test_what_is_wrong_is_said_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert release.main(["manifests", "--settings", "nonsense"], {}) == 1

    assert capsys.readouterr().err == "SETTINGS: 'nonsense' is no NAME=VALUE\n"


# -- Deploying: kubectl is the door to the cluster; a stand-in says what a cluster would -------------------------------


@pytest.fixture
def stand_in(k8s: Path, kubectl: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """A kubectl that renders for real, and answers from a file what it is asked of the cluster."""

    def make(cluster: dict[str, Any]) -> Path:
        answers, applied, program = tmp_path / "answers", tmp_path / "applied", tmp_path / "kubectl"
        answers.mkdir()
        for name, value in cluster.items():
            (answers / name).write_text(json.dumps(value))
        program.write_text(
            f"""#!/bin/sh
case "$*" in
kustomize*) exec {kubectl} "$@" ;;
"get --raw /readyz"*) [ -e {answers}/ready ] || {{ echo 'connection refused' >&2; exit 1; }} ;;
*"get secrets"*) cat {answers}/secrets ;;
*"get deployments,statefulsets,jobs,pods"*) cat {answers}/objects ;;
*"get job migrate-5"*) [ ! -e {answers}/job ] || cat {answers}/job ;;
*"delete job migrate-5"*) rm {answers}/job ;;
"apply -f -") cat >{applied}; echo applied ;;
*) echo "unexpected: $*" >&2; exit 1 ;;
esac
"""
        )
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("KUBECTL", str(program))
        monkeypatch.setattr(deployment, "LOOK_EVERY_SECONDS", 0.05)
        return applied

    return make


def item(kind: str, name: str, spec: Object, status: Object) -> Object:
    return {"kind": kind, "metadata": {"name": name, "generation": 1}, "spec": spec, "status": status}


READY = {"observedGeneration": 1, "replicas": 1, "readyReplicas": 1, "updatedReplicas": 1}
MIGRATED = item("Job", "migrate-5", {}, {"conditions": [{"type": "Complete", "status": "True"}]})
WEB = item("Deployment", "web", {"replicas": 1}, READY)
INFERENCE = item("Deployment", "inference", {"replicas": 1}, {"observedGeneration": 1, "replicas": 1})


def deploy(tmp_path: Path, seconds: float = 30, overlay: str = "local") -> None:
    deployment.deploy(Release(overlay=overlay, tag="5"), timeout_seconds=seconds, work=tmp_path / "work")


def test_a_release_is_applied_and_waited_for(
    stand_in: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    applied = stand_in(
        {"ready": 1, "secrets": {"items": []}, "objects": {"items": [MIGRATED, WEB, INFERENCE]}}
    )

    deploy(tmp_path)

    assert "name: migrate-5" in applied.read_text()
    assert "everything runs; inference waits for the first model" in capsys.readouterr().out


def test_a_cluster_that_does_not_answer_is_said_before_anything_is_applied(
    stand_in: StandIn, tmp_path: Path
) -> None:
    applied = stand_in({})

    with pytest.raises(ReleaseError, match="does not answer: connection refused"):
        deploy(tmp_path)
    assert not applied.exists()


def test_secrets_that_production_lacks_are_named_before_anything_is_applied(
    stand_in: StandIn, tmp_path: Path
) -> None:
    there = [{"metadata": {"name": f"huisheng-{name}"}} for name in ("web", "mysql", "redis", "store")]
    applied = stand_in({"ready": 1, "secrets": {"items": there}})

    with pytest.raises(ReleaseError, match="Secrets are missing .*: huisheng-inference, huisheng-migrate"):
        deploy(tmp_path, overlay="production")
    assert not applied.exists()


def test_a_migration_that_failed_ends_the_waiting(stand_in: StandIn, tmp_path: Path) -> None:
    failed = {"conditions": [{"type": "Failed", "status": "True", "message": "backoff limit"}]}
    stand_in(
        {"ready": 1, "secrets": {"items": []}, "objects": {"items": [item("Job", "migrate-5", {}, failed)]}}
    )

    with pytest.raises(
        ReleaseError, match="job migrate-5: backoff limit; see kubectl -n huisheng logs job/migrate-5"
    ):
        deploy(tmp_path)


def migrated_with(image: str, end: str) -> Object:
    spec = {"template": {"spec": {"containers": [{"name": "migrate", "image": image}]}}}
    return item("Job", "migrate-5", spec, {"conditions": [{"type": end, "status": "True"}]})


@pytest.mark.parametrize(
    ("image", "stays"), [("huisheng-web:5", True), ("elsewhere:5000/huisheng-web:5", False)]
)
def test_a_migration_with_another_image_of_the_same_tag_is_made_anew(
    image: str, stays: bool, stand_in: StandIn, tmp_path: Path
) -> None:
    """A Job's template cannot be changed: applying it would be refused, and with it the release."""
    objects = {"items": [MIGRATED, WEB]}
    job = migrated_with(image, "Complete")
    applied = stand_in({"ready": 1, "secrets": {"items": []}, "objects": objects, "job": job})

    deploy(tmp_path)

    assert (tmp_path / "answers" / "job").exists() is stays
    assert applied.exists()


def test_a_migration_that_failed_before_is_run_again(stand_in: StandIn, tmp_path: Path) -> None:
    failed = migrated_with("huisheng-web:5", "Failed")
    objects = {"items": [MIGRATED, WEB]}
    applied = stand_in({"ready": 1, "secrets": {"items": []}, "objects": objects, "job": failed})

    deploy(tmp_path)

    assert not (tmp_path / "answers" / "job").exists()
    assert applied.exists()


def test_a_cluster_that_is_away_for_a_moment_is_waited_for(
    stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in({"ready": 1, "secrets": {"items": []}})

    def come_back(seconds: float) -> None:
        (tmp_path / "answers" / "objects").write_text(json.dumps({"items": [MIGRATED, WEB]}))

    monkeypatch.setattr(deployment.time, "sleep", come_back)

    deploy(tmp_path)

    assert (tmp_path / "answers" / "objects").exists()


def test_pods_that_cannot_start_are_named_with_the_reason(stand_in: StandIn, tmp_path: Path) -> None:
    waiting = {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "not found: r/huisheng-web:5"}}}
    pull = item("Pod", "web-1", {}, {"containerStatuses": [waiting]})
    unscheduled = {"type": "PodScheduled", "status": "False", "message": "0/1 nodes: insufficient cpu"}
    place = item("Pod", "beat-1", {}, {"conditions": [unscheduled]})
    away = item("Deployment", "web", {"replicas": 2}, {**READY, "replicas": 2})
    stand_in({"ready": 1, "secrets": {"items": []}, "objects": {"items": [MIGRATED, away, pull, place]}})

    with pytest.raises(ReleaseError) as refused:
        deploy(tmp_path, seconds=0)

    assert "deployment web: 1 of 2 ready" in str(refused.value)
    assert "pod web-1: ImagePullBackOff: not found: r/huisheng-web:5" in str(refused.value)
    assert "pod beat-1 is not scheduled: 0/1 nodes: insufficient cpu" in str(refused.value)


@pytest.mark.parametrize(
    ("spec", "status", "done"),
    [
        ({"replicas": 2}, {**READY, "replicas": 2, "readyReplicas": 2, "updatedReplicas": 2}, True),
        (
            {"replicas": 2},
            {**READY, "replicas": 3, "readyReplicas": 3, "updatedReplicas": 2},
            False,
        ),  # an old pod
        ({"replicas": 1}, {**READY, "observedGeneration": 0}, False),  # of the release before
        ({"replicas": 1}, {**READY, "updatedReplicas": 0}, False),
        ({"replicas": 1}, {}, False),
    ],
)
def test_a_workload_runs_when_all_its_pods_are_new_and_ready(
    spec: Object, status: Object, done: bool
) -> None:
    found = list(deployment.unfinished([MIGRATED, item("Deployment", "web", spec, status)], "migrate-5"))

    assert (found == []) is done, found
