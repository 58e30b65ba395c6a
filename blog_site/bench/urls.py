"""The blog's addresses, and one that answers with a constant: what any page costs before it does anything."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.urls import path

from blog_site.urls import urlpatterns as of_the_blog


def constant(request: HttpRequest) -> HttpResponse:
    return HttpResponse("ok", content_type="text/plain")


urlpatterns = [path("constant/", constant), *of_the_blog]
