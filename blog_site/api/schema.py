"""The description of the API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from drf_spectacular.views import SpectacularAPIView
from rest_framework.response import Response

from .errors import handle_exception


class Schema(SpectacularAPIView):
    """The OpenAPI 3.1 description of this API."""

    def get_exception_handler(self) -> Callable[[Exception, dict[str, Any]], Response | None]:
        return handle_exception
