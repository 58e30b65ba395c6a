"""The only door to a cluster's API server: objects as plain JSON, every call with a timeout, one typed error."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any, Final

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException

from federated.launch import LauncherError
from federated.launch.kubernetes.cluster import KUBECONFIG_VARIABLE, SERVICE_ACCOUNT_TOKEN

Object = dict[str, Any]

CONNECT_SECONDS, READ_SECONDS = 3, 10
PAGE_SIZE: Final = 250
RESTARTS_OF_A_LIST = 3
PATHS: Final = {
    "Job": "/apis/batch/v1/namespaces/{namespace}/jobs",
    "Pod": "/api/v1/namespaces/{namespace}/pods",
    "Secret": "/api/v1/namespaces/{namespace}/secrets",
    "Service": "/api/v1/namespaces/{namespace}/services",
    "Event": "/api/v1/namespaces/{namespace}/events",
}


class AlreadyExists(LauncherError):
    """There is an object of that name already."""


class Missing(LauncherError):
    """There is no object of that name."""


class Expired(LauncherError):
    """What the call refers to is forgotten by now (410): begin anew."""


class ClusterApi:
    """One namespace of a cluster. Every method raises LauncherError."""

    def __init__(self, api_client: client.ApiClient, namespace: str) -> None:
        self._client = api_client
        self.namespace = namespace

    def create(self, manifest: Object) -> Object:
        """Create an object. Raises AlreadyExists."""
        created: Object = self._call(
            "POST", manifest["kind"], body=manifest, what=f"create {describe(manifest)}"
        )
        return {"kind": manifest["kind"], **created}

    def get(self, kind: str, name: str) -> Object | None:
        """An object, or None."""
        try:
            found: Object = self._call("GET", kind, name, what=f"read {kind} {name}")
        except Missing:
            return None
        return {"kind": kind, **found}

    def list(self, kind: str, *, labels: str = "", fields: str = "") -> list[Object]:
        """All objects that fit, page by page; when the pages' token has expired, from the first one again."""
        for _ in range(RESTARTS_OF_A_LIST):
            try:
                return list(self._pages(kind, labels, fields))
            except Expired as error:
                expired = error
        raise LauncherError(str(expired), permanent=False)

    def _pages(self, kind: str, labels: str, fields: str) -> Iterator[Object]:
        query = {"limit": str(PAGE_SIZE), "labelSelector": labels, "fieldSelector": fields}
        while True:
            page = self._call("GET", kind, query=query, what=f"list {kind}s")
            for item in page["items"]:
                yield {"kind": kind, **item}  # a list says it once for all of them
            query["continue"] = page["metadata"].get("continue") or ""
            if not query["continue"]:
                return

    def patch(self, kind: str, name: str, change: Object) -> None:
        """Merge a change into an object (RFC 7386). Raises Missing."""
        self._call("PATCH", kind, name, body=change, what=f"change {kind} {name}")

    def delete(self, found: Object) -> None:
        """Delete this very object, and not another one that has its name by now; one that is gone is fine."""
        metadata = found["metadata"]
        # Said and not left to the server: what is deleted over batch/v1 would otherwise leave its pods behind.
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {"uid": metadata["uid"]},
        }
        try:
            self._call(
                "DELETE", found["kind"], metadata["name"], body=options, what=f"delete {describe(found)}"
            )
        except Missing:
            pass
        except LauncherError as error:
            if not isinstance(error.__cause__, ApiException) or error.__cause__.status != 409:
                raise  # 409: another object has taken its name

    def read_log(self, pod: str, container: str, lines: int) -> tuple[str, ...]:
        """The last lines that a container has written; none where it has not started, or is gone."""
        query = {"container": container, "tailLines": str(lines), "limitBytes": "16384"}
        try:
            # Raw, since the client would give a text that reads "b'…'".
            response = self._call(
                "GET", "Pod", f"{pod}/log", query=query, what=f"read the log of {pod}", raw=True
            )
        except LauncherError as error:
            if isinstance(error.__cause__, ApiException) and error.__cause__.status in (400, 404):
                return ()
            raise
        return tuple(response.data.decode("utf-8", "replace").splitlines())

    def _call(
        self,
        method: str,
        kind: str,
        name: str = "",
        *,
        what: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        raw: bool = False,
    ) -> Any:
        path = PATHS[kind].format(namespace=self.namespace) + (f"/{name}" if name else "")
        content = "application/merge-patch+json" if method == "PATCH" else "application/json"
        try:
            return self._client.call_api(
                path,
                method,
                query_params=[(key, value) for key, value in (query or {}).items() if value],
                header_params={"Accept": "*/*" if raw else "application/json", "Content-Type": content},
                body=body,
                response_types_map=dict.fromkeys((200, 201, 202), "object"),
                auth_settings=["BearerToken"],
                _return_http_data_only=True,
                _preload_content=not raw,
                _request_timeout=(CONNECT_SECONDS, READ_SECONDS),
            )
        except ApiException as error:
            raise explain(error, what, self.namespace) from error
        except AttributeError as error:
            # What the client itself makes of an answer without a body: that of a TLS handshake that broke off.
            if not isinstance(error.__context__, ApiException):
                raise
            raise explain(error.__context__, what, self.namespace) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise LauncherError(
                f"cannot {what}: the cluster's API does not answer ({error})", permanent=False
            ) from error


