"""POST /v1/predict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import orjson

from ml.explain import MAX_SPANS
from ml.serve.batcher import Probabilities
from ml.serve.exchange import Answer, DirectRoute, Exchange
from ml.serve.explainer import EXPLANATION_SCHEMA, MAX_EXPLAINED_TEXTS, Explainer, check_explain
from ml.serve.openapi import DIRECT_PROBLEMS, direct_operation
from ml.serve.requests import check_texts, parse_object
from ml.serve.service import InferenceService

_PATH: Final = "/v1/predict"
_DIGITS: Final = 6  # of a probability; float32 has no more

_REQUEST_SCHEMA = {
    "type": "object",
    "required": ["texts"],
    "properties": {
        "texts": {"type": "array", "items": {"type": "string"}},
        "explain": {
            "type": "boolean",
            "default": False,
            "description": "also say which words of each text made the model say so; for at most "
            f"{MAX_EXPLAINED_TEXTS} texts a request, and about as dear as {MAX_SPANS} more of each",
        },
    },
}
_REQUEST_EXAMPLE = {"texts": ["这本书很好看，强烈推荐！", "太差了，再也不会买了。"]}
_ANSWER_SCHEMA = {
    "type": "object",
    "required": ["model", "predictions"],
    "properties": {
        "model": {
            "type": "string",
            "description": "digest of the model that gave every one of these predictions",
        },
        "predictions": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["label", "score", "probabilities"],
                "properties": {
                    "label": {"type": "string"},
                    "score": {"type": "number", "description": "the label's probability"},
                    "probabilities": {"type": "object", "additionalProperties": {"type": "number"}},
                    "explanation": EXPLANATION_SCHEMA,
                },
            },
        },
    },
}
_ANSWER_EXAMPLE = {
    "model": "5f3c0a6c5b1f0f6d3f4e3b2a19080706f5e4d3c2b1a09f8e7d6c5b4a39281706",
    "predictions": [
        {
            "label": "positive",
            "score": 0.971204,
            "probabilities": {"negative": 0.010215, "neutral": 0.018581, "positive": 0.971204},
        },
        {
            "label": "negative",
            "score": 0.958811,
            "probabilities": {"negative": 0.958811, "neutral": 0.030114, "positive": 0.011075},
        },
    ],
}


def predict_routes(service: InferenceService) -> list[DirectRoute]:
    """Make the routes of the native API."""
    settings = service.settings
    explainer = Explainer(service)

    async def predict(exchange: Exchange) -> Answer:
        document = parse_object(exchange.body)
        texts = check_texts(document.get("texts"), "texts", settings)
        explain = "explain" in document and check_explain(document["explain"], texts)
        predictor = service.current_predictor()
        probabilities = await service.probabilities(exchange, predictor, texts)
        predictions = prediction_documents(probabilities, predictor.labels)
        if explain:
            found = predictor.predictions_of(probabilities)
            explanations = await explainer.explain(exchange, predictor, texts, found)
            for prediction, explanation in zip(predictions, explanations, strict=True):
                prediction["explanation"] = explanation
        service.record_answers(exchange, texts, [found["label"] for found in predictions])
        body = orjson.dumps({"model": predictor.digest, "predictions": predictions})
        return Answer(200, body, headers=[(b"x-model-digest", predictor.digest.encode())])

    operation = direct_operation(
        summary="Say what each text expresses",
        request=(_REQUEST_SCHEMA, _REQUEST_EXAMPLE),
        answer=(_ANSWER_SCHEMA, _ANSWER_EXAMPLE, "one prediction a text, in order"),
        problems=DIRECT_PROBLEMS,
    )
    return [DirectRoute(_PATH, predict, operation)]


def prediction_documents(probabilities: Probabilities, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Give predictions as JSON, one a row of (n, labels), their numbers to a millionth."""
    documents = []
    for row in rounded_rows(probabilities):
        score = max(row)
        documents.append(
            {
                "label": labels[row.index(score)],
                "score": score,
                "probabilities": dict(zip(labels, row, strict=True)),
            }
        )
    return documents


def rounded_rows(probabilities: Probabilities) -> list[list[float]]:
    """Give each row of (n, labels) to a millionth, in numbers that print so."""
    rows: list[list[float]] = np.round(probabilities.astype(np.float64), _DIGITS).tolist()
    return rows
