"""The state machine of rollouts on a cluster, against a faithful API server and a real registry."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from blog_site.comments.inference import readiness
from blog_site.training import image_rollout, releases
from blog_site.training.checks import check_rollouts
from blog_site.training.models import ModelVersion, Rollout, Run
from blog_site.training.registry import (
    RegistryAccess,
    RegistryClient,
    parse_reference,
)
from blog_site.training.rollout import (
    RolloutRefused,
    advance_rollout,
    promote_model,
    rollback_model,
    undo_rollout,
)
from blog_site.training.services import abort_run, advance_everything
from tests.cluster.api_server import ApiServer
from tests.cluster.controllers import Controllers
from tests.cluster.objects import Object
from tests.servers import find_free_port, wait_until
from tests.training.concurrency import in_threads
from tests.training.doors import ROOT, SayingService, answering_model, real_service
from tests.training.images import extract_image, push_base
from tests.training.registry_server import running_registry
from tests.training.rows import make_report, make_run, make_version

pytestmark = pytest.mark.django_db
State = Rollout.State
QUICK = RegistryAccess(plain_http=True)
NAMESPACE, NAME = "huisheng", "inference"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_registry(tmp_path_factory.mktemp("registry")) as host:
        with RegistryClient(host, QUICK) as client:
            for tag in ("1", "2"):
                push_base(client, "huisheng-inference", tag, platform=f"release-{tag}")
        yield host


class Cluster:
    """The inference Deployment, and what happens to its pods."""

    def __init__(self, api: ApiServer, registry: str) -> None:
        self.api = api
        self.controllers = Controllers(api)
        self.base = f"{registry}/huisheng-inference:1"
        self.next_base = f"{registry}/huisheng-inference:2"
        self.port = 8100

    def deploy(self, replicas: int = 2) -> None:
        """Apply the Deployment, as a first installation does."""
        labels = {"app.kubernetes.io/name": NAME}
        container = {"name": NAME, "image": self.base, "ports": [{"containerPort": self.port}]}
        spec = {
            "replicas": replicas,
            "progressDeadlineSeconds": 300,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        }
        self.api.objects.create("deployments", NAMESPACE, {"metadata": {"name": NAME}, "spec": spec})
        self.controllers.step()
        for pod in self.pods():  # without a model it runs and is not ready
            self.controllers.start_pod(pod, ready=False)
        self.controllers.step()

    def deployment(self) -> Object:
        return self.api.objects.get("deployments", NAMESPACE, NAME)

    @property
    def image(self) -> str:
        return str(self.deployment()["spec"]["template"]["spec"]["containers"][0]["image"])

    def annotation(self, name: str) -> str | None:
        return self.deployment()["metadata"].get("annotations", {}).get(f"huisheng.io/{name}")

    def change(self, what: Callable[[Object], None]) -> None:
        """Change the Deployment as somebody else: an operator, the autoscaler, a release."""
        with self.api.objects.changed:
            found = self.deployment()
            what(found)
            self.api.objects.replace("deployments", NAMESPACE, NAME, found)
        self.controllers.step()

    def set_image(self, image: str) -> None:
        self.change(lambda found: found["spec"]["template"]["spec"]["containers"][0].update(image=image))

    def scale(self, replicas: int) -> None:
        self.change(lambda found: found["spec"].update(replicas=replicas))

    def pods(self, image: str = "") -> list[Object]:
        wanted = image or self.image
        found = self.controllers.pods(NAME, NAMESPACE)
        return [pod for pod in found if pod["spec"]["containers"][0]["image"] == wanted]

    def waiting_pod(self) -> Object:
        """A pod of the newest image that does not run yet."""
        self.controllers.step()
        return next(pod for pod in self.pods() if not pod.get("status", {}).get("containerStatuses"))

    def roll(self) -> None:
        """Let every new pod become ready, one after the other."""
        for _ in range(20):
            self.controllers.step()
            fresh = [pod for pod in self.pods() if not pod.get("status", {}).get("containerStatuses")]
            if not fresh:
                break
            self.controllers.start_pod(fresh[0])
        self.controllers.step()

    def ready(self) -> int:
        return sum(
            condition["type"] == "Ready" and condition["status"] == "True"
            for pod in self.controllers.pods(NAME, NAMESPACE)
            for condition in pod.get("status", {}).get("conditions", [])
        )

    def crash(self, pod: Object, message: str, restarts: int = 2) -> None:
        held = self.controllers.hold_pod(pod, "CrashLoopBackOff", "back-off 20s", restarts=restarts)
        status = held["status"]
        status["containerStatuses"][0]["lastState"] = {
            "terminated": {"exitCode": 1, "reason": "Error", "message": message}
        }
        self.api.objects.set_status("pods", NAMESPACE, pod["metadata"]["name"], status)

    def pass_time(self, seconds: float) -> None:
        """Let time pass for the cluster and for rollouts under way."""
        self.api.objects.skipped_seconds += seconds
        for rollout in Rollout.objects.all():
            rollout.created_at -= timedelta(seconds=seconds)
            if rollout.applied_at:
                rollout.applied_at -= timedelta(seconds=seconds)
            if rollout.ended_at:
                rollout.ended_at -= timedelta(seconds=seconds)
            if rollout.building_until:
                rollout.building_until -= timedelta(seconds=seconds)
            for name in ("stuck_since", "silent_since", "wrong_since"):
                if rollout.progress and rollout.progress.get(name):
                    rollout.progress[name] -= seconds
            rollout.save()
        self.controllers.step()


@pytest.fixture
def cluster(registry: str, settings, monkeypatch, tmp_path: Path) -> Iterator[Cluster]:
    settings.MODEL_ROLLOUT = "image"
    settings.MODEL_IMAGE = settings.MODEL_IMAGE_PUSH = f"{registry}/huisheng-model"
    settings.INFERENCE_BASE_IMAGE = f"{registry}/huisheng-inference:1"
    settings.REGISTRY_PLAIN_HTTP = True
    settings.ROLLOUT_DEADLINE_SECONDS = 600
    with ApiServer() as api:
        configuration = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "tests",
            "clusters": [{"name": "tests", "cluster": {"server": api.url}}],
            "users": [{"name": "tests", "user": {}}],
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "tests"}}],
        }
        path = tmp_path / "kubeconfig"
        path.write_text(yaml.safe_dump(configuration))
        monkeypatch.setenv("KUBECONFIG", str(path))
        image_rollout._deployment.cache_clear()
        made = Cluster(api, registry)
        made.deploy()
        api.requests.clear()
        yield made
        image_rollout._deployment.cache_clear()


@pytest.fixture
def versions(stored: list[str]) -> list[ModelVersion]:
    return [make_version(digest) for digest in stored]


def beat(times: int = 1) -> None:
    for _ in range(times):
        advance_everything()


def promote(version: ModelVersion, actor: str = "command") -> Rollout:
    version.refresh_from_db()
    return promote_model(model_version=version, actor=actor)


def again(rollout: Rollout) -> Rollout:
    rollout.refresh_from_db()
    return rollout


def complete(rollout: Rollout, cluster: Cluster, service: SayingService) -> Rollout:
    """Let a rollout go well."""
    beat(2)  # the image, the Deployment
    service.serve(rollout.model_version.digest)
    cluster.roll()
    beat()
    assert again(rollout).state == State.DONE, (rollout.state, rollout.reason, rollout.progress)
    return rollout


def states() -> dict[str, str]:
    return dict(ModelVersion.objects.values_list("digest", "state"))


# -- A rollout that goes well ------------------------------------------------------------------------------------------


def test_a_first_model_takes_the_place_of_an_image_without_one(
    cluster: Cluster, versions, settings, registry: str, tmp_path: Path
) -> None:
    rollout = promote(versions[0], "run:12")
    assert cluster.image == cluster.base, "whoever promotes does not speak to the cluster"

    beat()
    image = again(rollout).image
    assert image.startswith(f"{registry}/huisheng-model@sha256:")
    assert cluster.image == cluster.base
    beat()
    assert cluster.image == image
    assert cluster.annotation("model") == versions[0].digest
    assert cluster.annotation("run") == "run-12"
    assert cluster.annotation("previous-image") == cluster.base
    cluster.controllers.step()
    beat()
    assert again(rollout).state == State.WAITING
    assert (rollout.progress["desired"], rollout.progress["available"]) == (2, 0)
    assert rollout.reason == "", "a reason would end the run before the pods have followed"

    # What the pods would run answers: the image, as a node unpacks it, and the service itself.
    with RegistryClient(registry, QUICK) as client:
        extract_image(client, parse_reference(image), tmp_path / "root")
    port = find_free_port()
    with real_service((tmp_path / "root/srv/model").as_uri(), port, tmp_path / "log") as url:
        settings.INFERENCE_URL = url
        wait_until(lambda: readiness().ready, "the model is loaded")
        cluster.roll()
        beat()
        assert (again(rollout).state, rollout.reason) == (State.DONE, "")
        assert answering_model(url) == versions[0].digest
    assert cluster.ready() == 2


def test_the_next_model_replaces_it_and_the_replicas_stay_the_autoscalers(
    cluster: Cluster, versions, service
) -> None:
    first = complete(promote(versions[0]), cluster, service)
    rollout = promote(versions[1])
    beat(2)
    assert again(rollout).previous_image == first.image
    cluster.controllers.start_pod(cluster.waiting_pod())

    cluster.scale(5)
    beat()
    assert again(rollout).state == State.WAITING
    cluster.roll()
    service.serve(versions[1].digest)
    beat()
    cluster.scale(3)

    assert again(rollout).state == State.DONE
    assert cluster.deployment()["spec"]["replicas"] == 3
    assert rollout.progress["desired"] == 5
    beat()
    assert cluster.image == rollout.image


def test_every_pod_that_is_ready_stays_so_while_another_model_comes(
    cluster: Cluster, versions, service
) -> None:
    complete(promote(versions[0]), cluster, service)
    promote(versions[1])
    beat(2)
    for _ in range(4):
        assert cluster.ready() >= 2
        cluster.controllers.step()
        fresh = [pod for pod in cluster.pods() if not pod.get("status", {}).get("containerStatuses")]
        if fresh:
            cluster.controllers.start_pod(fresh[0])
    assert cluster.ready() >= 2


def test_the_image_that_runs_already_is_not_rolled_out_again(cluster: Cluster, versions, service) -> None:
    done = complete(promote(versions[0]), cluster, service)
    pods = [pod["metadata"]["name"] for pod in cluster.pods()]

    rollout = rollback_model(to=ModelVersion.objects.get(pk=versions[0].pk), actor="command")
    beat(3)

    assert (again(rollout).state, rollout.image) == (State.DONE, done.image)
    assert [pod["metadata"]["name"] for pod in cluster.pods()] == pods


def test_two_workers_at_once_change_the_deployment_once(
    cluster: Cluster, versions, service, transactional_db
) -> None:
    rollout = promote(versions[0])
    in_threads(beat, 2)
    in_threads(beat, 2)
    beat()

    assert again(rollout).applied_at is not None
    generation = cluster.deployment()["metadata"]["generation"]
    assert generation == 2, "created, and changed once"
    assert cluster.image == rollout.image


def test_a_worker_that_ends_between_two_steps_is_followed_by_another(
    cluster: Cluster, versions, service, monkeypatch
) -> None:
    rollout = promote(versions[0])
    beat()
    with monkeypatch.context() as patch:  # after the Deployment was changed, before that is written down
        patch.setattr(image_rollout.timezone, "now", lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            image_rollout.look_at(again(rollout))
    assert cluster.image == again(rollout).image
    assert rollout.applied_at is None

    service.serve(versions[0].digest)
    cluster.roll()
    beat(2)
    assert again(rollout).state == State.DONE
    assert rollout.previous_image == cluster.base


def test_an_image_that_a_lost_worker_was_making_is_made_by_another_later(
    cluster: Cluster, versions, service
) -> None:
    rollout = promote(versions[0])
    Rollout.objects.update(building_until=timezone.now() + timedelta(seconds=image_rollout.BUILD_SECONDS))
    beat()
    assert again(rollout).image == "", "somebody is at it"

    cluster.pass_time(image_rollout.BUILD_SECONDS + 1)
    beat()
    assert again(rollout).image


def test_a_process_without_the_cluster_leaves_it_to_the_worker(
    cluster: Cluster, versions, service, monkeypatch, capsys
) -> None:
    promote(versions[0])
    with monkeypatch.context() as web:
        web.delenv("KUBECONFIG")
        beat(3)
    assert cluster.api.requests == []
    assert Rollout.objects.get().image == ""


# -- Rollouts that fail ------------------------------------------------------------------------------------------------


@pytest.fixture
def running(cluster: Cluster, versions, service) -> Rollout:
    """A second model on its way, after a first that serves."""
    complete(promote(versions[0]), cluster, service)
    rollout = promote(versions[1])
    beat(2)
    cluster.controllers.step()
    return again(rollout)


def assert_undone(rollout: Rollout, cluster: Cluster, *reasons: str) -> None:
    """It failed for the reason, and the database and the Deployment are back at the first model."""
    assert again(rollout).state == State.FAILED, rollout.progress
    for reason in reasons:
        assert reason in rollout.reason
    assert rollout.previous is not None
    assert ModelVersion.objects.champion() == rollout.previous
    assert states()[rollout.model_version.digest] == ModelVersion.State.REFUSED
    assert ModelVersion.objects.get(pk=rollout.model_version_id).state_reason == rollout.reason
    beat()
    assert cluster.image == rollout.previous_image
    assert cluster.annotation("model") == rollout.previous.digest
    assert again(rollout).reverted_at is not None
    cluster.controllers.step()
    assert cluster.ready() == 2, "the old pods have served all the time"
    beat(2)
    assert cluster.image == rollout.previous_image


def test_a_pod_that_crashes_again_and_again_is_the_end_of_it(cluster: Cluster, running: Rollout) -> None:
    pod = cluster.waiting_pod()
    cluster.crash(pod, "loading\nValueError: golden input 3 differs", restarts=1)
    beat()
    assert again(running).state == State.WAITING, "once is no loop"
    assert running.progress["pods"][0]["name"] == pod["metadata"]["name"]
    cluster.crash(pod, "loading\nValueError: golden input 3 differs", restarts=2)
    beat()

    assert_undone(running, cluster, pod["metadata"]["name"], "CrashLoopBackOff", "golden input 3 differs")


@pytest.mark.parametrize("reason", ["ImagePullBackOff", "CreateContainerConfigError"])
def test_a_pod_that_cannot_start_has_a_minute(reason: str, cluster: Cluster, running: Rollout) -> None:
    pod = cluster.waiting_pod()
    cluster.controllers.hold_pod(pod, reason, "not found")
    beat()
    cluster.pass_time(image_rollout.STUCK_SECONDS - 5)
    beat()
    assert again(running).state == State.WAITING
    cluster.pass_time(10)
    beat()

    assert_undone(running, cluster, pod["metadata"]["name"], reason, "not found")


def test_a_pod_that_could_not_be_pulled_for_a_moment_is_forgiven(
    cluster: Cluster, running: Rollout, service
) -> None:
    pod = cluster.waiting_pod()
    cluster.controllers.hold_pod(pod, "ErrImagePull", "timeout")
    beat()
    cluster.pass_time(image_rollout.STUCK_SECONDS - 5)
    cluster.controllers.start_pod(pod, ready=False)
    beat()
    cluster.controllers.hold_pod(pod, "ErrImagePull", "timeout")
    cluster.pass_time(image_rollout.STUCK_SECONDS - 5)
    beat()

    assert again(running).state == State.WAITING


def test_a_pod_that_does_not_become_ready_has_until_the_deadline_and_says_why(
    cluster: Cluster, running: Rollout, service
) -> None:
    pod = cluster.controllers.start_pod(cluster.waiting_pod(), ready=False)
    refusing = SayingService()
    refusing.start()
    try:
        refusing.say(model=None, wanted="x", error="model.onnx: its sha256 is another")
        pod["status"]["podIP"] = "127.0.0.1"
        pod["spec"]["containers"][0]["ports"][0]["containerPort"] = refusing.port
        with cluster.api.objects.changed:
            cluster.api.objects._put("pods", pod, "MODIFIED")
        beat()
        assert again(running).state == State.WAITING
        cluster.pass_time(310)
        beat()
    finally:
        refusing.stop()

    assert_undone(running, cluster, "300 秒", pod["metadata"]["name"], "model.onnx: its sha256 is another")


def test_a_pod_without_a_node_is_not_the_models_fault(cluster: Cluster, versions, service) -> None:
    complete(promote(versions[0]), cluster, service)
    complete(promote(versions[1]), cluster, service)
    rollout = rollback_model(to=None, actor="command")
    beat(2)
    cluster.controllers.leave_unscheduled(cluster.waiting_pod(), "0/1 nodes are available: Insufficient cpu.")
    beat()
    cluster.pass_time(310)
    beat()

    assert again(rollout).state == State.FAILED
    assert "Insufficient cpu" in rollout.reason
    assert states() == {
        versions[0].digest: ModelVersion.State.RETIRED,  # and may be rolled back to again
        versions[1].digest: ModelVersion.State.CHAMPION,
        versions[2].digest: ModelVersion.State.CANDIDATE,
    }


def test_what_the_deployment_said_of_the_image_before_is_not_held_against_this_one(
    cluster: Cluster, versions, service
) -> None:
    cluster.pass_time(310)  # without a model no pod was ever ready
    condition = cluster.deployment()["status"]["conditions"]
    assert any(one["reason"] == "ProgressDeadlineExceeded" for one in condition)

    rollout = promote(versions[0])
    beat(2)
    found = cluster.deployment()
    status = {**found["status"], "observedGeneration": found["metadata"]["generation"]}
    cluster.api.objects.set_status("deployments", NAMESPACE, NAME, status)  # seen, and not yet acted on
    beat()
    assert again(rollout).state == State.WAITING

    service.serve(versions[0].digest)
    cluster.roll()
    beat()
    assert again(rollout).state == State.DONE


def test_a_deployment_that_never_says_so_is_given_up_all_the_same(cluster: Cluster, running: Rollout) -> None:
    found = cluster.deployment()
    status = {**found["status"], "observedGeneration": found["metadata"]["generation"]}
    conditions = [one for one in status["conditions"] if one["type"] != "Progressing"]
    cluster.api.objects.set_status("deployments", NAMESPACE, NAME, {**status, "conditions": conditions})
    Rollout.objects.filter(pk=running.pk).update(
        applied_at=timezone.now() - timedelta(seconds=361), progress={"condition": ""}
    )

    beat()

    assert again(running).state == State.FAILED


def test_an_answer_of_another_model_is_the_end_of_it(cluster: Cluster, running: Rollout, service) -> None:
    cluster.roll()
    beat()
    assert again(running).state == State.WAITING, "an old pod may have answered"
    cluster.pass_time(image_rollout.ANSWER_SECONDS + 1)
    beat()

    assert running.previous is not None
    assert again(running).state == State.FAILED
    assert f"应答的模型是 {running.previous.digest}" in running.reason
    beat()
    assert cluster.image == running.previous_image


def test_a_service_that_does_not_answer_undoes_nothing(cluster: Cluster, running: Rollout, service) -> None:
    service.stop()
    cluster.roll()
    beat()
    assert again(running).reason == "", "a moment of silence ends no run"
    cluster.pass_time(10_000)
    beat()

    assert again(running).state == State.WAITING
    assert "没有应答" in running.reason


def test_a_paused_deployment_is_waited_for(cluster: Cluster, running: Rollout) -> None:
    cluster.change(lambda found: found["spec"].update(paused=True))
    cluster.pass_time(10_000)
    beat()

    assert again(running).state == State.WAITING
    assert "暂停" in running.progress["detail"]


def test_a_first_model_that_fails_leaves_the_image_without_one(cluster: Cluster, versions, service) -> None:
    rollout = promote(versions[0])
    beat(2)
    cluster.crash(cluster.waiting_pod(), "no")
    beat(2)

    assert again(rollout).state == State.FAILED
    assert ModelVersion.objects.champion() is None
    assert cluster.image == cluster.base
    assert cluster.annotation("model") is None


def test_an_image_that_fails_is_not_what_a_later_rollout_goes_back_to(
    cluster: Cluster, running: Rollout, versions, service
) -> None:
    cluster.crash(cluster.waiting_pod(), "no")
    advance_rollout(again(running))
    assert again(running).state == State.FAILED
    assert cluster.image == running.image, "not put back yet"
    rollout = promote(versions[2])
    image_rollout.look_at(rollout)
    image_rollout.look_at(again(rollout))

    assert cluster.image == again(rollout).image
    assert rollout.previous_image == running.previous_image


def test_a_run_is_refused_when_its_model_does_not_come_up(
    cluster: Cluster, versions, service, launcher
) -> None:
    complete(promote(versions[0]), cluster, service)
    champion = ModelVersion.objects.get(pk=versions[0].pk)
    run = make_run(
        state=Run.State.REGISTERED,
        champion=champion,
        model_version=versions[1],
        report=make_report(versions[1].digest, champion=champion),
    )
    beat(4)
    run.refresh_from_db()
    assert run.state == Run.State.REGISTERED, "it waits for the pods"
    cluster.crash(cluster.waiting_pod(), "out of memory")
    beat()

    run.refresh_from_db()
    assert run.state == Run.State.REFUSED
    assert "out of memory" in run.state_reason


def test_a_run_that_is_aborted_by_a_web_process_is_undone_by_the_worker(
    cluster: Cluster, versions, service, launcher, monkeypatch
) -> None:
    first = complete(promote(versions[0]), cluster, service)
    champion = ModelVersion.objects.get(pk=versions[0].pk)
    run = make_run(
        state=Run.State.REGISTERED,
        champion=champion,
        model_version=versions[1],
        report=make_report(versions[1].digest, champion=champion),
    )
    beat(4)
    assert cluster.image != first.image
    with monkeypatch.context() as web:
        web.delenv("KUBECONFIG")
        abort_run(run=run, reason="中止")
    beat()

    assert cluster.image == first.image
    assert ModelVersion.objects.champion() == champion


# -- A cluster and a registry that fail --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 500},
        {"status": 503, "reason": "ServiceUnavailable"},
        {"status": 403, "reason": "Forbidden", "message": "cannot get deployments"},
        {"dropped": True},
        {"status": 409, "reason": "Conflict", "verb": "patch"},
        {"status": 504, "carried_out": True, "verb": "patch"},
        {"status": 500, "plural": "pods"},
    ],
)
def test_calls_that_fail_are_made_again(fault: dict[str, Any], cluster: Cluster, versions, service) -> None:
    rollout = promote(versions[0])
    beat()
    cluster.api.fail(**fault)
    beat()
    assert again(rollout).state == State.WAITING

    beat(2)
    cluster.api.mend()
    service.serve(versions[0].digest)
    cluster.roll()
    beat(2)
    assert again(rollout).state == State.DONE
    assert rollout.previous_image == cluster.base


def test_a_cluster_that_does_not_answer_undoes_nothing_and_is_reported(
    cluster: Cluster, running: Rollout, service
) -> None:
    cluster.api.fail(status=500, message="etcdserver: no leader", times=1000)
    cluster.pass_time(10_000)
    beat(3)
    assert again(running).state == State.WAITING
    assert "no leader" in running.progress["detail"]

    cluster.api.mend()
    service.serve(running.model_version.digest)
    cluster.roll()
    beat()
    assert again(running).state == State.DONE, "what was done in time counts, even if nobody looked until now"


def test_a_deployment_that_is_gone_is_reported_and_given_up(
    cluster: Cluster, versions, service, settings
) -> None:
    cluster.api.objects.delete("deployments", NAMESPACE, NAME)
    rollout = promote(versions[0])
    beat()

    assert again(rollout).state == State.WAITING
    assert '"inference" not found' in rollout.progress["detail"]
    cluster.pass_time(settings.ROLLOUT_DEADLINE_SECONDS + 1)
    beat()
    assert again(rollout).state == State.FAILED, "or no run could follow"


def test_a_registry_that_is_away_is_waited_for_until_the_deadline(
    cluster: Cluster, versions, service, settings
) -> None:
    first = complete(promote(versions[0]), cluster, service)
    settings.MODEL_IMAGE_PUSH = f"127.0.0.1:{find_free_port()}/huisheng-model"
    rollout = promote(versions[1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RegistryAccess, "__init__", _impatient(RegistryAccess.__init__))
        beat()
        assert again(rollout).state == State.WAITING
        assert "镜像还没有推送成功" in rollout.progress["detail"]
        attempts = rollout.building_until
        beat()
        assert again(rollout).building_until == attempts, "not tried at every beat"
        cluster.pass_time(settings.ROLLOUT_DEADLINE_SECONDS + 1)
        beat()

    assert again(rollout).state == State.FAILED
    assert "was lost" in rollout.reason
    assert cluster.image == first.image
    assert ModelVersion.objects.champion() == first.model_version


def _impatient(initialise: Any) -> Any:
    def changed(self: RegistryAccess, *arguments: Any, **options: Any) -> None:
        initialise(self, *arguments, **{**options, "first_pause_seconds": 0.01})

    return changed


def test_a_damaged_artifact_becomes_no_image(cluster: Cluster, versions, service, store) -> None:
    weights = store.artifact(versions[0].digest) / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    rollout = promote(versions[0])
    beat()

    assert again(rollout).state == State.FAILED
    assert "weights.safetensors" in rollout.reason
    assert states()[versions[0].digest] == ModelVersion.State.REFUSED
    assert cluster.image == cluster.base


# -- Others who change the Deployment ----------------------------------------------------------------------------------


def test_an_operator_who_undoes_the_rollout_on_the_cluster_is_believed(
    cluster: Cluster, running: Rollout
) -> None:
    cluster.set_image(running.previous_image)
    beat()

    assert again(running).state == State.FAILED
    assert "镜像在集群上被退回" in running.reason
    assert ModelVersion.objects.champion() == running.previous
    beat(2)
    assert cluster.image == running.previous_image


def test_an_image_that_an_operator_set_is_left_alone_and_said(cluster: Cluster, versions, service) -> None:
    done = complete(promote(versions[0]), cluster, service)
    foreign = "registry.example/mine:debug"
    cluster.set_image(foreign)
    beat(3)

    assert cluster.image == foreign
    assert foreign in again(done).reason
    assert Rollout.objects.count() == 1

    cluster.set_image(done.image)
    beat()
    assert again(done).reason == ""


def test_rolling_back_to_the_champion_puts_its_image_back(cluster: Cluster, versions, service) -> None:
    done = complete(promote(versions[0]), cluster, service)
    cluster.set_image("registry.example/mine:debug")
    beat()
    rollout = rollback_model(to=ModelVersion.objects.champion(), actor="command")
    with pytest.raises(RolloutRefused, match="另一次上线正在进行"):
        rollback_model(to=ModelVersion.objects.champion(), actor="command")
    complete(rollout, cluster, service)

    assert cluster.image == done.image
    assert "registry.example/mine:debug" in rollout.reason
    assert ModelVersion.objects.champion() == versions[0]


def test_an_image_that_an_operator_sets_amid_a_rollout_ends_it(cluster: Cluster, running: Rollout) -> None:
    cluster.set_image("registry.example/mine:debug")
    beat(3)

    assert again(running).state == State.FAILED
    assert "registry.example/mine:debug" in running.reason
    assert cluster.image == "registry.example/mine:debug"


def test_a_rollout_that_is_overtaken_does_not_fight(
    cluster: Cluster, running: Rollout, versions, service
) -> None:
    later = promote(versions[2])
    complete(later, cluster, service)

    assert again(running).state == State.DONE
    assert "取代" in running.reason
    assert cluster.image == later.image
    assert states()[versions[1].digest] == ModelVersion.State.RETIRED


# -- Releases ----------------------------------------------------------------------------------------------------------


def test_a_release_keeps_the_champion_on_its_new_base_and_no_pod_stops_serving(
    cluster: Cluster, versions, service, registry: str, tmp_path: Path
) -> None:
    done = complete(promote(versions[0]), cluster, service)
    cluster.set_image(cluster.next_base)
    cluster.controllers.start_pod(cluster.waiting_pod(), ready=False)
    cluster.controllers.step()
    assert cluster.ready() == 2

    beat(3)
    rollout = Rollout.objects.get(actor=releases.RELEASE)
    assert cluster.image == rollout.image != done.image
    assert rollout.base_image == cluster.annotation("base-image") == cluster.next_base
    assert rollout.previous_image == done.image, "the base alone is nothing to go back to"
    assert cluster.ready() == 2
    cluster.roll()
    beat()
    assert again(rollout).state == State.DONE
    assert ModelVersion.objects.champion() == versions[0]
    with RegistryClient(registry, QUICK) as client:
        extract_image(client, parse_reference(rollout.image), tmp_path / "root")
    assert (tmp_path / "root/etc/base").read_text() == "made for release-2"

    # A worker of the release before, whose settings name the old base, changes nothing.
    beat(3)
    assert cluster.image == rollout.image
    later = complete(promote(versions[1]), cluster, service)
    assert later.base_image == cluster.next_base


def test_manifests_that_are_applied_again_bring_back_the_very_pods(
    cluster: Cluster, versions, service
) -> None:
    done = complete(promote(versions[0]), cluster, service)
    pods = {pod["metadata"]["name"] for pod in cluster.pods()}
    cluster.set_image(cluster.base)
    beat(3)
    cluster.controllers.step()

    assert cluster.image == done.image
    assert {pod["metadata"]["name"] for pod in cluster.pods()} == pods


def test_a_base_that_the_champion_fails_on_is_taken_back_and_the_champion_stays(
    cluster: Cluster, versions, service
) -> None:
    done = complete(promote(versions[0]), cluster, service)
    cluster.set_image(cluster.next_base)
    beat(3)
    cluster.crash(cluster.waiting_pod(), "an artifact of format 2, and this version reads format 3")
    beat(2)

    rollout = Rollout.objects.get(actor=releases.RELEASE)
    assert again(rollout).state == State.FAILED
    assert "format 3" in rollout.reason
    assert ModelVersion.objects.champion() == versions[0]
    assert states()[versions[0].digest] == ModelVersion.State.CHAMPION
    assert cluster.image == done.image

    cluster.set_image(cluster.next_base)  # applied once more: not tried again so soon
    beat(2)
    assert cluster.image == done.image
    assert Rollout.objects.count() == 2
    cluster.pass_time(releases.RETRY_RELEASE_SECONDS + 1)
    cluster.set_image(cluster.next_base)
    beat()
    assert Rollout.objects.count() == 3


def test_a_release_amid_a_rollout_begins_it_again_on_the_new_base(
    cluster: Cluster, running: Rollout, service
) -> None:
    before = again(running).image
    cluster.set_image(cluster.next_base)
    beat()
    assert again(running).image == ""
    complete(running, cluster, service)

    assert running.image != before
    assert running.base_image == cluster.next_base
    assert cluster.image == running.image


def test_two_workers_renew_a_release_once(cluster: Cluster, versions, service, transactional_db) -> None:
    complete(promote(versions[0]), cluster, service)
    cluster.set_image(cluster.next_base)
    in_threads(releases.tend_deployment, 3)

    assert Rollout.objects.filter(actor=releases.RELEASE).count() == 1


def test_a_failed_image_that_a_late_worker_sets_once_more_is_put_back(
    cluster: Cluster, running: Rollout
) -> None:
    undo_rollout(again(running), "refused")
    beat()
    assert again(running).reverted_at is not None
    cluster.set_image(running.image)
    beat()

    assert cluster.image == running.previous_image


# -- Commands, pages, settings -----------------------------------------------------------------------------------------


def test_rollback_model_waits_until_the_pods_follow(
    cluster: Cluster, versions, service, monkeypatch, capsys
) -> None:
    first = complete(promote(versions[0]), cluster, service)
    complete(promote(versions[1]), cluster, service)
    looks = iter(range(100))

    def look(_: float) -> None:
        if next(looks) == 3:
            service.serve(versions[0].digest)
            cluster.roll()

    monkeypatch.setattr("blog_site.training.management.commands.rollback_model.time.sleep", look)
    call_command("rollback_model")

    said = capsys.readouterr().out
    assert "正在替换 Pod 0/2" in said
    assert f"在用模型：{versions[0].digest}" in said
    assert cluster.image == first.image


def test_rollback_model_says_why_the_pods_did_not_follow(
    cluster: Cluster, versions, service, monkeypatch
) -> None:
    complete(promote(versions[0]), cluster, service)
    complete(promote(versions[1]), cluster, service)
    looks = iter(range(100))

    def look(_: float) -> None:
        if next(looks) == 3:
            cluster.crash(cluster.waiting_pod(), "no")

    monkeypatch.setattr("blog_site.training.management.commands.rollback_model.time.sleep", look)
    with pytest.raises(CommandError, match="CrashLoopBackOff"):
        call_command("rollback_model")


def test_the_pages_show_the_image_how_far_it_is_and_why(
    cluster: Cluster, running: Rollout, people: dict[str, Client]
) -> None:
    run = make_run(state=Run.State.REGISTERED, model_version=running.model_version)
    Rollout.objects.filter(pk=running.pk).update(actor=f"run:{run.pk}")
    pod = cluster.waiting_pod()
    cluster.controllers.hold_pod(pod, "ImagePullBackOff", "no such host")
    advance_rollout(again(running))

    pages = [
        people["admin"].get(reverse("admin:training_run_progress", args=[run.pk])).content.decode(),
        people["admin"].get(reverse("admin:training_rollout_change", args=[running.pk])).content.decode(),
    ]
    for page in pages:
        assert running.image in page
        assert pod["metadata"]["name"] in page
        assert "ImagePullBackOff" in page
        assert "no such host" in page
        assert "1 / 2" in page, "updated of desired"
    listed = people["admin"].get(reverse("admin:training_modelversion_changelist")).content.decode()
    assert running.image.rpartition(":")[2][:12] in listed


def test_the_status_tells_how_far_the_pods_are(cluster: Cluster, running: Rollout, capsys) -> None:
    advance_rollout(running)
    call_command("training_status", "--json")

    told = json.loads(capsys.readouterr().out)["rollout"]
    assert (told["image"], told["progress"]) == (again(running).image, "正在替换 Pod 1/2")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"MODEL_ROLLOUT": "magic"}, "MODEL_ROLLOUT is 'magic'"),
        ({"MODEL_IMAGE": "", "MODEL_IMAGE_PUSH": ""}, "MODEL_IMAGE is not set"),
        ({"INFERENCE_BASE_IMAGE": ""}, "INFERENCE_BASE_IMAGE is not set"),
        ({"MODEL_IMAGE": "huisheng-model"}, "MODEL_IMAGE: .*does not name its registry"),
        ({"MODEL_IMAGE_PUSH": "registry:5000/model:1"}, "MODEL_IMAGE_PUSH.*leave out the version"),
        (
            {"MODEL_IMAGE": "registry:5000/one", "INFERENCE_BASE_IMAGE": "registry:5000/one:1"},
            "choose another for models",
        ),
    ],
)
def test_settings_that_cannot_be_are_named_at_the_start(
    change: dict[str, str], problem: str, cluster: Cluster, settings
) -> None:
    assert check_rollouts(None) == []
    for name, value in change.items():
        setattr(settings, name, value)

    found = check_rollouts(None)
    assert [error.id for error in found] == ["training.E002"]
    with pytest.raises(AssertionError, match=problem):
        raise AssertionError(found[0].msg)


# -- Rights ------------------------------------------------------------------------------------------------------------


def test_the_worker_needs_just_what_its_role_allows(cluster: Cluster, running: Rollout) -> None:
    roles = yaml.safe_load_all((ROOT / "infra/k8s/base/worker/rbac.yaml").read_text())
    role = next(one for one in roles if one["kind"] == "Role" and one["metadata"]["name"] == "rollout")
    cluster.api.allow = [role]
    cluster.crash(cluster.waiting_pod(), "no")
    beat(3)

    assert again(running).state == State.FAILED
    assert cluster.image == running.previous_image
    allowed = {
        (role["metadata"]["namespace"], group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert cluster.api.verbs() == allowed
    assert {request.name for request in cluster.api.requests if request.resource == "deployments"} == {NAME}
