"""Uploading a picture, and showing one where no gateway does."""

from __future__ import annotations

import logging

from django.core.files.storage import default_storage
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST, require_safe

from .models import FILE_NAME
from .services import UploadRefused, store_image

logger = logging.getLogger(__name__)
# A file can be opened by itself: should a browser ever take it for a page, that page may do nothing.
HEADERS = {
    "Cache-Control": "public, max-age=31536000, immutable",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "X-Content-Type-Options": "nosniff",
    "Content-Disposition": "inline",
}


@require_POST
def upload(request: HttpRequest) -> JsonResponse:
    """Take the file in the field `file` and say how an article shows it."""
    if not request.user.is_authenticated:
        return JsonResponse({"error": _("登录已失效，请重新登录。")}, status=401)
    file = request.FILES.get("file")
    if file is None:
        return JsonResponse({"error": _("没有收到图片。")}, status=400)
    try:
        image = store_image(owner=request.user, file=file)
    except UploadRefused as refusal:
        answer = JsonResponse({"error": refusal.message}, status=refusal.status)
        if refusal.retry_after_seconds is not None:
            answer["Retry-After"] = str(refusal.retry_after_seconds)
        return answer
    return JsonResponse(
        {
            "id": image.pk,
            "url": image.url,
            "width": image.width,
            "height": image.height,
            "thumbnail": image.thumbnail_url(320),
            "markdown": f"![]({image.url})",
        },
        status=201,
    )


@require_safe
def show(request: HttpRequest, name: str) -> HttpResponse:
    """A picture's file. Its name says what it holds, so who has it only asks whether it is still there."""
    if not FILE_NAME.fullmatch(name):
        raise Http404
    headers = {"ETag": f'"{name}"', **HEADERS}
    try:
        if request.headers.get("If-None-Match") == headers["ETag"] and default_storage.exists(name):
            return HttpResponse(status=304, headers=headers)
        with default_storage.open(name) as file:
            content = file.read()
    except FileNotFoundError as error:
        raise Http404 from error
    except OSError as error:
        logger.warning("%s cannot be read: %s", name, error)
        return HttpResponse(status=503, headers={"Retry-After": "5", "Cache-Control": "no-store"})
    return HttpResponse(content, content_type="image/webp", headers=headers)
