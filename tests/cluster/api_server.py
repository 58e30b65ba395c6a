"""A Kubernetes API server on loopback for tests: real HTTP, so that the official client talks to it.

    with ApiServer() as api:
        batch = kubernetes.client.BatchV1Api(api.client())      # or: write_kubeconfig(api.url, path), and KUBECONFIG
        ...
        api.fail(status=500, verb="create", plural="jobs")      # the next such call fails
        controllers.Controllers(api.objects).step()             # what the cluster's controllers do, when a test says so

It knows pods (with log, eviction), secrets, configmaps, services, events, persistentvolumeclaims, jobs, deployments and
replicasets: get, list (selectors, limit and continue), watch (resourceVersion, closing, 410), create, update, patch
(merge, strategic, JSON), delete (propagation, preconditions), deletecollection. What is created is validated as the
real server does it: strictly. `requests` records every call as RBAC sees it; `allow` lets only what Roles allow pass.
"""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

import kubernetes.client

from tests.cluster.objects import RESOURCES, Change, Object, Objects, Refused
from tests.cluster.patches import JSON_PATCH, MERGE, STRATEGIC, PatchRefused, apply_patch

METHODS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass(frozen=True)
class Request:
    """A call as RBAC sees it."""

    verb: str  # get list watch create update patch delete deletecollection
    group: str
    resource: str  # with its subresource: "pods/log"
    namespace: str
    name: str = ""


@dataclass
class Fault:
    """What goes wrong with the next calls that fit."""

    status: int = 500
    reason: str = "InternalError"
    message: str = "etcdserver: request timed out"
    verb: str | None = None
    plural: str | None = None
    name: str | None = None
    times: int = 1
    seconds: float = 0  # it answers this late
    carried_out: bool = False  # what was asked is done, and only the answer is lost
    dropped: bool = False  # the connection is closed without an answer
    retry_after: int | None = None

    def fits(self, request: Request) -> bool:
        return (
            self.times > 0
            and self.verb in (None, request.verb)
            and self.plural in (None, request.resource)
            and self.name in (None, request.name)
        )


@dataclass
class Faults:
    entries: list[Fault] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, request: Request) -> Fault | None:
        with self.lock:
            for fault in self.entries:
                if fault.fits(request):
                    fault.times -= 1
                    return fault
        return None


class ApiServer:
    """The server; `objects` is what it keeps, and tests may read and write that directly."""

    def __init__(self) -> None:
        self.objects = Objects()
        self.requests: list[Request] = []
        self.logs: dict[tuple[str, str, str], str] = {}  # (namespace, pod, container) → what it has written
        self.token: str | None = None  # when set, calls need it as a bearer token
        self.allow: Sequence[Mapping[str, Any]] | None = None  # Roles' manifests; None allows everything
        self.continue_expires = 0  # so many continue tokens are answered 410
        self._faults = Faults()
        self._watches: list[Watch] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.api = self  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()

    def close(self) -> None:
        self.close_watches()
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def client(self) -> kubernetes.client.ApiClient:
        """The official client, as it talks to this server."""
        configuration = kubernetes.client.Configuration(host=self.url)
        configuration.retries = False
        if self.token is not None:
            configuration.api_key = {"BearerToken": f"Bearer {self.token}"}
        return kubernetes.client.ApiClient(configuration)

    # -- What goes wrong -----------------------------------------------------------------------------------------------

    def fail(self, **fault: Any) -> Fault:
        """Let the next call that fits fail: see Fault."""
        made = Fault(**fault)
        with self._faults.lock:
            self._faults.entries.append(made)
        return made

    def mend(self) -> None:
        """Let nothing go wrong any more."""
        with self._faults.lock:
            self._faults.entries.clear()

    def forget_history(self) -> None:
        """Compact, as etcd does every five minutes: watches from before now get 410, and lists cannot be continued."""
        with self.objects.changed:
            self.objects.compacted = self.objects.version
            self.objects.changed.notify_all()

    def close_watches(self) -> None:
        """End every watch amid its stream, as a server that is restarted does."""
        for watch in list(self._watches):
            watch.close()

    # -- Calls ---------------------------------------------------------------------------------------------------------

    def verbs(self) -> set[tuple[str, str, str, str]]:
        """What was asked so far: (namespace, group, resource, verb)."""
        return {
            (request.namespace, request.group, request.resource, request.verb) for request in self.requests
        }

    def authorize(self, request: Request, token: str | None) -> None:
        if self.token is not None and token != self.token:
            raise Refused(401, "Unauthorized", "Unauthorized")
        if self.allow is None:
            return
        for role in self.allow:
            if role["metadata"].get("namespace", request.namespace) != request.namespace:
                continue
            for rule in role["rules"]:
                if (
                    request.group in rule["apiGroups"]
                    and request.resource in rule["resources"]
                    and request.verb in rule["verbs"]
                    and (not rule.get("resourceNames") or request.name in rule["resourceNames"])
                ):
                    return
        raise Refused(
            403,
            "Forbidden",
            f'{request.resource} "{request.name}" is forbidden: User "test" cannot {request.verb} resource '
            f'"{request.resource}" in API group "{request.group}" in the namespace "{request.namespace}"',
        )


