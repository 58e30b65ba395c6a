"""What is sent to the service and what comes back, as bytes and as types."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ml.prediction import Attribution, Prediction


@dataclass(frozen=True)
class PredictResponse:
    """What one model said of each text asked, in order."""

    model: str  # digest
    predictions: tuple[Prediction, ...]
    latency_ms: float  # of the request that was answered, as seen from here
    explanations: tuple[tuple[Attribution, ...], ...] | None = None  # of each text, when they were asked for


@dataclass(frozen=True)
class Readiness:
    """Whether the service answers, with which model, and why not with the one it should use."""

    ready: bool
    model: str | None  # digest being served
    wanted: str | None  # digest the champion pointer names
    error: str | None


def render_request(texts: Sequence[str], explain: bool) -> bytes:
    """Write the body of a predict request; lone surrogates, which UTF-8 cannot carry, are left out."""
    document: dict[str, Any] = {"texts": [text.encode("utf-8", "ignore").decode() for text in texts]}
    if explain:
        document["explain"] = True
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def parse_answer(body: bytes, texts: Sequence[str], explain: bool, latency_ms: float) -> PredictResponse:
    """Read the answer to a predict request; raises ValueError, KeyError, TypeError or AttributeError for another."""
    document = json.loads(body)
    entries = document["predictions"]
    if len(entries) != len(texts):
        raise ValueError(f"{len(texts)} texts asked, {len(entries)} answered")
    explanations = (
        tuple(
            _parse_explanation(entry["explanation"], text) for entry, text in zip(entries, texts, strict=True)
        )
        if explain
        else None
    )
    predictions = tuple(_parse_prediction(entry) for entry in entries)
    return PredictResponse(str(document["model"]), predictions, latency_ms, explanations)


def parse_readiness(body: bytes) -> Readiness:
    """Read the answer of /readyz; raises ValueError, KeyError or TypeError for another."""
    document = json.loads(body)
    return Readiness(document["ready"], document["model"], document["wanted"], document["error"])


def problem_detail(body: bytes) -> str:
    """Say what an error document gives as its reason, or how a body that is none begins."""
    try:
        return str(json.loads(body)["detail"])
    except (ValueError, KeyError, TypeError):
        return body[:800].decode("utf-8", "replace")[:200]


def _parse_prediction(entry: Mapping[str, Any]) -> Prediction:
    return Prediction(
        label=str(entry["label"]),
        score=float(entry["score"]),
        probabilities={str(label): float(value) for label, value in entry["probabilities"].items()},
    )


def _parse_explanation(spans: Sequence[Mapping[str, Any]], text: str) -> tuple[Attribution, ...]:
    """Read an explanation; its places are those of the text as the caller has it, lone surrogates counted."""
    sent = [place for place, character in enumerate(text) if not "\ud800" <= character <= "\udfff"]
    found, end = [], 0
    for span in spans:
        if not end <= span["start"] < span["end"] <= len(sent):
            raise ValueError(
                f"the span {span['start']}:{span['end']} does not fit a text of {len(sent)} characters"
            )
        start, end = sent[span["start"]], span["end"]
        found.append(Attribution(start, sent[end - 1] + 1, str(span["text"]), float(span["weight"])))
    return tuple(found)
