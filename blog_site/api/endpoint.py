"""What all endpoints of the API have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from drf_spectacular.utils import OpenApiResponse
from rest_framework import generics, serializers
from rest_framework.authentication import SessionAuthentication, TokenAuthentication
from rest_framework.response import Response

from .errors import handle_exception
from .parsers import ShallowJSONParser


class ErrorDetailSerializer(serializers.Serializer[Any]):
    code = serializers.CharField()
    message = serializers.CharField()
    fields = serializers.DictField(child=serializers.ListField(child=serializers.CharField()))  # type: ignore[assignment]


class ErrorSerializer(serializers.Serializer[Any]):
    error = ErrorDetailSerializer()


def describe_errors(*codes: int) -> dict[int, OpenApiResponse]:
    """The schema's answers of these status codes, all in the one shape."""
    return {code: OpenApiResponse(ErrorSerializer) for code in codes}


class ApiView(generics.GenericAPIView[Any]):
    """Who asks, in what format, and how errors are told."""

    # The token first: its answer to somebody unknown is 401 with WWW-Authenticate, the session's is 403.
    authentication_classes = (TokenAuthentication, SessionAuthentication)
    parser_classes = (ShallowJSONParser,)

    def get_exception_handler(self) -> Callable[[Exception, dict[str, Any]], Response | None]:
        return handle_exception
