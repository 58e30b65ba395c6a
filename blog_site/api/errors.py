"""The one shape in which the API reports errors: problem details (RFC 9457), with a `code` for programs."""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import Any

from django.conf import settings
from django.core.exceptions import PermissionDenied, RequestDataTooBig
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.urls import reverse
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views import defaults
from django.views.decorators.csrf import csrf_exempt
from rest_framework import exceptions, status
from rest_framework.response import Response
from rest_framework.serializers import as_serializer_error
from rest_framework.views import exception_handler

from blog_site.allowances import TooMany

CONTENT_TYPE = "application/problem+json"
NO_FIELD = "non_field_errors"
RETRY_AFTER_SECONDS = 5  # where the inference service does not say itself when it is back

# What a code means, whatever the request was: the documentation lists these.
PROBLEMS: dict[str, Promise] = {
    "invalid": gettext_lazy("请求里有不对的地方"),
    "parse_error": gettext_lazy("请求体读不懂"),
    "not_authenticated": gettext_lazy("需要登录或令牌"),
    "authentication_failed": gettext_lazy("登录或令牌不对"),
    "permission_denied": gettext_lazy("没有权限"),
    "not_found": gettext_lazy("没有找到"),
    "method_not_allowed": gettext_lazy("这个地址不接受这种方法"),
    "not_acceptable": gettext_lazy("没有所要的格式"),
    "conflict": gettext_lazy("与现状冲突"),
    "precondition_failed": gettext_lazy("内容已经变了"),
    "payload_too_large": gettext_lazy("请求体太大"),
    "unsupported_media_type": gettext_lazy("请求体不是 JSON"),
    "throttled": gettext_lazy("请求太频繁"),
    "server_error": gettext_lazy("服务器出错了"),
    "model_away": gettext_lazy("暂时联系不上模型"),
}


class PayloadTooLarge(exceptions.APIException):
    """Django finds a body longer than DATA_UPLOAD_MAX_MEMORY_SIZE, and would answer with a page."""

    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE
    default_code = "payload_too_large"

    def __init__(self) -> None:
        super().__init__(_("请求体最多 %(limit)d 字节") % {"limit": settings.DATA_UPLOAD_MAX_MEMORY_SIZE})


class Conflict(exceptions.APIException):
    """The request is well formed, and what is there already stands against it."""

    status_code = status.HTTP_409_CONFLICT
    default_detail = PROBLEMS["conflict"]
    default_code = "conflict"


class PreconditionFailed(exceptions.APIException):
    """If-Match names another version than the present one: somebody has changed it meanwhile."""

    status_code = status.HTTP_412_PRECONDITION_FAILED
    default_detail = gettext_lazy("你读过之后有人改过它：请再读一遍，然后重试")
    default_code = "precondition_failed"


class ModelAway(exceptions.APIException):
    """The inference service gives no answer now; `wait` becomes Retry-After, in seconds."""

    status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    default_detail = PROBLEMS["model_away"]
    default_code = "model_away"

    def __init__(self, retry_after_seconds: float | None) -> None:
        super().__init__()
        self.wait = max(1, math.ceil(retry_after_seconds or RETRY_AFTER_SECONDS))


def describe_problem(
    status_code: int, code: str, detail: str, fields: dict[str, list[str]] | None = None
) -> dict[str, Any]:
    """Build the body of an error; `fields` maps a field's name to what is wrong with it."""
    return {
        "type": f"{reverse('api:docs')}#problem-{code}",
        "title": str(PROBLEMS.get(code, HTTPStatus(status_code).phrase)),
        "status": status_code,
        "code": code,
        "detail": detail,
        "fields": fields or {},
    }


def handle_exception(exception: Exception, context: dict[str, Any]) -> Response | None:
    """Answer an exception that a view raised; None leaves what is nobody's mistake but ours to `server_error`.

    DRF's own handler runs first, for its headers and for rolling back the transaction.
    """
    known = _as_api_exception(exception)
    response = exception_handler(known, context)
    if response is not None:
        assert isinstance(known, exceptions.APIException)
        # Not the exception's own: DRF makes a 403 of a 401 where it has nothing to put into WWW-Authenticate.
        response.data = _body(known, response.status_code)
        response.content_type = CONTENT_TYPE
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


def _body(exception: exceptions.APIException, status_code: int) -> dict[str, Any]:
    if not isinstance(exception, exceptions.ValidationError):
        return describe_problem(status_code, str(exception.get_codes()), str(exception.detail))
    fields = {name: _messages(said) for name, said in as_serializer_error(exception).items()}
    general = fields.pop(NO_FIELD, [])
    first = next((said for messages in fields.values() for said in messages), "")
    return describe_problem(status_code, "invalid", " ".join(general) or first, fields)


def _messages(said: Any) -> list[str]:
    """Flatten what a serializer says of a field, which is a list of strings unless the field has fields."""
    if isinstance(said, dict):
        return [message for nested in said.values() for message in _messages(nested)]
    if isinstance(said, list):
        return [message for nested in said for message in _messages(nested)]
    return [str(said)]


def _respond(status_code: int, code: str, detail: str) -> JsonResponse:
    body = describe_problem(status_code, code, detail)
    return JsonResponse(
        body, status=status_code, content_type=CONTENT_TYPE, json_dumps_params={"ensure_ascii": False}
    )


@csrf_exempt  # an unknown address changes nothing, and says so to whoever asks
def unknown_address(request: HttpRequest) -> JsonResponse:
    """Answer what no other address under the API answers."""
    return _respond(404, "not_found", _("没有这个接口地址；接口地址都以 / 结尾"))


def _concerns_api(request: HttpRequest) -> bool:
    return request.path.startswith(reverse("api:articles").removesuffix("articles/"))


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer what Django refuses before a view sees it: to programs in their shape, to people with a page."""
    if _concerns_api(request):
        return _respond(400, "parse_error", str(PROBLEMS["parse_error"]))
    return defaults.bad_request(request, exception)


def server_error(request: HttpRequest) -> HttpResponse:
    """Answer our own mistakes; Django has put the exception into the log."""
    if _concerns_api(request):
        return _respond(500, "server_error", str(PROBLEMS["server_error"]))
    return defaults.server_error(request)
