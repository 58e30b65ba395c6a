"""Health of the web process: alive says that it answers, ready that it can do its work.

Answered before any other middleware: a probe asks by the pod's address, which is in no ALLOWED_HOSTS, and without
the TLS that every other request is redirected to.
"""

from __future__ import annotations

from collections.abc import Callable

from django.db import DatabaseError, connection
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse

from blog_site.database.schema import pending_migrations

_NAMED_MIGRATIONS = 3  # enough to see which release is meant; a new database lacks dozens

GetResponse = Callable[[HttpRequest], HttpResponseBase]


class HealthMiddleware:
    """Answers GET /livez and GET /readyz, and passes on everything else."""

    def __init__(self, get_response: GetResponse) -> None:
        self._get_response = get_response
        self._migrated = False  # what is applied stays applied: asked until the answer is yes

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if request.path_info not in ("/livez", "/readyz"):
            return self._get_response(request)
        if request.method not in ("GET", "HEAD"):
            return HttpResponse(
                "GET only", status=405, content_type="text/plain", headers={"Allow": "GET, HEAD"}
            )
        response = self._livez() if request.path_info == "/livez" else self._readyz()
        response["Cache-Control"] = "no-store"
        response["Content-Length"] = str(len(response.content))
        return response

    def _livez(self) -> HttpResponse:
        """Say that requests are answered; whatever else is away, a restart of this process would not bring it."""
        return HttpResponse("ok", content_type="text/plain")

    def _readyz(self) -> JsonResponse:
        """Only the migrated database is needed to serve pages; inference, broker and cache may be away."""
        error = self._what_is_missing()
        return JsonResponse({"ready": error is None, "error": error}, status=503 if error else 200)

    def _what_is_missing(self) -> str | None:
        try:
            if not self._migrated:
                if pending := pending_migrations(connection):
                    return f"migrations to apply: {_shorten(pending)}; run manage.py migrate"
                self._migrated = True
            else:
                with connection.cursor() as cursor:
                    cursor.execute("SELECT 1")
        except DatabaseError as error:
            return f"the database does not answer: {error}"
        return None


def _shorten(names: list[str]) -> str:
    shown = ", ".join(names[:_NAMED_MIGRATIONS])
    return shown if len(names) <= _NAMED_MIGRATIONS else f"{shown} and {len(names) - _NAMED_MIGRATIONS} more"
