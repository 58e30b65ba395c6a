"""What an overlay renders to, and ways to look at it."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

Object = dict[str, Any]
NAME = "app.kubernetes.io/name"
# PyYAML's own loader takes seconds for what libyaml takes tenths of one.
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Workload:
    """Something that starts pods, and the pods' own part of it."""

    owner: Object
    template: Object  # metadata and spec of a pod

    @property
    def kind(self) -> str:
        return str(self.owner["kind"])

    @property
    def name(self) -> str:
        return str(self.owner["metadata"]["name"])

    @property
    def namespace(self) -> str:
        return str(self.owner["metadata"]["namespace"])

    @property
    def labels(self) -> Mapping[str, str]:
        return dict(self.template["metadata"]["labels"])

    @property
    def pod(self) -> Object:
        return dict(self.template["spec"])

    @property
    def containers(self) -> list[Object]:
        return list(self.pod["containers"])

    @property
    def all_containers(self) -> list[Object]:
        return [*self.pod.get("initContainers", []), *self.containers]

    @property
    def serves(self) -> bool:
        """Whether it runs until it is told to end."""
        return self.kind in ("Deployment", "StatefulSet")

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


class Manifests:
    """All objects of one rendering."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.objects: list[Object] = [item for item in yaml.load_all(text, Loader=LOADER) if item]

    def of_kind(self, kind: str) -> list[Object]:
        return [item for item in self.objects if item["kind"] == kind]

    def get(self, kind: str, name: str) -> Object:
        """The object whose name begins so: generated ones have a digest after it."""
        found = [
            item
            for item in self.of_kind(kind)
            if item["metadata"]["name"] == name or item["metadata"]["name"].rpartition("-")[0] == name
        ]
        assert len(found) == 1, f"{len(found)} objects {kind} {name}"
        return found[0]

    @functools.cached_property
    def workloads(self) -> list[Workload]:
        return [Workload(item, template) for item in self.objects if (template := pod_template(item))]

    def workload(self, name: str) -> Workload:
        (found,) = [item for item in self.workloads if item.name == name]
        return found

    def settings(self) -> Mapping[str, str]:
        return dict(self.get("ConfigMap", "huisheng-web")["data"])


def pod_template(item: Object) -> Object | None:
    match item["kind"]:
        case "Deployment" | "StatefulSet" | "DaemonSet" | "Job":
            return dict(item["spec"]["template"])
        case "CronJob":
            return dict(item["spec"]["jobTemplate"]["spec"]["template"])
        case "PodTemplate":
            return dict(item["template"])
    return None


def references(workload: Workload) -> Iterator[tuple[str, str, str | None]]:
    """What a pod names of ConfigMaps, Secrets and claims: kind, name, and the key if it wants a certain one."""
    for volume in workload.pod.get("volumes", []):
        if "configMap" in volume:
            yield "ConfigMap", volume["configMap"]["name"], None
        if "secret" in volume:
            yield "Secret", volume["secret"]["secretName"], None
        if "persistentVolumeClaim" in volume:
            yield "PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"], None
    for container in workload.all_containers:
        for source in container.get("envFrom", []):
            if "configMapRef" in source:
                yield "ConfigMap", source["configMapRef"]["name"], None
            if "secretRef" in source:
                yield "Secret", source["secretRef"]["name"], None
        for variable in container.get("env", []):
            wanted = variable.get("valueFrom", {})
            if "secretKeyRef" in wanted:
                yield "Secret", wanted["secretKeyRef"]["name"], wanted["secretKeyRef"]["key"]
            if "configMapKeyRef" in wanted:
                yield "ConfigMap", wanted["configMapKeyRef"]["name"], wanted["configMapKeyRef"]["key"]
