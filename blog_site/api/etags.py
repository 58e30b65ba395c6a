"""Versions of what the API tells: 304 to who has it already, 412 to who would overwrite another's change."""

from __future__ import annotations

import hashlib
from typing import Any

from django.http import HttpResponse, HttpResponseNotModified
from django.utils.cache import get_conditional_response, patch_cache_control, patch_vary_headers
from django.utils.http import parse_etags
from rest_framework.permissions import SAFE_METHODS
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from .errors import PreconditionFailed


def etag_of(content: bytes) -> str:
    """Name a version by its content, so that it is the same from every process."""
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'


def check_precondition(request: Request, present: Any) -> None:
    """Raise PreconditionFailed unless If-Match, where given, names the version of `present`, as GET would tell it.

    Weak ones count: the gateway marks an ETag as weak when it compresses the answer, and the content is the same.
    """
    asked = parse_etags(request.headers.get("If-Match", ""))
    if not asked or asked == ["*"]:
        return
    if etag_of(JSONRenderer().render(present)) not in [etag.removeprefix("W/") for etag in asked]:
        raise PreconditionFailed


def tell_version(request: Request, response: Response) -> None:
    """Give a successful answer to GET its ETag and caching headers once it is rendered, or make a 304 of it."""
    if request.method not in SAFE_METHODS or response.status_code != 200:
        return
    patch_vary_headers(response, ["Authorization", "Cookie", "Accept-Language"])
    patch_cache_control(
        response, private=True, no_cache=True
    )  # ask again each time: what one may see changes
    response.add_post_render_callback(lambda rendered: _conditional(request, rendered))


def _conditional(request: Request, rendered: Response) -> HttpResponse:
    rendered["ETag"] = etag_of(rendered.content)
    if "If-None-Match" not in request.headers:
        return rendered
    answer = get_conditional_response(request._request, etag=rendered["ETag"], response=rendered)
    return answer if isinstance(answer, HttpResponseNotModified) else rendered
