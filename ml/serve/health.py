"""Liveness, readiness and figures."""

from __future__ import annotations

from fastapi import APIRouter, Response

from ml.serve.metrics import CONTENT_TYPE
from ml.serve.openapi import json_response, problem_response
from ml.serve.problems import answer_json
from ml.serve.service import InferenceService

_DIGEST = "5f3c0a6c5b1f0f6d3f4e3b2a19080706f5e4d3c2b1a09f8e7d6c5b4a39281706"


def health_routes(service: InferenceService) -> APIRouter:
    """Make the routes that probes and Prometheus ask."""
    router = APIRouter()

    @router.get(
        "/livez",
        summary="Whether the process runs",
        responses={200: json_response("it does", {"live": True})},
    )
    async def livez() -> Response:
        return answer_json({"live": True})

    @router.get(
        "/readyz",
        summary="Which model is served, which is wanted, and why they differ",
        responses={
            200: json_response(
                "every process serves this model; an error says why it is not the one that is wanted",
                {
                    "ready": True,
                    "model": _DIGEST,
                    "wanted": "0" * 64,
                    "device": "cpu",
                    "error": "/srv/store/artifacts/0000…/manifest.json: missing",
                },
            ),
            503: json_response(
                "no model is served",
                {
                    "ready": False,
                    "model": None,
                    "wanted": None,
                    "device": None,
                    "error": "/srv/store/champion.json: missing",
                },
            ),
        },
    )
    async def readyz() -> Response:
        state = service.fleet_state
        document = {
            "ready": state.ready,
            "model": state.model,
            "wanted": state.wanted,
            "device": state.device,
            "error": state.error,
        }
        return answer_json(document, 200 if state.ready else 503)

    @router.get(
        "/metrics",
        summary="Figures for Prometheus",
        response_class=Response,
        responses={
            200: {
                "description": "the text format of Prometheus",
                "content": {"text/plain": {"example": "inference_ready 1.0\n"}},
            },
            401: problem_response(401, "the token is missing", "this service asks for a bearer token"),
        },
    )
    async def metrics() -> Response:
        return Response(service.metrics.render(), media_type=CONTENT_TYPE)

    return router
