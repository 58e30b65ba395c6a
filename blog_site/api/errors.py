"""The one shape in which the API reports errors: {"error": {"code", "message", "fields"}}."""

from __future__ import annotations

import math
from typing import Any

from django.conf import settings
from django.core.exceptions import PermissionDenied, RequestDataTooBig
from django.http import Http404, HttpRequest, JsonResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.csrf import csrf_exempt
from rest_framework import exceptions, status
from rest_framework.response import Response
from rest_framework.serializers import as_serializer_error
from rest_framework.views import exception_handler

from blog_site.allowances import TooMany

NO_FIELD = "non_field_errors"
RETRY_AFTER_SECONDS = 5  # where the inference service does not say itself when it is back


class PayloadTooLarge(exceptions.APIException):
    """Django finds a body longer than DATA_UPLOAD_MAX_MEMORY_SIZE, and would answer with a page."""

    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE
    default_code = "payload_too_large"

    def __init__(self) -> None:
        super().__init__(_("请求体最多 %(limit)d 字节") % {"limit": settings.DATA_UPLOAD_MAX_MEMORY_SIZE})


class ModelAway(exceptions.APIException):
    """The inference service gives no answer now; `wait` becomes Retry-After, in seconds."""

    status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    default_detail = gettext_lazy("暂时联系不上模型")
    default_code = "model_away"

    def __init__(self, retry_after_seconds: float | None) -> None:
        super().__init__()
        self.wait = max(1, math.ceil(retry_after_seconds or RETRY_AFTER_SECONDS))


def error_body(code: str, message: str, fields: dict[str, list[str]] | None = None) -> dict[str, Any]:
    """Build the body of an error; `fields` maps a field's name to what is wrong with it."""
    return {"error": {"code": code, "message": message, "fields": fields or {}}}


def handle_exception(exception: Exception, context: dict[str, Any]) -> Response | None:
    """Answer an exception that a view raised; None leaves what is nobody's mistake but ours to Django.

    DRF's own handler runs first, for its headers and for rolling back the transaction.
    """
    known = _as_api_exception(exception)
    response = exception_handler(known, context)
    if response is not None:
        assert isinstance(known, exceptions.APIException)
        response.data = _body(known)
    return response


def _as_api_exception(exception: Exception) -> Exception:
    if isinstance(exception, Http404):
        return exceptions.NotFound()
    if isinstance(exception, PermissionDenied):
        return exceptions.PermissionDenied()
    if isinstance(exception, RequestDataTooBig):
        return PayloadTooLarge()
    if isinstance(exception, TooMany):
        return exceptions.Throttled(exception.retry_after_seconds)
    return exception


def _body(exception: exceptions.APIException) -> dict[str, Any]:
    if not isinstance(exception, exceptions.ValidationError):
        return error_body(str(exception.get_codes()), str(exception.detail))
    fields = {name: _messages(said) for name, said in as_serializer_error(exception).items()}
    general = fields.pop(NO_FIELD, [])
    first = next((said for messages in fields.values() for said in messages), "")
    return error_body("invalid", " ".join(general) or first, fields)


def _messages(said: Any) -> list[str]:
    """Flatten what a serializer says of a field, which is a list of strings unless the field has fields."""
    if isinstance(said, dict):
        return [message for nested in said.values() for message in _messages(nested)]
    if isinstance(said, list):
        return [message for nested in said for message in _messages(nested)]
    return [str(said)]


@csrf_exempt  # an unknown address changes nothing, and says so to whoever asks
def unknown_address(request: HttpRequest) -> JsonResponse:
    """Answer what no other address under the API answers."""
    message = _("没有这个接口地址；接口地址都以 / 结尾")
    return JsonResponse(error_body("not_found", message), status=status.HTTP_404_NOT_FOUND)
