"""Addresses of the blog."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

from blog_site import health

urlpatterns = [
    path("livez", health.livez),
    path("readyz", health.readyz),
    path("admin/", admin.site.urls),
    path("api/v1/", include("blog_site.api.urls")),
    path("i18n/", include("django.conf.urls.i18n")),
    path("", include("blog_site.users.urls")),
    path("", include("blog_site.comments.urls")),
    path("", include("blog_site.articles.urls")),
]