class Watch:
    """One open watch: what it has been told, and whether somebody wants it to end."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self.closed = False

    def close(self) -> None:
        with self._objects.changed:
            self.closed = True
            self._objects.changed.notify_all()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Any

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def log_message(self, *arguments: object) -> None:
        pass

    # -- One call ------------------------------------------------------------------------------------------------------

    def _answer(self) -> None:
        api: ApiServer = self.server.api
        parts = urlsplit(self.path)
        self.query = dict(parse_qsl(parts.query, keep_blank_values=True))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            if parts.path == "/version":
                self._send(200, {"major": "1", "minor": "36", "gitVersion": "v1.36.0"})
                return
            request, plural, subresource = self._route(parts.path)
            api.requests.append(request)
            fault = api._faults.take(request)
            if fault is not None:
                time.sleep(fault.seconds)
            if fault is not None and not fault.carried_out and (fault.dropped or fault.status):
                self._go_wrong(fault)
                return
            authorization = self.headers.get("Authorization", "")
            api.authorize(request, authorization.removeprefix("Bearer ") if authorization else None)
            if request.verb == "watch":
                self._watch(api, request, plural)
                return
            if fault is not None and fault.carried_out:
                with suppress(Refused):
                    self._carry_out(api, request, plural, subresource, body)
                self._go_wrong(fault)
                return
            answer = self._carry_out(api, request, plural, subresource, body)
            if isinstance(answer, str):
                self._send_bytes(200, answer.encode(), "text/plain")
            else:
                self._send(201 if request.verb == "create" else 200, answer)
        except Refused as refused:
            with suppress(OSError):
                self._send_status(refused.code, refused.reason, refused.message, refused.retry_after)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _route(self, path: str) -> tuple[Request, str, str]:
        """Read /api/v1/namespaces/NS/pods/NAME/log and /apis/batch/v1/namespaces/NS/jobs/NAME."""
        pieces = path.strip("/").split("/")
        if pieces[0] == "api":
            group, version, rest = "", pieces[1], pieces[2:]
        elif pieces[0] == "apis" and len(pieces) > 2:
            group, version, rest = pieces[1], pieces[2], pieces[3:]
        else:
            raise Refused(404, "NotFound", "the server could not find the requested resource")
        namespace = ""
        if len(rest) > 2 and rest[0] == "namespaces":
            namespace, rest = rest[1], rest[2:]
        plural, name, subresource = (*rest, "", "", "")[:3]
        resource = RESOURCES.get(plural)
        if (
            resource is None
            or (resource.group, resource.version) != (group, version)
            or (subresource and subresource not in resource.subresources)
        ):
            raise Refused(404, "NotFound", "the server could not find the requested resource")
        verb = METHODS[self.command]
        if verb == "get" and not name:
            verb = "watch" if self.query.get("watch") in ("true", "True", "1") else "list"
        if verb == "delete" and not name:
            verb = "deletecollection"
        shown = f"{plural}/{subresource}" if subresource else plural
        return Request(verb, group, shown, namespace, name), plural, subresource

    def _carry_out(
        self, api: ApiServer, request: Request, plural: str, subresource: str, body: bytes
    ) -> Object | str:
        objects, namespace, name = api.objects, request.namespace, request.name
        if subresource == "log":
            return self._read_log(api, namespace, name)
        if subresource == "eviction":
            objects.delete("pods", namespace, name)
            return status_object(201, "", "")
        if request.verb == "get":
            found = objects.get(plural, namespace, name)
            return scale_of(found) if subresource == "scale" else found
        if request.verb == "list":
            return self._list(api, request, plural)
        if request.verb == "create":
            return objects.create(plural, namespace, read_json(body))
        if request.verb == "update":
            return objects.replace(plural, namespace, name, read_json(body), subresource)
        if request.verb == "patch":
            return self._patch(objects, plural, namespace, name, subresource, body)
        options = read_json(body) if body else {}
        propagation = self.query.get("propagationPolicy") or options.get("propagationPolicy")
        if request.verb == "deletecollection":
            for found in self._selected(objects, plural, namespace):
                objects.delete(plural, namespace, found["metadata"]["name"], propagation)
            return status_object(200, "", "")
        uid = (options.get("preconditions") or {}).get("uid")
        gone = objects.delete(plural, namespace, name, propagation, uid)
        # The object itself where it is only marked, as with pods and foreground deletion; else a Status.
        return gone if "deletionTimestamp" in gone["metadata"] else status_object(200, "", "")

    def _patch(
        self, objects: Objects, plural: str, namespace: str, name: str, subresource: str, body: bytes
    ) -> Object:
        how = self.headers.get("Content-Type", "")
        if how not in (MERGE, STRATEGIC, JSON_PATCH):
            raise Refused(
                415, "UnsupportedMediaType", f"the body of the request was in an unknown format: {how}"
            )
        with objects.changed:
            old = objects.get(plural, namespace, name)
            try:
                if subresource == "scale":
                    wanted = apply_patch("Scale", scale_of(old), read_json(body), how)
                    new = {**old, "spec": {**old["spec"], "replicas": wanted["spec"]["replicas"]}}
                    subresource = ""
                else:
                    new = apply_patch(RESOURCES[plural].kind, old, read_json(body), how)
            except PatchRefused as error:
                raise Refused(422, "Invalid", str(error)) from error
            return objects.replace(plural, namespace, name, new, subresource)

    # -- Lists ---------------------------------------------------------------------------------------------------------

    def _selected(self, objects: Objects, plural: str, namespace: str) -> list[Object]:
        return objects.all(plural, namespace or None, lambda found: self._fits(plural, found))

    def _fits(self, plural: str, value: Object) -> bool:
        return fits_labels(value, self.query.get("labelSelector", "")) and fits_fields(
            plural, value, self.query.get("fieldSelector", "")
        )

    def _list(self, api: ApiServer, request: Request, plural: str) -> Object:
        objects = api.objects
        with objects.changed:
            items, version, after = self._selected(objects, plural, request.namespace), objects.version, ""
            if token := self.query.get("continue"):
                page = json.loads(base64.b64decode(token))
                version, after = page["version"], page["after"]
                if api.continue_expires > 0 or version < objects.compacted:
                    api.continue_expires = max(0, api.continue_expires - 1)
                    raise Refused(
                        410,
                        "Expired",
                        "The provided continue parameter is too old to display a consistent list result.",
                    )
                items = [item for item in items if item["metadata"]["name"] > after]
            metadata: Object = {"resourceVersion": str(version)}
            limit = int(self.query.get("limit") or 0)
            if limit and len(items) > limit:
                metadata["remainingItemCount"] = len(items) - limit
                items = items[:limit]
                page = {"version": version, "after": items[-1]["metadata"]["name"]}
                metadata["continue"] = base64.b64encode(json.dumps(page).encode()).decode()
        resource = RESOURCES[plural]
        return {
            "kind": f"{resource.kind}List",
            "apiVersion": resource.api_version,
            "metadata": metadata,
            "items": items,
        }

    def _read_log(self, api: ApiServer, namespace: str, name: str) -> str:
        pod = api.objects.get("pods", namespace, name)
        containers = [
            container["name"]
            for container in (*pod["spec"]["containers"], *pod["spec"].get("initContainers", []))
        ]
        wanted = self.query.get("container") or containers[0]
        if wanted not in containers:
            raise Refused(400, "BadRequest", f"container {wanted} is not valid for pod {name}")
        states = {
            entry["name"]: entry.get("state", {})
            for key in ("containerStatuses", "initContainerStatuses")
            for entry in pod.get("status", {}).get(key, [])
        }
        state = states.get(wanted, {})
        if "running" not in state and "terminated" not in state:
            reason = state.get("waiting", {}).get("reason", "ContainerCreating")
            raise Refused(
                400, "BadRequest", f'container "{wanted}" in pod "{name}" is waiting to start: {reason}'
            )
        lines = api.logs.get((namespace, name, wanted), "").splitlines(keepends=True)
        if tail := self.query.get("tailLines"):
            lines = lines[-int(tail) :] if int(tail) else []
        text = "".join(lines)
        return text[: int(self.query["limitBytes"])] if "limitBytes" in self.query else text

    # -- Watches -------------------------------------------------------------------------------------------------------

    def _watch(self, api: ApiServer, request: Request, plural: str) -> None:
        objects = api.objects
        watch = Watch(objects)
        deadline = time.monotonic() + float(self.query.get("timeoutSeconds") or 1800)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        api._watches.append(watch)
        try:
            asked = self.query.get("resourceVersion", "")
            seen = int(asked or 0)
            if seen == 0:  # what there is comes first
                with objects.changed:
                    seen = objects.version
                    present = self._selected(objects, plural, request.namespace)
                for value in present:
                    self._send_event("ADDED", value)
            elif seen < objects.compacted:
                self._send_event(
                    "ERROR",
                    status_object(410, "Expired", f"too old resource version: {seen} ({objects.compacted})"),
                )
                return
            while not watch.closed and time.monotonic() < deadline:
                with objects.changed:
                    changes = objects.changes_after(seen)
                    if not changes:
                        objects.changed.wait(min(0.5, max(0.0, deadline - time.monotonic())))
                        continue
                for change in changes:
                    seen = change.version
                    if change.plural == plural and request.namespace in (
                        "",
                        change.now["metadata"]["namespace"],
                    ):
                        self._tell(change, plural)
        finally:
            api._watches.remove(watch)
            with suppress(OSError):
                self.wfile.write(b"0\r\n\r\n")
            self.close_connection = True

    def _tell(self, change: Change, plural: str) -> None:
        """Tell of a change, seen through the watch's selector: what enters it is added, what leaves it deleted."""
        fits = self._fits(plural, change.now)
        fitted = change.before is not None and self._fits(plural, change.before)
        if change.kind == "DELETED":
            if fitted:
                self._send_event("DELETED", change.now)
        elif fits:
            self._send_event("MODIFIED" if fitted else "ADDED", change.now)
        elif fitted:
            self._send_event("DELETED", change.now)

    def _send_event(self, kind: str, value: Object) -> None:
        line = json.dumps({"type": kind, "object": value}).encode() + b"\n"
        self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
        self.wfile.flush()

    # -- Answers -------------------------------------------------------------------------------------------------------

    def _go_wrong(self, fault: Fault) -> None:
        if fault.dropped:
            self.close_connection = True
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
        else:
            self._send_status(fault.status, fault.reason, fault.message, fault.retry_after)

    def _send_status(self, code: int, reason: str, message: str, retry_after: int | None = None) -> None:
        self._send(code, status_object(code, reason, message), retry_after)

    def _send(self, code: int, value: Object, retry_after: int | None = None) -> None:
        self._send_bytes(code, json.dumps(value).encode(), "application/json", retry_after)

    def _send_bytes(self, code: int, body: bytes, kind: str, retry_after: int | None = None) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if retry_after is not None:
            self.send_header("Retry-After", str(retry_after))
        self.end_headers()
        self.wfile.write(body)


