"""What every pod keeps to: the restricted standard, limits, probes that mean what they say, a rollout without a gap."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from infra.k8s.rendering import Release
from tests.infra.k8s.conftest import RENDERINGS, Render
from tests.infra.k8s.manifests import NAME, Manifests, Object, Workload

BEHIND_A_SERVICE = {"gateway", "web", "inference"}
MEMORY = re.compile(r"(\d+)(Mi|Gi)")
RELEASED = {"huisheng-web", "huisheng-gateway", "huisheng-inference", "huisheng-trainer"}


def containers(manifests: Manifests) -> Iterator[tuple[Workload, Object]]:
    for workload in manifests.workloads:
        for container in workload.all_containers:
            yield workload, container


def megabytes(quantity: str) -> int:
    number = MEMORY.fullmatch(quantity)
    assert number, quantity
    return int(number[1]) * (1024 if number[2] == "Gi" else 1)


def test_every_pod_is_restricted_and_sees_no_more_than_it_needs(manifests: Manifests) -> None:
    for workload in manifests.workloads:
        pod = workload.pod
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True, workload
        assert context["runAsUser"] > 0, workload
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, workload
        assert pod["enableServiceLinks"] is False, (
            f"{workload}: variables like WEB_PORT would come from Services"
        )
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod), workload
        allowed = {"configMap", "emptyDir", "secret", "persistentVolumeClaim"}
        for volume in pod.get("volumes", []):
            assert set(volume) - {"name"} <= allowed, f"{workload}: {volume}"
    for workload, container in containers(manifests):
        where = f"{workload}/{container['name']}"
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False, where
        assert context["readOnlyRootFilesystem"] is True, where
        assert context["capabilities"] == {"drop": ["ALL"]}, where
        assert "runAsUser" not in context, where
        assert all("hostPort" not in port for port in container.get("ports", [])), where


def test_programs_of_our_images_are_told_to_end_by_their_init(manifests: Manifests) -> None:
    """The kernel keeps SIGTERM from a process 1 that has no handler of its own, as Python has none."""
    for workload, container in containers(manifests):
        ours = re.search(r"(^|/)huisheng-(web|inference|trainer)[:@]", container["image"])
        if ours and "command" in container:  # in the place of the image's entry point, which begins with tini
            assert container["command"][:2] == ["/usr/bin/tini", "--"], f"{workload}/{container['name']}"


def test_both_namespaces_enforce_what_the_pods_keep_to(manifests: Manifests) -> None:
    namespaces = manifests.of_kind("Namespace")
    assert {item["metadata"]["name"] for item in namespaces} == {"huisheng", "huisheng-training"}
    for item in namespaces:
        assert item["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_every_container_asks_for_what_it_needs_and_is_limited(manifests: Manifests) -> None:
    for workload, container in containers(manifests):
        where = f"{workload}/{container['name']}"
        wanted, limit = container["resources"]["requests"], container["resources"]["limits"]
        assert set(wanted) == set(limit) == {"cpu", "memory"}, where
        assert megabytes(wanted["memory"]) <= megabytes(limit["memory"]), where
    for workload in manifests.workloads:
        for volume in workload.pod.get("volumes", []):
            if "emptyDir" in volume:
                assert volume["emptyDir"].get("sizeLimit"), f"{workload}: {volume['name']} may fill the node"


def test_the_labeller_has_room_for_the_dictionaries_of_snownlp(manifests: Manifests) -> None:
    """They take 400 MB beside the 120 of a worker, and are what labels where no language model is set."""
    (labeller,) = manifests.workload("labeller").containers
    assert megabytes(labeller["resources"]["requests"]["memory"]) >= 512
    assert megabytes(labeller["resources"]["limits"]["memory"]) >= 1024


def test_a_read_only_file_system_has_a_tmp(manifests: Manifests) -> None:
    for workload, container in containers(manifests):
        if workload.kind == "PodTemplate":
            continue
        mounts = {mount["mountPath"]: mount["name"] for mount in container.get("volumeMounts", [])}
        volumes = {volume["name"]: volume for volume in workload.pod.get("volumes", [])}
        assert "emptyDir" in volumes[mounts["/tmp"]], f"{workload}/{container['name']}"


def test_images_have_a_version_and_are_not_pulled_again(manifests: Manifests) -> None:
    for workload, container in containers(manifests):
        where = f"{workload}/{container['name']}: {container['image']}"
        _, colon, tag = container["image"].rpartition("/")[2].partition(":")
        assert colon, where
        assert tag not in ("", "latest"), where
        if workload.kind != "PodTemplate":
            assert container["imagePullPolicy"] == "IfNotPresent", where


def test_only_the_worker_has_a_token_and_every_service_its_own_account(manifests: Manifests) -> None:
    accounts = {
        (item["metadata"]["namespace"], item["metadata"]["name"]): item
        for item in manifests.of_kind("ServiceAccount")
    }
    for workload in manifests.workloads:
        account = workload.pod["serviceAccountName"]
        assert (workload.namespace, account) in accounts, workload
        assert account == workload.labels[NAME], f"{workload} borrows the account of {account}"
        assert workload.pod["automountServiceAccountToken"] is (workload.name == "worker"), workload
    assert all(item["automountServiceAccountToken"] is False for item in accounts.values())


def test_roles_are_of_the_worker_alone_and_their_references_exist(manifests: Manifests) -> None:
    assert not manifests.of_kind("ClusterRole") + manifests.of_kind("ClusterRoleBinding")
    roles = {
        (item["metadata"]["namespace"], item["metadata"]["name"]): item for item in manifests.of_kind("Role")
    }
    assert set(roles) == {("huisheng-training", "launcher"), ("huisheng", "rollout")}
    for binding in manifests.of_kind("RoleBinding"):
        assert (binding["metadata"]["namespace"], binding["roleRef"]["name"]) in roles
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "worker", "namespace": "huisheng"}]
    for role in roles.values():
        for rule in role["rules"]:
            assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
    (deployments,) = [
        rule for rule in roles["huisheng", "rollout"]["rules"] if "deployments" in rule["resources"]
    ]
    assert deployments["resourceNames"] == ["inference"]


# -- Probes and rollouts -----------------------------------------------------------------------------------------------


def probe_path(container: Object, probe: str) -> str:
    return str(container[probe].get("httpGet", {}).get("path", "exec"))


def test_what_serves_is_probed_in_all_three_ways(manifests: Manifests) -> None:
    for workload in manifests.workloads:
        if not workload.serves:
            continue
        for container in workload.containers:
            ports = {port["name"] for port in container.get("ports", [])}
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                asked = container[probe]
                assert ("httpGet" in asked) != ("exec" in asked), f"{workload}: {probe}"
                assert asked.get("httpGet", {}).get("port", "http") in ports | {"http"}, (
                    f"{workload}: {probe}"
                )
            patience = (
                container["startupProbe"]["periodSeconds"] * container["startupProbe"]["failureThreshold"]
            )
            assert patience >= 60, f"{workload}: starts within {patience} s or is killed"
            live = container["livenessProbe"]
            assert live["periodSeconds"] * live.get("failureThreshold", 3) >= 30, (
                f"{workload}: killed at once"
            )


def test_liveness_depends_on_nobody_else(manifests: Manifests) -> None:
    """/livez is answered by the process alone; /readyz may ask the database, or want a model."""
    for workload in manifests.workloads:
        for container in workload.containers if workload.serves else []:
            assert probe_path(container, "livenessProbe") in ("/livez", "exec"), workload
    (inference,) = manifests.workload("inference").containers
    assert probe_path(inference, "startupProbe") == "/readyz", "a model is loaded and warm"
    assert probe_path(inference, "readinessProbe") == "/readyz"
    (web,) = manifests.workload("web").containers
    assert probe_path(web, "readinessProbe") == "/readyz", "the database answers"


def test_probes_of_the_blog_say_a_host_that_is_allowed(manifests: Manifests) -> None:
    allowed = manifests.settings()["ALLOWED_HOSTS"].split(",")
    (web,) = manifests.workload("web").containers
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        headers = {header["name"]: header["value"] for header in web[probe]["httpGet"]["httpHeaders"]}
        assert headers["Host"] in allowed or "*" in allowed
        assert headers["X-Forwarded-Proto"] == "https", "with TLS=1 it would be answered with a redirect"


def test_a_rollout_leaves_no_gap(manifests: Manifests) -> None:
    for name in BEHIND_A_SERVICE:
        workload = manifests.workload(name)
        strategy = workload.owner["spec"]["strategy"]
        assert strategy["type"] == "RollingUpdate"
        assert strategy["rollingUpdate"]["maxUnavailable"] == 0, name
        (container,) = workload.containers
        pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert pause >= 5, f"{name}: an endpoint's removal takes seconds to reach everybody"
        assert workload.pod["terminationGracePeriodSeconds"] >= pause + 20, (
            f"{name}: no time to answer what is left"
        )
        assert workload.owner["spec"]["progressDeadlineSeconds"] <= 600


def test_one_beat_is_never_two(manifests: Manifests) -> None:
    beat = manifests.workload("beat").owner["spec"]
    assert beat["replicas"] == 1
    assert beat["strategy"] == {"type": "Recreate"}


def test_scaled_deployments_name_no_replicas(manifests: Manifests) -> None:
    scalers = {
        item["metadata"]["name"]: item["spec"] for item in manifests.of_kind("HorizontalPodAutoscaler")
    }
    assert {"web", "worker", "inference"} <= set(scalers)
    for name, spec in scalers.items():
        assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
        assert "replicas" not in manifests.workload(name).owner["spec"], (
            f"{name}: applying it would undo the scaling"
        )
        assert 1 <= spec["minReplicas"] < spec["maxReplicas"]
        assert spec["behavior"]["scaleDown"]["stabilizationWindowSeconds"] >= 300
    fast = scalers["inference"]["behavior"]["scaleUp"]
    assert fast["stabilizationWindowSeconds"] == 0
    assert min(policy["periodSeconds"] for policy in fast["policies"]) <= 15


def test_one_machine_holds_everything_and_a_run_of_three_sites(render: Render) -> None:
    """Four processors and 8 GB, of which the cluster itself takes more than one, and 1 GB."""
    built = render(RENDERINGS["local-registry"])
    most = {
        item["metadata"]["name"]: item["spec"]["maxReplicas"]
        for item in built.of_kind("HorizontalPodAutoscaler")
    }
    processors = memory = 0
    for workload in built.workloads:
        if workload.kind in ("Deployment", "StatefulSet"):
            pods = (
                1
                if workload.name == "inference"
                else most.get(workload.name, workload.owner["spec"].get("replicas"))
            )
            asked = [container["resources"]["requests"] for container in workload.all_containers]
            processors += pods * max(int(each["cpu"].removesuffix("m")) for each in asked)
            memory += pods * max(megabytes(each["memory"]) for each in asked)
    settings = built.settings()
    for role, pods in (("TRAINER", 3), ("AGGREGATOR", 1)):
        processors += pods * int(settings[f"{role}_CPU"].removesuffix("m"))
        memory += pods * megabytes(settings[f"{role}_MEMORY"])

    assert processors <= 2750
    assert memory <= 7200


def test_what_may_have_several_pods_is_spread_and_drained_one_at_a_time(manifests: Manifests) -> None:
    budgets = {item["metadata"]["name"]: item["spec"] for item in manifests.of_kind("PodDisruptionBudget")}
    several = {
        workload.name
        for workload in manifests.workloads
        if workload.kind == "Deployment" and workload.owner["spec"].get("replicas", 2) > 1
    }
    assert several == set(budgets)
    for name in several:
        labels = manifests.workload(name).labels
        assert budgets[name]["maxUnavailable"] == 1, (
            "minAvailable: 1 would hold up a node while there is one pod"
        )
        assert budgets[name]["selector"]["matchLabels"].items() <= labels.items()
        spread = manifests.workload(name).pod["topologySpreadConstraints"]
        assert [each["topologyKey"] for each in spread] == [
            "kubernetes.io/hostname",
            "topology.kubernetes.io/zone",
        ]
        for each in spread:
            assert each["labelSelector"]["matchLabels"].items() <= labels.items()
            assert each["whenUnsatisfiable"] == "ScheduleAnyway"


def test_the_database_is_given_time_to_write_everything_down(manifests: Manifests) -> None:
    for workload in manifests.workloads:
        if workload.name == "mysql":
            assert workload.pod["terminationGracePeriodSeconds"] >= 300
            (container,) = workload.containers
            assert "preStop" not in container.get("lifecycle", {})


# -- The Job that migrates ---------------------------------------------------------------------------------------------


def migration(manifests: Manifests) -> Object:
    (job,) = manifests.of_kind("Job")
    return job


def test_a_release_migrates_once_and_another_release_again(render: Render) -> None:
    one, again, other = (
        migration(render(Release(overlay="local", registry="registry:5000", tag=tag)))
        for tag in ("1.0", "1.0", "2.0")
    )

    assert one == again
    assert one["metadata"]["name"] == "migrate-1.0"
    assert other["metadata"]["name"] == "migrate-2.0", "a Job cannot be changed"
    assert one["spec"]["ttlSecondsAfterFinished"] > 0


def test_another_setting_or_secret_does_not_change_the_job(render: Render) -> None:
    """Its template is immutable, so applying it again would be refused."""
    one = migration(render(Release(overlay="local", tag="1")))
    other = migration(render(Release(overlay="local", tag="1", settings={"LABELLER": "openai"})))

    assert one == other
    named = json.dumps(one)
    assert '"huisheng-migrate"' in named
    assert "huisheng-web-" not in named


def test_a_digest_pins_the_image_and_the_tag_names_the_job(render: Render) -> None:
    digest = "sha256:" + "a" * 64
    built = render(
        Release(overlay="production", registry="r.example", tag="1.2.3", digests={"huisheng-web": digest})
    )

    assert migration(built)["metadata"]["name"] == "migrate-1.2.3"
    (container,) = built.workload("migrate-1.2.3").containers
    assert container["image"] == f"r.example/huisheng-web:1.2.3@{digest}"


def test_everything_of_django_waits_for_the_migrations(manifests: Manifests) -> None:
    waiting = {"web", "worker", "labeller", "beat"}
    for workload in manifests.workloads:
        images = {
            container["image"].rpartition("/")[2].partition(":")[0] for container in workload.containers
        }
        if not workload.serves or "huisheng-web" not in images:
            continue
        waiting.discard(workload.name)
        first = workload.pod["initContainers"][0]
        assert first["args"][:2] == ["manage", "wait_for_migrations"], workload
        assert first["image"] == workload.containers[0]["image"]
    assert not waiting


# -- Images ------------------------------------------------------------------------------------------------------------


def test_one_registry_and_tag_reach_every_image_and_the_settings_that_name_images(render: Render) -> None:
    built = render(Release(overlay="local", registry="registry:5000", tag="abc"))

    ours = {container["image"] for _, container in containers(built) if "huisheng-" in container["image"]}
    assert ours == {f"registry:5000/{name}:abc" for name in RELEASED}
    settings = built.settings()
    assert settings["TRAINER_IMAGE"] == "registry:5000/huisheng-trainer:abc"
    assert settings["INFERENCE_BASE_IMAGE"] == "registry:5000/huisheng-inference:abc"
    assert settings["MODEL_IMAGE"] == "registry:5000/huisheng-model"
    assert settings["MODEL_ROLLOUT"] == "image"


def test_the_settings_that_name_images_follow_them_in_every_rendering(manifests: Manifests) -> None:
    images = {container["name"]: container["image"] for _, container in containers(manifests)}

    assert manifests.settings()["TRAINER_IMAGE"] == images["trainer"]
    assert manifests.settings()["INFERENCE_BASE_IMAGE"] == images["inference"]


def test_without_a_registry_models_come_through_the_store_verified(render: Render) -> None:
    built = render(Release(overlay="local"))

    inference = built.workload("inference")
    (fetch,) = inference.pod["initContainers"]
    assert fetch["command"][-3:] == ["python", "-m", "ml.serve.fetch"]
    for container in (fetch, *inference.containers):
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        assert mounts["/srv/cache"] == "cache"
        assert container["args"] == ["--cache", "/srv/cache"]
    assert built.settings()["MODEL_ROLLOUT"] == "pointer"


def test_other_images_can_be_named(render: Render) -> None:
    built = render(
        Release(
            overlay="local",
            components=("mariadb",),
            images={"mariadb": "registry:5000/debian/mariadb:10.11", "redis": "registry:5000/redis:7"},
        )
    )

    used = {container["image"] for _, container in containers(built)}
    assert {"registry:5000/debian/mariadb:10.11", "registry:5000/redis:7"} <= used
    assert not any(image.startswith(("mysql", "mariadb", "redis")) for image in used)


@pytest.mark.parametrize("job", ["backup", "restore"])
def test_dumps_are_made_and_put_back_by_the_databases_own_image(manifests: Manifests, job: str) -> None:
    if not manifests.of_kind("CronJob"):
        assert not [workload for workload in manifests.workloads if workload.name == "mysql"], (
            "managed elsewhere"
        )
        return
    (database,) = manifests.workload("mysql").containers
    assert manifests.workload(job).all_containers[0]["image"] == database["image"]
