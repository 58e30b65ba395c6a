"""Asking the API, and the shape in which it refuses."""

from __future__ import annotations

import json
from typing import Any

from django.test import Client

COMMENTS = "/api/v1/articles/soy-milk/comments/"


def post(client: Client, body: Any, address: str = COMMENTS, **extra: Any):
    """Send `body` as it is when it is bytes, else as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client.post(address, data, content_type="application/json", **extra)


def assert_error(response, status: int, code: str) -> dict[str, Any]:
    """Check that a response is an error in the one shape, and give it."""
    assert response.status_code == status, response.content
    assert response["Content-Type"] == "application/problem+json"
    body = response.json()
    assert body.keys() == {"type", "title", "status", "code", "detail", "fields"}
    assert (body["status"], body["code"]) == (status, code)
    assert body["title"]
    assert body["detail"]
    return body
