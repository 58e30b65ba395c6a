"""What a cluster's controllers do, one step at a time, when a test says so: Jobs, Deployments, garbage, finished pods.

And what happens to pods where no kubelet runs them: start, finish, wait (for an image, for a node), evict.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import math
from typing import Any

from tests.cluster.api_server import ApiServer
from tests.cluster.objects import Object, Objects, Refused, copy_of, random_suffix

TERMINAL = ("Succeeded", "Failed")
REVISION = "deployment.kubernetes.io/revision"
HASH = "pod-template-hash"


class Controllers:
    """All controllers of a cluster, over its objects."""

    def __init__(self, api: ApiServer) -> None:
        self.api, self.objects = api, api.objects
        self.node_ends_pods = True  # a deleted pod goes at once; off where a real kubelet ends its processes

    def step(self, times: int = 1) -> None:
        """Let every controller look around until there is nothing left to do."""
        for _ in range(times):
            for _again in range(8):
                before = self.objects.version
                self._sync_all()
                if self.objects.version == before:
                    break

    def _sync_all(self) -> None:
        with self.objects.changed:
            for job in self.objects.all("jobs"):
                JobController(self.objects).sync(job)
            for deployment in self.objects.all("deployments"):
                DeploymentController(self.objects).sync(deployment)
            while self.objects.collect_garbage():
                pass
            if self.node_ends_pods:
                for pod in self.objects.all("pods"):
                    if "deletionTimestamp" in pod["metadata"]:
                        self.objects.forget("pods", pod["metadata"]["namespace"], pod["metadata"]["name"])

    # -- Pods --------------------------------------------------------------------------------------------------------

    def pods(self, owner: str, namespace: str | None = None) -> list[Object]:
        """The pods that an object of this name has made, the oldest first; of a Deployment those of its ReplicaSets."""
        owners = {owner} | {
            replica_set["metadata"]["name"]
            for replica_set in self.objects.all("replicasets", namespace)
            if owner_name(replica_set) == owner
        }
        found = [pod for pod in self.objects.all("pods", namespace) if owner_name(pod) in owners]
        return sorted(found, key=lambda pod: int(pod["metadata"]["annotations"]["test/order"]))

    def pod(self, owner: str, namespace: str | None = None) -> Object:
        """The newest pod that an object of this name has made."""
        found = self.pods(owner, namespace)
        assert found, f"{owner} has no pod: {self.objects.names(namespace)}"
        return found[-1]

    def start_pod(self, pod: Object, *, ready: bool = True, node: str = "node-1") -> Object:
        """Let a pod run: its init containers are done, its containers run, and are ready where they should be."""
        pod = self._bind(pod, node)
        now = self.objects.now()
        status: Object = {
            "phase": "Running",
            "startTime": now,
            "podIP": "10.1.0.7",
            "initContainerStatuses": [
                container_status(
                    container,
                    {
                        "terminated": {
                            "exitCode": 0,
                            "reason": "Completed",
                            "startedAt": now,
                            "finishedAt": now,
                        }
                    },
                    ready=True,
                )
                for container in pod["spec"].get("initContainers", [])
            ],
            "containerStatuses": [
                container_status(container, {"running": {"startedAt": now}}, ready=ready)
                for container in pod["spec"]["containers"]
            ],
            "conditions": ready_conditions(ready, now),
        }
        return self._set(pod, status)

    def set_ready(self, pod: Object, ready: bool) -> Object:
        status = self._now(pod)["status"]
        containers = [{**entry, "ready": ready} for entry in status["containerStatuses"]]
        return self._set(
            pod, {"containerStatuses": containers, "conditions": ready_conditions(ready, self.objects.now())}
        )

    def finish_pod(
        self, pod: Object, exit_code: int = 0, *, log: str = "", init: bool = False, reason: str = ""
    ) -> Object:
        """Let a pod's container end; with `init` its first init container has failed, and the others never ran."""
        pod = self._bind(self._now(pod), "node-1")
        if log:
            self.write_log(pod, log, init=init)
        now = self.objects.now()
        ended = {
            "terminated": {
                "exitCode": exit_code,
                "reason": reason or ("Completed" if exit_code == 0 else "Error"),
                "startedAt": now,
                "finishedAt": now,
            }
        }
        inits = pod["spec"].get("initContainers", [])
        done = {"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now}}
        waiting = {"waiting": {"reason": "PodInitializing"}}
        status = {
            "phase": "Succeeded" if exit_code == 0 and not init else "Failed",
            "initContainerStatuses": [
                container_status(container, ended if init and not index else waiting if init else done)
                for index, container in enumerate(inits)
            ],
            "containerStatuses": [
                container_status(container, waiting if init else ended)
                for container in pod["spec"]["containers"]
            ],
            "conditions": ready_conditions(False, now),
        }
        return self._set(pod, status)

    def hold_pod(
        self, pod: Object, reason: str, message: str = "", *, init: bool = False, restarts: int = 0
    ) -> Object:
        """Let a pod's container wait: for ImagePullBackOff, InvalidImageName, CreateContainerConfigError, …"""
        pod = self._bind(self._now(pod), "node-1")
        state = {"waiting": {"reason": reason, "message": message}}
        inits = pod["spec"].get("initContainers", [])
        status = {
            "phase": "Pending",
            "initContainerStatuses": [
                container_status(
                    container,
                    state if init and not index else {"waiting": {"reason": "PodInitializing"}},
                    restarts=restarts,
                )
                for index, container in enumerate(inits)
            ],
            "containerStatuses": [
                container_status(
                    container,
                    {"waiting": {"reason": "PodInitializing"}} if init else state,
                    restarts=restarts,
                )
                for container in pod["spec"]["containers"]
            ],
            "conditions": ready_conditions(False, self.objects.now()),
        }
        return self._set(pod, status)

    def leave_unscheduled(
        self, pod: Object, message: str = "0/1 nodes are available: 1 Insufficient cpu."
    ) -> Object:
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
            "lastTransitionTime": self.objects.now(),
        }
        self.write_event(pod, "FailedScheduling", message)
        return self._set(pod, {"phase": "Pending", "conditions": [condition]})

    def evict_pod(self, pod: Object, reason: str = "EvictionByEvictionAPI") -> None:
        """Let a node be drained: the pod fails as a disruption, and is gone."""
        pod = self._now(pod)
        condition = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": reason,
            "lastTransitionTime": self.objects.now(),
        }
        pod = self._set(pod, {"conditions": [*pod.get("status", {}).get("conditions", []), condition]})
        ended = {"terminated": {"exitCode": 143, "reason": "Error", "finishedAt": self.objects.now()}}
        containers = [container_status(container, ended) for container in pod["spec"]["containers"]]
        self._set(pod, {"phase": "Failed", "containerStatuses": containers})

    def write_log(self, pod: Object, text: str, *, init: bool = False) -> None:
        container = pod["spec"]["initContainers" if init else "containers"][0]["name"]
        key = (pod["metadata"]["namespace"], pod["metadata"]["name"], container)
        self.api.logs[key] = self.api.logs.get(key, "") + text

    def write_event(self, about: Object, reason: str, message: str, kind: str = "Warning") -> None:
        write_event(self.objects, about, reason, message, kind)

    def _now(self, pod: Object) -> Object:
        return self.objects.get("pods", pod["metadata"]["namespace"], pod["metadata"]["name"])

    def _bind(self, pod: Object, node: str) -> Object:
        with self.objects.changed:
            pod = self._now(pod)
            if "nodeName" not in pod["spec"]:
                pod["spec"]["nodeName"] = node
                pod = self.objects._put("pods", pod, "MODIFIED")
            return pod

    def _set(self, pod: Object, status: Object) -> Object:
        return self.objects.set_status("pods", pod["metadata"]["namespace"], pod["metadata"]["name"], status)


