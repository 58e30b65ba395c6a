"""What a browser is told it may do with our pages: Content-Security-Policy and Permissions-Policy.

Django 6.0 brings a middleware for the first of them; 5.2 has none. No page of ours holds a script or a style of its
own, so the header is the same for all of them but the admin's, and needs no nonce. A data block (JSON-LD, json_script)
is not run and so is not asked about.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final
from urllib.parse import SplitResult, urlsplit

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase

Sources = Mapping[str, Sequence[str]]

PAGES: Final[Sources] = {
    "default-src": ["'none'"],
    "script-src": ["'self'"],
    "style-src": ["'self'"],
    "img-src": ["'self'"],
    "font-src": ["'self'"],
    "connect-src": ["'self'"],
    "manifest-src": ["'self'"],
    "form-action": ["'self'"],
    "frame-ancestors": ["'none'"],
    "base-uri": ["'none'"],
    "object-src": ["'none'"],
}
# The admin's theme is driven by Alpine, which makes functions of what its templates say in attributes, and its style
# sheet has small pictures in it. Inline scripts and styles are refused there as everywhere.
ADMIN: Final[Sources] = {"script-src": ["'self'", "'unsafe-eval'"], "img-src": ["'self'", "data:"]}
PERMISSIONS: Final = ", ".join(
    f"{name}=()" for name in ("camera", "geolocation", "microphone", "payment", "usb")
)

GetResponse = Callable[[HttpRequest], HttpResponseBase]


def tell_policies(get_response: GetResponse) -> GetResponse:
    """Django middleware: every answer says what its page may do; a view that has said so itself is left alone."""
    of_pages = write_policy(PAGES | {"img-src": ["'self'", *settings.IMAGE_SOURCES]}, tls=settings.TLS)
    pictures = {"img-src": [*ADMIN["img-src"], *settings.IMAGE_SOURCES]}
    of_admin = write_policy(PAGES | ADMIN | pictures, tls=settings.TLS)

    def answer(request: HttpRequest) -> HttpResponseBase:
        response = get_response(request)
        response.headers.setdefault("Content-Security-Policy", of_admin if _is_admins(request) else of_pages)
        response.headers.setdefault("Permissions-Policy", PERMISSIONS)
        return response

    return answer


def _is_admins(request: HttpRequest) -> bool:
    return request.resolver_match is not None and "admin" in request.resolver_match.app_names


def write_policy(sources: Sources, *, tls: bool) -> str:
    """Write a policy as its header; behind TLS what a page names by http is fetched by https."""
    directives = [" ".join([name, *allowed]) for name, allowed in sources.items()]
    return "; ".join([*directives, *(["upgrade-insecure-requests"] if tls else [])])


def may_show_picture(address: str) -> bool:
    """Whether the policy of pages lets a browser load a picture from there (CSP 3, 6.7.2: scheme and host sources)."""
    parts = urlsplit(address)
    if not parts.netloc:
        return parts.scheme in ("", "https", "http")
    return any(_is_source_of(source, parts) for source in settings.IMAGE_SOURCES)


def _is_source_of(source: str, address: SplitResult) -> bool:
    if source.endswith(":"):
        return address.scheme == source[:-1]
    scheme, separator, host = source.rpartition("://")
    if separator and scheme != address.scheme:
        return False
    if host.startswith("*."):
        return address.netloc.endswith(host[1:])
    return address.netloc == host.rstrip("/")
