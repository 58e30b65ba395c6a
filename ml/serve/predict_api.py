"""POST /v1/predict."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from ml.prediction import Prediction
from ml.serve.problems import answer_json
from ml.serve.requests import check_texts, read_json
from ml.serve.service import InferenceService

_REQUEST_SCHEMA = {
    "type": "object",
    "required": ["texts"],
    "properties": {"texts": {"type": "array", "items": {"type": "string"}}},
    "example": {"texts": ["这本书很好看，强烈推荐！", "太差了，再也不会买了。"]},
}
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
                    "score": {"type": "number"},
                    "probabilities": {"type": "object", "additionalProperties": {"type": "number"}},
                },
            },
        },
    },
}


def predict_routes(service: InferenceService) -> APIRouter:
    """Make the routes of the native API.

    The body is parsed and the answer written by hand: a response model costs as much as the model itself.
    """
    router = APIRouter()

    @router.post(
        "/v1/predict",
        summary="Say what each text expresses",
        openapi_extra={
            "requestBody": {"required": True, "content": {"application/json": {"schema": _REQUEST_SCHEMA}}}
        },
        responses={
            200: {
                "content": {"application/json": {"schema": _ANSWER_SCHEMA}},
                "description": "one prediction a text",
            },
            413: {"description": "the body is too large"},
            422: {"description": "not JSON, not texts, or beyond a limit, which the detail names"},
            503: {"description": "no model is being served"},
        },
    )
    async def predict(request: Request) -> Response:
        document = await read_json(request, service.settings.max_body_bytes)
        texts = check_texts(document.get("texts"), "texts", service.settings)
        predictor = service.current_predictor()
        predictions = await service.predict(predictor, texts)
        answer = {
            "model": predictor.digest,
            "predictions": [prediction_document(found) for found in predictions],
        }
        return answer_json(answer, headers={"X-Model-Digest": predictor.digest})

    return router


def prediction_document(prediction: Prediction) -> dict[str, Any]:
    """Give a prediction as JSON, its numbers to a millionth."""
    return {
        "label": prediction.label,
        "score": round(prediction.score, 6),
        "probabilities": {label: round(value, 6) for label, value in prediction.probabilities.items()},
    }