class JobController:
    """Makes pods of Jobs and counts how they ended (batch/v1, restartPolicy Never, one completion)."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects

    def sync(self, job: Object) -> None:
        if "deletionTimestamp" in job["metadata"]:
            return
        if finished(job):
            self._expire(job)
            return
        spec, status = job["spec"], dict(job.get("status", {}))
        pods = self.objects.owned_by(job, "pods")
        self._count(job, status, pods)
        active = [pod for pod in pods if pod.get("status", {}).get("phase") not in TERMINAL]
        failure = self._failure(job, status)
        if failure is not None:
            self._end(job, status, active, "Failed", *failure)
            return
        if status.get("succeeded", 0) >= spec["completions"]:
            self._end(
                job,
                status,
                active,
                "Complete",
                "CompletionsReached",
                "Reached expected number of succeeded pods",
            )
            return
        if spec.get("suspend"):
            for pod in active:
                self.objects.delete("pods", pod["metadata"]["namespace"], pod["metadata"]["name"])
            set_condition(status, "Suspended", "True", "JobSuspended", "Job suspended", self.objects.now())
            status.pop("startTime", None)
            active = []
        else:
            if any(condition["type"] == "Suspended" for condition in status.get("conditions", [])):
                set_condition(status, "Suspended", "False", "JobResumed", "Job resumed", self.objects.now())
            status.setdefault("startTime", self.objects.now())
            # A pod that is being deleted is replaced only when it has ended, as podReplacementPolicy Failed says.
            if len(active) < spec["parallelism"]:
                active += self._create_pod(job)
        ready = sum(is_ready(pod) for pod in active)
        self._write(job, {**status, "active": len(active) or None, "ready": ready, "terminating": 0})

    def _count(self, job: Object, status: Object, pods: list[Object]) -> None:
        """Count each ended pod once, by its uid: pods that were deleted later stay counted."""
        counted = set(json.loads(job["metadata"].get("annotations", {}).get("test/counted", "[]")))
        seen = set(json.loads(job["metadata"].get("annotations", {}).get("test/seen", "[]")))
        present = {pod["metadata"]["uid"] for pod in pods}
        for pod in pods:
            uid, phase = pod["metadata"]["uid"], pod.get("status", {}).get("phase")
            seen.add(uid)
            if uid in counted or phase not in TERMINAL:
                continue
            counted.add(uid)
            if phase == "Succeeded":
                status["succeeded"] = status.get("succeeded", 0) + 1
                continue
            action, why = judge_failure(job, pod)
            if action == "FailJob":
                status["failed"] = status.get("failed", 0) + 1
                set_condition(status, "FailureTarget", "True", "PodFailurePolicy", why, self.objects.now())
            elif action == "Count":
                status["failed"] = status.get("failed", 0) + 1
        for uid in (
            seen - present - counted
        ):  # deleted amid its work: the real controller counts that as a failure
            counted.add(uid)
            status["failed"] = status.get("failed", 0) + 1
        annotations = {"test/counted": json.dumps(sorted(counted)), "test/seen": json.dumps(sorted(seen))}
        if {key: job["metadata"].get("annotations", {}).get(key) for key in annotations} != annotations:
            stored = self.objects.get("jobs", job["metadata"]["namespace"], job["metadata"]["name"])
            stored["metadata"].setdefault("annotations", {}).update(annotations)
            self.objects._put("jobs", stored, "MODIFIED")

    def _failure(self, job: Object, status: Object) -> tuple[str, str] | None:
        for condition in status.get("conditions", []):
            if condition["type"] == "FailureTarget":
                return condition["reason"], condition["message"]
        if status.get("failed", 0) > job["spec"]["backoffLimit"]:
            return "BackoffLimitExceeded", "Job has reached the specified backoff limit"
        limit, started = job["spec"].get("activeDeadlineSeconds"), status.get("startTime")
        if limit is not None and started and self.objects.time() - read_time(started) >= limit:
            return "DeadlineExceeded", "Job was active longer than specified deadline"
        return None

    def _end(
        self, job: Object, status: Object, active: list[Object], kind: str, reason: str, message: str
    ) -> None:
        for pod in active:
            self.objects.delete("pods", pod["metadata"]["namespace"], pod["metadata"]["name"])
        now = self.objects.now()
        set_condition(
            status,
            "SuccessCriteriaMet" if kind == "Complete" else "FailureTarget",
            "True",
            reason,
            message,
            now,
        )
        # The last word comes only when every pod has ended.
        if any(
            self.objects.find("pods", pod["metadata"]["namespace"], pod["metadata"]["name"]) for pod in active
        ):
            self._write(job, {**status, "active": None, "ready": 0, "terminating": len(active)})
            return
        set_condition(status, kind, "True", reason, message, now)
        completed = {"completionTime": now} if kind == "Complete" else {}
        self._write(job, {**status, **completed, "active": None, "ready": 0, "terminating": 0})
        write_event(
            self.objects,
            job,
            reason if kind == "Failed" else "Completed",
            message,
            "Warning" if kind == "Failed" else "Normal",
        )

    def _create_pod(self, job: Object) -> list[Object]:
        template, name = copy_of(job["spec"]["template"]), job["metadata"]["name"]
        pod = make_pod(self.objects, template, "Job", "batch/v1", job)
        pod["metadata"]["generateName"] = f"{name}-"
        try:
            created = self.objects.create("pods", job["metadata"]["namespace"], pod, checked=False)
        except Refused as refused:  # a quota, or a policy: said by an event, and tried again later
            write_event(self.objects, job, "FailedCreate", f"Error creating: {refused.message}")
            return []
        write_event(
            self.objects, job, "SuccessfulCreate", f"Created pod: {created['metadata']['name']}", "Normal"
        )
        return [created]

    def _expire(self, job: Object) -> None:
        ttl = job["spec"].get("ttlSecondsAfterFinished")
        if ttl is not None and self.objects.time() - read_time(finished_at(job)) >= ttl:
            self.objects.delete("jobs", job["metadata"]["namespace"], job["metadata"]["name"], "Foreground")

    def _write(self, job: Object, status: Object) -> None:
        self.objects.set_status("jobs", job["metadata"]["namespace"], job["metadata"]["name"], status)


class DeploymentController:
    """Rolls a Deployment's pods over to its newest template, one surplus pod at a time, as the pods become ready."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects

    def sync(self, deployment: Object) -> None:
        metadata, spec = deployment["metadata"], deployment["spec"]
        if "deletionTimestamp" in metadata or spec.get("paused"):
            return
        namespace = metadata["namespace"]
        owned = self.objects.owned_by(deployment, "replicasets")
        newest = self._newest(deployment, owned)
        old = [found for found in owned if found["metadata"]["uid"] != newest["metadata"]["uid"]]
        pods = {found["metadata"]["name"]: self._pods(found) for found in (newest, *old)}
        fresh, stale = (
            pods[newest["metadata"]["name"]],
            [pod for found in old for pod in pods[found["metadata"]["name"]]],
        )
        surge, lacking = self._bounds(spec)
        for _ in range(
            max(0, min(spec["replicas"] - len(fresh), spec["replicas"] + surge - len(fresh) - len(stale)))
        ):
            self._create_pod(newest)
        ready = sum(is_ready(pod) for pod in (*fresh, *stale))
        for pod in sorted(stale, key=is_ready):  # those that serve nobody first
            if is_ready(pod) and ready - 1 < spec["replicas"] - lacking:
                continue
            ready -= is_ready(pod)
            self.objects.delete("pods", namespace, pod["metadata"]["name"])
        for pod in fresh[spec["replicas"] :]:
            self.objects.delete("pods", namespace, pod["metadata"]["name"])
        self._report(deployment, newest, old)

    def _newest(self, deployment: Object, owned: list[Object]) -> Object:
        template = deployment["spec"]["template"]
        digest = hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:10]
        revisions = [int(found["metadata"]["annotations"][REVISION]) for found in owned]
        found = next((found for found in owned if found["metadata"]["labels"][HASH] == digest), None)
        if found is not None:
            revision = int(found["metadata"]["annotations"][REVISION])
            if revision < max(revisions):  # an old template is back: it becomes the newest revision
                found["metadata"]["annotations"][REVISION] = str(max(revisions) + 1)
                found = self.objects._put("replicasets", found, "MODIFIED")
            self._note_revision(deployment, found)
            return found
        labels = {**template["metadata"]["labels"], HASH: digest}
        made = self.objects.create(
            "replicasets",
            deployment["metadata"]["namespace"],
            {
                "metadata": {
                    "name": f"{deployment['metadata']['name']}-{digest}",
                    "labels": labels,
                    "annotations": {
                        **deployment["metadata"].get("annotations", {}),
                        REVISION: str(max(revisions, default=0) + 1),
                    },
                    "ownerReferences": [reference("apps/v1", "Deployment", deployment)],
                },
                "spec": {
                    "replicas": deployment["spec"]["replicas"],
                    "selector": {
                        "matchLabels": {**deployment["spec"]["selector"]["matchLabels"], HASH: digest}
                    },
                    "template": {**template, "metadata": {**template["metadata"], "labels": labels}},
                },
            },
        )
        self._note_revision(deployment, made)
        return made

    def _note_revision(self, deployment: Object, replica_set: Object) -> None:
        now = self.objects.get(
            "deployments", deployment["metadata"]["namespace"], deployment["metadata"]["name"]
        )
        revision = replica_set["metadata"]["annotations"][REVISION]
        if now["metadata"].get("annotations", {}).get(REVISION) != revision:
            now["metadata"].setdefault("annotations", {})[REVISION] = revision
            self.objects._put("deployments", now, "MODIFIED")

    def _pods(self, replica_set: Object) -> list[Object]:
        return [
            pod
            for pod in self.objects.owned_by(replica_set, "pods")
            if "deletionTimestamp" not in pod["metadata"]
            and pod.get("status", {}).get("phase") not in TERMINAL
        ]

    def _bounds(self, spec: Object) -> tuple[int, int]:
        rolling = spec["strategy"].get("rollingUpdate") or {"maxSurge": 0, "maxUnavailable": spec["replicas"]}
        surge = scaled(rolling["maxSurge"], spec["replicas"], math.ceil)
        lacking = scaled(rolling["maxUnavailable"], spec["replicas"], math.floor)
        return surge, lacking if surge or lacking else 1

    def _create_pod(self, replica_set: Object) -> None:
        pod = make_pod(
            self.objects, copy_of(replica_set["spec"]["template"]), "ReplicaSet", "apps/v1", replica_set
        )
        pod["metadata"]["generateName"] = f"{replica_set['metadata']['name']}-"
        try:
            self.objects.create("pods", replica_set["metadata"]["namespace"], pod, checked=False)
        except Refused as refused:
            write_event(self.objects, replica_set, "FailedCreate", f"Error creating: {refused.message}")

    def _report(self, deployment: Object, newest: Object, old: list[Object]) -> None:
        namespace, name, spec = (
            deployment["metadata"]["namespace"],
            deployment["metadata"]["name"],
            deployment["spec"],
        )
        fresh, stale = self._pods(newest), [pod for found in old for pod in self._pods(found)]
        ready = sum(is_ready(pod) for pod in (*fresh, *stale))
        for found, owned in ((newest, fresh), *((found, self._pods(found)) for found in old)):
            count = len(owned)
            wanted = spec["replicas"] if found is newest else count
            if found["spec"].get("replicas") != wanted:
                found["spec"]["replicas"] = wanted
                self.objects._put("replicasets", found, "MODIFIED")
            self.objects.set_status(
                "replicasets",
                namespace,
                found["metadata"]["name"],
                {
                    "replicas": count,
                    "readyReplicas": sum(map(is_ready, owned)),
                    "observedGeneration": found["metadata"]["generation"],
                },
            )
        status = dict(self.objects.get("deployments", namespace, name).get("status", {}))
        new_ready = sum(map(is_ready, fresh))
        complete = new_ready == len(fresh) == spec["replicas"] and not stale
        self._progress(deployment, status, newest, new_ready, complete)
        set_condition(
            status,
            "Available",
            "True" if ready >= spec["replicas"] - self._bounds(spec)[1] else "False",
            "MinimumReplicas",
            "",
            self.objects.now(),
        )
        self.objects.set_status(
            "deployments",
            namespace,
            name,
            {
                **status,
                "observedGeneration": deployment["metadata"]["generation"],
                "replicas": len(fresh) + len(stale),
                "updatedReplicas": len(fresh),
                "readyReplicas": ready,
                "availableReplicas": ready,
                "unavailableReplicas": max(0, spec["replicas"] - ready),
            },
        )

    def _progress(
        self, deployment: Object, status: Object, newest: Object, new_ready: int, complete: bool
    ) -> None:
        """The condition Progressing: its clock starts anew whenever the rollout gets further."""
        name = newest["metadata"]["name"]
        key = f"{name}/{new_ready}"
        now = self.objects.get(
            "deployments", deployment["metadata"]["namespace"], deployment["metadata"]["name"]
        )
        recorded, _, since = now["metadata"].get("annotations", {}).get("test/progress", "//").rpartition("@")
        if recorded != key:
            since = str(self.objects.time())
            now["metadata"].setdefault("annotations", {})["test/progress"] = f"{key}@{since}"
            self.objects._put("deployments", now, "MODIFIED")
        if complete:
            set_condition(
                status,
                "Progressing",
                "True",
                "NewReplicaSetAvailable",
                f'ReplicaSet "{name}" has successfully progressed.',
                self.objects.now(),
            )
        elif self.objects.time() - float(since) > deployment["spec"]["progressDeadlineSeconds"]:
            set_condition(
                status,
                "Progressing",
                "False",
                "ProgressDeadlineExceeded",
                f'ReplicaSet "{name}" has timed out progressing.',
                self.objects.now(),
            )
        else:
            set_condition(
                status,
                "Progressing",
                "True",
                "ReplicaSetUpdated",
                f'ReplicaSet "{name}" is progressing.',
                self.objects.now(),
            )


