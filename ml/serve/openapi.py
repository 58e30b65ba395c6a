"""The service's OpenAPI document: what the framework cannot know of the routes that go past it, and every error."""

from __future__ import annotations

import http
from collections.abc import Mapping, Sequence
from typing import Any, Final

from fastapi import FastAPI

from ml.serve.exchange import DirectRoute

PROBLEM_SCHEMA: Final = {
    "type": "object",
    "description": "RFC 9457",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "what was wrong and what to do"},
    },
}

# By status: when it comes, and an example of its detail.
DIRECT_PROBLEMS: Final[Mapping[int, tuple[str, str]]] = {
    401: ("the bearer token is missing or wrong", "this service asks for a bearer token"),
    413: ("the body is too large", "the body is larger than the limit of 16777216 bytes"),
    422: (
        "not JSON, not texts, or beyond a limit, which the detail names",
        "texts holds 300 texts, the limit is 256 a request",
    ),
    429: (
        "more is asked than can be answered in time; Retry-After says when",
        "more is asked than can be answered in time; ask again later",
    ),
    500: ("the model failed on these very texts", "unexpected failure; the service's log says more"),
    503: (
        "no model is being served",
        "no model is being served (wanted: none): no model has been loaded yet",
    ),
    504: (
        "the time that X-Request-Timeout-Ms allows has passed",
        "the time that X-Request-Timeout-Ms allows passed before the texts were computed",
    ),
}

_REQUEST_HEADERS: Final = (
    ("X-Request-Timeout-Ms", {"type": "integer"}, "how long, from now, the answer is of use; then 504"),
    ("X-Request-ID", {"type": "string", "maxLength": 128}, "names the request; made where it is missing"),
    ("traceparent", {"type": "string"}, "W3C Trace Context"),
)
_ANSWER_HEADERS: Final = {
    "X-Model-Digest": {"description": "the model that answered", "schema": {"type": "string"}},
    "X-Request-ID": {"description": "names the request", "schema": {"type": "string"}},
}


def direct_operation(
    *,
    summary: str,
    request: tuple[dict[str, Any], Any],
    answer: tuple[dict[str, Any], Any, str],
    problems: Mapping[int, tuple[str, str]],
) -> dict[str, Any]:
    """Describe a route that takes and gives JSON: schema and example of both, and its errors."""
    request_schema, request_example = request
    answer_schema, answer_example, description = answer
    content = {"application/json": {"schema": answer_schema, "example": answer_example}}
    return {
        "summary": summary,
        "parameters": [
            {"name": name, "in": "header", "required": False, "schema": schema, "description": meaning}
            for name, schema, meaning in _REQUEST_HEADERS
        ],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": request_schema, "example": request_example}},
        },
        "responses": {
            "200": {"description": description, "headers": _ANSWER_HEADERS, "content": content},
            **{
                str(status): problem_response(status, when, detail)
                for status, (when, detail) in problems.items()
            },
        },
        "security": [{}, {"token": []}],
    }


def problem_response(status: int, when: str, detail: str) -> dict[str, Any]:
    """Describe an error: when it comes, and an example of its detail."""
    example = {
        "type": "about:blank",
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    schema = {"$ref": "#/components/schemas/Problem"}
    content = {"application/problem+json": {"schema": schema, "example": example}}
    return {"description": when, "content": content}


def json_response(description: str, example: Any) -> dict[str, Any]:
    """Describe an answer by an example of it."""
    return {"description": description, "content": {"application/json": {"example": example}}}


def document_direct_routes(app: FastAPI, routes: Sequence[DirectRoute]) -> None:
    """Add what goes past the framework to its OpenAPI document, when that is first asked for."""
    of_framework = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = of_framework()
            for route in routes:
                document["paths"][route.path] = {"post": route.operation}
            components = document.setdefault("components", {})
            components.setdefault("schemas", {})["Problem"] = PROBLEM_SCHEMA
            components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's documentation tells to extend it
