"""The three ways a client may patch an object, as the API server applies them."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

MERGE, STRATEGIC, JSON_PATCH = (
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/json-patch+json",
)
# Lists that a strategic patch merges by a key; every other list is replaced as a whole.
MERGE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "ephemeralContainers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "ports": "containerPort",
    "conditions": "type",
    "ownerReferences": "uid",
    "imagePullSecrets": "name",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
}
SERVICE_PORT_KEY = "port"  # a Service's ports are merged by another key than a container's


class PatchRefused(Exception):
    """The patch does not fit the object; the text is what the server answers with 422."""


def apply_patch(kind: str, target: dict[str, Any], patch: Any, how: str) -> dict[str, Any]:
    """Give the patched object, the given one being left as it is."""
    if how == JSON_PATCH:
        return apply_operations(deepcopy(target), patch)
    if not isinstance(patch, dict):
        raise PatchRefused(f"a patch of type {how} is an object")
    if how == MERGE:
        return merge(deepcopy(target), patch)
    return merge_strategically(kind, deepcopy(target), patch)


def merge(target: Any, patch: Any) -> Any:
    """Merge as RFC 7386 says."""
    if not isinstance(patch, dict):
        return deepcopy(patch)
    merged = target if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


def merge_strategically(kind: str, target: Any, patch: dict[str, Any]) -> dict[str, Any]:
    if patch.get("$patch") == "replace":
        return {key: deepcopy(value) for key, value in patch.items() if key != "$patch"}
    merged: dict[str, Any] = target if isinstance(target, dict) else {}
    for key, value in patch.items():
        if key.startswith("$"):
            continue
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            merged[key] = merge_strategically(kind, merged.get(key), value)
        elif isinstance(value, list) and key == "finalizers":
            merged[key] = [*merged.get(key, []), *(name for name in value if name not in merged.get(key, []))]
        elif isinstance(value, list) and key in MERGE_KEYS:
            by = SERVICE_PORT_KEY if kind == "Service" and key == "ports" else MERGE_KEYS[key]
            merged[key] = merge_list(kind, merged.get(key) or [], value, by)
        else:
            merged[key] = deepcopy(value)
    return merged


def merge_list(kind: str, target: list[Any], patch: list[Any], key: str) -> list[Any]:
    merged = list(target)
    for entry in patch:
        if not isinstance(entry, dict) or key not in entry:
            raise PatchRefused(f"map: {entry!r} does not contain declared merge key: {key}")
        found = next((index for index, old in enumerate(merged) if old.get(key) == entry[key]), None)
        if entry.get("$patch") == "delete":
            if found is not None:
                del merged[found]
        elif found is None:
            merged.append(merge_strategically(kind, {}, entry))
        else:
            merged[found] = merge_strategically(kind, merged[found], entry)
    return merged


def apply_operations(document: Any, operations: Any) -> Any:
    """Apply a JSON patch (RFC 6902); one operation that fails refuses all."""
    if not isinstance(operations, list):
        raise PatchRefused("a JSON patch is a list of operations")
    for operation in operations:
        document = apply_operation(document, operation)
    return document


def apply_operation(document: Any, operation: dict[str, Any]) -> Any:
    kind, path = operation["op"], parse_pointer(operation["path"])
    if kind == "test":
        if look_up(document, path) != operation["value"]:
            raise PatchRefused(f"testing value {operation['path']} failed")
        return document
    if kind in ("move", "copy"):
        source = parse_pointer(operation["from"])
        value = deepcopy(look_up(document, source))
        if kind == "move":
            remove(document, source)
        put(document, path, value, replace=False)
        return document
    if kind == "remove":
        remove(document, path)
        return document
    if kind in ("add", "replace"):
        put(document, path, deepcopy(operation["value"]), replace=kind == "replace")
        return document
    raise PatchRefused(f"no such operation: {kind}")


def parse_pointer(pointer: str) -> list[str]:
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]


def look_up(document: Any, path: list[str]) -> Any:
    for part in path:
        try:
            document = document[int(part)] if isinstance(document, list) else document[part]
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise PatchRefused(f"no such path: /{'/'.join(path)}") from error
    return document


def put(document: Any, path: list[str], value: Any, *, replace: bool) -> None:
    parent, last = look_up(document, path[:-1]), path[-1]
    if isinstance(parent, list):
        if replace:
            look_up(document, path)
            parent[int(last)] = value
        else:
            parent.insert(len(parent) if last == "-" else int(last), value)
    else:
        if replace:
            look_up(document, path)
        parent[last] = value


def remove(document: Any, path: list[str]) -> None:
    look_up(document, path)
    parent, last = look_up(document, path[:-1]), path[-1]
    if isinstance(parent, list):
        del parent[int(last)]
    else:
        del parent[last]
