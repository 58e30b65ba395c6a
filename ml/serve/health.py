"""Liveness, readiness and figures."""

from __future__ import annotations

from fastapi import APIRouter, Response

from ml.serve.metrics import CONTENT_TYPE
from ml.serve.problems import answer_json
from ml.serve.service import InferenceService


def health_routes(service: InferenceService) -> APIRouter:
    """Make the routes that probes and Prometheus ask."""
    router = APIRouter()

    @router.get("/livez", summary="Whether the process runs")
    async def livez() -> Response:
        return answer_json({"live": True})

    @router.get("/readyz", summary="Which model is served, which is wanted, and why they differ")
    async def readyz() -> Response:
        state = service.state
        ready = state.predictor is not None
        document = {"ready": ready, "model": state.model, "wanted": state.wanted, "error": state.error}
        return answer_json(document, 200 if ready else 503)

    @router.get("/metrics", summary="Figures for Prometheus")
    async def metrics() -> Response:
        return Response(service.metrics.render(), media_type=CONTENT_TYPE)

    return router
