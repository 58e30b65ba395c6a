"""The service's ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from ml.serve.health import health_routes
from ml.serve.latency import LatencyMiddleware
from ml.serve.open_inference import open_inference_routes
from ml.serve.predict_api import predict_routes
from ml.serve.problems import handle_problems
from ml.serve.service import InferenceService
from ml.serve.settings import ServeSettings


def create_app(settings: ServeSettings) -> FastAPI:
    """Make the application; it begins to follow the champion pointer when it is started, not before."""
    service = InferenceService(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        service.stop()

    app = FastAPI(title="Huisheng inference", description="Sentiment of Chinese texts.", lifespan=lifespan)
    app.add_middleware(LatencyMiddleware, metrics=service.metrics)
    handle_problems(app)
    for routes in (predict_routes, open_inference_routes, health_routes):
        app.include_router(routes(service))
    return app
