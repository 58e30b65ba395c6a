"""The launcher against a fake cluster that answers as a real one does, through every failure that one may have."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Any

import pytest

from federated.launch import LauncherError
from federated.launch.kubernetes import names
from federated.protocol import DIARY, PodStatus, RunStatus
from tests.cluster.objects import Object, Refused
from tests.federated.launch.kubernetes.conftest import NAMESPACE, SITES, Training, make_spec

TRAINING = '{"kind": "phase", "phase": "training", "rounds": 30}'
DONE = '{"kind": "done", "artifact": "a", "report": {}}'


def of_site(status: RunStatus, site: str) -> list[PodStatus]:
    return [pod for pod in status.pods if pod.site == site]


def refuse(plural: str, message: str) -> Any:
    def admit(of: str, value: Object) -> None:
        if of == plural:
            raise Refused(403, "Forbidden", message)

    return admit


# -- Starting --------------------------------------------------------------------------------------------------------


def test_a_run_is_one_aggregator_and_a_trainer_for_each_site_all_owned_by_the_aggregators_job(
    training: Training,
) -> None:
    assert training.status() == RunStatus("absent")
    training.start()
    assert training.objects() == training.whole()
    owner = training.api.objects.get("jobs", NAMESPACE, "run-12-aggregator")
    assert owner["spec"]["suspend"] is False
    for plural in ("jobs", "secrets", "services"):
        for found in training.api.objects.all(plural):
            assert found["metadata"]["labels"][names.RUN_LABEL] == "run-12"
            if found["metadata"]["name"] != owner["metadata"]["name"]:
                assert [o["uid"] for o in found["metadata"]["ownerReferences"]] == [owner["metadata"]["uid"]]
    assert training.status().phase == "starting"
    assert [pod.phase for pod in training.status().pods] == ["pending"] * 4


def test_starting_a_run_again_changes_nothing(training: Training) -> None:
    training.start()
    before = training.api.objects.version
    training.launcher.start(training.spec)
    assert training.api.objects.version == before


def test_two_workers_that_start_a_run_at_once_start_one(training: Training) -> None:
    failures: list[BaseException] = []

    def start() -> None:
        try:
            training.launcher.start(training.spec)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []
    assert training.objects() == training.whole()
    training.controllers.step()
    assert len(training.api.objects.all("pods")) == 4


@pytest.mark.parametrize("carried_out", [False, True])
def test_a_start_that_is_cut_off_after_any_call_is_finished_by_the_next(
    training: Training, carried_out: bool
) -> None:
    """The worker dies, or the answer is lost; either way the run stays "absent" until all of it is there."""
    for reached in range(1, 30):
        training.api.requests.clear()
        fault = training.api.fail(dropped=True, carried_out=carried_out)
        fault.fits = lambda request, reached=reached: len(training.api.requests) == reached  # type: ignore[method-assign]
        try:
            training.launcher.start(training.spec)
        except LauncherError as error:
            assert not error.permanent
            training.api.mend()
            owner = training.api.objects.find("jobs", NAMESPACE, "run-12-aggregator")
            suspended = owner is None or owner["spec"]["suspend"]
            assert (training.status().phase == "absent") == suspended
        else:
            break
    else:
        raise AssertionError("a start makes fewer calls than that")
    training.api.mend()
    assert reached > 2
    assert training.objects() == training.whole()
    training.controllers.step()
    assert training.status().phase == "starting"


def test_nothing_is_begun_while_the_run_is_not_whole(training: Training) -> None:
    training.api.fail(status=500, verb="create", plural="secrets")
    with pytest.raises(LauncherError) as error:
        training.start()
    assert not error.value.permanent
    training.controllers.step()
    assert training.api.objects.all("pods") == []
    assert training.status().phase == "absent"
    training.start()
    assert training.objects() == training.whole()
    assert len(training.api.objects.all("pods")) == 4


def test_objects_of_another_installation_are_left_alone_and_named(training: Training) -> None:
    """As when the database was made anew: its first run has a name that another one had."""
    training.start()
    other = replace(training.spec, planned_at="2026-02-02T03:04:05+00:00")
    with pytest.raises(
        LauncherError, match=r"Job run-12-aggregator was made for another run.*kubectl delete"
    ) as error:
        training.launcher.start(other)
    assert error.value.permanent
    assert training.objects() == training.whole()


def test_what_another_run_of_that_name_has_said_is_not_taken_for_this_ones(training: Training) -> None:
    training.write_diary(TRAINING, DONE)
    training.spec = replace(training.spec, planned_at="2026-02-02T03:04:05+00:00")
    training.start()
    assert training.status().phase == "starting"


def test_a_name_that_no_object_may_have_is_refused(training: Training) -> None:
    with pytest.raises(LauncherError, match="cannot name objects"):
        training.launcher.start(make_spec("Run_1"))


# -- Looking ---------------------------------------------------------------------------------------------------------


def test_progress_comes_from_the_diary_and_pods_with_their_last_lines_from_the_cluster(
    training: Training,
) -> None:
    training.start()
    training.run_pods()
    training.controllers.write_log(
        training.aggregator_pod(), "".join(f"line {number}\n" for number in range(9))
    )
    training.write_diary(TRAINING)
    status = training.status()
    assert (status.phase, status.rounds_planned) == ("training", 30)
    aggregator = status.pods[0]
    assert (aggregator.site, aggregator.phase, aggregator.node) == ("", "running", "node-1")
    assert aggregator.log == ("line 4", "line 5", "line 6", "line 7", "line 8")
    assert [pod.site for pod in status.pods[1:]] == sorted(SITES)


def test_a_run_is_done_when_its_diary_says_so_whatever_became_of_its_pods(training: Training) -> None:
    training.start()
    training.run_pods()
    training.write_diary(TRAINING, DONE)
    training.controllers.finish_pod(training.aggregator_pod(), exit_code=1)
    training.controllers.step()
    assert training.status().result == {"artifact": "a", "report": {}}


def test_a_lost_aggregator_is_replaced_and_the_run_goes_on(training: Training) -> None:
    training.start()
    training.run_pods()
    training.write_diary(TRAINING)
    first = training.aggregator_pod()["metadata"]["name"]
    training.controllers.finish_pod(training.aggregator_pod(), exit_code=137, reason="OOMKilled")
    training.controllers.step()
    status = training.status()
    assert status.phase == "training"
    assert [(pod.phase, pod.exit_code) for pod in of_site(status, "")] in (
        [("pending", None), ("failed", 137)],
        [("failed", 137), ("pending", None)],  # made within the same second
    )
    assert {pod.failures for pod in of_site(status, "")} == {1}
    failed = next(pod for pod in status.pods if pod.phase == "failed")
    assert (failed.name, failed.reason) == (first, "aggregator ended with 137 (OOMKilled)")


def test_an_aggregator_that_ends_for_good_without_a_last_word_fails_the_run_with_what_is_known(
    training: Training,
) -> None:
    training.start()
    training.run_pods()
    training.controllers.finish_pod(
        training.aggregator_pod(), exit_code=2, log="usage: …\nno such argument\n"
    )
    training.controllers.step()
    status = training.status()
    assert status.phase == "failed"
    assert "the aggregator ended without a result: PodFailurePolicy" in status.reason
    assert "aggregator ended with 2" in status.reason
    assert status.reason.endswith("no such argument")


def test_an_aggregator_that_dies_again_and_again_fails_the_run(training: Training) -> None:
    training.start()
    limit = training.api.objects.get("jobs", NAMESPACE, "run-12-aggregator")["spec"]["backoffLimit"]
    for _ in range(limit + 1):
        assert training.aggregator_pod()["status"]["phase"] == "Pending"
        training.controllers.finish_pod(training.aggregator_pod(), exit_code=139)
        training.controllers.step()
    assert "BackoffLimitExceeded" in training.status().reason


def test_what_the_aggregator_said_last_stands_and_pods_in_trouble_are_named_beside_it(
    training: Training,
) -> None:
    training.start()
    training.controllers.hold_pod(training.trainer_pod("food"), "ErrImagePull", "not found")
    training.write_diary(TRAINING, '{"kind": "failed", "reason": "0 of 3 sites joined"}')
    status = training.status()
    assert status.phase == "failed"
    assert status.reason.startswith("0 of 3 sites joined; run-12-food-")
    assert "ErrImagePull: not found" in status.reason


WAITING = [
    ("ImagePullBackOff", 'Back-off pulling image "registry:5000/huisheng-trainer:1"'),
    ("ErrImagePull", "failed to resolve reference"),
    ("CreateContainerConfigError", 'secret "run-12" not found'),
    ("CrashLoopBackOff", "back-off 5m0s restarting failed container"),
]


@pytest.mark.parametrize(("reason", "message"), WAITING)
def test_a_pod_that_cannot_begin_is_reported_at_once_and_ends_the_run_after_a_while(
    training: Training, reason: str, message: str
) -> None:
    training.start()
    training.controllers.hold_pod(
        training.aggregator_pod(), reason, message, init=reason == "ImagePullBackOff"
    )
    status = training.status()
    name = training.aggregator_pod()["metadata"]["name"]
    assert (status.phase, status.reason) == ("starting", f"{name}: {reason}: {message}")
    training.cluster = replace(training.cluster, pending_seconds=-10)  # that much time has passed
    status = training.status()
    assert status.phase == "failed"
    assert status.reason.startswith("pods that cannot begin (waited -10 s): ")
    assert f"{name}: {reason}: {message}" in status.reason


def test_an_image_that_can_never_be_pulled_ends_the_run_at_once(training: Training) -> None:
    training.start()
    training.controllers.hold_pod(
        training.aggregator_pod(), "InvalidImageName", "couldn't parse image reference"
    )
    assert training.status().phase == "failed"


def test_a_pod_without_a_node_is_reported_with_the_schedulers_reason(training: Training) -> None:
    training.start()
    training.controllers.leave_unscheduled(
        training.aggregator_pod(), "0/3 nodes are available: 3 Insufficient memory."
    )
    status = training.status()
    assert "Unschedulable: 0/3 nodes are available: 3 Insufficient memory." in status.reason
    assert status.pods[0].events == ("FailedScheduling: 0/3 nodes are available: 3 Insufficient memory.",)


def test_a_volume_that_cannot_be_mounted_is_reported(training: Training) -> None:
    training.start()
    training.controllers.write_event(
        training.aggregator_pod(), "FailedMount", 'MountVolume.SetUp failed: secret "run-12"'
    )
    assert "FailedMount: MountVolume.SetUp failed" in training.status().reason


def test_a_quota_that_keeps_pods_from_being_made_is_reported_by_the_jobs_name(training: Training) -> None:
    training.api.objects.admission.append(
        refuse("pods", 'pods "x" is forbidden: exceeded quota: training, limited: pods=4')
    )
    training.start()
    status = training.status()
    assert {pod.phase for pod in status.pods} == {"missing"}
    assert "run-12-aggregator: FailedCreate: Error creating: pods" in status.reason
    assert "exceeded quota" in status.reason


def test_one_site_that_cannot_begin_does_not_end_the_run_but_all_of_them_do(training: Training) -> None:
    training.start()
    training.cluster = replace(training.cluster, pending_seconds=-10)
    training.controllers.start_pod(training.aggregator_pod())
    for site in SITES[:2]:
        training.controllers.hold_pod(training.trainer_pod(site), "ImagePullBackOff", "no such image")
    training.controllers.start_pod(training.trainer_pod(SITES[2]))
    assert training.status().phase == "starting"
    training.controllers.hold_pod(training.trainer_pod(SITES[2]), "ImagePullBackOff", "no such image")
    assert training.status().phase == "failed"


def test_an_evicted_trainer_is_replaced_and_not_counted(training: Training) -> None:
    training.start()
    training.run_pods()
    for _ in range(12):  # more often than a Job is tried
        training.controllers.evict_pod(training.trainer_pod("food"))
        training.controllers.step()
        training.run_pods()
    pods = of_site(training.status(), "food")
    assert (len(pods), {pod.failures for pod in pods}) == (13, {0})
    assert "EvictionByEvictionAPI" in next(pod for pod in pods if pod.phase == "failed").reason


def test_a_trainer_that_is_refused_is_not_tried_again(training: Training) -> None:
    training.start()
    training.run_pods()
    training.controllers.finish_pod(training.trainer_pod("food"), exit_code=10)
    training.controllers.finish_pod(training.trainer_pod("旅行"), exit_code=2, init=True)
    training.controllers.finish_pod(training.trainer_pod(SITES[2]), exit_code=11)
    training.controllers.step()
    status = training.status()
    assert [len(of_site(status, site)) for site in SITES] == [1, 1, 2]
    assert "fetch-shard ended with 2" in of_site(status, "旅行")[0].reason


# -- Healing ---------------------------------------------------------------------------------------------------------


def test_what_somebody_deletes_of_a_run_under_way_is_made_anew(training: Training) -> None:
    training.start()
    training.run_pods()
    training.write_diary(TRAINING)
    food = names.trainer_name("run-12", "food")
    for plural, name in (
        ("jobs", food),
        ("secrets", food),
        ("services", "run-12-aggregator"),
        ("secrets", "run-12"),
    ):
        training.api.objects.delete(plural, NAMESPACE, name, "Background")
    training.controllers.step()
    assert training.objects() != training.whole()
    training.launcher.heal("run-12")
    training.controllers.step()
    assert training.objects() == training.whole()
    assert training.trainer_pod("food")["status"]["phase"] == "Pending"


def test_a_run_whose_aggregators_job_was_deleted_is_absent_and_started_again_once_it_is_gone(
    training: Training,
) -> None:
    training.start()
    training.run_pods()
    training.write_diary(TRAINING)
    training.api.objects.delete("jobs", NAMESPACE, "run-12-aggregator", "Foreground")
    assert training.status().phase == "absent"
    with pytest.raises(LauncherError, match="still being removed") as error:
        training.launcher.start(training.spec)
    assert not error.value.permanent
    training.launcher.heal("run-12")  # has nothing to say about it
    training.controllers.step(3)
    assert training.objects() == []
    training.start()
    assert training.objects() == training.whole()
    assert training.status().phase == "training"


def test_a_run_that_is_over_is_not_healed(training: Training) -> None:
    training.start()
    training.write_diary(TRAINING, '{"kind": "phase", "phase": "evaluating"}')
    training.api.objects.delete("jobs", NAMESPACE, names.trainer_name("run-12", "food"), "Background")
    training.controllers.step()
    training.launcher.heal("run-12")
    assert f"jobs/{names.trainer_name('run-12', 'food')}" not in training.objects()
    training.launcher.heal("run-13")  # that never was


def test_a_run_that_is_being_stopped_is_not_healed(training: Training) -> None:
    training.start()
    training.run_pods()
    training.write_diary(TRAINING)
    training.launcher.stop("run-12")
    left = training.objects()
    training.launcher.heal("run-12")
    assert training.objects() == left
    training.controllers.step()
    training.launcher.heal("run-12")
    assert training.objects() == []


# -- Stopping and going on -------------------------------------------------------------------------------------------


def test_stopping_leaves_nothing_and_says_when(training: Training) -> None:
    training.start()
    training.run_pods()
    other = Training(training.api, training.controllers, training.store, make_spec("run-1"))
    other.start()
    assert training.launcher.stop("run-12") is False
    training.controllers.step()
    assert training.launcher.stop("run-12") is True
    assert training.objects() == other.whole()
    assert training.status() == RunStatus("absent")
    assert training.launcher.stop("run-99") is True


def test_stopping_a_half_made_run_leaves_nothing_either(training: Training) -> None:
    training.api.fail(status=500, verb="create", plural="services")
    with pytest.raises(LauncherError):
        training.start()
    training.launcher.stop("run-12")
    training.controllers.step()
    assert training.objects() == []


def test_what_is_made_while_the_run_is_stopped_goes_with_its_owner(training: Training) -> None:
    """A worker that was still at it when another one stopped the run."""
    training.start()
    owner = training.api.objects.get("jobs", NAMESPACE, "run-12-aggregator")
    training.launcher.stop("run-12")
    training.controllers.step()
    training.launcher._complete(training.spec, owner)
    assert training.objects() != []
    training.controllers.step()
    assert training.objects() == []


def test_a_failed_run_goes_on_under_new_jobs_once_the_old_ones_are_gone(training: Training) -> None:
    training.start()
    training.run_pods()
    training.write_diary(TRAINING, '{"kind": "failed", "reason": "not done within 600 s"}')
    training.controllers.finish_pod(training.aggregator_pod(), exit_code=1)
    training.controllers.step()
    assert training.status().phase == "failed"
    assert training.launcher.resume("run-12") is False
    training.controllers.step()
    assert training.launcher.resume("run-12") is True
    training.start()
    assert training.status().phase == "starting"  # and not "failed", as the diary ended
    assert training.objects() == training.whole()
    folder = names.folder_name("run-12", names.spec_digest(training.spec))
    diary = training.store.read_run_file(folder, DIARY).decode().splitlines()
    assert diary[0] == TRAINING  # what it was before stays known
    job = training.api.objects.get("jobs", NAMESPACE, "run-12-aggregator")
    args = job["spec"]["template"]["spec"]["containers"][0]["args"]
    assert f"/journals/{folder}" in args  # the same journal


def test_a_run_that_was_stopped_only_in_word_simply_goes_on(training: Training) -> None:
    training.start()
    training.run_pods()
    training.write_diary(TRAINING)
    before = training.api.objects.version
    assert training.launcher.resume("run-12") is True
    assert training.api.objects.version == before


def test_orphans_are_found_by_what_is_left_of_them(training: Training) -> None:
    assert training.launcher.runs() == set()
    training.start()
    for plural, name, kind in (("secrets", "run-7-x", "Secret"), ("services", "run-8-aggregator", "Service")):
        spec: dict[str, Any] = {"spec": {"ports": [{"port": 1}]}} if kind == "Service" else {}
        labels = names.run_labels(name[:5])
        training.api.objects.create(plural, NAMESPACE, {"metadata": {"name": name, "labels": labels}, **spec})
    assert training.launcher.runs() == {"run-12", "run-7", "run-8"}


# -- An API server in trouble ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "permanent"),
    [
        ({"status": 500}, False),
        ({"status": 503, "reason": "ServiceUnavailable"}, False),
        ({"status": 429, "reason": "TooManyRequests", "retry_after": 1}, False),
        ({"status": 409, "reason": "Conflict"}, False),
        ({"status": 401, "reason": "Unauthorized"}, False),
        ({"dropped": True}, False),
        ({"status": 403, "reason": "Forbidden", "message": "secrets is forbidden"}, True),
        ({"status": 403, "reason": "Forbidden", "message": "exceeded quota: training"}, False),
        ({"status": 422, "reason": "Invalid"}, True),
        ({"status": 404, "reason": "NotFound", "message": 'namespaces "huisheng-training" not found'}, True),
        ({"status": 400, "reason": "BadRequest"}, True),
    ],
)
def test_a_call_that_fails_is_told_by_kind(
    training: Training, fault: dict[str, Any], permanent: bool
) -> None:
    training.api.fail(verb="create", **fault)
    with pytest.raises(LauncherError) as error:
        training.launcher.start(training.spec)
    assert error.value.permanent is permanent
    assert "cannot create Job run-12-aggregator" in str(error.value)


def test_an_api_server_that_does_not_answer_is_not_waited_for(training: Training, monkeypatch) -> None:
    monkeypatch.setattr("federated.launch.kubernetes.api.READ_SECONDS", 0.3)
    training.api.fail(status=0, seconds=60, verb="list", plural="jobs")
    began = time.monotonic()
    with pytest.raises(LauncherError, match="does not answer") as error:
        training.status()
    assert not error.value.permanent
    assert time.monotonic() - began < 50


def test_lists_come_in_pages_and_begin_anew_when_their_token_has_expired(
    training: Training, monkeypatch
) -> None:
    monkeypatch.setattr("federated.launch.kubernetes.api.PAGE_SIZE", 2)
    training.start()
    assert len(training.status().pods) == 4
    training.api.continue_expires = 1
    assert len(training.status().pods) == 4
    training.api.continue_expires = 100
    with pytest.raises(LauncherError) as error:
        training.status()
    assert not error.value.permanent


def test_an_object_that_has_taken_anothers_name_is_not_deleted_in_its_place(training: Training) -> None:
    training.start()
    left = training.launcher._left_of("run-12")
    job = next(found for found in left if found["metadata"]["name"] == "run-12-aggregator")
    training.launcher._api.delete({**job, "metadata": {**job["metadata"], "uid": "another"}})
    assert training.objects() == training.whole()


def test_a_log_that_cannot_be_read_any_more_is_empty(training: Training) -> None:
    training.start()
    training.run_pods()
    training.api.fail(status=404, reason="NotFound", verb="get", plural="pods/log", times=4)
    assert {pod.log for pod in training.status().pods} == {()}


def test_a_worker_without_rights_is_told_which_role_it_lacks(training: Training) -> None:
    training.api.allow = []
    with pytest.raises(LauncherError, match="needs Role launcher") as error:
        training.status()
    assert error.value.permanent