def describe(value: Object) -> str:
    return f"{value['kind']} {value['metadata']['name']}"


def explain(error: ApiException, what: str, namespace: str) -> LauncherError:
    """Make of an answer what a launcher's caller has to know: whether it may succeed later, and what to do."""
    reason, said = read_status(error)
    text = f"cannot {what} in namespace {namespace}: {error.status} {said}"
    if error.status == 409 and reason == "AlreadyExists":
        return AlreadyExists(text, permanent=True)
    if error.status == 404:
        return Missing(f"{text} (does the namespace exist? apply infra/k8s first)", permanent=True)
    if error.status == 410:
        return Expired(text, permanent=False)
    if error.status == 403 and "exceeded quota" in said:
        return LauncherError(
            text, permanent=False
        )  # other runs' objects are on their way out, or it is too small
    if error.status == 403:
        return LauncherError(
            f"{text}; the worker's ServiceAccount needs Role launcher of infra/k8s/base/worker/rbac.yaml",
            permanent=True,
        )
    # 401: a token that is being replaced. 409: somebody else changed it just now.
    transient = error.status in (0, 401, 408, 409, 429) or error.status >= 500
    return LauncherError(text, permanent=not transient)


def read_status(error: ApiException) -> tuple[str, str]:
    """Reason and message of the Status that the API server answers with; a proxy's page has none."""
    try:
        status = json.loads(error.body)
        return str(status.get("reason", "")), str(status.get("message", ""))
    except (TypeError, ValueError, AttributeError):
        return "", str(error.reason)


def connect(namespace: str) -> ClusterApi:
    """The cluster that this process's pod is in, else the one that KUBECONFIG names."""
    # By process: a worker's children must not share the connections that their parent has opened.
    return ClusterApi(_make_client(os.getpid(), os.environ.get(KUBECONFIG_VARIABLE, "")), namespace)


@functools.lru_cache(maxsize=4)
def _make_client(process: int, kubeconfig: str) -> client.ApiClient:
    configuration = client.Configuration()
    try:
        if SERVICE_ACCOUNT_TOKEN.exists():
            config.load_incluster_config(client_configuration=configuration)
        else:
            config.load_kube_config(config_file=kubeconfig or None, client_configuration=configuration)
    except (ConfigException, OSError) as error:
        raise LauncherError(
            f"no way to a cluster: {error}; run this in a worker's pod, or set {KUBECONFIG_VARIABLE}",
            permanent=True,
        ) from error
    configuration.retries = False  # whoever calls repeats by its own clock
    return client.ApiClient(configuration)
