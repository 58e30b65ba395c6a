"""Understanding requests: JSON, and texts within their limits."""

from __future__ import annotations

import json
from typing import Any

import orjson

from ml.serve.problems import Problem
from ml.serve.settings import ServeSettings


def parse_object(body: bytes) -> dict[str, Any]:
    """Understand a body as a JSON object; raises Problem 422 for anything else."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = _parse_leniently(body)
    if not isinstance(document, dict):
        raise Problem(422, f"the body must be a JSON object, got {type(document).__name__}", reason="limits")
    return document


def check_texts(texts: Any, where: str, settings: ServeSettings) -> list[str]:
    """Take a list of texts within the limits; raises Problem 422 naming the limit and the text."""
    if not isinstance(texts, list):
        raise Problem(422, f"{where} must be a list of strings", reason="limits")
    if len(texts) > settings.max_texts:
        raise Problem(
            422,
            f"{where} holds {len(texts)} texts, the limit is {settings.max_texts} a request",
            reason="limits",
        )
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise Problem(
                422, f"{where}[{index}] must be a string, got {type(text).__name__}", reason="limits"
            )
        if len(text) > settings.max_characters:
            limit = f"the limit is {settings.max_characters} a text"
            raise Problem(422, f"{where}[{index}] has {len(text)} characters, {limit}", reason="limits")
    return texts


def _parse_leniently(body: bytes) -> Any:
    """Parse what the quick parser refuses: half an emoji written as an escape is legal JSON, and a text to answer."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Problem(422, f"the body is not JSON in UTF-8: {error}", reason="limits") from error
