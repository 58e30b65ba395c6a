"""The documentation of the API: a page made of its own description, which needs no script."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import get_language
from django.views.decorators.http import require_safe
from markdown_it import MarkdownIt

from .description import describe_api
from .errors import PROBLEMS
from .schema import CODES

METHODS = ("get", "post", "put", "patch", "delete")
ORIGIN = "https://blog.example"  # in the examples; the page is the same whatever host it is read from


@dataclass(frozen=True)
class Member:
    """A field of a body, or a parameter."""

    name: str
    type: str
    required: bool
    description: str
    place: str = ""  # of a parameter: path, query, header
    model: str = ""  # the component that it consists of


@dataclass(frozen=True)
class Answer:
    status: str
    description: str
    model: str
    many: bool
    example: str


@dataclass(frozen=True)
class Operation:
    id: str
    method: str
    path: str
    summary: str
    description: SafeString
    needs_account: bool
    parameters: tuple[Member, ...]
    sends: str  # the component of the body
    answers: tuple[Answer, ...]
    curl: str


@dataclass(frozen=True)
class Section:
    """The operations of a tag."""

    name: str
    title: str
    operations: tuple[Operation, ...]


@dataclass(frozen=True)
class Model:
    name: str
    members: tuple[Member, ...]


@dataclass(frozen=True)
class Documentation:
    title: str
    introduction: SafeString
    sections: tuple[Section, ...]
    models: tuple[Model, ...]
    problems: tuple[tuple[int, str, str], ...]  # status, code, what it means


@require_safe
def documentation(request: HttpRequest) -> HttpResponse:
    return render(request, "api/docs.html", {"docs": _document(get_language() or "")})


@functools.lru_cache(maxsize=8)
def _document(language: str) -> Documentation:
    described = _inline_enums(describe_api())
    statuses = {code: status for status, code in CODES.items()}
    statuses |= {
        "parse_error": 400,
        "authentication_failed": 401,
        "method_not_allowed": 405,
        "server_error": 500,
    }
    return Documentation(
        title=described["info"]["title"],
        introduction=_markdown(described["info"]["description"]),
        sections=tuple(_section(tag, described) for tag in described["tags"]),
        models=tuple(_model(name, schema) for name, schema in _objects(described)),
        problems=tuple(sorted((statuses[code], code, str(meaning)) for code, meaning in PROBLEMS.items())),
    )


def _inline_enums(described: dict[str, Any]) -> dict[str, Any]:
    """Put the choices of a field where the description refers to a component for them."""
    components = described["components"]["schemas"]
    enums = {f"#/components/schemas/{name}": said for name, said in components.items() if "enum" in said}

    def inline(value: Any) -> Any:
        if isinstance(value, dict):
            if value.get("$ref") in enums:
                return {"enum": enums[value["$ref"]]["enum"]}
            return {name: inline(inner) for name, inner in value.items()}
        return [inline(inner) for inner in value] if isinstance(value, list) else value

    inlined: dict[str, Any] = inline(described)
    return inlined


def _markdown(text: str) -> SafeString:
    return mark_safe(MarkdownIt("commonmark", {"html": False}).render(text))  # noqa: S308  our own texts


def _section(tag: dict[str, str], described: dict[str, Any]) -> Section:
    operations = [
        _operation(method.upper(), path, of_path[method])
        for path, of_path in described["paths"].items()
        for method in METHODS
        if method in of_path and of_path[method]["tags"] == [tag["name"]]
    ]
    return Section(tag["name"], tag["description"], tuple(operations))


def _operation(method: str, path: str, said: dict[str, Any]) -> Operation:
    body = _json(said.get("requestBody", {}))
    sent = _example(body)
    return Operation(
        id=said["operationId"],
        method=method,
        path=path,
        summary=said["summary"],
        description=_markdown(said.get("description", "")),
        needs_account={} not in said.get("security", [{}]),
        parameters=tuple(_parameter(parameter) for parameter in said.get("parameters", [])),
        sends=_name(body.get("schema", {}))[0],
        answers=tuple(_answer(status, answer) for status, answer in said["responses"].items()),
        curl=_curl(method, path, said, sent),
    )


def _json(said: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, dict[str, Any]] = said.get("content", {})
    return next(iter(content.values()), {})


def _example(body: dict[str, Any]) -> Any:
    examples = body.get("examples", {})
    return next((example["value"] for example in examples.values()), None)


def _pretty(value: Any) -> str:
    return "" if value is None else json.dumps(value, ensure_ascii=False, indent=2)


def _name(schema: dict[str, Any]) -> tuple[str, bool]:
    """The component that a schema refers to, and whether it is a list of them."""
    if "items" in schema:
        return _name(schema["items"])[0], True
    inner = next(
        (part for part in [schema, *schema.get("allOf", []), *schema.get("oneOf", [])] if "$ref" in part), {}
    )
    return inner.get("$ref", "").rpartition("/")[2], False


def _type(schema: dict[str, Any]) -> str:
    """A schema in a word or two, such as string, integer 1–100, "a" | "b"."""
    parts = schema.get("allOf", []) + schema.get("oneOf", [])
    enums = [choice for part in parts for choice in part.get("enum", [])]
    choices = (
        schema.get("enum") or enums or [part["const"] for part in schema.get("oneOf", []) if "const" in part]
    )
    if choices:
        return " | ".join(json.dumps(choice, ensure_ascii=False) for choice in choices)
    if "items" in schema:
        return f"[{_type(schema['items'])}]"
    name, _many = _name(schema)
    if name:
        return name
    kind = schema.get("type", "object")
    kinds = " | ".join(kind) if isinstance(kind, list) else str(kind)
    return " ".join(filter(None, [kinds, schema.get("format", ""), _bounds(schema)]))


def _bounds(schema: dict[str, Any]) -> str:
    if "maxLength" in schema:
        return f"≤ {schema['maxLength']}"
    least, most = schema.get("minimum"), schema.get("maximum")
    if least is None or most is None or most > 10**9:
        return ""
    return f"{least}–{most}"


def _parameter(said: dict[str, Any]) -> Member:
    return Member(
        name=said["name"],
        type=_type(said["schema"]),
        required=said.get("required", False),
        description=said.get("description", ""),
        place=said["in"],
    )


def _answer(status: str, said: dict[str, Any]) -> Answer:
    body = _json(said)
    model, many = _name(body.get("schema", {}))
    shown = _pretty(_example(body)) if status.startswith("2") else ""
    return Answer(status, said.get("description", ""), model, many, shown)


def _curl(method: str, path: str, said: dict[str, Any], sent: Any) -> str:
    """The request as one would type it."""
    values = {"slug": "soy-milk", "id": "12"}
    for name, value in values.items():
        path = path.replace(f"{{{name}}}", value)
    implied = "GET" if sent is None else "POST"
    words = [f"curl {ORIGIN}{path}" if method == implied else f"curl -X {method} {ORIGIN}{path}"]
    if {} not in said.get("security", [{}]):
        words.append("-H 'Authorization: Bearer '\"$TOKEN\"")
    if sent is not None:
        words.append("-H 'Content-Type: application/json'")
        words.append(f"-d '{json.dumps(sent, ensure_ascii=False)}'")
    return " \\\n  ".join(words)


def _objects(described: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (name, schema)
        for name, schema in sorted(described["components"]["schemas"].items())
        if "properties" in schema
    ]


def _model(name: str, schema: dict[str, Any]) -> Model:
    required = schema.get("required", [])
    return Model(
        name,
        tuple(
            Member(field, _type(said), field in required, said.get("description", ""), model=_name(said)[0])
            for field, said in schema["properties"].items()
        ),
    )
