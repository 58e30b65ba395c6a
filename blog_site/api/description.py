"""The OpenAPI 3.1 description of the API, and where it is served."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from django.utils.translation import get_language
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.views import SpectacularAPIView
from rest_framework.request import Request
from rest_framework.response import Response

from .errors import handle_exception


def describe_api() -> dict[str, Any]:
    """The whole description in the language that is active; it changes with a release only."""
    return _describe_api(get_language() or "")


@functools.lru_cache(maxsize=8)
def _describe_api(language: str) -> dict[str, Any]:
    description: dict[str, Any] = SchemaGenerator().get_schema(request=None, public=True)
    return description


class Schema(SpectacularAPIView):
    """Serves the description as YAML, or as JSON where that is asked for."""

    def get_exception_handler(self) -> Callable[[Exception, dict[str, Any]], Response | None]:
        return handle_exception

    def _get_schema_response(self, request: Request) -> Response:
        suffix = self.perform_content_negotiation(request, force=True)[0].format
        inline = f'inline; filename="huisheng.{suffix}"'
        return Response(describe_api(), headers={"Content-Disposition": inline})