def status_object(code: int, reason: str, message: str) -> Object:
    failed = {"reason": reason, "code": code} if code >= 400 else {}
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure" if code >= 400 else "Success",
        "message": message,
        **failed,
    }


def scale_of(value: Object) -> Object:
    metadata = {
        key: value["metadata"][key]
        for key in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    }
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": {"replicas": value["spec"].get("replicas", 1)},
        "status": {"replicas": value.get("status", {}).get("replicas", 0)},
    }


def read_json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError as error:
        raise Refused(400, "BadRequest", f"the object provided is unrecognized: {error}") from error


def fits_labels(value: Object, selector: str) -> bool:
    """Equality-based and set-based requirements, joined by commas."""
    labels = value["metadata"].get("labels", {})
    return all(fits_requirement(labels, part.strip()) for part in split_selector(selector))


def split_selector(selector: str) -> list[str]:
    parts, depth, part = [], 0, ""
    for character in selector:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and depth == 0:
            parts.append(part)
            part = ""
        else:
            part += character
    return [part for part in (*parts, part) if part.strip()]


def fits_requirement(labels: Mapping[str, str], requirement: str) -> bool:
    for word, wanted in ((" notin ", False), (" in ", True)):
        if word in requirement:
            key, _, values = requirement.partition(word)
            chosen = [value.strip() for value in values.strip().strip("()").split(",")]
            return (labels.get(key.strip()) in chosen) is wanted
    if "!=" in requirement:
        key, _, value = requirement.partition("!=")
        return labels.get(key.strip()) != value.strip()
    if "=" in requirement:
        key, _, value = requirement.replace("==", "=").partition("=")
        return labels.get(key.strip()) == value.strip()
    if requirement.startswith("!"):
        return requirement[1:].strip() not in labels
    return requirement in labels


def fits_fields(plural: str, value: Object, selector: str) -> bool:
    for requirement in split_selector(selector):
        wanted = "!=" not in requirement
        path, _, text = requirement.replace("==", "=").replace("!=", "=").partition("=")
        if path not in RESOURCES[plural].fields:
            raise Refused(400, "BadRequest", f"field label not supported: {path}")
        found: Any = value
        for part in path.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        if (str(found if found is not None else "") == text) is not wanted:
            return False
    return True


def write_kubeconfig(url: str, path: Path, namespace: str = "huisheng") -> Path:
    """A KUBECONFIG file that leads to the server."""
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "test",
                "clusters": [{"name": "test", "cluster": {"server": url}}],
                "users": [{"name": "test", "user": {}}],
                "contexts": [
                    {"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}
                ],
            }
        )
    )
    return path
