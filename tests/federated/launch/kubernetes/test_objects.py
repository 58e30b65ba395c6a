"""The manifests of a run: valid for every Kubernetes they may meet, locked down, and each site's for itself."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import kubernetes_validate
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kubernetes_validate.utils import all_versions, major_minor

from federated.launch.kubernetes import names, objects
from federated.launch.kubernetes.cluster import Resources, TrainingCluster, problem_of
from federated.protocol import EXIT_MOVED, EXIT_REFUSED, EXIT_UNREACHABLE, EXIT_USAGE, RunSpec, SiteSpec
from tests.federated.launch.kubernetes.conftest import (
    NAMESPACE,
    SITES,
    STORE_URL,
    Training,
    make_cluster,
    make_spec,
)

OLDEST = (1, 31)
NOW = 1_800_000_000.0
OWNER = {"metadata": {"name": "run-12-aggregator", "uid": "0b1c2d3e-0000-4000-8000-000000000000"}}
GPU_CLUSTER = make_cluster(
    gpus=2,
    node_selector={"pool": "training"},
    pull_secret="registry",
    priority_class="",
    aggregator=Resources("1500m", "2Gi"),
)
LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
OBJECT_NAME = re.compile(r"[a-z]([-a-z0-9]{0,56}[a-z0-9])?")  # with room for a pod's own five letters


def make_all(cluster: TrainingCluster, spec: RunSpec | None = None) -> list[dict[str, Any]]:
    spec = spec or make_spec()
    tokens = {site: f"token-of-{index}" for index, site in enumerate(spec.sites)}
    made = [
        objects.make_aggregator_job(spec, cluster, has_failed=True),
        objects.make_run_secret(spec, cluster, tokens, OWNER, NOW),
        objects.make_service(spec, OWNER),
    ]
    for site in spec.sites:
        made.append(objects.make_site_secret(spec, site, cluster, tokens[site], OWNER, NOW))
        made.append(objects.make_trainer_job(spec, site, cluster, OWNER))
    return made


def jobs(cluster: TrainingCluster) -> Iterator[dict[str, Any]]:
    return (manifest for manifest in make_all(cluster) if manifest["kind"] == "Job")


def pod_of(job: dict[str, Any]) -> dict[str, Any]:
    pod: dict[str, Any] = job["spec"]["template"]["spec"]
    return pod


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod["initContainers"], *pod["containers"]]


VERSIONS = sorted(
    {major_minor(version) for version in all_versions()},
    key=lambda version: tuple(map(int, version.split("."))),
)


@pytest.mark.parametrize("version", [v for v in VERSIONS if tuple(map(int, v.split("."))) >= OLDEST])
def test_every_object_fits_every_kubernetes_strictly(version: str) -> None:
    # One of each, with every option there is: schemas are read anew for every object.
    kinds = {
        (manifest["kind"], manifest["metadata"]["labels"][names.NAME_LABEL]): manifest
        for manifest in make_all(replace(GPU_CLUSTER, priority_class="huisheng-training"))
    }
    assert len(kinds) == 5
    for manifest in kinds.values():
        kubernetes_validate.validate(manifest, version, strict=True)


def test_the_schemas_of_the_clusters_we_run_on_are_there() -> None:
    assert {"1.31", "1.36"} <= set(VERSIONS)


@pytest.mark.parametrize("cluster", [make_cluster(), GPU_CLUSTER])
def test_every_pod_is_what_pod_security_calls_restricted(cluster: TrainingCluster) -> None:
    """kubernetes.io/docs/concepts/security/pod-security-standards, and a read-only root file system."""
    for job in jobs(cluster):
        pod = pod_of(job)
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        allowed = {"emptyDir", "secret", "persistentVolumeClaim"}
        assert all(set(volume) - {"name"} <= allowed for volume in pod["volumes"])
        for container in containers(pod):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert not any("hostPort" in port for port in container.get("ports", []))


@pytest.mark.parametrize("cluster", [make_cluster(), GPU_CLUSTER])
def test_no_pod_has_a_token_or_more_than_its_share(cluster: TrainingCluster) -> None:
    for job in jobs(cluster):
        pod = pod_of(job)
        assert (pod["automountServiceAccountToken"], pod["enableServiceLinks"]) == (False, False)
        assert pod["serviceAccountName"] == job["metadata"]["labels"][names.NAME_LABEL]
        for container in containers(pod):
            for kind in ("requests", "limits"):
                assert container["resources"][kind].keys() >= {"cpu", "memory"}
        assert job["spec"]["activeDeadlineSeconds"] > 600
        assert job["spec"]["ttlSecondsAfterFinished"] > job["spec"]["activeDeadlineSeconds"]


def test_what_an_operator_sets_stands_in_the_pods() -> None:
    for job in jobs(GPU_CLUSTER):
        pod = pod_of(job)
        trains = job["metadata"]["labels"][names.NAME_LABEL] == names.TRAINER
        assert pod["nodeSelector"] == {"pool": "training"}
        assert pod["imagePullSecrets"] == [{"name": "registry"}]
        assert "priorityClassName" not in pod
        assert pod["containers"][0]["resources"]["limits"].get("nvidia.com/gpu") == ("2" if trains else None)
        # The aggregator too is selected onto such nodes, which keep away what does not tolerate their taint.
        assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    for job in jobs(replace(GPU_CLUSTER, node_selector={})):
        trains = job["metadata"]["labels"][names.NAME_LABEL] == names.TRAINER
        assert ("tolerations" in pod_of(job)) == trains
    for job in jobs(make_cluster()):
        assert pod_of(job)["priorityClassName"] == "huisheng-training"
        assert not {"nodeSelector", "imagePullSecrets", "tolerations"} & pod_of(job).keys()


def test_threads_are_whole_processors_and_never_none() -> None:
    assert [Resources(cpu, "1Gi").threads() for cpu in ("1", "2.5", "500m", "3500m")] == [1, 2, 1, 3]


# -- Each site for itself --------------------------------------------------------------------------------------------


def secrets_named(pod: dict[str, Any]) -> set[str]:
    variables = [entry for container in containers(pod) for entry in container["env"]]
    by_variable = {entry["valueFrom"]["secretKeyRef"]["name"] for entry in variables if "valueFrom" in entry}
    return by_variable | {volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume}


def test_a_trainer_knows_its_own_secret_and_nobody_elses() -> None:
    spec = make_spec()
    for site in spec.sites:
        job = objects.make_trainer_job(spec, site, make_cluster(), OWNER)
        assert secrets_named(pod_of(job)) == {names.trainer_name("run-12", site)}
        secret = objects.make_site_secret(spec, site, make_cluster(), "its-token", OWNER, NOW)["stringData"]
        assert secret.keys() == {"token", "shard-url", "validation-url"}
        part = spec.sites[site]
        assert secret["shard-url"].startswith(f"{STORE_URL}/shards/{part.shard_digest}.jsonl?")
        others = [other for name, other in spec.sites.items() if name != site]
        assert not any(other.shard_digest in json.dumps(secret) for other in others)


def test_the_aggregator_knows_all_tokens_and_no_way_to_a_shard() -> None:
    spec, cluster = make_spec(), make_cluster()
    assert secrets_named(pod_of(objects.make_aggregator_job(spec, cluster))) == {"run-12"}
    secret = objects.make_run_secret(spec, cluster, {"food": "t"}, OWNER, NOW)["stringData"]
    addresses = re.findall(r"http://\S+/shards/(\w+)", "".join(secret.values()))
    assert addresses == [spec.heldout_digest]
    assert cluster.signing_key not in json.dumps(make_all(cluster))
    assert cluster.signing_key not in repr(cluster)


def test_a_pods_own_container_can_only_read_what_was_fetched_for_it() -> None:
    for job in jobs(make_cluster()):
        pod = pod_of(job)
        mounts = {mount["mountPath"]: mount for mount in pod["containers"][0]["volumeMounts"]}
        assert mounts["/data"]["readOnly"] is True
        assert {path for path, mount in mounts.items() if not mount.get("readOnly")} <= {"/tmp", "/journals"}
        for init in pod["initContainers"]:
            assert init["args"][:3] == ["python", "-m", "federated.fetch"]
            assert "command" not in init  # the image's entry point stays
            assert init["args"][-1].startswith("/data/")
            assert not any("http" in word for word in init["args"])  # an address is a secret: see `ps`


def test_addresses_are_good_for_as_long_as_a_pod_may_have_to_fetch_them() -> None:
    spec, cluster = make_spec(), make_cluster()
    secret = objects.make_site_secret(spec, "food", cluster, "t", OWNER, NOW)["stringData"]
    expires = int(re.search(r"expires=(\d+)", secret["shard-url"])[1])  # type: ignore[index]
    assert (
        expires - NOW
        >= objects.make_trainer_job(spec, "food", cluster, OWNER)["spec"]["activeDeadlineSeconds"]
    )


# -- How ends are taken ----------------------------------------------------------------------------------------------


def judge(job: dict[str, Any], code: int, container: str = "") -> str:
    container = container or pod_of(job)["containers"][0]["name"]
    for rule in job["spec"]["podFailurePolicy"]["rules"]:
        codes = rule.get("onExitCodes", {"values": []})
        if code in codes["values"] and codes.get("containerName") in (None, container):
            return str(rule["action"])
    return "Count"


def test_each_exit_code_is_taken_for_what_it_means() -> None:
    made = {job["metadata"]["name"]: job for job in jobs(make_cluster())}
    aggregator, trainer = made["run-12-aggregator"], made[names.trainer_name("run-12", "food")]
    for job in (aggregator, trainer):
        assert job["spec"]["podFailurePolicy"]["rules"][0] == {
            "action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
        }  # fmt: skip
        assert pod_of(job)["restartPolicy"] == "Never"
        assert [judge(job, code) for code in (EXIT_USAGE, EXIT_REFUSED)] == ["FailJob"] * 2
        assert [judge(job, code) for code in (EXIT_UNREACHABLE, EXIT_MOVED, 137, 139)] == ["Count"] * 4
    assert (judge(aggregator, 1), judge(trainer, 1)) == ("FailJob", "Count")
    assert judge(aggregator, 1, "fetch-heldout") == "Count"  # it could not write: another node may have room


def test_the_service_finds_an_aggregator_that_is_not_ready_yet() -> None:
    service = objects.make_service(make_spec(), OWNER)
    job = objects.make_aggregator_job(make_spec(), make_cluster())
    assert (service["spec"]["clusterIP"], service["spec"]["publishNotReadyAddresses"]) == ("None", True)
    assert service["spec"]["selector"].items() <= job["spec"]["template"]["metadata"]["labels"].items()
    trainer = objects.make_trainer_job(make_spec(), "food", make_cluster(), OWNER)
    assert (
        not service["spec"]["selector"].items() <= trainer["spec"]["template"]["metadata"]["labels"].items()
    )
    args = pod_of(trainer)["containers"][0]["args"]
    assert args[args.index("--aggregator") + 1] == f"http://{service['metadata']['name']}:9000"


def test_a_run_that_failed_goes_on_only_when_asked_to() -> None:
    for has_failed in (False, True):
        job = objects.make_aggregator_job(make_spec(), make_cluster(), has_failed=has_failed)
        assert ("--resume-failed" in pod_of(job)["containers"][0]["args"]) is has_failed


# -- Names -----------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    sites=st.lists(st.text(min_size=1, max_size=200), min_size=1, max_size=6, unique=True),
    run=st.integers(1, 10**12),
)
def test_whatever_sites_are_called_their_objects_have_names_of_their_own(sites: list[str], run: int) -> None:
    spec = make_spec(f"run-{run}", sites={site: SiteSpec("1" * 64, 1, "2" * 64, 1) for site in sites})
    found = [(names.trainer_name(spec.run, site), names.trainer_labels(spec.run, site)) for site in sites]
    assert len({name for name, _labels in found} | {names.aggregator_name(spec.run)}) == len(sites) + 1
    for name, labels in found:
        assert OBJECT_NAME.fullmatch(name)
        assert all(LABEL.fullmatch(value) for value in labels.values())
    assert names.check_run(spec.run) == spec.run


def test_a_sites_name_stays_readable_and_the_same() -> None:
    assert names.site_name("food") == "food-c1f02658"
    assert re.fullmatch(r"[0-9a-f]{8}", names.site_name("旅行"))
    assert names.site_name("Food") != names.site_name("food")


def test_a_runs_digest_tells_runs_apart_and_survives_new_settings() -> None:
    spec = make_spec()
    set_anew = make_spec(deadline_seconds=60, store_url="http://other", rounds=9)
    assert names.spec_digest(spec) == names.spec_digest(set_anew)
    for field, value in (
        ("planned_at", "2027"),
        ("heldout_digest", "f" * 64),
        ("champion_digest", "a" * 64),
        ("run", "run-13"),
    ):
        assert names.spec_digest(make_spec(**{field: value})) != names.spec_digest(spec)


def test_only_complete_settings_are_good() -> None:
    assert problem_of(make_cluster(), STORE_URL) == ""
    assert problem_of(GPU_CLUSTER, STORE_URL) == ""
    assert "TRAINER_IMAGE, ARTIFACT_STORE_SIGNING_KEY" in problem_of(
        make_cluster(image="", signing_key=""), STORE_URL
    )


def test_what_the_cluster_keeps_is_what_was_meant(training: Training) -> None:
    """The server's own rules about names, labels, policies and immutable fields hold."""
    training.start()
    secret = training.api.objects.get("secrets", NAMESPACE, "run-12")
    spec = RunSpec.from_json(base64.b64decode(secret["data"]["spec.json"]).decode())
    assert spec.run == names.folder_name("run-12", names.spec_digest(training.spec))
    assert set(json.loads(base64.b64decode(secret["data"]["tokens"]))) == set(SITES)
