"""The only door to the model: the inference service's HTTP API."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

from django.conf import settings

from ml.client import InferenceClient, InferenceError, PredictResponse, Readiness

from .models import Sentiment

__all__ = ["MAX_TEXTS", "InferenceError", "Readiness", "predict_texts", "readiness"]

MAX_TEXTS = 64  # a request; the service takes more, but a batch must be over well within the timeout
_DIGEST = re.compile(r"[0-9a-f]{64}")


def predict_texts(texts: Sequence[str]) -> PredictResponse:
    """Ask the model about at most MAX_TEXTS texts in one request; a prediction comes back for each.

    Raises InferenceError, permanent when asking again would fail again.
    """
    assert len(texts) <= MAX_TEXTS, len(texts)
    answer = _client(settings.INFERENCE_URL, settings.INFERENCE_TIMEOUT_SECONDS).predict(texts)
    _check_answer(answer, len(texts))
    return answer


def readiness() -> Readiness:
    """Which model the service answers with, which it was told to, what is wrong. Raises InferenceError."""
    return _client(settings.INFERENCE_URL, settings.INFERENCE_TIMEOUT_SECONDS).ready()


@functools.lru_cache(maxsize=4)
def _client(url: str, timeout_seconds: float) -> InferenceClient:
    return InferenceClient(url, timeout_seconds)


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
