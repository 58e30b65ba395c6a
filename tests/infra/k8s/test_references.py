"""What one object says of another is true: selectors, ports, settings, secrets, claims."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import pytest
import yaml

from infra.k8s.make_secrets import FILES, RANDOM
from tests.infra.k8s.conftest import REPOSITORY
from tests.infra.k8s.manifests import NAME, Manifests, Object, Workload, references

HASHED = re.compile(r".+-[a-z0-9]{10}")
# Where what runs in an image reads its environment.
READERS: Mapping[str, tuple[str, ...]] = {
    "huisheng-web": ("blog_site/**/*.py", "federated/**/*.py", "ml/**/*.py", "infra/docker/*.sh"),
    "huisheng-inference": ("ml/**/*.py",),
    "huisheng-gateway": ("infra/nginx/*", "infra/docker/gateway.sh"),
    "mysql": ("infra/k8s/base/backup/*.sh", "infra/k8s/components/mariadb/*.sh"),
    "mariadb": ("infra/k8s/base/backup/*.sh", "infra/k8s/components/mariadb/*.sh"),
    "redis": ("infra/k8s/base/redis/*",),
}
# Read by the entrypoint of the image mysql itself.
OF_OFFICIAL_IMAGES = {"MYSQL_DATABASE", "MYSQL_USER", "MYSQL_PASSWORD", "MYSQL_ROOT_PASSWORD"}


def image_name(container: Object) -> str:
    return str(container["image"]).rpartition("/")[2].partition(":")[0]


def names_read(image: str) -> set[str]:
    return {
        name
        for pattern in READERS[image]
        for path in REPOSITORY.glob(pattern)
        if path.is_file()
        for name in re.findall(r"\b[A-Z][A-Z0-9_]{2,}\b", path.read_text(encoding="utf-8"))
    }


def test_selectors_pick_the_pods_they_mean(manifests: Manifests) -> None:
    for workload in manifests.workloads:
        if not workload.serves:
            continue
        selector = workload.owner["spec"]["selector"]["matchLabels"]
        assert selector.items() <= workload.labels.items(), workload
        assert selector == {NAME: workload.name}, f"{workload}: it cannot be changed later"


def test_services_lead_to_a_port_that_a_pod_has(manifests: Manifests) -> None:
    for service in manifests.of_kind("Service"):
        name, selector = service["metadata"]["name"], service["spec"]["selector"]
        behind = [
            workload
            for workload in manifests.workloads
            if workload.serves
            and workload.namespace == service["metadata"]["namespace"]
            and selector.items() <= workload.labels.items()
        ]
        assert len(behind) == 1, f"{name}: {behind}"
        ports = {port["name"]: port["containerPort"] for port in behind[0].containers[0]["ports"]}
        for port in service["spec"]["ports"]:
            assert port["targetPort"] in ports, name


def test_stateful_sets_name_a_service_and_keep_their_volumes(manifests: Manifests) -> None:
    services = {service["metadata"]["name"] for service in manifests.of_kind("Service")}
    for item in manifests.of_kind("StatefulSet"):
        assert item["spec"]["serviceName"] in services
        assert set(item["spec"]["persistentVolumeClaimRetentionPolicy"].values()) == {"Retain"}
        claimed = {claim["metadata"]["name"] for claim in item["spec"]["volumeClaimTemplates"]}
        (container,) = item["spec"]["template"]["spec"]["containers"]
        assert claimed <= {mount["name"] for mount in container["volumeMounts"]}


def test_addresses_in_settings_are_services_with_that_port(manifests: Manifests) -> None:
    ports = {
        service["metadata"]["name"]: {port["port"] for port in service["spec"]["ports"]}
        for service in manifests.of_kind("Service")
    }
    settings = manifests.settings()
    for name in ("INFERENCE_URL", "ARTIFACT_STORE_URL"):
        found = re.fullmatch(r"http://([a-z]+)(?:\.huisheng\.svc)?:(\d+)", settings[name])
        assert found, settings[name]
        assert int(found[2]) in ports[found[1]]
    # Pods of the other namespace are given it too.
    assert ".huisheng.svc:" in settings["ARTIFACT_STORE_URL"]


def test_volumes_that_are_mounted_are_declared_and_the_other_way_round(manifests: Manifests) -> None:
    for workload in manifests.workloads:
        declared = {volume["name"] for volume in workload.pod.get("volumes", [])}
        claims = (
            workload.owner["spec"].get("volumeClaimTemplates", []) if workload.kind == "StatefulSet" else []
        )
        declared |= {claim["metadata"]["name"] for claim in claims}
        mounted = {
            mount["name"]
            for container in workload.all_containers
            for mount in container.get("volumeMounts", [])
        }
        assert mounted == declared, workload


def test_config_maps_and_claims_that_pods_name_are_there(manifests: Manifests) -> None:
    there = {
        (item["kind"], item["metadata"]["namespace"], item["metadata"]["name"]): item
        for kind in ("ConfigMap", "PersistentVolumeClaim")
        for item in manifests.of_kind(kind)
    }
    for workload in manifests.workloads:
        for kind, name, _ in references(workload):
            if kind == "Secret":
                continue
            assert (kind, workload.namespace, name) in there, f"{workload}: {kind} {name}"
            if kind == "ConfigMap":
                assert HASHED.fullmatch(name), f"{workload}: a change of {name} would start no pod anew"


def test_settings_of_the_launcher_name_what_is_there(manifests: Manifests) -> None:
    settings = manifests.settings()
    manifests.get("PersistentVolumeClaim", settings["TRAINING_JOURNAL_CLAIM"])
    manifests.get("PriorityClass", settings["TRAINING_PRIORITY_CLASS"])
    assert settings["TRAINING_NAMESPACE"] in {
        item["metadata"]["name"] for item in manifests.of_kind("Namespace")
    }
    assert manifests.workload(settings["INFERENCE_DEPLOYMENT"]).namespace == settings["INFERENCE_NAMESPACE"]
    accounts = {
        item["metadata"]["name"]
        for item in manifests.of_kind("ServiceAccount")
        if item["metadata"]["namespace"] == settings["TRAINING_NAMESPACE"]
    }
    assert accounts == {"aggregator", "trainer"}


def test_training_comes_after_everything_that_serves(manifests: Manifests) -> None:
    (priority,) = manifests.of_kind("PriorityClass")
    assert priority["value"] < 0, "pods without a class have 0"
    assert priority["globalDefault"] is False
    quota = manifests.get("ResourceQuota", "training")
    assert quota["metadata"]["namespace"] == "huisheng-training"
    assert {"requests.cpu", "requests.memory", "limits.cpu", "limits.memory", "pods"} <= set(
        quota["spec"]["hard"]
    )


# -- Secrets -----------------------------------------------------------------------------------------------------------


def secrets_wanted(workloads: list[Workload]) -> dict[str, set[str]]:
    wanted: dict[str, set[str]] = {}
    for workload in workloads:
        for kind, name, key in references(workload):
            if kind == "Secret":
                wanted.setdefault(name, set()).update([key] if key else [])
    return wanted


@pytest.mark.parametrize("overlay", ["local", "local-registry"])
def test_secrets_that_pods_name_are_made(overlay: str, build: Callable[[str], Manifests]) -> None:
    built = build(f"overlays/{overlay}")
    made = {item["metadata"]["name"]: set(item["data"]) for item in built.of_kind("Secret")}

    wanted = secrets_wanted(built.workloads)
    for name, keys in wanted.items():
        assert keys <= made[name], name
        assert HASHED.fullmatch(name) or name == "huisheng-migrate", (
            f"a change of {name} would start no pod anew"
        )
    assert set(made) == set(wanted), "nothing is made that nobody names"


def test_production_makes_no_secret_and_says_which_it_wants(build: Callable[[str], Manifests]) -> None:
    built = build("overlays/production")
    said = (REPOSITORY / "infra/k8s/overlays/production/kustomization.yaml").read_text()

    assert built.of_kind("Secret") == []
    wanted = set(secrets_wanted(built.workloads))
    assert wanted == {f"huisheng-{name}" for name in FILES}
    for name in wanted:
        assert re.search(rf"\b{name}\b", said), f"the overlay does not say that {name} must be there"


def test_no_value_of_a_secret_is_in_the_repository() -> None:
    kustomizations = REPOSITORY.glob("infra/k8s/**/*.yaml")
    for path in kustomizations:
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            assert (document or {}).get("kind") != "Secret", path
            for generator in (document or {}).get("secretGenerator", []):
                assert "literals" not in generator, path
    ignored = (REPOSITORY / ".gitignore").read_text().splitlines()
    assert "/infra/k8s/overlays/local/secrets/*.env" in ignored


# -- Names of variables ------------------------------------------------------------------------------------------------


def test_every_variable_that_a_pod_is_given_is_read_by_what_runs_in_it(
    build: Callable[[str], Manifests],
) -> None:
    built = build("overlays/local-registry")
    values = {
        (kind, item["metadata"]["name"]): set(item["data"])
        for kind in ("ConfigMap", "Secret")
        for item in built.of_kind(kind)
    }
    unread: list[str] = []
    for workload in built.workloads:
        if workload.kind == "PodTemplate":
            continue
        for container in workload.all_containers:
            given = {variable["name"] for variable in container.get("env", [])}
            for source in container.get("envFrom", []):
                for kind, reference in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
                    if reference in source:
                        given |= values[kind, source[reference]["name"]]
            image = image_name(container)
            known = names_read(image) | (OF_OFFICIAL_IMAGES if image == "mysql" else set())
            unread += [f"{workload}/{container['name']}: {name}" for name in sorted(given - known)]
    assert unread == []


def test_components_and_overlays_set_only_what_is_read() -> None:
    known = names_read("huisheng-web")
    for path in REPOSITORY.glob("infra/k8s/**/*.yaml"):
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            for generator in (document or {}).get("configMapGenerator", []):
                if generator["name"] == "huisheng-web":
                    for literal in generator.get("literals", []):
                        assert literal.partition("=")[0] in known, path
    for path in REPOSITORY.glob("infra/k8s/**/settings.env"):
        lines = [line for line in path.read_text().splitlines() if "=" in line and not line.startswith("#")]
        assert {line.partition("=")[0] for line in lines} <= known, path


def test_the_blogs_secret_holds_what_the_settings_keep_secret() -> None:
    values = dict.fromkeys(RANDOM, "x")
    assert set(FILES["web"](values)) <= names_read("huisheng-web")
