"""Addresses of the blog."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.sitemaps import views as sitemaps
from django.urls import include, path
from django.views.decorators.csrf import csrf_exempt
from django.views.i18n import set_language

from blog_site.articles.sitemaps import SITEMAPS

handler400 = "blog_site.api.errors.bad_request"
handler500 = "blog_site.api.errors.server_error"

urlpatterns = [
    path("admin/", admin.site.urls),
    path("api/v1/", include("blog_site.api.urls")),
    # Without a token: all that a forged request could do is change the language of a page. With one, every page would
    # have a form of one browser alone, and none could be kept for the next reader.
    path("i18n/setlang/", csrf_exempt(set_language), name="set_language"),
    path(
        "sitemap.xml",
        sitemaps.index,
        {"sitemaps": SITEMAPS, "sitemap_url_name": "sitemap"},
        name="sitemap_index",
    ),
    path("sitemap-<section>.xml", sitemaps.sitemap, {"sitemaps": SITEMAPS}, name="sitemap"),
    path("", include("blog_site.users.urls")),
    path("", include("blog_site.api.page_urls")),
    path("media/", include("blog_site.media.urls")),
    path("", include("blog_site.comments.urls")),
    path("", include("blog_site.dashboard.urls")),
    path("", include("blog_site.articles.urls")),
]
