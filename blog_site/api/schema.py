"""What the OpenAPI description says of every operation: errors, versions, limits.

Settings name `ApiSchema`, so nothing here may import a view that is described: DRF would look for it too early.
"""

from __future__ import annotations

import functools
from typing import Any

from django.utils.translation import gettext_lazy as _
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    OpenApiResponse,
    extend_schema_serializer,
)
from rest_framework import serializers

from .errors import CONTENT_TYPE, PROBLEMS, describe_problem

CODES = {
    400: "invalid",
    401: "not_authenticated",
    403: "permission_denied",
    404: "not_found",
    406: "not_acceptable",
    409: "conflict",
    412: "precondition_failed",
    413: "payload_too_large",
    415: "unsupported_media_type",
    429: "throttled",
    503: "model_away",
}


@extend_schema_serializer(component_name="Problem")
class ProblemSerializer(serializers.Serializer[Any]):
    """An error, as RFC 9457 has it."""

    type = serializers.CharField(help_text=_("说明这类错误的地址"))
    title = serializers.CharField(help_text=_("这类错误的名字"))
    status = serializers.IntegerField(help_text=_("HTTP 状态码"))
    code = serializers.CharField(help_text=_("给程序看的错误代码"))
    detail = serializers.CharField(help_text=_("这一次哪里不对"))
    fields = serializers.DictField(  # type: ignore[assignment]
        child=serializers.ListField(child=serializers.CharField()),
        help_text=_("每个字段哪里不对；没有就为空"),
    )


class ProblemResponse(OpenApiResponse):
    """An answer in the one shape of errors."""

    def __init__(self, status_code: int) -> None:
        code = CODES[status_code]
        example = OpenApiExample(code, value=_LazyProblem(status_code, code))
        super().__init__(ProblemSerializer, description=PROBLEMS[code], examples=[example])


class _LazyProblem(dict[str, Any]):
    """Filled in when the schema is made: addresses are not known while modules are imported."""

    def __init__(self, status_code: int, code: str) -> None:
        super().__init__()
        self._fill = functools.partial(describe_problem, status_code, code, "")
        self._title = PROBLEMS[code]

    def items(self) -> Any:
        return (self._fill() | {"detail": str(self._title)}).items()


def describe_errors(*status_codes: int) -> dict[int, OpenApiResponse]:
    """The schema's answers of these status codes, beside those that any operation may give."""
    return {status_code: ProblemResponse(status_code) for status_code in status_codes}


_HEADER = OpenApiParameter.HEADER
_IF_NONE_MATCH = OpenApiParameter(
    "If-None-Match", str, _HEADER, description=_("手上那一版的 ETag；没有变化就回答 304")
)
_ETAG = OpenApiParameter("ETag", str, _HEADER, response=[200], description=_("这一版内容的名字"))
_RETRY_AFTER = OpenApiParameter(
    "Retry-After", int, _HEADER, response=[429, 503], description=_("多少秒以后再来")
)
IF_MATCH = OpenApiParameter(
    "If-Match", str, _HEADER, description=_("读到的那一版的 ETag；别人改过之后回答 412，什么也不改")
)


class ApiSchema(AutoSchema):
    """Adds to each operation what holds for all, and files it under the module that it stands in."""

    def get_tags(self) -> list[str]:
        module: str = type(self.view).__module__
        return [module.rpartition(".")[2]]

    def get_description(self) -> str:
        """Nothing but what an endpoint says of itself: docstrings are for who reads the code."""
        return ""

    def get_override_parameters(self) -> list[Any]:
        inherited = super().get_override_parameters()
        safe = [_IF_NONE_MATCH, _ETAG] if self.method == "GET" else []
        return [*inherited, *safe, _RETRY_AFTER]

    def _get_response_bodies(self, direction: Any = "response") -> dict[str, Any]:
        bodies: dict[str, Any] = super()._get_response_bodies(direction)
        if self.method == "GET":
            bodies.setdefault("304", {"description": str(_("没有变化"))})
        for status_code in self._errors_of_any():
            body = self._get_response_for_code(
                ProblemResponse(status_code), str(status_code), None, direction
            )
            bodies.setdefault(str(status_code), body)
        return dict(sorted(bodies.items()))

    def _errors_of_any(self) -> list[int]:
        read_only = [401, 406, 429] if self.view.authentication_classes else [406, 429]
        if self.method == "GET":
            return [*read_only, 400] if self._is_list_view() else read_only  # 400: page_size, cursor
        session = [403] if self.view.authentication_classes else []  # its CSRF token may be missing
        return [*read_only, *session, *([400, 413, 415] if self.get_request_serializer() else [])]

    def _get_response_for_code(
        self, serializer: Any, status_code: str, media_types: Any = None, direction: Any = "response"
    ) -> Any:
        if isinstance(serializer, ProblemResponse):
            media_types = [CONTENT_TYPE]
        return super()._get_response_for_code(serializer, status_code, media_types, direction)
