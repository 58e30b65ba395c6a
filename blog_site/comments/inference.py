"""The only door to the model: the inference service's HTTP API."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from django.conf import settings

from blog_site.tracing import current_origin
from ml.client import InferenceClient, InferenceError, PredictResponse, Readiness

from .models import Sentiment

__all__ = [
    "MAX_TEXTS",
    "InferenceError",
    "PredictResponse",
    "Readiness",
    "close_clients",
    "explain_text",
    "judge_draft",
    "predict_texts",
    "readiness",
]

MAX_TEXTS = 64  # a request; the service takes more, but a batch must be over well within the timeout
_DIGEST = re.compile(r"[0-9a-f]{64}")
_clients: Final[dict[tuple[str, str, float], InferenceClient]] = {}


def predict_texts(texts: Sequence[str]) -> PredictResponse:
    """Ask the model about at most MAX_TEXTS texts in one request; a prediction comes back for each.

    Raises InferenceError, permanent when asking again would fail again.
    """
    assert len(texts) <= MAX_TEXTS, len(texts)
    client, origin = _client(settings.INFERENCE_TIMEOUT_SECONDS), current_origin()
    answer = client.predict(texts, request_id=origin.request_id, traceparent=origin.traceparent)
    _check_answer(answer, len(texts))
    return answer


def judge_draft(text: str) -> PredictResponse:
    """Ask the model about a text that is being written, and wait for a moment only. Raises InferenceError."""
    client, origin = _client(settings.DRAFT_TIMEOUT_SECONDS), current_origin()
    answer = client.predict([text], request_id=origin.request_id, traceparent=origin.traceparent)
    _check_answer(answer, 1)
    return answer


def explain_text(text: str) -> PredictResponse:
    """Ask the model about one text and which words of it made it say so. Raises InferenceError."""
    client, origin = _client(settings.EXPLANATION_TIMEOUT_SECONDS), current_origin()
    answer = client.predict(
        [text], explain=True, request_id=origin.request_id, traceparent=origin.traceparent
    )
    _check_answer(answer, 1)
    return answer


def readiness() -> Readiness:
    """Which model the service answers with, which it was told to, what is wrong. Raises InferenceError."""
    return _client(settings.INFERENCE_TIMEOUT_SECONDS).ready()


def close_clients() -> None:
    """Close the connections that are kept; the next question opens others."""
    while _clients:
        _clients.popitem()[1].close()


def _client(timeout_seconds: float) -> InferenceClient:
    """Give the client for calls that may take so long: explanations that come too late must not stop the scoring."""
    key = (settings.INFERENCE_URL, settings.INFERENCE_TOKEN, timeout_seconds)
    client = _clients.get(key)
    if client is None:
        made = InferenceClient(settings.INFERENCE_URL, timeout_seconds, token=settings.INFERENCE_TOKEN)
        client = _clients.setdefault(key, made)  # atomic: threads that come together share the first one
    return client


def _check_answer(answer: PredictResponse, expected: int) -> None:
    """Refuse an answer that the tables cannot hold, so that nothing half-understood is stored."""
    if not _DIGEST.fullmatch(answer.model):
        raise InferenceError(
            f"the inference service names its model {answer.model!r:.80}, not a sha256", permanent=True
        )
    if len(answer.predictions) != expected:
        raise InferenceError(
            f"the inference service gave {len(answer.predictions)} predictions for {expected} texts",
            permanent=True,
        )
    unknown = {prediction.label for prediction in answer.predictions} - set(Sentiment.values)
    if unknown:
        raise InferenceError(
            f"the inference service gave the labels {sorted(unknown)}, the blog knows {Sentiment.values}",
            permanent=True,
        )
