"""The only door to the inference Deployment: the cluster's API.

What is asked of the API server is exactly what the Role `rollout` allows. The number of replicas is the autoscaler's
and never touched.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:  # the client takes a second to import, and only a worker on a cluster needs it
    from kubernetes.client import ApiClient

MODEL_ANNOTATION: Final = "huisheng.io/model"
RUN_ANNOTATION: Final = "huisheng.io/run"
PREVIOUS_ANNOTATION: Final = "huisheng.io/previous-image"
BASE_ANNOTATION: Final = "huisheng.io/base-image"

CONTAINER: Final = "inference"  # of the Deployment, whatever that is called
_FIELD_MANAGER: Final = "huisheng-rollout"
_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
_TIMEOUT: Final = (3.0, 10.0)  # seconds to connect, and for an answer
_CRASHES: Final = 2  # of one container, before it is said to crash again and again
_STUCK: Final = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
    }
)
_MAX_MESSAGE: Final = 200  # characters of what a pod says

TroubleKind = Literal["crash", "stuck", "unscheduled", "unready"]


class ClusterError(Exception):
    """The cluster did not do what was asked; `permanent` when asking again would fail again."""

    def __init__(self, message: str, *, permanent: bool) -> None:
        super().__init__(message)
        self.permanent = permanent


class Conflict(ClusterError):
    """Somebody else changed the Deployment since it was read: read it again."""


@dataclass(frozen=True)
class DeploymentState:
    """The Deployment as it was read at one moment."""

    image: str
    resource_version: str
    annotations: Mapping[str, str]
    selector: Mapping[str, str]
    observed: bool  # by its controller, in the form that was read
    paused: bool
    desired: int  # replicas
    updated: int
    available: int
    total: int  # of all templates
    deadline_seconds: int
    progressing: str  # the condition in one word each, and since when: another text is another event
    deadline_exceeded: bool
    refused_pods: str  # why the controller could not make a pod: a quota, an admission; empty when it could

    def is_complete(self) -> bool:
        """Whether every replica is of this form and available, and no other is left."""
        return (
            self.observed
            and self.updated >= self.desired
            and self.total == self.updated
            and self.available >= self.updated
        )


@dataclass(frozen=True)
class Trouble:
    """What keeps a pod from serving."""

    pod: str
    kind: TroubleKind
    reason: str  # as the cluster names it
    message: str
    address: str = ""  # where its service can be asked, once it runs

    def __str__(self) -> str:
        return f"{self.pod}: {self.reason}{f' ({self.message})' if self.message else ''}"


def has_cluster_access() -> bool:
    """Whether this process may speak to a cluster: a pod with a token, or whoever has a KUBECONFIG."""
    return _TOKEN.is_file() or bool(os.environ.get("KUBECONFIG"))


class InferenceDeployment:
    """Reads and changes the Deployment. Every method raises ClusterError."""

    def __init__(self, namespace: str, name: str) -> None:
        """Prepare; nothing is asked yet."""
        self._namespace = namespace
        self._name = name

    def read(self) -> DeploymentState:
        """Read how it stands."""
        found = self._call("deployments", "read_namespaced_deployment", self._name, self._namespace)
        return _describe(found, self._name)

    def set_image(self, state: DeploymentState, image: str, annotations: Mapping[str, str | None]) -> None:
        """Change the image, and annotations (None removes one). Raises Conflict when it is not as it was read."""
        containers = [{"name": CONTAINER, "image": image}]
        body = {
            # With the version that was read: whoever else changed it meanwhile, another worker or an operator, wins.
            "metadata": {"resourceVersion": state.resource_version, "annotations": dict(annotations)},
            # The template says nothing else: an image that is put back finds its pods still running.
            "spec": {"template": {"spec": {"containers": containers}}},
        }
        self._call(
            "deployments",
            "patch_namespaced_deployment",
            self._name,
            self._namespace,
            body,
            field_manager=_FIELD_MANAGER,
        )

    def troubles(self, state: DeploymentState, image: str) -> list[Trouble]:
        """What keeps the pods of an image from serving, the gravest first."""
        selector = ",".join(f"{name}={value}" for name, value in sorted(state.selector.items()))
        pods = self._call("pods", "list_namespaced_pod", self._namespace, label_selector=selector)
        found = [
            trouble
            for pod in pods.items
            if pod.metadata.deletion_timestamp is None and _runs(pod, image)
            for trouble in [_find_trouble(pod)]
            if trouble is not None
        ]
        gravity: tuple[TroubleKind, ...] = ("crash", "stuck", "unscheduled", "unready")
        return sorted(found, key=lambda trouble: (gravity.index(trouble.kind), trouble.pod))

    # -- Asking ------------------------------------------------------------------------------------------------------

    def _call(self, what: str, method: str, *arguments: Any, **options: Any) -> Any:
        from kubernetes.client import ApiException, AppsV1Api, CoreV1Api
        from urllib3.exceptions import HTTPError

        api = CoreV1Api(self._client) if what == "pods" else AppsV1Api(self._client)
        where = f"{self._namespace}/{self._name}"
        try:
            return getattr(api, method)(*arguments, **options, _request_timeout=_TIMEOUT)
        except ApiException as error:
            message = f"the cluster answered {error.status} about {what} of {where}: {_reason(error)}"
            if error.status == 409:
                raise Conflict(message, permanent=False) from error
            raise ClusterError(message, permanent=error.status in (400, 401, 403, 404, 422)) from error
        except AttributeError as error:
            # What the client itself makes of an answer without a body: that of a TLS handshake that broke off.
            if not isinstance(error.__context__, ApiException):
                raise
            raise ClusterError(
                f"the cluster does not answer about {where}: {error.__context__.reason}", permanent=False
            ) from error
        except (HTTPError, OSError) as error:
            raise ClusterError(
                f"the cluster does not answer about {where}: {error}", permanent=False
            ) from error

    @cached_property
    def _client(self) -> ApiClient:
        from kubernetes import client, config

        configuration = client.Configuration()
        try:
            if _TOKEN.is_file():
                config.load_incluster_config(client_configuration=configuration)
            else:
                config.load_kube_config(
                    config_file=os.environ.get("KUBECONFIG"), client_configuration=configuration
                )
        except config.ConfigException as error:
            raise ClusterError(f"no way to the cluster: {error}", permanent=True) from error
        configuration.retries = False  # the next beat asks again
        return client.ApiClient(configuration)


# -- Understanding ---------------------------------------------------------------------------------------------------


def _describe(deployment: Any, name: str) -> DeploymentState:
    metadata, spec, status = deployment.metadata, deployment.spec, deployment.status
    image = next((one.image for one in spec.template.spec.containers if one.name == CONTAINER), None)
    if image is None:
        raise ClusterError(f"the Deployment {name} has no container {CONTAINER}", permanent=True)
    conditions = {one.type: one for one in status.conditions or []}
    progressing = conditions.get("Progressing")
    failure = conditions.get("ReplicaFailure")
    return DeploymentState(
        image=image,
        resource_version=metadata.resource_version,
        annotations=metadata.annotations or {},
        selector=spec.selector.match_labels or {},
        observed=(status.observed_generation or 0) >= metadata.generation,
        paused=bool(spec.paused),
        desired=1 if spec.replicas is None else spec.replicas,
        updated=status.updated_replicas or 0,
        available=status.available_replicas or 0,
        total=status.replicas or 0,
        deadline_seconds=spec.progress_deadline_seconds or 600,
        progressing="" if progressing is None else _mark(progressing),
        deadline_exceeded=progressing is not None
        and progressing.status == "False"
        and progressing.reason == "ProgressDeadlineExceeded",
        refused_pods=str(failure.message or failure.reason) if failure and failure.status == "True" else "",
    )


def _mark(condition: Any) -> str:
    return f"{condition.status} {condition.reason} {condition.last_update_time or condition.last_transition_time}"


def _runs(pod: Any, image: str) -> bool:
    return any(container.image == image for container in pod.spec.containers)


def _find_trouble(pod: Any) -> Trouble | None:
    """Say what keeps a pod from serving; None when nothing does."""
    name, status = pod.metadata.name, pod.status
    conditions = {one.type: one for one in status.conditions or []}
    ready = conditions.get("Ready")
    if ready is not None and ready.status == "True":
        return None
    for container in [*(status.init_container_statuses or []), *(status.container_statuses or [])]:
        trouble = _find_in_container(name, container)
        if trouble is not None:
            return trouble
    scheduled = conditions.get("PodScheduled")
    if scheduled is not None and scheduled.status == "False":
        return Trouble(name, "unscheduled", str(scheduled.reason), _shorten(scheduled.message))
    ports = [port.container_port for one in pod.spec.containers for port in one.ports or []]
    address = f"{status.pod_ip}:{ports[0]}" if status.pod_ip and ports and status.phase == "Running" else ""
    return Trouble(
        name, "unready", str(status.reason or status.phase or "Pending"), _shorten(status.message), address
    )


def _find_in_container(pod: str, container: Any) -> Trouble | None:
    waiting = container.state.waiting if container.state else None
    ended = container.last_state.terminated if container.last_state else None
    if waiting is not None and waiting.reason in _STUCK:
        return Trouble(pod, "stuck", waiting.reason, _shorten(waiting.message))
    if (container.restart_count or 0) >= _CRASHES:
        reason = waiting.reason if waiting is not None and waiting.reason else "Restarting"
        return Trouble(pod, "crash", reason, _describe_end(ended, container.restart_count))
    return None


def _describe_end(ended: Any, restarts: int) -> str:
    """How a container ended last, in its last words where the cluster kept them (FallbackToLogsOnError)."""
    if ended is None:
        return f"restarted {restarts} times"
    lines = (ended.message or "").strip().splitlines()
    said = f": {lines[-1].strip()}" if lines else ""
    return _shorten(f"{ended.reason or 'ended'}, exit code {ended.exit_code}{said}")


def _shorten(text: str | None) -> str:
    text = " ".join((text or "").split())
    return text if len(text) <= _MAX_MESSAGE else f"{text[: _MAX_MESSAGE - 1]}…"


def _reason(error: Any) -> str:
    """What the API server gives as its reason."""
    try:
        return str(json.loads(error.body)["message"])
    except (ValueError, KeyError, TypeError):
        return str(error.reason)
