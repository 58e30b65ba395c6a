"""What all endpoints of the API have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from rest_framework import generics, serializers
from rest_framework.authentication import SessionAuthentication
from rest_framework.request import Request
from rest_framework.response import Response

from .authentication import TokenAuthentication
from .errors import handle_exception
from .etags import tell_version
from .parsers import ShallowJSONParser
from .throttles import Allowance

Filter = TypeVar("Filter", bound=serializers.Serializer[Any])


class ApiView(generics.GenericAPIView[Any]):
    """Who asks and how often, in what format, and how errors and versions are told."""

    # The token first: its answer to somebody unknown is 401 with WWW-Authenticate, the session's is 403.
    authentication_classes = (TokenAuthentication, SessionAuthentication)
    parser_classes = (ShallowJSONParser,)
    throttle_classes = (Allowance,)

    def get_exception_handler(self) -> Callable[[Exception, dict[str, Any]], Response | None]:
        return handle_exception

    def read_filter(self, filter_class: type[Filter]) -> dict[str, Any]:
        """Read the query string; raises ValidationError naming each parameter that is wrong."""
        read = filter_class(data=self.request.query_params.dict())
        read.is_valid(raise_exception=True)
        return dict(read.validated_data)

    def finalize_response(self, request: Request, response: Response, *args: Any, **kwargs: Any) -> Response:
        final = super().finalize_response(request, response, *args, **kwargs)
        tell_version(request, final)
        return final
