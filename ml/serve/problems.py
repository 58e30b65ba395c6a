"""Errors as documents: application/problem+json (RFC 9457)."""

from __future__ import annotations

import http
import json
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from ml.serve.metrics import Refusal

PROBLEM_TYPE: Final = b"application/problem+json"


class Problem(Exception):
    """A request that gets no answer: an HTTP status, what to do about it, and the reason it is counted under."""

    def __init__(
        self,
        status: int,
        detail: str,
        headers: dict[str, str] | None = None,
        *,
        reason: Refusal | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers
        self.reason = reason


def problem_document(status: int, detail: str, path: str) -> bytes:
    """Write a problem; escaped to ASCII, so that no string in it can fail to be sent."""
    document = {
        "type": "about:blank",
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    if path.startswith("/v2"):
        document["error"] = detail  # where the Open Inference Protocol puts it
    return json.dumps(document).encode()


def answer_json(document: Any, status: int = 200) -> Response:
    """Answer with a JSON document; escaped to ASCII, so that no string in it can fail to be sent."""
    return Response(json.dumps(document, allow_nan=False), status, media_type="application/json")


def handle_problems(app: FastAPI) -> None:
    """Make an app answer every error, its own, the framework's and unexpected ones, as a problem document."""
    app.add_exception_handler(HTTPException, _answer_http_exception)
    app.add_exception_handler(Exception, _answer_unexpected)


async def _answer_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers) if error.headers else None
    return _problem(
        request, error.status_code, f"{request.method} {request.url.path}: {error.detail}", headers
    )


async def _answer_unexpected(request: Request, error: Exception) -> Response:
    return _problem(request, 500, "unexpected failure; the service's log says more", None)


def _problem(request: Request, status: int, detail: str, headers: dict[str, str] | None) -> Response:
    content = problem_document(status, detail, request.url.path)
    return Response(content, status, headers, PROBLEM_TYPE.decode())
