"""Reading requests: bodies within their limit, JSON, and texts within theirs."""

from __future__ import annotations

import json
from typing import Any

from fastapi import Request

from ml.serve.problems import Problem
from ml.serve.settings import ServeSettings


async def read_json(request: Request, max_body_bytes: int) -> dict[str, Any]:
    """Read a JSON object; raises Problem 413 for a body beyond the limit, 422 for anything but an object."""
    body = await _read_body(request, max_body_bytes)
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Problem(422, f"the body is not JSON in UTF-8: {error}") from error
    if not isinstance(document, dict):
        raise Problem(422, f"the body must be a JSON object, got {type(document).__name__}")
    return document


def check_texts(texts: Any, where: str, settings: ServeSettings) -> list[str]:
    """Take a list of texts within the limits; raises Problem 422 naming the limit and the text."""
    if not isinstance(texts, list):
        raise Problem(422, f"{where} must be a list of strings")
    if len(texts) > settings.max_texts:
        raise Problem(422, f"{where} holds {len(texts)} texts, the limit is {settings.max_texts} a request")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise Problem(422, f"{where}[{index}] must be a string, got {type(text).__name__}")
        if len(text) > settings.max_characters:
            limit = f"the limit is {settings.max_characters} a text"
            raise Problem(422, f"{where}[{index}] has {len(text)} characters, {limit}")
    return texts


async def _read_body(request: Request, limit: int) -> bytes:
    too_large = Problem(
        413, f"the body is larger than the limit of {limit} bytes: send fewer texts a request"
    )
    announced = request.headers.get("content-length", "0")
    if announced.isdecimal() and int(announced) > limit:
        raise too_large
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise too_large
        parts.append(part)
    return b"".join(parts)
