"""What the API server keeps: objects by resource, namespace and name, and the history that watches are told."""

from __future__ import annotations

import datetime
import itertools
import pickle
import random
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.cluster.schemas import Invalid, validate

Object = dict[str, Any]


@dataclass(frozen=True)
class Resource:
    group: str
    version: str
    plural: str
    kind: str
    subresources: tuple[str, ...] = ("status",)
    # What may be selected by; the real server refuses any other field with 400.
    fields: tuple[str, ...] = ("metadata.name", "metadata.namespace")

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


RESOURCES = {
    resource.plural: resource
    for resource in (
        Resource(
            "",
            "v1",
            "pods",
            "Pod",
            ("status", "log", "eviction"),
            ("metadata.name", "metadata.namespace", "spec.nodeName", "spec.restartPolicy", "status.phase"),
        ),
        Resource("", "v1", "secrets", "Secret", (), ("metadata.name", "metadata.namespace", "type")),
        Resource("", "v1", "configmaps", "ConfigMap", ()),
        Resource("", "v1", "services", "Service"),
        Resource(
            "",
            "v1",
            "events",
            "Event",
            (),
            (
                "metadata.name",
                "metadata.namespace",
                "involvedObject.kind",
                "involvedObject.name",
                "involvedObject.namespace",
                "involvedObject.uid",
                "reason",
                "type",
                "source",
            ),
        ),
        Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim"),
        Resource(
            "batch",
            "v1",
            "jobs",
            "Job",
            ("status",),
            ("metadata.name", "metadata.namespace", "status.successful"),
        ),
        Resource("apps", "v1", "deployments", "Deployment", ("status", "scale")),
        Resource("apps", "v1", "replicasets", "ReplicaSet", ("status", "scale")),
    )
}
NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
LABEL_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
SERVICE_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
GRACEFUL = "pods"  # deleted ones stay, marked, until the kubelet has ended them


def copy_of(value: Any) -> Any:
    """A deep copy of what is plain JSON; several times faster than the general one."""
    return pickle.loads(pickle.dumps(value, pickle.HIGHEST_PROTOCOL))


