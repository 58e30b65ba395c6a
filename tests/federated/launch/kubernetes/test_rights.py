"""The rights that the worker is given are the ones that the launcher uses: not one less, and not one more."""

from __future__ import annotations

from pathlib import Path

import yaml

from federated.launch.kubernetes import names
from tests.federated.launch.kubernetes.conftest import NAMESPACE, Training

ROLES = Path(__file__).resolve().parents[4] / "infra" / "k8s" / "base" / "worker" / "rbac.yaml"
Rights = set[tuple[str, str, str]]


def rights_of(role: dict) -> Rights:
    return {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_the_role_is_exactly_what_a_runs_whole_life_asks_for(training: Training) -> None:
    roles = [
        value for value in yaml.safe_load_all(ROLES.read_text(encoding="utf-8")) if value["kind"] == "Role"
    ]
    role = next(value for value in roles if value["metadata"]["name"] == "launcher")
    assert role["metadata"]["namespace"] == NAMESPACE
    training.api.allow = [role]  # what it does not allow is refused

    training.start()
    training.run_pods()
    training.controllers.write_log(training.aggregator_pod(), "startup complete\n")
    training.write_diary('{"kind": "phase", "phase": "training", "rounds": 30}')
    assert training.status().pods[0].log == ("startup complete",)
    training.api.objects.delete("jobs", NAMESPACE, names.trainer_name("run-12", "food"), "Background")
    training.controllers.step()
    training.launcher.heal("run-12")
    owner = training.api.objects.get("jobs", NAMESPACE, "run-12-aggregator")
    for plural, kind, name in (("secrets", "Secret", "run-12"), ("services", "Service", "run-12-aggregator")):
        found = training.api.objects.get(plural, NAMESPACE, name)
        manifest = {key: value for key, value in found.items() if key not in ("status", "immutable")}
        training.launcher._create(
            {**manifest, "kind": kind}, training.spec, owner
        )  # somebody else was quicker
    training.launcher.resume("run-12")
    training.launcher.runs()
    training.controllers.step()
    pod = training.trainer_pod("food")
    training.api.objects.delete("jobs", NAMESPACE, names.trainer_name("run-12", "food"), "Orphan")
    assert not training.launcher.stop("run-12")
    training.controllers.step()
    assert training.launcher.stop("run-12")
    assert training.api.objects.find("pods", NAMESPACE, pod["metadata"]["name"]) is None

    used = training.api.verbs()
    assert {namespace for namespace, *_ in used} == {NAMESPACE}
    assert {(group, resource, verb) for _, group, resource, verb in used} == rights_of(role)