# -- Small things ----------------------------------------------------------------------------------------------------


def judge_failure(job: Object, pod: Object) -> tuple[str, str]:
    """What the Job's podFailurePolicy says of a failed pod: the first rule that fits, else Count."""
    statuses = pod.get("status", {})
    ended = [*statuses.get("containerStatuses", []), *statuses.get("initContainerStatuses", [])]
    for index, rule in enumerate(job["spec"].get("podFailurePolicy", {}).get("rules", [])):
        if codes := rule.get("onExitCodes"):
            for entry in ended:
                code = entry.get("state", {}).get("terminated", {}).get("exitCode", 0)
                if code == 0 or codes.get("containerName") not in (None, entry["name"]):
                    continue
                if (code in codes["values"]) is (codes["operator"] == "In"):
                    name = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
                    return (
                        rule["action"],
                        (
                            f"Container {entry['name']} for pod {name} failed"
                            f" with exit code {code} matching {rule['action']} rule at index {index}"
                        ),
                    )
        for wanted in rule.get("onPodConditions") or []:
            if any(
                c["type"] == wanted["type"] and c["status"] == wanted.get("status", "True")
                for c in statuses.get("conditions", [])
            ):
                return (
                    rule["action"],
                    (
                        f"Pod {pod['metadata']['name']} has condition {wanted['type']}"
                        f" matching {rule['action']} rule at index {index}"
                    ),
                )
    return "Count", ""


