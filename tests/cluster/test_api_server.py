"""The fake cluster itself, through the official client: what it answers is what a real one answers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import urllib3
from kubernetes import client, watch
from kubernetes.client import ApiException

from tests.cluster.api_server import ApiServer
from tests.cluster.controllers import Controllers

NAMESPACE = "training"


@pytest.fixture
def api() -> Iterator[ApiServer]:
    with ApiServer() as server:
        yield server


@pytest.fixture
def controllers(api: ApiServer) -> Controllers:
    return Controllers(api)


def secret(name: str, **labels: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "labels": labels},
        "stringData": {"key": "value"},
    }


def pod_template(**spec: Any) -> dict[str, Any]:
    container = {"name": "main", "image": "trainer:1", "command": ["python"]}
    return {
        "metadata": {"labels": {"app": "a"}},
        "spec": {"restartPolicy": "Never", "containers": [container], **spec},
    }


def job(name: str = "run", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"template": pod_template(), **spec},
    }


def fail_at(*codes: int, **more: str) -> dict[str, Any]:
    rule = {"action": "FailJob", "onExitCodes": {"operator": "In", "values": list(codes), **more}}
    return {"rules": [rule]}


def deployment(replicas: int = 2, image: str = "inference:1", **spec: Any) -> dict[str, Any]:
    template = {
        "metadata": {"labels": {"app": "a"}},
        "spec": {"containers": [{"name": "main", "image": image}]},
    }
    fields = {
        "replicas": replicas,
        "selector": {"matchLabels": {"app": "a"}},
        "template": template,
        "progressDeadlineSeconds": 60,
        **spec,
    }
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "inference"}, "spec": fields}


def status_of(error: pytest.ExceptionInfo[ApiException]) -> int:
    return int(error.value.status)


# -- Objects ---------------------------------------------------------------------------------------------------------


def test_what_is_created_is_read_back_and_created_only_once(api: ApiServer) -> None:
    core = client.CoreV1Api(api.client())
    made = core.create_namespaced_secret(NAMESPACE, secret("a"))
    assert made.data == {"key": "dmFsdWU="}
    assert core.read_namespaced_secret("a", NAMESPACE).metadata.uid == made.metadata.uid
    with pytest.raises(ApiException) as error:
        core.create_namespaced_secret(NAMESPACE, secret("a"))
    assert status_of(error) == 409
    assert "AlreadyExists" in error.value.body
    with pytest.raises(ApiException) as error:
        core.read_namespaced_secret("b", NAMESPACE)
    assert status_of(error) == 404


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        (job("Run"), "DNS-1123"),
        (job(backoffLimits=3), "backoffLimits"),
        (job(backoffLimit="3"), "backoffLimit"),
        (job(podFailurePolicy=fail_at(2, containerName="other")), "other"),
        (job(podFailurePolicy=fail_at(10, 2)), "ordered"),
        ({**job(), "metadata": {"name": "run", "labels": {"huisheng.io/site": "美食"}}}, "labels"),
    ],
)
def test_what_the_real_server_would_refuse_is_refused(
    api: ApiServer, wrong: dict[str, Any], what: str
) -> None:
    with pytest.raises(ApiException) as error:
        client.BatchV1Api(api.client()).create_namespaced_job(NAMESPACE, wrong)
    assert status_of(error) == 422
    assert what in error.value.body


def test_a_jobs_template_cannot_be_changed(api: ApiServer) -> None:
    batch = client.BatchV1Api(api.client())
    batch.create_namespaced_job(NAMESPACE, job())
    with pytest.raises(ApiException) as error:
        batch.patch_namespaced_job(
            "run",
            NAMESPACE,
            {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "other"}]}}}},
        )
    assert status_of(error) == 422
    assert batch.patch_namespaced_job("run", NAMESPACE, {"spec": {"suspend": True}}).spec.suspend


def test_a_stale_version_is_a_conflict(api: ApiServer) -> None:
    core = client.CoreV1Api(api.client())
    core.create_namespaced_config_map(NAMESPACE, {"metadata": {"name": "a"}, "data": {"n": "1"}})
    stale = core.read_namespaced_config_map("a", NAMESPACE)
    core.patch_namespaced_config_map("a", NAMESPACE, {"data": {"n": "2"}})
    stale.data["n"] = "3"
    with pytest.raises(ApiException) as error:
        core.replace_namespaced_config_map("a", NAMESPACE, stale)
    assert (status_of(error), "Conflict" in error.value.body) == (409, True)
    with pytest.raises(ApiException) as error:
        core.patch_namespaced_config_map(
            "a", NAMESPACE, {"metadata": {"resourceVersion": stale.metadata.resource_version}, "data": {}}
        )
    assert status_of(error) == 409
    assert core.read_namespaced_config_map("a", NAMESPACE).data == {"n": "2"}


def test_patches_merge_lists_by_their_key_or_replace_them(api: ApiServer) -> None:
    apps = client.AppsV1Api(api.client())
    made = deployment()
    made["spec"]["template"]["spec"]["containers"].append({"name": "side", "image": "side:1"})
    apps.create_namespaced_deployment(NAMESPACE, made)
    images = {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "inference:2"}]}}}}
    patched = apps.patch_namespaced_deployment(
        "inference", NAMESPACE, images
    )  # strategic, as the client sends by itself
    assert {c.name: c.image for c in patched.spec.template.spec.containers} == {
        "main": "inference:2",
        "side": "side:1",
    }
    assert patched.metadata.generation == 2
    patched = apps.patch_namespaced_deployment(
        "inference", NAMESPACE, images, _content_type="application/merge-patch+json"
    )
    assert [c.name for c in patched.spec.template.spec.containers] == ["main"]
    operations = [
        {"op": "test", "path": "/spec/template/spec/containers/0/image", "value": "inference:2"},
        {"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "inference:3"},
        {"op": "add", "path": "/metadata/annotations", "value": {"huisheng.io/model": "x"}},
    ]
    patched = apps.patch_namespaced_deployment("inference", NAMESPACE, operations)
    assert patched.spec.template.spec.containers[0].image == "inference:3"
    with pytest.raises(ApiException) as error:
        apps.patch_namespaced_deployment("inference", NAMESPACE, operations)  # the test no longer holds
    assert status_of(error) == 422


# -- Lists and watches -----------------------------------------------------------------------------------------------


def test_lists_are_selected_and_come_in_pages_until_their_token_expires(api: ApiServer) -> None:
    core = client.CoreV1Api(api.client())
    for number in range(5):
        core.create_namespaced_secret(NAMESPACE, secret(f"s{number}", odd=str(number % 2)))
    chosen = core.list_namespaced_secret(NAMESPACE, label_selector="odd in (1),odd!=0").items
    assert [item.metadata.name for item in chosen] == ["s1", "s3"]
    page = core.list_namespaced_secret(NAMESPACE, limit=2)
    assert [item.metadata.name for item in page.items] == ["s0", "s1"]
    token = page.metadata._continue
    assert [
        item.metadata.name for item in core.list_namespaced_secret(NAMESPACE, limit=2, _continue=token).items
    ] == ["s2", "s3"]
    api.forget_history()
    core.create_namespaced_secret(NAMESPACE, secret("t"))
    api.forget_history()
    with pytest.raises(ApiException) as error:
        core.list_namespaced_secret(NAMESPACE, limit=2, _continue=token)
    assert (status_of(error), "Expired" in error.value.body) == (410, True)
    with pytest.raises(ApiException) as error:
        core.list_namespaced_secret(NAMESPACE, field_selector="data.key=value")
    assert status_of(error) == 400


def test_a_watch_tells_what_comes_goes_and_leaves_its_selector(api: ApiServer) -> None:
    core = client.CoreV1Api(api.client())
    version = core.list_namespaced_secret(NAMESPACE).metadata.resource_version
    seen: list[tuple[str, str]] = []
    watching = watch.Watch()

    def look() -> None:
        for event in watching.stream(
            core.list_namespaced_secret, NAMESPACE, label_selector="mine=1", resource_version=version
        ):
            seen.append((event["type"], event["object"].metadata.name))
            if len(seen) == 4:
                watching.stop()

    thread = threading.Thread(target=look)
    thread.start()
    core.create_namespaced_secret(NAMESPACE, secret("other"))
    core.create_namespaced_secret(NAMESPACE, secret("a", mine="1"))
    core.patch_namespaced_secret("a", NAMESPACE, {"metadata": {"labels": {"mine": "0"}}})
    core.patch_namespaced_secret("a", NAMESPACE, {"metadata": {"labels": {"mine": "1"}}})
    core.delete_namespaced_secret("a", NAMESPACE)
    thread.join(20)
    assert seen == [("ADDED", "a"), ("DELETED", "a"), ("ADDED", "a"), ("DELETED", "a")]


def test_a_watch_from_a_forgotten_version_gets_410(api: ApiServer) -> None:
    core = client.CoreV1Api(api.client())
    version = core.list_namespaced_secret(NAMESPACE).metadata.resource_version
    core.create_namespaced_secret(NAMESPACE, secret("a"))
    api.forget_history()
    with pytest.raises(ApiException) as error:
        next(watch.Watch().stream(core.list_namespaced_secret, NAMESPACE, resource_version=version))
    assert status_of(error) == 410


# -- What goes wrong -------------------------------------------------------------------------------------------------


def test_faults_strike_the_calls_they_are_meant_for_so_often_as_they_are_meant_to(api: ApiServer) -> None:
    core = client.CoreV1Api(api.client())
    api.fail(status=429, reason="TooManyRequests", verb="create", plural="secrets", times=2, retry_after=1)
    assert core.list_namespaced_secret(NAMESPACE).items == []
    for _ in range(2):
        with pytest.raises(ApiException) as error:
            core.create_namespaced_secret(NAMESPACE, secret("a"))
        assert status_of(error) == 429
    core.create_namespaced_secret(NAMESPACE, secret("a"))


def test_an_answer_may_be_lost_though_the_call_was_carried_out(api: ApiServer) -> None:
    core = client.CoreV1Api(api.client())
    api.fail(dropped=True, carried_out=True, verb="create")
    with pytest.raises((urllib3.exceptions.HTTPError, OSError)):
        core.create_namespaced_secret(NAMESPACE, secret("a"))
    assert api.objects.names() == ["secrets/a"]


def test_a_slow_answer_runs_into_the_clients_timeout(api: ApiServer) -> None:
    api.fail(status=0, seconds=3, verb="list")
    with pytest.raises(urllib3.exceptions.HTTPError):
        client.CoreV1Api(api.client()).list_namespaced_secret(NAMESPACE, _request_timeout=0.2)


def test_calls_are_recorded_as_rbac_sees_them_and_only_allowed_ones_pass(api: ApiServer) -> None:
    core = client.CoreV1Api(api.client())
    rule = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["list"]}
    api.allow = [{"metadata": {"namespace": NAMESPACE}, "rules": [rule]}]
    core.list_namespaced_secret(NAMESPACE)
    for forbidden in (
        lambda: core.list_namespaced_secret("other"),
        lambda: core.read_namespaced_secret("a", NAMESPACE),
    ):
        with pytest.raises(ApiException) as error:
            forbidden()
        assert status_of(error) == 403
    assert api.verbs() == {
        (NAMESPACE, "", "secrets", "list"),
        ("other", "", "secrets", "list"),
        (NAMESPACE, "", "secrets", "get"),
    }


# -- Jobs ------------------------------------------------------------------------------------------------------------


def conditions(api: ApiServer, name: str = "run") -> dict[str, str]:
    found = api.objects.get("jobs", NAMESPACE, name)
    return {condition["type"]: condition["reason"] for condition in found["status"].get("conditions", [])}


def test_a_job_makes_another_pod_for_one_that_failed_until_its_limit(
    api: ApiServer, controllers: Controllers
) -> None:
    api.objects.create("jobs", NAMESPACE, job(backoffLimit=1))
    controllers.step()
    for _ in range(2):
        controllers.finish_pod(controllers.pod("run"), exit_code=1)
        controllers.step()
    assert len(controllers.pods("run")) == 2
    assert conditions(api) == {"FailureTarget": "BackoffLimitExceeded", "Failed": "BackoffLimitExceeded"}


def test_a_job_is_complete_when_its_pod_has_succeeded_and_goes_after_its_time(
    api: ApiServer, controllers: Controllers
) -> None:
    api.objects.create("jobs", NAMESPACE, job(ttlSecondsAfterFinished=60))
    controllers.step()
    controllers.start_pod(controllers.pod("run"))
    controllers.step()
    assert api.objects.get("jobs", NAMESPACE, "run")["status"]["active"] == 1
    controllers.finish_pod(controllers.pod("run"))
    controllers.step()
    assert conditions(api) == {"SuccessCriteriaMet": "CompletionsReached", "Complete": "CompletionsReached"}
    api.objects.skipped_seconds += 61
    controllers.step()
    assert api.objects.names() == []


def test_a_failure_policy_fails_ignores_or_counts(api: ApiServer, controllers: Controllers) -> None:
    rules = [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]},
        {"action": "FailJob", "onExitCodes": {"containerName": "main", "operator": "In", "values": [2, 10]}},
    ]
    api.objects.create("jobs", NAMESPACE, job(backoffLimit=1, podFailurePolicy={"rules": rules}))
    controllers.step()
    for _ in range(3):
        controllers.start_pod(controllers.pod("run"))
        controllers.evict_pod(controllers.pod("run"))
        controllers.step()
    assert "failed" not in api.objects.get("jobs", NAMESPACE, "run")["status"]
    controllers.finish_pod(controllers.pod("run"), exit_code=11)
    controllers.step()
    assert api.objects.get("jobs", NAMESPACE, "run")["status"]["failed"] == 1
    controllers.finish_pod(controllers.pod("run"), exit_code=2)
    controllers.step()
    assert conditions(api)["Failed"] == "PodFailurePolicy"


def test_a_suspended_job_has_no_pods_and_a_late_one_is_ended(
    api: ApiServer, controllers: Controllers
) -> None:
    api.objects.create("jobs", NAMESPACE, job(suspend=True, activeDeadlineSeconds=60))
    controllers.step()
    assert controllers.pods("run") == []
    client.BatchV1Api(api.client()).patch_namespaced_job("run", NAMESPACE, {"spec": {"suspend": False}})
    controllers.step()
    controllers.start_pod(controllers.pod("run"))
    api.objects.skipped_seconds += 61
    controllers.step()
    assert conditions(api)["Failed"] == "DeadlineExceeded"
    assert controllers.pods("run") == []


def test_a_quota_keeps_a_job_from_making_pods_and_an_event_says_so(
    api: ApiServer, controllers: Controllers
) -> None:
    from tests.cluster.objects import Refused

    def over_quota(plural: str, value: dict[str, Any]) -> None:
        if plural == "pods":
            raise Refused(
                403,
                "Forbidden",
                'pods "run-x" is forbidden: exceeded quota: training, requested: pods=1, used: pods=4, limited: pods=4',
            )

    api.objects.admission.append(over_quota)
    api.objects.create("jobs", NAMESPACE, job())
    controllers.step()
    events = (
        client.CoreV1Api(api.client())
        .list_namespaced_event(NAMESPACE, field_selector="involvedObject.kind=Job,reason=FailedCreate")
        .items
    )
    assert "exceeded quota" in events[0].message
    assert controllers.pods("run") == []


def test_deleting_a_job_leaves_its_pods_unless_told_otherwise_and_takes_what_it_owns(
    api: ApiServer, controllers: Controllers
) -> None:
    batch, core = client.BatchV1Api(api.client()), client.CoreV1Api(api.client())
    owner = batch.create_namespaced_job(NAMESPACE, job())
    owned = secret("owned")
    owned["metadata"]["ownerReferences"] = [
        {"apiVersion": "batch/v1", "kind": "Job", "name": "run", "uid": owner.metadata.uid}
    ]
    core.create_namespaced_secret(NAMESPACE, owned)
    controllers.step()
    pod = controllers.pod("run")["metadata"]["name"]
    with pytest.raises(ApiException) as error:
        batch.delete_namespaced_job(
            "run", NAMESPACE, body=client.V1DeleteOptions(preconditions=client.V1Preconditions(uid="another"))
        )
    assert status_of(error) == 409
    batch.delete_namespaced_job("run", NAMESPACE)
    controllers.step()
    assert api.objects.names() == [f"pods/{pod}", "secrets/owned"]  # orphans, both

    core.delete_collection_namespaced_secret(NAMESPACE)
    core.delete_namespaced_pod(pod, NAMESPACE)
    owner = batch.create_namespaced_job(NAMESPACE, job())
    owned["metadata"]["ownerReferences"][0]["uid"] = owner.metadata.uid
    core.create_namespaced_secret(NAMESPACE, owned)
    controllers.step()
    controllers.start_pod(controllers.pod("run"))
    batch.delete_namespaced_job("run", NAMESPACE, propagation_policy="Background")
    controllers.step()
    assert api.objects.names() == []


def test_the_log_of_a_container_is_there_once_it_has_started(
    api: ApiServer, controllers: Controllers
) -> None:
    core = client.CoreV1Api(api.client())
    api.objects.create("jobs", NAMESPACE, job())
    controllers.step()
    pod = controllers.pod("run")
    name = pod["metadata"]["name"]
    controllers.hold_pod(pod, "ImagePullBackOff", 'Back-off pulling image "trainer:1"')
    with pytest.raises(ApiException) as error:
        core.read_namespaced_pod_log(name, NAMESPACE)
    assert (status_of(error), "ImagePullBackOff" in error.value.body) == (400, True)
    controllers.finish_pod(pod, exit_code=1, log="first\nsecond\nthird\n")
    # Not what the client makes of it: this version of it gives "b'second…'".
    log = core.read_namespaced_pod_log(
        name, NAMESPACE, container="main", tail_lines=2, _preload_content=False
    )
    assert log.data == b"second\nthird\n"


# -- Deployments -----------------------------------------------------------------------------------------------------


def make_ready(controllers: Controllers, image: str) -> None:
    for pod in controllers.pods("inference"):
        if pod["spec"]["containers"][0]["image"] == image and pod["status"]["phase"] == "Pending":
            controllers.start_pod(pod)


def test_a_deployment_rolls_over_as_its_new_pods_become_ready(
    api: ApiServer, controllers: Controllers
) -> None:
    apps = client.AppsV1Api(api.client())
    apps.create_namespaced_deployment(
        NAMESPACE,
        deployment(strategy={"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}),
    )
    controllers.step()
    make_ready(controllers, "inference:1")
    controllers.step()
    status = apps.read_namespaced_deployment("inference", NAMESPACE).status
    assert (status.updated_replicas, status.ready_replicas) == (2, 2)
    apps.patch_namespaced_deployment(
        "inference",
        NAMESPACE,
        {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "inference:2"}]}}}},
    )
    controllers.step()
    status = apps.read_namespaced_deployment("inference", NAMESPACE).status
    assert (status.observed_generation, status.updated_replicas, status.ready_replicas, status.replicas) == (
        2,
        1,
        2,
        3,
    )
    for _ in range(2):
        make_ready(controllers, "inference:2")
        controllers.step()
    status = apps.read_namespaced_deployment("inference", NAMESPACE).status
    assert (status.updated_replicas, status.ready_replicas, status.replicas) == (2, 2, 2)
    assert {pod["spec"]["containers"][0]["image"] for pod in controllers.pods("inference")} == {"inference:2"}
    reasons = {condition.type: condition.reason for condition in status.conditions}
    assert reasons["Progressing"] == "NewReplicaSetAvailable"


def test_a_deployment_that_gets_no_further_says_so_after_its_deadline(
    api: ApiServer, controllers: Controllers
) -> None:
    apps = client.AppsV1Api(api.client())
    apps.create_namespaced_deployment(NAMESPACE, deployment())
    controllers.step()
    api.objects.skipped_seconds += 61
    controllers.step()
    condition = {
        c.type: c for c in apps.read_namespaced_deployment("inference", NAMESPACE).status.conditions
    }["Progressing"]
    assert (condition.status, condition.reason) == ("False", "ProgressDeadlineExceeded")


def test_a_deployment_follows_its_scale(api: ApiServer, controllers: Controllers) -> None:
    apps = client.AppsV1Api(api.client())
    apps.create_namespaced_deployment(NAMESPACE, deployment())
    controllers.step()
    apps.patch_namespaced_deployment_scale("inference", NAMESPACE, {"spec": {"replicas": 4}})
    controllers.step()
    assert len(controllers.pods("inference")) == 4
    apps.patch_namespaced_deployment_scale("inference", NAMESPACE, {"spec": {"replicas": 1}})
    controllers.step()
    assert len(controllers.pods("inference")) == 1