class Refused(Exception):
    """The server does not do what is asked: a Status with this code and reason is answered."""

    def __init__(self, code: int, reason: str, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.code, self.reason, self.message, self.retry_after = code, reason, message, retry_after


@dataclass(frozen=True)
class Change:
    """What watches are told: the object now, and as it was (for those whose selector it has left)."""

    version: int
    kind: str  # ADDED | MODIFIED | DELETED
    plural: str
    now: Object
    before: Object | None


class Objects:
    """The cluster's memory. All methods may be called from any thread.

    What it keeps is never changed, only exchanged, so that memory and history share it; what it hands out is a copy.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.RLock())
        self._objects: dict[tuple[str, str, str], Object] = {}
        self._history: list[Change] = []
        self._versions = itertools.count(1000)
        self.version = 1000
        self.compacted = 0  # versions up to here are forgotten: a watch from one of them gets 410
        self.skipped_seconds = 0.0  # tests let time pass by this
        self.admission: list[
            Callable[[str, Object], None]
        ] = []  # each may raise Refused before something is created

    # -- Time --------------------------------------------------------------------------------------------------------

    def time(self) -> float:
        return time.time() + self.skipped_seconds

    def now(self) -> str:
        return datetime.datetime.fromtimestamp(self.time(), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    # -- Reading -----------------------------------------------------------------------------------------------------

    def find(self, plural: str, namespace: str, name: str) -> Object | None:
        with self.changed:
            return copy_of(self._objects.get((plural, namespace, name)))

    def get(self, plural: str, namespace: str, name: str) -> Object:
        found = self.find(plural, namespace, name)
        if found is None:
            raise Refused(404, "NotFound", f'{group_name(plural)} "{name}" not found')
        return found

    def all(
        self,
        plural: str | None = None,
        namespace: str | None = None,
        fits: Callable[[Object], bool] = lambda found: True,
    ) -> list[Object]:
        """What there is, by name; `fits` says which, and changes nothing."""
        with self.changed:
            return [
                copy_of(found)
                for (of, within, _name), found in sorted(self._objects.items())
                if plural in (None, of) and namespace in (None, within) and fits(found)
            ]

    def owned_by(self, owner: Object, plural: str) -> list[Object]:
        """What a controller has made for an object."""
        metadata = owner["metadata"]
        return self.all(plural, metadata["namespace"], lambda found: owner_uid(found) == metadata["uid"])

    def names(self, namespace: str | None = None) -> list[str]:
        """Everything there is but events, as "jobs/run-1-aggregator"."""
        with self.changed:
            return [
                f"{plural}/{name}"
                for plural, within, name in sorted(self._objects)
                if plural != "events" and namespace in (None, within)
            ]

    def changes_after(self, version: int) -> list[Change]:
        with self.changed:
            return [change for change in self._history if change.version > version]

    # -- Writing -----------------------------------------------------------------------------------------------------

    def create(self, plural: str, namespace: str, value: Object, *, checked: bool = True) -> Object:
        """Create what a client sent; `checked` is off for what the controllers themselves make."""
        resource, value = RESOURCES[plural], copy_of(value)
        value.setdefault("apiVersion", resource.api_version)
        value.setdefault("kind", resource.kind)
        metadata = value.setdefault("metadata", {})
        if metadata.get("namespace", namespace) != namespace:
            raise Refused(
                400,
                "BadRequest",
                "the namespace of the provided object does not match the namespace sent on the request",
            )
        metadata["namespace"] = namespace
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = metadata["generateName"][:58] + random_suffix()
        if checked:
            check(plural, value)
        with self.changed:
            if (plural, namespace, metadata["name"]) in self._objects:
                raise Refused(
                    409, "AlreadyExists", f'{group_name(plural)} "{metadata["name"]}" already exists'
                )
            for admit in self.admission:
                admit(plural, value)
            metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": self.now()}
            if "spec" in value:
                metadata["generation"] = 1
            metadata.pop("deletionTimestamp", None)
            set_defaults(plural, value)
            if plural in ("jobs", "deployments", "replicasets"):
                value["status"] = {}
            return self._put(plural, value, "ADDED")

    def replace(self, plural: str, namespace: str, name: str, value: Object, subresource: str = "") -> Object:
        """Put another object in an object's place; a resourceVersion in it must be the present one."""
        with self.changed:
            old = self.get(plural, namespace, name)
            sent = value.get("metadata", {})
            if (
                sent.get("resourceVersion", old["metadata"]["resourceVersion"])
                != old["metadata"]["resourceVersion"]
            ):
                raise Refused(
                    409,
                    "Conflict",
                    f'Operation cannot be fulfilled on {group_name(plural)} "{name}": the object has been modified; '
                    "please apply your changes to the latest version and try again",
                )
            if sent.get("uid", old["metadata"]["uid"]) != old["metadata"]["uid"]:
                raise Refused(409, "Conflict", f"Precondition failed: UID in precondition: {sent['uid']}")
            value = copy_of(value)
            if subresource == "status":
                value = {**old, "status": value.get("status", {})}
            elif "status" in RESOURCES[plural].subresources and plural != "pods":
                value["status"] = old.get("status", {})  # only by its subresource
            if subresource != "status":
                for field in (
                    "uid",
                    "creationTimestamp",
                    "generation",
                    "deletionTimestamp",
                    "namespace",
                    "name",
                ):
                    value["metadata"].pop(field, None)
                    if field in old["metadata"]:
                        value["metadata"][field] = old["metadata"][field]
                check(plural, value)
                check_immutable(plural, old, value)
                if value.get("spec") != old.get("spec"):
                    value["metadata"]["generation"] = old["metadata"].get("generation", 1) + 1
            if {**value, "metadata": {**value["metadata"], "resourceVersion": ""}} == {
                **old,
                "metadata": {**old["metadata"], "resourceVersion": ""},
            }:
                return old  # a change that changes nothing makes no new version
            stored = self._put(plural, value, "MODIFIED")
            if (
                stored["metadata"].get("deletionTimestamp")
                and not stored["metadata"].get("finalizers")
                and plural != GRACEFUL
            ):
                self.forget(plural, namespace, name)
            return stored

    def set_status(self, plural: str, namespace: str, name: str, status: Object) -> Object:
        """What a controller writes of an object's state; parts that are None are taken out."""
        with self.changed:
            value = self.get(plural, namespace, name)
            merged = {**value.get("status", {}), **status}
            value["status"] = {key: part for key, part in merged.items() if part is not None}
            return self.replace(plural, namespace, name, value, "status")

    def delete(
        self, plural: str, namespace: str, name: str, propagation: str | None = None, uid: str | None = None
    ) -> Object:
        """Delete as a client asks; dependents follow (Background), go first (Foreground) or stay (Orphan)."""
        with self.changed:
            value = self.get(plural, namespace, name)
            if uid is not None and uid != value["metadata"]["uid"]:
                raise Refused(
                    409,
                    "Conflict",
                    f"Precondition failed: UID in precondition: {uid}, UID in object meta: {value['metadata']['uid']}",
                )
            # Jobs of batch/v1 leave their pods behind unless told otherwise, for the sake of clients of long ago.
            propagation = propagation or ("Orphan" if plural == "jobs" else "Background")
            if propagation == "Orphan":
                self._disown(value["metadata"]["uid"])
            if propagation == "Foreground" and self._dependents(value["metadata"]["uid"]):
                finalizers = value["metadata"].setdefault("finalizers", [])
                finalizers.append("foregroundDeletion") if "foregroundDeletion" not in finalizers else None
            if value["metadata"].get("finalizers") or (plural == GRACEFUL and is_alive(value)):
                if "deletionTimestamp" not in value["metadata"]:
                    value["metadata"]["deletionTimestamp"] = self.now()
                    self._put(plural, value, "MODIFIED")
                return value
            self.forget(plural, namespace, name)
            return value

    def forget(self, plural: str, namespace: str, name: str) -> None:
        """Take an object out of the memory, whatever its finalizers say."""
        with self.changed:
            value = self._objects.pop((plural, namespace, name), None)
            if value is not None:
                self.version = next(self._versions) + 1
                gone = copy_of(value)
                gone["metadata"]["resourceVersion"] = str(self.version)
                self._history.append(Change(self.version, "DELETED", plural, gone, value))
                self.changed.notify_all()

    def _put(self, plural: str, value: Object, kind: str) -> Object:
        key = (plural, value["metadata"]["namespace"], value["metadata"]["name"])
        self.version = next(self._versions) + 1
        value["metadata"]["resourceVersion"] = str(self.version)
        before, kept = self._objects.get(key), copy_of(value)
        self._objects[key] = kept
        self._history.append(Change(self.version, kind, plural, kept, before))
        self.changed.notify_all()
        return value

    # -- Owners ------------------------------------------------------------------------------------------------------

    def _dependents(self, uid: str) -> list[tuple[str, str, str]]:
        return [
            key
            for key, value in self._objects.items()
            if any(owner["uid"] == uid for owner in value["metadata"].get("ownerReferences", []))
        ]

    def _disown(self, uid: str) -> None:
        for key in self._dependents(uid):
            value = copy_of(self._objects[key])
            kept = [owner for owner in value["metadata"]["ownerReferences"] if owner["uid"] != uid]
            value["metadata"]["ownerReferences"] = kept
            if not kept:
                del value["metadata"]["ownerReferences"]
            self._put(key[0], value, "MODIFIED")

    def collect_garbage(self) -> bool:
        """Delete what none of its owners is left of; says whether anything was done."""
        with self.changed:
            alive = {value["metadata"]["uid"]: value for value in self._objects.values()}
            done = False
            for (plural, namespace, name), value in list(self._objects.items()):
                owners = value["metadata"].get("ownerReferences", [])
                waiting = [
                    owner
                    for owner in owners
                    if owner["uid"] not in alive
                    or "foregroundDeletion" in alive[owner["uid"]]["metadata"].get("finalizers", [])
                ]
                if owners and len(waiting) == len(owners) and "deletionTimestamp" not in value["metadata"]:
                    self.delete(plural, namespace, name, "Background")
                    done = True
            for (plural, namespace, name), value in list(self._objects.items()):
                if "foregroundDeletion" in value["metadata"].get("finalizers", []) and not self._dependents(
                    value["metadata"]["uid"]
                ):
                    self.forget(plural, namespace, name)
                    done = True
            return done


def owner_uid(value: Object) -> str | None:
    return next(
        (owner["uid"] for owner in value["metadata"].get("ownerReferences", []) if owner.get("controller")),
        None,
    )


def is_alive(pod: Object) -> bool:
    """Whether a kubelet still has to end the pod's containers."""
    return bool(pod.get("status", {}).get("phase") == "Running" or pod.get("spec", {}).get("nodeName"))


def group_name(plural: str) -> str:
    group = RESOURCES[plural].group
    return f"{plural}.{group}" if group else plural


def random_suffix() -> str:
    return "".join(random.choices("bcdfghjklmnpqrstvwxz2456789", k=5))


def walk_labels(value: Any) -> Iterator[tuple[str, str]]:
    """Every label in an object, those of templates among them."""
    if isinstance(value, dict):
        for key, part in value.items():
            if key in ("labels", "matchLabels") and isinstance(part, dict):
                yield from part.items()
            else:
                yield from walk_labels(part)
    elif isinstance(value, list):
        for part in value:
            yield from walk_labels(part)


def check(plural: str, value: Object) -> None:
    """Refuse what the real server would: fields that are not known, wrong types, names and labels."""
    resource, metadata = RESOURCES[plural], value["metadata"]
    kind, name = (
        f'{resource.kind}.{resource.group} "{metadata.get("name")}"'
        if resource.group
        else f'{resource.kind} "{metadata.get("name")}"',
        metadata.get("name", ""),
    )
    if (value.get("apiVersion"), value.get("kind")) != (resource.api_version, resource.kind):
        raise Refused(
            400,
            "BadRequest",
            f"{value.get('apiVersion')} {value.get('kind')} does not match {resource.api_version} {resource.kind}",
        )
    try:
        validate(value)
    except Invalid as error:
        raise Refused(422, "Invalid", f"{kind} is invalid: {error}") from error
    pattern, longest = {"services": (SERVICE_NAME, 63), "jobs": (NAME, 63)}.get(plural, (NAME, 253))
    if not pattern.fullmatch(name) or len(name) > longest:
        raise Refused(
            422,
            "Invalid",
            f"{kind} is invalid: metadata.name: {name!r}: no DNS-1123 name of up to {longest} characters",
        )
    for key, label in walk_labels(value):
        if not LABEL_VALUE.fullmatch(label) or len(label) > 63 or len(key.rpartition("/")[2]) > 63:
            raise Refused(
                422, "Invalid", f"{kind} is invalid: metadata.labels: Invalid value: {label!r} of {key}"
            )
    if plural == "jobs":
        check_job(kind, value)


def check_job(kind: str, job: Object) -> None:
    spec = job["spec"]
    pod = spec["template"]["spec"]
    if pod.get("restartPolicy") not in ("Never", "OnFailure"):
        raise Refused(
            422,
            "Invalid",
            f'{kind} is invalid: spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"',
        )
    names = {container["name"] for container in (*pod["containers"], *pod.get("initContainers", []))}
    for rule in spec.get("podFailurePolicy", {}).get("rules", []):
        if pod["restartPolicy"] != "Never":
            raise Refused(
                422, "Invalid", f"{kind} is invalid: spec.podFailurePolicy: only with restartPolicy Never"
            )
        codes = rule.get("onExitCodes")
        if (codes is None) == (not rule.get("onPodConditions")):
            raise Refused(
                422,
                "Invalid",
                f"{kind} is invalid: spec.podFailurePolicy.rules: wants onExitCodes or onPodConditions, and not both",
            )
        if codes and codes.get("containerName") and codes["containerName"] not in names:
            raise Refused(
                422,
                "Invalid",
                f"{kind} is invalid: spec.podFailurePolicy.rules: no container is named {codes['containerName']!r}",
            )
        if codes and (
            sorted(set(codes["values"])) != codes["values"]
            or (codes["operator"] == "In" and 0 in codes["values"])
        ):
            raise Refused(
                422,
                "Invalid",
                f"{kind} is invalid: spec.podFailurePolicy.rules: values must be ordered, without doubles, without 0",
            )
    volumes = {volume["name"] for volume in pod.get("volumes", [])}
    for container in (*pod["containers"], *pod.get("initContainers", [])):
        for mount in container.get("volumeMounts", []):
            if mount["name"] not in volumes:
                raise Refused(
                    422, "Invalid", f"{kind} is invalid: volumeMounts.name: Not found: {mount['name']!r}"
                )


def check_immutable(plural: str, old: Object, new: Object) -> None:
    fields = {
        "jobs": ("template", "selector", "completions", "podFailurePolicy", "completionMode"),
        "deployments": ("selector",),
        "replicasets": ("selector",),
    }
    for field in fields.get(plural, ()):
        if old["spec"].get(field) != new["spec"].get(field):
            raise Refused(
                422,
                "Invalid",
                f"{RESOURCES[plural].kind} {old['metadata']['name']} is invalid: spec.{field}: field is immutable",
            )
    if (
        plural == "secrets"
        and old.get("immutable")
        and (old.get("data") != new.get("data") or not new.get("immutable"))
    ):
        raise Refused(
            422,
            "Invalid",
            f"Secret {old['metadata']['name']} is invalid: data: Forbidden: field is immutable",
        )


def set_defaults(plural: str, value: Object) -> None:
    """What the server fills in where a client says nothing; only what clients of ours could stumble over."""
    if plural == "secrets" and "stringData" in value:
        import base64

        texts = value.pop("stringData")
        value["data"] = {
            **value.get("data", {}),
            **{key: base64.b64encode(text.encode()).decode() for key, text in texts.items()},
        }
    if plural == "jobs":
        spec, uid = value["spec"], value["metadata"]["uid"]
        for key, default in (("parallelism", 1), ("completions", 1), ("backoffLimit", 6), ("suspend", False)):
            spec.setdefault(key, default)
        spec.setdefault("completionMode", "NonIndexed")
        spec["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
        labels = spec["template"].setdefault("metadata", {}).setdefault("labels", {})
        labels |= {
            "batch.kubernetes.io/controller-uid": uid,
            "batch.kubernetes.io/job-name": value["metadata"]["name"],
            "controller-uid": uid,
            "job-name": value["metadata"]["name"],
        }
    if plural == "deployments":
        spec = value["spec"]
        spec.setdefault("replicas", 1)
        spec.setdefault("progressDeadlineSeconds", 600)
        spec.setdefault("revisionHistoryLimit", 10)
        strategy = spec.setdefault("strategy", {"type": "RollingUpdate"})
        if strategy.get("type", "RollingUpdate") == "RollingUpdate":
            strategy.setdefault("rollingUpdate", {"maxSurge": "25%", "maxUnavailable": "25%"})
    if plural == "services":
        value["spec"].setdefault("type", "ClusterIP")
        value["spec"].setdefault("clusterIP", "10.96.0.10")
        value["status"] = {"loadBalancer": {}}
    if plural == "pods":
        value.setdefault("status", {"phase": "Pending"})
        value["spec"].setdefault("restartPolicy", "Always")
