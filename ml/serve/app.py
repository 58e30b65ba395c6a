"""The service's ASGI application."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from fastapi import FastAPI

from ml.serve.fleet import FLEET_FOLDER
from ml.serve.gateway import Gateway
from ml.serve.health import health_routes
from ml.serve.open_inference import infer_routes, metadata_routes
from ml.serve.openapi import document_direct_routes
from ml.serve.predict_api import predict_routes
from ml.serve.problems import handle_problems
from ml.serve.service import InferenceService
from ml.serve.settings import ServeSettings

_FIRST_LOOK_SECONDS: Final = 10.0  # that one process of several waits for a model before it listens without


def create_app(settings: ServeSettings) -> Gateway:
    """Make the application; it begins to follow the champion pointer when it is started, not before."""
    service = InferenceService(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        if FLEET_FOLDER in os.environ:
            # Others answer meanwhile: nobody shall meet the one of them that has no model yet.
            await asyncio.to_thread(service.wait_for_first_look, _FIRST_LOOK_SECONDS)
        yield
        service.stop()

    framework = FastAPI(
        title="Huisheng inference", description="Sentiment of Chinese texts.", lifespan=lifespan
    )
    handle_problems(framework)
    framework.include_router(health_routes(service))
    framework.include_router(metadata_routes(service))
    direct = [*predict_routes(service), *infer_routes(service)]
    document_direct_routes(framework, direct)
    return Gateway(service, framework, direct)