def make_pod(objects: Objects, template: Object, kind: str, api_version: str, owner: Object) -> Object:
    metadata = template.setdefault("metadata", {})
    metadata["ownerReferences"] = [reference(api_version, kind, owner)]
    metadata.setdefault("annotations", {})["test/order"] = str(objects.version)
    return {"metadata": metadata, "spec": template["spec"]}


def reference(api_version: str, kind: str, owner: Object) -> Object:
    return {
        "apiVersion": api_version,
        "kind": kind,
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def owner_name(value: Object) -> str | None:
    return next(
        (owner["name"] for owner in value["metadata"].get("ownerReferences", []) if owner.get("controller")),
        None,
    )


def is_ready(pod: Object) -> bool:
    return any(
        condition["type"] == "Ready" and condition["status"] == "True"
        for condition in pod.get("status", {}).get("conditions", [])
    )


def finished(job: Object) -> bool:
    return any(
        condition["type"] in ("Complete", "Failed") and condition["status"] == "True"
        for condition in job.get("status", {}).get("conditions", [])
    )


def finished_at(job: Object) -> str:
    return next(
        str(condition["lastTransitionTime"])
        for condition in job["status"]["conditions"]
        if condition["type"] in ("Complete", "Failed")
    )


def read_time(text: str) -> float:
    return datetime.datetime.fromisoformat(text).timestamp()


def scaled(value: int | str, replicas: int, rounding: Any) -> int:
    return int(rounding(replicas * int(value.rstrip("%")) / 100)) if isinstance(value, str) else value


def ready_conditions(ready: bool, now: str) -> list[Object]:
    said = "True" if ready else "False"
    return [
        {"type": "PodScheduled", "status": "True", "lastTransitionTime": now},
        {"type": "Initialized", "status": "True", "lastTransitionTime": now},
        {"type": "ContainersReady", "status": said, "lastTransitionTime": now},
        {"type": "Ready", "status": said, "lastTransitionTime": now},
    ]


def container_status(container: Object, state: Object, *, ready: bool = False, restarts: int = 0) -> Object:
    return {
        "name": container["name"],
        "image": container["image"],
        "imageID": "",
        "ready": ready,
        "restartCount": restarts,
        "state": state,
        "started": "running" in state,
    }


def set_condition(status: Object, kind: str, said: str, reason: str, message: str, now: str) -> None:
    conditions = [dict(condition) for condition in status.get("conditions", [])]
    found = next((condition for condition in conditions if condition["type"] == kind), None)
    if found is not None and (found["status"], found["reason"]) == (said, reason):
        return
    if found is not None:
        conditions.remove(found)
    conditions.append(
        {
            "type": kind,
            "status": said,
            "reason": reason,
            "message": message,
            "lastTransitionTime": now,
        }
    )
    status["conditions"] = conditions


def write_event(objects: Objects, about: Object, reason: str, message: str, kind: str = "Warning") -> None:
    """Write an event, or count one that says the same again."""
    metadata = about["metadata"]
    with objects.changed:
        for event in objects.all("events", metadata["namespace"]):
            if (event["involvedObject"]["uid"], event["reason"], event["message"]) == (
                metadata["uid"],
                reason,
                message,
            ):
                return
        objects.create(
            "events",
            metadata["namespace"],
            {
                "metadata": {"name": f"{metadata['name']}.{random_suffix()}"},
                "involvedObject": {
                    "kind": about["kind"],
                    "namespace": metadata["namespace"],
                    "name": metadata["name"],
                    "uid": metadata["uid"],
                    "apiVersion": about["apiVersion"],
                },
                "reason": reason,
                "message": message,
                "type": kind,
                "count": 1,
                "firstTimestamp": objects.now(),
                "lastTimestamp": objects.now(),
                "source": {"component": "test"},
            },
        )
